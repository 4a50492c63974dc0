//! One trial, watched from outside: by the probing client, the tap on its cable, a client without a cache and established
//! connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use garpike_election::{NodeName, ServiceIp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::fleet::{Families, Fleet, Usage};
use crate::lab::{Asked, Kept, Probe, Record, Tapped, now};
use crate::report::Resources;
use crate::scenario::{Expected, Onlooker, Scenario};
use crate::script::{Happened, Script, Wanted};

/// What is watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watched {
    /// What happens.
    pub(crate) scenario: Scenario,
    /// How long, where it can be chosen and is.
    pub(crate) lasts: Option<Duration>,
    /// Which families are probed.
    pub(crate) families: Families,
    /// Time between two probes, and between two questions.
    pub(crate) interval: Duration,
    /// Decides the instant within the periods of the detector, and what else is left to chance.
    pub(crate) seed: u64,
}

/// One trial, seen from outside.
pub(crate) struct Observation {
    /// When the fault began.
    pub(crate) injected: Instant,
    /// When it was last looked at.
    pub(crate) end: Instant,
    /// The probes of each probed service IP.
    pub(crate) records: BTreeMap<ServiceIp, Record>,
    /// The client's cable.
    pub(crate) seen: Tapped,
    /// Who answered before all this.
    pub(crate) victim: NodeName,
    /// Who answered last before the fault: another node where the victim had lost its addresses before.
    pub(crate) holder: NodeName,
    /// From when on a client without a cache could expect to be told something.
    pub(crate) fresh_from: Instant,
    /// What a client without a cache was told; only where one looked on.
    pub(crate) asked: BTreeMap<ServiceIp, Asked>,
    /// What became of established connections; only where there were any.
    pub(crate) kept: Option<Kept>,
    /// Where the probed addresses should be in the end.
    pub(crate) wanted: Option<Wanted>,
    /// When the neighbour cache of the probing client was empty after all this; only where nothing may have moved.
    pub(crate) emptied: Option<RangeInclusive<Instant>>,
    /// What each speaker used from shortly before the fault until the end.
    pub(crate) used: BTreeMap<NodeName, Resources>,
}

/// Probes, lets the scenario happen to the owner of the probed Service and watches until the client is served again.
/// Meanwhile `live` is told which addresses were answered within the last 50 ms.
///
/// # Errors
///
/// When nobody answers before the fault, or the lab fails.
pub(crate) fn observe(
    fleet: &mut Fleet<'_>,
    watched: Watched,
    live: &mut dyn FnMut(&BTreeMap<ServiceIp, bool>),
) -> Result<Observation> {
    let Watched { scenario, lasts, families, interval, seed } = watched;
    let mut rng = StdRng::seed_from_u64(seed);
    // The instant within the periods of the detector is part of the seed.
    let phase = Duration::from_micros(rng.random_range(0..PHASE_MICROS));
    let tap = fleet.lab.tap()?;
    let probed = fleet.probed(families);
    let mut probes: BTreeMap<ServiceIp, Probe> = BTreeMap::new();
    for ip in &probed {
        probes.insert(*ip, fleet.lab.probe(Fleet::target(*ip), interval)?);
    }
    for (ip, probe) in &probes {
        if !probe.wait_for_answer(ANSWERED_WITHIN) {
            bail!("{ip} does not answer {ANSWERED_WITHIN:?} before the fault");
        }
    }
    let asker = scenario.has(Onlooker::Fresh).then(|| fleet.lab.ask(&probed, interval)).transpose()?;
    let targets: Vec<SocketAddr> = probed.iter().map(|ip| Fleet::target(*ip)).collect();
    let connections =
        scenario.has(Onlooker::Connections).then(|| fleet.lab.connect(&targets, CONNECTIONS)).transpose()?;
    watch(&probes, BEFORE + phase, live);
    let first = probed.first().context("no family is probed")?;
    let victim = fleet.answered_by(&tap.so_far()?, first.addr(), now()).context("the tap saw no answer")?;

    let lasts = lasts.or_else(|| scenario.default_length()).unwrap_or_default();
    let script = Script { scenario, victim: &victim, probed: &probed, lasts };
    script.prepare(fleet, &mut rng)?;
    let holder = fleet.answered_by(&tap.so_far()?, first.addr(), now()).context("the tap saw no answer")?;
    let (before, since) = (fleet.usage(), now());
    let Happened { at: injected, resumed, wanted } = script.inject(fleet, &mut rng)?;
    watch(&probes, AFTER, live);
    let patience = if scenario == Scenario::UplinkDown { TOLD_AGAIN_WITHIN } else { RECOVERS_WITHIN };
    for probe in probes.values() {
        probe.wait_for_answer(patience);
    }
    watch(&probes, AFTER, live);
    let end = now();
    let used = used(&before, &fleet.usage(), end - since);
    let kept = connections.map(|connections| connections.stop()).transpose().context("the connections failed")?;
    let told = asker.map(|asker| asker.stop()).unwrap_or_default();
    let asked = told.into_iter().filter_map(|(ip, asked)| Some((ServiceIp::new(ip).ok()?, asked))).collect();
    let emptied = match scenario.expected() {
        Expected::Stay => Some(empty_cache(fleet, &probes)?),
        Expected::HandOver | Expected::TakeOver | Expected::Either => None,
    };
    let records = probes.into_iter().map(|(ip, probe)| (ip, probe.stop())).collect();
    let fresh_from = resumed.unwrap_or(injected);
    let seen = tap.stop()?;
    Ok(Observation { injected, end, records, seen, victim, holder, fresh_from, asked, kept, wanted, emptied, used })
}

/// Lets the client ask for everything anew and waits until it is served.
fn empty_cache(fleet: &Fleet<'_>, probes: &BTreeMap<ServiceIp, Probe>) -> Result<RangeInclusive<Instant>> {
    let emptied = now();
    fleet.lab.forget_client_neighbours()?;
    thread::sleep(ON_THE_WAY);
    for probe in probes.values() {
        probe.wait_for_answer(RECOVERS_WITHIN);
    }
    Ok(emptied..=now())
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
    let lived = both.filter(|(_, before, after)| before.pid == after.pid);
    lived
        .map(|(node, before, after)| {
            let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64() / passed.as_secs_f64() * 100.0;
            (node.clone(), Resources { rss_mb: megabytes(after.rss_bytes), cpu_percent: cpu })
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "memory here is far below 2^52 bytes")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// As many as a client of some size has open; an address of each family has half of them.
const CONNECTIONS: usize = 200;
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
/// Chosen: a client that missed the first announcements and is told nothing later finds out by itself within that time.
const TOLD_AGAIN_WITHIN: Duration = Duration::from_secs(60);
/// What was sent before the cache was emptied has arrived; chosen: above a stall of the machine (41 ms).
const ON_THE_WAY: Duration = Duration::from_millis(100);
