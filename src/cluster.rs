//! The cluster that a command is about, through its API and with the rights of who calls.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio::task::JoinSet;

/// A cluster.
pub(crate) struct Cluster {
    /// Its API.
    pub(crate) client: Client,
    /// Where Garpike is.
    pub(crate) namespace: String,
}

impl Cluster {
    /// The kubeconfig that is meant: the one given, that of `$KUBECONFIG`, or `~/.kube/config`.
    pub(crate) fn kubeconfig(given: Option<&PathBuf>) -> Option<PathBuf> {
        let of_environment = || {
            let files = env::var_os("KUBECONFIG").filter(|files| !files.is_empty())?;
            env::split_paths(&files).find(|file| file.is_file())
        };
        let of_home = || Some(PathBuf::from(env::var_os("HOME")?).join(".kube/config")).filter(|file| file.is_file());
        given.cloned().or_else(of_environment).or_else(of_home)
    }

    /// Makes a client for it.
    pub(crate) async fn connect(kubeconfig: Option<&PathBuf>, namespace: String) -> Result<Self> {
        let kubeconfig = Self::kubeconfig(kubeconfig);
        if kubeconfig.is_none() && env::var_os("KUBERNETES_SERVICE_HOST").is_none() {
            bail!("there is no kubeconfig: give --kubeconfig FILE, or --manifests DIR on hosts without Kubernetes");
        }
        Ok(Self { client: garpike_kubernetes::connect(kubeconfig.as_deref()).await?, namespace })
    }

    /// What one of its speakers shows: the first, by name, that answers.
    pub(crate) async fn state(&self) -> Result<Value> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let listed = pods.list(&ListParams::default().labels(SPEAKERS)).await;
        let mut speakers = listed.with_context(|| format!("cannot list the pods of {}", self.namespace))?.items;
        speakers.retain(|pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running")));
        speakers.sort_by_key(ResourceExt::name_any);
        let mut last = None;
        for pod in speakers {
            let name = pod.name_any();
            match tokio::time::timeout(PATIENCE, fetch(&pods, &name)).await {
                Ok(Ok(state)) => return Ok(state),
                Ok(Err(error)) => last = Some(error.context(format!("pod {name}"))),
                Err(_) => last = Some(anyhow::anyhow!("pod {name} does not answer within {PATIENCE:?}")),
            }
        }
        match last {
            Some(error) => Err(error.context("no speaker shows its state")),
            None => bail!("no speaker runs in namespace {} (pods with {SPEAKERS})", self.namespace),
        }
    }
}

/// Reads the state of a speaker through a port-forward of the API: its port is open on 127.0.0.1 alone.
async fn fetch(pods: &Api<Pod>, name: &str) -> Result<Value> {
    let mut forwarder = pods.portforward(name, &[STATE_PORT]).await.context("no port-forward")?;
    let stream = forwarder.take_stream(STATE_PORT).context("the port-forward has no stream")?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with this function.
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let request = Request::get("/state.json").header("host", "127.0.0.1").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        bail!("the answer is {}", response.status());
    }
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the answer breaks off: {error}"))?.to_bytes();
    serde_json::from_slice(&body).context("the answer is no JSON")
}

/// As MetalLB's manifests label them.
const SPEAKERS: &str = "component=speaker";
/// The default of --health-probe-port.
const STATE_PORT: u16 = 17472;
/// Chosen: a node that died a moment ago must not hold up the command for long.
const PATIENCE: Duration = Duration::from_secs(5);
/// Chosen: far above the state of a thousand nodes with ten thousand addresses.
const ANSWER_MAX: usize = 64 * 1024 * 1024;
