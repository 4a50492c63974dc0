//! Who stands behind an Ethernet address, and which of two nodes ranks before the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use garpike_election::{
    Desired, InterfaceName, MacAddr, Member, Members, NodeName, Presence, Selection, ServiceIp, elect, score,
};

use crate::duties::{Peer, Standing};

/// Who claims an address that this node owns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claimant {
    /// A living member: its view differs for a moment, its kernel answers, or another speaker runs on it.
    Member(NodeName),
    /// A node that this one takes for dead: it lives, or its segment was cut off and has healed.
    Dead(NodeName),
    /// A gateway that answers for others (proxy ARP).
    Gateway,
    /// A station that is none of these.
    Stranger,
}

impl Claimant {
    /// The kind as a metric label.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Member(_) => "member",
            Self::Dead(_) => "dead_member",
            Self::Gateway => "gateway",
            Self::Stranger => "stranger",
        }
    }
}

impl fmt::Display for Claimant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(node) => write!(f, "node {node}"),
            Self::Dead(node) => write!(f, "node {node}, taken for dead"),
            Self::Gateway => f.write_str("a gateway"),
            Self::Stranger => f.write_str("a station that is no node of this cluster"),
        }
    }
}

/// The other nodes.
#[derive(Debug, Default)]
pub(super) struct Peers {
    local: Option<NodeName>,
    desired: Arc<Desired>,
    /// The owners of the addresses of others.
    pub(super) elsewhere: BTreeMap<ServiceIp, NodeName>,
    nodes: BTreeMap<NodeName, Peer>,
    by_mac: BTreeMap<MacAddr, NodeName>,
}

impl Peers {
    pub(super) fn new(
        local: Option<NodeName>,
        desired: Arc<Desired>,
        elsewhere: BTreeMap<ServiceIp, NodeName>,
        nodes: BTreeMap<NodeName, Peer>,
    ) -> Self {
        let others = || nodes.iter().filter(|(node, _)| Some(*node) != local.as_ref());
        let macs = |peers: &mut dyn Iterator<Item = (&NodeName, &Peer)>| -> Vec<(MacAddr, NodeName)> {
            peers.flat_map(|(node, peer)| peer.macs().map(|mac| (mac, node.clone()))).collect()
        };
        // A network card that was moved from a dead node to a living one belongs to the latter.
        let dead = macs(&mut others().filter(|(_, peer)| peer.standing == Standing::Dead));
        let living = macs(&mut others().filter(|(_, peer)| peer.standing != Standing::Dead));
        let by_mac = dead.into_iter().chain(living).collect();
        Self { local, desired, elsewhere, nodes, by_mac }
    }

    /// How many nodes there are.
    pub(super) fn count(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn standing(&self, node: &NodeName) -> Option<Standing> {
        self.nodes.get(node).map(|peer| peer.standing)
    }

    pub(super) fn member(&self, node: &NodeName) -> Option<&Member> {
        self.nodes.get(node).map(|peer| &peer.member)
    }

    /// The node with this Ethernet address, this one left out.
    pub(super) fn node_of(&self, mac: MacAddr) -> Option<&NodeName> {
        self.by_mac.get(&mac)
    }

    /// The node with this Ethernet address as somebody who claims something.
    pub(super) fn claimant(&self, mac: MacAddr) -> Option<Claimant> {
        let node = self.node_of(mac)?.clone();
        match self.standing(&node)? {
            Standing::Here | Standing::Away => Some(Claimant::Member(node)),
            Standing::Dead => Some(Claimant::Dead(node)),
        }
    }

    /// Whether `rival` is to have the address rather than this node, if both were alive. Two nodes that ask this of each
    /// other with the same facts get opposite answers.
    pub(super) fn outranks(&self, rival: &NodeName, ip: ServiceIp) -> bool {
        self.ranks_before(rival, ip, |member| member.interfaces)
    }

    /// The same of a member that is heard to claim the address: it has an interface for that, even if it has not said so yet.
    pub(super) fn outranks_by_claiming(&self, rival: &NodeName, ip: ServiceIp) -> bool {
        self.ranks_before(rival, ip, |_| Selection::All)
    }

    fn ranks_before(
        &self,
        rival: &NodeName,
        ip: ServiceIp,
        interfaces: impl Fn(Member) -> Selection<InterfaceName>,
    ) -> bool {
        let Some(local) = &self.local else { return false };
        let here = |node: &NodeName| {
            let member = self.member(node)?.clone();
            let interfaces = interfaces(member.clone());
            Some((node.clone(), Member { presence: Presence::Here, interfaces, ..member }))
        };
        let nodes = [local, rival].into_iter().filter_map(here).collect();
        let address = self.desired.addresses.get(&ip).map(|address| (ip, address.clone()));
        let desired = Desired {
            addresses: address.into_iter().collect(),
            excluded: self.desired.excluded.clone(),
            moves: self.desired.moves.get(&ip).map(|node| (ip, node.clone())).into_iter().collect(),
            roster: BTreeSet::new(),
        };
        let assignment = elect(&desired, &Members { local: local.clone(), nodes });
        match assignment.owner(ip) {
            Some(owner) => owner == rival,
            None => score(rival, ip) < score(local, ip),
        }
    }
}
