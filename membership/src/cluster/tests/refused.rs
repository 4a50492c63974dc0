//! Datagrams that come back, as nobody listens where they went.

use std::time::Duration;

use garpike_election::{NodeState, Presence};

use super::net::{Net, addr, name};

#[test]
fn a_killed_speaker_is_known_to_be_away_soon_after_a_datagram_came_back() {
    for count in [3, 5, 10] {
        let mut net = Net::settled(count, 1);
        net.kill(2);
        for node in (1..=count).filter(|node| *node != 2) {
            net.with(node, |cluster, now| cluster.handle_refused(addr(2), now));
        }

        net.run(Duration::from_millis(70));

        for node in (1..=count).filter(|node| *node != 2) {
            let member = &net.members(node).nodes[&name(2)];
            assert_eq!((member.state, member.presence), (NodeState::Ready, Presence::Away), "{node} of {count}");
        }
    }
}

#[test]
fn who_answers_is_looked_after_once_a_second_and_stays_whatever_comes_back() {
    let mut net = Net::settled(3, 1);
    for _ in 0..100 {
        net.with(1, |cluster, now| cluster.handle_refused(addr(2), now));
        net.run(Duration::from_millis(10));
        assert_eq!(net.members(1).nodes[&name(2)].presence, Presence::Here);
    }
    net.recorded.clear();
    let to_two =
        |net: &Net| net.recorded.iter().filter(|datagram| datagram.from == addr(1) && datagram.to == addr(2)).count();
    net.run(Duration::from_millis(500));
    let usual = to_two(&net);

    net.recorded.clear();
    for _ in 0..50 {
        net.with(1, |cluster, now| cluster.handle_refused(addr(2), now));
        net.run(Duration::from_millis(10));
    }

    assert!(to_two(&net) <= usual + 5, "{} datagrams, usually {usual}", to_two(&net));
}

#[test]
fn an_address_of_nobody_means_nothing() {
    let mut net = Net::settled(3, 1);
    net.with(1, |cluster, now| cluster.handle_refused(addr(77), now));
    net.run(Duration::from_millis(300));

    net.assert_all_know_all();
}
