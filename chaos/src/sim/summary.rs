//! Many runs of a scenario: on several threads, with a result that does not depend on their number.

use std::fmt;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::run::{Outcome, number_of, run};
use super::scenario::{Config, Scenario, name_of_profile};
use super::target::{Figures, Target, targets};
use crate::report::{Distribution, Violation};

/// What many runs gave: the object that `chaos simulate --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The scenario.
    pub scenario: String,
    /// Hosts in each run.
    pub nodes: usize,
    /// Packets lost, in percent.
    pub loss_percent: f64,
    /// The detection profile.
    pub profile: &'static str,
    /// The first seed.
    pub first_seed: u64,
    /// How many seeds were run.
    pub seeds: u64,
    /// Events handled.
    pub events: u64,
    /// Virtual time, summed over all hosts.
    pub node_hours: f64,
    /// How often a speaker saw a living host as dead.
    pub false_downs: u64,
    /// Addresses that moved although the host of their owner lived.
    pub moves_with_host_alive: u64,
    /// From the death until every survivor knows of it.
    pub all_know_ms: Option<Distribution>,
    /// The longest outage of an address at the client.
    pub outage_ms: Option<Distribution>,
    /// From the end of the fault until every address has one owner on the wire.
    pub heal_ms: Option<Distribution>,
    /// From the end of the fault until everybody knows everybody.
    pub whole_ms: Option<Distribution>,
    /// From the start of the last joining speaker until all know all.
    pub join_ms: Option<Distribution>,
    /// Datagrams, frames and segments of TCP that a node sends in a second at rest, averaged over the runs.
    pub packets_per_second_per_node: f64,
    /// The same in bytes, with the headers of IP and UDP.
    pub bytes_per_second_per_node: f64,
    /// What these conditions have to reach.
    pub targets: Vec<Target>,
    /// What did not hold.
    pub violations: Vec<Violation>,
}

/// Runs `scenario` once for each seed.
pub fn run_seeds(scenario: Scenario, config: Config, seeds: Range<u64>) -> Summary {
    let outcomes = run_all(scenario, config, seeds.clone());
    let nodes = scenario.nodes(config.nodes);
    let mut summary = Summary {
        scenario: scenario.name(),
        nodes,
        loss_percent: config.loss_percent,
        profile: name_of_profile(config.profile),
        first_seed: seeds.start,
        seeds: seeds.end.saturating_sub(seeds.start),
        events: 0,
        node_hours: 0.0,
        false_downs: 0,
        moves_with_host_alive: 0,
        all_know_ms: distribution(&outcomes, |outcome| outcome.all_know),
        outage_ms: distribution(&outcomes, |outcome| outcome.outage),
        heal_ms: distribution(&outcomes, |outcome| outcome.heal),
        whole_ms: distribution(&outcomes, |outcome| outcome.whole),
        join_ms: distribution(&outcomes, |outcome| outcome.join),
        packets_per_second_per_node: average(outcomes.iter().filter_map(|outcome| outcome.packets_per_second)),
        bytes_per_second_per_node: average(outcomes.iter().filter_map(|outcome| outcome.bytes_per_second)),
        targets: Vec::new(),
        violations: Vec::new(),
    };
    for (trial, (seed, outcome)) in seeds.zip(&outcomes).enumerate() {
        summary.events += outcome.events;
        summary.node_hours += outcome.elapsed.as_secs_f64() / 3600.0 * number_of(nodes);
        summary.false_downs += outcome.false_downs;
        summary.moves_with_host_alive += outcome.moves_with_host_alive;
        for finding in &outcome.findings {
            summary.violations.push(finding.clone().in_trial(trial, seed));
        }
    }
    summary.judge_targets(scenario, Config { nodes, ..config });
    summary
}

impl Summary {
    fn judge_targets(&mut self, scenario: Scenario, config: Config) {
        let figures = Figures {
            all_know: self.all_know_ms,
            heal: self.heal_ms,
            whole: self.whole_ms,
            join: self.join_ms,
            packets_per_second: self.packets_per_second_per_node,
            bytes_per_second: self.bytes_per_second_per_node,
        };
        self.targets = targets(scenario, config, &figures, self.seeds);
        let missed = self.targets.iter().filter(|target| target.met == Some(false));
        self.violations.extend(missed.map(|target| Violation {
            invariant: "the target is reached".to_owned(),
            trial: 0,
            seed: self.first_seed,
            detail: target.to_string(),
        }));
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, nodes, loss_percent, profile, seeds, .. } = self;
        writeln!(f, "{scenario}: {nodes} nodes, {loss_percent} % loss, profile {profile}, {seeds} seeds")?;
        let figures = [
            ("all know", self.all_know_ms),
            ("outage", self.outage_ms),
            ("one owner", self.heal_ms),
            ("whole", self.whole_ms),
            ("joined", self.join_ms),
        ];
        for (name, figures) in figures {
            if let Some(figures) = figures {
                writeln!(f, "  {name:<9} {figures}")?;
            }
        }
        let (packets, bytes) = (self.packets_per_second_per_node, self.bytes_per_second_per_node);
        writeln!(f, "  at rest   {packets:.1} packets/s, {bytes:.0} bytes/s from each node")?;
        for target in &self.targets {
            writeln!(f, "  target    {target}")?;
        }
        writeln!(
            f,
            "  {} false deaths, {} moves from living hosts, {} violations in {:.2} node-hours ({} events)",
            self.false_downs,
            self.moves_with_host_alive,
            self.violations.len(),
            self.node_hours,
            self.events
        )
    }
}

/// The outcomes in the order of the seeds, whichever thread gave them.
fn run_all(scenario: Scenario, config: Config, seeds: Range<u64>) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let list: Vec<u64> = seeds.collect();
    let done: Mutex<Vec<Option<Outcome>>> = Mutex::new(vec![None; list.len()]);
    let work = || {
        while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed))
            && let Some(seed) = list.get(at)
        {
            let outcome = run(scenario, config, *seed);
            if let Some(place) = done.lock().expect("no thread panics while it holds the lock").get_mut(at) {
                *place = Some(outcome);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..config.jobs.min(list.len()) {
            scope.spawn(work);
        }
        work();
    });
    done.into_inner().expect("no thread panics while it holds the lock").into_iter().flatten().collect()
}

/// The runs in which the figure was looked for; `None` where it was not reached.
fn distribution(outcomes: &[Outcome], figure: impl Fn(&Outcome) -> Option<Option<Duration>>) -> Option<Distribution> {
    let samples = outcomes.iter().filter_map(figure);
    Distribution::of(samples.map(|sample| sample.map(|sample| sample.as_secs_f64() * 1000.0)))
}

fn average(figures: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = figures.fold((0.0, 0), |(sum, count), figure| (sum + figure, count + 1));
    sum / number_of(count.max(1))
}
