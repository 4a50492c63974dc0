//! The figures of a trial.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use garpike_election::ServiceIp;

use crate::fleet::Fleet;
use crate::judge::longest;
use crate::observe::Observation;
use crate::report::{TcpConnections, Trial};
use crate::scenario::{Expected, Scenario};

/// What the onlookers of a trial measured.
pub(crate) fn measure(fleet: &Fleet<'_>, observation: &Observation, scenario: Scenario, seed: u64) -> Trial {
    let Observation { injected, end, records, seen, victim, used, .. } = observation;
    let claims = claims(fleet, observation, scenario);
    let from = fleet.lab.host(&observation.holder).map(|host| host.mac).ok();
    let moves = match scenario.expected() {
        Expected::HandOver | Expected::TakeOver => true,
        Expected::Stay | Expected::Either => false,
    };
    let mut trial = Trial {
        seed,
        owner_before: Some(victim.to_string()),
        connections: observation.kept.map(|kept| TcpConnections {
            established: kept.established,
            resets: kept.resets,
            stalls: kept.stalls,
            longest_ms: millis(kept.longest),
        }),
        used: used.iter().map(|(node, used)| (node.to_string(), *used)).collect(),
        ..Trial::default()
    };
    for (ip, record) in records {
        let served = record.first_answer_after(*injected);
        if scenario == Scenario::UplinkDown {
            let told = claims.get(ip);
            let late = told.zip(served).map(|(told, served)| millis(served.saturating_duration_since(*told)));
            trial.served_ms.put(*ip, late);
        } else {
            trial.outage_ms.put(*ip, record.outage(*injected, *end).recovered().map(millis));
            trial.lost_probes.put(*ip, record.lost(*injected, *end) as u64);
        }
        if moves {
            let same_family = || claims.iter().filter(|(other, _)| other.v4().is_some() == ip.v4().is_some());
            let last = same_family().map(|(_, at)| *at).max();
            let first = same_family().map(|(_, at)| *at).min();
            let detect = claims.get(ip).map(|at| millis(at.saturating_duration_since(*injected)));
            let announce = first.zip(last).map(|(first, last)| millis(last.saturating_duration_since(first)));
            trial.detect_ms.put(*ip, detect);
            trial.announce_ms.put(*ip, announce);
        }
        if let Some(from) = from {
            trial.moves.put(*ip, seen.moves(ip.addr(), from, *injected..=*end).len() as u64);
        }
        let after = fleet.answered_by(seen, ip.addr(), *end).map(|node| node.to_string());
        trial.owner_after = trial.owner_after.or(after);
        let late = record.disturbances.iter().map(|disturbance| millis(disturbance.late)).fold(0.0, f64::max);
        trial.worst_lateness_ms = trial.worst_lateness_ms.max(late);
    }
    measure_fresh(observation, scenario, &mut trial);
    trial
}

/// What the client without a cache measured.
fn measure_fresh(observation: &Observation, scenario: Scenario, trial: &mut Trial) {
    let Observation { injected, fresh_from, end, asked, .. } = observation;
    for (ip, asked) in asked {
        let waits = asked.waits(*fresh_from..=*end);
        trial.fresh_waits_ms.put(*ip, waits.iter().map(|wait| wait.map(millis)).collect());
        trial.fresh_ms.put(*ip, longest(waits).map(millis));
        trial.two_macs_ms.put(*ip, Some(millis(asked.two_macs(*injected..=*end))));
        match scenario.expected() {
            Expected::Either => trial.disputed_ms.put(*ip, asked.disputed_for(*injected..=*end).map(millis)),
            Expected::Stay | Expected::HandOver | Expected::TakeOver => {}
        }
    }
}

/// Every address that another station claimed after the fault, with the first time.
fn claims(fleet: &Fleet<'_>, observation: &Observation, scenario: Scenario) -> BTreeMap<ServiceIp, Instant> {
    let Observation { injected, end, seen, holder, .. } = observation;
    let Ok(owner) = fleet.lab.host(holder) else { return BTreeMap::new() };
    let claims = fleet.ips().iter().filter_map(|ip| Some((*ip, seen.first_claim(ip.addr(), owner.mac, *injected)?.0)));
    // An answer to a question is no sign of a move, but where the client missed all signs.
    let moved = |ip: &ServiceIp| scenario == Scenario::UplinkDown || seen.announced(ip.addr(), *injected..=*end) > 0;
    claims.filter(|(ip, _)| moved(ip)).collect()
}

fn millis(duration: Duration) -> f64 {
    // Tenths of a millisecond: what the probes can tell apart.
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
