//! Metrics of the election and of the process.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::failovers::{Cause, Phase};

const UNOWNED: &str = "garpike_speaker_unowned_addresses";
const DESIRED: &str = "garpike_speaker_desired_addresses";
const STOOD_IN: &str = "garpike_speaker_stood_in_addresses";
const RELAY_DROPPED: &str = "garpike_speaker_relay_dropped_total";
const CHANGES: &str = "garpike_speaker_owner_changes_total";
const FAILOVER_SECONDS: &str = "garpike_speaker_failover_seconds";
const ADDRESS_SECONDS: &str = "garpike_speaker_address_seconds_total";
const FINDINGS: &str = "garpike_speaker_findings";
const TOLD: &str = "garpike_speaker_api_updates_total";
const JUDGED: &str = "garpike_speaker_api_judgements_total";
const REPORTS: &str = "garpike_speaker_reports_total";
const PROBLEMS: &str = "garpike_speaker_manifest_problems";

/// Registers help texts and units, those of the other crates included.
pub(crate) fn describe() {
    garpike_announcer::describe_metrics();
    garpike_membership::describe_metrics();
    describe_gauge!(DESIRED, Unit::Count, "Service IPs that some Service holds");
    describe_gauge!(UNOWNED, Unit::Count, "Service IPs that no living node may own");
    describe_gauge!(STOOD_IN, Unit::Count, "Service IPs whose owner's speaker is away, by who stands in");
    describe_counter!(RELAY_DROPPED, Unit::Count, "Messages lost between membership and announcer, by direction");
    describe_counter!(CHANGES, Unit::Count, "Changes of owner that this node computed, by what they mean for it");
    describe_histogram!(
        FAILOVER_SECONDS,
        Unit::Seconds,
        "Time until an address that came to this node was announced, by phase and cause"
    );
    describe_counter!(
        ADDRESS_SECONDS,
        Unit::Seconds,
        "Seconds that addresses were answered and were not, each address counted at one node, by state"
    );
    describe_gauge!(FINDINGS, Unit::Count, "What is wrong with this host and its network, by the check that failed");
    describe_gauge!(PROBLEMS, Unit::Count, "Problems of the manifests or of the objects of the cluster, by severity");
    describe_counter!(TOLD, Unit::Count, "Updates of objects that the Kubernetes API told");
    describe_counter!(REPORTS, Unit::Count, "Writes of ServiceL2Status objects that were tried and that failed");
    describe_counter!(JUDGED, Unit::Count, "How often the objects of the cluster were judged anew");
    begin_at_zero();
}

/// Of a series that appears with its first event, Prometheus' `rate` and `increase` miss that event: of most failovers
/// the only one in the life of the process.
fn begin_at_zero() {
    for (name, label, values) in [
        (RELAY_DROPPED, "direction", &["in", "out", "ask"][..]),
        (CHANGES, "meaning", &["gained", "lost", "elsewhere"]),
        (ADDRESS_SECONDS, "state", &["answered", "unanswered"]),
        (REPORTS, "result", &["tried", "failed"]),
    ] {
        for value in values {
            counter!(name, label => *value).absolute(0);
        }
    }
    let of_crashes = Phase::ALL.map(|phase| (phase, Cause::Crash));
    let of_others = Cause::ALL.map(|cause| (Phase::Total, cause));
    for (phase, cause) in of_crashes.into_iter().chain(of_others) {
        let _ = histogram!(FAILOVER_SECONDS, "phase" => phase.as_str(), "cause" => cause.as_str());
    }
}

/// The histograms, with the upper bounds of their buckets.
pub(crate) fn histograms() -> [(&'static str, &'static [f64]); 1] {
    [(FAILOVER_SECONDS, &FAILOVER_BUCKETS)]
}

/// Notes how long a part of a failover took.
pub(crate) fn failover(phase: Phase, cause: Cause, took: Duration) {
    histogram!(FAILOVER_SECONDS, "phase" => phase.as_str(), "cause" => cause.as_str()).record(took);
}

/// Counts seconds of addresses.
pub(crate) fn address_seconds(answered: u64, unanswered: u64) {
    for (state, seconds) in [("answered", answered), ("unanswered", unanswered)] {
        counter!(ADDRESS_SECONDS, "state" => state).increment(seconds);
    }
}

/// Sets how much a check has found.
pub(crate) fn findings(check: &'static str, found: usize) {
    gauge!(FINDINGS, "check" => check).set(count(found));
}

/// Sets the sizes of an assignment; what this node answers for is counted by the announcer.
pub(crate) fn addresses(desired: usize, unowned: usize) {
    gauge!(DESIRED).set(count(desired));
    gauge!(UNOWNED).set(count(unowned));
}

/// Sets how many addresses of owners that are away this node, another one or nobody answers.
pub(crate) fn stood_in(here: usize, elsewhere: usize, nobody: usize) {
    for (by, addresses) in [("here", here), ("elsewhere", elsewhere), ("nobody", nobody)] {
        gauge!(STOOD_IN, "by" => by).set(count(addresses));
    }
}

/// Counts a message that was lost: `in`, `out` or `ask`.
pub(crate) fn relay_dropped(direction: &'static str) {
    counter!(RELAY_DROPPED, "direction" => direction).increment(1);
}

/// Counts a change: `gained`, `lost` or `elsewhere`.
pub(crate) fn owner_changed(meaning: &'static str) {
    counter!(CHANGES, "meaning" => meaning).increment(1);
}

/// Sets how many problems of a severity the manifests have.
pub(crate) fn manifest_problems(severity: &'static str, problems: usize) {
    gauge!(PROBLEMS, "severity" => severity).set(count(problems));
}

/// Counts an update that the Kubernetes API told.
pub(crate) fn object_told() {
    counter!(TOLD).increment(1);
}

/// Counts that the objects of the cluster were judged.
pub(crate) fn objects_judged() {
    counter!(JUDGED).increment(1);
}

/// Counts a write of a ServiceL2Status object.
pub(crate) fn report_written() {
    counter!(REPORTS, "result" => "tried").increment(1);
}

/// Counts such a write that failed.
pub(crate) fn report_failed() {
    counter!(REPORTS, "result" => "failed").increment(1);
}

#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
fn count(n: usize) -> f64 {
    n as f64
}

/// Chosen: fine around the targets, which are 200 ms for a dead host and 100 ms for the first frame of a new address, so that a
/// quantile that is read from them is a few milliseconds off.
const FAILOVER_BUCKETS: [f64; 15] =
    [0.001, 0.01, 0.05, 0.1, 0.15, 0.16, 0.17, 0.18, 0.19, 0.2, 0.22, 0.25, 0.3, 1.0, 5.0];
