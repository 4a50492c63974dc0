//! Who is alive.
//!
//! The speakers of a cluster find each other, notice within a second when one is gone, and spread a few facts about
//! themselves: SWIM by foca, in datagrams sealed with a shared secret. [`Cluster`] is the protocol without IO:
//! datagrams and the time go in, datagrams and [`Event`]s come out, [`Cluster::members`] is what the election needs.
//! Feature `io` adds [`io`]: the socket, the clock and the file of the secret.
//!
//! ```text
//! bytes ─► envelope (seal) ─► datagram ─► session (replay, challenge) ─► swim (foca, codec) ─► Members
//!                                                     └► facts ─────────────────────────────────┘
//! ```

mod cluster;
mod codec;
mod config;
mod datagram;
mod envelope;
mod event;
mod facts;
mod identity;
#[cfg(feature = "io")]
pub mod io;
mod message;
mod metrics;
mod rejected;
mod replay;
mod seal;
mod secret;
mod seeds;
mod session;
mod status;
mod suspicion;
mod swim;
mod timers;

pub use cluster::Cluster;
pub use config::Config;
pub use event::{Event, Transmit};
pub use identity::{Generation, Identity, ProcessId};
pub use message::check as check_datagram;
pub use metrics::describe as describe_metrics;
pub use rejected::Rejected;
pub use seal::{Key, KeyId, Sealing};
pub use secret::{InvalidSecret, SecretKey};
pub use status::{Complaint, DeadStatus, Liveness, MemberStatus, RejectedStatus, Status};
