//! Metrics of the controller: MetalLB's names for what it counts too, and our own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use garpike_controller_api::IPAddressPoolStatus;
use garpike_controller_api::config::PoolName;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::dead_node::{Guard, Marked};

const PUBLISH: &str = "garpike_controller_publish_seconds";
const QUEUE_DEPTH: &str = "garpike_controller_queue_depth";
const LEADER: &str = "garpike_controller_leader";
const WRITES: &str = "garpike_controller_writes_total";
const OBSERVED_SPEAKERS: &str = "garpike_controller_observed_speakers";
const VERDICTS: &str = "garpike_controller_dead_node_verdicts_total";
const HINTS: &str = "garpike_controller_dead_node_hints_total";
const HINTS_REFUSED: &str = "garpike_controller_dead_node_hints_refused_total";
const HINTS_FALSE: &str = "garpike_controller_dead_node_hints_false_total";
const HINT: &str = "garpike_controller_dead_node_hint_seconds";
const SAVED: &str = "garpike_controller_dead_node_would_have_saved_seconds";
const PODS_MARKED: &str = "garpike_controller_dead_node_pods_total";
const EVENTS_DROPPED: &str = "garpike_controller_events_dropped_total";
const WEBHOOK_REQUESTS: &str = "garpike_controller_webhook_requests_total";
const WEBHOOK: &str = "garpike_controller_webhook_seconds";
const UPDATES: &str = "metallb_k8s_client_updates_total";
const UPDATE_ERRORS: &str = "metallb_k8s_client_update_errors_total";
const CONFIG_LOADED: &str = "metallb_k8s_client_config_loaded_bool";
const CONFIG_STALE: &str = "metallb_k8s_client_config_stale_bool";

/// The bounds of the histograms.
pub(crate) fn histograms() -> [(&'static str, &'static [f64]); 4] {
    [(PUBLISH, &PUBLISH_BOUNDS), (HINT, &HINT_BOUNDS), (SAVED, &SAVED_BOUNDS), (WEBHOOK, &WEBHOOK_BOUNDS)]
}

/// Registers help texts and units, and shows what counts from zero.
pub(crate) fn describe() {
    describe_histogram!(PUBLISH, Unit::Seconds, "Time from when a Service was seen until its address was written");
    describe_gauge!(QUEUE_DEPTH, Unit::Count, "Services whose status is to be written");
    describe_gauge!(LEADER, Unit::Count, "1 while this controller may write");
    describe_counter!(WRITES, Unit::Count, "Writes of statuses of Services, by what came of them");
    describe_gauge!(OBSERVED_SPEAKERS, Unit::Count, "Speakers that tell this controller which hosts are dead");
    describe_counter!(VERDICTS, Unit::Count, "Nodes that some observed speaker takes for dead");
    describe_counter!(HINTS, Unit::Count, "Dead nodes whose pods were marked not ready, or would have been, by mode");
    describe_counter!(
        HINTS_REFUSED,
        Unit::Count,
        "Nodes taken for dead whose pods were left alone, by what forbade it"
    );
    describe_counter!(HINTS_FALSE, Unit::Count, "Such nodes that had lived all the time, by mode");
    describe_histogram!(
        HINT,
        Unit::Seconds,
        "Time from the last heartbeat of a dead node until the last of its pods was marked"
    );
    describe_histogram!(SAVED, Unit::Seconds, "How much sooner pods would have been marked than Kubernetes noticed");
    describe_counter!(PODS_MARKED, Unit::Count, "Marks of pods on dead nodes, by what came of them");
    describe_counter!(EVENTS_DROPPED, Unit::Count, "Events that were not told because too many waited");
    describe_counter!(WEBHOOK_REQUESTS, Unit::Count, "Requests to the webhook, by kind and verdict");
    describe_histogram!(WEBHOOK, Unit::Seconds, "Time in which a request to the webhook was answered");
    describe_counter!(UPDATES, Unit::Count, "Changes of objects that were handled");
    describe_counter!(UPDATE_ERRORS, Unit::Count, "Writes that failed, and kinds that could not be read");
    describe_gauge!(CONFIG_LOADED, Unit::Count, "1 since the pools were read");
    describe_gauge!(CONFIG_STALE, Unit::Count, "1 while some pool or advertisement is wrong");
    // Of a series that appears with its first event, Prometheus' `rate` and `increase` miss that event.
    for name in [UPDATES, UPDATE_ERRORS, VERDICTS, EVENTS_DROPPED] {
        counter!(name).absolute(0);
    }
    for (name, label, values) in [
        (WRITES, "outcome", &["written", "conflict", "gone", "refused", "unknown"][..]),
        (HINTS, "mode", &["on", "dry_run"]),
        (HINTS_FALSE, "mode", &["on", "dry_run"]),
        (HINTS_REFUSED, "guard", &Guard::ALL.map(Guard::as_str)),
        (PODS_MARKED, "outcome", &["marked", "gone", "forbidden", "failed"]),
    ] {
        for value in values {
            counter!(name, label => *value).absolute(0);
        }
    }
    for (name, _) in histograms() {
        let _ = histogram!(name);
    }
    for name in [LEADER, QUEUE_DEPTH, CONFIG_LOADED, CONFIG_STALE] {
        gauge!(name).set(0.0);
    }
}

/// A Service has its address.
pub(crate) fn published(after: Duration) {
    histogram!(PUBLISH).record(after);
}

/// So many statuses are to be written.
pub(crate) fn queue_depth(writes: usize) {
    gauge!(QUEUE_DEPTH).set(count(writes));
}

/// This controller may write.
pub(crate) fn leading() {
    gauge!(LEADER).set(1.0);
}

/// This controller may not write.
pub(crate) fn standing_by() {
    gauge!(LEADER).set(0.0);
}

/// A write has ended: `written`, `conflict`, `gone`, `refused` or `unknown`.
pub(crate) fn write_ended(outcome: &'static str) {
    counter!(WRITES, "outcome" => outcome).increment(1);
}

/// So many speakers are observed.
pub(crate) fn observed_speakers(speakers: usize) {
    gauge!(OBSERVED_SPEAKERS).set(count(speakers));
}

/// A node is taken for dead.
pub(crate) fn dead_node_verdict() {
    counter!(VERDICTS).increment(1);
}

/// The pods of a node are marked, or would be: `on` or `dry_run`.
pub(crate) fn hinted(mode: &'static str) {
    counter!(HINTS, "mode" => mode).increment(1);
}

/// They are not, for this reason.
pub(crate) fn hint_refused(guard: Guard) {
    counter!(HINTS_REFUSED, "guard" => guard.as_str()).increment(1);
}

/// The node had lived.
pub(crate) fn false_hint(mode: &'static str) {
    counter!(HINTS_FALSE, "mode" => mode).increment(1);
}

/// A mark was answered.
pub(crate) fn pod_marked(marked: Marked) {
    let outcome = match marked {
        Marked::Done => "marked",
        Marked::Gone => "gone",
        Marked::Forbidden => "forbidden",
        Marked::Failed => "failed",
    };
    counter!(PODS_MARKED, "outcome" => outcome).increment(1);
}

/// The last pod of a node was marked so long after its last heartbeat.
pub(crate) fn pods_marked(after: Duration) {
    histogram!(HINT).record(after);
}

/// Kubernetes has noticed so long after this controller.
pub(crate) fn would_have_saved(sooner: Duration) {
    histogram!(SAVED).record(sooner);
}

/// An event was not told.
pub(crate) fn event_dropped() {
    counter!(EVENTS_DROPPED).increment(1);
}

/// A request to the webhook was answered: `allowed`, `warned`, `denied` or `failed`.
pub(crate) fn webhook_answered(kind: &'static str, verdict: &'static str, after: Duration) {
    counter!(WEBHOOK_REQUESTS, "kind" => kind, "verdict" => verdict).increment(1);
    histogram!(WEBHOOK).record(after);
}

/// Something changed.
pub(crate) fn updated() {
    counter!(UPDATES).increment(1);
}

/// Something failed.
pub(crate) fn update_failed() {
    counter!(UPDATE_ERRORS).increment(1);
}

/// The pools were read; so many of the objects are wrong.
pub(crate) fn configured(errors: usize) {
    gauge!(CONFIG_LOADED).set(1.0);
    gauge!(CONFIG_STALE).set(if errors == 0 { 0.0 } else { 1.0 });
}

/// MetalLB's gauges of the pools, in Prometheus' text format. They are written here because a pool that is removed takes
/// its series with it.
pub(crate) fn pools(counts: &BTreeMap<PoolName, IPAddressPoolStatus>) -> String {
    let mut text = String::new();
    for PoolGauge { name, help, value } in POOL_GAUGES {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (pool, status) in counts {
            // Names of Kubernetes objects need no escapes.
            let _ = writeln!(text, "{name}{{pool=\"{pool}\"}} {}", value(status));
        }
    }
    text
}

/// One of MetalLB's gauges of a pool.
struct PoolGauge {
    name: &'static str,
    help: &'static str,
    value: fn(&IPAddressPoolStatus) -> i64,
}

const POOL_GAUGES: [PoolGauge; 6] = [
    PoolGauge {
        name: "metallb_allocator_addresses_total",
        help: "Addresses of the pool that Services can have",
        value: |status| total_v4(status).saturating_add(total_v6(status)),
    },
    PoolGauge {
        name: "metallb_allocator_ipv4_addresses_total",
        help: "IPv4 addresses of the pool that Services can have",
        value: total_v4,
    },
    PoolGauge {
        name: "metallb_allocator_ipv6_addresses_total",
        help: "IPv6 addresses of the pool that Services can have",
        value: total_v6,
    },
    PoolGauge {
        name: "metallb_allocator_addresses_in_use_total",
        help: "Addresses of the pool that Services have",
        value: |status| status.assigned_ipv4.saturating_add(status.assigned_ipv6),
    },
    PoolGauge {
        name: "metallb_allocator_ipv4_addresses_in_use_total",
        help: "IPv4 addresses of the pool that Services have",
        value: |status| status.assigned_ipv4,
    },
    PoolGauge {
        name: "metallb_allocator_ipv6_addresses_in_use_total",
        help: "IPv6 addresses of the pool that Services have",
        value: |status| status.assigned_ipv6,
    },
];

fn total_v4(status: &IPAddressPoolStatus) -> i64 {
    status.assigned_ipv4.saturating_add(status.available_ipv4)
}

fn total_v6(status: &IPAddressPoolStatus) -> i64 {
    status.assigned_ipv6.saturating_add(status.available_ipv6)
}

#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
fn count(n: usize) -> f64 {
    n as f64
}

/// Chosen: one write takes 3 to 20 ms, 4000 of them some seconds.
const PUBLISH_BOUNDS: [f64; 12] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// Chosen: one request takes 3 to 20 ms, a hundred of them some hundred.
const HINT_BOUNDS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 2.0, 5.0, 20.0];
/// Chosen around the 50 s that Kubernetes waits by default.
const SAVED_BOUNDS: [f64; 8] = [1.0, 5.0, 10.0, 20.0, 40.0, 50.0, 60.0, 300.0];
/// Chosen: the lists of a small cluster take a few milliseconds, and the API server waits 5 s at most.
const WEBHOOK_BOUNDS: [f64; 9] = [0.002, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 5.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_shown_by_family_and_in_sum() {
        let status =
            IPAddressPoolStatus { assigned_ipv4: 2, assigned_ipv6: 1, available_ipv4: 3, available_ipv6: i64::MAX };

        let text = pools(&BTreeMap::from([(PoolName("first".to_owned()), status)]));

        for line in [
            "metallb_allocator_ipv4_addresses_total{pool=\"first\"} 5",
            "metallb_allocator_addresses_in_use_total{pool=\"first\"} 3",
            "metallb_allocator_addresses_total{pool=\"first\"} 9223372036854775807",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in {text}");
        }
    }
}
