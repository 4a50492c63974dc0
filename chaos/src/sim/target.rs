//! What the figures of a scenario have to reach, under the conditions for which something was promised.

use std::fmt;

use garpike_membership::Profile;
use serde::Serialize;

use super::scenario::{Config, Scenario};
use crate::report::Distribution;

/// A figure with a limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Target {
    /// What is measured.
    pub measure: &'static str,
    /// What it may be at most.
    pub limit: f64,
    /// What it is; absent when it was never reached.
    pub reached: Option<f64>,
    /// Whether that is enough; absent when there are too few runs to tell.
    pub met: Option<bool>,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    pub(super) all_know: Option<Distribution>,
    pub(super) heal: Option<Distribution>,
    pub(super) whole: Option<Distribution>,
    pub(super) join: Option<Distribution>,
    pub(super) packets_per_second: f64,
    pub(super) bytes_per_second: f64,
}

/// The targets of `scenario` under these conditions.
pub(super) fn targets(scenario: Scenario, config: Config, figures: &Figures, seeds: u64) -> Vec<Target> {
    let mut targets = Vec::new();
    if config.profile == Profile::Default && figures.packets_per_second > 0.0 {
        let mut rate = |measure, limit, reached| {
            targets.push(Target { measure, limit, reached: Some(reached), met: Some(reached <= limit) });
        };
        rate("packets per second and node at rest", 140.0, figures.packets_per_second);
        rate("bytes per second and node at rest", 20_000.0, figures.bytes_per_second);
    }
    let mut p99 = |measure, limit, figure: Option<Distribution>| {
        if let Some(figure) = figure {
            targets.push(Target::at_percentile(measure, limit, figure.p99, seeds >= SEEDS_FOR_P99));
        }
    };
    let loss_at_most = |percent| config.loss_percent <= percent;
    let all_know_p99 = "milliseconds until all know, p99";
    match (scenario.with_dead(config.dead), config.profile) {
        (Scenario::Crash | Scenario::TwoNodes, Profile::Default) if config.nodes == 2 => {
            p99(all_know_p99, 250.0, figures.all_know);
        }
        (Scenario::Crash, Profile::Default) if config.nodes <= 100 && loss_at_most(10.0) => {
            p99(all_know_p99, 200.0, figures.all_know);
            if let Some(all_know) = figures.all_know {
                let measure = "milliseconds until all know, median";
                targets.push(Target::at_percentile(measure, 175.0, all_know.p50, seeds >= SEEDS_FOR_MEDIAN));
            }
        }
        (Scenario::Crash, Profile::Default) if loss_at_most(1.0) => p99(all_know_p99, 210.0, figures.all_know),
        (Scenario::Crash, Profile::Fast) if (3..=100).contains(&config.nodes) && loss_at_most(1.0) => {
            p99(all_know_p99, 80.0, figures.all_know);
        }
        (Scenario::CrashMany, Profile::Default) if config.nodes == 10 && config.dead() == 3 && loss_at_most(10.0) => {
            p99(all_know_p99, 400.0, figures.all_know);
        }
        (Scenario::CrashMany, Profile::Default) if config.nodes == 3 && config.dead() == 2 => {
            p99(all_know_p99, 1000.0, figures.all_know);
        }
        (Scenario::KillThenCrash | Scenario::TermThenCrash, Profile::Default) => {
            p99(all_know_p99, 300.0, figures.all_know);
        }
        (Scenario::Halves | Scenario::OneVersusRest | Scenario::Partition, Profile::Default) => {
            p99(ONE_OWNER_P99, 1000.0, figures.heal);
            p99("milliseconds until the membership is whole, p99", 5000.0, figures.whole);
        }
        (Scenario::BondFailover | Scenario::VmPause, Profile::Default) => p99(ONE_OWNER_P99, 1000.0, figures.heal),
        (Scenario::Join, Profile::Default) => p99("milliseconds until all know the new node, p99", 500.0, figures.join),
        // Nothing more was promised.
        _ => {}
    }
    targets
}

impl Target {
    fn at_percentile(measure: &'static str, limit: f64, reached: Option<f64>, enough: bool) -> Self {
        let met = enough.then(|| reached.is_some_and(|reached| reached <= limit));
        Self { measure, limit, reached, met }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reached = self.reached.map_or_else(|| "never".to_owned(), |reached| format!("{reached:.0}"));
        let verdict = match self.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "too few seeds to tell",
        };
        write!(f, "{}: {reached} of at most {:.0}: {verdict}", self.measure, self.limit)
    }
}

const ONE_OWNER_P99: &str = "milliseconds until each address has one owner, p99";
/// Below a hundred runs the 99th percentile is the worst of them.
const SEEDS_FOR_P99: u64 = 100;
/// Chosen: with fewer runs a median says little.
const SEEDS_FOR_MEDIAN: u64 = 20;
