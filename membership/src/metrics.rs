//! The metrics of this crate.

use std::collections::BTreeSet;

use garpike_election::Handicap;
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use crate::datagram::Kind;
#[cfg(feature = "io")]
use crate::stream::{Purpose, StreamFault};
use crate::watch::votes::Charge;
use crate::{Keyring, Rejected, Sealing, Standing};

const MEMBERS: &str = "garpike_membership_members";
const SENT: &str = "garpike_membership_datagrams_sent_total";
const RECEIVED: &str = "garpike_membership_datagrams_received_total";
const REJECTED: &str = "garpike_membership_datagrams_rejected_total";
const UNSENT: &str = "garpike_membership_datagrams_unsent_total";
const SOCKET_ERRORS: &str = "garpike_membership_socket_errors_total";
const SUSPICIONS: &str = "garpike_membership_suspicions_total";
const VERDICTS: &str = "garpike_membership_verdicts_total";
const WIRE_VETOES: &str = "garpike_membership_wire_vetoes_total";
const UDP_BLOCKED: &str = "garpike_membership_udp_blocked_members";
const REFUSED: &str = "garpike_membership_members_refused_total";
const DEATHS: &str = "garpike_membership_deaths_total";
const HEALS: &str = "garpike_membership_heals_total";
const DECLARED_DEAD: &str = "garpike_membership_declared_dead_total";
const NAME_CONFLICTS: &str = "garpike_membership_name_conflicts_total";
const FOCA_ERRORS: &str = "garpike_membership_foca_errors_total";
const EVENTS_LOST: &str = "garpike_membership_events_lost_total";
const KEYS: &str = "garpike_membership_keys";
const KEY_PROBLEMS: &str = "garpike_membership_key_problems";
const PLAINTEXT: &str = "garpike_membership_datagrams_plaintext_total";
const HANDICAPS: &str = "garpike_membership_handicaps";
const STALLS: &str = "garpike_membership_stalls_total";
const STREAMS: &str = "garpike_membership_streams_served_total";
const STREAMS_REJECTED: &str = "garpike_membership_streams_rejected_total";
const OBSERVERS: &str = "garpike_membership_observers";
const EXCHANGES: &str = "garpike_membership_exchanges_total";
const HOST_PROBES: &str = "garpike_membership_host_probes_total";
const OBSERVATIONS_FAILED: &str = "garpike_membership_observations_failed_total";

/// Tells the recorder what each metric means.
pub fn describe() {
    describe_gauge!(MEMBERS, Unit::Count, "Living members as this node sees them, itself included");
    describe_counter!(SENT, Unit::Count, "Datagrams handed to the socket, by kind");
    describe_counter!(RECEIVED, Unit::Count, "Datagrams that were authentic and fresh, by kind");
    describe_counter!(REJECTED, Unit::Count, "Datagrams that changed nothing, by reason");
    describe_counter!(UNSENT, Unit::Count, "Datagrams dropped because they could not be sent");
    describe_counter!(SOCKET_ERRORS, Unit::Count, "Errors of the gossip socket other than would-block");
    describe_counter!(SUSPICIONS, Unit::Count, "Suspicions raised by this node, by outcome");
    describe_counter!(VERDICTS, Unit::Count, "Verdicts about members, by what they say and how they came here");
    describe_counter!(WIRE_VETOES, Unit::Count, "Answers on the wire by members that are silent on UDP 7946");
    describe_gauge!(UDP_BLOCKED, Unit::Count, "Nodes that answer on the wire or by TCP, but not on UDP 7946");
    describe_counter!(REFUSED, Unit::Count, "Members that were not counted because there are too many");
    describe_counter!(DEATHS, Unit::Count, "Members that this node has come to know as dead or gone");
    describe_counter!(HEALS, Unit::Count, "Members that lived although they had been declared dead here");
    describe_counter!(DECLARED_DEAD, Unit::Count, "How often this node was declared dead by others while it lived");
    describe_counter!(NAME_CONFLICTS, Unit::Count, "How often another node was found to live under this node's name");
    describe_counter!(FOCA_ERRORS, Unit::Count, "Errors of foca");
    describe_counter!(EVENTS_LOST, Unit::Count, "Events that nobody took in time");
    describe_gauge!(KEYS, Unit::Count, "Keys that this node holds, by standing");
    describe_gauge!(KEY_PROBLEMS, Unit::Count, "What is wrong with the files of the keys");
    describe_counter!(PLAINTEXT, Unit::Count, "Datagrams in the clear, by direction");
    describe_gauge!(HANDICAPS, Unit::Count, "1 where this node ranks behind others: late, no_gateway or no_data_plane");
    describe_counter!(STALLS, Unit::Count, "How often this process was held up for more than 300 ms");
    describe_counter!(STREAMS, Unit::Count, "TCP connections to the gossip port that were served, by purpose");
    describe_counter!(
        STREAMS_REJECTED,
        Unit::Count,
        "TCP connections to the gossip port that changed nothing, by reason"
    );
    describe_gauge!(OBSERVERS, Unit::Count, "Observers that are told of every change");
    describe_counter!(EXCHANGES, Unit::Count, "Exchanges of states that this node began, by outcome");
    describe_counter!(HOST_PROBES, Unit::Count, "Hosts of silent speakers asked for a sign of life, by outcome");
    describe_counter!(OBSERVATIONS_FAILED, Unit::Count, "Speakers that this observer could not follow, by reason");
    begin_at_zero();
}

/// Of a series that appears with its first event, Prometheus' `rate` and `increase` miss that event.
fn begin_at_zero() {
    for name in [
        UNSENT,
        SOCKET_ERRORS,
        WIRE_VETOES,
        REFUSED,
        DEATHS,
        HEALS,
        DECLARED_DEAD,
        NAME_CONFLICTS,
        FOCA_ERRORS,
        EVENTS_LOST,
        STALLS,
    ] {
        counter!(name).absolute(0);
    }
    for (name, label, values) in [
        (SUSPICIONS, "outcome", &["refuted", "stands"][..]),
        (PLAINTEXT, "direction", &["sent", "received"]),
        (EXCHANGES, "outcome", &["done", "equal", "failed", "busy"]),
        (HOST_PROBES, "outcome", &["accepted", "refused", "unanswered", "unsent"]),
    ] {
        for value in values {
            counter!(name, label => *value).absolute(0);
        }
    }
    for charge in [Charge::SpeakerGone, Charge::HostDead] {
        for by in ["vote", "notice"] {
            counter!(VERDICTS, "verdict" => charge.as_str(), "by" => by).absolute(0);
        }
    }
    for reason in [
        Rejected::UnknownVersion,
        Rejected::Memberlist,
        Rejected::Plaintext,
        Rejected::Sealed,
        Rejected::WrongKey,
        Rejected::Tampered,
        Rejected::OwnName,
        Rejected::Replayed,
    ] {
        rejected(reason, 0);
    }
    gauge!(OBSERVERS).set(0.0);
}

/// What became of an exchange of states.
#[cfg(feature = "io")]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Exchange {
    /// Each has what the other knew.
    Done,
    /// Both knew the same.
    Equal,
    /// The other end was not reached, or did not understand.
    Failed,
    /// There was no room for one more, or one with the same node was not over.
    Busy,
}

/// What a host answered.
#[cfg(feature = "io")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HostProbe {
    /// It took the connection.
    Accepted,
    /// It refused it with a reset.
    Refused,
    /// Nothing, or the network answered in its place.
    Unanswered,
    /// It was not asked: no route, no socket, or too many probes at a time.
    Unsent,
}

/// How a suspicion of foca ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Suspicion {
    Refuted,
    Stands,
}

/// How a verdict came here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum By {
    Vote,
    Notice,
}

pub(crate) fn members(count: usize) {
    gauge!(MEMBERS).set(u32::try_from(count).map_or(f64::INFINITY, f64::from));
}

pub(crate) fn sent(kind: Kind, count: u64) {
    counter!(SENT, "kind" => kind.as_str()).absolute(count);
}

pub(crate) fn received(kind: Kind, count: u64) {
    counter!(RECEIVED, "kind" => kind.as_str()).absolute(count);
}

pub(crate) fn rejected(rejected: Rejected, count: u64) {
    counter!(REJECTED, "reason" => rejected.reason()).absolute(count);
}

pub(crate) fn unsent() {
    counter!(UNSENT).increment(1);
}

#[cfg(feature = "io")]
pub(crate) fn socket_error() {
    counter!(SOCKET_ERRORS).increment(1);
}

pub(crate) fn suspicion(outcome: Suspicion) {
    let outcome = match outcome {
        Suspicion::Refuted => "refuted",
        Suspicion::Stands => "stands",
    };
    counter!(SUSPICIONS, "outcome" => outcome).increment(1);
}

pub(crate) fn verdict(charge: Charge, by: By) {
    let by = match by {
        By::Vote => "vote",
        By::Notice => "notice",
    };
    counter!(VERDICTS, "verdict" => charge.as_str(), "by" => by).increment(1);
}

pub(crate) fn udp_blocked(count: usize) {
    gauge!(UDP_BLOCKED).set(u32::try_from(count).map_or(f64::INFINITY, f64::from));
}

pub(crate) fn handicaps(handicaps: &BTreeSet<Handicap>) {
    for (handicap, word) in
        [(Handicap::Late, "late"), (Handicap::NoGateway, "no_gateway"), (Handicap::NoDataPlane, "no_data_plane")]
    {
        gauge!(HANDICAPS, "handicap" => word).set(if handicaps.contains(&handicap) { 1.0 } else { 0.0 });
    }
}

pub(crate) fn wire_veto() {
    counter!(WIRE_VETOES).increment(1);
}

pub(crate) fn member_refused() {
    counter!(REFUSED).increment(1);
}

pub(crate) fn death() {
    counter!(DEATHS).increment(1);
}

pub(crate) fn heal() {
    counter!(HEALS).increment(1);
}

pub(crate) fn declared_dead() {
    counter!(DECLARED_DEAD).increment(1);
}

pub(crate) fn name_conflict() {
    counter!(NAME_CONFLICTS).increment(1);
}

pub(crate) fn foca_error() {
    counter!(FOCA_ERRORS).increment(1);
}

pub(crate) fn keys(sealing: &Sealing) {
    let standings = || sealing.keyring().into_iter().flat_map(Keyring::iter).map(|(_, standing)| standing.as_str());
    for standing in Standing::WORDS {
        let count = standings().filter(|word| *word == standing).count();
        gauge!(KEYS, "standing" => standing).set(u32::try_from(count).map_or(f64::INFINITY, f64::from));
    }
}

pub(crate) fn key_problems(count: usize) {
    gauge!(KEY_PROBLEMS).set(u32::try_from(count).map_or(f64::INFINITY, f64::from));
}

/// Which way a datagram goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    Sent,
    Received,
}

pub(crate) fn plaintext(direction: Direction) {
    let direction = match direction {
        Direction::Sent => "sent",
        Direction::Received => "received",
    };
    counter!(PLAINTEXT, "direction" => direction).increment(1);
}

pub(crate) fn event_lost() {
    counter!(EVENTS_LOST).increment(1);
}

#[cfg(feature = "io")]
pub(crate) fn stall() {
    counter!(STALLS).increment(1);
}

#[cfg(feature = "io")]
pub(crate) fn stream_served(purpose: Purpose) {
    counter!(STREAMS, "purpose" => purpose.as_str()).increment(1);
}

#[cfg(feature = "io")]
pub(crate) fn stream_rejected(fault: StreamFault) {
    counter!(STREAMS_REJECTED, "reason" => fault.reason()).increment(1);
}

#[cfg(feature = "io")]
pub(crate) fn observer_came() {
    gauge!(OBSERVERS).increment(1);
}

#[cfg(feature = "io")]
pub(crate) fn observer_went() {
    gauge!(OBSERVERS).decrement(1);
}

#[cfg(feature = "io")]
pub(crate) fn exchanged(exchange: Exchange) {
    let outcome = match exchange {
        Exchange::Done => "done",
        Exchange::Equal => "equal",
        Exchange::Failed => "failed",
        Exchange::Busy => "busy",
    };
    counter!(EXCHANGES, "outcome" => outcome).increment(1);
}

#[cfg(feature = "io")]
pub(crate) fn host_probe(probe: HostProbe) {
    let outcome = match probe {
        HostProbe::Accepted => "accepted",
        HostProbe::Refused => "refused",
        HostProbe::Unanswered => "unanswered",
        HostProbe::Unsent => "unsent",
    };
    counter!(HOST_PROBES, "outcome" => outcome).increment(1);
}

#[cfg(feature = "io")]
pub(crate) fn observation_failed(fault: StreamFault) {
    counter!(OBSERVATIONS_FAILED, "reason" => fault.reason()).increment(1);
}
