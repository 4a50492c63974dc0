//! What the announcer is to answer for, and what it needs to know of the other nodes, as one value, so that no address
//! is between two of its sets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use garpike_election::{Desired, InterfaceName, MacAddr, Member, NodeName, Selection, ServiceIp};

/// Everything that a node answers for, and whom the rest belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Duties {
    /// The owned addresses, with the interfaces that may announce them.
    pub owned: BTreeMap<ServiceIp, Selection<InterfaceName>>,
    /// Of the owned addresses those that had no owner before this node: they are claimed only if nobody answers for them.
    pub untried: BTreeSet<ServiceIp>,
    /// The addresses whose owners are away, with the owners' Ethernet addresses on the interfaces that reach them.
    pub stood_in: BTreeMap<ServiceIp, BTreeMap<InterfaceName, MacAddr>>,
    /// The owner of every address that another node owns.
    pub elsewhere: BTreeMap<ServiceIp, NodeName>,
    /// Every member, this node included, and those that died lately.
    pub nodes: BTreeMap<NodeName, Peer>,
    /// The Ethernet addresses of all members, those that are dead included: what they say is no answer of a station.
    pub members: BTreeSet<MacAddr>,
    /// The name of this node; `None` as long as nothing is known of the cluster.
    pub local: Option<NodeName>,
    /// By what two nodes that both claim an address are ranked.
    pub desired: Arc<Desired>,
}

/// A member, or a node that was one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Whether it lives.
    pub standing: Standing,
    /// What it said of itself last.
    pub member: Member,
}

/// Whether a node and its speaker live, as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Its speaker runs.
    Here,
    /// Its host lives; its speaker was killed, hangs or restarts.
    Away,
    /// It is no member any more: dead, gone, or cut off.
    Dead,
}

impl Peer {
    /// Its Ethernet addresses, as far as it has told them.
    pub fn macs(&self) -> impl Iterator<Item = MacAddr> {
        self.member.wires.values().map(|wire| wire.mac)
    }
}
