//! A node that an operator empties.

use std::time::Duration;

use garpike_election::{NodeState, Presence};

use super::net::{Net, config, name};
use crate::{Config, Generation, ProcessId};

#[test]
fn a_drained_node_that_restarts_is_never_ready_in_between() {
    for seed in 0..10 {
        let mut net = Net::settled(3, seed);
        net.with(2, |cluster, now| cluster.set_state(NodeState::Draining, now));
        net.run(Duration::from_secs(1));
        net.kill(2);
        net.run(Duration::from_secs(1));

        net.start(Config { generation: Generation(2_000_000), process: ProcessId(22), ..config(2, 3) });
        net.with(2, |cluster, now| cluster.set_state(NodeState::Draining, now));
        assert_eq!(state(&net, 2), Some(NodeState::Joining), "it does not know its peers yet");

        net.run_until(Duration::from_secs(5), |net| {
            for node in 1..=3 {
                assert_ne!(state(net, node), Some(NodeState::Ready), "as node {node} sees it");
            }
            let here = |node| net.members(node).nodes[&name(2)].presence == Presence::Here;
            (1..=3).all(|node| state(net, node) == Some(NodeState::Draining) && here(node))
        });
    }
}

#[test]
fn a_node_that_is_drained_no_longer_is_what_it_would_have_been() {
    let mut net = Net::settled(3, 1);
    net.with(2, |cluster, now| cluster.set_state(NodeState::Draining, now));
    net.run(Duration::from_secs(1));
    assert_eq!(state(&net, 1), Some(NodeState::Draining));

    net.with(2, |cluster, now| cluster.set_state(NodeState::Ready, now));
    net.run(Duration::from_secs(1));

    assert!((1..=3).all(|node| state(&net, node) == Some(NodeState::Ready)));
}

#[test]
fn a_cluster_that_starts_with_a_drained_node_counts_joining_members_as_ready() {
    let mut net = Net::new(1);
    for node in 1..=2 {
        net.start(config(node, 2));
    }
    // It looks for a seed that does not answer.
    net.start(config(3, 4));
    net.with(1, |cluster, now| cluster.set_state(NodeState::Draining, now));

    net.run(Duration::from_millis(700));

    let seen = |by: u8, node: u8| net.members(by).nodes[&name(node)].state;
    assert_eq!((seen(3, 3), seen(1, 1), seen(2, 2)), (NodeState::Joining, NodeState::Draining, NodeState::Ready));
    assert_eq!((seen(2, 1), seen(2, 3)), (NodeState::Draining, NodeState::Ready));
}

/// The state of node 2 as `node` sees it.
fn state(net: &Net, node: u8) -> Option<NodeState> {
    net.members(node).nodes.get(&name(2)).map(|member| member.state)
}
