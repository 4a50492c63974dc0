//! Who answers on the wire: ARP and NDP for the service IPs that a node owns or stands in for.
//!
//! It also carries datagrams of the membership in bare frames, without looking into them.
//!
//! [`wire`] reads and writes the four messages, [`Announcer`] is the protocol core (it answers requests, claims gained
//! addresses, notices foreign claims), [`Filter`] tells the kernel which frames to pass up, and [`io`] is the shell:
//! packet sockets, netlink and the task that owns the core. Without the feature `io` only the core is compiled, and the
//! core knows no socket, clock or environment. Nothing here decides who owns an address, and nothing answers for an
//! address that it was not given.

mod announcer;
mod askers;
mod campaigns;
mod duties;
mod excluded;
mod filter;
mod inquiries;
mod links;
#[cfg(feature = "io")]
mod metrics;
mod pacer;
mod prefixes;
mod queue;
mod refresh;
mod schedule;
mod stations;
mod surroundings;
pub mod wire;

#[cfg(feature = "io")]
pub mod io;

pub use announcer::{
    Acknowledgement, AddressStatus, Announcer, Because, Claimant, Config, Datagram, DoubtStatus, Event, Frame,
    FrameKind, InterfaceStatus, Outcome, SelfCheckStatus, StandInStatus, Status, Unanswered, Undelivered, WrongAnswer,
};
pub use duties::{Duties, Peer, Standing};
pub use excluded::{BadPattern, Excluded};
pub use filter::{Filter, Instruction};
pub use links::{Link, LinkSet, Obstacle};
#[cfg(feature = "io")]
pub use metrics::{describe as describe_metrics, histograms};
pub use prefixes::{MAX_PREFIXES, Prefixes};
pub use stations::Gateways;
pub use surroundings::Surroundings;
