//! Keys change while the cluster runs.

use std::collections::BTreeSet;

use garpike_election::NodeName;

use super::net::{Datagram, Net, addr, config, name};
use super::{MS, SECOND};
use crate::{Config, Event, Generation, Key, KeyId, Keyring, ProcessId, Sealing, SecretKey, SourcedKeys};

#[test]
fn a_secret_that_reaches_the_nodes_90_s_apart_loses_nobody() {
    let mut net = Net::settled(4, 1);
    for node in 1..=4 {
        net.with(node, |cluster, now| cluster.set_keys(sourced("B"), now));
        net.run(30 * SECOND);
        net.assert_all_know_all();
    }

    let other: Vec<_> = net.events.iter().filter(|(_, _, event)| *event != Event::FactsKnown).collect();
    assert!(other.is_empty(), "nobody was ever taken for dead: {other:?}");
    for node in 1..=4 {
        let status = net.node(node).status();
        assert!(!status.rejected.iter().any(|rejected| rejected.reason == "wrong_key"), "{status:?}");
        assert_eq!(status.key_id, Some(id("B").to_string()));
    }
}

#[test]
fn a_key_seals_as_soon_as_its_receiver_holds_it_and_the_old_one_expires_when_all_do() {
    let mut net = Net::settled(3, 1);
    let old = secret("secret").id();
    let standings = |net: &mut Net| {
        let keys = net.node(1).status().keys.into_iter();
        keys.map(|key| (key.id, key.standing)).collect::<Vec<_>>()
    };
    for node in [1, 2] {
        net.with(node, |cluster, now| cluster.set_keys(sourced("B"), now));
    }
    net.run(SECOND);
    net.recorded.clear();
    net.run(SECOND);
    let sealed_with = |net: &Net, from, to, key: KeyId| {
        let between = |datagram: &&Datagram| (datagram.from, datagram.to) == (addr(from), addr(to));
        let mut between = net.recorded.iter().filter(between).peekable();
        between.peek().is_some() && between.all(|datagram| datagram.bytes[1..5] == key.0)
    };

    assert!(sealed_with(&net, 1, 2, id("B")) && sealed_with(&net, 2, 1, id("B")));
    assert!(sealed_with(&net, 1, 3, old) && sealed_with(&net, 3, 1, old));
    assert_eq!(standings(&mut net), [(id("B"), "in_force"), (old, "retired")]);

    net.with(3, |cluster, now| cluster.set_keys(sourced("B"), now));
    net.run(SECOND);
    net.recorded.clear();
    net.run(SECOND);

    assert!(net.recorded.iter().all(|datagram| datagram.bytes[1..5] == id("B").0));
    assert_eq!(standings(&mut net), [(id("B"), "in_force"), (old, "expiring")]);
    assert_eq!(net.node(1).status().members[0].keys, Some(vec![id("B")]));
}

#[test]
fn a_node_that_restarts_with_the_new_key_alone_comes_back() {
    let mut net = Net::settled(3, 1);
    for node in [1, 2] {
        net.with(node, |cluster, now| cluster.set_keys(sourced("B"), now));
    }
    net.crash(3);
    net.run(2 * SECOND);

    net.start(Config { sealing: sealed("B"), ..restarted(3) });

    net.run_until(2 * SECOND, all_are_members);
}

#[test]
fn a_node_that_restarts_with_the_old_key_alone_comes_back() {
    let mut net = Net::settled(3, 1);
    for node in [1, 2] {
        net.with(node, |cluster, now| cluster.set_keys(sourced("B"), now));
    }
    net.crash(3);
    net.run(2 * SECOND);

    net.start(restarted(3));

    net.run_until(2 * SECOND, all_are_members);
}

#[test]
fn a_node_that_nobody_seeks_is_found_by_it_with_whichever_key_it_holds() {
    for letter in ["A", "B", "C"] {
        let mut net = Net::new(1);
        for node in 1..=2 {
            let ring = Keyring::new(keys("CB"), keys("A")).unwrap();
            net.start(Config { sealing: Sealing::Sealed(ring), ..config(node, 2) });
        }
        net.run(3 * SECOND);

        // It waits to be found: it has no seeds, and the others have it among theirs from their restart on.
        net.start(Config { sealing: sealed(letter), seeds: vec![], ..config(3, 3) });
        net.crash(2);
        let ring = Keyring::new(keys("CB"), keys("A")).unwrap();
        net.start(Config { sealing: Sealing::Sealed(ring), seeds: vec![addr(1), addr(3)], ..restarted(2) });

        net.run_until(5 * SECOND, |net| net.living(2).contains(&name(3)) && net.living(3).contains(&name(2)));
    }
}

#[test]
fn encryption_is_rolled_out_without_a_loss() {
    let mut net = Net::new(1);
    for node in 1..=3 {
        net.start(Config { sealing: Sealing::InsecurePlaintext, ..config(node, 3) });
    }
    net.run(2 * SECOND);
    net.assert_all_know_all();
    let modes: [fn() -> Sealing; 2] = [|| Sealing::RollOut(keys("A").remove(0).into()), || sealed("A")];
    for (round, mode) in (1..).zip(modes) {
        for node in 1..=3 {
            net.crash(node);
            net.run(2 * SECOND);
            let generation = Generation(1_000_000 * (1 + round) + u64::from(node));
            let process = ProcessId(100 * round + u64::from(node));
            net.start(Config { sealing: mode(), generation, process, ..config(node, 3) });
            net.run_until(3 * SECOND, all_are_members);
        }
    }
    net.events.clear();
    net.recorded.clear();
    net.run(5 * SECOND);

    assert!(all_are_members(&net));
    assert!(net.recorded.iter().all(|datagram| datagram.bytes[0] == crate::envelope::SEALED));
}

#[test]
fn a_source_that_holds_nothing_changes_nothing_but_what_is_complained_of() {
    let mut net = Net::settled(2, 1);
    let complaints = vec!["the secret at /keys/secretkey cannot be used: the secret is empty".to_owned()];

    net.with(1, |cluster, now| cluster.set_keys(SourcedKeys { keys: vec![], complaints: complaints.clone() }, now));
    net.run(SECOND);

    net.assert_all_know_all();
    let status = net.node(1).status();
    assert_eq!(status.key_complaints, complaints);
    net.with(1, |cluster, now| cluster.set_keys(sourced("A"), now));
    assert_eq!(net.node(1).status().key_complaints, [] as [String; 0]);
}

#[test]
fn the_keys_can_be_read_by_scripts() {
    let mut net = Net::settled(2, 1);
    net.with(1, |cluster, now| cluster.set_keys(sourced("B"), now));
    net.run(10 * MS);

    let json = serde_json::to_value(net.node(1).status()).unwrap();

    assert_eq!(json["sealing"], "sealed");
    assert_eq!(json["key_id"], id("B").to_string());
    assert_eq!(json["keys"][0], serde_json::json!({ "id": id("B").to_string(), "standing": "in_force" }));
    assert_eq!(json["keys"][1], serde_json::json!({ "id": secret("secret").id().to_string(), "standing": "retired" }));
    assert_eq!(json["key_complaints"], serde_json::json!([]));
    assert!(json["members"][0].get("keys").is_some());
}

/// Every running node counts every running node; what they say they are doing is another matter.
fn all_are_members(net: &Net) -> bool {
    let running: BTreeSet<&NodeName> = net.nodes.values().map(|cluster| &cluster.members().local).collect();
    net.nodes.values().all(|cluster| cluster.members().nodes.keys().collect::<BTreeSet<_>>() == running)
}

/// Node `node` of three in its second life.
fn restarted(node: u8) -> Config {
    let (generation, process) = (Generation(2_000_000 + u64::from(node)), ProcessId(100 + u64::from(node)));
    Config { generation, process, ..config(node, 3) }
}

fn sealed(letters: &str) -> Sealing {
    Sealing::Sealed(Keyring::new(keys(letters), Vec::new()).unwrap())
}

fn sourced(letters: &str) -> SourcedKeys {
    SourcedKeys { keys: keys(letters), complaints: Vec::new() }
}

fn id(letter: &str) -> KeyId {
    keys(letter).remove(0).id()
}

fn keys(letters: &str) -> Vec<Key> {
    letters.chars().map(|letter| secret(&letter.to_string())).collect()
}

fn secret(text: &str) -> Key {
    Key::derive(&SecretKey::parse(text.as_bytes()).unwrap(), "garpike")
}
