//! Who has proved to be alive, and which of their datagrams have been seen.
//!
//! The key alone does not show that a datagram is fresh: it may have been recorded. Three things together do. A datagram
//! names the process that it is meant for, so it is of no use against another node or a later life of the same one. Its
//! sequence number counts once. And a sender of whom no numbers are known is first asked to return a random nonce; its
//! datagram is held until it does.
//!
//! ```text
//!          a datagram          the nonce comes back
//! unknown ───────────► asked ──────────────────────► proven ──► forgotten after 10 minutes without a datagram
//!            ▲           │ 2 s without an answer
//!            └───────────┘
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use garpike_election::NodeName;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::datagram::{Datagram, Sender};
use crate::replay::{Freshness, Window};
use crate::{Path, ProcessId, Rejected};

/// What a challenged process returns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Nonce([u8; Self::LEN]);

impl Nonce {
    pub(crate) const LEN: usize = 16;

    pub(crate) fn split(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (nonce, rest) = payload.split_first_chunk()?;
        Some((Self(*nonce), rest))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The nonce, and `rest` behind it.
    pub(crate) fn with(&self, rest: &[u8]) -> Vec<u8> {
        [&self.0, rest].concat()
    }
}

/// The state of the table above for every sender.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    proven: BTreeMap<ProcessId, Session>,
    asked: BTreeMap<Nonce, Question>,
    /// The nonces of the senders among those who are asked.
    nonces: BTreeMap<Sender, Nonce>,
    answered: AnswersOfSecond,
}

#[derive(Debug)]
struct Session {
    name: NodeName,
    window: Window,
    heard: Instant,
}

#[derive(Debug)]
struct Question {
    to: Asked,
    at: Instant,
}

#[derive(Debug)]
enum Asked {
    /// Whoever is at a seed address.
    Seed(SocketAddr),
    /// A sender that was heard.
    Sender(Sender, Held),
}

/// A datagram that waits for its sender's answer.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) from: Path,
    /// Without its envelope.
    pub(crate) text: Vec<u8>,
}

/// What an answer brings.
#[derive(Debug)]
pub(crate) enum Answered {
    /// The process at this seed address lives.
    Seed(SocketAddr),
    /// A sender lives; its datagram can be handled.
    Sender(Held),
}

impl Sessions {
    /// Lets a datagram of a proven sender pass once; gives the sender's name.
    pub(crate) fn admit(&mut self, datagram: &Datagram<'_>, now: Instant) -> Result<NodeName, Rejected> {
        let session = self.proven.get_mut(&datagram.process).ok_or(Rejected::Unproven)?;
        if session.name.as_str() != datagram.name {
            return Err(Rejected::Malformed);
        }
        match session.window.accept(datagram.sequence) {
            Freshness::New => {
                session.heard = now;
                Ok(session.name.clone())
            }
            Freshness::Seen => Err(Rejected::Replayed),
            Freshness::TooOld => Err(Rejected::TooOld),
        }
    }

    /// A nonce for whoever is at a seed address; an earlier one for it is void.
    pub(crate) fn ask_seed(&mut self, seed: SocketAddr, rng: &mut StdRng, now: Instant) -> Nonce {
        self.asked.retain(|_, question| !matches!(question.to, Asked::Seed(addr) if addr == seed));
        self.ask(Asked::Seed(seed), rng, now)
    }

    /// Holds the datagram of an unproven sender; gives the nonce to ask the sender with, unless it was asked just now.
    pub(crate) fn hold(
        &mut self,
        sender: &Sender,
        held: Held,
        rng: &mut StdRng,
        now: Instant,
    ) -> Result<Option<Nonce>, Rejected> {
        if let Some(nonce) = self.nonces.get(sender).copied()
            && let Some(Question { to: Asked::Sender(_, waiting), at }) = self.asked.get_mut(&nonce)
            && now.saturating_duration_since(*at) < ANSWER_WITHIN
        {
            if now.saturating_duration_since(*at) < ASK_AGAIN_AFTER {
                return Ok(None);
            }
            (*waiting, *at) = (held, now);
            return Ok(Some(nonce));
        }
        if self.nonces.len() >= ASKED_MAX {
            self.forget_unanswered(now);
        }
        if self.nonces.len() >= ASKED_MAX {
            return Err(Rejected::Busy);
        }
        let nonce = self.ask(Asked::Sender(sender.clone(), held), rng, now);
        if let Some(outdated) = self.nonces.insert(sender.clone(), nonce) {
            self.asked.remove(&outdated);
        }
        Ok(Some(nonce))
    }

    /// Takes the answer of `sender`: from here on it is proven.
    pub(crate) fn answered(
        &mut self,
        nonce: Nonce,
        sender: &Sender,
        sequence: u64,
        now: Instant,
    ) -> Result<Answered, Rejected> {
        let question = self.asked.remove(&nonce).ok_or(Rejected::Unasked)?;
        if let Asked::Sender(asked, _) = &question.to {
            self.nonces.remove(asked);
        }
        if now.saturating_duration_since(question.at) >= ANSWER_WITHIN {
            return Err(Rejected::Unasked);
        }
        let answered = match question.to {
            Asked::Seed(addr) => Answered::Seed(addr),
            Asked::Sender(asked, held) if asked == *sender => Answered::Sender(held),
            Asked::Sender(..) => return Err(Rejected::Unasked),
        };
        if !self.proven.contains_key(&sender.process) {
            if self.proven.len() >= PROVEN_MAX {
                self.forget_silent(now);
            }
            if self.proven.len() >= PROVEN_MAX {
                return Err(Rejected::Busy);
            }
            // Datagrams sent shortly before the answer may still be on their way: they count, once.
            let window = Window::starting_at(sequence);
            self.proven.insert(sender.process, Session { name: sender.name.clone(), window, heard: now });
        }
        Ok(answered)
    }

    /// The seed address that was asked with `nonce`: when it comes back to ourselves, that address is our own.
    pub(crate) fn seed_asked_with(&self, nonce: Nonce) -> Option<SocketAddr> {
        match self.asked.get(&nonce)?.to {
            Asked::Seed(addr) => Some(addr),
            Asked::Sender(..) => None,
        }
    }

    /// Whether a challenge from `source` may be answered: anybody can replay challenges, so there is a limit.
    pub(crate) fn may_answer(&mut self, source: &Path, now: Instant) -> Result<(), Rejected> {
        self.answered.count(source, now)
    }

    /// Forgets senders that have been silent for long. They will be asked again; until then their sequence numbers have
    /// gone on by far more than a window.
    pub(crate) fn forget_silent(&mut self, now: Instant) {
        self.proven.retain(|_, session| now.saturating_duration_since(session.heard) < FORGET_AFTER);
        self.forget_unanswered(now);
    }

    fn forget_unanswered(&mut self, now: Instant) {
        self.asked.retain(|_, question| now.saturating_duration_since(question.at) < ANSWER_WITHIN);
        self.nonces.retain(|_, nonce| self.asked.contains_key(nonce));
    }

    fn ask(&mut self, to: Asked, rng: &mut StdRng, now: Instant) -> Nonce {
        let nonce = Nonce(rng.random());
        self.asked.insert(nonce, Question { to, at: now });
        nonce
    }
}

/// How many challenges were answered in the running second, by source.
#[derive(Debug, Default)]
struct AnswersOfSecond {
    began: Option<Instant>,
    counts: BTreeMap<Path, u32>,
}

impl AnswersOfSecond {
    fn count(&mut self, source: &Path, now: Instant) -> Result<(), Rejected> {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= Duration::from_secs(1)) {
            self.began = Some(now);
            self.counts.clear();
        }
        if self.counts.len() >= SOURCES_MAX && !self.counts.contains_key(source) {
            return Err(Rejected::Busy);
        }
        let count = self.counts.entry(source.clone()).or_default();
        if *count >= ANSWERS_PER_SECOND {
            return Err(Rejected::Busy);
        }
        *count += 1;
        Ok(())
    }
}

/// Chosen: an answer takes a round trip; later than this, the datagram is of no use.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Chosen: a lost challenge costs less than a person notices, and a replayed datagram brings at most 50 challenges a second.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Chosen: senders asked at the same time; each holds one datagram of at most 2 KiB. Whoever starts in the largest cluster that
/// is tested hears of all its members within a millisecond.
const ASKED_MAX: usize = 1024;

/// Chosen: processes of which the window is kept, about 250 bytes each.
const PROVEN_MAX: usize = 4096;

/// Chosen: a member that is heard at all is heard every second.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// Chosen: a peer asks once or twice when it starts, and every 0.5 s while it is lost.
const ANSWERS_PER_SECOND: u32 = 10;

/// Chosen: sources answered within one second; above the largest cluster that is tested.
const SOURCES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::datagram::Kind;

    #[test]
    fn a_datagram_is_held_until_its_sender_returns_the_nonce() {
        let (mut sessions, mut rng, now) = (Sessions::default(), rng(), start());

        assert_eq!(admit(&mut sessions, 1, 5, now), Err(Rejected::Unproven));
        let nonce = sessions.hold(&sender(1), held(b"text"), &mut rng, now).unwrap().unwrap();
        let answered = sessions.answered(nonce, &sender(1), 6, now).unwrap();

        assert!(matches!(answered, Answered::Sender(held) if held.text == b"text"));
        assert_eq!(admit(&mut sessions, 1, 5, now), Ok(()), "the held one");
        assert_eq!(admit(&mut sessions, 1, 5, now), Err(Rejected::Replayed));
        assert_eq!(admit(&mut sessions, 1, 6, now), Err(Rejected::Replayed), "the answer itself");
    }

    #[test]
    fn only_the_sender_that_was_asked_can_answer_and_only_once() {
        let (mut sessions, mut rng, now) = (Sessions::default(), rng(), start());
        let nonce = sessions.hold(&sender(1), held(b""), &mut rng, now).unwrap().unwrap();

        assert_eq!(sessions.answered(nonce, &sender(2), 1, now).unwrap_err(), Rejected::Unasked);
        assert_eq!(sessions.answered(nonce, &sender(1), 1, now).unwrap_err(), Rejected::Unasked);
        assert_eq!(admit(&mut sessions, 1, 2, now), Err(Rejected::Unproven));
    }

    #[test]
    fn an_answer_that_takes_too_long_proves_nothing() {
        let (mut sessions, mut rng, now) = (Sessions::default(), rng(), start());
        let nonce = sessions.hold(&sender(1), held(b""), &mut rng, now).unwrap().unwrap();

        let late = now + ANSWER_WITHIN;
        assert_eq!(sessions.answered(nonce, &sender(1), 1, late).unwrap_err(), Rejected::Unasked);
    }

    #[test]
    fn a_sender_is_asked_again_with_its_latest_datagram_but_not_at_once() {
        let (mut sessions, mut rng, now) = (Sessions::default(), rng(), start());
        let nonce = sessions.hold(&sender(1), held(b"first"), &mut rng, now).unwrap();

        assert_eq!(sessions.hold(&sender(1), held(b"second"), &mut rng, now).unwrap(), None);
        let again = sessions.hold(&sender(1), held(b"third"), &mut rng, now + ASK_AGAIN_AFTER).unwrap();

        assert_eq!(again, nonce);
        let answered = sessions.answered(again.unwrap(), &sender(1), 1, now + ASK_AGAIN_AFTER).unwrap();
        assert!(matches!(answered, Answered::Sender(held) if held.text == b"third"));
    }

    #[test]
    fn a_whole_large_cluster_is_asked_at_a_time_and_no_more() {
        let (mut sessions, mut rng, now) = (Sessions::default(), rng(), start());
        for process in 1..=1024 {
            assert!(sessions.hold(&sender(process), held(b""), &mut rng, now).is_ok());
        }

        assert_eq!(sessions.hold(&sender(1025), held(b""), &mut rng, now), Err(Rejected::Busy));
        assert_eq!(sessions.hold(&sender(1), held(b""), &mut rng, now), Ok(None), "it is being asked");
        assert!(sessions.hold(&sender(1025), held(b""), &mut rng, now + ANSWER_WITHIN).is_ok());
    }

    #[test]
    fn a_question_that_was_not_answered_in_time_is_asked_anew() {
        let (mut sessions, mut rng, now) = (Sessions::default(), rng(), start());
        let before = sessions.hold(&sender(1), held(b"first"), &mut rng, now).unwrap().unwrap();

        let late = now + ANSWER_WITHIN;
        let after = sessions.hold(&sender(1), held(b"second"), &mut rng, late).unwrap().unwrap();

        assert_eq!(sessions.answered(before, &sender(1), 1, late).unwrap_err(), Rejected::Unasked);
        let answered = sessions.answered(after, &sender(1), 2, late).unwrap();
        assert!(matches!(answered, Answered::Sender(held) if held.text == b"second"));
        assert_eq!((sessions.asked.len(), sessions.nonces.len()), (0, 0), "nothing is left over");
    }

    #[test]
    fn a_sender_that_was_silent_for_ten_minutes_must_prove_itself_again() {
        let (mut sessions, mut rng, now) = (Sessions::default(), rng(), start());
        let nonce = sessions.hold(&sender(1), held(b""), &mut rng, now).unwrap().unwrap();
        sessions.answered(nonce, &sender(1), 1, now).unwrap();
        assert_eq!(admit(&mut sessions, 1, 2, now), Ok(()));

        sessions.forget_silent(now + FORGET_AFTER);

        assert_eq!(admit(&mut sessions, 1, 3, now), Err(Rejected::Unproven));
    }

    #[test]
    fn challenges_of_one_source_are_answered_ten_times_a_second() {
        let (mut sessions, now) = (Sessions::default(), start());
        let source = |port| Path::Udp(SocketAddr::from(([192, 0, 2, 1], port)));

        for _ in 0..ANSWERS_PER_SECOND {
            assert_eq!(sessions.may_answer(&source(1), now), Ok(()));
        }
        assert_eq!(sessions.may_answer(&source(1), now), Err(Rejected::Busy));
        assert_eq!(sessions.may_answer(&source(2), now), Ok(()));
        assert_eq!(sessions.may_answer(&source(1), now + Duration::from_secs(1)), Ok(()));
    }

    fn admit(sessions: &mut Sessions, process: u64, sequence: u64, now: Instant) -> Result<(), Rejected> {
        let process = ProcessId(process);
        let datagram = Datagram { kind: Kind::Ping, to: None, name: "node", process, sequence, payload: &[] };
        sessions.admit(&datagram, now).map(|name| assert_eq!(name.as_str(), "node"))
    }

    fn sender(process: u64) -> Sender {
        Sender { name: NodeName::new("node").unwrap(), process: ProcessId(process) }
    }

    fn held(text: &[u8]) -> Held {
        Held { from: Path::Udp("192.0.2.1:7946".parse().unwrap()), text: text.to_vec() }
    }

    fn rng() -> StdRng {
        StdRng::seed_from_u64(1)
    }

    #[expect(clippy::disallowed_methods, reason = "a test makes its own time from one reading")]
    fn start() -> Instant {
        Instant::now()
    }
}
