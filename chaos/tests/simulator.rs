//! Short versions of every scenario, by the shipped cores in virtual time. A failing seed is replayed with the command
//! that the panic names.

use std::time::Duration;

use garpike_chaos::sim::{Config, Gateways, Scenario, Speed, Summary, run, run_seeds};

#[test]
fn the_death_of_a_host_is_known_in_time_and_moves_nothing_else() {
    for (nodes, loss_percent, seeds) in [(2, 0.0, 20), (3, 0.0, 40), (3, 10.0, 40), (10, 10.0, 15), (30, 10.0, 3)] {
        let summary = good(Scenario::Crash, Config { loss_percent, ..of(nodes) }, seeds);

        let known = summary.all_know_ms.unwrap();
        assert!(known.p50.unwrap() <= 200.0, "{nodes} nodes, {loss_percent} % loss: {known}");
        assert!(known.p90.unwrap() <= 250.0, "{nodes} nodes, {loss_percent} % loss: {known}");
    }
}

#[test]
fn the_fast_profile_knows_of_a_death_in_80_ms() {
    let config = Config { profile: Speed::Fast.into(), loss_percent: 1.0, ..of(5) };

    let known = good(Scenario::Crash, config, 30).all_know_ms.unwrap();

    assert!(known.p90.unwrap() <= 80.0, "{known}");
}

#[test]
fn many_deaths_at_once_are_known() {
    let three_of_ten = good(Scenario::CrashMany, Config { loss_percent: 10.0, ..of(10) }, 30);
    let two_of_three = good(Scenario::CrashMany, of(3), 40);

    assert!(three_of_ten.all_know_ms.unwrap().p90.unwrap() <= 400.0);
    assert!(two_of_three.all_know_ms.unwrap().p90.unwrap() <= 1000.0);
}

#[test]
fn a_crash_of_so_many_hosts_is_one_of_many() {
    let crash = Config { dead: Some(3), ..of(10) };

    let known = |scenario| good(scenario, crash, 3).all_know_ms.unwrap().to_string();

    assert_eq!(known(Scenario::Crash), known(Scenario::CrashMany));
    assert_ne!(known(Scenario::Crash), good(Scenario::Crash, of(10), 3).all_know_ms.unwrap().to_string());
}

#[test]
fn the_survivor_of_two_asks_the_gateway_and_claims() {
    let known = good(Scenario::TwoNodes, of(2), 40).all_know_ms.unwrap();

    assert!(known.p90.unwrap() <= 250.0, "{known}");
}

#[test]
fn the_survivor_of_two_claims_where_there_is_no_station_to_ask() {
    good(Scenario::TwoNodes, Config { gateways: Gateways::Absent, ..of(2) }, 20);
}

#[test]
fn nothing_moves_while_a_speaker_is_killed() {
    let summary = good(Scenario::SpeakerKill, of(5), 10);

    assert_eq!(summary.moves_with_host_alive, 0);
}

#[test]
fn a_host_that_dies_after_its_speaker_is_found_dead() {
    for scenario in [Scenario::KillThenCrash, Scenario::TermThenCrash] {
        let known = good(scenario, Config { loss_percent: 1.0, ..of(5) }, 20).all_know_ms.unwrap();

        assert!(known.p90.unwrap() <= 300.0, "{scenario:?}: {known}");
    }
}

#[test]
fn who_stands_in_is_replaced_when_it_dies() {
    good(Scenario::StandInCrash, of(5), 10);
}

#[test]
fn who_stands_in_is_replaced_when_it_is_drained() {
    good(Scenario::StandInDrain, of(5), 10);
}

#[test]
fn nothing_moves_when_all_speakers_end_and_come_back() {
    good(Scenario::TermAll, of(5), 6);
}

#[test]
fn nothing_moves_while_a_speaker_is_stopped() {
    good(Scenario::Freeze, of(5), 10);
}

#[test]
fn nothing_moves_while_a_speaker_is_held_up() {
    good(Scenario::Stall, of(5), 9);
}

#[test]
fn a_short_pause_of_a_machine_is_no_death_and_a_long_one_heals() {
    good(Scenario::VmPause, of(5), 12);
}

#[test]
fn loss_alone_kills_nobody() {
    for loss_percent in [1.0, 5.0, 10.0] {
        let config = Config { loss_percent, rest: Duration::from_secs(120), ..of(10) };

        let summary = good(Scenario::Rest, config, 2);

        assert!(summary.node_hours > 0.6, "{}", summary.node_hours);
    }
}

#[test]
fn bursts_of_loss_kill_nobody() {
    good(Scenario::BurstLoss, Config { rest: Duration::from_secs(120), ..of(10) }, 2);
}

#[test]
fn loss_in_one_direction_kills_nobody() {
    good(Scenario::AsymmetricLoss, Config { rest: Duration::from_secs(120), ..of(10) }, 2);
}

#[test]
fn two_halves_heal() {
    for nodes in [2, 4, 10] {
        good(Scenario::Halves, Config { lasts: Some(Duration::from_secs(12)), ..of(nodes) }, 6);
    }
}

#[test]
fn one_that_was_cut_off_from_the_rest_heals() {
    for (nodes, lasts) in [(3, 1), (3, 12), (10, 90)] {
        good(Scenario::OneVersusRest, Config { lasts: Some(Duration::from_secs(lasts)), ..of(nodes) }, 6);
    }
}

#[test]
fn a_partition_heals_to_one_owner_who_speaks_last() {
    for (nodes, loss_percent) in [(2, 0.0), (3, 0.0), (3, 10.0), (10, 1.0)] {
        good(Scenario::Partition, Config { loss_percent, ..of(nodes) }, 8);
    }
}

#[test]
fn two_that_do_not_hear_each_other_live_for_all_others() {
    for nodes in [3, 4, 10] {
        good(Scenario::BridgePartition, Config { lasts: Some(Duration::from_secs(20)), ..of(nodes) }, 4);
    }
}

#[test]
fn nothing_moves_when_nobody_hears_anybody() {
    for nodes in [2, 3, 10] {
        good(Scenario::SegmentBlackout, of(nodes), 8);
    }
}

#[test]
fn nothing_moves_when_a_firewall_drops_the_gossip_port() {
    for nodes in [2, 5] {
        good(Scenario::Blocked7946, Config { lasts: Some(Duration::from_secs(60)), ..of(nodes) }, 4);
    }
}

#[test]
fn a_bond_that_fails_over_in_140_ms_is_alive_and_a_slower_one_returns() {
    good(Scenario::BondFailover, of(5), 20);
}

#[test]
fn a_node_that_joins_is_soon_known_to_all() {
    let joined = good(Scenario::Join, of(5), 20).join_ms.unwrap();

    assert!(joined.p90.unwrap() <= 500.0, "{joined}");
}

#[test]
fn many_nodes_can_join_at_once() {
    good(Scenario::JoinStorm, of(10), 4);
}

#[test]
fn a_rolling_restart_moves_nothing() {
    good(Scenario::RollingRestart, of(4), 4);
}

#[test]
fn a_cluster_boots_as_a_whole() {
    good(Scenario::BootAll, of(10), 6);
}

#[test]
fn a_host_that_flaps_does_not_get_its_addresses_back() {
    good(Scenario::FlipFlop, of(4), 3);
}

#[test]
fn a_clock_that_was_set_back_keeps_nobody_out() {
    good(Scenario::ClockJump, of(4), 6);
}

#[test]
fn two_nodes_under_one_name_are_reported_and_one_is_counted() {
    good(Scenario::DuplicateName, of(4), 6);
}

#[test]
fn a_key_that_reaches_the_nodes_one_after_the_other_loses_nobody() {
    good(Scenario::KeyRotation, of(5), 3);
}

#[test]
fn nothing_moves_in_a_rolling_upgrade_to_a_version_that_says_more() {
    good(Scenario::VersionSkew, of(4), 3);
    good(Scenario::VersionSkew, Config { loss_percent: 5.0, ..of(4) }, 3);
}

#[test]
fn forged_and_recorded_datagrams_change_nothing() {
    good(Scenario::Forged, Config { lasts: Some(Duration::from_secs(6)), ..of(4) }, 4);
}

#[test]
fn racks_are_routed_and_addresses_stay_in_theirs() {
    good(Scenario::Racks, Config { lasts: Some(Duration::from_secs(8)), ..of(6) }, 8);
}

#[test]
fn a_node_at_rest_sends_at_most_140_packets_in_a_second() {
    for nodes in [2, 10, 40] {
        let summary = good(Scenario::Rest, Config { rest: Duration::from_secs(1), ..of(nodes) }, 1);

        assert!(summary.packets_per_second_per_node <= 140.0, "{}", summary.packets_per_second_per_node);
        assert!(summary.bytes_per_second_per_node <= 20_000.0, "{}", summary.bytes_per_second_per_node);
    }
}

#[test]
fn equal_seeds_give_equal_runs() {
    let config = Config { loss_percent: 20.0, ..of(5) };
    let figures = |seed| {
        let outcome = run(Scenario::Crash, config, seed);
        (outcome.events, outcome.all_know, outcome.outage, outcome.victim)
    };

    assert_eq!(figures(7), figures(7));
    assert_ne!(figures(7).0, figures(8).0);
    assert!(figures(7).1.unwrap().unwrap() > Duration::ZERO);
}

#[test]
fn the_number_of_threads_does_not_change_the_result() {
    let with = |jobs| {
        let summary = run_seeds(Scenario::VmPause, Config { jobs, loss_percent: 5.0, ..of(4) }, 0..9);
        serde_json::to_string(&summary).unwrap()
    };

    assert_eq!(with(1), with(4));
}

/// Runs the first `seeds` seeds, and panics when something does not hold.
fn good(scenario: Scenario, config: Config, seeds: u64) -> Summary {
    let summary = run_seeds(scenario, config, 0..seeds);
    let told: Vec<String> = (summary.violations.iter())
        .map(|violation| {
            let command = config.command(scenario, violation.seed);
            format!("{}: {}\n    {command}", violation.invariant, violation.detail)
        })
        .collect();
    let shown = told.get(..6).unwrap_or(&told).join("\n  ");
    assert!(told.is_empty(), "{} violations, of which\n  {shown}", told.len());
    summary
}

fn of(nodes: usize) -> Config {
    Config { nodes, ..Config::default() }
}
