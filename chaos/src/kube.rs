//! A real Kubernetes API for tests and scenarios: etcd and kube-apiserver, nothing else of a cluster.
//!
//! No kubelet, no scheduler, no controller but ours: what a test wants there it writes itself. Nothing needs root, and
//! everything ends with its owner. [`Proxy`] stands before the server and makes it slow, broken or silent.

mod api_server;
mod audit;
mod controller;
mod installation;
pub mod measure;
mod ports;
mod process;
mod proxy;
mod speakers;

pub use api_server::{ApiServer, ApiServerError, Server, Stack};
pub use audit::{Audit, Request};
pub use controller::{Controller, Memory, StillRunning};
pub use installation::{InstallError, Installation, apply, apply_status, define};
pub use process::Process;
pub use proxy::{Answers, Faults, Proxy, ProxyError, Which};
pub use speakers::{Speakers, SpeakersError};
