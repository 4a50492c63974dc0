//! Real speakers of the membership on loopback, each of which can die as a host does.
//!
//! Each has a thread of its own. A host that is cut off runs nothing, and its kernel answers no connection: its queue of
//! connections is full. When that ends the same process goes on, as after a partition.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use garpike_election::{Members, NodeName, NodeState, Selection, Spread};
use garpike_membership::io::{BindError, GossipSocket, Node, new_process};
use garpike_membership::{Config, FeatureLevel, Key, Profile, SecretKey, Surroundings};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// A cluster of speakers. Dropping it ends them.
pub struct Speakers {
    speakers: BTreeMap<NodeName, Speaker>,
}

struct Speaker {
    addr: SocketAddr,
    stop: CancellationToken,
    members: watch::Receiver<Members>,
    freeze: mpsc::Sender<std_mpsc::Receiver<()>>,
    cut_off: Option<CutOff>,
    thread: Option<JoinHandle<()>>,
}

/// While it is held nothing comes of the speaker.
struct CutOff {
    _release: std_mpsc::Sender<()>,
    _fillers: Vec<TcpStream>,
}

/// Why there are no speakers.
#[derive(Debug, Error)]
pub enum SpeakersError {
    /// An address is taken.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// There is no thread or no runtime for one.
    #[error("a speaker cannot be started")]
    Start(#[source] io::Error),
}

impl Speakers {
    /// Starts a speaker for each node at its address. They seal with `secret`, under the cluster name `garpike`.
    ///
    /// # Errors
    ///
    /// When one of them cannot be started.
    ///
    /// # Panics
    ///
    /// When `secret` is empty.
    pub fn start(nodes: &BTreeMap<NodeName, SocketAddr>, secret: &str) -> Result<Self, SpeakersError> {
        let key = Key::derive(&SecretKey::parse(secret.as_bytes()).expect("a secret is not empty"), "garpike");
        let mut speakers = BTreeMap::new();
        for (name, addr) in nodes {
            let (generation, process) = new_process();
            let config = Config {
                local: name.clone(),
                generation,
                process,
                gossip: *addr,
                seeds: nodes.values().copied().collect(),
                sealing: key.clone().into(),
                surroundings: Surroundings::new(Selection::All),
                // Other tests keep the processors busy beside them.
                profile: Profile::Relaxed,
                restart_grace: Duration::from_secs(60),
                failback: Some(Duration::from_secs(30)),
                host_ports: Vec::new(),
                spread: Spread::Hash,
                feature_level: FeatureLevel::CURRENT,
                later_facts: BTreeMap::new(),
            };
            speakers.insert(name.clone(), Speaker::start(config)?);
        }
        Ok(Self { speakers })
    }

    /// Waits until each knows all others and is ready.
    ///
    /// # Panics
    ///
    /// When a speaker has ended.
    pub async fn meet(&mut self) {
        let all = self.speakers.len();
        for speaker in self.speakers.values_mut() {
            let ready = |members: &Members| {
                members.nodes.len() == all && members.nodes.values().all(|member| member.state == NodeState::Ready)
            };
            speaker.members.wait_for(ready).await.expect("a speaker runs until it is dropped");
        }
    }

    /// The host of this node is cut off from all others, as if it were dead, until [`Self::reconnect`].
    ///
    /// # Errors
    ///
    /// When its kernel goes on answering.
    pub fn cut_off(&mut self, node: &NodeName) -> io::Result<()> {
        let speaker = self.speakers.get_mut(node).ok_or_else(|| io::Error::other(format!("there is no {node}")))?;
        let (release, released) = std_mpsc::channel();
        speaker.freeze.try_send(released).map_err(|_| io::Error::other("it has ended, or is cut off already"))?;
        speaker.cut_off = Some(CutOff { _release: release, _fillers: fill(speaker.addr)? });
        Ok(())
    }

    /// It is there again, and had lived all the time.
    pub fn reconnect(&mut self, node: &NodeName) {
        if let Some(speaker) = self.speakers.get_mut(node) {
            speaker.cut_off = None;
        }
    }

    /// Its process is gone; its host lives, and says so.
    pub fn kill_speaker(&mut self, node: &NodeName) {
        self.speakers.remove(node);
    }
}

impl Speaker {
    fn start(config: Config) -> Result<Self, SpeakersError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SpeakersError::Start)?;
        let addr = config.gossip;
        let socket = {
            let _inside = runtime.enter();
            GossipSocket::bind(addr)?
        };
        let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
        let (freeze, mut frozen) = mpsc::channel::<std_mpsc::Receiver<()>>(1);
        let cancel = stop.clone();
        let (node, handle) = {
            let _inside = runtime.enter();
            Node::new(config, socket)
        };
        let members = handle.members.clone();
        let run = move || {
            let _handle = handle;
            runtime.block_on(async {
                let freezer = async {
                    while let Some(release) = frozen.recv().await {
                        // The whole runtime stands still: that is the point.
                        let _ = release.recv();
                    }
                };
                tokio::select! {
                    () = node.run(stopped) => {}
                    () = cancel.cancelled() => {}
                    () = freezer => {}
                }
            });
        };
        let thread =
            std::thread::Builder::new().name(format!("speaker {addr}")).spawn(run).map_err(SpeakersError::Start)?;
        Ok(Self { addr, stop, members, freeze, cut_off: None, thread: Some(thread) })
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.cut_off = None;
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed by its own hook.
            let _ = thread.join();
        }
    }
}

/// Fills the queue of a listener whose process accepts nobody, until its kernel does not answer any more.
fn fill(addr: SocketAddr) -> io::Result<Vec<TcpStream>> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let mut fillers = Vec::new();
    while fillers.len() < PLACES_MAX {
        let Ok(mut stream) = TcpStream::connect_timeout(&addr, UNANSWERED) else { return Ok(fillers) };
        // Who says nothing takes no place.
        stream.write_all(&[0])?;
        fillers.push(stream);
    }
    Err(io::Error::other(format!("{addr} goes on answering connections")))
}

/// Above the queue of a speaker (1024) and what it may have accepted before it stood still.
const PLACES_MAX: usize = 4096;
/// Chosen: loopback answers in microseconds.
const UNANSWERED: Duration = Duration::from_millis(100);
