//! Laws of the election while all members want even numbers.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic on bad fixtures")]

use std::collections::{BTreeMap, BTreeSet};

use garpike_election::{
    Address, Assignment, Desired, Elector, Endpoints, Member, Members, NodeName, NodeState, Placement, Presence,
    Selection, ServiceIp, Spread, balanced_orders, elect,
};
use proptest::prelude::*;

proptest! {
    #[test]
    fn the_numbers_of_two_nodes_differ_by_one_at_most(addresses in 0..300_usize, nodes in 1..12_usize) {
        let assignment = elect(&desired(addresses, nodes), &members(0..nodes));

        let loads = loads(&assignment, nodes);
        prop_assert_eq!(loads.values().sum::<usize>(), addresses);
        prop_assert!(loads.values().max().unwrap() - loads.values().min().unwrap() <= 1, "{:?}", loads);
    }

    #[test]
    fn a_death_moves_only_what_was_there_and_shares_it_out(addresses in 0..300_usize, nodes in 2..12_usize, dead in 0..12_usize) {
        let dead = dead % nodes;
        let desired = desired(addresses, nodes);
        let before = elect(&desired, &members(0..nodes));
        let after = elect(&desired, &members((0..nodes).filter(|i| *i != dead)));

        for change in before.changes_to(&after) {
            prop_assert_eq!(change.from, Some(node(dead)));
            prop_assert!(change.to.is_some());
        }
        let mut loads = loads(&after, nodes);
        loads.remove(&node(dead));
        // What it had is shared out evenly, and so was the rest.
        prop_assert!(loads.values().max().unwrap() - loads.values().min().unwrap() <= 2, "{:?}", loads);
    }

    #[test]
    fn several_deaths_move_nothing_of_the_living(
        addresses in 0..200_usize, nodes in 2..10_usize, living in prop::collection::btree_set(0..10_usize, 1..10),
    ) {
        let desired = desired(addresses, nodes);
        let before = elect(&desired, &members(0..nodes));
        let living: BTreeSet<usize> = living.into_iter().filter(|i| *i < nodes).collect();
        let after = elect(&desired, &members(living.iter().copied()));

        for change in before.changes_to(&after) {
            let from = change.from.unwrap();
            prop_assert!(!living.iter().any(|i| node(*i) == from), "{} moved from {from}, which lives", change.ip);
        }
    }

    #[test]
    fn a_return_before_the_hold_down_is_over_moves_nothing(addresses in 0..200_usize, nodes in 2..10_usize, back in 0..10_usize) {
        let back = back % nodes;
        let desired = desired(addresses, nodes);
        let without = members((0..nodes).filter(|i| *i != back));
        let mut with = without.clone();
        with.nodes.insert(node(back), Member { state: NodeState::HeldDown, ..member() });

        prop_assert_eq!(elect(&desired, &without).changes_to(&elect(&desired, &with)), []);
        with.nodes.insert(node(back), member());
        prop_assert_eq!(elect(&desired, &with), elect(&desired, &members(0..nodes)), "then all is as before its death");
    }

    #[test]
    fn every_node_computes_the_same_whatever_it_has_seen_before(
        addresses in 0..100_usize, nodes in 1..8_usize, seen in prop::collection::vec((0..100_usize, 1..12_usize), 0..4),
        selected in prop::collection::vec(prop::collection::btree_set(0..8_usize, 0..4), 0..4),
    ) {
        let desired = with_selected(desired(addresses, nodes), &selected);
        let members = members(0..nodes);
        let mut elector = Elector::default();
        for (addresses, nodes) in seen {
            let mut others = self::members((0..nodes).rev());
            others.local = node(nodes);
            elector.elect(&self::desired(addresses, nodes), &others);
        }

        prop_assert_eq!(elector.elect(&desired, &members), elect(&desired, &members));
    }

    #[test]
    fn selected_nodes_fill_up_those_that_have_less(
        addresses in 1..100_usize, nodes in 2..8_usize, few in 1..4_usize, restricted in 0..50_usize,
    ) {
        let few = few.min(nodes);
        let selected: BTreeSet<usize> = (0..few).collect();
        let mut desired = desired(addresses, nodes);
        for address in desired.addresses.values_mut().take(restricted) {
            address.placements = placements(Selection::Only(selected.iter().map(|i| node(*i)).collect()));
        }
        let restricted = restricted.min(addresses);

        let loads = loads(&elect(&desired, &members(0..nodes)), nodes);

        let fair = addresses.div_ceil(nodes).max(restricted.div_ceil(few));
        prop_assert!(loads.values().all(|load| *load <= fair), "{:?}, fair is {}", loads, fair);
    }

    #[test]
    fn one_address_more_moves_few_others(addresses in 1..200_usize, nodes in 1..10_usize, new in 0..200_usize) {
        let more = desired(addresses, nodes);
        let mut less = more.clone();
        less.addresses.remove(&ip(new % addresses));

        let moved = elect(&less, &members(0..nodes)).changes_to(&elect(&more, &members(0..nodes)));

        prop_assert!(moved.len() <= nodes + 1, "{} moved", moved.len() - 1);
    }

    #[test]
    fn while_one_member_goes_by_the_hash_all_do(addresses in 0..50_usize, nodes in 1..8_usize, old in 0..8_usize) {
        let mut mixed = members(0..nodes);
        mixed.nodes.insert(node(old % nodes), Member { spread: Some(Spread::Hash), ..member() });
        let mut hash = mixed.clone();
        hash.nodes.values_mut().for_each(|member| member.spread = None);

        let desired = desired(addresses, nodes);
        prop_assert_eq!(elect(&desired, &mixed), elect(&desired, &hash));
    }

    #[test]
    fn a_member_that_has_not_spoken_yet_changes_no_order(addresses in 0..50_usize, nodes in 2..8_usize, mute in 0..8_usize) {
        let mute = mute % nodes;
        let desired = desired(addresses, nodes);
        let mut with = members(0..nodes);
        with.nodes.insert(node(mute), Member::new(NodeState::Joining, Selection::All));
        let without = members((0..nodes).filter(|i| *i != mute));

        prop_assert_eq!(elect(&desired, &without).changes_to(&elect(&desired, &with)), []);
    }
}

#[test]
fn a_speaker_that_is_away_keeps_its_addresses() {
    let desired = desired(20, 4);
    let mut members = members(0..4);
    let before = elect(&desired, &members);
    members.nodes.get_mut(&node(1)).unwrap().presence = Presence::Away;
    let after = elect(&desired, &members);

    assert_eq!(before.changes_to(&after), []);
    assert!(after.owned_by(&node(1)).all(|(ip, _)| after.addresses[&ip].stand_in.is_some()));
}

#[test]
fn the_orders_that_people_are_shown_are_those_of_the_election() {
    let nodes: Vec<NodeName> = (0..5).map(node).collect();
    let ips: Vec<ServiceIp> = (0..23).map(ip).collect();
    let shown = balanced_orders(&nodes, &ips);
    let elected = elect(&desired(23, 5), &members(0..5));

    for (ip, order) in &shown {
        assert_eq!(&elected.addresses[ip].ranked, order, "{ip}");
    }
    assert_eq!(shown.len(), 23);
}

fn loads(assignment: &Assignment, nodes: usize) -> BTreeMap<NodeName, usize> {
    let mut loads: BTreeMap<NodeName, usize> = (0..nodes).map(|i| (node(i), 0)).collect();
    for elected in assignment.addresses.values() {
        *loads.get_mut(elected.owner().unwrap()).unwrap() += 1;
    }
    loads
}

fn desired(addresses: usize, nodes: usize) -> Desired {
    let address = |i| {
        let placements = placements(Selection::All);
        let address =
            Address { election_key: ip(i), services: Box::default(), placements, endpoints: Endpoints::Anywhere };
        (ip(i), address)
    };
    Desired {
        addresses: (0..addresses).map(address).collect(),
        roster: (0..nodes).map(node).collect(),
        ..Desired::default()
    }
}

fn with_selected(mut desired: Desired, selected: &[BTreeSet<usize>]) -> Desired {
    for (address, nodes) in desired.addresses.values_mut().zip(selected.iter().cycle()) {
        address.placements = placements(Selection::Only(nodes.iter().map(|i| node(*i)).collect()));
    }
    desired
}

fn placements(nodes: Selection<NodeName>) -> Vec<Placement> {
    vec![Placement { nodes, interfaces: Selection::All }]
}

fn members(nodes: impl Iterator<Item = usize>) -> Members {
    Members { local: node(0), nodes: nodes.map(|i| (node(i), member())).collect() }
}

fn member() -> Member {
    Member { spread: Some(Spread::Balanced), ..Member::new(NodeState::Ready, Selection::All) }
}

fn node(i: usize) -> NodeName {
    format!("node-{i}").parse().unwrap()
}

fn ip(i: usize) -> ServiceIp {
    format!("10.0.{}.{}", i / 250, i % 250 + 1).parse().unwrap()
}
