//! The metrics of this crate: names, descriptions, and one typed function per event.

use std::time::Duration;

use metrics::{Counter, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const FRAMES_SENT: &str = "garpike_announcer_frames_sent_total";
const FRAMES_UNANSWERED: &str = "garpike_announcer_frames_unanswered_total";
const DATAGRAMS_HEARD: &str = "garpike_announcer_datagrams_heard_total";
const DATAGRAMS_DROPPED: &str = "garpike_announcer_datagrams_dropped_total";
const STATION_ANSWERS: &str = "garpike_announcer_station_answers_total";
const ACKNOWLEDGED: &str = "garpike_announcer_acknowledged_total";
const ACKNOWLEDGEMENT_SECONDS: &str = "garpike_announcer_acknowledgement_seconds";
const SEND_ERRORS: &str = "garpike_announcer_send_errors_total";
const SOCKET_ERRORS: &str = "garpike_announcer_socket_errors_total";
const EVENTS_DROPPED: &str = "garpike_announcer_events_dropped_total";
const CONFLICTS: &str = "garpike_announcer_conflicts_total";
const WITHHELD: &str = "garpike_announcer_withheld_total";
const HANDED_OVER: &str = "garpike_announcer_handed_over_total";
const SELF_CHECKS: &str = "garpike_announcer_self_checks_total";
const WRONG_ANSWERS: &str = "garpike_announcer_wrong_answers_total";
const OWNED_ADDRESSES: &str = "garpike_announcer_owned_addresses";
const STOOD_IN_ADDRESSES: &str = "garpike_announcer_stood_in_addresses";
const INTERFACES: &str = "garpike_announcer_interfaces";

/// The histograms, with the upper bounds of their buckets.
pub fn histograms() -> [(&'static str, &'static [f64]); 1] {
    [(ACKNOWLEDGEMENT_SECONDS, &ACKNOWLEDGEMENT_BUCKETS)]
}

/// Tells the recorder what the metrics mean.
pub fn describe() {
    describe_counter!(
        FRAMES_SENT,
        Unit::Count,
        "frames sent, by kind: reply, announcement, directed, stand_in, question, probe or datagram"
    );
    describe_counter!(FRAMES_UNANSWERED, Unit::Count, "ARP and NDP frames received and not answered, by reason");
    describe_counter!(DATAGRAMS_HEARD, Unit::Count, "datagrams of the membership that came in bare frames");
    describe_counter!(
        DATAGRAMS_DROPPED,
        Unit::Count,
        "such datagrams, received or to be sent, that were dropped, by reason"
    );
    describe_counter!(
        STATION_ANSWERS,
        Unit::Count,
        "times that a station which is no member answered when it was asked"
    );
    describe_counter!(
        ACKNOWLEDGED,
        Unit::Count,
        "gained service IPs for which a gateway or client has shown that it sends to this node"
    );
    describe_histogram!(ACKNOWLEDGEMENT_SECONDS, Unit::Seconds, "time from the gain of a service IP until then");
    describe_counter!(SEND_ERRORS, Unit::Count, "frames that the kernel refused to send, by reason");
    describe_counter!(
        SOCKET_ERRORS,
        Unit::Count,
        "failures of sockets, by operation: open, filter, receive, send, join_group or netlink"
    );
    describe_counter!(
        CONFLICTS,
        Unit::Count,
        "claims of others to addresses that this node owns, at most one per address and second, by who claims: member, \
         dead_member, gateway or stranger"
    );
    describe_counter!(
        WITHHELD,
        Unit::Count,
        "times that this node did not claim an address that it owns, by reason: in_use, foreign_speaker or outranked"
    );
    describe_counter!(
        HANDED_OVER,
        Unit::Count,
        "addresses that this node answered until their new owner claimed them, by outcome: claimed or given_up"
    );
    describe_counter!(
        SELF_CHECKS,
        Unit::Count,
        "questions for addresses of other nodes, by outcome: answered, unanswered or wrong"
    );
    describe_counter!(
        WRONG_ANSWERS,
        Unit::Count,
        "addresses for which somebody else than the owner answers, at most one per address and minute, by kind: kernel, \
         gateway or stranger"
    );
    describe_counter!(EVENTS_DROPPED, Unit::Count, "events lost because nobody took them in time");
    describe_gauge!(OWNED_ADDRESSES, Unit::Count, "service IPs that this node owns and answers for");
    describe_gauge!(
        STOOD_IN_ADDRESSES,
        Unit::Count,
        "service IPs that this node answers for while their owner is away"
    );
    describe_gauge!(INTERFACES, Unit::Count, "interfaces that can announce");
    begin_at_zero();
}

/// Of a series that appears with its first event, Prometheus' `rate` and `increase` miss that event.
fn begin_at_zero() {
    for name in [DATAGRAMS_HEARD, STATION_ANSWERS, ACKNOWLEDGED, EVENTS_DROPPED] {
        counter!(name).absolute(0);
    }
    for (name, label, values) in [
        (SOCKET_ERRORS, "operation", &["open", "filter", "receive", "send", "join_group", "netlink"][..]),
        (CONFLICTS, "by", &["member", "dead_member", "gateway", "stranger"]),
        (WITHHELD, "reason", &["in_use", "foreign_speaker", "outranked"]),
        (HANDED_OVER, "outcome", &["claimed", "given_up"]),
        (SELF_CHECKS, "outcome", &["answered", "unanswered", "wrong"]),
        (WRONG_ANSWERS, "kind", &["kernel", "gateway", "stranger"]),
    ] {
        for value in values {
            counter!(name, label => *value).absolute(0);
        }
    }
    let _ = histogram!(ACKNOWLEDGEMENT_SECONDS);
}

pub(crate) fn frames_sent(kind: &'static str) -> Counter {
    counter!(FRAMES_SENT, "kind" => kind)
}

pub(crate) fn frames_unanswered(reason: &'static str) -> Counter {
    counter!(FRAMES_UNANSWERED, "reason" => reason)
}

pub(crate) fn datagram_heard() {
    counter!(DATAGRAMS_HEARD).increment(1);
}

pub(crate) fn datagram_dropped(reason: &'static str) {
    counter!(DATAGRAMS_DROPPED, "reason" => reason).increment(1);
}

pub(crate) fn station_answered() {
    counter!(STATION_ANSWERS).increment(1);
}

pub(crate) fn acknowledged(after: Duration) {
    counter!(ACKNOWLEDGED).increment(1);
    histogram!(ACKNOWLEDGEMENT_SECONDS).record(after);
}

pub(crate) fn conflict(by: &'static str) {
    counter!(CONFLICTS, "by" => by).increment(1);
}

pub(crate) fn withheld(reason: &'static str) {
    counter!(WITHHELD, "reason" => reason).increment(1);
}

pub(crate) fn handed_over(claimed: usize, given_up: usize) {
    for (outcome, addresses) in [("claimed", claimed), ("given_up", given_up)] {
        counter!(HANDED_OVER, "outcome" => outcome).increment(u64::try_from(addresses).unwrap_or(u64::MAX));
    }
}

pub(crate) fn self_check(outcome: &'static str) {
    counter!(SELF_CHECKS, "outcome" => outcome).increment(1);
}

pub(crate) fn wrong_answer(kind: &'static str) {
    counter!(WRONG_ANSWERS, "kind" => kind).increment(1);
}

pub(crate) fn send_error(reason: &'static str) {
    counter!(SEND_ERRORS, "reason" => reason).increment(1);
}

pub(crate) fn socket_error(operation: &'static str) {
    counter!(SOCKET_ERRORS, "operation" => operation).increment(1);
}

pub(crate) fn event_dropped() {
    counter!(EVENTS_DROPPED).increment(1);
}

#[expect(clippy::cast_precision_loss, reason = "counts of addresses are far below 2^52")]
pub(crate) fn sizes(owned: usize, stood_in: usize, interfaces: usize) {
    gauge!(OWNED_ADDRESSES).set(owned as f64);
    gauge!(STOOD_IN_ADDRESSES).set(stood_in as f64);
    gauge!(INTERFACES).set(interfaces as f64);
}

/// Chosen: from an answer by return to one by the last directed request.
const ACKNOWLEDGEMENT_BUCKETS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 600.0];
