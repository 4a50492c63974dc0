//! Whether this node has lost a gateway that its neighbours still reach.
//!
//! A gateway that restarts is silent for all, who notice it one after the other: nobody must be ranked behind others for
//! that. So a node says first that its gateway is silent, and is a worse owner only when a neighbour hears it and does not
//! say the same for a while.

use std::time::{Duration, Instant};

use crate::facts::News;

/// What is found at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Finding {
    /// No gateway is missed.
    Reached,
    /// A gateway is silent here, and some neighbour that is heard misses none.
    LostHere,
    /// A gateway is silent, and who would know better is not heard, or misses it as well.
    LostEverywhere,
}

/// What has been found lately.
#[derive(Debug, Default)]
pub(crate) struct LostGateway {
    /// The latest finding, and since when.
    found: Option<(Finding, Instant)>,
    handicap: bool,
}

impl LostGateway {
    /// Takes what is found at `now`; tells whether that makes this node another owner than it was.
    pub(crate) fn handle(&mut self, finding: Finding, now: Instant) -> News {
        let since = match self.found {
            Some((before, since)) if before == finding => since,
            Some(_) | None => now,
        };
        self.found = Some((finding, since));
        let lasts = now.saturating_duration_since(since);
        let handicap = match finding {
            Finding::Reached => self.handicap && lasts < BACK_FOR,
            Finding::LostHere => self.handicap || lasts >= LOST_FOR,
            Finding::LostEverywhere => self.handicap,
        };
        let changed = handicap != self.handicap;
        self.handicap = handicap;
        if changed { News::Yes } else { News::No }
    }

    /// Whether this node is a worse owner than others.
    pub(crate) fn is_handicap(&self) -> bool {
        self.handicap
    }
}

/// Chosen: twice the time in which neighbours that are told look for themselves (three questions, a second apart).
const LOST_FOR: Duration = Duration::from_secs(10);
/// Chosen: a gateway that is only sometimes there must not move addresses back and forth.
const BACK_FOR: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_this_node_has_lost_for_ten_seconds_is_a_handicap_until_it_is_back_for_thirty() {
        let steps = [
            (0, Finding::Reached, false),
            (1, Finding::LostHere, false),
            (10, Finding::LostHere, false),
            (11, Finding::LostHere, true),
            (20, Finding::Reached, true),
            (40, Finding::LostHere, true),
            (41, Finding::Reached, true),
            (70, Finding::Reached, true),
            (71, Finding::Reached, false),
        ];
        follow(&steps);
    }

    #[test]
    fn what_all_have_lost_is_none_and_ends_none() {
        let steps = [
            (0, Finding::LostHere, false),
            (4, Finding::LostEverywhere, false),
            (100, Finding::LostEverywhere, false),
            // The first of all to hear it again.
            (101, Finding::LostHere, false),
            (103, Finding::Reached, false),
            (110, Finding::LostHere, false),
            (120, Finding::LostHere, true),
            (130, Finding::LostEverywhere, true),
            (500, Finding::LostEverywhere, true),
        ];
        follow(&steps);
    }

    fn follow(steps: &[(u64, Finding, bool)]) {
        let (mut gateway, begin) = (LostGateway::default(), start());
        for (second, finding, handicap) in steps {
            let before = gateway.is_handicap();
            let news = gateway.handle(*finding, begin + Duration::from_secs(*second));
            assert_eq!(gateway.is_handicap(), *handicap, "after {second} s");
            assert_eq!(news == News::Yes, before != *handicap, "after {second} s");
        }
    }

    #[expect(clippy::disallowed_methods, reason = "virtual time begins at one reading")]
    fn start() -> Instant {
        Instant::now()
    }
}
