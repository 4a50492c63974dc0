//! What judges Garpike: the lab of network namespaces, its faults and its oracle; the simulator; the demo.
//!
//! Nothing here runs in a cluster; the container image is built without this crate.

pub mod demo;
pub mod fleet;
pub mod lab;
pub mod load;
pub mod report;
pub mod scenario;
pub mod sim;
pub mod trial;
