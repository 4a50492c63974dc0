//! What people asked for: which addresses are to be answered, and where.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{InterfaceName, NodeName, ServiceIp, ServiceKey};

/// Everything of pools, advertisements, Services and Nodes that the election needs.
///
/// Nodes that read the same objects build the same value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// Each address that some Service holds.
    pub addresses: BTreeMap<ServiceIp, Address>,
    /// Nodes that must not own anything, by label or by condition.
    pub excluded: BTreeSet<NodeName>,
    /// The nodes that operators chose as owners. A choice counts among the candidates in the same state: a node that
    /// may not own the address, is dead or is drained does not get it.
    pub moves: BTreeMap<ServiceIp, NodeName>,
    /// The nodes that are described, alive or not: among them [`crate::Spread::Balanced`] shares the addresses out.
    pub roster: BTreeSet<NodeName>,
}

/// One address that is to be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address whose hash ranks the nodes. Addresses that must stay together have the same one.
    pub election_key: ServiceIp,
    /// The Services that hold the address, in order; several share it when they agreed to. There are thousands of
    /// addresses, and nearly all have one.
    pub services: Box<[ServiceKey]>,
    /// The advertisements that select it. None: nobody answers.
    pub placements: Vec<Placement>,
    /// Where what comes to the address can be served.
    pub endpoints: Endpoints,
}

impl Address {
    /// The interfaces that may announce the address on `node`: the union over the placements that allow the node;
    /// `None` when there is no such placement.
    pub fn interfaces_on(&self, node: &NodeName) -> Option<Selection<InterfaceName>> {
        self.placements
            .iter()
            .filter(|placement| placement.nodes.contains(node))
            .map(|placement| placement.interfaces.clone())
            .reduce(Selection::union)
    }
}

/// The nodes that can serve what comes to an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Endpoints {
    /// All: there are endpoints, and whichever node takes a packet passes it on; or nothing is known of endpoints.
    Anywhere,
    /// None: no endpoint can serve.
    Nowhere,
    /// Those with endpoints of their own, as `externalTrafficPolicy: Local` demands.
    Local(Box<LocalEndpoints>),
}

/// The nodes whose own endpoints can serve.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LocalEndpoints {
    /// Those with one that is ready.
    pub ready: BTreeSet<NodeName>,
    /// Those whose endpoints all terminate and still serve.
    pub terminating: BTreeSet<NodeName>,
}

/// How well a node can serve what comes to an address. The order is the rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backing {
    /// As long as nothing changes.
    Ready,
    /// Until its endpoints have ended.
    Terminating,
}

impl Endpoints {
    /// How well `node` can serve; `None`: not at all.
    pub fn on(&self, node: &NodeName) -> Option<Backing> {
        match self {
            Self::Anywhere => Some(Backing::Ready),
            Self::Nowhere => None,
            Self::Local(local) if local.ready.contains(node) => Some(Backing::Ready),
            Self::Local(local) => local.terminating.contains(node).then_some(Backing::Terminating),
        }
    }

    /// Where what comes for either of two Services with one owner can be served. One that nobody can serve does not
    /// count.
    #[must_use]
    pub fn of_both(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nowhere, other) | (other, Self::Nowhere) | (Self::Anywhere, other) | (other, Self::Anywhere) => {
                other
            }
            (Self::Local(a), Self::Local(b)) => {
                let serving = |local: &LocalEndpoints| &local.ready | &local.terminating;
                let ready = &a.ready & &b.ready;
                let terminating = &(&serving(&a) & &serving(&b)) - &ready;
                Self::Local(Box::new(LocalEndpoints { ready, terminating }))
            }
        }
    }
}

/// Where one advertisement allows an address to be announced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Placement {
    /// The nodes that may own the address.
    pub nodes: Selection<NodeName>,
    /// The interfaces of these nodes that may announce it.
    pub interfaces: Selection<InterfaceName>,
}

/// Everything, or just these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(bound(deserialize = "T: Ord + Deserialize<'de>"))]
pub enum Selection<T> {
    /// No restriction.
    All,
    /// Only these; an empty set selects nothing.
    Only(BTreeSet<T>),
}

impl<T: Ord> Selection<T> {
    /// Whether `item` is selected.
    pub fn contains(&self, item: &T) -> bool {
        match self {
            Self::All => true,
            Self::Only(items) => items.contains(item),
        }
    }

    /// What either of the two selects.
    pub fn union(self, other: Self) -> Self {
        match (self, other) {
            (Self::Only(mut a), Self::Only(b)) => {
                a.extend(b);
                Self::Only(a)
            }
            (Self::All, Self::All | Self::Only(_)) | (Self::Only(_), Self::All) => Self::All,
        }
    }

    /// Whether something may be selected by both. A side that is not restricted meets everything but the empty set.
    pub fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, Self::All) => true,
            (Self::All, Self::Only(items)) | (Self::Only(items), Self::All) => !items.is_empty(),
            (Self::Only(a), Self::Only(b)) => !a.is_disjoint(b),
        }
    }
}
