//! Runs a scenario many times and judges each trial by what the client and the tap on its cable saw.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;
use garpike_election::{NodeName, ServiceIp};
use garpike_speaker::Profile;

use crate::fleet::{Families, Fleet, FleetConfig, Source};
use crate::judge::{self, ONE_OWNER};
use crate::lab::{Init, Links, now};
use crate::measure::measure;
use crate::observe::{Watched, observe};
use crate::report::{Finding, Report, Trial, Verdict, load_average};
use crate::scenario::Scenario;
use crate::target::targets;

/// How a scenario is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What happens.
    pub scenario: Scenario,
    /// How long, where it can be chosen and is.
    pub lasts: Option<Duration>,
    /// How many nodes there are.
    pub nodes: usize,
    /// How they are connected.
    pub links: Links,
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
    /// Where the speakers take their objects from.
    pub source: Source,
    /// Whether the API server, where there is one, lives while things happen.
    pub api: ApiServerState,
}

/// Whether the API server lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiServerState {
    /// It does.
    Up,
    /// It is killed before the first trial.
    Down,
}

/// Runs the plan in a new lab.
///
/// # Errors
///
/// When the lab cannot be built or a trial cannot be carried out; a trial that ends badly is a violation instead.
pub fn run(init: &mut Init, plan: Plan, progress: &mut dyn FnMut(&Trial)) -> Result<Report> {
    let Plan { nodes, links, profile, source, api, .. } = plan;
    let mut fleet = Fleet::start(init, FleetConfig { nodes, links, services: SERVICES, profile, source })?;
    let mut report = empty_report(&plan);
    let mut settled = settle(&mut fleet, SETTLING)?;
    if let Some(Finding { invariant, detail }) = settled.disputes.first() {
        bail!("before the first trial: {invariant}: {detail}");
    }
    match api {
        ApiServerState::Up => {}
        ApiServerState::Down => fleet.kill_api_server(),
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
    report.targets = targets(&plan, &report);
    Ok(report)
}

/// The lab at rest: what the client finds when it asks for every address.
struct Settled {
    /// Who answers.
    owners: BTreeMap<ServiceIp, NodeName>,
    /// Where not exactly one station does.
    disputes: Vec<Finding>,
}

/// Lets it happen to the owner of the probed Service, watches, judges and makes the lab whole. `settled` is how the lab was
/// before, and how it is after.
fn one_trial(fleet: &mut Fleet<'_>, plan: Plan, seed: u64, settled: &mut Settled) -> Result<(Trial, Vec<Finding>)> {
    let Plan { scenario, lasts, families, interval, .. } = plan;
    let observation = observe(fleet, Watched { scenario, lasts, families, interval, seed }, &mut |_| {})?;
    let mut findings = judge::judge(fleet, &observation, scenario, &settled.owners)?;
    let trial = measure(fleet, &observation, scenario, seed);
    scenario.undo(fleet, &observation.victim)?;
    let settling = if scenario == Scenario::Heal { SETTLING_AFTER_HEAL } else { SETTLING };
    let mut after = settle(fleet, settling)?;
    findings.extend(judge::judge_owners(scenario, &observation.victim, &settled.owners, &after.owners));
    findings.append(&mut after.disputes);
    *settled = after;
    Ok((trial, findings))
}

/// Waits until the lab is whole and quiet, and asks for every address.
fn settle(fleet: &mut Fleet<'_>, settling: Duration) -> Result<Settled> {
    fleet.wait_until_whole()?;
    thread::sleep(settling);
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

fn empty_report(plan: &Plan) -> Report {
    let held = |name: &str| (name.to_owned(), Verdict::Held);
    Report {
        scenario: plan.scenario.name().to_owned(),
        implementation: "garpike".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        nodes: plan.nodes,
        links: match plan.links {
            Links::One => 1,
            Links::Two => 2,
        },
        profile: plan.profile.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned()),
        source: match (plan.source, plan.api) {
            (Source::Manifests, _) => "manifests",
            (Source::Kubernetes, ApiServerState::Up) => "kubernetes",
            (Source::Kubernetes, ApiServerState::Down) => "kubernetes, API server killed",
        }
        .to_owned(),
        trials: plan.trials,
        seed: plan.seed,
        invariants: judge::invariants(plan.scenario).into_iter().map(held).collect(),
        ..Report::default()
    }
}

/// Chosen: enough that each of three nodes owns some, so that a needless move shows.
const SERVICES: usize = 6;
/// The first announcements are over after 3 s; a trial begins on a quiet wire.
const SETTLING: Duration = Duration::from_millis(3500);
/// A heal begins with a cut that makes noise anyway; chosen: so that 100 of them take a quarter of an hour at most.
const SETTLING_AFTER_HEAL: Duration = Duration::from_millis(500);
