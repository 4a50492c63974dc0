//! The result of an election, and what changes from one to the next.

use std::collections::{BTreeMap, BTreeSet};

use crate::{InterfaceName, NodeName, Selection, ServiceIp};

/// For every desired address, who owns it, who stands in, and who would be next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// One entry for each address of [`crate::Desired`].
    pub addresses: BTreeMap<ServiceIp, Elected>,
}

/// The outcome for one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elected {
    /// The eligible living nodes, the owner first, then its heirs; no more than [`Elected::MAX_RANKED`].
    pub ranked: Vec<NodeName>,
    /// The node that answers in place of the owner, with the owner's Ethernet address, while the owner's speaker is away.
    pub stand_in: Option<NodeName>,
    /// The interfaces on which the owner announces it.
    pub interfaces: Selection<InterfaceName>,
    /// Why nobody owns it; `None` when `ranked` is not empty.
    pub unowned: Option<Unowned>,
}

/// The rule that leaves an address without an owner. The order is that in which the rules are tried: where several
/// nodes failed different ones, the last is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unowned {
    /// No advertisement selects the address.
    NoAdvertisement,
    /// No living member is allowed by an advertisement's node selector.
    NoSelectedNode,
    /// All selected living members are excluded by label or condition.
    AllExcluded,
    /// None of the remaining members has an interface that the advertisement allows.
    NoInterface,
    /// None of the remaining members has an endpoint of its own, as `externalTrafficPolicy: Local` demands.
    NoLocalEndpoint,
    /// No endpoint can serve.
    NoEndpoint,
}

impl Unowned {
    /// The rule in words, for `/state.json` and logs.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoAdvertisement => "no advertisement selects it",
            Self::NoSelectedNode => "no living node matches an advertisement's nodeSelectors",
            Self::AllExcluded => "every selected node is excluded from load balancing",
            Self::NoInterface => "no selected node has an interface that the advertisement allows",
            Self::NoLocalEndpoint => {
                "externalTrafficPolicy is Local and no selected node has an endpoint that can serve"
            }
            Self::NoEndpoint => "its Service has no endpoint that can serve",
        }
    }

    /// What would be right.
    pub fn mend(self) -> &'static str {
        match self {
            Self::NoAdvertisement => "write an L2Advertisement that selects its pool and its Service",
            Self::NoSelectedNode => "let spec.nodeSelectors of the L2Advertisement match the labels of a living node",
            Self::AllExcluded => {
                "remove the label node.kubernetes.io/exclude-from-external-load-balancers from a node, or see why its \
                 network is unavailable"
            }
            Self::NoInterface => {
                "name an interface in spec.interfaces of the L2Advertisement that a node has and that can announce"
            }
            Self::NoLocalEndpoint => {
                "let a pod of the Service be ready on a node that may announce, or set externalTrafficPolicy to Cluster"
            }
            Self::NoEndpoint => "let a pod that the Service selects become ready",
        }
    }
}

/// An address whose owner changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The address.
    pub ip: ServiceIp,
    /// Its owner before.
    pub from: Option<NodeName>,
    /// Its owner after.
    pub to: Option<NodeName>,
}

impl Elected {
    /// How many nodes are ranked for an address. Chosen: an owner, and more heirs than die at once.
    pub const MAX_RANKED: usize = 8;

    /// The node whose address it is.
    pub fn owner(&self) -> Option<&NodeName> {
        self.ranked.first()
    }
}

impl Assignment {
    /// Who owns `ip`.
    pub fn owner(&self, ip: ServiceIp) -> Option<&NodeName> {
        self.addresses.get(&ip).and_then(Elected::owner)
    }

    /// The addresses that `node` owns, and where it announces them.
    pub fn owned_by<'a>(
        &'a self,
        node: &'a NodeName,
    ) -> impl Iterator<Item = (ServiceIp, &'a Selection<InterfaceName>)> {
        self.addresses
            .iter()
            .filter(move |(_, elected)| elected.owner() == Some(node))
            .map(|(ip, elected)| (*ip, &elected.interfaces))
    }

    /// The addresses for which `node` stands in, each with its owner.
    pub fn stood_in_by<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = (ServiceIp, &'a NodeName)> {
        let stood_in = self.addresses.iter().filter(move |(_, elected)| elected.stand_in.as_ref() == Some(node));
        stood_in.filter_map(|(ip, elected)| Some((*ip, elected.owner()?)))
    }

    /// The addresses whose owner in `next` is another one, in the order of the addresses.
    pub fn changes_to(&self, next: &Self) -> Vec<Change> {
        let ips: BTreeSet<ServiceIp> = self.addresses.keys().chain(next.addresses.keys()).copied().collect();
        ips.into_iter()
            .map(|ip| Change { ip, from: self.owner(ip).cloned(), to: next.owner(ip).cloned() })
            .filter(|change| change.from != change.to)
            .collect()
    }
}
