mod accounts;
mod drain;
mod handicaps;
mod keys;
mod net;
mod refused;
mod skew;

use std::collections::BTreeSet;
use std::time::Duration;

use garpike_election::{InterfaceName, Member, NodeName, NodeState, Presence, Selection};
use proptest::prelude::*;
use rand::RngExt;

use self::net::{Datagram, Net, addr, config, name, names, sealed};
use crate::{Config, Event, Generation, ProcessId, Sealing, Surroundings, WatchStatus, envelope};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

// Joining

#[test]
fn nodes_that_start_together_find_each_other_and_are_ready() {
    for count in [2, 3, 10] {
        let mut net = Net::new(1);
        for node in 1..=count {
            net.start(config(node, count));
        }
        assert_eq!(net.node(1).members().nodes[&name(1)].state, NodeState::Joining);

        let took = net.run_until(SECOND, Net::all_know_all);

        assert!(took < 700 * MS, "{count} nodes: {took:?}");
        assert_eq!(net.count(&Event::Ready), usize::from(count));
        assert_eq!(net.count(&Event::DeclaredDead), 0);
    }
}

#[test]
fn a_node_without_seeds_is_ready_at_once_and_can_be_joined() {
    let mut net = Net::new(1);
    net.start(Config { seeds: vec![], ..config(1, 1) });
    assert_eq!(net.node(1).members().nodes[&name(1)].state, NodeState::Ready);

    net.start(Config { seeds: vec![addr(1)], ..config(2, 1) });

    assert!(net.run_until(SECOND, Net::all_know_all) < 30 * MS);
}

#[test]
fn a_node_whose_seeds_do_not_all_answer_is_ready_after_three_seconds() {
    let mut net = Net::new(1);
    net.start(config(1, 3));
    net.start(config(2, 3));

    let took = net.run_until(5 * SECOND, Net::all_know_all);

    assert!(took >= 3 * SECOND && took < 3 * SECOND + 50 * MS, "{took:?}");
    assert_eq!(net.node(1).status().missing_seeds, [addr(3)]);
}

#[test]
fn a_seed_that_comes_late_is_found() {
    let mut net = Net::new(1);
    net.start(config(1, 2));
    net.run(60 * SECOND);

    net.start(Config { seeds: vec![], ..config(2, 2) });

    net.run_until(6 * SECOND, Net::all_know_all);
}

#[test]
fn one_common_seed_is_enough() {
    let mut net = Net::new(1);
    for node in 1..=10 {
        net.start(Config { seeds: vec![addr(1)], ..config(node, 10) });
    }

    net.run_until(3 * SECOND, Net::all_know_all);
}

#[test]
fn two_clusters_become_one_when_one_node_is_told_of_the_other() {
    let mut net = Net::new(1);
    for node in 1..=3 {
        net.start(config(node, 3));
    }
    for node in 11..=13 {
        net.start(Config { seeds: vec![addr(11), addr(12), addr(13)], ..config(node, 3) });
    }
    net.run(3 * SECOND);

    net.start(Config { seeds: vec![addr(1), addr(11)], ..config(20, 1) });

    net.run_until(3 * SECOND, Net::all_know_all);
}

#[test]
fn a_seed_that_is_another_address_of_the_node_itself_is_not_waited_for() {
    let mut net = Net::new(1);
    let alias = addr(99);
    net.start(Config { seeds: vec![alias], ..config(1, 1) });
    net.run(MS);

    // The network brings what was sent to the alias back to the node.
    let to_alias = net.recorded.iter().find(|datagram| datagram.to == alias).unwrap().clone();
    net.deliver(&Datagram { from: alias, to: addr(1), bytes: to_alias.bytes });

    net.assert_all_know_all();
    assert_eq!(net.node(1).status().missing_seeds, []);
}

// Death

#[test]
fn a_crash_is_known_to_all_survivors_within_a_second() {
    for count in [3, 10] {
        let mut times: Vec<Duration> = (0..20)
            .map(|seed| {
                let mut net = Net::settled(count, seed);
                net.crash(2);
                let took = net.run_until(2 * SECOND, Net::all_know_all);
                assert_eq!(net.count(&Event::DeclaredDead), 0, "seed {seed}");
                took
            })
            .collect();
        times.sort();
        assert!(times[19] < SECOND, "{count} nodes: {times:?}");
        assert!(times[10] < 800 * MS, "{count} nodes: {times:?}");
    }
}

#[test]
fn a_crash_is_known_within_a_second_with_a_tenth_of_the_datagrams_lost() {
    for seed in 0..20 {
        let mut net = Net::settled(3, seed);
        net.loss = 0.1;
        net.crash(2);

        let took = net.run_until(2 * SECOND, Net::all_know_all);

        assert!(took < 1100 * MS, "seed {seed}: {took:?}");
    }
}

#[test]
fn the_last_one_of_two_knows_that_it_is_alone() {
    for seed in 0..20 {
        let mut net = Net::settled(2, seed);
        net.crash(2);

        let took = net.run_until(2 * SECOND, Net::all_know_all);

        assert!(took < 1100 * MS, "seed {seed}: {took:?}");
        assert_eq!(net.node(1).status().dead[0].name, name(2));
    }
}

#[test]
fn nobody_is_declared_dead_by_mistake_when_datagrams_are_lost() {
    for (count, seed, seconds) in [(2, 1, 60), (3, 2, 60), (10, 3, 20)] {
        let mut net = Net::settled(count, seed);
        net.loss = 0.1;

        net.run(seconds * SECOND);

        assert_eq!(net.count(&Event::DeclaredDead), 0, "{count} nodes");
        net.loss = 0.0;
        net.run(SECOND);
        net.assert_all_know_all();
    }
}

#[test]
fn a_speaker_that_hangs_is_away_and_comes_back_and_nobody_dies() {
    for (seed, stall) in [(1, 100 * MS), (2, 350 * MS), (3, 3 * SECOND), (4, 50 * SECOND)] {
        for count in [2, 3, 10] {
            let mut net = Net::settled(count, seed);
            net.stall(2, stall);
            net.run(stall - MS);
            let presence = net.node(1).members().nodes[&name(2)].presence;
            assert_eq!(presence == Presence::Away, stall > 300 * MS, "{count} nodes, {stall:?}");

            net.run_until(SECOND / 4, Net::all_know_all);

            net.run(2 * SECOND);
            net.assert_all_know_all();
            let quiet = |event: &Event| matches!(event, Event::MembersChanged | Event::FactsKnown);
            assert!(net.events.iter().all(|(_, _, event)| quiet(event)), "{count} nodes, {stall:?}: {:?}", net.events);
        }
    }
}

#[test]
fn a_killed_speaker_is_away_for_the_time_of_the_grace() {
    for count in [2, 3, 10] {
        let mut net = Net::settled(count, 1);
        net.kill(2);
        net.run(SECOND / 4);
        for (at, cluster) in &net.nodes {
            let member = &cluster.members().nodes[&name(2)];
            assert_eq!((member.state, member.presence), (NodeState::Ready, Presence::Away), "{at} of {count}");
        }

        net.run(59 * SECOND);
        assert!(net.nodes.values().all(|cluster| cluster.members().nodes.contains_key(&name(2))));
        net.run(SECOND);
        assert!(net.nodes.values().all(|cluster| !cluster.members().nodes.contains_key(&name(2))));
    }
}

#[test]
fn a_host_that_dies_while_its_speaker_is_gone_is_dead() {
    for count in [2, 3, 10] {
        for seed in 0..5 {
            let mut net = Net::settled(count, seed);
            net.kill(2);
            net.run(2 * SECOND);
            net.crash(2);

            let took = net.run_until(SECOND, Net::all_know_all);

            assert!(took < 350 * MS, "{count} nodes: {took:?}");
        }
    }
}

#[test]
fn a_suspect_is_shown_as_such() {
    let mut net = Net::settled(3, 1);
    net.crash(2);

    net.run_until(SECOND, |net| {
        let status = net.nodes[&addr(1)].status();
        status.members.iter().any(|member| member.watch == Some(WatchStatus::Verifying) && member.name == name(2))
    });
}

#[test]
fn one_survivor_tells_the_other_at_once() {
    for seed in 0..10 {
        let mut net = Net::settled(3, seed);
        net.crash(2);
        net.run_until(2 * SECOND, |net| net.nodes.values().any(|cluster| net.knows_all(cluster)));

        let took = net.run_until(SECOND, Net::all_know_all);

        assert!(took <= MS, "seed {seed}: {took:?}");
    }
}

// Leaving and restarting

#[test]
fn everybody_knows_at_once_that_a_node_restarts() {
    for count in [3, 10] {
        let mut net = Net::settled(count, 1);

        net.with(2, |cluster, now| cluster.set_state(NodeState::Restarting, now));
        net.run(MS);

        for (at, cluster) in net.nodes.iter().filter(|(at, _)| **at != addr(2)) {
            let member = &cluster.members().nodes[&name(2)];
            assert_eq!((member.state, member.presence), (NodeState::Ready, Presence::Away), "{at}");
        }
        let own = &net.node(2).members().nodes[&name(2)];
        assert_eq!((own.state, own.presence), (NodeState::Ready, Presence::Here), "it serves until it ends");
        assert_eq!(net.events_of(2), [Event::FactsKnown]);
    }
}

#[test]
fn a_state_that_datagrams_lost_is_told_again() {
    for seed in 0..10 {
        let mut net = Net::settled(10, seed);
        net.loss = 0.5;
        net.with(2, |cluster, now| cluster.set_state(NodeState::Draining, now));
        net.run(MS);
        net.loss = 0.0;

        net.run_until(SECOND, |net| {
            net.nodes.values().all(|cluster| cluster.members().nodes[&name(2)].state == NodeState::Draining)
        });
    }
}

#[test]
fn a_node_that_leaves_is_away_and_dead_when_its_host_ends() {
    for count in [2, 3, 10] {
        let mut net = Net::settled(count, 1);
        net.with(2, |cluster, now| cluster.leave(now));
        net.run_until(300 * MS, |net| net.nodes[&addr(2)].is_gone());
        net.kill(2);
        net.run(10 * SECOND);
        let others = || (1..=count).filter(|node| *node != 2);
        for node in others() {
            assert_eq!(net.node(node).members().nodes[&name(2)].presence, Presence::Away, "{node} of {count}");
        }

        net.crash(2);
        net.run_until(350 * MS, Net::all_know_all);

        assert_eq!(net.node(1).status().dead[0].last_state, Some(NodeState::Restarting));
        assert_eq!(net.count(&Event::DeclaredDead), 0);
    }
}

#[test]
fn a_restarted_node_takes_the_place_of_its_earlier_life_whatever_its_address() {
    for (seed, address) in [(1, 2), (2, 50)] {
        let mut net = Net::settled(3, seed);
        net.kill(2);
        net.run(30 * MS);

        let later = Config { generation: Generation(2_000_000), process: ProcessId(77), ..config(2, 3) };
        net.start(Config { gossip: addr(address), seeds: vec![addr(1), addr(3)], ..later });
        let took = net.run_until(2 * SECOND, |net| {
            net.all_know_all()
                && net.nodes[&addr(1)].status().members.iter().any(|member| member.gossip == addr(address))
        });

        assert!(took < SECOND, "{took:?}");
        net.run(3 * SECOND);
        net.assert_all_know_all();
        let healed = net.events.iter().any(|(_, _, event)| matches!(event, Event::Healed { .. }));
        assert!(!healed, "a restart is no heal");
        assert_eq!(net.count(&Event::DeclaredDead), 0);
    }
}

#[test]
fn a_restarted_speaker_keeps_its_rank_and_is_away_until_it_is_ready() {
    let mut net = Net::settled(3, 1);
    net.kill(2);
    net.run(10 * MS);
    // One of its seeds does not answer: it joins for three seconds.
    let seeds = vec![addr(1), addr(99)];
    net.start(Config { generation: Generation(2_000_000), process: ProcessId(77), seeds, ..config(2, 3) });
    net.run(SECOND);

    for node in [1, 3] {
        let status = net.node(node).status();
        let member = status.members.iter().find(|member| member.name == name(2)).unwrap();
        assert_eq!(member.generation, Generation(2_000_000), "node {node}");
        assert_eq!((member.state, member.presence), (Some(NodeState::Joining), Presence::Away), "node {node}");
        assert_eq!(net.node(node).members().nodes[&name(2)].state, NodeState::Ready, "node {node}");
    }
    assert_eq!(net.node(2).members().nodes[&name(2)].state, NodeState::Joining);

    net.run_until(3 * SECOND, Net::all_know_all);
}

#[test]
fn a_node_whose_clock_was_set_back_comes_back() {
    for pause in [10 * MS, 5 * SECOND] {
        let mut net = Net::settled(3, 1);
        net.kill(2);
        net.run(pause);

        net.start(Config { generation: Generation(5), process: ProcessId(77), ..config(2, 3) });

        net.run_until(4 * SECOND, |net| {
            net.all_know_all() && net.nodes[&addr(2)].status().generation > Generation(1_000_002)
        });
        net.run(5 * SECOND);
        net.assert_all_know_all();
    }
}

#[test]
fn who_joins_ranks_those_that_restart_as_the_others_do() {
    for rank in [NodeState::Ready, NodeState::Draining] {
        let mut net = Net::settled(4, 1);
        net.with(2, |cluster, now| cluster.set_state(rank, now));
        net.run(100 * MS);
        let seen = net.node(1).members().nodes[&name(2)].clone();
        for node in [2, 3] {
            net.with(node, |cluster, now| {
                cluster.set_state(NodeState::Restarting, now);
                cluster.leave(now);
            });
        }
        net.run(300 * MS);
        net.kill(2);
        net.kill(3);

        let (generation, process) = (Generation(2_000_000), ProcessId(103));
        net.start(Config { generation, process, ..config(3, 4) });
        net.run(SECOND);

        let away = Member { presence: Presence::Away, ..seen };
        for node in [1, 3, 4] {
            assert_eq!(net.node(node).members().nodes[&name(2)], away, "node {node}");
        }
        assert_eq!(net.node(3).members().nodes[&name(3)].state, NodeState::Ready);
    }
}

#[test]
fn a_rolling_restart_disturbs_nobody() {
    let mut net = Net::settled(5, 1);
    for node in 1..=5 {
        net.with(node, |cluster, now| {
            cluster.set_state(NodeState::Restarting, now);
            cluster.leave(now);
        });
        net.run(300 * MS);
        net.kill(node);
        net.run(700 * MS);

        let (generation, process) = (Generation(2_000_000), ProcessId(100 + u64::from(node)));
        net.start(Config { generation, process, ..config(node, 5) });
        net.run_until(SECOND, Net::all_know_all);
    }

    let wrong =
        |event: &Event| matches!(event, Event::Healed { .. } | Event::DeclaredDead | Event::NameConflict { .. });
    assert!(!net.events.iter().any(|(_, _, event)| wrong(event)), "{:?}", net.events);
}

#[test]
fn the_death_of_a_host_is_told_before_the_members_with_how_long_it_was_silent() {
    let mut net = Net::settled(3, 7);
    net.events.clear();
    net.crash(1);
    net.run(SECOND);

    for node in [2, 3] {
        let events = net.events_of(node);
        let died = events.iter().position(|event| matches!(event, Event::HostDied { .. })).unwrap();
        let changed = events.iter().position(|event| *event == Event::MembersChanged).unwrap();
        assert!(died < changed, "{events:?}");
        let Event::HostDied { node: dead, silent: Some(silent), .. } = &events[died] else { panic!("{events:?}") };
        assert_eq!(*dead, name(1));
        assert!((100 * MS..300 * MS).contains(silent), "{silent:?}");
    }
}

// Partitions

#[test]
fn a_partition_heals_though_no_seed_of_the_one_side_is_on_the_other() {
    let mut net = Net::new(1);
    for node in 1..=4 {
        net.start(Config { seeds: vec![], ..config(node, 4) });
    }
    let states: Vec<Vec<u8>> = (1..=4).map(|node| net.node(node).state()).collect();
    for node in 1..=4 {
        net.with(node, |cluster, now| states.iter().for_each(|state| drop(cluster.handle_state(state, now))));
    }
    net.run_until(SECOND, Net::all_know_all);
    net.run(SECOND);

    net.cut(&[1, 2], &[3, 4]);
    net.run(5 * SECOND);
    assert_eq!((net.living(1), net.living(3)), (names(&[1, 2]), names(&[3, 4])));
    net.heal();

    net.run_until(SECOND, Net::all_know_all);
}

#[test]
fn a_partition_heals_and_both_sides_know_that_they_were_wrong() {
    for seed in 0..10 {
        let mut net = Net::settled(4, seed);
        net.cut(&[1, 2], &[3, 4]);
        net.run(20 * SECOND);
        assert_eq!(net.living(1), names(&[1, 2]));
        assert_eq!(net.living(4), names(&[3, 4]));

        net.heal();
        let took = net.run_until(5 * SECOND, Net::all_know_all);

        assert!(took <= 5 * SECOND, "seed {seed}: {took:?}");
        net.run(SECOND);
        for (node, others) in [(1, [3, 4]), (2, [3, 4]), (3, [1, 2]), (4, [1, 2])] {
            let events = net.events_of(node).into_iter();
            let healed =
                events.filter_map(|event| if let Event::Healed { nodes } = event { Some(nodes) } else { None });
            let healed: Vec<NodeName> = healed.flatten().collect();
            assert_eq!(healed.len(), 2, "each once: node {node}, seed {seed}");
            let healed = healed.into_iter().collect();
            assert_eq!(names(&others), healed, "node {node}, seed {seed}");
        }
    }
}

#[test]
fn two_nodes_find_each_other_again_after_any_time() {
    for (seed, pause) in [(1, 2), (2, 20), (3, 700)] {
        let mut net = Net::settled(2, seed);
        net.cut(&[1], &[2]);
        net.run(pause * SECOND);
        assert_eq!((net.living(1), net.living(2)), (names(&[1]), names(&[2])));

        net.heal();
        net.run_until(6 * SECOND, Net::all_know_all);
        net.run(5 * SECOND);

        net.assert_all_know_all();
        for (node, other) in [(1, 2), (2, 1)] {
            let healed = Event::Healed { nodes: names(&[other]) };
            assert_eq!(net.events_of(node).into_iter().filter(|event| *event == healed).count(), 1, "{pause} s");
        }
        assert_eq!(net.count(&Event::DeclaredDead), 0, "two that were alone accuse nobody");
    }
}

#[test]
fn a_node_that_was_cut_off_comes_back_without_killing_the_others() {
    for seed in 0..10 {
        let mut net = Net::settled(5, seed);
        net.cut(&[5], &[1, 2, 3, 4]);
        let cut_for = net.rng.random_range(1_000..10_000);
        net.run(cut_for * MS);
        for majority in 1..=4 {
            assert_eq!(net.living(majority), names(&[1, 2, 3, 4]), "seed {seed}");
        }

        net.heal();
        net.run_until(5 * SECOND, Net::all_know_all);

        net.run(5 * SECOND);
        net.assert_all_know_all();
        for majority in 1..=4 {
            assert!(!net.events_of(majority).contains(&Event::DeclaredDead), "seed {seed}");
        }
    }
}

#[test]
fn those_whom_a_majority_took_for_dead_are_held_down_and_nobody_else() {
    for (away, held_down) in [(vec![1, 4, 7], names(&[1, 4, 7])), (vec![1, 2, 3, 4, 5], names(&[]))] {
        for seed in 0..6 {
            let mut net = Net::settled(10, seed);
            net.loss = 0.1;
            let there: Vec<u8> = (1..=10).filter(|node| !away.contains(node)).collect();
            net.cut(&away, &there);
            net.run(8 * SECOND);
            net.heal();
            net.run_until(2 * SECOND, Net::all_know_all);
            net.run(SECOND);

            for (at, cluster) in &net.nodes {
                let nodes = cluster.members().nodes.iter();
                let held = nodes.filter(|(_, member)| member.state == NodeState::HeldDown);
                let held: BTreeSet<NodeName> = held.map(|(name, _)| name.clone()).collect();
                assert_eq!(held, held_down, "{at}, seed {seed}");
            }
        }
    }
}

#[test]
fn a_connection_that_fails_in_one_direction_kills_neither() {
    for seed in 0..5 {
        let mut net = Net::settled(4, seed);
        net.cut_one_way(1, 2);

        net.run(10 * SECOND);

        assert_eq!(net.count(&Event::DeclaredDead), 0, "seed {seed}");
        net.assert_all_know_all();
    }
}

#[test]
fn a_connection_that_fails_between_two_nodes_kills_neither() {
    for seed in 0..5 {
        let mut net = Net::settled(4, seed);
        net.cut(&[1], &[2]);

        net.run(10 * SECOND);

        assert_eq!(net.count(&Event::DeclaredDead), 0, "seed {seed}");
        net.assert_all_know_all();
    }
}

// Strangers

#[test]
fn a_node_with_another_secret_changes_nothing_and_is_named() {
    let mut net = Net::settled(3, 1);
    net.start(Config { sealing: sealed("wrong"), ..config(4, 3) });

    net.run(5 * SECOND);

    assert_eq!(net.living(1), names(&[1, 2, 3]));
    assert_eq!(net.living(4), names(&[4]));
    let status = net.node(1).status();
    let complaint = status.complaints.iter().find(|complaint| complaint.reason == "wrong_key").unwrap();
    assert_eq!(complaint.source, addr(4).into());
    assert!(status.rejected.iter().any(|rejected| rejected.reason == "wrong_key" && rejected.count > 0));
}

#[test]
fn plaintext_and_sealed_nodes_do_not_mix() {
    let mut net = Net::settled(2, 1);
    net.start(Config { sealing: Sealing::InsecurePlaintext, ..config(3, 2) });

    net.run(2 * SECOND);

    assert_eq!(net.living(1), names(&[1, 2]));
    assert_eq!(net.living(3), names(&[3]));
    assert_eq!(net.node(1).status().complaints[0].reason, "plaintext");
}

#[test]
fn plaintext_nodes_form_a_cluster() {
    let mut net = Net::new(1);
    for node in 1..=3 {
        net.start(Config { sealing: Sealing::InsecurePlaintext, ..config(node, 3) });
    }

    net.run_until(SECOND, Net::all_know_all);
    assert_eq!(net.node(1).status().key_id, None);
}

#[test]
fn packets_of_metallb_are_named() {
    let mut net = Net::settled(2, 1);
    let metallb = Datagram { from: addr(9), to: addr(1), bytes: b"\x00\x82\xa3Seq".to_vec() };

    net.deliver(&metallb);

    let complaints = net.node(1).status().complaints;
    assert_eq!((complaints[0].reason, complaints[0].source.clone()), ("memberlist", addr(9).into()));
}

#[test]
fn replayed_datagrams_change_nothing() {
    for sealing in [sealed("secret"), Sealing::InsecurePlaintext] {
        let mut net = Net::new(7);
        for node in 1..=3 {
            net.start(Config { sealing: sealing.clone(), ..config(node, 3) });
        }
        net.run(2 * SECOND);
        net.with(2, |cluster, now| cluster.set_state(NodeState::Draining, now));
        net.run(SECOND);
        net.with(2, |cluster, now| cluster.set_state(NodeState::Ready, now));
        // A death and a restart are among what is recorded.
        net.crash(3);
        net.run(2 * SECOND);
        net.start(Config { sealing, generation: Generation(2_000_000), process: ProcessId(33), ..config(3, 3) });
        net.run(3 * SECOND);
        net.assert_all_know_all();
        net.events.clear();

        let recorded = std::mem::take(&mut net.recorded);
        for datagram in &recorded {
            for to in 1..=3 {
                net.deliver(&Datagram { to: addr(to), ..datagram.clone() });
            }
        }
        net.run(3 * SECOND);

        assert_eq!(net.events, []);
        net.assert_all_know_all();
        assert!(net.node(1).status().rejected.iter().any(|rejected| rejected.reason == "replayed"));
    }
}

#[test]
fn datagrams_replayed_to_a_restarted_node_change_nothing() {
    let mut net = Net::new(7);
    for node in 1..=3 {
        net.start(config(node, 3));
    }
    net.run(5 * SECOND);
    let recorded = std::mem::take(&mut net.recorded);
    // All are gone, so that nobody can answer a challenge; then one starts afresh and is told of the old days.
    (1..=3).for_each(|node| net.crash(node));
    net.start(Config { seeds: vec![], generation: Generation(2_000_000), process: ProcessId(11), ..config(1, 3) });
    assert_eq!(net.living(1), names(&[1]));
    net.events.clear();

    for datagram in &recorded {
        net.deliver(&Datagram { to: addr(1), ..datagram.clone() });
    }
    net.run(3 * SECOND);

    assert_eq!(net.events, []);
    assert_eq!(net.living(1), names(&[1]));
    assert_eq!(net.node(1).status().dead, []);
}

#[test]
fn a_datagram_for_one_node_is_of_no_use_against_another() {
    let mut net = Net::settled(3, 1);
    net.cut(&[1], &[2]);
    net.run(50 * MS);
    net.recorded.clear();
    net.with(2, |cluster, now| cluster.set_state(NodeState::Draining, now));
    let recorded = net.recorded.clone();

    for datagram in recorded.iter().filter(|datagram| datagram.to == addr(3)) {
        net.deliver(&Datagram { to: addr(1), ..datagram.clone() });
    }

    assert_eq!(net.node(1).members().nodes[&name(2)].state, NodeState::Ready);
}

#[test]
fn replayed_datagrams_are_no_means_to_flood_others() {
    let mut net = Net::settled(2, 1);
    net.run(10 * SECOND);
    let recorded = net.recorded.clone();
    net.recorded.clear();

    for datagram in &recorded {
        net.deliver(&Datagram { from: addr(200), to: addr(1), ..datagram.clone() });
    }

    let to_victim = net.recorded.iter().filter(|datagram| datagram.to == addr(200)).count();
    assert!(to_victim <= 10, "{to_victim} datagrams");
}

#[test]
fn two_nodes_with_one_name_are_a_complaint_and_the_newer_one_serves() {
    let mut net = Net::settled(3, 1);
    let twin = Config { local: name(2), generation: Generation(2_000_000), process: ProcessId(77), ..config(9, 3) };
    net.start(twin);

    net.run(10 * SECOND);

    let conflicts = net.events_of(2).into_iter().filter(|event| *event == Event::NameConflict { other: addr(9) });
    assert!((1..=2).contains(&conflicts.count()), "{:?}", net.events);
    assert!(net.node(2).status().complaints.iter().any(|complaint| complaint.reason == "name_conflict"));
    assert!(!net.living(2).contains(&name(2)), "the older one does not count itself");
    for node in [1, 3, 9] {
        assert_eq!(net.living(node), names(&[1, 2, 3]), "node {node}");
    }
    let before = net.recorded.len();
    net.run(SECOND);
    assert!(net.recorded.len() - before < 500, "{} datagrams in a second", net.recorded.len() - before);
}

#[test]
fn the_older_of_two_twins_comes_back_when_the_newer_one_ends() {
    let mut net = Net::settled(3, 1);
    net.start(Config { local: name(2), generation: Generation(2_000_000), process: ProcessId(77), ..config(9, 3) });
    net.run(10 * SECOND);

    net.crash(9);

    net.run_until(8 * SECOND, |net| {
        net.all_know_all() && net.nodes[&addr(1)].status().members.iter().any(|member| member.gossip == addr(2))
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_changes_nothing_and_is_counted(
        garbage in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 1..20),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..8_u8), 1..20),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..20),
    ) {
        let mut net = Net::settled(2, 1);
        net.run(SECOND);
        let recorded: Vec<_> = net.recorded.iter().filter(|datagram| datagram.to == addr(1)).cloned().collect();
        let flipped = flips.iter().map(|(which, at, bit)| {
            let mut bytes = which.get(&recorded).bytes.clone();
            *at.get_mut(&mut bytes) ^= 1 << bit;
            bytes
        });
        let cut = cuts.iter().map(|(which, len)| {
            let bytes = &which.get(&recorded).bytes;
            bytes[..len.index(bytes.len())].to_vec()
        });
        let bad: Vec<Vec<u8>> = garbage.into_iter().chain(flipped).chain(cut).collect();
        let rejected = |net: &mut Net| net.node(1).status().rejected.iter().map(|rejected| rejected.count).sum::<u64>();
        let before = rejected(&mut net);
        let sent = net.recorded.len();

        for bytes in &bad {
            net.deliver(&Datagram { from: addr(200), to: addr(1), bytes: bytes.clone() });
        }

        prop_assert_eq!(rejected(&mut net) - before, bad.len() as u64);
        prop_assert_eq!(net.recorded.len(), sent, "nothing is sent in return");
        prop_assert!(net.events.is_empty());
    }

    #[test]
    fn garbage_in_plaintext_does_not_panic(
        garbage in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..8_u8), 1..20),
    ) {
        let mut net = Net::new(1);
        for node in 1..=2 {
            net.start(Config { sealing: Sealing::InsecurePlaintext, ..config(node, 2) });
        }
        net.run(2 * SECOND);
        let recorded: Vec<_> = net.recorded.iter().filter(|datagram| datagram.to == addr(1)).cloned().collect();
        let flipped = flips.iter().map(|(which, at, bit)| {
            let mut bytes = which.get(&recorded).bytes.clone();
            *at.get_mut(&mut bytes) ^= 1 << bit;
            bytes
        });
        let marked = garbage.into_iter().map(|mut bytes| {
            bytes.insert(0, envelope::PLAINTEXT);
            bytes
        });

        for bytes in marked.chain(flipped) {
            net.deliver(&Datagram { from: addr(200), to: addr(1), bytes });
        }
        net.run(SECOND);
    }
}

// Cost

#[test]
fn a_cluster_at_rest_is_quiet() {
    for (count, most) in [(1, 0.1), (3, 90.0), (10, 130.0)] {
        let mut net = Net::settled(count, 1);
        let seconds = 30;
        net.run(seconds * SECOND);

        let per_node_and_second = net.recorded.len() as f64 / f64::from(count) / f64::from(seconds);
        assert!(per_node_and_second <= most, "{count} nodes: {per_node_and_second}");
        assert_eq!(net.events, []);
    }
}

#[test]
fn interfaces_are_known_to_the_others() {
    let mut net = Net::settled(3, 1);
    let eth1 = Selection::Only([InterfaceName::new("eth1").unwrap()].into());

    net.with(2, |cluster, now| cluster.set_surroundings(Surroundings::new(eth1.clone()), now));
    net.run(MS);

    assert_eq!(net.node(1).members().nodes[&name(2)].interfaces, eth1);
    assert_eq!(net.node(2).members().nodes[&name(2)].interfaces, eth1);
}

#[test]
fn the_status_can_be_read_by_scripts() {
    let mut net = Net::settled(3, 1);
    net.crash(2);
    net.run(2 * SECOND);

    let json = serde_json::to_value(net.node(1).status()).unwrap();

    assert_eq!(json["process"], "0000000000000001", "a number would be rounded");
    assert_eq!(json["state"], "ready");
    assert_eq!(json["members"][0]["name"], "node-3");
    assert_eq!(json["members"][0]["presence"], "here");
    assert_eq!(json["members"][0]["watch"], "listening");
    assert_eq!(json["members"][0]["state"], "ready");
    assert_eq!(json["dead"][0]["gossip"], "192.0.2.2:7946");
    assert_eq!(json["key_id"].as_str().unwrap().len(), 8);
}

#[test]
fn equal_inputs_give_equal_bytes() {
    let run = || {
        let mut net = Net::settled(3, 5);
        net.crash(3);
        net.run(2 * SECOND);
        net.recorded.into_iter().map(|datagram| datagram.bytes).collect::<Vec<_>>()
    };

    assert!(run() == run());
}

#[test]
fn the_longest_names_fit_into_a_datagram() {
    let mut net = Net::new(1);
    for node in 1..=4 {
        let long = NodeName::new(&format!("{}{node}", "a".repeat(252))).unwrap();
        let interfaces = (0..32).map(|n| InterfaceName::new(&format!("interface-{n:05}")).unwrap()).collect();
        net.start(Config {
            local: long,
            surroundings: Surroundings::new(Selection::Only(interfaces)),
            ..config(node, 4)
        });
    }

    net.run_until(3 * SECOND, Net::all_know_all);
    net.crash(4);
    net.run_until(2 * SECOND, Net::all_know_all);
}
