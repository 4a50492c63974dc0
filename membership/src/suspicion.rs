//! What becomes of foca's suspicions.
//!
//! foca starts a timer when a probe fails, and declares the member dead when it ends. Here the suspect is told, so that it
//! can refute at once; a refuted suspicion ends (foca would still send the member away); and one that stands is no verdict,
//! but makes this node look after the member as its watchers do.

use std::collections::BTreeMap;

use foca::{Incarnation, Member, State, Timer};
use garpike_election::NodeName;

use crate::Identity;

/// The members that we suspect.
#[derive(Debug, Default)]
pub(crate) struct Suspicions(BTreeMap<NodeName, Suspicion>);

#[derive(Debug)]
struct Suspicion {
    timer: Timer<Identity>,
    suspect: Identity,
    incarnation: Incarnation,
}

/// What becomes of a suspicion whose time is up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The member has refuted, or is gone otherwise.
    Refuted,
    /// It has not.
    Stands,
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
        let suspicion = Suspicion { timer: timer.clone(), suspect: suspect.clone(), incarnation };
        self.0.insert(suspect.name.clone(), suspicion);
        Begun::New
    }

    /// Ends a suspicion whose timer has ended; `known` is the member of that name as foca knows it.
    pub(crate) fn end(
        &mut self,
        suspect: &Identity,
        incarnation: Incarnation,
        known: Option<&Member<Identity>>,
    ) -> Outcome {
        self.0.remove(&suspect.name);
        let stands = known.is_some_and(|known| is_suspected(known, suspect, incarnation));
        if stands { Outcome::Stands } else { Outcome::Refuted }
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
    fn a_suspicion_stands_until_it_is_refuted() {
        for (state, incarnation, expected) in [
            (State::Suspect, 3, Outcome::Stands),
            (State::Alive, 4, Outcome::Refuted),
            (State::Suspect, 4, Outcome::Refuted),
            (State::Down, 3, Outcome::Refuted),
        ] {
            let known = Member::new(suspect(), incarnation, state);
            assert_eq!(suspicions().end(&suspect(), 3, Some(&known)), expected, "{state:?} {incarnation}");
        }
        assert_eq!(suspicions().end(&suspect(), 3, None), Outcome::Refuted);
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

    fn suspicions() -> Suspicions {
        let mut suspicions = Suspicions::default();
        assert_eq!(suspicions.begin(&timer(0), &suspect(), 3), Begun::New);
        suspicions
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
}
