//! What nodes tell each other of themselves and of the cluster, by those who hold the key.

use std::time::Duration;

use garpike_membership::{Transmit, check_datagram};

use crate::pair::{PEER, Pair};

/// Hands a node the state of another one, twice.
///
/// # Panics
///
/// When a state that is refused changes anything, one that is accepted changes the node itself, or changes something again
/// when it comes again, brings more members than it names, or the node's own state is then refused by others.
pub fn state(data: &[u8]) {
    assert_eq!(take_state(data), take_state(data), "equal inputs, different outputs");
}

fn take_state(data: &[u8]) -> Vec<Transmit> {
    let mut pair = Pair::met(data.len());
    let (members, status) = (pair.node.members().clone(), pair.node.status());
    let heard = pair.node.handle_state(data, pair.now);
    if heard.is_err() {
        assert_eq!(*pair.node.members(), members, "a malformed state changed who is alive");
        assert_eq!(pair.node.status(), status, "a malformed state changed something");
        assert_eq!(pair.node.poll_transmit(), None, "a malformed state was answered");
        assert_eq!(pair.node.poll_request(), None, "a malformed state got something done");
        assert_eq!(pair.node.poll_event(), None, "a malformed state is an event");
        return pair.into_sent();
    }
    pair.bring_to_peer();
    let after = pair.node.members().clone();
    assert_eq!(after.nodes.get(&after.local), members.nodes.get(&members.local), "the node believes others of itself");
    assert_eq!(pair.node.status().generation, status.generation, "the node gave up its identity");
    assert_eq!(pair.node.handle_state(data, pair.now), heard, "the same state");
    assert_eq!(*pair.node.members(), after, "the same state is news");
    let ours = pair.node.state();
    let teller = pair.peer.handle_state(&ours, pair.now).expect("what the node tells is a state");
    assert_eq!(teller.as_str(), "n1");
    pair.run(Duration::from_secs(1));
    pair.into_sent()
}

/// Has a member say something of itself: the input is the payload of a datagram with facts, by `n2`.
///
/// # Panics
///
/// When it changes another member than that one, or is not acknowledged exactly if it can be read.
pub fn facts(data: &[u8]) {
    let mut pair = Pair::met(data.len());
    let before = pair.node.members().clone();
    let text = pair.in_the_name_of_the_peer(FACTS, data);
    let answers = pair.inject(PEER.into(), &text);

    let mut after = pair.node.members().clone();
    let peer = "n2".parse().expect("is a node name");
    let described = after.nodes.remove(&peer).expect("what a member says does not remove it");
    let mut before = before;
    before.nodes.remove(&peer);
    assert_eq!(after, before, "facts changed another member than their author");
    let room = data.len().max(4);
    assert!(described.wires.len() <= room && described.wires.values().all(|wire| wire.nets.len() <= room));
    let acknowledged = answers.iter().filter(|answer| answer.payload.get(1) == Some(&FACTS_HELD)).count();
    assert_eq!(acknowledged, usize::from(check_datagram(&text).is_ok()), "acknowledgements");
    pair.run(Duration::from_secs(1));
}

const FACTS: u8 = 6;
const FACTS_HELD: u8 = 8;
