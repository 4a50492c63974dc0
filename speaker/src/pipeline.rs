//! From what is desired and who is alive to what this node answers for.
//!
//! The pure middle of the walk: it keeps the latest of both inputs and elects anew on every change of either, but not
//! while this node joins. It does
//! not talk to the wire; the shell hands [`Pipeline::duties`] to the announcer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use garpike_announcer::{Duties, Peer, Standing};
use garpike_election::{
    Assignment, Change, Desired, Elector, InterfaceName, MacAddr, Member, Members, NodeName, NodeState, Presence,
    Selection, ServiceIp, Wire,
};

use crate::history::History;

/// The latest inputs of the election and its latest result.
#[derive(Debug)]
pub struct Pipeline {
    local: NodeName,
    elector: Elector,
    view: View,
    /// The Ethernet addresses of all members ever seen: the management controller of a dead host still answers.
    macs: BTreeSet<MacAddr>,
    history: History,
}

/// What a pipeline knows; cheap to clone, so that others can look at it.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// What is to be answered.
    pub desired: Arc<Desired>,
    /// Who is alive, once that is known.
    pub members: Option<Arc<Members>>,
    /// Who owns what.
    pub assignment: Arc<Assignment>,
}

impl Pipeline {
    /// A pipeline of the node `local` that knows nothing yet: it owns nothing.
    pub fn new(local: NodeName) -> Self {
        let (elector, view, history) = (Elector::default(), View::default(), History::default());
        Self { local, elector, view, macs: BTreeSet::new(), history }
    }

    /// Takes what is desired and gives the addresses whose owner changed.
    pub fn handle_desired(&mut self, desired: impl Into<Arc<Desired>>) -> Vec<Change> {
        self.view.desired = desired.into();
        self.history.handle_desired(&self.view.desired);
        self.elect()
    }

    /// Takes who is alive and gives the addresses whose owner changed.
    pub fn handle_members(&mut self, members: Members) -> Vec<Change> {
        let macs: BTreeSet<MacAddr> =
            members.nodes.values().flat_map(|member| member.wires.values()).map(|wire| wire.mac).collect();
        if !macs.is_subset(&self.macs) {
            if self.macs.len() > MACS_MAX {
                self.macs.clear();
            }
            self.macs.extend(macs);
        }
        let before = self.view.members.replace(Arc::new(members));
        if let Some((before, members)) = before.as_deref().zip(self.view.members.as_deref()) {
            self.history.handle_members(before, members);
        }
        self.elect()
    }

    /// Takes on which nodes something else than this program may speak, unless they are members.
    pub fn handle_unlike(&mut self, nodes: BTreeSet<NodeName>) {
        self.history.handle_unlike(nodes);
    }

    /// The latest inputs and result.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What the announcer is to do.
    pub fn duties(&self) -> Duties {
        Duties {
            owned: self.owned(),
            untried: self.history.untried().clone(),
            stood_in: self.stood_in(),
            elsewhere: self.elsewhere(),
            nodes: self.nodes(),
            members: self.macs.clone(),
            local: Some(self.local.clone()),
            desired: self.view.desired.clone(),
        }
    }

    fn nodes(&self) -> BTreeMap<NodeName, Peer> {
        let living = self.view.members.iter().flat_map(|members| &members.nodes).map(|(node, member)| {
            let standing = match member.presence {
                Presence::Here => Standing::Here,
                Presence::Away => Standing::Away,
            };
            (node, standing, member)
        });
        let dead = self.history.dead().map(|(node, member)| (node, Standing::Dead, member));
        let peers = dead.chain(living);
        peers.map(|(node, standing, member)| (node.clone(), Peer { standing, member: member.clone() })).collect()
    }

    /// The addresses that this node owns, with the interfaces on which it announces them.
    pub fn owned(&self) -> BTreeMap<ServiceIp, Selection<InterfaceName>> {
        self.view.assignment.owned_by(&self.local).map(|(ip, interfaces)| (ip, interfaces.clone())).collect()
    }

    /// The addresses that other nodes own, with their owners.
    pub fn elsewhere(&self) -> BTreeMap<ServiceIp, NodeName> {
        let addresses = &self.view.assignment.addresses;
        let owners = addresses.iter().filter_map(|(ip, elected)| Some((*ip, elected.owner()?.clone())));
        owners.filter(|(_, owner)| *owner != self.local).collect()
    }

    /// The addresses for which this node stands in, with the owner's Ethernet address on each interface that meets it.
    ///
    /// An address that is not in it although the election names this node is one of which the announcer could not say
    /// where its owner is: the owner has not told how its wires look.
    pub fn stood_in(&self) -> BTreeMap<ServiceIp, BTreeMap<InterfaceName, MacAddr>> {
        let View { desired, members: Some(members), assignment } = &self.view else { return BTreeMap::new() };
        let Some(own) = members.nodes.get(&self.local) else { return BTreeMap::new() };
        let stood_in = assignment.stood_in_by(&self.local).filter_map(|(ip, owner)| {
            let address = desired.addresses.get(&ip)?;
            let here = address.interfaces_on(&self.local)?;
            let there = allowed_wires(members.nodes.get(owner)?, address.interfaces_on(owner)?);
            let mac = |wire: &Wire| there.iter().find(|other| other.meets(wire)).map(|other| other.mac);
            let own = own.wires.iter().filter(|(name, _)| here.contains(name));
            let macs: BTreeMap<_, _> = own.filter_map(|(name, wire)| Some((name.clone(), mac(wire)?))).collect();
            (!macs.is_empty()).then_some((ip, macs))
        });
        stood_in.collect()
    }

    fn elect(&mut self) -> Vec<Change> {
        let Some(members) = &self.view.members else { return Vec::new() };
        // Who does not know its peers yet would take what is theirs. Others answer meanwhile for what waits for it.
        if members.nodes.get(&self.local).is_some_and(|local| local.state == NodeState::Joining) {
            return Vec::new();
        }
        let next = self.elector.elect(&self.view.desired, members);
        self.history.handle_assignment(&next, members);
        let changes = self.view.assignment.changes_to(&next);
        self.view.assignment = Arc::new(next);
        changes
    }
}

/// The wires on which `member` may announce, in the order of the interfaces' names.
fn allowed_wires(member: &Member, interfaces: Selection<InterfaceName>) -> Vec<&Wire> {
    member.wires.iter().filter(|(name, _)| interfaces.contains(name)).map(|(_, wire)| wire).collect()
}

/// Chosen: several times the largest cluster. Beyond it only those of living members are kept.
const MACS_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    use garpike_election::{Address, Endpoints, Handicap, Placement, Presence};

    use super::*;

    #[test]
    fn an_address_is_stood_in_for_on_the_interfaces_that_meet_its_owner() {
        let mut pipeline = Pipeline::new(node("b"));
        pipeline.handle_desired(desired());
        pipeline.handle_members(members(Presence::Away));

        assert_eq!(pipeline.owned(), BTreeMap::new());
        assert_eq!(pipeline.elsewhere(), BTreeMap::from([(ip(), node("a"))]));
        assert_eq!(pipeline.stood_in(), BTreeMap::from([(ip(), BTreeMap::from([(interface("lan1"), mac(1))]))]));

        pipeline.handle_members(members(Presence::Here));
        assert_eq!(pipeline.stood_in(), BTreeMap::new());
    }

    #[test]
    fn a_node_that_does_not_know_its_peers_yet_takes_nothing() {
        let mut pipeline = Pipeline::new(node("b"));
        pipeline.handle_desired(desired());
        let alone = |state| {
            let nodes = BTreeMap::from([(node("b"), Member::new(state, Selection::All))]);
            Members { local: node("b"), nodes }
        };

        assert_eq!(pipeline.handle_members(alone(NodeState::Joining)), []);
        assert_eq!(pipeline.owned(), BTreeMap::new());

        assert_eq!(pipeline.handle_members(alone(NodeState::Ready)).len(), 1);
        assert_eq!((pipeline.owned().len(), pipeline.elsewhere().len()), (1, 0));
    }

    #[test]
    fn a_handicap_moves_addresses_and_one_that_all_have_moves_none() {
        let mut pipeline = Pipeline::new(node("b"));
        pipeline.handle_desired(desired());
        let with = |handicapped: &dyn Fn(&NodeName) -> bool| {
            let mut members = members(Presence::Here);
            for (name, member) in &mut members.nodes {
                member.state = NodeState::Ready;
                member.handicaps.extend(handicapped(name).then_some(Handicap::NoGateway));
            }
            members
        };
        let first = pipeline.handle_members(with(&|_| false));
        let [Change { to: Some(owner), .. }] = &first[..] else { panic!("{first:?}") };

        assert_eq!(pipeline.handle_members(with(&|_| true)), [], "the gateway is down for all");
        assert_eq!(pipeline.handle_members(with(&|name| name != owner)), [], "for all others");
        assert_eq!(pipeline.handle_members(with(&|_| false)), [], "it is back");

        let moved = pipeline.handle_members(with(&|name| name == owner));
        let [Change { from: Some(from), to: Some(to), .. }] = &moved[..] else { panic!("{moved:?}") };
        assert!(from == owner && to != owner);
    }

    #[test]
    fn members_are_told_from_stations_even_when_they_are_dead() {
        let mut pipeline = Pipeline::new(node("b"));
        pipeline.handle_members(members(Presence::Here));
        let mut survivors = members(Presence::Here);
        survivors.nodes.remove(&node("a"));
        pipeline.handle_members(survivors);

        assert_eq!(pipeline.duties().members, BTreeSet::from([mac(1), mac(2), mac(3), mac(4)]));
    }

    #[test]
    fn the_announcer_is_told_who_owns_the_rest_and_who_died() {
        let mut pipeline = Pipeline::new(node("b"));
        pipeline.handle_desired(desired());
        pipeline.handle_members(members(Presence::Away));
        let Duties { elsewhere, nodes, local, .. } = pipeline.duties();
        assert_eq!(elsewhere, BTreeMap::from([(ip(), node("a"))]));
        assert_eq!(nodes.keys().map(NodeName::as_str).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!((nodes[&node("a")].standing, nodes[&node("c")].standing), (Standing::Away, Standing::Here));
        assert_eq!(local, Some(node("b")));

        let mut survivors = members(Presence::Here);
        survivors.nodes.remove(&node("a"));
        pipeline.handle_members(survivors);
        let Duties { owned, elsewhere, nodes, untried, .. } = pipeline.duties();
        assert_eq!((owned.len(), elsewhere.len()), (1, 0));
        assert_eq!(nodes[&node("a")].standing, Standing::Dead);
        assert_eq!(nodes[&node("a")].macs().collect::<Vec<_>>(), [mac(1)]);
        assert_eq!(untried, BTreeSet::new(), "a takeover does not wait");

        pipeline.handle_members(members(Presence::Here));
        assert_eq!(pipeline.duties().nodes[&node("a")].standing, Standing::Here);
    }

    #[test]
    fn whoever_does_not_stand_in_answers_nothing() {
        for local in ["a", "c"] {
            let mut pipeline = Pipeline::new(node(local));
            pipeline.handle_desired(desired());
            pipeline.handle_members(members(Presence::Away));

            assert_eq!(pipeline.stood_in(), BTreeMap::new(), "{local}");
        }
    }

    /// Node a owns the address; b meets it with its second network card, c nowhere.
    fn members(presence: Presence) -> Members {
        let member = |wires: &[(&str, u8, &str)], state, presence| {
            let wires = wires.iter().map(|(name, last, net)| {
                (interface(name), Wire { mac: mac(*last), nets: BTreeSet::from([net.parse().unwrap()]) })
            });
            Member { presence, wires: wires.collect(), ..Member::new(state, Selection::All) }
        };
        let a = member(&[("lan0", 1, "10.1.0.1/16")], NodeState::Ready, presence);
        let b = [("lan0", 2, "10.2.0.1/16"), ("lan1", 3, "10.1.0.2/16")];
        let b = member(&b, NodeState::HeldDown, Presence::Here);
        let c = member(&[("lan0", 4, "10.3.0.1/16")], NodeState::Draining, Presence::Here);
        let nodes = BTreeMap::from([(node("a"), a), (node("b"), b), (node("c"), c)]);
        Members { local: node("b"), nodes }
    }

    fn desired() -> Desired {
        let placements = vec![Placement { nodes: Selection::All, interfaces: Selection::All }];
        let address =
            Address { election_key: ip(), services: Box::default(), placements, endpoints: Endpoints::Anywhere };
        Desired { addresses: BTreeMap::from([(ip(), address)]), ..Desired::default() }
    }

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn interface(name: &str) -> InterfaceName {
        name.parse().unwrap()
    }

    fn mac(last: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, last])
    }

    fn ip() -> ServiceIp {
        "10.0.0.1".parse().unwrap()
    }
}
