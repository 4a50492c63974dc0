//! Whether the timers of this node come late so often that others are the better owners.
//!
//! One stall is none: a process may be stopped once. The handicap begins with more than ten late timers within a minute, and
//! ends after a minute without any; twice as long each time that it begins again within half an hour of its end, so that a
//! node at the limit does not give its addresses away and take them back all the time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::facts::News;

/// The late timers of this node.
#[derive(Debug)]
pub(crate) struct Lateness {
    /// A timer that is as late as this counts.
    limit: Duration,
    /// When timers were late: the last few times.
    late: VecDeque<Instant>,
    handicap: Handicap,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Handicap {
    Never,
    /// It ends after so long a time without a late timer.
    On {
        until_calm_for: Duration,
    },
    /// Since then; the last one lasted until it had been calm for so long.
    Off {
        since: Instant,
        was_calm_for: Duration,
    },
}

impl Lateness {
    /// `overdue`: the silence after which others look after a node.
    pub(crate) fn new(overdue: Duration) -> Self {
        Self { limit: overdue / 2, late: VecDeque::new(), handicap: Handicap::Never }
    }

    /// A timer came late by so much; tells whether that changes anything.
    pub(crate) fn handle(&mut self, by: Duration, now: Instant) -> News {
        if by < self.limit {
            return News::No;
        }
        self.late.push_back(now);
        if self.late.len() <= LATE_MAX {
            return News::No;
        }
        let oldest = self.late.pop_front();
        let often = oldest.is_some_and(|oldest| now.saturating_duration_since(oldest) < WITHIN);
        if !often {
            return News::No;
        }
        let until_calm_for = match self.handicap {
            Handicap::On { .. } => return News::No,
            Handicap::Never => CALM,
            Handicap::Off { since, .. } if now.saturating_duration_since(since) >= FORGIVEN_AFTER => CALM,
            Handicap::Off { was_calm_for, .. } => (was_calm_for * 2).min(CALM_MAX),
        };
        self.handicap = Handicap::On { until_calm_for };
        News::Yes
    }

    /// Ends the handicap if it has been calm for long enough; tells whether it has.
    pub(crate) fn review(&mut self, now: Instant) -> News {
        let Handicap::On { until_calm_for } = self.handicap else { return News::No };
        let calm = self.late.back().is_none_or(|last| now.saturating_duration_since(*last) >= until_calm_for);
        if !calm {
            return News::No;
        }
        self.handicap = Handicap::Off { since: now, was_calm_for: until_calm_for };
        News::Yes
    }

    /// Whether this node is a worse owner than others.
    pub(crate) fn is_handicap(&self) -> bool {
        matches!(self.handicap, Handicap::On { .. })
    }
}

/// Chosen: somebody who stops and continues a process by hand, or the lab, does it less often.
const LATE_MAX: usize = 10;
const WITHIN: Duration = Duration::from_secs(60);
/// Chosen: a burst of work of a host is over.
const CALM: Duration = Duration::from_secs(60);
/// Chosen: at most four moves an hour of a node whose host is busy again and again.
const CALM_MAX: Duration = Duration::from_secs(960);
/// Chosen: as long as a host that died counts as one that dies often.
const FORGIVEN_AFTER: Duration = Duration::from_secs(1800);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_ten_late_timers_within_a_minute_are_a_handicap() {
        let (mut lateness, begin) = (Lateness::new(OVERDUE), start());
        assert_eq!(be_late(&mut lateness, 10, begin, Duration::from_secs(1)), News::No);
        assert!(!lateness.is_handicap());
        assert_eq!(lateness.handle(OVERDUE, begin + Duration::from_secs(11)), News::Yes);
        assert!(lateness.is_handicap());
        assert_eq!(lateness.handle(OVERDUE, begin + Duration::from_secs(12)), News::No, "it is known");
    }

    #[test]
    fn seldom_or_little_is_none() {
        let (mut lateness, begin) = (Lateness::new(OVERDUE), start());
        assert_eq!(be_late(&mut lateness, 100, begin, Duration::from_secs(6)), News::No, "ten in a minute");
        for n in 0..100 {
            assert_eq!(lateness.handle(OVERDUE / 2 - Duration::from_millis(1), begin + n * OVERDUE), News::No);
        }
        assert!(!lateness.is_handicap());
    }

    #[test]
    fn a_calm_minute_ends_it() {
        let (mut lateness, begin) = (Lateness::new(OVERDUE), start());
        be_late(&mut lateness, 11, begin, Duration::from_secs(1));
        let last = begin + Duration::from_secs(40);
        lateness.handle(OVERDUE, last);

        assert_eq!(lateness.review(last + CALM - Duration::from_millis(1)), News::No);
        assert!(lateness.is_handicap());
        assert_eq!(lateness.review(last + CALM), News::Yes);
        assert!(!lateness.is_handicap());
        assert_eq!(lateness.review(last + CALM * 2), News::No, "it has ended");
    }

    #[test]
    fn whoever_is_late_again_and_again_is_believed_later_and_later() {
        let (mut lateness, mut now) = (Lateness::new(OVERDUE), start());
        let mut rest = |pause: Duration| {
            now += pause;
            be_late(&mut lateness, 20, now, Duration::from_secs(1));
            assert!(lateness.is_handicap());
            now += Duration::from_secs(19);
            let begin = now;
            while lateness.review(now) == News::No {
                now += Duration::from_secs(1);
            }
            (now - begin).as_secs()
        };

        let short = Duration::from_secs(120);
        assert_eq!([rest(short), rest(short), rest(short), rest(short)], [60, 120, 240, 480]);
        assert_eq!([rest(short), rest(short)], [960, 960]);
        assert_eq!(rest(FORGIVEN_AFTER), 60);
    }

    const OVERDUE: Duration = Duration::from_millis(140);

    fn be_late(lateness: &mut Lateness, times: u32, begin: Instant, every: Duration) -> News {
        let mut news = News::No;
        for n in 0..times {
            if lateness.handle(OVERDUE, begin + every * n) == News::Yes {
                news = News::Yes;
            }
        }
        news
    }

    #[expect(clippy::disallowed_methods, reason = "virtual time begins at one reading")]
    fn start() -> Instant {
        Instant::now()
    }
}
