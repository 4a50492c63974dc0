//! The metrics of this crate.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use crate::Rejected;
use crate::datagram::Kind;

const MEMBERS: &str = "garpike_membership_members";
const SENT: &str = "garpike_membership_datagrams_sent_total";
const RECEIVED: &str = "garpike_membership_datagrams_received_total";
const REJECTED: &str = "garpike_membership_datagrams_rejected_total";
const UNSENT: &str = "garpike_membership_datagrams_unsent_total";
const SOCKET_ERRORS: &str = "garpike_membership_socket_errors_total";
const SUSPICIONS: &str = "garpike_membership_suspicions_total";
const DEATHS: &str = "garpike_membership_deaths_total";
const HEALS: &str = "garpike_membership_heals_total";
const DECLARED_DEAD: &str = "garpike_membership_declared_dead_total";
const NAME_CONFLICTS: &str = "garpike_membership_name_conflicts_total";
const FOCA_ERRORS: &str = "garpike_membership_foca_errors_total";
const EVENTS_LOST: &str = "garpike_membership_events_lost_total";
const STALLS: &str = "garpike_membership_stalls_total";

/// Tells the recorder what each metric means.
pub fn describe() {
    describe_gauge!(MEMBERS, Unit::Count, "Living members as this node sees them, itself included");
    describe_counter!(SENT, Unit::Count, "Datagrams handed to the socket, by kind");
    describe_counter!(RECEIVED, Unit::Count, "Datagrams that were authentic and fresh, by kind");
    describe_counter!(REJECTED, Unit::Count, "Datagrams that changed nothing, by reason");
    describe_counter!(UNSENT, Unit::Count, "Datagrams dropped because they could not be sent");
    describe_counter!(SOCKET_ERRORS, Unit::Count, "Errors of the gossip socket other than would-block");
    describe_counter!(SUSPICIONS, Unit::Count, "Suspicions raised by this node, by outcome");
    describe_counter!(DEATHS, Unit::Count, "Members that this node has come to know as dead or gone");
    describe_counter!(HEALS, Unit::Count, "Members that lived although they had been declared dead here");
    describe_counter!(DECLARED_DEAD, Unit::Count, "How often this node was declared dead by others while it lived");
    describe_counter!(NAME_CONFLICTS, Unit::Count, "How often another node was found to live under this node's name");
    describe_counter!(FOCA_ERRORS, Unit::Count, "Errors of foca");
    describe_counter!(EVENTS_LOST, Unit::Count, "Events that nobody took in time");
    describe_counter!(STALLS, Unit::Count, "How often this process was held up for more than 300 ms");
}

/// How a suspicion ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    Refuted,
    HeldBack,
    Down,
}

pub(crate) fn members(count: usize) {
    gauge!(MEMBERS).set(u32::try_from(count).map_or(f64::INFINITY, f64::from));
}

pub(crate) fn sent(kind: Kind) {
    counter!(SENT, "kind" => kind.as_str()).increment(1);
}

pub(crate) fn received(kind: Kind) {
    counter!(RECEIVED, "kind" => kind.as_str()).increment(1);
}

pub(crate) fn rejected(rejected: Rejected) {
    counter!(REJECTED, "reason" => rejected.reason()).increment(1);
}

pub(crate) fn unsent() {
    counter!(UNSENT).increment(1);
}

#[cfg(feature = "io")]
pub(crate) fn socket_error() {
    counter!(SOCKET_ERRORS).increment(1);
}

pub(crate) fn suspicion(outcome: Outcome) {
    let outcome = match outcome {
        Outcome::Refuted => "refuted",
        Outcome::HeldBack => "held_back",
        Outcome::Down => "down",
    };
    counter!(SUSPICIONS, "outcome" => outcome).increment(1);
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

pub(crate) fn event_lost() {
    counter!(EVENTS_LOST).increment(1);
}

#[cfg(feature = "io")]
pub(crate) fn stall() {
    counter!(STALLS).increment(1);
}
