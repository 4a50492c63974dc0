//! Follows what the speakers know, without being a member.
//!
//! The observer connects to up to three of the peers that it is given, keeps to those that answer, and tries others, ever
//! more rarely, in place of those that do not. It is told by each speaker what that one knows; to judge whether a majority
//! says the same is its owner's part. It says nothing of itself but its name, and changes nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use garpike_election::NodeName;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::seed;
use super::talk::{Talk, connect};
use crate::datagram::Sender;
use crate::stream::{Conversation, Purpose, Snapshot, StreamEvent, StreamFault};
use crate::{ProcessId, Sealing, metrics};

/// How an observer observes.
#[derive(Clone, Debug)]
pub struct ObserverConfig {
    /// The name that speakers log. It need not be that of a node.
    pub name: NodeName,
    /// Drawn at random at the start of the process; not 0.
    pub process: ProcessId,
    /// The gossip addresses of the speakers. Those at the front are tried first.
    pub peers: Vec<SocketAddr>,
    /// How streams are protected.
    pub sealing: Sealing,
}

/// What the observed speakers know.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observed {
    /// By the address of each speaker that is being observed at this moment.
    pub speakers: BTreeMap<SocketAddr, Observation>,
}

/// What one speaker knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observation {
    /// The speaker's node.
    pub node: NodeName,
    /// Its [`crate::Cluster::state`].
    pub state: Arc<[u8]>,
    /// When it told so. It would have told of a change since.
    pub at: Instant,
}

/// The task; [`Observer::run`] is its body.
#[derive(Debug)]
pub struct Observer {
    config: ObserverConfig,
    observed: watch::Sender<Observed>,
    rng: StdRng,
    /// Who is tried next, the front first.
    waiting: VecDeque<Peer>,
    /// Who is being observed or tried.
    busy: BTreeSet<SocketAddr>,
}

/// A speaker to try, after a pause that grows with each failure.
#[derive(Clone, Copy, Debug)]
struct Peer {
    addr: SocketAddr,
    failures: u32,
}

#[derive(Debug)]
struct Told {
    by: SocketAddr,
    node: NodeName,
    state: Vec<u8>,
}

/// An observer, and what it learns.
pub fn observe(config: ObserverConfig) -> (Observer, watch::Receiver<Observed>) {
    let (observed, receiver) = watch::channel(Observed::default());
    let mut seen = BTreeSet::new();
    let distinct = config.peers.iter().copied().filter(|addr| seen.insert(*addr));
    let waiting = distinct.map(|addr| Peer { addr, failures: 0 }).collect();
    let rng = StdRng::from_seed(seed());
    (Observer { config, observed, rng, waiting, busy: BTreeSet::new() }, receiver)
}

impl Observer {
    /// Observes until `cancel` is called.
    pub async fn run(mut self, cancel: CancellationToken) {
        let (told, mut heard) = mpsc::channel(TOLD_DEPTH);
        let mut streams = JoinSet::new();
        loop {
            while self.busy.len() < OBSERVED_MAX
                && let Some(peer) = self.waiting.pop_front()
            {
                self.busy.insert(peer.addr);
                let pause = self.pause(peer.failures);
                streams.spawn(follow(peer, pause, self.config.clone(), told.clone()));
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(told) = heard.recv() => self.take(told),
                Some(ended) = streams.join_next() => {
                    let peer: Peer = ended.unwrap_or_else(|error| resume_unwind(error.into_panic()));
                    // What it told last is in the queue: taken later, it would look as if it were still observed.
                    while let Ok(told) = heard.try_recv() {
                        self.take(told);
                    }
                    self.busy.remove(&peer.addr);
                    self.waiting.push_back(peer);
                    self.observed.send_if_modified(|observed| observed.speakers.remove(&peer.addr).is_some());
                }
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
    fn take(&mut self, Told { by, node, state }: Told) {
        let observation = Observation { node, state: state.into(), at: Instant::now() };
        self.observed.send_modify(|observed| drop(observed.speakers.insert(by, observation)));
    }

    /// How long to wait before a speaker is tried that failed so often in a row.
    fn pause(&mut self, failures: u32) -> Duration {
        let Some(again) = failures.checked_sub(1) else { return Duration::ZERO };
        let pause = PAUSE_MIN.saturating_mul(1 << again.min(PAUSE_DOUBLINGS));
        // Observers that lost the same speaker do not come back in step.
        pause.mul_f64(self.rng.random_range(0.5..1.0))
    }
}

/// Observes one speaker for as long as it goes well.
async fn follow(peer: Peer, pause: Duration, config: ObserverConfig, told: mpsc::Sender<Told>) -> Peer {
    sleep(pause).await;
    let mut failures = peer.failures;
    match try_follow(peer.addr, config, &told, &mut failures).await {
        Ok(()) => debug!(peer = %peer.addr, "a speaker has ended the observation"),
        Err(fault) => {
            debug!(peer = %peer.addr, reason = fault.reason(), "speaker not observed");
            metrics::observation_failed(fault);
        }
    }
    Peer { failures: failures.saturating_add(1), ..peer }
}

#[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
async fn try_follow(
    addr: SocketAddr,
    config: ObserverConfig,
    told: &mpsc::Sender<Told>,
    failures: &mut u32,
) -> Result<(), StreamFault> {
    let stream = connect(None, addr).await?;
    let (local, rng) = (Sender { name: config.name, process: config.process }, StdRng::from_seed(seed()));
    let snapshot = Snapshot::default();
    let conversation = Conversation::open(Purpose::Observe, config.sealing, local, snapshot, rng, Instant::now());
    let mut talk = Talk::new(stream, conversation);
    let mut node = None;
    while let Some(event) = talk.next().await? {
        match event {
            StreamEvent::Met { server, .. } => node = Some(server.name),
            StreamEvent::State(state) => {
                *failures = 0;
                let node = node.clone().expect("a server introduces itself before it tells a state");
                // The owner has gone: it will drop this task as well.
                let _ = told.send(Told { by: addr, node, state }).await;
            }
            StreamEvent::Observed => {}
        }
    }
    Ok(())
}

/// A majority of three survives the death of one, and its being wrong.
const OBSERVED_MAX: usize = 3;

/// Chosen: one state of each observed speaker; who tells faster than its owner takes waits.
const TOLD_DEPTH: usize = OBSERVED_MAX;

/// Chosen: a speaker that restarts is back within seconds.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// Chosen: 0.5 s doubled six times is half a minute, in which a host boots.
const PAUSE_DOUBLINGS: u32 = 6;

#[cfg(test)]
mod tests;
