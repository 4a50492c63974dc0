//! When a suspicion of ours becomes a verdict.
//!
//! foca starts a timer when a probe fails, and declares the member dead when it ends. Three things stand between: the
//! suspect is told, so that it can refute at once; a refuted suspicion ends (foca would still send the member away);
//! and while we hear from nobody at all, the fault is probably ours and the verdict waits.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use foca::{Incarnation, Member, State, Timer};
use garpike_election::NodeName;

use crate::Identity;
use crate::config::{HEARING_AGAIN, HOLD_BACK_FOR, HOLD_BACK_TIMES, SILENCE};

/// Whether we hear the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hearing {
    last: Instant,
    since: Instant,
}

impl Hearing {
    pub(crate) fn new(now: Instant) -> Self {
        Self { last: now, since: now }
    }

    pub(crate) fn heard(&mut self, now: Instant) {
        if self.is_silent(now) {
            self.since = now;
        }
        self.last = now;
    }

    /// Whether nobody has been heard for too long.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) > SILENCE
    }

    /// Whether we hear, and have heard for long enough to judge others.
    fn can_judge(&self, now: Instant) -> bool {
        !self.is_silent(now) && now.saturating_duration_since(self.since) >= HEARING_AGAIN
    }
}

/// The members that we suspect.
#[derive(Debug, Default)]
pub(crate) struct Suspicions(BTreeMap<NodeName, Suspicion>);

#[derive(Debug)]
struct Suspicion {
    timer: Timer<Identity>,
    suspect: Identity,
    incarnation: Incarnation,
    held_back: u32,
}

/// What becomes of a suspicion whose time is up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The member has refuted, or is gone otherwise.
    Refuted,
    /// Ask again after this time.
    HeldBack(Duration),
    /// It is dead.
    Down,
}

/// Whether foca's timer is to be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Begun {
    New,
    /// There is one already: foca makes one at every failed probe.
    Already,
}

impl Suspicions {
    /// Takes note of a timer that foca starts; others than `ChangeSuspectToDown` are not meant for here.
    pub(crate) fn begin(&mut self, timer: &Timer<Identity>, suspect: &Identity, incarnation: Incarnation) -> Begun {
        if self.0.get(&suspect.name).is_some_and(|suspicion| suspicion.timer == *timer) {
            return Begun::Already;
        }
        let suspicion = Suspicion { timer: timer.clone(), suspect: suspect.clone(), incarnation, held_back: 0 };
        self.0.insert(suspect.name.clone(), suspicion);
        Begun::New
    }

    /// Judges a suspicion whose timer has ended; `known` is the member of that name as foca knows it.
    pub(crate) fn judge(
        &mut self,
        suspect: &Identity,
        incarnation: Incarnation,
        known: Option<&Member<Identity>>,
        hearing: Hearing,
        now: Instant,
    ) -> Verdict {
        let stands = known.is_some_and(|known| is_suspected(known, suspect, incarnation));
        let suspicion = self.0.get_mut(&suspect.name).filter(|suspicion| suspicion.suspect == *suspect);
        let verdict = match suspicion {
            _ if !stands => Verdict::Refuted,
            Some(suspicion) if !hearing.can_judge(now) && suspicion.held_back < HOLD_BACK_TIMES => {
                suspicion.held_back += 1;
                return Verdict::HeldBack(HOLD_BACK_FOR);
            }
            Some(_) | None => Verdict::Down,
        };
        self.0.remove(&suspect.name);
        verdict
    }

    /// The suspicions that still stand, given what foca knows of a name; the others are forgotten.
    pub(crate) fn standing<'a>(
        &mut self,
        known: impl Fn(&NodeName) -> Option<&'a Member<Identity>>,
    ) -> Vec<(Identity, Incarnation)> {
        self.0.retain(|name, suspicion| {
            known(name).is_some_and(|known| is_suspected(known, &suspicion.suspect, suspicion.incarnation))
        });
        self.0.values().map(|suspicion| (suspicion.suspect.clone(), suspicion.incarnation)).collect()
    }
}

/// Exactly this identity at exactly this incarnation is suspected. A refutation raises the incarnation.
fn is_suspected(known: &Member<Identity>, suspect: &Identity, incarnation: Incarnation) -> bool {
    known.id() == suspect && known.incarnation() == incarnation && known.state() == State::Suspect
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Generation, ProcessId};

    #[test]
    fn a_standing_suspicion_is_a_verdict() {
        let (mut suspicions, now) = (suspicions(), start());
        let hearing = heard_from(now - HEARING_AGAIN, now);

        assert_eq!(judge(&mut suspicions, State::Suspect, 3, hearing, now), Verdict::Down);
    }

    #[test]
    fn a_refuted_suspicion_is_none() {
        let now = start();
        let hearing = heard_from(now - HEARING_AGAIN, now);

        for (state, incarnation) in [(State::Alive, 4), (State::Suspect, 4), (State::Down, 3)] {
            assert_eq!(judge(&mut suspicions(), state, incarnation, hearing, now), Verdict::Refuted);
        }
        assert_eq!(suspicions().judge(&suspect(), 3, None, hearing, now), Verdict::Refuted);
    }

    #[test]
    fn a_verdict_waits_while_nobody_is_heard_but_not_for_ever() {
        let (mut suspicions, now) = (suspicions(), start());
        let hearing = Hearing::new(now - Duration::from_secs(1));

        for _ in 0..HOLD_BACK_TIMES {
            assert_eq!(judge(&mut suspicions, State::Suspect, 3, hearing, now), Verdict::HeldBack(HOLD_BACK_FOR));
        }
        assert_eq!(judge(&mut suspicions, State::Suspect, 3, hearing, now), Verdict::Down);
    }

    #[test]
    fn a_verdict_waits_right_after_a_silence() {
        let (mut suspicions, now) = (suspicions(), start());
        let mut hearing = Hearing::new(now - Duration::from_secs(1));
        hearing.heard(now);

        assert!(matches!(judge(&mut suspicions, State::Suspect, 3, hearing, now), Verdict::HeldBack(_)));
        let later = now + HEARING_AGAIN;
        hearing.heard(later);
        assert_eq!(judge(&mut suspicions, State::Suspect, 3, hearing, later), Verdict::Down);
    }

    #[test]
    fn foca_s_repeated_timers_count_once() {
        let mut suspicions = suspicions();

        assert_eq!(suspicions.begin(&timer(0), &suspect(), 3), Begun::Already);
        assert_eq!(suspicions.begin(&timer(1), &suspect(), 3), Begun::New, "foca has begun anew");
    }

    #[test]
    fn only_standing_suspicions_are_told_to_the_suspect() {
        let mut suspicions = suspicions();
        let known = Member::new(suspect(), 3, State::Suspect);
        assert_eq!(suspicions.standing(|_| Some(&known)), [(suspect(), 3)]);

        let refuted = Member::new(suspect(), 4, State::Alive);
        assert_eq!(suspicions.standing(|_| Some(&refuted)), []);
        assert_eq!(suspicions.standing(|_| Some(&known)), [], "it has ended");
    }

    fn judge(
        suspicions: &mut Suspicions,
        state: State,
        incarnation: Incarnation,
        hearing: Hearing,
        now: Instant,
    ) -> Verdict {
        let known = Member::new(suspect(), incarnation, state);
        suspicions.judge(&suspect(), 3, Some(&known), hearing, now)
    }

    fn suspicions() -> Suspicions {
        let mut suspicions = Suspicions::default();
        assert_eq!(suspicions.begin(&timer(0), &suspect(), 3), Begun::New);
        suspicions
    }

    fn heard_from(since: Instant, last: Instant) -> Hearing {
        Hearing { last, since }
    }

    fn timer(token: u8) -> Timer<Identity> {
        Timer::ChangeSuspectToDown { member_id: suspect(), incarnation: 3, token }
    }

    fn suspect() -> Identity {
        Identity {
            name: NodeName::new("node").unwrap(),
            generation: Generation(1),
            process: ProcessId(1),
            gossip: "192.0.2.1:7946".parse().unwrap(),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test makes its own time from one reading")]
    fn start() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }
}
