//! Everything that is due later, by deadline.
//!
//! Timers of foca that are due at the same moment come in the order that foca wants: the second half of a probe before
//! the next probe. A timer of our own is in the queue at most once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::Identity;

/// The timers of the cluster itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Own {
    /// Tell our watchers that we live.
    Heartbeat,
    /// Some watch may go on.
    Watches,
    /// Let the stations on the wire say something.
    Stations,
    /// Send again what was not acknowledged.
    Deliveries,
    /// Ping the dead, in case they live.
    Revenants,
    /// The grace of some speaker is over.
    Grace,
    /// This node is no longer held down.
    HoldDown,
    /// The cluster is no longer only starting.
    Founded,
    /// Try the seeds that are no members.
    Seeds,
    /// Be ready even if some seed is missing.
    Joined,
    /// Tell suspects that they are suspected.
    Suspects,
    /// Forget old things.
    Housekeeping,
    /// Ask members for missing facts.
    MissingFacts,
    /// Exchange states with some member.
    Exchange,
    /// Repeat that we leave.
    Farewell,
}

/// Something that is due.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    Swim(foca::Timer<Identity>),
    Own(Own),
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    swim: BTreeSet<(Instant, foca::Timer<Identity>, u64)>,
    own: BTreeMap<Own, Instant>,
    /// Keeps equal timers of foca apart, in the order of their coming.
    count: u64,
}

impl Timers {
    pub(crate) fn add(&mut self, at: Instant, timer: foca::Timer<Identity>) {
        self.count += 1;
        self.swim.insert((at, timer, self.count));
    }

    /// Sets one of our own timers, whether or not it is set already.
    pub(crate) fn set(&mut self, own: Own, at: Instant) {
        self.own.insert(own, at);
    }

    /// Sets one of our own timers unless it is set already.
    pub(crate) fn set_if_unset(&mut self, own: Own, at: Instant) {
        self.own.entry(own).or_insert(at);
    }

    /// Sets one of our own timers unless it comes earlier already.
    pub(crate) fn set_no_later(&mut self, own: Own, at: Instant) {
        let earliest = self.own.get(&own).map_or(at, |set| at.min(*set));
        self.own.insert(own, earliest);
    }

    /// Drops the timers of foca.
    pub(crate) fn clear_swim(&mut self) {
        self.swim.clear();
    }

    pub(crate) fn clear(&mut self) {
        self.swim.clear();
        self.own.clear();
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        let swim = self.swim.first().map(|(at, ..)| *at);
        let own = self.first_own().map(|(_, at)| at);
        swim.into_iter().chain(own).min()
    }

    /// Takes the earliest timer that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Due> {
        if self.next()? > now {
            return None;
        }
        let own = self.first_own();
        let swim_at = self.swim.first().map(|(at, ..)| *at);
        match (own, swim_at) {
            (Some((own, at)), swim_at) if swim_at.is_none_or(|swim_at| at < swim_at) => {
                self.own.remove(&own);
                Some(Due::Own(own))
            }
            _ => self.swim.pop_first().map(|(_, timer, _)| Due::Swim(timer)),
        }
    }

    fn first_own(&self) -> Option<(Own, Instant)> {
        self.own.iter().map(|(own, at)| (*own, *at)).min_by_key(|(own, at)| (*at, *own))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use foca::Timer;
    use garpike_election::NodeName;

    use super::*;
    use crate::{Generation, ProcessId};

    #[test]
    fn the_deadline_comes_first_and_then_the_order_of_foca() {
        let (mut timers, start) = (Timers::default(), start());
        let after = |ms| start + Duration::from_millis(ms);
        let indirect = Timer::SendIndirectProbe { probed_id: identity(), token: 0 };
        timers.add(after(1), Timer::PeriodicGossip(0));
        timers.add(after(2), Timer::ProbeRandomMember(0));
        timers.add(after(2), indirect.clone());
        timers.set(Own::Seeds, after(3));
        timers.set(Own::Housekeeping, after(1));
        timers.set(Own::Housekeeping, after(4));

        let order: Vec<_> = std::iter::from_fn(|| timers.pop_due(after(10))).collect();

        let expected = [
            Due::Swim(Timer::PeriodicGossip(0)),
            Due::Swim(indirect),
            Due::Swim(Timer::ProbeRandomMember(0)),
            Due::Own(Own::Seeds),
            Due::Own(Own::Housekeeping),
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn nothing_comes_before_its_time() {
        let (mut timers, start) = (Timers::default(), start());
        assert_eq!(timers.next(), None);
        timers.set(Own::Seeds, start + Duration::from_millis(2));

        assert_eq!(timers.pop_due(start + Duration::from_millis(1)), None);
        assert_eq!(timers.next(), Some(start + Duration::from_millis(2)));
        assert_eq!(timers.pop_due(start + Duration::from_millis(2)), Some(Due::Own(Own::Seeds)));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn equal_timers_of_foca_are_all_kept() {
        let (mut timers, start) = (Timers::default(), start());
        timers.add(start, Timer::PeriodicGossip(0));
        timers.add(start, Timer::PeriodicGossip(0));

        assert_eq!(std::iter::from_fn(|| timers.pop_due(start)).count(), 2);
    }

    fn identity() -> Identity {
        Identity {
            name: NodeName::new("node").unwrap(),
            generation: Generation(1),
            process: ProcessId(1),
            gossip: "192.0.2.1:7946".parse().unwrap(),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test makes its own time from one reading")]
    fn start() -> Instant {
        Instant::now()
    }
}
