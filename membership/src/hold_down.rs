//! How long a node that came back from the dead does not get its addresses back.
//!
//! A host that died once may die again: each move costs its clients connections. The time doubles while the host goes on
//! dying. Only the node itself decides, so that all others agree, and only when a majority had believed it dead: of two
//! equal halves neither is wrong.

use std::time::{Duration, Instant};

use crate::notice::Notice;

/// Whether this node is held down.
#[derive(Debug)]
pub(crate) struct HoldDown {
    /// How long at the first time; `None`: until an operator says otherwise.
    base: Option<Duration>,
    until: Option<Until>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Until {
    Then(Instant),
    ToldOtherwise,
}

impl HoldDown {
    pub(crate) fn new(base: Option<Duration>) -> Self {
        Self { base, until: None }
    }

    /// Hears that the others had taken this node for dead.
    pub(crate) fn handle(&mut self, notice: &Notice, now: Instant) {
        if !notice.is_by_majority() {
            return;
        }
        let until = match self.base {
            None => Until::ToldOtherwise,
            Some(base) if base.is_zero() => return,
            Some(base) => {
                let doublings = u32::from(notice.deaths).saturating_sub(1).min(16);
                Until::Then(now + (base * 2_u32.pow(doublings)).min(LONGEST).max(base))
            }
        };
        self.until = Some(match (self.until, until) {
            (Some(Until::ToldOtherwise), _) | (_, Until::ToldOtherwise) => Until::ToldOtherwise,
            (Some(Until::Then(a)), Until::Then(b)) => Until::Then(a.max(b)),
            (None, until) => until,
        });
    }

    pub(crate) fn is_on(&self, now: Instant) -> bool {
        match self.until {
            None => false,
            Some(Until::Then(then)) => now < then,
            Some(Until::ToldOtherwise) => true,
        }
    }

    /// When it ends by itself.
    pub(crate) fn ends_at(&self) -> Option<Instant> {
        match self.until {
            None | Some(Until::ToldOtherwise) => None,
            Some(Until::Then(then)) => Some(then),
        }
    }
}

/// Chosen: above the time in which a host that keeps crashing reboots.
const LONGEST: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use garpike_election::NodeName;

    use super::*;
    use crate::notice::Force;
    use crate::watch::votes::Charge;
    use crate::{Generation, Identity, ProcessId};

    const BASE: Duration = Duration::from_secs(30);

    #[test]
    fn it_doubles_with_every_death_up_to_ten_minutes() {
        for (deaths, seconds) in [(1, 30), (2, 60), (3, 120), (5, 480), (6, 600), (1000, 600)] {
            let (mut hold_down, now) = (HoldDown::new(Some(BASE)), start());
            hold_down.handle(&notice(2, deaths), now);
            let end = now + Duration::from_secs(seconds);

            assert_eq!(hold_down.ends_at(), Some(end), "{deaths}");
            assert!(hold_down.is_on(end - Duration::from_millis(1)) && !hold_down.is_on(end));
        }
    }

    #[test]
    fn a_minority_and_a_base_of_zero_hold_nobody_down() {
        for (base, holders) in [(BASE, 1), (Duration::ZERO, 2)] {
            let (mut hold_down, now) = (HoldDown::new(Some(base)), start());
            hold_down.handle(&notice(holders, 1), now);

            assert!(!hold_down.is_on(now));
        }
    }

    #[test]
    fn never_has_no_end() {
        let (mut hold_down, now) = (HoldDown::new(None), start());
        hold_down.handle(&notice(2, 1), now);

        assert!(hold_down.is_on(now + Duration::from_secs(1_000_000)));
        assert_eq!(hold_down.ends_at(), None);
    }

    fn notice(holders: u16, deaths: u16) -> Notice {
        let subject = Identity {
            name: NodeName::new("n1").unwrap(),
            generation: Generation(1),
            process: ProcessId(1),
            gossip: "192.0.2.1:7946".parse().unwrap(),
        };
        let (charge, force) = (Charge::HostDead, Force::InForce);
        Notice { subject, charge, force, version: 1, holders, known: 3, deaths, silent_ms: 160 }
    }

    #[expect(clippy::disallowed_methods, reason = "a test makes its own time from one reading")]
    fn start() -> Instant {
        Instant::now()
    }
}
