//! What the other watchers say about a subject.
//!
//! A vote is repeated while it stands and counts for a few repetitions, so that two votes are about the same silence.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use garpike_election::NodeName;
use serde::{Deserialize, Serialize};

/// What a watcher says of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) enum Charge {
    /// Its speaker does not answer; its host does.
    SpeakerGone,
    /// Neither does.
    HostDead,
}

impl Charge {
    /// The word for it in logs and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::SpeakerGone => "speaker_gone",
            Self::HostDead => "host_dead",
        }
    }
}

/// The votes of others about one subject, by voter.
#[derive(Debug, Default)]
pub(crate) struct Votes(BTreeMap<NodeName, (Charge, Instant)>);

impl Votes {
    pub(crate) fn cast(&mut self, voter: NodeName, charge: Charge, now: Instant) {
        if self.0.len() < VOTERS_MAX || self.0.contains_key(&voter) {
            self.0.insert(voter, (charge, now));
        }
    }

    pub(crate) fn retract(&mut self, voter: &NodeName) {
        self.0.remove(voter);
    }

    /// The verdict that `own` and the votes of the last `valid` make together: whoever saw the host alive is right.
    pub(crate) fn verdict(&self, own: Charge, valid: Duration, now: Instant) -> Option<(Charge, Vec<NodeName>)> {
        let fresh = || self.0.iter().filter(|(_, (_, at))| now.saturating_duration_since(*at) <= valid);
        let voters: Vec<NodeName> = fresh().map(|(voter, _)| voter.clone()).collect();
        let charge = fresh().map(|(_, (charge, _))| *charge).fold(own, Charge::min);
        (1 + voters.len() >= QUORUM).then_some((charge, voters))
    }

    /// Whoever has voted lately wants to know how others vote.
    pub(crate) fn voters(&self) -> impl Iterator<Item = &NodeName> {
        self.0.keys()
    }

    pub(crate) fn forget_before(&mut self, then: Instant) {
        self.0.retain(|_, (_, at)| *at >= then);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How many watchers must agree. Simulated: one alone is wrong whenever its own receiver is.
const QUORUM: usize = 2;

/// Chosen: the watchers, and as many that were asked besides.
const VOTERS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: Duration = Duration::from_millis(60);

    #[test]
    fn one_vote_is_no_verdict() {
        assert_eq!(Votes::default().verdict(Charge::HostDead, VALID, start()), None);
    }

    #[test]
    fn two_votes_are_and_a_living_host_outweighs_its_silence_elsewhere() {
        use Charge::{HostDead, SpeakerGone};
        let now = start();
        for (own, other, expected) in [
            (HostDead, HostDead, HostDead),
            (HostDead, SpeakerGone, SpeakerGone),
            (SpeakerGone, HostDead, SpeakerGone),
            (SpeakerGone, SpeakerGone, SpeakerGone),
        ] {
            let mut votes = Votes::default();
            votes.cast(name("b"), other, now);
            assert_eq!(votes.verdict(own, VALID, now), Some((expected, vec![name("b")])), "{own:?} and {other:?}");
        }
    }

    #[test]
    fn votes_that_are_old_or_retracted_do_not_count() {
        let (mut votes, now) = (Votes::default(), start());
        votes.cast(name("b"), Charge::HostDead, now);
        assert_eq!(votes.verdict(Charge::HostDead, VALID, now + VALID * 2), None);

        votes.cast(name("b"), Charge::HostDead, now + VALID * 2);
        votes.retract(&name("b"));
        assert_eq!(votes.verdict(Charge::HostDead, VALID, now + VALID * 2), None);
    }

    #[test]
    fn a_voter_counts_once_and_there_is_a_limit() {
        let (mut votes, now) = (Votes::default(), start());
        for i in 0..100 {
            votes.cast(name(&format!("n{i}")), Charge::HostDead, now);
            votes.cast(name("n0"), Charge::HostDead, now);
        }

        assert_eq!(votes.verdict(Charge::HostDead, VALID, now).unwrap().1.len(), VOTERS_MAX);
    }

    fn name(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "a test makes its own time from one reading")]
    fn start() -> Instant {
        Instant::now()
    }
}
