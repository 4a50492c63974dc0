//! When the kernel's state is read again: soon after the first event of a burst, but never so often that reading costs
//! more than a tenth of the time.

use std::time::{Duration, Instant};

/// The time of the next reading.
#[derive(Debug)]
pub(super) struct Debounce {
    due: Option<Instant>,
    /// Before this no reading begins.
    rested: Instant,
}

impl Debounce {
    /// The first reading is due at once.
    pub(super) fn new(now: Instant) -> Self {
        Self { due: Some(now), rested: now }
    }

    /// Something has changed.
    pub(super) fn handle_event(&mut self, now: Instant) {
        self.read_at(now + AFTER_FIRST_EVENT);
    }

    /// Something is to be looked at again then.
    pub(super) fn read_at(&mut self, at: Instant) {
        let at = at.max(self.rested);
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// The state as it was at some time after `began` has been read.
    pub(super) fn handle_read(&mut self, began: Instant, now: Instant) {
        self.due = None;
        self.rested = now + (now.saturating_duration_since(began) * RESTS_PER_READ).min(LONGEST_REST);
    }

    /// When to read.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

/// Chosen: the burst of events of an interface that comes up is over within it, and it is short beside a failover.
const AFTER_FIRST_EVENT: Duration = Duration::from_millis(50);
/// A tenth of the time, whatever the size of the tables.
const RESTS_PER_READ: u32 = 9;
/// Chosen: a reading that took long because the process was held up must not blind it.
const LONGEST_REST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_read_once_50_ms_after_its_first_event() {
        let start = start();
        let mut debounce = Debounce::new(start);
        assert_eq!(debounce.poll_timeout(), Some(start));
        debounce.handle_read(start, start);
        assert_eq!(debounce.poll_timeout(), None);
        for ms in 0..40 {
            debounce.handle_event(start + Duration::from_millis(ms));
        }
        assert_eq!(debounce.poll_timeout(), Some(start + AFTER_FIRST_EVENT));
    }

    #[test]
    fn whatever_comes_reading_takes_a_tenth_of_the_time() {
        let start = start();
        let (mut debounce, mut now, mut spent) = (Debounce::new(start), start, Duration::ZERO);
        while now < start + Duration::from_secs(60) {
            debounce.handle_event(now);
            if debounce.poll_timeout().is_some_and(|due| due <= now) {
                let took = Duration::from_millis(30);
                debounce.handle_read(now, now + took);
                (now, spent) = (now + took, spent + took);
            }
            now += Duration::from_millis(1);
        }
        assert!(spent <= Duration::from_millis(6100), "{spent:?}");
        assert!(spent >= Duration::from_millis(5500), "{spent:?}");
    }

    #[test]
    fn a_reading_that_was_held_up_is_followed_by_a_second_of_rest_at_most() {
        let start = start();
        let mut debounce = Debounce::new(start);
        let now = start + Duration::from_secs(30);
        debounce.handle_read(start, now);
        debounce.handle_event(now);
        assert_eq!(debounce.poll_timeout(), Some(now + LONGEST_REST));
    }

    #[expect(clippy::disallowed_methods, reason = "virtual time needs one real instant to start from")]
    fn start() -> Instant {
        Instant::now()
    }
}
