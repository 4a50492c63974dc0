//! Speakers of several versions in one cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use garpike_election::NodeState;

use super::net::{Datagram, Net, addr, config, name, sealed};
use crate::envelope;
use crate::facts::Facts;
use crate::keyring::Held;
use crate::{Config, FeatureLevel, Generation, ProcessId};

#[test]
fn the_feature_level_is_the_lowest_of_the_living_members() {
    let mut net = Net::new(1);
    for (node, level) in [(1, 1), (2, 3), (3, 2)] {
        net.start(at_level(level, config(node, 3)));
    }
    net.run(2 * SECOND);
    net.assert_all_know_all();
    assert_eq!(levels(&net), [1, 1, 1]);

    net.with(1, |cluster, now| cluster.set_state(NodeState::Restarting, now));
    net.run(SECOND);
    assert_eq!(levels(&net), [1, 1, 1], "who is away comes back");

    net.crash(1);
    net.run_until(2 * SECOND, Net::all_know_all);
    assert_eq!(levels(&net), [2, 2]);

    let process = ProcessId(99);
    net.start(Config { generation: Generation(2_000_000), process, ..at_level(3, config(1, 3)) });
    net.run_until(2 * SECOND, Net::all_know_all);
    assert_eq!(levels(&net), [2, 2, 2]);
}

#[test]
fn facts_that_nobody_here_knows_are_passed_on() {
    let mut net = Net::new(1);
    let later: BTreeMap<u16, Vec<u8>> = [(7, vec![1, 2, 3]), (300, vec![])].into();
    net.start(Config { later_facts: later, ..at_level(9, config(1, 3)) });
    net.start(config(2, 3));
    net.run(4 * SECOND);
    // The newcomer hears of node 1 by node 2 only.
    net.cut(&[1], &[3]);
    let states = [net.node(2).state(), net.node(1).own.to_bytes()];
    net.start(config(3, 3));

    net.with(3, |cluster, now| assert_eq!(cluster.handle_state(&states[0], now).unwrap(), name(2)));

    let told = |facts: &&Facts| facts.author.name == name(1);
    let passed_on = net.node(3).book.iter().find(told).map(Facts::to_bytes);
    assert_eq!(passed_on.unwrap(), states[1]);
}

#[test]
fn a_payload_of_an_unknown_format_is_counted_complained_of_and_changes_nothing() {
    let mut net = Net::settled(2, 1);
    let before = net.node(1).members().clone();
    let mut text = b"\x0a\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x01\x05later".to_vec();
    text.extend([0xff; 40]);
    let bytes = envelope::wrap(&sealed("secret"), Held::Unknown, &text, &mut net.rng);

    for _ in 0..3 {
        net.deliver(&Datagram { from: addr(77), to: addr(1), bytes: bytes.clone() });
    }

    let status = net.node(1).status();
    let rejected: Vec<_> = status.rejected.iter().map(|rejected| (rejected.reason, rejected.count)).collect();
    assert_eq!(rejected, [("unknown_version", 3)]);
    assert!(status.complaints.iter().any(|complaint| complaint.reason == "unknown_version"));
    net.run(SECOND);
    assert_eq!(*net.node(1).members(), before);
    net.assert_all_know_all();
}

const SECOND: Duration = Duration::from_secs(1);

fn at_level(level: u16, config: Config) -> Config {
    Config { feature_level: FeatureLevel(level), ..config }
}

fn levels(net: &Net) -> Vec<u16> {
    net.nodes.values().map(|cluster| cluster.feature_level().0).collect()
}
