//! A token bucket on the caller's clock: how many frames an interface may announce per second.
//!
//! Kept as one instant, the time at which the bucket would be full again (the generic cell rate algorithm), so it
//! never drifts and has nothing to refill.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// A rate with a burst.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pacer {
    /// Between two frames at the steady rate.
    interval: Duration,
    /// How far ahead of the steady rate a burst may run.
    slack: Duration,
    /// When everything taken so far would have been sent at the steady rate.
    full_at: Instant,
}

impl Pacer {
    pub(crate) fn new(per_second: NonZeroU32, burst: NonZeroU32, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / per_second.get();
        Self { interval, slack: interval * (burst.get() - 1), full_at: now }
    }

    /// From when on a frame may be taken.
    pub(crate) fn ready_at(&self) -> Instant {
        self.full_at.checked_sub(self.slack).unwrap_or(self.full_at)
    }

    /// Takes a frame, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> Option<()> {
        if now < self.ready_at() {
            return None;
        }
        self.full_at = self.full_at.max(now) + self.interval;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_steady_rate() {
        let start = start();
        let mut pacer = Pacer::new(nonzero(1000), nonzero(3), start);
        for _ in 0..3 {
            assert_eq!(pacer.take(start), Some(()));
        }
        assert_eq!(pacer.take(start), None);
        assert_eq!(pacer.ready_at(), start + Duration::from_millis(1));
        assert_eq!(pacer.take(start + Duration::from_millis(1)), Some(()));
        assert_eq!(pacer.take(start + Duration::from_millis(1)), None);
    }

    #[test]
    fn a_rest_gives_one_burst_back_and_not_more() {
        let start = start();
        let mut pacer = Pacer::new(nonzero(1000), nonzero(3), start);
        let later = start + Duration::from_secs(60);
        assert_eq!((0..10).filter_map(|_| pacer.take(later)).count(), 3);
    }

    fn nonzero(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "virtual time needs one real instant to start from")]
    fn start() -> Instant {
        Instant::now()
    }
}
