//! The conversations on port 7946 TCP, without IO.
//!
//! Two speakers compare what they know and send it to each other when it differs (`Exchange`); an observer, which is no
//! member, is told what a speaker knows and whenever that changes (`Observe`); anybody with the key learns whether a
//! speaker can be reached (`Reach`). Invariant: nothing of the other end is believed before it has returned the nonce
//! that was drawn for this conversation, so recorded bytes change nothing; and nothing is kept of an end that has not
//! yet shown the key but one frame of 1 KiB. Whether states are well formed is not judged here.
//!
//! ```text
//! frame  length n (4 bytes, big endian) | envelope of n bytes, as around a datagram
//!
//! client                                                   server
//!   hello {nonce c, purpose, digest} ────────────────────►         it speaks first: the server's listener defers
//!                       ◄──────────────────── hello {to c: nonce s, digest}
//! exchange, when the digests differ:
//!   state {to s} ────────────────────────────────────────►
//!                       ◄──────────────────── state {to c}
//! observe:
//!   subscribe {to s} ────────────────────────────────────►
//!                       ◄──────────────────── state {to c}, on every change
//!                       ◄──────────────────── unchanged {to c}, after 5 s without another frame
//! ```

#![cfg_attr(not(any(feature = "io", test)), expect(dead_code, reason = "only shells have connections"))]

mod conversation;
mod fault;
mod frames;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;
use std::time::Instant;

use garpike_election::NodeName;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::datagram::Sender;
use crate::{ProcessId, Sealing};

pub use fault::StreamFault;

pub(crate) use conversation::Conversation;
#[cfg(any(feature = "io", test))]
pub(crate) use conversation::StreamEvent;
pub(crate) use text::Purpose;

/// What a node knows, as it is told to others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// The [`crate::Cluster::digest`] of `state`.
    pub(crate) digest: u64,
    /// The [`crate::Cluster::state`].
    pub(crate) state: Arc<[u8]>,
}

/// Serves a client that sends `bytes` in the clear, all at once, and then ends; tells how many things it got done.
///
/// # Errors
///
/// The reason for which a server would end the conversation.
///
/// # Panics
///
/// Never.
pub fn check_stream(bytes: &[u8], now: Instant) -> Result<usize, StreamFault> {
    let local = Sender { name: NodeName::new("server").expect("is a name"), process: ProcessId(1) };
    let snapshot = Snapshot { digest: 1, state: Arc::from(&b"state"[..]) };
    let rng = StdRng::seed_from_u64(1);
    let mut server = Conversation::serve(Sealing::InsecurePlaintext, local, snapshot, rng, now);
    server.handle_bytes(bytes, now)?;
    server.handle_end()?;
    Ok(std::iter::from_fn(|| server.poll_event()).count())
}
