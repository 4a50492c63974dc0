//! Self-check: asks for addresses that other nodes own, a few in a second, and judges the answers.
//!
//! The share of questions that the owner answers is what clients see of the service. An answer with another Ethernet
//! address is asked for once more a second later, so that a change of owner excuses it, and told if it comes again and the
//! owner is the same. The questions claim nothing and the answers change nothing.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

use garpike_election::{IfIndex, InterfaceName, MacAddr, NodeName, ServiceIp};
use serde::Serialize;

use super::{Announcer, Claimant, Event, Frame, FrameKind, OUTBOX_DEPTH, push_event};
use crate::stations::Question;
use crate::wire::Message;

/// How a question ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The owner's Ethernet address was told.
    Answered,
    /// Nobody answered within a second.
    Unanswered,
    /// Another Ethernet address was told, twice.
    Wrong,
}

impl Outcome {
    /// The outcome as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unanswered => "unanswered",
            Self::Wrong => "wrong",
        }
    }
}

/// What `/state.json` shows of the checks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SelfCheckStatus {
    /// Questions that the owner answered.
    pub answered: u64,
    /// Questions that nobody answered.
    pub unanswered: u64,
    /// Questions that somebody else answered.
    pub wrong: u64,
    /// The wrong answers of the last minute.
    pub wrong_answers: BTreeMap<ServiceIp, WrongAnswer>,
}

/// An answer by somebody else than the owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WrongAnswer {
    /// The Ethernet address that was told.
    pub mac: MacAddr,
    /// Whose it is.
    pub by: String,
    /// Who should have answered.
    pub owner: NodeName,
    /// Where it was heard.
    pub interface: InterfaceName,
}

/// The questions and what became of them.
#[derive(Debug, Default)]
pub(super) struct SelfCheck {
    next_at: Option<Instant>,
    last: Option<ServiceIp>,
    open: BTreeMap<ServiceIp, Check>,
    /// What was told within the last minute.
    told: BTreeMap<ServiceIp, (Instant, WrongAnswer)>,
    answered: u64,
    unanswered: u64,
    wrong: u64,
}

/// A question.
#[derive(Debug)]
struct Check {
    owner: NodeName,
    until: Instant,
    round: Round,
    right: bool,
    wrong: Option<(IfIndex, MacAddr, Claimant)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    First,
    /// The first was answered wrongly.
    Second,
}

impl SelfCheck {
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.open.values().map(|check| check.until).chain(self.next_at).min()
    }

    pub(super) fn status(&self) -> SelfCheckStatus {
        SelfCheckStatus {
            answered: self.answered,
            unanswered: self.unanswered,
            wrong: self.wrong,
            wrong_answers: self.told.iter().map(|(ip, (_, wrong))| (*ip, wrong.clone())).collect(),
        }
    }
}

impl Announcer {
    /// Begins or ends the checks, as there is something to check.
    pub(super) fn follow_self_check(&mut self, now: Instant) {
        let interval = self.check_interval().filter(|_| !self.peers.elsewhere.is_empty());
        self.self_check.next_at = interval.map(|interval| self.self_check.next_at.unwrap_or(now + interval));
    }

    /// Asks what is due and judges what was asked.
    pub(super) fn tend_self_check(&mut self, now: Instant) {
        while let Some(ip) = self.self_check.open.iter().find(|(_, check)| check.until <= now).map(|(ip, _)| *ip) {
            if let Some(check) = self.self_check.open.remove(&ip) {
                self.judge(ip, check, now);
            }
        }
        if self.self_check.next_at.is_none_or(|at| now < at) {
            return;
        }
        self.self_check.next_at = self.check_interval().map(|interval| now + interval);
        for _ in 0..LOOKED_AT {
            let Some(ip) = self.next_to_check() else { return };
            if self.self_check.open.contains_key(&ip) || self.ask_owner(ip, Round::First, now) {
                return;
            }
        }
    }

    /// Whether the message answers a question of a check.
    pub(super) fn hear_check(&mut self, interface: IfIndex, message: &Message) -> bool {
        if self.self_check.open.is_empty() {
            return false;
        }
        let to_us = self.ports.get(&interface).is_some_and(|port| port.mac == message.ethernet().destination);
        let Some(claim) = message.claim().filter(|_| to_us) else { return false };
        let Ok(ip) = ServiceIp::new(claim.ip) else { return false };
        if !self.self_check.open.contains_key(&ip) {
            return false;
        }
        let by = self.claimant(interface, message, claim);
        let Some(check) = self.self_check.open.get_mut(&ip) else { return false };
        let is_owner = match &by {
            Claimant::Member(node) | Claimant::Dead(node) => *node == check.owner,
            Claimant::Gateway | Claimant::Stranger => false,
        };
        if is_owner {
            check.right = true;
        } else {
            check.wrong = Some((interface, claim.mac, by));
        }
        true
    }

    fn judge(&mut self, ip: ServiceIp, check: Check, now: Instant) {
        let Check { owner, round, right, wrong, .. } = check;
        let outcome = match (wrong, round) {
            (None, _) if right => Outcome::Answered,
            (None, _) => Outcome::Unanswered,
            // It has another owner, or none: whoever answered did so by its old duties.
            (Some(_), _) if self.peers.elsewhere.get(&ip) != Some(&owner) => return,
            (Some(_), Round::First) => {
                self.ask_owner(ip, Round::Second, now);
                return;
            }
            (Some((interface, mac, by)), Round::Second) => {
                self.tell_wrong(ip, owner, (interface, mac, by), now);
                Outcome::Wrong
            }
        };
        match outcome {
            Outcome::Answered => self.self_check.answered += 1,
            Outcome::Unanswered => self.self_check.unanswered += 1,
            Outcome::Wrong => self.self_check.wrong += 1,
        }
        push_event(&mut self.events, Event::Checked { outcome });
    }

    fn tell_wrong(&mut self, ip: ServiceIp, owner: NodeName, heard: (IfIndex, MacAddr, Claimant), now: Instant) {
        let (interface, mac, by) = heard;
        self.self_check.told.retain(|_, (at, _)| now < *at + TOLD_FOR);
        let Some(interface) = self.ports.get(&interface).map(|port| port.name.clone()) else { return };
        if self.self_check.told.contains_key(&ip) || self.self_check.told.len() >= MAX_TOLD {
            return;
        }
        let wrong = WrongAnswer { mac, by: by.to_string(), owner: owner.clone(), interface: interface.clone() };
        self.self_check.told.insert(ip, (now, wrong));
        push_event(&mut self.events, Event::WrongAnswer { ip, mac, by, owner, interface });
    }

    /// The next address of another node, in turn.
    fn next_to_check(&mut self) -> Option<ServiceIp> {
        let elsewhere = &self.peers.elsewhere;
        let behind = self.self_check.last.map_or(Bound::Unbounded, Bound::Excluded);
        let next = elsewhere.range((behind, Bound::Unbounded)).next().or_else(|| elsewhere.first_key_value());
        self.self_check.last = next.map(|(ip, _)| *ip);
        self.self_check.last
    }

    /// Asks everybody on the segments of the owner. `false`: none is known.
    fn ask_owner(&mut self, ip: ServiceIp, round: Round, now: Instant) -> bool {
        let Some(owner) = self.peers.elsewhere.get(&ip).cloned() else { return false };
        let Some(member) = self.peers.member(&owner) else { return false };
        let mut asked = false;
        for (index, _) in self.ways_to(member) {
            let link = self.links.as_ref().and_then(|links| links.links.get(&index));
            let Some((port, link)) = self.ports.get(&index).zip(link) else { continue };
            let question = port.question(Question { ip: ip.addr(), mac: None }, &link.nets);
            if let Some(question) = question.filter(|_| self.outbox.len() < OUTBOX_DEPTH) {
                let (ip, kind) = (ip.addr(), FrameKind::Question);
                self.outbox.push_back(Frame { interface: index, ip, kind, bytes: question.emit() });
                asked = true;
            }
        }
        if asked {
            let check = Check { owner, until: now + ANSWERS_WITHIN, round, right: false, wrong: None };
            self.self_check.open.insert(ip, check);
        }
        asked
    }

    /// From one question to the next: the nodes of a large cluster together ask no more than those of a small one.
    fn check_interval(&self) -> Option<Duration> {
        let shared = SHARED_INTERVAL * u32::try_from(self.peers.count()).unwrap_or(u32::MAX);
        self.config.self_check_interval.map(|interval| interval.max(shared))
    }
}

/// Chosen: 50 questions in a second on a segment, however many nodes there are.
const SHARED_INTERVAL: Duration = Duration::from_millis(20);
/// Chosen: a client that waits for longer gives up as well.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// Chosen: addresses in a row that cannot be asked for, before it is tried again at the next time.
const LOOKED_AT: usize = 32;
/// Chosen: often enough to be seen by whoever looks for it.
const TOLD_FOR: Duration = Duration::from_secs(60);
/// Chosen: more than a person reads.
const MAX_TOLD: usize = 64;
