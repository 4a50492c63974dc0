//! The shipped cores in virtual time. A failing seed is replayed with
//! `garpike chaos simulate SCENARIO --nodes N --loss PCT --seeds SEED..SEED+1`.

use std::time::Duration;

use garpike_chaos::sim::{Config, Scenario, run, run_seeds};

#[test]
fn a_crash_moves_only_the_dead_nodes_addresses_and_each_has_one_owner() {
    for (nodes, loss_percent, seeds) in [(2, 0.0, 0..10), (3, 0.0, 0..40), (3, 10.0, 0..40), (10, 10.0, 0..10)] {
        let config = config(nodes, loss_percent);

        let summary = run_seeds(Scenario::Crash, config, seeds);

        assert!(summary.violations.is_empty(), "{nodes} nodes, {loss_percent} % loss: {:?}", summary.violations);
        assert_eq!(summary.false_downs, 0);
    }
}

#[test]
fn a_death_is_known_within_a_second() {
    let config = config(3, 0.0);

    let known = run_seeds(Scenario::Crash, config, 100..200).all_know_ms.unwrap();

    assert!(known.max.unwrap() < 1000.0, "{known}");
}

#[test]
fn a_node_at_rest_is_quiet() {
    let config = config(10, 0.0);

    let summary = run_seeds(Scenario::Crash, config, 0..3);

    assert!(summary.packets_per_second_per_node < 30.0, "{}", summary.packets_per_second_per_node);
}

#[test]
fn a_partition_heals_to_one_owner_who_speaks_last() {
    for (nodes, loss_percent, seeds) in [(2, 0.0, 0..10), (3, 0.0, 0..30), (3, 10.0, 0..30), (10, 1.0, 0..10)] {
        let summary = run_seeds(Scenario::Partition, config(nodes, loss_percent), seeds);

        assert!(summary.violations.is_empty(), "{nodes} nodes, {loss_percent} % loss: {:?}", summary.violations);
    }
}

#[test]
fn loss_alone_kills_nobody() {
    let summary = run_seeds(Scenario::Rest, config(10, 10.0), 0..2);

    assert!(summary.violations.is_empty(), "{:?}", summary.violations);
    assert!(summary.node_hours > 1.9, "{}", summary.node_hours);
}

#[test]
fn equal_seeds_give_equal_runs() {
    let config = config(5, 20.0);
    let figures = |seed| {
        let outcome = run(Scenario::Crash, config, seed);
        (outcome.events, outcome.all_know, outcome.outage, outcome.crashed)
    };

    assert_eq!(figures(7), figures(7));
    assert_ne!(figures(7).0, figures(8).0);
    assert!(figures(7).1.unwrap() > Duration::ZERO);
}

fn config(nodes: usize, loss_percent: f64) -> Config {
    Config { nodes, loss_percent, addresses: 12, rest: Duration::from_secs(360) }
}
