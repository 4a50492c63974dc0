//! The thread that talks to the Kubernetes API.
//!
//! All of it happens here: the watches and what is made of them, the list of peers, and what is written. The thread that
//! answers ARP only looks at the latest values, so no list of ten thousand Services and no API server that hangs is ever
//! in its way.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};
use garpike_election::NodeName;
use garpike_kubernetes::{Component, ConfigurationReporter, Serving, TlsRules, recorder, serve_metrics};
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::checks::Finding;
use crate::clock;
use crate::peers::{self, Peers, Question, SavedPeers};
use crate::pipeline::View;
use crate::reports::Reports;
use crate::rights::{Right, Rights};
use crate::source::Rules;
use crate::source::cluster::saved::StateDir;
use crate::source::cluster::{Cluster, Handle};

/// What the thread is to do.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) kubeconfig: Option<PathBuf>,
    pub(crate) rules: Rules,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) node: NodeName,
    /// Who owns what.
    pub(crate) view: watch::Receiver<View>,
    /// What is wrong with this host.
    pub(crate) findings: watch::Receiver<Vec<Finding>>,
    /// `--pod-name`.
    pub(crate) pod: Option<String>,
    /// How to find the other speakers; `None`: nobody said which pods they are.
    pub(crate) peers: Option<Question>,
}

/// The metrics, to be served where the tokens of those who ask can be reviewed.
pub(crate) struct Metrics {
    pub(crate) listener: std::net::TcpListener,
    pub(crate) tls: TlsRules,
    pub(crate) certificate_dir: Option<PathBuf>,
    pub(crate) render: Arc<dyn Fn() -> String + Send + Sync>,
}

/// The thread, and what it has to say.
pub(crate) struct Api {
    pub(crate) cluster: Handle,
    /// `None` until the pods have been listed once.
    pub(crate) peers: watch::Receiver<Option<Peers>>,
    /// Those of the last run, as long as the pods have not been listed.
    pub(crate) last_peers: Peers,
    /// By how many seconds the clock of this host is ahead of the API server's.
    pub(crate) clock_ahead: watch::Receiver<i64>,
    /// The rights that are missing.
    pub(crate) missing_rights: watch::Receiver<BTreeSet<Right>>,
    metrics: Option<oneshot::Sender<Metrics>>,
    stop: CancellationToken,
    ended: Option<oneshot::Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Api {
    /// Starts the thread, which ends at `stop`.
    ///
    /// # Errors
    ///
    /// When there are no credentials for the API server; names `--kubeconfig`. One that does not answer is no error.
    pub(crate) async fn start(config: Config, stop: CancellationToken) -> Result<Self> {
        let state_dir = config.state_dir.as_deref().map(StateDir::new);
        let namespace = config.rules.scope.namespace.clone();
        let saved_peers = config.state_dir.as_deref().map(SavedPeers::new);
        let last_peers = saved_peers.as_ref().map(SavedPeers::read).unwrap_or_default();
        let rights = Rights::new();
        let missing_rights = rights.missing();
        let (cluster, handle) = Cluster::new(config.rules, state_dir);
        let (peers_in, peers) = watch::channel(None);
        let (peers_seen, services, problems) = (peers.clone(), handle.services.clone(), handle.configuration.clone());
        let snapshots = handle.snapshots.clone();
        let (clock_in, clock_ahead) = watch::channel(0);
        let (connected_in, connected) = oneshot::channel();
        let (ended_in, ended) = oneshot::channel();
        let (metrics, metrics_wanted) = oneshot::channel::<Metrics>();
        let (token, last_token) = (stop.clone(), stop.clone());
        let work = async move {
            let client = match garpike_kubernetes::connect(config.kubeconfig.as_deref()).await {
                Ok(client) => client,
                Err(error) => return drop(connected_in.send(Err(error))),
            };
            // Who started this thread waits.
            let _ = connected_in.send(Ok(()));
            let find_peers = async {
                match config.peers {
                    Some(question) => {
                        peers::follow(client.clone(), question, peers_in, saved_peers, rights.clone(), token.clone())
                            .await;
                    }
                    None => token.cancelled().await,
                }
            };
            let component = Component::Speaker(config.node.clone());
            let (findings_in, findings) = watch::channel(Vec::new());
            let configuration = ConfigurationReporter::new(client.clone(), &namespace, component, config.pod);
            let configuration = configuration.with_findings(findings);
            let (recorder, record) = recorder(client.clone(), "metallb-speaker", config.node.to_string());
            let reports = Reports {
                namespace,
                node: config.node,
                view: config.view,
                peers: peers_seen,
                services,
                snapshots,
                rights: rights.clone(),
                recorder,
            };
            tokio::join!(
                cluster.run(client.clone(), token.clone()),
                find_peers,
                reports.run(client.clone(), token.clone()),
                configuration.run(problems, token.clone()),
                clock::follow(client.clone(), clock_in, token.clone()),
                tell_findings(config.findings, findings_in, token.clone()),
                serve(client.clone(), metrics_wanted, token.clone()),
                // Ends with the reports, whose events it writes; one that hangs is not waited for.
                async {
                    tokio::select! {
                        () = record => {}
                        () = token.cancelled() => {}
                    }
                },
            );
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || {
            runtime.block_on(async move {
                // A request that hangs is given up with the speaker.
                let patience = async {
                    last_token.cancelled().await;
                    tokio::time::sleep(LAST_WORDS).await;
                };
                tokio::select! {
                    () = work => {}
                    () = patience => {}
                }
            });
            // Nobody may wait any more.
            let _ = ended_in.send(());
        };
        let thread = thread::Builder::new().name("kubernetes".to_owned()).spawn(run)?;
        let api = Self {
            cluster: handle,
            peers,
            last_peers,
            clock_ahead,
            missing_rights,
            metrics: Some(metrics),
            stop,
            ended: Some(ended),
            thread: Some(thread),
        };
        connected.await.map_err(|_| anyhow!("the thread that talks to the Kubernetes API is gone"))??;
        Ok(api)
    }

    /// Serves the metrics from now on.
    pub(crate) fn serve_metrics(&mut self, metrics: Metrics) {
        if let Some(sender) = self.metrics.take() {
            // The thread has ended: who waits for that is told.
            let _ = sender.send(metrics);
        }
    }

    /// A future that is done when the thread has ended.
    pub(crate) fn ended(&mut self) -> impl Future<Output = ()> + Send + 'static {
        let ended = self.ended.take();
        async move {
            if let Some(ended) = ended {
                // Closed without a word: the thread panicked, and its own hook has said so.
                let _ = ended.await;
            }
        }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed by its own hook.
            let _ = thread.join();
        }
    }
}

/// Puts what is wrong with the host into words, whenever it has changed.
async fn tell_findings(
    mut findings: watch::Receiver<Vec<Finding>>,
    texts: watch::Sender<Vec<String>>,
    stop: CancellationToken,
) {
    loop {
        let next = findings.borrow_and_update().iter().map(ToString::to_string).collect();
        texts.send_if_modified(|current| {
            let changed = *current != next;
            *current = next;
            changed
        });
        tokio::select! {
            () = stop.cancelled() => return,
            changed = findings.changed() => if changed.is_err() { return stop.cancelled().await },
        }
    }
}

async fn serve(client: Client, wanted: oneshot::Receiver<Metrics>, stop: CancellationToken) {
    let Ok(Metrics { listener, tls, certificate_dir, render }) = wanted.await else { return stop.cancelled().await };
    let serving = Serving { tls, certificate_dir, review: Some(client) };
    let served = match TcpListener::from_std(listener) {
        Ok(listener) => serve_metrics(listener, serving, render, stop).await.map_err(anyhow::Error::new),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = served {
        error!("metrics are not served: {error:#}");
    }
}

/// Chosen: less than what a speaker that ends spends on telling the others.
const LAST_WORDS: Duration = Duration::from_millis(200);
