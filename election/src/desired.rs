//! What people asked for: which addresses are to be answered, and where.

use std::collections::{BTreeMap, BTreeSet};

use crate::{InterfaceName, NodeName, ServiceIp, ServiceKey};

/// Everything of pools, advertisements, Services and Nodes that the election needs.
///
/// Nodes that read the same objects build the same value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Each address that some Service holds.
    pub addresses: BTreeMap<ServiceIp, Address>,
    /// Nodes that must not own anything, by label or by condition.
    pub excluded: BTreeSet<NodeName>,
    /// The nodes that operators chose as owners. A choice counts among the candidates in the same state: a node that
    /// may not own the address, is dead or is drained does not get it.
    pub moves: BTreeMap<ServiceIp, NodeName>,
}

/// One address that is to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address whose hash ranks the nodes. Addresses that must stay together have the same one.
    pub election_key: ServiceIp,
    /// The Services that hold the address, in order; several share it when they agreed to. There are thousands of
    /// addresses, and nearly all have one.
    pub services: Box<[ServiceKey]>,
    /// The advertisements that select it. None: nobody answers.
    pub placements: Vec<Placement>,
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

/// Where one advertisement allows an address to be announced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placement {
    /// The nodes that may own the address.
    pub nodes: Selection<NodeName>,
    /// The interfaces of these nodes that may announce it.
    pub interfaces: Selection<InterfaceName>,
}

/// Everything, or just these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
