//! The short conversations that this side begins.

use std::net::SocketAddr;
use std::time::Instant;

use garpike_election::NodeName;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::seed;
use super::stream_server::{Context, FromStream, Published};
use super::talk::{Talk, connect};
use crate::datagram::Sender;
use crate::metrics::{self, Exchange};
use crate::stream::{Conversation, Purpose, Snapshot, StreamEvent, StreamFault};
use crate::{ProcessId, Sealing};

/// Exchanges states with the node at `to`, from the IP address of `gossip`.
pub(super) async fn exchange(gossip: SocketAddr, to: SocketAddr, context: Context) {
    match try_exchange(gossip, to, &context).await {
        Ok(Some(state)) => {
            metrics::exchanged(Exchange::Done);
            // The node is gone: so is the use of it.
            let _ = context.node.send(FromStream::State { from: to, state }).await;
        }
        Ok(None) => metrics::exchanged(Exchange::Equal),
        Err(fault) => {
            tracing::debug!(%to, reason = fault.reason(), "states not exchanged");
            metrics::exchanged(Exchange::Failed);
        }
    }
}

/// The state of the other node, unless the digests are equal.
#[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
async fn try_exchange(gossip: SocketAddr, to: SocketAddr, context: &Context) -> Result<Option<Vec<u8>>, StreamFault> {
    let stream = connect(Some(gossip), to).await?;
    let Published { sealing, snapshot } = context.published.borrow().clone();
    let (local, rng) = (context.local.clone(), StdRng::from_seed(seed()));
    let conversation = Conversation::open(Purpose::Exchange, sealing, local, snapshot, rng, Instant::now());
    let mut talk = Talk::new(stream, conversation);
    let mut brought = None;
    while let Some(event) = talk.next().await? {
        match event {
            StreamEvent::State(state) => brought = Some(state),
            StreamEvent::Met { .. } | StreamEvent::Observed => {}
        }
    }
    Ok(brought)
}

/// Finds out whether TCP to the speaker at `to` works and it holds our key; gives the name of its node. Datagrams may
/// still not reach it: somebody who hears none of it and gets an answer here knows that UDP is blocked.
///
/// # Errors
///
/// The reason for which it cannot be reached, or does not understand.
#[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
pub async fn reach(
    local: (NodeName, ProcessId),
    from: Option<SocketAddr>,
    to: SocketAddr,
    sealing: Sealing,
) -> Result<NodeName, StreamFault> {
    let stream = connect(from, to).await?;
    let (name, process) = local;
    let (local, rng) = (Sender { name, process }, StdRng::from_seed(seed()));
    let snapshot = Snapshot::default();
    let conversation = Conversation::open(Purpose::Reach, sealing, local, snapshot, rng, Instant::now());
    let mut talk = Talk::new(stream, conversation);
    match talk.next().await? {
        Some(StreamEvent::Met { server, .. }) => Ok(server.name),
        Some(StreamEvent::State(_) | StreamEvent::Observed) | None => Err(StreamFault::Unexpected),
    }
}
