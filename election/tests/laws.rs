//! Laws of the election that hold for every input.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic on bad fixtures")]

use std::collections::{BTreeMap, BTreeSet};

use garpike_election::{
    Address, Desired, Elector, InterfaceName, Member, Members, NodeName, NodeState, Placement, Selection, ServiceIp,
    Unowned, elect,
};
use proptest::prelude::*;

proptest! {
    #[test]
    fn removing_a_node_moves_only_its_addresses(desired in desired(), members in members(), gone in 0..8_usize) {
        let before = elect(&desired, &members);
        let gone = node(gone);
        let mut survivors = members.clone();
        survivors.nodes.remove(&gone);

        for change in before.changes_to(&elect(&desired, &survivors)) {
            prop_assert_eq!(change.from.as_ref(), Some(&gone), "{} moved", change.ip);
        }
    }

    #[test]
    fn the_heir_is_the_second_of_the_ranking(desired in desired(), members in members()) {
        let before = elect(&desired, &members);
        for (ip, elected) in &before.addresses {
            let mut survivors = members.clone();
            if let Some(owner) = elected.owner() {
                survivors.nodes.remove(owner);
            }
            let after = elect(&desired, &survivors);
            prop_assert_eq!(after.owner(*ip), elected.ranked.get(1));
        }
    }

    #[test]
    fn a_new_node_takes_addresses_only_for_itself(desired in desired(), members in members(), new in 8..12_usize) {
        let before = elect(&desired, &members);
        let new = node(new);
        let mut more = members.clone();
        more.nodes.insert(new.clone(), ready());

        for change in before.changes_to(&elect(&desired, &more)) {
            prop_assert_eq!(change.to.as_ref(), Some(&new), "{} moved", change.ip);
        }
    }

    #[test]
    fn the_order_of_placements_does_not_matter(desired in desired(), members in members()) {
        let mut reversed = desired.clone();
        for address in reversed.addresses.values_mut() {
            address.placements.reverse();
        }

        prop_assert_eq!(elect(&desired, &members), elect(&reversed, &members));
    }

    #[test]
    fn every_node_computes_the_same(desired in desired(), members in members()) {
        let mut elsewhere = members.clone();
        elsewhere.local = node(7);

        prop_assert_eq!(elect(&desired, &members), elect(&desired, &elsewhere));
    }

    #[test]
    fn an_owner_is_eligible_and_an_unowned_address_has_a_reason(desired in desired(), members in members()) {
        let assignment = elect(&desired, &members);

        prop_assert_eq!(assignment.addresses.len(), desired.addresses.len());
        for (ip, elected) in &assignment.addresses {
            prop_assert_eq!(elected.owner().is_none(), elected.unowned.is_some());
            for candidate in &elected.ranked {
                prop_assert!(members.nodes.contains_key(candidate));
                prop_assert!(!desired.excluded.contains(candidate));
                prop_assert!(desired.addresses[ip].interfaces_on(candidate).is_some());
            }
            let unique: BTreeSet<_> = elected.ranked.iter().collect();
            prop_assert_eq!(unique.len(), elected.ranked.len());
        }
    }

    #[test]
    fn addresses_with_one_election_key_stay_together(mut desired in desired(), members in members()) {
        let everywhere = vec![Placement { nodes: Selection::All, interfaces: Selection::All }];
        for address in desired.addresses.values_mut() {
            address.election_key = ip(0);
            address.placements.clone_from(&everywhere);
        }

        let assignment = elect(&desired, &members);

        let owners: BTreeSet<_> = assignment.addresses.values().map(|elected| elected.owner()).collect();
        prop_assert!(owners.len() <= 1);
    }

    #[test]
    fn memory_of_earlier_elections_does_not_change_the_result(
        rounds in prop::collection::vec((desired(), members()), 1..6),
    ) {
        let mut elector = Elector::default();
        for (desired, members) in rounds {
            prop_assert_eq!(elector.elect(&desired, &members), elect(&desired, &members));
        }
    }
}

#[test]
fn a_node_that_is_ready_goes_before_one_that_joins_drains_or_restarts() {
    let desired = Desired { addresses: BTreeMap::from([(ip(1), address(ip(1)))]), excluded: BTreeSet::new() };
    let states = [NodeState::Restarting, NodeState::Draining, NodeState::Joining, NodeState::Ready];
    let nodes = states.iter().enumerate().map(|(i, state)| (node(i), Member { state: *state, ..ready() })).collect();

    let assignment = elect(&desired, &Members { local: node(0), nodes });

    assert_eq!(assignment.addresses[&ip(1)].ranked, [node(3), node(2), node(1), node(0)]);
    assert!(states.iter().all(|state| *state >= NodeState::BEST));
}

#[test]
fn a_ranking_begins_like_the_hash_order_however_many_nodes_there_are() {
    let desired = Desired { addresses: BTreeMap::from([(ip(1), address(ip(1)))]), excluded: BTreeSet::new() };
    let nodes: BTreeMap<NodeName, Member> = (0..40).map(|i| (node(i), ready())).collect();
    let order: Vec<NodeName> = garpike_election::order(nodes.keys(), ip(1)).into_iter().cloned().collect();

    let assignment = elect(&desired, &Members { local: node(0), nodes });

    assert_eq!(assignment.addresses[&ip(1)].ranked, order[..garpike_election::Elected::MAX_RANKED]);
}

#[test]
fn the_hard_rule_that_leaves_an_address_unowned_is_named() {
    let eth0 = Selection::Only(BTreeSet::from([interface("eth0")]));
    let member = Member { state: NodeState::Ready, interfaces: eth0 };
    let members = Members { local: node(0), nodes: BTreeMap::from([(node(0), member)]) };
    let reason = |change: &dyn Fn(&mut Desired)| {
        let mut desired = Desired { addresses: BTreeMap::from([(ip(1), address(ip(1)))]), excluded: BTreeSet::new() };
        change(&mut desired);
        elect(&desired, &members).addresses[&ip(1)].unowned
    };
    let placement = |nodes, interfaces| vec![Placement { nodes, interfaces }];
    let only_node_1 = || Selection::Only(BTreeSet::from([node(1)]));
    let only_eth9 = || Selection::Only(BTreeSet::from([interface("eth9")]));

    assert_eq!(reason(&|_| {}), None);
    assert_eq!(
        reason(&|desired| desired.addresses.get_mut(&ip(1)).unwrap().placements.clear()),
        Some(Unowned::NoAdvertisement)
    );
    assert_eq!(
        reason(&|desired| {
            desired.addresses.get_mut(&ip(1)).unwrap().placements = placement(only_node_1(), Selection::All);
        }),
        Some(Unowned::NoSelectedNode)
    );
    assert_eq!(
        reason(&|desired| {
            desired.excluded.insert(node(0));
        }),
        Some(Unowned::AllExcluded)
    );
    assert_eq!(
        reason(&|desired| {
            desired.addresses.get_mut(&ip(1)).unwrap().placements = placement(Selection::All, only_eth9());
        }),
        Some(Unowned::NoInterface)
    );
}

#[test]
fn the_interfaces_of_the_owner_are_the_union_of_the_placements_that_allow_it() {
    let on = |nodes: Selection<NodeName>, name: &str| Placement {
        nodes,
        interfaces: Selection::Only(BTreeSet::from([interface(name)])),
    };
    let mut address = address(ip(1));
    address.placements = vec![
        on(Selection::All, "eth0"),
        on(Selection::Only(BTreeSet::from([node(0)])), "eth1"),
        on(Selection::Only(BTreeSet::from([node(1)])), "eth2"),
    ];

    assert_eq!(
        address.interfaces_on(&node(0)),
        Some(Selection::Only(BTreeSet::from([interface("eth0"), interface("eth1")])))
    );
}

fn members() -> impl Strategy<Value = Members> {
    let state = prop_oneof![
        4 => Just(NodeState::Ready),
        1 => Just(NodeState::Joining),
        1 => Just(NodeState::Draining),
        1 => Just(NodeState::Restarting),
    ];
    let member = (state, selection("eth", 3))
        .prop_map(|(state, names)| Member { state, interfaces: map(names, |name| interface(&name)) });
    prop::collection::btree_map((0..8_usize).prop_map(node), member, 0..8)
        .prop_map(|nodes| Members { local: node(0), nodes })
}

fn desired() -> impl Strategy<Value = Desired> {
    let placement = (selection("node-", 8), selection("eth", 3)).prop_map(|(nodes, interfaces)| Placement {
        nodes: map(nodes, |name| name.parse().unwrap()),
        interfaces: map(interfaces, |name| interface(&name)),
    });
    let address = (0..12_usize, prop::collection::vec(placement, 0..3)).prop_map(|(key, placements)| Address {
        election_key: ip(key),
        services: BTreeSet::new(),
        placements,
    });
    let addresses = prop::collection::btree_map((0..12_usize).prop_map(ip), address, 0..12);
    let excluded = prop::collection::btree_set((0..8_usize).prop_map(node), 0..2);
    (addresses, excluded).prop_map(|(addresses, excluded)| Desired { addresses, excluded })
}

/// `All` or some of `<prefix>0`, `<prefix>1`, ...
fn selection(prefix: &'static str, count: usize) -> impl Strategy<Value = Selection<String>> {
    let some = prop::collection::btree_set((0..count).prop_map(move |i| format!("{prefix}{i}")), 0..=count);
    prop_oneof![2 => Just(Selection::All), 1 => some.prop_map(Selection::Only)]
}

fn map<T: Ord>(selection: Selection<String>, f: impl Fn(String) -> T) -> Selection<T> {
    match selection {
        Selection::All => Selection::All,
        Selection::Only(items) => Selection::Only(items.into_iter().map(f).collect()),
    }
}

fn address(election_key: ServiceIp) -> Address {
    let placements = vec![Placement { nodes: Selection::All, interfaces: Selection::All }];
    Address { election_key, services: BTreeSet::new(), placements }
}

fn ready() -> Member {
    Member { state: NodeState::Ready, interfaces: Selection::All }
}

fn node(i: usize) -> NodeName {
    format!("node-{i}").parse().unwrap()
}

fn ip(i: usize) -> ServiceIp {
    format!("10.0.0.{}", i + 1).parse().unwrap()
}

fn interface(name: &str) -> InterfaceName {
    name.parse().unwrap()
}
