//! For how long addresses were answered, and for how long they were not: the numbers that an objective is set against.
//!
//! Each address counts at one node: at its owner, and what nobody owns at the first member by name. So the sums over all nodes
//! are those of the cluster. What a dead owner did not answer is counted by its heir, once it is over.

use std::time::{Duration, Instant};

/// What has been counted, down to parts of a second.
#[derive(Debug, Default)]
pub(crate) struct Availability {
    /// Since when, and how many addresses were answered and not answered since.
    since: Option<(Instant, usize, usize)>,
    answered: Duration,
    unanswered: Duration,
}

impl Availability {
    /// From `now` on so many addresses are answered, and so many are not.
    pub(crate) fn handle(&mut self, answered: usize, unanswered: usize, now: Instant) {
        self.handle_timeout(now);
        self.since = Some((now, answered, unanswered));
    }

    /// Counts the time until `now`.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let Some((since, answered, unanswered)) = &mut self.since else { return };
        let passed = now.saturating_duration_since(std::mem::replace(since, now));
        self.answered += times(passed, *answered);
        self.unanswered += times(passed, *unanswered);
    }

    /// An address was not answered for so long, while it was nobody's.
    pub(crate) fn handle_outage(&mut self, outage: Duration) {
        self.unanswered = self.unanswered.saturating_add(outage);
    }

    /// The whole seconds that were counted since the last call: answered and not.
    pub(crate) fn take(&mut self) -> (u64, u64) {
        (take_whole(&mut self.answered), take_whole(&mut self.unanswered))
    }
}

fn times(passed: Duration, addresses: usize) -> Duration {
    passed.saturating_mul(u32::try_from(addresses).unwrap_or(u32::MAX))
}

fn take_whole(counted: &mut Duration) -> u64 {
    let whole = counted.as_secs();
    *counted -= Duration::from_secs(whole);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_times_seconds_are_counted_and_parts_are_not_lost() {
        let (mut availability, start) = (Availability::default(), now());
        let at = |ms| start + Duration::from_millis(ms);
        availability.handle(10, 0, at(0));
        let mut sums = (0, 0);
        for step in 1..=100 {
            availability.handle(10, 1, at(step * 15));
            let (answered, unanswered) = availability.take();
            sums = (sums.0 + answered, sums.1 + unanswered);
        }

        assert_eq!(sums, (15, 1), "10 from the start, and 1 from the first step on");
    }

    #[test]
    fn the_outage_of_a_dead_owner_is_counted_by_its_heir() {
        let mut availability = Availability::default();
        for _ in 0..10 {
            availability.handle_outage(Duration::from_millis(150));
        }

        assert_eq!(availability.take(), (0, 1));
        availability.handle_outage(Duration::from_millis(500));
        assert_eq!(availability.take(), (0, 1));
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn now() -> Instant {
        Instant::now()
    }
}
