//! What a cluster tells its owner.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use garpike_election::NodeName;

use crate::Path;

/// Something that happened in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// [`crate::Cluster::members`] has changed.
    MembersChanged,
    /// More than half of all members hold a verdict by which a host is dead: [`crate::Cluster::state`] says so.
    VerdictHeld,
    /// This node has found its peers, or waited long enough for them.
    Ready,
    /// These nodes were declared dead here and had lived all the time: their addresses may have had two owners.
    Healed {
        /// The nodes; never empty.
        nodes: BTreeSet<NodeName>,
    },
    /// A member's host was found dead; told before [`Event::MembersChanged`].
    HostDied {
        /// The node.
        node: NodeName,
        /// For how long it had not been heard: by this node if it was one of its watchers, else as the verdict says.
        silent: Option<Duration>,
        /// When this node came to know.
        at: Instant,
    },
    /// A member's speaker did not come back within its grace; told before [`Event::MembersChanged`].
    GraceOver {
        /// The node.
        node: NodeName,
        /// When that was.
        at: Instant,
    },
    /// Every member has acknowledged what this node last said of itself.
    FactsKnown,
    /// A node that was alone had taken this one for dead, and may have claimed its addresses.
    TakenForDead,
    /// The others had declared this node dead. It has taken a new identity.
    DeclaredDead,
    /// Another node lives under this node's name, and is the one that the others keep.
    NameConflict {
        /// Where the other one is.
        other: SocketAddr,
    },
}

/// A datagram to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// To whom.
    pub to: Path,
    /// The bytes, ready for the wire.
    pub payload: Vec<u8>,
}
