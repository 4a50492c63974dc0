//! What a node finds out about its own fitness.

use std::collections::BTreeSet;
use std::time::Duration;

use garpike_election::{Handicap, InterfaceName, MacAddr, Wire};

use super::net::{Net, addr, config, name};
use crate::{Gateway, Surroundings};

#[test]
fn a_node_whose_timers_are_often_late_says_so_until_it_has_been_calm() {
    let mut net = Net::settled(3, 1);
    let be_late = |net: &mut Net| {
        net.stall(1, Duration::from_millis(90));
        net.run(Duration::from_secs(2));
    };

    (0..10).for_each(|_| be_late(&mut net));
    assert_eq!(seen(&net, 2, 1), BTreeSet::new(), "ten times may happen");
    be_late(&mut net);
    assert_eq!(seen(&net, 1, 1), [Handicap::Late].into());
    assert_eq!(seen(&net, 2, 1), [Handicap::Late].into());
    assert_eq!(seen(&net, 2, 3), BTreeSet::new());

    net.run(Duration::from_secs(55));
    assert_eq!(seen(&net, 2, 1), [Handicap::Late].into());
    net.run(Duration::from_secs(20));
    assert_eq!(seen(&net, 2, 1), BTreeSet::new());
}

#[test]
fn a_node_that_alone_has_lost_its_gateway_ranks_behind_its_neighbours() {
    let mut net = neighbours(3);

    set(&mut net, 1, Gateway::Silent);
    net.run(Duration::from_secs(9));
    assert_eq!(seen(&net, 2, 1), BTreeSet::new(), "the others may find the same");
    net.run(Duration::from_secs(12));
    assert_eq!(seen(&net, 2, 1), [Handicap::NoGateway].into());
    assert_eq!(seen(&net, 1, 1), [Handicap::NoGateway].into());

    set(&mut net, 1, Gateway::Answers);
    net.run(Duration::from_secs(29));
    assert_eq!(seen(&net, 2, 1), [Handicap::NoGateway].into(), "it may be lost again");
    net.run(Duration::from_secs(12));
    assert_eq!(seen(&net, 2, 1), BTreeSet::new());
}

#[test]
fn a_gateway_that_all_lose_one_after_the_other_is_no_handicap() {
    let mut net = neighbours(3);

    for gateway in [Gateway::Silent, Gateway::Answers] {
        for node in 1..=3 {
            set(&mut net, node, gateway);
            net.run(Duration::from_secs(4));
            assert!(all(&net).is_empty());
        }
        net.run(Duration::from_secs(100));
        assert!(all(&net).is_empty());
    }
}

#[test]
fn who_hears_nobody_does_not_know_that_it_alone_has_lost_the_gateway() {
    let mut net = neighbours(2);
    net.cut(&[1], &[2]);
    net.run(Duration::from_secs(1));

    set(&mut net, 1, Gateway::Silent);
    net.run(Duration::from_secs(60));

    assert_eq!(seen(&net, 1, 1), BTreeSet::new());
}

#[test]
fn a_gateway_of_another_segment_says_nothing() {
    let mut net = neighbours(3);
    for node in 2..=3 {
        let other = Surroundings { wires: [wire(node, "198.51.100.0/24")].into(), ..surroundings(node) };
        net.with(node, |cluster, now| cluster.set_surroundings(other, now));
    }

    set(&mut net, 1, Gateway::Silent);
    net.run(Duration::from_secs(60));

    assert!(all(&net).is_empty());
}

#[test]
fn neighbours_of_a_node_with_a_silent_gateway_look_for_themselves() {
    let mut net = neighbours(3);

    set(&mut net, 1, Gateway::Silent);
    net.run(Duration::from_millis(100));

    assert_eq!(net.asked_stations, [addr(2), addr(3)].into());
}

/// Nodes on one segment.
fn neighbours(count: u8) -> Net {
    let mut net = Net::new(1);
    for node in 1..=count {
        net.start(crate::Config { surroundings: surroundings(node), ..config(node, count) });
    }
    net.run(Duration::from_secs(2));
    net.assert_all_know_all();
    net
}

fn surroundings(node: u8) -> Surroundings {
    let all = Surroundings::new(garpike_election::Selection::All);
    Surroundings { wires: [wire(node, "192.0.2.0/24")].into(), ..all }
}

fn wire(node: u8, net: &str) -> (InterfaceName, Wire) {
    (
        InterfaceName::new("eth0").unwrap(),
        Wire { mac: MacAddr([2, 0, 0, 0, 0, node]), nets: [net.parse().unwrap()].into() },
    )
}

fn set(net: &mut Net, node: u8, gateway: Gateway) {
    net.with(node, |cluster, now| cluster.set_surroundings(Surroundings { gateway, ..surroundings(node) }, now));
}

/// The handicaps of `node` as another one sees them.
fn seen(net: &Net, by: u8, node: u8) -> BTreeSet<Handicap> {
    net.nodes[&addr(by)].members().nodes[&name(node)].handicaps.clone()
}

fn all(net: &Net) -> BTreeSet<Handicap> {
    let members = net.nodes.values().flat_map(|cluster| cluster.members().nodes.values());
    members.flat_map(|member| member.handicaps.iter().copied()).collect()
}
