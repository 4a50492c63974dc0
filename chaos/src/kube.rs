//! A real Kubernetes API for tests and scenarios: etcd and kube-apiserver, nothing else of a cluster.
//!
//! No kubelet, no scheduler, no controller but ours: what a test wants there it writes itself. Nothing needs root, and
//! everything ends with its owner.

mod api_server;

pub use api_server::{ApiServer, ApiServerError, User};
