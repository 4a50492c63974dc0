//! What a probe recorded, and what it says: how long nobody answered.
//!
//! An outage is the longest time between two answers, from receipt to receipt, less the interval of the probes: it
//! starts with the last answer before the fault and ends with the first one that arrives after it. Pure arithmetic.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// All probes to one target.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where they were sent.
    pub target: SocketAddr,
    /// The time between two of them.
    pub interval: Duration,
    /// The probes in the order in which they were sent.
    pub samples: Vec<Sample>,
    /// When the prober itself was late.
    pub disturbances: Vec<Disturbance>,
    /// Answers to probes that had been answered before.
    pub duplicates: u64,
}

/// One probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it was sent.
    pub sent: Instant,
    /// When its first answer arrived.
    pub answered: Option<Instant>,
}

/// The prober got to run too late: the machine was busy, and outages around it look longer than they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disturbance {
    /// When a probe was due.
    pub due: Instant,
    /// By how much it was late.
    pub late: Duration,
}

/// What a client saw of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Answers came again after this time; zero when none was missed.
    Recovered(Duration),
    /// No answer came any more.
    NotRecovered,
    /// Nobody answered before the fault, so it shows nothing.
    NotAnsweredBefore,
}

impl Outage {
    /// Its length, if it ended.
    pub fn recovered(self) -> Option<Duration> {
        match self {
            Self::Recovered(length) => Some(length),
            Self::NotRecovered | Self::NotAnsweredBefore => None,
        }
    }
}

impl Record {
    /// The longest outage from shortly before `injected` until `end`.
    pub fn outage(&self, injected: Instant, end: Instant) -> Outage {
        let from = start_of_window(injected);
        let answers = self.samples.iter().filter_map(|sample| sample.answered);
        let mut answers: Vec<Instant> = answers.filter(|at| (from..=end).contains(at)).collect();
        answers.sort_unstable();
        let (Some(first), Some(last)) = (answers.first(), answers.last()) else { return Outage::NotAnsweredBefore };
        if *first > injected {
            return Outage::NotAnsweredBefore;
        }
        if end.saturating_duration_since(*last) > self.silence() {
            return Outage::NotRecovered;
        }
        let gaps = answers.windows(2).filter_map(|pair| match pair {
            [before, after] => Some(after.saturating_duration_since(*before)),
            _ => None,
        });
        Outage::Recovered(gaps.max().unwrap_or_default().saturating_sub(self.interval))
    }

    /// How many probes sent from shortly before `injected` until `end` were never answered.
    pub fn lost(&self, injected: Instant, end: Instant) -> usize {
        let window = start_of_window(injected)..=end;
        self.samples.iter().filter(|sample| window.contains(&sample.sent) && sample.answered.is_none()).count()
    }

    /// When the first answer after `at` arrived.
    pub fn first_answer_after(&self, at: Instant) -> Option<Instant> {
        self.samples.iter().filter_map(|sample| sample.answered).filter(|answered| *answered > at).min()
    }

    /// The latest answer, of all.
    pub fn last_answer(&self) -> Option<Instant> {
        self.samples.iter().filter_map(|sample| sample.answered).max()
    }

    /// Silence at the end of the window that counts as "not recovered".
    fn silence(&self) -> Duration {
        SILENCE.max(self.interval * SILENCE_INTERVALS)
    }
}

fn start_of_window(injected: Instant) -> Instant {
    injected.checked_sub(BEFORE).unwrap_or(injected)
}

/// An outage may begin a little before the call that caused it returns its instant.
const BEFORE: Duration = Duration::from_millis(200);
/// Chosen: five times the longest stall that was measured on a busy machine (41 ms).
const SILENCE: Duration = Duration::from_millis(200);
/// Chosen: slow probes may miss a few.
const SILENCE_INTERVALS: u32 = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_undisturbed_record_has_no_outage_and_no_loss() {
        let (record, start) = record(200, |_| true);

        assert_eq!(record.outage(start + ms(500), start + ms(990)), Outage::Recovered(Duration::ZERO));
        assert_eq!(record.lost(start + ms(500), start + ms(990)), 0);
    }

    #[test]
    fn an_outage_runs_from_the_last_answer_to_the_next() {
        // Probes 100 to 129 of 5 ms each are lost: answers at 495.1 ms and 650.1 ms.
        let (record, start) = record(400, |number| !(100..130).contains(&number));

        assert_eq!(record.outage(start + ms(498), start + ms(1500)), Outage::Recovered(ms(150)));
        assert_eq!(record.lost(start + ms(498), start + ms(1500)), 30);
    }

    #[test]
    fn answers_that_stop_are_not_recovered() {
        let (record, start) = record(400, |number| number < 100);

        assert_eq!(record.outage(start + ms(498), start + ms(1999)), Outage::NotRecovered);
    }

    #[test]
    fn a_target_that_did_not_answer_before_the_fault_shows_nothing() {
        let (late, start) = record(400, |number| number > 200);
        assert_eq!(late.outage(start + ms(498), start + ms(1999)), Outage::NotAnsweredBefore);

        let (never, start) = record(400, |_| false);
        assert_eq!(never.outage(start + ms(498), start + ms(1999)), Outage::NotAnsweredBefore);
    }

    #[test]
    fn an_earlier_outage_is_outside_of_the_window() {
        let (record, start) = record(400, |number| !(10..40).contains(&number));

        assert_eq!(record.outage(start + ms(1000), start + ms(1900)), Outage::Recovered(Duration::ZERO));
    }

    proptest! {
        #[test]
        fn an_outage_is_as_long_as_its_lost_probes(first in 60_usize..200, count in 1_usize..100) {
            let lost = first..first + count;
            let (record, start) = record(400, |number| !lost.contains(&number));
            let injected = start + ms(5) * u32::try_from(first).unwrap() - ms(1);

            let end = start + ms(1990);
            prop_assert_eq!(record.outage(injected, end), Outage::Recovered(ms(5) * u32::try_from(count).unwrap()));
            prop_assert_eq!(record.lost(injected, end), count);
        }
    }

    /// Probes every 5 ms with a round trip of 0.1 ms.
    #[expect(clippy::disallowed_methods, reason = "tests need some instant to start from")]
    fn record(probes: usize, answered: impl Fn(usize) -> bool) -> (Record, Instant) {
        let start = Instant::now() + Duration::from_secs(10);
        let sample = |number: usize| {
            let sent = start + ms(5) * u32::try_from(number).unwrap();
            Sample { sent, answered: answered(number).then_some(sent + Duration::from_micros(100)) }
        };
        let target = "192.168.10.0:7".parse().unwrap();
        let samples = (0..probes).map(sample).collect();
        (Record { target, interval: ms(5), samples, disturbances: Vec::new(), duplicates: 0 }, start)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }
}
