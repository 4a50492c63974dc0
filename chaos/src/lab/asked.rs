//! What a client without a cache was told: how long it had to wait, and whether two stations answered it.
//!
//! It asks again and again and keeps nothing, so an answer is the answer to every question since the one before. Pure
//! arithmetic.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use garpike_election::MacAddr;

/// All questions for one address, and the answers.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// When a question was sent, in order.
    pub questions: Vec<Instant>,
    /// When an answer arrived, and where it said that the address is; in order.
    pub answers: Vec<(Instant, MacAddr)>,
}

impl Asked {
    /// For each question of the window how long it took until an answer arrived; `None`: none did within the window. The
    /// last questions are left out, for their answers may be on the way.
    pub fn waits(&self, window: RangeInclusive<Instant>) -> Vec<Option<Duration>> {
        let (start, end) = window.into_inner();
        let last = end.checked_sub(ON_THE_WAY).unwrap_or(end);
        let asked = self.questions.iter().filter(|at| start <= **at && **at <= last);
        let wait = |question: &Instant| {
            let next = self.answers.partition_point(|(at, _)| at < question);
            let (at, _) = self.answers.get(next).filter(|(at, _)| *at <= end)?;
            Some(at.saturating_duration_since(*question))
        };
        asked.map(wait).collect()
    }

    /// Where the answers of the window said that the address is.
    pub fn macs(&self, window: RangeInclusive<Instant>) -> BTreeSet<MacAddr> {
        self.within(window).map(|(_, mac)| mac).collect()
    }

    /// For how long at most two stations answered: from the first answer of a newcomer to the last of a station that was
    /// there before it and answers once more. Zero when each ended before the next began, however many they were.
    pub fn two_macs(&self, window: RangeInclusive<Instant>) -> Duration {
        self.two_macs_with(window, |_, _| true)
    }

    /// As [`Self::two_macs`], where one of the stations is meant: by its address, and when it answered. One that was not
    /// meant before is another one.
    pub fn two_macs_with(
        &self,
        window: RangeInclusive<Instant>,
        is_meant: impl Fn(MacAddr, Instant) -> bool,
    ) -> Duration {
        let runs = self.runs(window, is_meant);
        let mut longest = Duration::ZERO;
        // The first and the last run of a dispute.
        let mut dispute: Option<(usize, usize)> = None;
        for (at, run) in runs.iter().enumerate() {
            let earlier =
                runs.iter().take(at).rposition(|earlier| (earlier.mac, earlier.meant) == (run.mac, run.meant));
            let earlier = earlier.and_then(|before| Some((before, runs.get(before)?)));
            let Some((before, _)) = earlier.filter(|(_, earlier)| run.first <= earlier.last + ONE_DISPUTE) else {
                continue;
            };
            let first = match dispute {
                Some((first, last)) if before < last => first.min(before + 1),
                Some(_) | None => before + 1,
            };
            dispute = Some((first, at));
            let mut involved = runs.iter().take(at + 1).skip(first.saturating_sub(1));
            if let Some((newcomer, old)) = runs.get(first).zip(runs.get(at - 1))
                && involved.any(|run| run.meant)
            {
                longest = longest.max(old.last.saturating_duration_since(newcomer.first));
            }
        }
        longest
    }

    /// The answers in the window, those of one station that follow each other together.
    fn runs(&self, window: RangeInclusive<Instant>, is_meant: impl Fn(MacAddr, Instant) -> bool) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (at, mac) in self.within(window) {
            let meant = is_meant(mac, at);
            match runs.last_mut() {
                Some(run) if (run.mac, run.meant) == (mac, meant) => run.last = at,
                Some(_) | None => runs.push(Run { mac, meant, first: at, last: at }),
            }
        }
        runs
    }

    /// How long after the window's start an answer last named another station than the one that answers in the end;
    /// `None` when nobody answers.
    pub fn disputed_for(&self, window: RangeInclusive<Instant>) -> Option<Duration> {
        let start = *window.start();
        let (_, winner) = self.within(window.clone()).last()?;
        let others = self.within(window).filter(|(_, mac)| *mac != winner);
        Some(others.last().map_or(Duration::ZERO, |(at, _)| at.saturating_duration_since(start)))
    }

    fn within(&self, window: RangeInclusive<Instant>) -> impl Iterator<Item = (Instant, MacAddr)> {
        self.answers.iter().copied().filter(move |(at, _)| window.contains(at))
    }
}

/// Chosen: above the longest stall that was measured on a busy machine (41 ms).
const ON_THE_WAY: Duration = Duration::from_millis(50);
/// Chosen: changes that are further apart are moves of their own.
const ONE_DISPUTE: Duration = Duration::from_secs(1);

/// Answers of one station, without one of another between them.
struct Run {
    mac: MacAddr,
    meant: bool,
    first: Instant,
    last: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: MacAddr = MacAddr([0x02, 0x77, 0, 0, 0, 0x0b]);
    const NEW: MacAddr = MacAddr([0x02, 0x77, 0, 0, 0, 0x0c]);

    #[test]
    fn a_question_waits_for_the_next_answer_whoever_asked_for_it() {
        let start = start();
        let asked = asked(start, &[0, 5, 10, 15, 300], &[(1, OLD), (16, NEW)]);

        let waits = asked.waits(start..=start + ms(200));

        assert_eq!(waits, [Some(ms(1)), Some(ms(11)), Some(ms(6)), Some(ms(1))]);
    }

    #[test]
    fn a_question_that_nobody_answers_waits_for_ever_and_the_last_ones_do_not_count() {
        let start = start();
        let asked = asked(start, &[0, 100, 190], &[(1, OLD), (220, OLD)]);

        assert_eq!(asked.waits(start..=start + ms(200)), [Some(ms(1)), None]);
    }

    #[test]
    fn one_after_the_other_is_no_overlap() {
        let start = start();
        let asked = asked(start, &[], &[(0, OLD), (5, OLD), (10, NEW), (15, NEW)]);

        assert_eq!(asked.two_macs(start..=start + ms(20)), Duration::ZERO);
        assert_eq!(asked.macs(start..=start + ms(20)), BTreeSet::from([OLD, NEW]));
        assert_eq!(asked.macs(start + ms(7)..=start + ms(20)), BTreeSet::from([NEW]));
    }

    #[test]
    fn two_answer_from_the_first_of_the_new_one_to_the_last_of_the_old_one() {
        let start = start();
        let asked = asked(start, &[], &[(0, OLD), (10, NEW), (11, OLD), (20, NEW), (24, OLD), (30, NEW), (40, NEW)]);

        assert_eq!(asked.two_macs(start..=start + ms(50)), ms(14));
        assert_eq!(asked.disputed_for(start..=start + ms(50)), Some(ms(24)));
    }

    #[test]
    fn a_move_and_a_move_back_are_no_overlap() {
        let start = start();
        let asked = asked(start, &[], &[(0, OLD), (10, NEW), (2990, NEW), (3000, OLD)]);

        assert_eq!(asked.two_macs(start..=start + ms(4000)), Duration::ZERO);
    }

    #[test]
    fn stations_that_take_over_one_after_the_other_do_not_overlap() {
        let start = start();
        let third = MacAddr([2, 0, 0, 0, 0, 3]);
        let asked = asked(start, &[], &[(0, OLD), (10, NEW), (500, NEW), (510, third), (900, third)]);

        assert_eq!(asked.two_macs(start..=start + ms(4000)), Duration::ZERO);
    }

    #[test]
    fn a_station_that_has_another_program_is_another_one() {
        let start = start();
        let asked = asked(start, &[], &[(0, OLD), (10, NEW), (20, OLD)]);
        let window = || start..=start + ms(100);

        assert_eq!(asked.two_macs_with(window(), |mac, at| mac == OLD && at > start + ms(15)), Duration::ZERO);
        assert_eq!(asked.two_macs_with(window(), |mac, _| mac == NEW), asked.two_macs(window()));
        assert_eq!(asked.two_macs_with(window(), |_, _| false), Duration::ZERO);
    }

    #[test]
    fn an_old_station_among_several_new_ones_overlaps_with_all() {
        let start = start();
        let third = MacAddr([2, 0, 0, 0, 0, 3]);
        let answers = [(0, OLD), (10, NEW), (20, third), (30, OLD), (40, NEW), (50, third), (60, third)];

        assert_eq!(asked(start, &[], &answers).two_macs(start..=start + ms(4000)), ms(30));
    }

    #[test]
    fn nobody_disputes_an_address_that_one_answers_for() {
        let start = start();

        assert_eq!(asked(start, &[], &[(5, OLD)]).disputed_for(start..=start + ms(9)), Some(Duration::ZERO));
        assert_eq!(asked(start, &[], &[]).disputed_for(start..=start + ms(9)), None);
    }

    fn asked(start: Instant, questions: &[u64], answers: &[(u64, MacAddr)]) -> Asked {
        Asked {
            questions: questions.iter().map(|at| start + ms(*at)).collect(),
            answers: answers.iter().map(|(at, mac)| (start + ms(*at), *mac)).collect(),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "tests need some instant to start from")]
    fn start() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }
}
