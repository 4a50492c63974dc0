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
    /// A host that owns addresses is cut off for some seconds, with the other hosts or the client out of its reach
    Partition,
    /// Nothing goes wrong for --hours, but for the loss of datagrams
    Rest,
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
    /// How long nothing goes wrong in [`Scenario::Rest`].
    pub rest: Duration,
}

/// What one run gave.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// From the crash until every survivor knows of it.
    pub all_know: Option<Duration>,
    /// The longest outage of an address at the client.
    pub outage: Option<Duration>,
    /// From the end of the partition until every address has one owner and everybody knows everybody.
    pub healed: Option<Duration>,
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
    /// From the end of the partition until every address has one owner and everybody knows everybody.
    pub heal_ms: Option<Distribution>,
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
            Self::Partition => "partition",
            Self::Rest => "rest",
        }
    }
}

/// Runs `scenario` once.
pub fn run(scenario: Scenario, config: Config, seed: u64) -> Outcome {
    match scenario {
        Scenario::Crash => Run::start(config, seed).map_or_else(|failed| *failed, Run::crash),
        Scenario::Partition => Run::start(config, seed).map_or_else(|failed| *failed, Run::partition),
        Scenario::Rest => Run::start(config, seed).map_or_else(|failed| *failed, |run| run.rest(config.rest)),
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
        heal_ms: None,
        packets_per_second_per_node: 0.0,
        violations: Vec::new(),
    };
    let (mut known, mut outages, mut heals, mut rates) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (trial, seed) in seeds.enumerate() {
        let outcome = run(scenario, config, seed);
        if scenario != Scenario::Rest {
            known.push(outcome.all_know.map(millis));
            outages.push(outcome.outage.map(millis));
        }
        if scenario == Scenario::Partition {
            heals.push(outcome.healed.map(millis));
        }
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
    summary.heal_ms = Distribution::of(heals);
    summary.packets_per_second_per_node = rates.iter().sum::<f64>() / count(rates.len().max(1));
    summary
}

/// A world that has converged, and what is known of the run so far.
struct Run {
    world: World,
    ips: Vec<ServiceIp>,
    owners: BTreeMap<ServiceIp, NodeName>,
    /// A host that owns addresses.
    victim: NodeName,
    rng: StdRng,
    outcome: Box<Outcome>,
}

impl Run {
    /// Boots, waits until all is well, and goes on to an instant that the seed decides.
    fn start(config: Config, seed: u64) -> Result<Self, Box<Outcome>> {
        let desired = desired(config.addresses);
        let ips: Vec<ServiceIp> = desired.addresses.keys().copied().collect();
        let mut world = World::boot(config.nodes, desired, config.loss_percent, seed);
        let mut outcome = Box::new(Outcome::default());
        if world.wait(LONGEST_JOIN, |world| world.agrees_with_reality() && one_owner_each(world, &ips)).is_none() {
            outcome.found(CONVERGES, format!("no full membership {LONGEST_JOIN:?} after the start"));
            return Err(outcome);
        }
        let sent = world.datagrams;
        world.advance(AT_REST);
        let sent = usize::try_from(world.datagrams - sent).unwrap_or(usize::MAX);
        outcome.packets_per_second = count(sent) / count(config.nodes) / AT_REST.as_secs_f64();

        // The instant within a probe period and the victim are part of the seed.
        let mut rng = StdRng::seed_from_u64(seed ^ 0x6372_6173_6800_0000);
        world.advance(Duration::from_micros(rng.random_range(0..200_000)));
        let owners = owners(&world, &ips);
        let candidates: Vec<&NodeName> = owners.values().collect::<BTreeSet<_>>().into_iter().collect();
        let Some(victim) = candidates.get(rng.random_range(0..candidates.len().max(1))).map(|node| (*node).clone())
        else {
            outcome.found(CONVERGES, "nobody owns anything".to_owned());
            return Err(outcome);
        };
        Ok(Self { world, ips, owners, victim, rng, outcome })
    }

    /// The victim dies.
    fn crash(mut self) -> Outcome {
        self.judge_deaths("before the crash");
        self.world.start_measuring();
        self.world.crash(&self.victim);
        self.wait_until_known();
        self.world.advance(SETTLING);
        self.judge_deaths("after the crash");
        self.measure_outage();
        self.judge_owners("died");
        self.outcome.crashed = Some(self.victim.clone());
        self.end()
    }

    /// The victim is cut off for 2 to 10 s and comes back.
    fn partition(mut self) -> Outcome {
        self.world.start_measuring();
        self.world.cut(std::slice::from_ref(&self.victim));
        self.wait_until_known();
        self.world.advance(Duration::from_millis(self.rng.random_range(2_000..10_000)));
        self.measure_outage();
        self.world.heal();
        let ips = &self.ips;
        let whole = |world: &World| world.agrees_with_reality() && one_owner_each(world, ips);
        self.outcome.healed = self.world.wait(LONGEST_HEAL, whole);
        if self.outcome.healed.is_none() {
            self.outcome.found(HEALS, format!("{} is not back {LONGEST_HEAL:?} after the cut", self.victim));
        }
        self.world.advance(SETTLING);
        self.judge_owners("was cut off and is back");
        for ip in &self.ips {
            let (cached, answering) = (self.world.cached(*ip), self.world.answering(*ip));
            if !answering.iter().any(|owner| Some(*owner) == cached) {
                let detail = format!("the client sends {ip} to {cached:?}, {answering:?} answers");
                self.outcome.found(THE_OWNER_SPEAKS_LAST, detail);
            }
        }
        self.end()
    }

    /// Nothing happens; a death is false.
    fn rest(mut self, duration: Duration) -> Outcome {
        let end = self.world.clock().elapsed() + duration;
        while self.world.clock().elapsed() < end && self.outcome.findings.is_empty() {
            self.world.wait(REST_STEP, World::has_false_death);
            self.judge_deaths("though nothing went wrong");
        }
        self.judge_owners("only rested");
        self.end()
    }

    fn wait_until_known(&mut self) {
        let victim = &self.victim;
        self.outcome.all_know = self.world.wait(LONGEST_DETECTION, |world| world.others_know_dead(victim));
        if self.outcome.all_know.is_none() {
            let detail = format!("{victim} is not known to be gone after {LONGEST_DETECTION:?}");
            self.outcome.found(DEATH_IS_KNOWN, detail);
        }
    }

    fn measure_outage(&mut self) {
        let moved = self.ips.iter().filter(|ip| self.owners.get(ip) == Some(&self.victim));
        let outage = moved.map(|ip| self.world.longest_gap(*ip)).max();
        self.outcome.outage = outage.map(|gap| gap.saturating_sub(PROBE_INTERVAL));
    }

    fn judge_deaths(&mut self, when: &str) {
        if self.world.has_false_death() {
            self.outcome.false_downs += 1;
            self.outcome.found(NO_LIVING_HOST_IS_DECLARED_DEAD, when.to_owned());
        }
    }

    /// One owner each, and the addresses of the others where they were.
    fn judge_owners(&mut self, what: &str) {
        for ip in &self.ips {
            let before = self.owners.get(ip);
            match self.world.answering(*ip).as_slice() {
                [owner] if before == Some(&self.victim) || before == Some(*owner) => {}
                [owner] => {
                    let detail = format!("{ip} moved from {before:?} to {owner}, but {} {what}", self.victim);
                    self.outcome.found(ONLY_THE_DEAD_NODES_ADDRESSES_MOVE, detail);
                }
                answering => self.outcome.found(ONE_OWNER, format!("{ip} is answered by {answering:?}")),
            }
        }
    }

    fn end(mut self) -> Outcome {
        self.outcome.events = self.world.events;
        self.outcome.elapsed = self.world.clock().elapsed();
        *self.outcome
    }
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
const HEALS: &str = "after a partition every address has one owner and everybody knows everybody";
const THE_OWNER_SPEAKS_LAST: &str = "after a partition the client's cache names the owner";
const NO_LIVING_HOST_IS_DECLARED_DEAD: &str = "no living host is declared dead";

/// Where the pool of the users' documents begins.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 0);
/// Chosen: ten times what a join takes at 10 % loss.
const LONGEST_JOIN: Duration = Duration::from_secs(20);
/// Chosen: long enough to average the rate of datagrams, and to show a false death.
const AT_REST: Duration = Duration::from_secs(5);
/// Chosen: a bound far above the target, which the distribution shows.
const LONGEST_DETECTION: Duration = Duration::from_secs(20);
/// Chosen: a bound far above the target, which the distribution shows.
const LONGEST_HEAL: Duration = Duration::from_secs(20);
/// Chosen: between two looks that are not caused by an event.
const REST_STEP: Duration = Duration::from_secs(10);
/// Chosen: the whole schedule of announcements.
const SETTLING: Duration = Duration::from_secs(4);
