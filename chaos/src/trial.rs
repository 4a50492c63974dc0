//! Runs a scenario many times and judges each trial by what the client and the tap on its cable saw.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;
use garpike_election::{NodeName, ServiceIp};
use garpike_speaker::Profile;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::fleet::{Families, Fleet, Usage};
use crate::lab::{Init, Outage, Probe, Record, Tapped, now};
use crate::report::{Finding, PerFamily, Report, Resources, Trial, Verdict, load_average};
use crate::scenario::Scenario;

/// How a scenario is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What happens.
    pub scenario: Scenario,
    /// How many nodes there are.
    pub nodes: usize,
    /// Which families are probed.
    pub families: Families,
    /// How often it is done.
    pub trials: usize,
    /// Seed of the first trial.
    pub seed: u64,
    /// Time between two probes.
    pub interval: Duration,
    /// How fast and how careful the speakers detect failures.
    pub profile: Profile,
}

/// One trial, seen from outside.
pub struct Observation {
    /// When the fault began.
    pub injected: Instant,
    /// When the client's neighbour cache was emptied, so that it had to ask who has the address; only where the host of
    /// the owner lives.
    pub emptied: Option<Instant>,
    /// When it was last looked at.
    pub end: Instant,
    /// The probes of each probed service IP.
    pub records: BTreeMap<ServiceIp, Record>,
    /// The client's cable.
    pub seen: Tapped,
    /// Who answered before.
    pub victim: NodeName,
    /// What each speaker used from shortly before the fault until the end.
    pub used: BTreeMap<NodeName, Resources>,
}

/// Runs the plan in a new lab.
///
/// # Errors
///
/// When the lab cannot be built or a trial cannot be carried out; a trial that ends badly is a violation instead.
pub fn run(init: &mut Init, plan: Plan, progress: &mut dyn FnMut(&Trial)) -> Result<Report> {
    let mut fleet = Fleet::start(init, plan.nodes, SERVICES, plan.profile)?;
    let mut report = empty_report(plan);
    let mut settled = settle(&mut fleet)?;
    if let Some(Finding { invariant, detail }) = settled.disputes.first() {
        bail!("before the first trial: {invariant}: {detail}");
    }
    for number in 0..plan.trials {
        let seed = plan.seed + number as u64;
        let (trial, findings) =
            one_trial(&mut fleet, plan, seed, &mut settled).with_context(|| format!("trial {number} (seed {seed})"))?;
        progress(&trial);
        report.per_trial.push(trial);
        report.violations.extend(findings.into_iter().map(|finding| finding.in_trial(number, seed)));
    }
    for (invariant, verdict) in &mut report.invariants {
        if report.violations.iter().any(|violation| violation.invariant == *invariant) {
            *verdict = Verdict::Violated;
        }
    }
    report.load_average = load_average();
    report.summarise();
    Ok(report)
}

/// The lab at rest: what the client finds when it asks for every address.
struct Settled {
    /// Who answers.
    owners: BTreeMap<ServiceIp, NodeName>,
    /// Where not exactly one station does.
    disputes: Vec<Finding>,
}

/// Injects the fault on the owner of the probed Service, watches, undoes it and judges. `settled` is how the lab was
/// before, and how it is after.
fn one_trial(fleet: &mut Fleet<'_>, plan: Plan, seed: u64, settled: &mut Settled) -> Result<(Trial, Vec<Finding>)> {
    let mut rng = StdRng::seed_from_u64(seed);
    // The instant within the periods of the detector is part of the seed.
    let phase = Duration::from_micros(rng.random_range(0..PHASE_MICROS));
    let observation = observe(fleet, plan.scenario, plan.families, plan.interval, phase, &mut |_| {})?;
    let mut findings = judge_fault(&observation, &settled.owners, plan.scenario);
    let trial = measure(fleet, &observation, plan.scenario, seed);
    let (tap, undone_from) = (fleet.lab.tap()?, now());
    plan.scenario.undo(fleet, &observation.victim)?;
    let mut after = settle(fleet)?;
    if plan.scenario.host_lives() {
        let undone = Window { seen: tap.stop()?, from: undone_from, to: now() };
        findings.extend(judge_stay(fleet, &observation, &undone, &settled.owners, &after.owners)?);
    }
    findings.append(&mut after.disputes);
    *settled = after;
    Ok((trial, findings))
}

/// What a tap saw in a span of time.
struct Window {
    seen: Tapped,
    from: Instant,
    to: Instant,
}

/// Probes, injects the fault on the owner of the probed Service and watches until the client is served again.
/// Meanwhile `live` is told which addresses were answered within the last 50 ms.
///
/// # Errors
///
/// When nobody answers before the fault, or the lab fails.
pub fn observe(
    fleet: &mut Fleet<'_>,
    scenario: Scenario,
    families: Families,
    interval: Duration,
    phase: Duration,
    live: &mut dyn FnMut(&BTreeMap<ServiceIp, bool>),
) -> Result<Observation> {
    let tap = fleet.lab.tap()?;
    let mut probes: BTreeMap<ServiceIp, Probe> = BTreeMap::new();
    for ip in fleet.probed(families) {
        probes.insert(ip, fleet.lab.probe(Fleet::target(ip), interval)?);
    }
    for (ip, probe) in &probes {
        if !probe.wait_for_answer(ANSWERED_WITHIN) {
            bail!("{ip} does not answer {ANSWERED_WITHIN:?} before the fault");
        }
    }
    watch(&probes, BEFORE + phase, live);
    let first = *probes.keys().next().context("no family is probed")?;
    let victim = fleet.answered_by(&tap.so_far()?, first.addr(), now()).context("the tap saw no answer")?;

    let (before, since) = (fleet.usage(), now());
    let injected = scenario.inject(fleet, &victim)?;
    let mut emptied = None;
    if scenario.host_lives() {
        watch(&probes, STOOD_IN_WITHIN, live);
        emptied = Some(now());
        fleet.lab.forget_client_neighbours()?;
    }
    watch(&probes, AFTER, live);
    for probe in probes.values() {
        probe.wait_for_answer(RECOVERS_WITHIN);
    }
    watch(&probes, AFTER, live);
    let end = now();
    let used = used(&before, &fleet.usage(), end - since);
    let records = probes.into_iter().map(|(ip, probe)| (ip, probe.stop())).collect();
    Ok(Observation { injected, emptied, end, records, seen: tap.stop()?, victim, used })
}

/// Lets `duration` pass and tells `live` what the client gets.
fn watch(probes: &BTreeMap<ServiceIp, Probe>, duration: Duration, live: &mut dyn FnMut(&BTreeMap<ServiceIp, bool>)) {
    let end = now() + duration;
    let mut before: BTreeMap<ServiceIp, u64> = BTreeMap::new();
    while now() < end {
        thread::sleep(LIVE.min(end.saturating_duration_since(now())));
        let counts: BTreeMap<ServiceIp, u64> = probes.iter().map(|(ip, probe)| (*ip, probe.answered())).collect();
        live(&counts.iter().map(|(ip, count)| (*ip, before.get(ip) != Some(count))).collect());
        before = counts;
    }
}

/// What each process that lived all the time used in between.
fn used(
    before: &BTreeMap<NodeName, Usage>,
    after: &BTreeMap<NodeName, Usage>,
    passed: Duration,
) -> BTreeMap<NodeName, Resources> {
    let both = after.iter().filter_map(|(node, after)| Some((node, before.get(node)?, after)));
    both.map(|(node, before, after)| {
        let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64() / passed.as_secs_f64() * 100.0;
        (node.clone(), Resources { rss_mb: megabytes(after.rss_bytes), cpu_percent: cpu })
    })
    .collect()
}

/// What must hold from the fault on: the client is served again, and nothing is said of addresses that did not move.
fn judge_fault(observation: &Observation, owners: &BTreeMap<ServiceIp, NodeName>, scenario: Scenario) -> Vec<Finding> {
    let Observation { injected, end, records, seen, victim, emptied: _, used: _ } = observation;
    let mut findings = Vec::new();
    let mut found = |invariant, detail| findings.push(Finding { invariant, detail });
    let lost = u64::from(seen.missed) + seen.forgotten;
    if lost > 0 {
        found(VALID, format!("the tap lost {lost} frames: run the trial again on a calmer machine"));
    }
    for (ip, record) in records {
        match record.outage(*injected, *end) {
            Outage::Recovered(_) => {}
            Outage::NotRecovered => found(RECOVERS, format!("{ip} was never answered again")),
            Outage::NotAnsweredBefore => found(RECOVERS, format!("{ip} was not answered before the fault")),
        }
    }
    for (ip, owner) in owners.iter().filter(|(_, owner)| *owner != victim || scenario == Scenario::Rest) {
        let frames = seen.announced(ip.addr(), *injected..=*end);
        if frames > 0 {
            let detail = format!("{frames} frames announced {ip} of {owner}; hit was {victim} by {}", scenario.name());
            found(ONLY_MOVED_ARE_ANNOUNCED, detail);
        }
    }
    findings
}

/// What must hold where the owner's host lives: from the fault until all is whole again nobody but its owner is said to
/// have an address, a client that asks is told so, and the host itself serves.
fn judge_stay(
    fleet: &Fleet<'_>,
    observation: &Observation,
    undone: &Window,
    before: &BTreeMap<ServiceIp, NodeName>,
    after: &BTreeMap<ServiceIp, NodeName>,
) -> Result<Vec<Finding>> {
    let Observation { injected, emptied, end, records, seen, victim, used: _ } = observation;
    let mut findings = Vec::new();
    let mut found = |detail| findings.push(Finding { invariant: NO_MOVE_WHILE_THE_HOST_LIVES, detail });
    for (ip, owner) in before {
        let mac = fleet.lab.host(owner)?.mac;
        let windows =
            [(seen, *injected..=*end, "during the fault"), (&undone.seen, undone.from..=undone.to, "after it")];
        for (seen, window, when) in windows {
            let claimed = seen.claimants(ip.addr(), window.clone());
            let answering = seen.answering(ip.addr(), window);
            let foreign: Vec<_> = claimed.union(&answering).filter(|other| **other != mac).collect();
            if !foreign.is_empty() {
                found(format!("{ip} of {owner} was claimed or served {when} by {foreign:?}; hit was {victim}"));
            }
        }
        let told = |emptied: Instant| seen.claimants(ip.addr(), emptied..=*end).contains(&mac);
        if records.contains_key(ip) && !emptied.is_some_and(told) {
            found(format!("a client that asked for {ip} was not told that it is at {owner} ({mac})"));
        }
        let now = after.get(ip);
        if now != Some(owner) {
            let now = now.map_or_else(|| "nobody".to_owned(), ToString::to_string);
            found(format!("{ip} of {owner} is answered by {now} after the fault; hit was {victim}"));
        }
    }
    Ok(findings)
}

/// Waits until the lab is whole and quiet, and asks for every address.
fn settle(fleet: &mut Fleet<'_>) -> Result<Settled> {
    fleet.wait_until_whole()?;
    thread::sleep(SETTLING);
    let tap = fleet.lab.tap()?;
    let start = now();
    // A client without a cache asks everybody: whoever thinks that it owns the address answers.
    fleet.lab.forget_client_neighbours()?;
    let owners = fleet.resolve()?;
    let seen = tap.stop()?;
    let end = now();
    let mut disputes = Vec::new();
    for ip in fleet.ips() {
        let answering = seen.claimants(ip.addr(), start..=end);
        if answering.len() > 1 {
            disputes.push(Finding { invariant: ONE_OWNER, detail: format!("{ip} is answered by {answering:?}") });
        } else if !owners.contains_key(ip) {
            disputes.push(Finding { invariant: ONE_OWNER, detail: format!("{ip} is answered by nobody") });
        }
    }
    Ok(Settled { owners, disputes })
}

/// The figures of a trial.
fn measure(fleet: &Fleet<'_>, observation: &Observation, scenario: Scenario, seed: u64) -> Trial {
    let Observation { injected, end, records, seen, victim, used, emptied: _ } = observation;
    let owner_mac = fleet.lab.host(victim).map(|host| host.mac).ok();
    // Every address that another station claimed after the fault, with the first time.
    let claims: BTreeMap<ServiceIp, Instant> = fleet
        .ips()
        .iter()
        .filter_map(|ip| Some((*ip, seen.first_claim(ip.addr(), owner_mac?, *injected)?.0)))
        .filter(|(ip, _)| seen.announced(ip.addr(), *injected..=*end) > 0)
        .collect();
    let mut trial = Trial {
        seed,
        outage_ms: PerFamily::NONE,
        lost_probes: PerFamily::NONE,
        detect_ms: PerFamily::NONE,
        announce_ms: PerFamily::NONE,
        owner_before: Some(victim.to_string()),
        owner_after: None,
        used: used.iter().map(|(node, used)| (node.to_string(), *used)).collect(),
        worst_lateness_ms: 0.0,
    };
    // Where nothing may move there is nothing to measure.
    let expected = |value: Option<f64>| scenario.moves().then_some(value);
    for (ip, record) in records {
        let same_family = || claims.iter().filter(|(other, _)| other.v4().is_some() == ip.v4().is_some());
        let last = same_family().map(|(_, at)| *at).max();
        let first = same_family().map(|(_, at)| *at).min();
        let claimed = claims.get(ip).copied();
        let outage = record.outage(*injected, *end).recovered().map(millis);
        let lost = record.lost(*injected, *end) as u64;
        let detect = claimed.map(|at| millis(at.saturating_duration_since(*injected)));
        let announce = first.zip(last).map(|(first, last)| millis(last.saturating_duration_since(first)));
        if ip.v4().is_some() {
            trial.outage_ms.v4 = Some(outage);
            trial.lost_probes.v4 = Some(lost);
            trial.detect_ms.v4 = expected(detect);
            trial.announce_ms.v4 = expected(announce);
        } else {
            trial.outage_ms.v6 = Some(outage);
            trial.lost_probes.v6 = Some(lost);
            trial.detect_ms.v6 = expected(detect);
            trial.announce_ms.v6 = expected(announce);
        }
        let after = fleet.answered_by(seen, ip.addr(), *end).map(|node| node.to_string());
        trial.owner_after = trial.owner_after.or(after);
        let late = record.disturbances.iter().map(|disturbance| millis(disturbance.late)).fold(0.0, f64::max);
        trial.worst_lateness_ms = trial.worst_lateness_ms.max(late);
    }
    trial
}

fn empty_report(plan: Plan) -> Report {
    let judged = BTreeSet::from([VALID, RECOVERS, ONE_OWNER, ONLY_MOVED_ARE_ANNOUNCED]);
    let mut invariants: BTreeMap<String, Verdict> =
        judged.into_iter().map(|name| (name.to_owned(), Verdict::Held)).collect();
    if plan.scenario.host_lives() {
        invariants.insert(NO_MOVE_WHILE_THE_HOST_LIVES.to_owned(), Verdict::Held);
    }
    Report {
        scenario: plan.scenario.name().to_owned(),
        implementation: "garpike".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        nodes: plan.nodes,
        profile: plan.profile.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned()),
        trials: plan.trials,
        seed: plan.seed,
        load_average: load_average(),
        outage_ms: PerFamily::NONE,
        lost_probes: PerFamily::NONE,
        detect_ms: PerFamily::NONE,
        announce_ms: PerFamily::NONE,
        invariants,
        violations: Vec::new(),
        per_trial: Vec::new(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "memory here is far below 2^52 bytes")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn millis(duration: Duration) -> f64 {
    // Tenths of a millisecond: what the probes can tell apart.
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

const VALID: &str = "every trial is a valid measurement";
const RECOVERS: &str = "every trial recovers";
const ONE_OWNER: &str = "after convergence one station answers for an address";
const ONLY_MOVED_ARE_ANNOUNCED: &str = "only addresses that moved are announced";
const NO_MOVE_WHILE_THE_HOST_LIVES: &str = "no address moves while its host is alive";

/// Chosen: enough that each of three nodes owns some, so that a needless move shows.
const SERVICES: usize = 6;
/// Chosen: several times what a verdict takes; from then on somebody answers for the owner.
const STOOD_IN_WITHIN: Duration = Duration::from_millis(700);
/// The schedule of announcements ends after 3 s; a trial begins on a quiet wire.
const SETTLING: Duration = Duration::from_millis(3500);
/// Several periods of the detector.
const PHASE_MICROS: u64 = 500_000;
/// How often a watcher is told what the client gets.
const LIVE: Duration = Duration::from_millis(50);
const BEFORE: Duration = Duration::from_millis(300);
/// Chosen: more than a detection takes, so that a move that nobody waits for is seen too.
const AFTER: Duration = Duration::from_millis(1500);
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// Chosen: a client that was told nothing finds out by itself within 50 s; that is a failure, not a failover.
const RECOVERS_WITHIN: Duration = Duration::from_secs(10);
