//! What judges Garpike: the lab of network namespaces, its faults and its oracle; the simulator; the demo.
//!
//! Nothing here runs in a cluster; the container image is built without this crate.

mod api_host;
pub mod cluster;
pub mod demo;
pub mod fleet;
mod judge;
mod judged;
pub mod kube;
pub mod lab;
pub mod load;
mod measure;
mod objects;
mod observe;
mod overrides;
pub mod report;
pub mod scenario;
mod script;
pub mod sim;
mod target;
pub mod tools;
pub mod trial;
