//! Scenarios of the simulator and the invariants that every run of them must keep.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::time::Duration;

use clap::ValueEnum;
use garpike_election::{Address, Desired, NodeName, Placement, Selection, ServiceIp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;

use super::world::{PROBE_INTERVAL, World};
use crate::report::{Distribution, Finding, Violation};

/// What happens in a simulation.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// A host that owns addresses dies without a word
    Crash,
}

/// The conditions of a simulation.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many hosts there are.
    pub nodes: usize,
    /// How many datagrams and frames of a hundred are lost.
    pub loss_percent: f64,
    /// How many service IPs there are.
    pub addresses: u32,
}

/// What one run gave.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// From the crash until every survivor knows of it.
    pub all_know: Option<Duration>,
    /// The longest outage of an address at the client.
    pub outage: Option<Duration>,
    /// Who died.
    pub crashed: Option<NodeName>,
    /// What did not hold.
    pub findings: Vec<Finding>,
    /// Events handled.
    pub events: u64,
    /// Virtual time that passed.
    pub elapsed: Duration,
    /// Datagrams that one node sent in a second at rest.
    pub packets_per_second: f64,
    /// How often a living host was seen as dead.
    pub false_downs: u64,
}

/// What many runs gave: the object that `chaos simulate --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The scenario.
    pub scenario: &'static str,
    /// Hosts in each run.
    pub nodes: usize,
    /// The first seed.
    pub first_seed: u64,
    /// How many seeds were run.
    pub seeds: u64,
    /// Events handled.
    pub events: u64,
    /// Virtual time, summed over all hosts.
    pub node_hours: f64,
    /// Living hosts that were seen as dead.
    pub false_downs: u64,
    /// Addresses that moved although the host of their owner lived.
    pub moves_with_host_alive: u64,
    /// From the crash until every survivor knows of it.
    pub all_know_ms: Option<Distribution>,
    /// The longest outage of an address at the client.
    pub outage_ms: Option<Distribution>,
    /// Datagrams that a node sends in a second at rest, averaged over the runs.
    pub packets_per_second_per_node: f64,
    /// What did not hold.
    pub violations: Vec<Violation>,
}

impl Outcome {
    fn found(&mut self, invariant: &'static str, detail: String) {
        self.findings.push(Finding { invariant, detail });
    }
}

impl Scenario {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
        }
    }
}

/// Runs `scenario` once.
pub fn run(scenario: Scenario, config: Config, seed: u64) -> Outcome {
    match scenario {
        Scenario::Crash => crash(config, seed),
    }
}

/// Runs `scenario` once for each seed.
pub fn run_seeds(scenario: Scenario, config: Config, seeds: Range<u64>) -> Summary {
    let mut summary = Summary {
        scenario: scenario.name(),
        nodes: config.nodes,
        first_seed: seeds.start,
        seeds: seeds.end.saturating_sub(seeds.start),
        events: 0,
        node_hours: 0.0,
        false_downs: 0,
        moves_with_host_alive: 0,
        all_know_ms: None,
        outage_ms: None,
        packets_per_second_per_node: 0.0,
        violations: Vec::new(),
    };
    let (mut known, mut outages, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for (trial, seed) in seeds.enumerate() {
        let outcome = run(scenario, config, seed);
        known.push(outcome.all_know.map(millis));
        outages.push(outcome.outage.map(millis));
        rates.push(outcome.packets_per_second);
        summary.events += outcome.events;
        summary.node_hours += outcome.elapsed.as_secs_f64() / 3600.0 * count(config.nodes);
        summary.false_downs += outcome.false_downs;
        for finding in outcome.findings {
            if finding.invariant == ONLY_THE_DEAD_NODES_ADDRESSES_MOVE {
                summary.moves_with_host_alive += 1;
            }
            summary.violations.push(finding.in_trial(trial, seed));
        }
    }
    summary.all_know_ms = Distribution::of(known);
    summary.outage_ms = Distribution::of(outages);
    summary.packets_per_second_per_node = rates.iter().sum::<f64>() / count(rates.len().max(1));
    summary
}

/// A host that owns addresses dies without a word.
fn crash(config: Config, seed: u64) -> Outcome {
    let desired = desired(config.addresses);
    let ips: Vec<ServiceIp> = desired.addresses.keys().copied().collect();
    let mut world = World::boot(config.nodes, desired, config.loss_percent, seed);
    let mut outcome = Outcome::default();
    if world.wait(LONGEST_JOIN, |world| world.agrees_with_reality() && one_owner_each(world, &ips)).is_none() {
        outcome.found(CONVERGES, format!("no full membership {LONGEST_JOIN:?} after the start"));
        return outcome;
    }
    let sent = world.datagrams;
    world.advance(AT_REST);
    outcome.packets_per_second = count(usize::try_from(world.datagrams - sent).unwrap_or(usize::MAX))
        / count(config.nodes)
        / AT_REST.as_secs_f64();

    // The instant within a probe period and the victim are part of the seed.
    let mut rng = StdRng::seed_from_u64(seed ^ 0x6372_6173_6800_0000);
    world.advance(Duration::from_micros(rng.random_range(0..200_000)));
    let owners = owners(&world, &ips);
    let candidates: Vec<&NodeName> = owners.values().collect::<BTreeSet<_>>().into_iter().collect();
    let Some(victim) = candidates.get(rng.random_range(0..candidates.len().max(1))).map(|node| (*node).clone()) else {
        outcome.found(CONVERGES, "nobody owns anything".to_owned());
        return outcome;
    };
    if world.has_false_death() {
        outcome.false_downs += 1;
        outcome.found(NO_LIVING_HOST_IS_DECLARED_DEAD, "before the crash".to_owned());
    }

    world.start_measuring();
    world.crash(&victim);
    outcome.all_know = world.wait(LONGEST_DETECTION, |world| world.all_know_dead(&victim));
    if outcome.all_know.is_none() {
        outcome.found(DEATH_IS_KNOWN, format!("{victim} is not known to be dead after {LONGEST_DETECTION:?}"));
    }
    world.advance(SETTLING);
    if world.has_false_death() {
        outcome.false_downs += 1;
        outcome.found(NO_LIVING_HOST_IS_DECLARED_DEAD, format!("after the crash of {victim}"));
    }
    let moved_from = |ip: &ServiceIp| owners.get(ip) == Some(&victim);
    let outage = ips.iter().filter(|ip| moved_from(ip)).map(|ip| world.longest_gap(*ip)).max();
    outcome.outage = outage.map(|gap| gap.saturating_sub(PROBE_INTERVAL));
    for ip in &ips {
        match world.answering(*ip).as_slice() {
            [owner] if moved_from(ip) || owners.get(ip) == Some(*owner) => {}
            [owner] => {
                let detail = format!("{ip} moved from {:?} to {owner}, but {victim} died", owners.get(ip));
                outcome.found(ONLY_THE_DEAD_NODES_ADDRESSES_MOVE, detail);
            }
            answering => outcome.found(ONE_OWNER, format!("{ip} is answered by {answering:?}")),
        }
    }
    outcome.crashed = Some(victim);
    outcome.events = world.events;
    outcome.elapsed = world.clock().elapsed();
    outcome
}

fn owners(world: &World, ips: &[ServiceIp]) -> BTreeMap<ServiceIp, NodeName> {
    ips.iter().filter_map(|ip| Some((*ip, (*world.answering(*ip).first()?).clone()))).collect()
}

fn one_owner_each(world: &World, ips: &[ServiceIp]) -> bool {
    ips.iter().all(|ip| world.answering(*ip).len() == 1)
}

/// Addresses that every node may own.
fn desired(count: u32) -> Desired {
    let addresses = (0..count).filter_map(|i| {
        let ip = ServiceIp::new(IpAddr::V4(Ipv4Addr::from_bits(FIRST_ADDRESS.to_bits() + i))).ok()?;
        let placements = vec![Placement { nodes: Selection::All, interfaces: Selection::All }];
        Some((ip, Address { election_key: ip, services: BTreeSet::new(), placements }))
    });
    Desired { addresses: addresses.collect(), excluded: BTreeSet::new() }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
fn count(n: usize) -> f64 {
    n as f64
}

const CONVERGES: &str = "after the start every address has one owner";
const DEATH_IS_KNOWN: &str = "the death of a host becomes known to all survivors";
const ONE_OWNER: &str = "after convergence exactly one living host answers for an address";
const ONLY_THE_DEAD_NODES_ADDRESSES_MOVE: &str = "only the dead node's addresses move";
const NO_LIVING_HOST_IS_DECLARED_DEAD: &str = "no living host is declared dead";

/// Where the pool of the users' documents begins.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 0);
/// Chosen: ten times what a join takes at 10 % loss.
const LONGEST_JOIN: Duration = Duration::from_secs(20);
/// Chosen: long enough to average the rate of datagrams, and to show a false death.
const AT_REST: Duration = Duration::from_secs(5);
/// Chosen: a bound far above the target, which the distribution shows.
const LONGEST_DETECTION: Duration = Duration::from_secs(20);
/// Chosen: the whole schedule of announcements.
const SETTLING: Duration = Duration::from_secs(4);
