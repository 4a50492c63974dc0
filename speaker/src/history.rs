//! What was before: which addresses have had an owner, and what members said before they died.
//!
//! An address without a past may be in use by somebody else, so its first owner asks before it claims it. One that had an
//! owner is taken over at once, and so is everything by a node that finds others at work when it starts, unless a MetalLB may
//! still be at work too.

use std::collections::{BTreeMap, BTreeSet};

use garpike_election::{Assignment, Desired, Member, Members, NodeName, Presence, ServiceIp};

/// The past as far as it matters.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// The desired addresses that have had an owner; `None` before the first election of any.
    owned: Option<BTreeSet<ServiceIp>>,
    /// What this node owns as their first owner.
    untried: BTreeSet<ServiceIp>,
    /// The nodes on which something else than this program may speak, unless they are members.
    unlike: BTreeSet<NodeName>,
    dead: BTreeMap<NodeName, Member>,
}

impl History {
    /// The addresses that this node owns and nobody owned before.
    pub(crate) fn untried(&self) -> &BTreeSet<ServiceIp> {
        &self.untried
    }

    /// The nodes that were members, with what they said last.
    pub(crate) fn dead(&self) -> impl Iterator<Item = (&NodeName, &Member)> {
        self.dead.iter()
    }

    /// Takes where something else may speak.
    pub(crate) fn handle_unlike(&mut self, nodes: BTreeSet<NodeName>) {
        self.unlike = nodes;
    }

    /// Forgets the addresses that no Service holds any more.
    pub(crate) fn handle_desired(&mut self, desired: &Desired) {
        if let Some(owned) = &mut self.owned {
            owned.retain(|ip| desired.addresses.contains_key(ip));
        }
    }

    /// Notes who is gone.
    pub(crate) fn handle_members(&mut self, before: &Members, members: &Members) {
        if self.dead.len() > DEAD_MAX {
            self.dead.clear();
        }
        let gone = before.nodes.iter().filter(|(node, _)| !members.nodes.contains_key(*node));
        self.dead.extend(gone.map(|(node, member)| (node.clone(), member.clone())));
        self.dead.retain(|node, _| !members.nodes.contains_key(node));
    }

    /// Notes who owns what for the first time.
    pub(crate) fn handle_assignment(&mut self, assignment: &Assignment, members: &Members) {
        if assignment.addresses.is_empty() {
            return;
        }
        let owners = || assignment.addresses.iter().filter_map(|(ip, elected)| Some((*ip, elected.owner()?)));
        let owned = self.owned.get_or_insert_with(|| {
            let is_here =
                |(node, member): (&NodeName, &Member)| *node != members.local && member.presence == Presence::Here;
            let is_foreign = |node: &NodeName| !members.nodes.contains_key(node);
            // The others may have been at work no longer than this node: then the addresses are still a MetalLB's.
            let found_others = members.nodes.iter().any(is_here) && !self.unlike.iter().any(is_foreign);
            owners().filter(|_| found_others).map(|(ip, _)| ip).collect()
        });
        for (ip, owner) in owners() {
            if owned.insert(ip) && *owner == members.local {
                self.untried.insert(ip);
            }
        }
        self.untried.retain(|ip| assignment.owner(*ip) == Some(&members.local));
    }
}

/// Chosen: more than die before somebody looks. Beyond it those who died earlier are forgotten.
const DEAD_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use garpike_election::{Address, Endpoints, NodeState, Placement, Selection, elect};

    use super::*;

    #[test]
    fn a_node_that_starts_alone_asks_before_it_claims_and_one_among_others_does_not() {
        let mut history = History::default();
        take(&mut history, &desired(&[1]), &members(&["a"]));
        assert_eq!(history.untried(), &BTreeSet::from([ip(1)]));

        let mut history = History::default();
        take(&mut history, &desired(&[1]), &members(&["a", "b"]));
        assert_eq!(history.untried(), &BTreeSet::new());
    }

    #[test]
    fn a_node_that_starts_beside_a_metallb_asks_before_it_claims() {
        for (unlike, untried) in [("b", BTreeSet::new()), ("c", BTreeSet::from([ip(1)]))] {
            let mut history = History::default();
            history.handle_unlike(BTreeSet::from([node(unlike)]));
            let assignment = take(&mut history, &desired(&[1]), &members(&["a", "b"]));
            let own = assignment.owner(ip(1)) == Some(&node("a"));
            assert_eq!(history.untried(), &if own { untried } else { BTreeSet::new() }, "{unlike}");
        }
    }

    #[test]
    fn an_address_that_a_service_gets_is_new_to_its_first_owner_alone() {
        let mut history = History::default();
        take(&mut history, &desired(&[1, 2]), &members(&["a", "b"]));
        let all: Vec<u8> = (1..40).collect();
        let assignment = take(&mut history, &desired(&all), &members(&["a", "b"]));
        let own: BTreeSet<ServiceIp> = assignment.owned_by(&node("a")).map(|(ip, _)| ip).collect();
        let new = own.iter().copied().filter(|address| ![ip(1), ip(2)].contains(address));
        assert_eq!(history.untried(), &new.collect());

        take(&mut history, &desired(&all), &members(&["a"]));
        assert!(history.untried().is_subset(&own), "what b owned is taken over at once");
    }

    #[test]
    fn an_address_that_was_given_up_and_comes_again_is_new() {
        let mut history = History::default();
        take(&mut history, &desired(&[1, 2]), &members(&["a", "b"]));
        take(&mut history, &desired(&[1]), &members(&["a"]));
        take(&mut history, &desired(&[1, 2]), &members(&["a"]));
        assert_eq!(history.untried(), &BTreeSet::from([ip(2)]));
    }

    #[test]
    fn before_the_services_are_known_nothing_is_judged() {
        let mut history = History::default();
        take(&mut history, &desired(&[]), &members(&["a", "b"]));
        take(&mut history, &desired(&[1]), &members(&["a", "b"]));
        assert_eq!(history.untried(), &BTreeSet::new());
    }

    #[test]
    fn who_returns_is_not_dead_and_the_dead_are_bounded() {
        let mut history = History::default();
        history.handle_members(&members(&["a", "b"]), &members(&["a"]));
        assert_eq!(history.dead().count(), 1);
        history.handle_members(&members(&["a"]), &members(&["a", "b"]));
        assert_eq!(history.dead().count(), 0);
        for i in 0..1000 {
            history.handle_members(&members(&["a", &format!("n{i}")]), &members(&["a"]));
        }
        assert!(history.dead().count() <= DEAD_MAX + 1);
    }

    /// What node a elects.
    fn take(history: &mut History, desired: &Desired, members: &Members) -> Assignment {
        let assignment = elect(desired, members);
        history.handle_desired(desired);
        history.handle_assignment(&assignment, members);
        assignment
    }

    fn desired(ips: &[u8]) -> Desired {
        let placements = vec![Placement { nodes: Selection::All, interfaces: Selection::All }];
        let address = |last: &u8| {
            let address = Address {
                election_key: ip(*last),
                services: Box::default(),
                placements: placements.clone(),
                endpoints: Endpoints::Anywhere,
            };
            (ip(*last), address)
        };
        Desired { addresses: ips.iter().map(address).collect(), ..Desired::default() }
    }

    fn members(names: &[&str]) -> Members {
        let member = |name: &&str| (node(name), Member::new(NodeState::Ready, Selection::All));
        Members { local: node("a"), nodes: names.iter().map(member).collect() }
    }

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn ip(last: u8) -> ServiceIp {
        ServiceIp::new([10, 0, 0, last].into()).unwrap()
    }
}
