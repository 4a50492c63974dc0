//! The task that serves those who connect to the gossip port.
//!
//! It owns the listener and a task for each connection. Nothing here touches the cluster: what a node knows comes by
//! `watch`, what others know goes to the task of the [`super::Node`] by a bounded channel. Connections beyond the limits
//! are reset.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use garpike_election::NodeName;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, trace};

use super::seed;
use super::talk::{Talk, reset};
use crate::datagram::Sender;
use crate::stream::{Conversation, Purpose, Snapshot, StreamEvent, StreamFault};
use crate::{Sealing, metrics};

/// What a node lets its streams know.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) sealing: Sealing,
    pub(super) snapshot: Snapshot,
}

/// What a stream tells its node.
#[derive(Debug)]
pub(super) enum FromStream {
    /// What another node knows.
    State { from: SocketAddr, state: Vec<u8> },
    /// The speaker at this address answers by TCP.
    Reached { with: SocketAddr, name: NodeName },
    /// A connection was ended for this reason.
    Fault { from: SocketAddr, fault: StreamFault },
}

/// What every stream of a node needs.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) local: Sender,
    pub(super) published: watch::Receiver<Published>,
    pub(super) node: mpsc::Sender<FromStream>,
}

impl Context {
    /// Counts a connection that was ended, and lets the node know whose it was.
    pub(super) fn reject(&self, from: SocketAddr, fault: StreamFault) {
        trace!(%from, reason = fault.reason(), "stream rejected");
        metrics::stream_rejected(fault);
        // Full: the count is what matters, the node shows only the last of each reason.
        let _ = self.node.try_send(FromStream::Fault { from, fault });
    }
}

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, context: Context) {
    let observers = Arc::new(Semaphore::new(OBSERVERS_MAX));
    let mut sources: BTreeMap<IpAddr, usize> = BTreeMap::new();
    let mut streams = JoinSet::new();
    loop {
        let (stream, from) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => (stream, SocketAddr::new(from.ip().to_canonical(), from.port())),
                Err(error) => {
                    // Out of files or memory: it is of no use to try again at once.
                    debug!(%error, "no connection accepted");
                    metrics::socket_error();
                    sleep(PAUSE_AFTER_ERROR).await;
                    continue;
                }
            },
            Some(ended) = streams.join_next() => {
                let source = ended.unwrap_or_else(|error| resume_unwind(error.into_panic()));
                forget(&mut sources, source);
                continue;
            }
        };
        // Those that have ended already take no place.
        while let Some(ended) = streams.try_join_next() {
            let source = ended.unwrap_or_else(|error| resume_unwind(error.into_panic()));
            forget(&mut sources, source);
        }
        let of_source = sources.get(&from.ip()).copied().unwrap_or_default();
        if streams.len() >= CONNECTIONS_MAX || of_source >= OF_SOURCE_MAX {
            let per_source = of_source >= OF_SOURCE_MAX;
            context
                .reject(from, if per_source { StreamFault::TooManyOfSource } else { StreamFault::TooManyConnections });
            reset(stream);
            continue;
        }
        *sources.entry(from.ip()).or_default() += 1;
        streams.spawn(serve_one(stream, from, context.clone(), observers.clone()));
    }
}

fn forget(sources: &mut BTreeMap<IpAddr, usize>, source: IpAddr) {
    let left = sources.get(&source).map_or(0, |count| count.saturating_sub(1));
    if left == 0 {
        sources.remove(&source);
    } else {
        sources.insert(source, left);
    }
}

/// Serves one connection; gives its source back.
#[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
async fn serve_one(stream: TcpStream, from: SocketAddr, mut context: Context, observers: Arc<Semaphore>) -> IpAddr {
    let Published { sealing, snapshot } = context.published.borrow_and_update().clone();
    let rng = StdRng::from_seed(seed());
    let conversation = Conversation::serve(sealing, context.local.clone(), snapshot, rng, Instant::now());
    let mut talk = Talk::new(stream, conversation);
    if let Err(fault) = converse(&mut talk, from, &mut context, &observers).await {
        context.reject(from, fault);
        talk.reset();
    }
    from.ip()
}

#[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
async fn converse(
    talk: &mut Talk,
    from: SocketAddr,
    context: &mut Context,
    observers: &Arc<Semaphore>,
) -> Result<(), StreamFault> {
    let mut place: Option<Place> = None;
    loop {
        let can_tell = place.is_some() && talk.is_all_sent();
        tokio::select! {
            event = talk.next() => match event? {
                None => return Ok(()),
                Some(StreamEvent::State(state)) => {
                    metrics::stream_served(Purpose::Exchange);
                    // The node is gone: so is the answer.
                    let _ = context.node.send(FromStream::State { from, state }).await;
                }
                Some(StreamEvent::Observed) => {
                    let permit = observers.clone().try_acquire_owned().map_err(|_| StreamFault::TooManyObservers)?;
                    debug!(%from, "an observer has come");
                    metrics::stream_served(Purpose::Observe);
                    place = Some(Place::new(permit));
                }
                Some(StreamEvent::Met { .. }) => {}
            },
            changed = context.published.changed(), if can_tell => {
                if changed.is_err() {
                    // The node has ended.
                    return Ok(());
                }
                let snapshot = context.published.borrow_and_update().snapshot.clone();
                talk.handle_snapshot(snapshot, Instant::now())?;
            }
        }
    }
}

/// The place of an observer, counted while it is held.
struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        metrics::observer_came();
        Self { _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::observer_went();
    }
}

/// Chosen: exchanges take milliseconds and observers are few; each connection may hold 2 MiB for a moment.
const CONNECTIONS_MAX: usize = 64;

/// Chosen: the rest is for exchanges. A cluster has two or three observers.
const OBSERVERS_MAX: usize = 32;

/// Chosen: a member and a controller on one host, each twice because the earlier connection is only just ending.
const OF_SOURCE_MAX: usize = 4;

/// Chosen: long enough for something to change.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
