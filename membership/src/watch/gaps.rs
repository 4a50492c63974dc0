//! How evenly the heartbeats of a speaker come.
//!
//! Where its timers are late or the network holds datagrams up, the intervals between heartbeats grow, and so does the
//! silence that is still normal. A lost heartbeat is no such sign: heartbeats are numbered, so the time between two that
//! came is divided by the number that was sent in between. The estimate is that of TCP for its retransmission time.

use std::time::{Duration, Instant};

use super::timing::Timing;

/// The estimate for one speaker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gaps {
    last: Option<(Instant, u32)>,
    /// Mean interval and mean deviation from it, once there were two heartbeats.
    mean: Option<(Duration, Duration)>,
}

impl Gaps {
    /// Takes note of heartbeat `number`, which came at `now`.
    pub(crate) fn heartbeat(&mut self, number: u32, now: Instant) {
        let Some((at, before)) = self.last.replace((now, number)) else { return };
        let sent = number.wrapping_sub(before);
        // Out of order, a new life, or a speaker that had not taken us for its watcher for a while.
        if sent == 0 || sent > MISSED_MAX {
            return;
        }
        let interval = now.saturating_duration_since(at) / sent;
        //= https://www.rfc-editor.org/rfc/rfc6298#section-2.3
        //# RTTVAR <- (1 - beta) * RTTVAR + beta * |SRTT - R'|
        //# SRTT <- (1 - alpha) * SRTT + alpha * R'
        self.mean = Some(match self.mean {
            None => (interval, Duration::ZERO),
            Some((mean, deviation)) => ((mean * 7 + interval) / 8, (deviation * 3 + mean.abs_diff(interval)) / 4),
        });
    }

    /// How long a silence is still normal.
    pub(crate) fn budget(&self, timing: &Timing) -> Duration {
        let observed = self.mean.map(|(mean, deviation)| mean * 5 + deviation * 4).unwrap_or_default();
        observed.clamp(timing.overdue, timing.overdue * 3)
    }
}

/// More heartbeats in a row are not lost, but not sent.
const MISSED_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Profile;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn even_heartbeats_keep_the_budget_at_its_floor_whatever_gets_lost() {
        let (mut gaps, timing, start) = (Gaps::default(), Timing::of(Profile::Default), start());
        for number in (0..400).filter(|number| number % 7 != 0 && number % 5 != 0) {
            gaps.heartbeat(number, start + 25 * MS * number + MS / 2 * (number % 3));
        }

        assert_eq!(gaps.budget(&timing), timing.overdue);
    }

    #[test]
    fn late_heartbeats_raise_the_budget_and_it_has_a_ceiling() {
        let (mut gaps, timing, start) = (Gaps::default(), Timing::of(Profile::Default), start());
        for number in 0..100 {
            gaps.heartbeat(number, start + 50 * MS * number);
        }
        assert_eq!(gaps.budget(&timing), 250 * MS);

        for number in 100..200 {
            gaps.heartbeat(number, start + 200 * MS * number);
        }
        assert_eq!(gaps.budget(&timing), 3 * timing.overdue);
    }

    #[test]
    fn it_comes_back_when_heartbeats_are_even_again() {
        let (mut gaps, timing, start) = (Gaps::default(), Timing::of(Profile::Default), start());
        for number in 0..50 {
            gaps.heartbeat(number, start + 60 * MS * number);
        }
        for number in 50..100 {
            gaps.heartbeat(number, start + 3000 * MS + 25 * MS * (number - 50));
        }

        assert_eq!(gaps.budget(&timing), timing.overdue);
    }

    #[test]
    fn a_jump_of_the_numbers_says_nothing() {
        let (mut gaps, timing, start) = (Gaps::default(), Timing::of(Profile::Default), start());
        for (number, at) in [(5, 0), (6, 25), (6, 3000), (4, 6000), (4_000_000, 9000)] {
            gaps.heartbeat(number, start + at * MS);
        }

        assert_eq!(gaps.budget(&timing), timing.overdue);
    }

    #[expect(clippy::disallowed_methods, reason = "a test makes its own time from one reading")]
    fn start() -> Instant {
        Instant::now()
    }
}
