//! What observers are told.

use super::*;
use crate::{Account, HostDead};

#[test]
fn whichever_speaker_is_observed_tells_soon_that_a_majority_holds_the_verdict() {
    for (count, seed) in [(3, 1), (4, 2), (5, 3), (10, 4), (30, 5)] {
        let mut net = Net::settled(count, seed);
        net.crash(1);
        let one_knows = |net: &Net| (2..=count).any(|node| verdict(net, node, 1).is_some());
        net.run_until(SECOND, one_knows);

        let all_tell = |net: &Net| (2..=count).all(|node| verdict(net, node, 1).is_some_and(majority));
        let took = net.run_until(SECOND, all_tell);

        // The time that the issue of a verdict may take until an observer has it, without the stream.
        assert!(took < 40 * MS, "{count} nodes: {took:?}");
        for node in 2..=count {
            assert!(net.events_of(node).contains(&Event::VerdictHeld), "{count} nodes: {node} would not have told it");
        }
    }
}

#[test]
fn everybody_tells_for_how_long_the_dead_had_been_silent_also_who_did_not_watch_it() {
    let mut net = Net::settled(30, 6);
    net.crash(1);
    net.run_until(SECOND, |net| (2..=30).all(|node| verdict(net, node, 1).is_some()));

    for node in 2..=30 {
        let HostDead { silent, .. } = verdict(&net, node, 1).unwrap();
        assert!((100 * MS..250 * MS).contains(&silent), "{node}: {silent:?}");
        let told = net.events_of(node).iter().any(|event| matches!(event, Event::HostDied { silent: Some(_), .. }));
        assert!(told, "{node}: {:?}", net.events_of(node));
    }
}

#[test]
fn of_two_nodes_and_of_equal_halves_none_tells_of_a_majority() {
    for (left, right) in [(&[1][..], &[2][..]), (&[1, 2], &[3, 4]), (&[1, 2, 3], &[4, 5, 6])] {
        let count = u8::try_from(left.len() + right.len()).unwrap();
        let mut net = Net::settled(count, 7);
        net.cut(left, right);
        for _ in 0..300 {
            net.run(100 * MS);
            for (node, other) in (1..=count).flat_map(|node| (1..=count).map(move |other| (node, other))) {
                assert!(!verdict(&net, node, other).is_some_and(majority), "{node} of {other}");
            }
        }
    }
}

#[test]
fn who_is_cut_off_tells_of_no_majority_and_the_others_do() {
    let mut net = Net::settled(5, 8);
    net.cut(&[1, 2], &[3, 4, 5]);
    net.run(5 * SECOND);

    for (of, by) in [(3, 1), (4, 1), (5, 2)] {
        assert!(!verdict(&net, by, of).is_some_and(majority), "{by} of {of}");
    }
    for (of, by) in [(1, 3), (2, 4), (1, 5)] {
        assert!(verdict(&net, by, of).is_some_and(majority), "{by} of {of}");
    }
}

#[test]
fn who_is_back_under_a_later_life_is_told_as_a_member_and_not_as_dead() {
    let mut net = Net::settled(4, 9);
    net.cut(&[1], &[2, 3, 4]);
    net.run(2 * SECOND);
    let before = verdict(&net, 2, 1).unwrap();
    net.heal();
    net.run_until(5 * SECOND, |net| net.living(2).contains(&name(1)));

    let account = account(&net, 2);

    assert!(account.dead.is_empty(), "{account:?}");
    let life = account.members[&name(1)];
    assert!(life.generation > before.life.generation && life.process == before.life.process);
}

#[test]
fn what_is_no_state_is_no_account() {
    assert!(Account::read(b"\xff\xff\xff").is_err());
    assert!(Account::read(b"").is_err());
}

fn verdict(net: &Net, by: u8, of: u8) -> Option<HostDead> {
    account(net, by).dead.get(&name(of)).copied()
}

fn account(net: &Net, node: u8) -> Account {
    Account::read(&net.nodes[&addr(node)].state()).unwrap()
}

fn majority(verdict: HostDead) -> bool {
    verdict.is_held_by_majority_of(verdict.known)
}
