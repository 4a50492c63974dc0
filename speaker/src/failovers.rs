//! How long it takes until an address is answered by its new owner, this node: by phase and cause, for the histograms.
//!
//! ```text
//! last heard ──────► verdict ────► elected ──────► first frame
//!           detection       decision      announcement
//! ```
//!
//! Only a host that died has all of them; of other changes the time from the fact to the first frame counts. It measures and
//! decides nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use garpike_election::{Change, Members, NodeName, NodeState, ServiceIp};

/// Why an address has got another owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// The host of the owner died.
    Crash,
    /// The speaker of the owner did not come back within the grace.
    GraceOver,
    /// The owner is being emptied.
    Drain,
    /// The owner's interfaces have changed.
    Link,
    /// The owner says that it is a worse one than others.
    Handicap,
    /// This node has returned, or has become a better owner.
    Return,
    /// People want it: a move, a label, an endpoint, an advertisement.
    Wanted,
    /// A Service has got the address.
    New,
    /// Anything else.
    Other,
}

impl Cause {
    pub(crate) const ALL: [Self; 9] = [
        Self::Crash,
        Self::GraceOver,
        Self::Drain,
        Self::Link,
        Self::Handicap,
        Self::Return,
        Self::Wanted,
        Self::New,
        Self::Other,
    ];

    /// The label of the metric.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::GraceOver => "grace_over",
            Self::Drain => "drain",
            Self::Link => "link",
            Self::Handicap => "handicap",
            Self::Return => "return",
            Self::Wanted => "wanted",
            Self::New => "new",
            Self::Other => "other",
        }
    }
}

/// A part of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// From the last sign of the owner to the verdict, as far as one of its watchers has told.
    Detection,
    /// From the verdict to the election.
    Decision,
    /// From the election to the first frame.
    Announcement,
    /// All of it.
    Total,
}

impl Phase {
    pub(crate) const ALL: [Self; 4] = [Self::Detection, Self::Decision, Self::Announcement, Self::Total];

    /// The label of the metric.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Detection => "detection",
            Self::Decision => "decision",
            Self::Announcement => "announcement",
            Self::Total => "total",
        }
    }
}

/// What has changed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trigger<'a> {
    /// Who is a member, or what members say.
    Members { before: Option<&'a Members>, after: &'a Members },
    /// What is wanted.
    Wanted,
}

/// A loss of a member.
#[derive(Clone, Copy, Debug)]
struct Loss {
    cause: Cause,
    /// How long it had not been heard, if this node would have heard it.
    silent: Option<Duration>,
    at: Instant,
}

/// An address that this node has got and not announced yet.
#[derive(Clone, Copy, Debug)]
struct Flight {
    cause: Cause,
    loss: Option<Loss>,
    elected: Instant,
}

/// What is under way.
#[derive(Debug, Default)]
pub(crate) struct Failovers {
    losses: BTreeMap<NodeName, Loss>,
    flights: BTreeMap<ServiceIp, Flight>,
}

impl Failovers {
    /// The host of a member was found dead at `at`, or its grace was over.
    pub(crate) fn handle_loss(&mut self, node: NodeName, cause: Cause, silent: Option<Duration>, at: Instant) {
        self.losses.retain(|_, loss| at.saturating_duration_since(loss.at) < LOSS_COUNTS_FOR);
        self.losses.insert(node, Loss { cause, silent, at });
    }

    /// Owners have changed.
    pub(crate) fn handle_changes(&mut self, local: &NodeName, changes: &[Change], trigger: Trigger<'_>, now: Instant) {
        for Change { ip, from, to } in changes {
            if to.as_ref() != Some(local) {
                self.flights.remove(ip);
                continue;
            }
            let loss = from.as_ref().and_then(|from| self.losses.get(from)).copied();
            let loss = loss.filter(|loss| now.saturating_duration_since(loss.at) < LOSS_COUNTS_FOR);
            let cause = match (loss, from, trigger) {
                // What is owned from the start has not failed over.
                (None, None, Trigger::Members { .. }) => continue,
                (Some(loss), _, Trigger::Members { .. }) => loss.cause,
                (None, Some(from), Trigger::Members { before, after }) => cause(local, from, before, after),
                (_, Some(_), Trigger::Wanted) => Cause::Wanted,
                (_, None, _) => Cause::New,
            };
            let loss = loss.filter(|loss| loss.cause == cause);
            self.flights.insert(*ip, Flight { cause, loss, elected: now });
        }
    }

    /// The first frame that announces an address has left. Gives the phases to be noted.
    pub(crate) fn handle_announced(&mut self, ip: ServiceIp, at: Instant) -> Vec<(Phase, Cause, Duration)> {
        let Some(Flight { cause, loss, elected }) = self.flights.remove(&ip) else { return Vec::new() };
        let announcement = at.saturating_duration_since(elected);
        let mut noted = Vec::new();
        match (cause, loss) {
            (Cause::Crash, Some(Loss { silent, at: verdict, .. })) => {
                let decision = elected.saturating_duration_since(verdict);
                noted.extend([(Phase::Decision, cause, decision), (Phase::Announcement, cause, announcement)]);
                if let Some(silent) = silent {
                    noted.push((Phase::Detection, cause, silent));
                    noted.push((Phase::Total, cause, silent + decision + announcement));
                }
            }
            (_, Some(Loss { at: known, .. })) => noted.push((Phase::Total, cause, at.saturating_duration_since(known))),
            (_, None) => noted.push((Phase::Total, cause, announcement)),
        }
        noted
    }
}

/// Why `from`, which was not lost, is the owner no longer and this node is.
fn cause(local: &NodeName, from: &NodeName, before: Option<&Members>, after: &Members) -> Cause {
    let seen = |node| Some((before?.nodes.get(node)?, after.nodes.get(node)?));
    if let Some((was, is)) = seen(from) {
        if was.state < NodeState::Draining && is.state >= NodeState::Draining {
            return Cause::Drain;
        }
        if was.interfaces != is.interfaces {
            return Cause::Link;
        }
        if is.handicaps.len() > was.handicaps.len() {
            return Cause::Handicap;
        }
    }
    let better = match seen(local) {
        None => true,
        Some((was, is)) => (is.state, is.handicaps.len()) < (was.state, was.handicaps.len()),
    };
    if better { Cause::Return } else { Cause::Other }
}

/// Chosen: addresses that wait for longer, behind other rules, have not waited for the verdict.
const LOSS_COUNTS_FOR: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use garpike_election::{Handicap, Member, Selection};

    use super::*;

    #[test]
    fn a_crash_has_all_phases_and_they_add_up() {
        let (mut failovers, start) = (Failovers::default(), now());
        let at = |ms| start + Duration::from_millis(ms);
        failovers.handle_loss(node("b"), Cause::Crash, Some(Duration::from_millis(170)), at(0));
        failovers.handle_changes(&node("a"), &[change("b", "a")], members(&["a", "b"], &["a"]).trigger(), at(2));

        let noted = failovers.handle_announced(ip(), at(5));

        let ms = |phase| noted.iter().find(|(noted, ..)| *noted == phase).unwrap().2.as_millis();
        let phases = Phase::ALL.map(ms);
        assert_eq!(phases, [170, 2, 3, 175]);
        assert!(noted.iter().all(|(_, cause, _)| *cause == Cause::Crash));
        assert_eq!(failovers.handle_announced(ip(), at(9)), [], "the second frame is none");
    }

    #[test]
    fn who_did_not_watch_does_not_say_how_long_it_took_to_notice() {
        let (mut failovers, start) = (Failovers::default(), now());
        failovers.handle_loss(node("b"), Cause::Crash, None, start);
        failovers.handle_changes(&node("a"), &[change("b", "a")], members(&["a", "b"], &["a"]).trigger(), start);

        let phases: Vec<Phase> = failovers.handle_announced(ip(), start).into_iter().map(|(phase, ..)| phase).collect();
        assert_eq!(phases, [Phase::Decision, Phase::Announcement]);
    }

    #[test]
    fn what_changed_about_the_owner_is_the_cause() {
        let cause_of = |change_member: &dyn Fn(&mut Member)| {
            let mut case = members(&["a", "b"], &["a", "b"]);
            change_member(case.after.nodes.get_mut(&node("b")).unwrap());
            noted(case.trigger(), change("b", "a"))
        };

        assert_eq!(cause_of(&|member| member.state = NodeState::Draining), Some(Cause::Drain));
        assert_eq!(cause_of(&|member| member.interfaces = Selection::Only([].into())), Some(Cause::Link));
        assert_eq!(cause_of(&|member| member.handicaps = [Handicap::NoGateway].into()), Some(Cause::Handicap));
        assert_eq!(cause_of(&|_| {}), Some(Cause::Other));
        assert_eq!(noted(members(&["b"], &["a", "b"]).trigger(), change("b", "a")), Some(Cause::Return));
        assert_eq!(noted(Trigger::Wanted, change("b", "a")), Some(Cause::Wanted));
        assert_eq!(noted(Trigger::Wanted, Change { from: None, ..change("b", "a") }), Some(Cause::New));
        assert_eq!(noted(members(&["a"], &["a"]).trigger(), Change { from: None, ..change("b", "a") }), None);
    }

    #[test]
    fn what_goes_to_others_is_theirs_to_measure() {
        let mut failovers = Failovers::default();
        failovers.handle_changes(&node("a"), &[change("b", "a")], Trigger::Wanted, now());
        failovers.handle_changes(&node("a"), &[change("a", "b")], Trigger::Wanted, now());

        assert_eq!(failovers.handle_announced(ip(), now()), []);
    }

    struct Case {
        before: Members,
        after: Members,
    }

    impl Case {
        fn trigger(&self) -> Trigger<'_> {
            Trigger::Members { before: Some(&self.before), after: &self.after }
        }
    }

    fn noted(trigger: Trigger<'_>, change: Change) -> Option<Cause> {
        let mut failovers = Failovers::default();
        failovers.handle_changes(&node("a"), &[change], trigger, now());
        failovers.handle_announced(ip(), now()).first().map(|(_, cause, _)| *cause)
    }

    fn members(before: &[&str], after: &[&str]) -> Case {
        let members = |names: &[&str]| {
            let member = |name: &&str| (node(name), Member::new(NodeState::Ready, Selection::All));
            Members { local: node("a"), nodes: names.iter().map(member).collect() }
        };
        Case { before: members(before), after: members(after) }
    }

    fn change(from: &str, to: &str) -> Change {
        Change { ip: ip(), from: Some(node(from)), to: Some(node(to)) }
    }

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn ip() -> ServiceIp {
        "10.0.0.1".parse().unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn now() -> Instant {
        Instant::now()
    }
}
