//! The thread that talks to the Kubernetes API.
//!
//! All of it happens here: the watches and what is made of them, the list of peers, and what is written. The thread that
//! answers ARP only looks at the latest values, so no list of ten thousand Services and no API server that hangs is ever
//! in its way.

use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};
use garpike_election::NodeName;
use garpike_kubernetes::recorder;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::peers::{self, Peers, Question};
use crate::pipeline::View;
use crate::reports::Reports;
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
    /// How to find the other speakers; `None`: nobody said which pods they are.
    pub(crate) peers: Option<Question>,
}

/// The thread, and what it has to say.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) cluster: Handle,
    /// `None` until the pods have been listed once.
    pub(crate) peers: watch::Receiver<Option<Peers>>,
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
        let (cluster, handle) = Cluster::new(config.rules, state_dir);
        let (peers_in, peers) = watch::channel(None);
        let (peers_seen, services) = (peers.clone(), handle.services.clone());
        let (connected_in, connected) = oneshot::channel();
        let (ended_in, ended) = oneshot::channel();
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
                    Some(question) => peers::follow(client.clone(), question, peers_in, token.clone()).await,
                    None => token.cancelled().await,
                }
            };
            let (recorder, record) = recorder(client.clone(), "metallb-speaker", config.node.to_string());
            let reports =
                Reports { namespace, node: config.node, view: config.view, peers: peers_seen, services, recorder };
            tokio::join!(
                cluster.run(client.clone(), token.clone()),
                find_peers,
                reports.run(client.clone(), token.clone()),
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
        let api = Self { cluster: handle, peers, stop, ended: Some(ended), thread: Some(thread) };
        connected.await.map_err(|_| anyhow!("the thread that talks to the Kubernetes API is gone"))??;
        Ok(api)
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

/// Chosen: less than what a speaker that ends spends on telling the others.
const LAST_WORDS: Duration = Duration::from_millis(200);
