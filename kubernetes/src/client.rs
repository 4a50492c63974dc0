//! A client whose requests end.

use std::path::Path;
use std::time::Duration;

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use thiserror::Error;

/// Makes a client from a kubeconfig file, else as the ServiceAccount of this pod. Sends nothing yet.
///
/// # Errors
///
/// When the file, or what Kubernetes mounts into a pod, cannot be used.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    // The first of a process decides; another one has done the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = match kubeconfig {
        Some(path) => from_file(path)
            .await
            .map_err(|source| ConnectError::File { path: path.display().to_string(), source: Box::new(source) })?,
        None => Config::incluster().map_err(|source| ConnectError::Pod(Box::new(source)))?,
    };
    config.connect_timeout = Some(CONNECT_WITHIN);
    config.read_timeout = Some(READ_WITHIN);
    config.write_timeout = Some(WRITE_WITHIN);
    // Who asks decides whether to ask again: a write that is sent twice in silence may succeed and then be answered with a
    // conflict, as if nothing had been written.
    config.default_retry = false;
    Client::try_from(config).map_err(|source| ConnectError::Client(Box::new(source)))
}

async fn from_file(path: &Path) -> Result<Config, KubeconfigError> {
    Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await
}

/// Why there is no client.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The kubeconfig file cannot be used.
    #[error("cannot use the kubeconfig {path}")]
    File {
        /// The file.
        path: String,
        /// The cause.
        source: Box<KubeconfigError>,
    },
    /// This is no pod.
    #[error("this is no pod of a cluster; give --kubeconfig FILE to run outside of one")]
    Pod(#[source] Box<InClusterError>),
    /// The parts do not make a client.
    #[error("cannot make a client for the Kubernetes API")]
    Client(#[source] Box<kube::Error>),
}

/// Chosen: a handshake that takes longer fails on the next server sooner.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long nothing may come of a connection. A watch without changes gets a bookmark each minute, so one that is silent
/// for longer is dead.
const READ_WITHIN: Duration = Duration::from_secs(90);
/// Chosen as for a connection: requests are small.
const WRITE_WITHIN: Duration = Duration::from_secs(5);
