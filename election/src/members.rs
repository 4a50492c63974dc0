//! Who is alive: the members of the cluster and what they say about themselves.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{InterfaceName, MacAddr, NodeName, Selection, Spread};

/// The members as one node sees them, itself included. Whose host is dead is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// The node whose view this is.
    pub local: NodeName,
    /// Every member by name.
    pub nodes: BTreeMap<NodeName, Member>,
}

/// What the election knows of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The state whose rank it has. While it is away: the one whose rank it keeps.
    pub state: NodeState,
    /// Whether its speaker runs.
    pub presence: Presence,
    /// What makes it a worse owner than one without.
    pub handicaps: BTreeSet<Handicap>,
    /// The interfaces on which it can announce.
    pub interfaces: Selection<InterfaceName>,
    /// How these interfaces look on their wires, as far as it has said so.
    pub wires: BTreeMap<InterfaceName, Wire>,
    /// How it wants owners to be spread; `None` until it has said so.
    pub spread: Option<Spread>,
}

impl Members {
    /// How owners are spread: evenly if all who have spoken want it. While some want it and others do not, as in the middle of
    /// a roll-out, everybody goes by the hash: two orders at a time would give an address two owners.
    pub fn spread(&self) -> Spread {
        let mut said = self.nodes.values().filter_map(|member| member.spread).peekable();
        let some = said.peek().is_some();
        if some && said.all(|spread| spread == Spread::Balanced) { Spread::Balanced } else { Spread::Hash }
    }
}

impl Member {
    /// A member that is there, without handicaps and known wires.
    pub fn new(state: NodeState, interfaces: Selection<InterfaceName>) -> Self {
        let (presence, handicaps, wires) = (Presence::Here, BTreeSet::new(), BTreeMap::new());
        Self { state, presence, handicaps, interfaces, wires, spread: None }
    }
}

/// What a member says it is doing. The order is the rank: an earlier state is preferred as owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Serves.
    Ready,
    /// Serves, and has come back from the dead too recently to be trusted with more.
    HeldDown,
    /// Has started and does not know all its peers yet.
    Joining,
    /// Is being emptied by an operator.
    Draining,
    /// Has been told to stop and hands over.
    Restarting,
}

impl NodeState {
    /// No other state ranks before it.
    pub const BEST: Self = Self::Ready;

    /// The word for the state in logs, metrics and `/state.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::HeldDown => "held-down",
            Self::Joining => "joining",
            Self::Draining => "draining",
            Self::Restarting => "restarting",
        }
    }
}

/// Whether the speaker of a member runs. Its host lives in both cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// It answers for what it owns.
    Here,
    /// It was killed, hangs, or restarts: it keeps what it owns for a grace time, and another node stands in for it.
    Away,
}

/// A weakness that a node knows of itself. It orders candidates relative to each other: what all of them have counts for
/// none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handicap {
    /// Its timers were late again and again.
    Late,
    /// No gateway answers it.
    NoGateway,
    /// The local data plane does not forward.
    NoDataPlane,
}

/// An interface as others on its wire see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// The networks of its addresses, link-local ones left out.
    pub nets: BTreeSet<IpNet>,
}

impl Wire {
    /// Whether the two are on one segment, as far as their networks tell.
    pub fn meets(&self, other: &Self) -> bool {
        let overlap = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
        self.nets.iter().any(|a| other.nets.iter().any(|b| overlap(&a.trunc(), &b.trunc())))
    }
}
