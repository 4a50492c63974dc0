//! The shipped cores in virtual time. A failing seed is replayed with
//! `garpike chaos simulate crash --nodes N --loss PCT --seeds SEED..SEED+1`.

use std::time::Duration;

use garpike_chaos::sim::{Config, Scenario, run, run_seeds};

#[test]
fn a_crash_moves_only_the_dead_nodes_addresses_and_each_has_one_owner() {
    for (nodes, loss_percent, seeds) in [(2, 0.0, 0..10), (3, 0.0, 0..40), (3, 10.0, 0..40), (10, 10.0, 0..10)] {
        let config = Config { nodes, loss_percent, addresses: 12 };

        let summary = run_seeds(Scenario::Crash, config, seeds);

        assert!(summary.violations.is_empty(), "{nodes} nodes, {loss_percent} % loss: {:?}", summary.violations);
        assert_eq!(summary.false_downs, 0);
    }
}

#[test]
fn a_death_is_known_within_a_second() {
    let config = Config { nodes: 3, loss_percent: 0.0, addresses: 12 };

    let known = run_seeds(Scenario::Crash, config, 100..200).all_know_ms.unwrap();

    assert!(known.max.unwrap() < 1000.0, "{known}");
}

#[test]
fn a_node_at_rest_is_quiet() {
    let config = Config { nodes: 10, loss_percent: 0.0, addresses: 12 };

    let summary = run_seeds(Scenario::Crash, config, 0..3);

    assert!(summary.packets_per_second_per_node < 30.0, "{}", summary.packets_per_second_per_node);
}

#[test]
fn equal_seeds_give_equal_runs() {
    let config = Config { nodes: 5, loss_percent: 20.0, addresses: 12 };
    let figures = |seed| {
        let outcome = run(Scenario::Crash, config, seed);
        (outcome.events, outcome.all_know, outcome.outage, outcome.crashed)
    };

    assert_eq!(figures(7), figures(7));
    assert_ne!(figures(7).0, figures(8).0);
    assert!(figures(7).1.unwrap() > Duration::ZERO);
}
