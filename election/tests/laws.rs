//! Laws of the election that hold for every input.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests panic on bad fixtures")]

use std::collections::{BTreeMap, BTreeSet};

use garpike_election::{
    Address, Desired, Elector, Endpoints, Handicap, InterfaceName, LocalEndpoints, MacAddr, Member, Members, NodeName,
    NodeState, Placement, Presence, Selection, ServiceIp, Unowned, Wire, elect,
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
            // What nobody can stand in for any more has to move as well.
            let stood_in = before.addresses[&change.ip].stand_in == Some(gone.clone());
            prop_assert!(stood_in || change.from.as_ref() == Some(&gone), "{} moved", change.ip);
        }
    }

    #[test]
    fn a_member_that_goes_away_moves_nothing_if_somebody_can_stand_in(
        desired in desired(), members in members(), away in 0..8_usize,
    ) {
        let away = node(away);
        let mut without = members;
        if let Some(member) = without.nodes.get_mut(&away) {
            member.presence = Presence::Here;
        }
        let before = elect(&desired, &without);
        let mut with = without.clone();
        if let Some(member) = with.nodes.get_mut(&away) {
            member.presence = Presence::Away;
        }

        let after = elect(&desired, &with);

        for (ip, elected) in &before.addresses {
            let kept = after.owner(*ip) == elected.owner();
            if elected.owner() == Some(&away) {
                let able = can_stand_in(*ip, &desired, &with, &away);
                prop_assert!(able.is_empty() || kept, "{} moved", ip);
                prop_assert!(able.is_empty() || able.contains(after.addresses[ip].stand_in.as_ref().unwrap()));
            } else {
                prop_assert!(kept || elected.stand_in.as_ref() == Some(&away), "{} moved", ip);
            }
        }
    }

    #[test]
    fn whoever_stands_in_is_there_and_on_a_segment_of_an_owner_that_is_away(
        desired in desired(), members in members(),
    ) {
        let assignment = elect(&desired, &members);
        for (ip, elected) in &assignment.addresses {
            let Some(owner) = elected.owner() else { continue };
            let able = can_stand_in(*ip, &desired, &members, owner);
            match (members.nodes[owner].presence, &elected.stand_in) {
                (Presence::Here, stand_in) => prop_assert_eq!(stand_in, &None),
                (Presence::Away, Some(stand_in)) => prop_assert!(able.contains(stand_in), "{}", ip),
                // Nobody could be the owner and answer.
                (Presence::Away, None) => {
                    prop_assert!(able.is_empty());
                    let here = |node: &NodeName| members.nodes[node].presence == Presence::Here;
                    prop_assert!(!elected.ranked.iter().any(here), "{}", ip);
                }
            }
        }
        for node in members.nodes.keys() {
            for (ip, owner) in assignment.stood_in_by(node) {
                prop_assert_eq!(assignment.owner(ip), Some(owner));
                prop_assert_eq!(assignment.addresses[&ip].stand_in.as_ref(), Some(node));
            }
        }
    }

    #[test]
    fn a_handicap_that_all_have_counts_for_none(desired in desired(), members in members(), handicap in handicap()) {
        let (mut all, mut none) = (members.clone(), members);
        for member in all.nodes.values_mut() {
            member.handicaps.insert(handicap);
        }
        for member in none.nodes.values_mut() {
            member.handicaps.remove(&handicap);
        }

        prop_assert_eq!(elect(&desired, &all), elect(&desired, &none));
    }

    #[test]
    fn the_heir_is_the_second_of_the_ranking(desired in desired(), mut members in members()) {
        for member in members.nodes.values_mut() {
            member.presence = Presence::Here;
        }
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
        let mut more = members;
        for member in more.nodes.values_mut() {
            member.presence = Presence::Here;
        }
        let before = elect(&desired, &more);
        let new = node(new);
        more.nodes.insert(new.clone(), ready());

        for change in before.changes_to(&elect(&desired, &more)) {
            prop_assert_eq!(change.to.as_ref(), Some(&new), "{} moved", change.ip);
        }
    }

    #[test]
    fn a_drain_moves_only_addresses_of_the_drained_node_and_orphans_none(
        desired in desired(), members in members(), drained in 0..8_usize,
    ) {
        let drained = node(drained);
        let with = |state| {
            let mut members = members.clone();
            members.nodes.entry(drained.clone()).and_modify(|member| member.state = state);
            elect(&desired, &members)
        };
        let (before, after) = (with(NodeState::Ready), with(NodeState::Draining));

        for change in before.changes_to(&after) {
            prop_assert_eq!(change.from.as_ref(), Some(&drained), "{} moved", change.ip);
            prop_assert!(change.to.is_some(), "{} is orphaned", change.ip);
        }
        for (ip, elected) in &after.addresses {
            if elected.owner() == Some(&drained) {
                let answers = |node: &NodeName| {
                    let Member { state, presence, .. } = members.nodes[node];
                    // Endpoints that terminate are no better than a node that is drained.
                    let lasting = backing(*ip, node, &desired) <= backing(*ip, &drained, &desired);
                    node != &drained && state < NodeState::Draining && presence == Presence::Here && lasting
                };
                prop_assert!(!elected.ranked.iter().any(answers), "{} stays although another may own it", ip);
            }
        }
    }

    #[test]
    fn a_drain_of_all_nodes_moves_nothing(desired in desired(), members in members()) {
        let all = |state| {
            let mut members = members.clone();
            members.nodes.values_mut().for_each(|member| member.state = state);
            elect(&desired, &members)
        };

        prop_assert_eq!(all(NodeState::Ready), all(NodeState::Draining));
    }

    #[test]
    fn a_move_brings_the_address_to_the_chosen_node_and_moves_nothing_else(
        desired in desired(), members in members(), moved in 0..12_usize, chosen in 0..10_usize,
    ) {
        let (moved, chosen) = (ip(moved), node(chosen));
        let mut without = desired;
        without.moves.remove(&moved);
        let mut with = without.clone();
        with.moves.insert(moved, chosen.clone());
        let (before, after) = (elect(&without, &members), elect(&with, &members));

        for change in before.changes_to(&after) {
            prop_assert_eq!(change.ip, moved);
            prop_assert_eq!(change.to.as_ref(), Some(&chosen));
        }
        if let Some(elected) = before.addresses.get(&moved) {
            // Silent ones rank behind all that are answered for, so the best is one of the first rank.
            let state = |node: &NodeName| (backing(moved, node, &without), members.nodes[node].state);
            let first_rank = elected.owner().map(state);
            let here = members.nodes.get(&chosen).is_some_and(|member| member.presence == Presence::Here);
            if here && elected.ranked.contains(&chosen) && Some(state(&chosen)) == first_rank {
                prop_assert_eq!(after.owner(moved), Some(&chosen));
            }
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
                prop_assert!(backing(*ip, candidate, &desired).is_some());
            }
            let here = elected.ranked.iter().filter(|node| members.nodes[*node].presence == Presence::Here);
            let backings: Vec<_> = here.map(|node| backing(*ip, node, &desired)).collect();
            prop_assert!(backings.is_sorted(), "{}: who has lasting endpoints goes first: {:?}", ip, backings);
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
            address.endpoints = Endpoints::Anywhere;
        }
        // Those who stay together are moved together.
        if let Some(chosen) = desired.moves.values().next().cloned() {
            desired.moves = desired.addresses.keys().map(|ip| (*ip, chosen.clone())).collect();
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
    let desired = Desired { addresses: BTreeMap::from([(ip(1), address(ip(1)))]), ..Desired::default() };
    let states = [NodeState::Restarting, NodeState::Draining, NodeState::Joining, NodeState::Ready];
    let nodes = states.iter().enumerate().map(|(i, state)| (node(i), Member { state: *state, ..ready() })).collect();

    let assignment = elect(&desired, &Members { local: node(0), nodes });

    assert_eq!(assignment.addresses[&ip(1)].ranked, [node(3), node(2), node(1), node(0)]);
    assert!(states.iter().all(|state| *state >= NodeState::BEST));
}

#[test]
fn the_choice_of_an_operator_goes_before_handicaps_and_after_the_state() {
    let nodes = |state: NodeState| {
        let chosen = Member { state, handicaps: BTreeSet::from([Handicap::Late]), ..ready() };
        let nodes = (0..40).map(|i| (node(i), ready())).chain([(node(40), chosen)]).collect();
        Members { local: node(0), nodes }
    };
    let addresses = BTreeMap::from([(ip(1), address(ip(1)))]);
    let moved = Desired { moves: BTreeMap::from([(ip(1), node(40))]), addresses, ..Desired::default() };
    let stayed = Desired { moves: BTreeMap::new(), ..moved.clone() };
    let usual = elect(&stayed, &nodes(NodeState::Ready)).addresses[&ip(1)].ranked.clone();

    let ranked = elect(&moved, &nodes(NodeState::Ready)).addresses[&ip(1)].ranked.clone();
    assert_eq!(ranked[0], node(40));
    assert_eq!(ranked[1..], usual[..usual.len() - 1]);
    for state in [NodeState::HeldDown, NodeState::Joining, NodeState::Draining, NodeState::Restarting] {
        assert_eq!(elect(&moved, &nodes(state)).addresses[&ip(1)].ranked, usual, "{state:?}");
    }
}

#[test]
fn fewer_handicaps_go_first_and_a_better_state_before_them() {
    let desired = Desired { addresses: BTreeMap::from([(ip(1), address(ip(1)))]), ..Desired::default() };
    let with = |handicaps: &[Handicap]| Member { handicaps: handicaps.iter().copied().collect(), ..ready() };
    let held_down = Member { state: NodeState::HeldDown, ..ready() };
    let members = [with(&[Handicap::Late, Handicap::NoGateway]), held_down, with(&[]), with(&[Handicap::NoDataPlane])];
    let nodes = members.into_iter().enumerate().map(|(i, member)| (node(i), member)).collect();

    let assignment = elect(&desired, &Members { local: node(0), nodes });

    assert_eq!(assignment.addresses[&ip(1)].ranked, [node(2), node(3), node(0), node(1)]);
}

#[test]
fn endpoints_that_terminate_serve_while_nobody_has_others() {
    let names = |numbers: &[usize]| numbers.iter().map(|number| node(*number)).collect();
    let owner = |lasting: &[usize], terminating: &[usize]| {
        let local = LocalEndpoints { ready: names(lasting), terminating: names(terminating) };
        let address = Address { endpoints: Endpoints::Local(Box::new(local)), ..address(ip(1)) };
        let desired = Desired { addresses: BTreeMap::from([(ip(1), address)]), ..Desired::default() };
        let nodes = (0..3).map(|i| (node(i), ready())).collect();
        elect(&desired, &Members { local: node(0), nodes }).addresses[&ip(1)].clone()
    };

    assert_eq!(owner(&[2], &[0, 1]).owner(), Some(&node(2)));
    assert_eq!(owner(&[], &[1]).owner(), Some(&node(1)));
    assert_eq!(owner(&[], &[]).unowned, Some(Unowned::NoLocalEndpoint));
}

#[test]
fn whoever_stands_in_needs_no_endpoint() {
    let local = LocalEndpoints { ready: BTreeSet::from([node(0)]), terminating: BTreeSet::new() };
    let address = Address { endpoints: Endpoints::Local(Box::new(local)), ..address(ip(1)) };
    let desired = Desired { addresses: BTreeMap::from([(ip(1), address)]), ..Desired::default() };
    let away = Member { presence: Presence::Away, ..ready() };
    let nodes = BTreeMap::from([(node(0), away), (node(1), ready())]);

    let elected = elect(&desired, &Members { local: node(1), nodes }).addresses[&ip(1)].clone();

    assert_eq!((elected.owner(), elected.stand_in.as_ref()), (Some(&node(0)), Some(&node(1))));
}

#[test]
fn services_with_one_owner_need_endpoints_on_one_node() {
    let local = |ready: &[usize], terminating: &[usize]| {
        let names = |numbers: &[usize]| numbers.iter().map(|number| node(*number)).collect();
        Endpoints::Local(Box::new(LocalEndpoints { ready: names(ready), terminating: names(terminating) }))
    };

    let both = local(&[0, 1], &[2]).of_both(local(&[1, 2], &[0, 3]));
    assert_eq!(both, local(&[1], &[0, 2]));
    for other in [Endpoints::Nowhere, Endpoints::Anywhere] {
        assert_eq!(other.clone().of_both(local(&[0], &[])), local(&[0], &[]));
        assert_eq!(local(&[0], &[]).of_both(other), local(&[0], &[]));
    }
    assert_eq!(Endpoints::Nowhere.of_both(Endpoints::Anywhere), Endpoints::Anywhere);
}

#[test]
fn the_next_of_the_ranking_on_the_segment_stands_in_for_an_owner_that_is_away() {
    let desired = Desired { addresses: BTreeMap::from([(ip(1), address(ip(1)))]), ..Desired::default() };
    let order: Vec<NodeName> = {
        let names: Vec<NodeName> = (0..4).map(node).collect();
        garpike_election::order(&names, ip(1)).into_iter().cloned().collect()
    };
    let [owner, elsewhere, near, last] = order.try_into().unwrap();
    let on = |net: &str, presence| {
        let wire = Wire { mac: MacAddr([2, 0, 0, 0, 0, 1]), nets: BTreeSet::from([net.parse().unwrap()]) };
        Member { presence, wires: BTreeMap::from([(interface("eth0"), wire)]), ..ready() }
    };
    let members = |owner_net: &str| Members {
        local: node(0),
        nodes: BTreeMap::from([
            (owner.clone(), on(owner_net, Presence::Away)),
            (elsewhere.clone(), on("10.9.0.1/16", Presence::Here)),
            (near.clone(), on("10.1.0.1/16", Presence::Here)),
            (last.clone(), on("10.1.0.2/16", Presence::Here)),
        ]),
    };

    let shared = elect(&desired, &members("10.1.0.9/16"));
    assert_eq!(shared.owner(ip(1)), Some(&owner));
    assert_eq!(shared.stood_in_by(&near).collect::<Vec<_>>(), [(ip(1), &owner)]);
    assert_eq!(shared.stood_in_by(&elsewhere).count(), 0);

    let alone = elect(&desired, &members("10.7.0.9/16"));
    assert_eq!(alone.addresses[&ip(1)].ranked, [elsewhere, near, last, owner]);
    assert_eq!(alone.addresses[&ip(1)].stand_in, None);
}

#[test]
fn when_every_speaker_is_away_nothing_moves() {
    let desired = Desired { addresses: BTreeMap::from([(ip(1), address(ip(1)))]), ..Desired::default() };
    let nodes = |presence| (0..3).map(|i| (node(i), Member { presence, ..ready() })).collect();
    let [before, after] = [Presence::Here, Presence::Away]
        .map(|presence| elect(&desired, &Members { local: node(0), nodes: nodes(presence) }));

    assert_eq!(before, after);
}

#[test]
fn a_ranking_begins_like_the_hash_order_however_many_nodes_there_are() {
    let desired = Desired { addresses: BTreeMap::from([(ip(1), address(ip(1)))]), ..Desired::default() };
    let nodes: BTreeMap<NodeName, Member> = (0..40).map(|i| (node(i), ready())).collect();
    let order: Vec<NodeName> = garpike_election::order(nodes.keys(), ip(1)).into_iter().cloned().collect();

    let assignment = elect(&desired, &Members { local: node(0), nodes });

    assert_eq!(assignment.addresses[&ip(1)].ranked, order[..garpike_election::Elected::MAX_RANKED]);
}

#[test]
fn the_hard_rule_that_leaves_an_address_unowned_is_named() {
    let eth0 = Selection::Only(BTreeSet::from([interface("eth0")]));
    let member = Member::new(NodeState::Ready, eth0);
    let members = Members { local: node(0), nodes: BTreeMap::from([(node(0), member)]) };
    let reason = |change: &dyn Fn(&mut Desired)| {
        let mut desired = Desired { addresses: BTreeMap::from([(ip(1), address(ip(1)))]), ..Desired::default() };
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
    let endpoints = |endpoints: Endpoints| {
        reason(&|desired| desired.addresses.get_mut(&ip(1)).unwrap().endpoints = endpoints.clone())
    };
    assert_eq!(endpoints(Endpoints::Nowhere), Some(Unowned::NoEndpoint));
    assert_eq!(endpoints(Endpoints::Local(Box::default())), Some(Unowned::NoLocalEndpoint));
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
    let presence = prop_oneof![3 => Just(Presence::Here), 1 => Just(Presence::Away)];
    let handicaps = prop::collection::btree_set(handicap(), 0..3);
    let wires = prop::collection::btree_map((0..3_usize).prop_map(|i| interface(&format!("eth{i}"))), wire(), 0..3);
    let member = (state, presence, handicaps, selection("eth", 3), wires).prop_map(
        |(state, presence, handicaps, names, wires)| {
            let interfaces = map(names, |name| interface(&name));
            Member { state, presence, handicaps, interfaces, wires, spread: None }
        },
    );
    prop::collection::btree_map((0..8_usize).prop_map(node), member, 0..8)
        .prop_map(|nodes| Members { local: node(0), nodes })
}

fn handicap() -> impl Strategy<Value = Handicap> {
    prop_oneof![Just(Handicap::Late), Just(Handicap::NoGateway), Just(Handicap::NoDataPlane)]
}

/// On one of two segments, or on one of which nothing is known.
fn wire() -> impl Strategy<Value = Wire> {
    let nets = prop::option::of(0..2_u8).prop_map(|segment| {
        segment.into_iter().map(|segment| format!("10.{segment}.0.7/16").parse().unwrap()).collect()
    });
    nets.prop_map(|nets| Wire { mac: MacAddr([2, 0, 0, 0, 0, 1]), nets })
}

fn backing(ip: ServiceIp, node: &NodeName, desired: &Desired) -> Option<garpike_election::Backing> {
    desired.addresses[&ip].endpoints.on(node)
}

/// The nodes that can stand in for `owner`, by the rule in other words.
fn can_stand_in(ip: ServiceIp, desired: &Desired, members: &Members, owner: &NodeName) -> BTreeSet<NodeName> {
    let address = &desired.addresses[&ip];
    let nets = |node: &NodeName| -> BTreeSet<String> {
        let allowed = address.interfaces_on(node).unwrap();
        let wires = members.nodes[node].wires.iter().filter(|(name, _)| allowed.contains(name));
        wires.flat_map(|(_, wire)| wire.nets.iter().map(|net| net.trunc().to_string())).collect()
    };
    let shares = |node: &NodeName| {
        let silent = [node, owner].iter().any(|node| members.nodes[*node].wires.is_empty());
        silent || !nets(node).is_disjoint(&nets(owner))
    };
    let able = members.nodes.iter().filter(|(node, member)| {
        let may = address.interfaces_on(node).is_some_and(|allowed| allowed.meets(&member.interfaces));
        member.presence == Presence::Here && !desired.excluded.contains(*node) && may && shares(node)
    });
    able.map(|(node, _)| node.clone()).collect()
}

fn desired() -> impl Strategy<Value = Desired> {
    let placement = (selection("node-", 8), selection("eth", 3)).prop_map(|(nodes, interfaces)| Placement {
        nodes: map(nodes, |name| name.parse().unwrap()),
        interfaces: map(interfaces, |name| interface(&name)),
    });
    let address = (0..12_usize, prop::collection::vec(placement, 0..3), endpoints());
    let address = address.prop_map(|(key, placements, endpoints)| Address {
        election_key: ip(key),
        services: Box::default(),
        placements,
        endpoints,
    });
    let addresses = prop::collection::btree_map((0..12_usize).prop_map(ip), address, 0..12);
    let excluded = prop::collection::btree_set((0..8_usize).prop_map(node), 0..2);
    let moves = prop::collection::btree_map((0..12_usize).prop_map(ip), (0..10_usize).prop_map(node), 0..4);
    let roster = prop::collection::btree_set((0..10_usize).prop_map(node), 0..10);
    (addresses, excluded, moves, roster).prop_map(|(addresses, excluded, moves, roster)| Desired {
        addresses,
        excluded,
        moves,
        roster,
    })
}

fn endpoints() -> impl Strategy<Value = Endpoints> {
    let nodes = || prop::collection::btree_set((0..8_usize).prop_map(node), 0..4);
    let local = (nodes(), nodes())
        .prop_map(|(ready, terminating)| Endpoints::Local(Box::new(LocalEndpoints { ready, terminating })));
    prop_oneof![4 => Just(Endpoints::Anywhere), 1 => Just(Endpoints::Nowhere), 3 => local]
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
    Address { election_key, services: Box::default(), placements, endpoints: Endpoints::Anywhere }
}

fn ready() -> Member {
    Member::new(NodeState::Ready, Selection::All)
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
