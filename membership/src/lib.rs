//! Who is alive.
//!
//! The speakers of a cluster find each other, notice within 200 ms when a host is dead, tell that from a speaker that is
//! merely gone, and spread a few facts about themselves, in datagrams sealed with a shared secret. [`Cluster`] is the
//! protocol without IO: datagrams and the time go in, datagrams, [`Request`]s and [`Event`]s come out,
//! [`Cluster::members`] is what the election needs. Feature `io` adds [`io`]: the sockets, the clock and the keys' files.
//!
//! ```text
//! bytes ─► envelope (seal) ─► datagram ─► session (replay, challenge) ─┬► swim: foca joins, spreads, heals ─► peers ─► Members
//!                                                                      ├► watch: heartbeats, votes, verdicts ───┤
//!                                                                      └► facts: what nodes say of themselves ──┘
//! ```
//!
//! The protocol is described in `docs/membership.md`.

mod account;
mod cluster;
mod codec;
mod config;
mod datagram;
mod deliveries;
mod envelope;
mod event;
mod facts;
mod hold_down;
mod identity;
#[cfg(feature = "io")]
pub mod io;
mod keyring;
mod lateness;
mod lost_gateway;
mod message;
mod metrics;
mod notice;
mod peers;
mod rejected;
mod replay;
mod seal;
mod secret;
mod seeds;
mod session;
mod status;
mod stream;
mod surroundings;
mod suspicion;
mod swim;
mod timers;
mod told;
mod traffic;
mod watch;

pub use account::{Account, HostDead, Life};
pub use cluster::Cluster;
pub use config::{Config, Profile};
pub use event::{Event, Transmit};
pub use facts::FeatureLevel;
pub use identity::{Generation, Identity, ProcessId};
pub use keyring::{Held, IdsChanged, Keyring, SourcedKeys, Standing};
pub use message::check as check_datagram;
pub use metrics::describe as describe_metrics;
pub use rejected::Rejected;
pub use seal::{Key, KeyId, Sealing};
pub use secret::{InvalidSecret, SecretKey};
pub use status::{Complaint, DeadStatus, KeyStatus, MemberStatus, RejectedStatus, Status, WatchStatus};
pub use stream::{StreamFault, check_stream};
pub use surroundings::{ETHERTYPE, Gateway, Path, ProbeId, Request, Surroundings};
