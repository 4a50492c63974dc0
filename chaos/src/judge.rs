//! What must hold in every trial of a scenario. The bounds are generous: figures and targets tell how good it was, an
//! invariant tells that something is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use garpike_election::{MacAddr, NodeName, ServiceIp};

use crate::fleet::Fleet;
use crate::lab::{Asked, Outage, STRANGER};
use crate::observe::Observation;
use crate::report::Finding;
use crate::scenario::{Expected, Onlooker, Scenario};
use crate::script::Wanted;

/// The invariants that are judged in a scenario.
pub(crate) fn invariants(scenario: Scenario) -> BTreeSet<&'static str> {
    let mut judged = BTreeSet::from([VALID, RECOVERS, ONE_OWNER]);
    if only_some_may_be_announced(scenario) {
        judged.insert(ONLY_MOVED_ARE_ANNOUNCED);
    }
    match scenario.expected() {
        Expected::Stay => judged.insert(NO_MOVE_WHILE_THE_HOST_LIVES),
        Expected::HandOver => judged.insert(DONE_AS_ASKED),
        Expected::TakeOver | Expected::Either => false,
    };
    if scenario.has(Onlooker::Connections) {
        judged.insert(NO_RESET);
    }
    if scenario.has(Onlooker::Fresh) {
        judged.insert(WHO_ASKS_IS_TOLD);
    }
    if scenario == Scenario::Heal {
        judged.insert(WINNER_ANNOUNCES_LAST);
    }
    if scenario == Scenario::Conflict {
        judged.insert(DEFENDED);
    }
    if scenario == Scenario::LinkFlap {
        judged.insert(MOVES_SELDOM);
    }
    if scenario == Scenario::UplinkDown {
        judged.insert(SERVED_ONCE_TOLD);
    }
    judged
}

/// What did not hold while the scenario was watched. `owners` is who had what before.
pub(crate) fn judge(
    fleet: &Fleet<'_>,
    observation: &Observation,
    scenario: Scenario,
    owners: &BTreeMap<ServiceIp, NodeName>,
) -> Result<Vec<Finding>> {
    let mut judge = Judge { fleet, observation, scenario, owners, findings: Vec::new() };
    judge.valid();
    judge.recovers();
    judge.asked();
    judge.connections();
    judge.wanted();
    judge.announced_only_what_moved()?;
    match scenario.expected() {
        Expected::Stay => judge.stays()?,
        Expected::HandOver | Expected::TakeOver | Expected::Either => {}
    }
    match scenario {
        Scenario::Heal => judge.winner_announces_last(),
        Scenario::Conflict => judge.defended()?,
        Scenario::UplinkDown => judge.served_once_told()?,
        Scenario::LinkFlap => judge.moves_seldom()?,
        Scenario::Rest
        | Scenario::Crash
        | Scenario::LinkDown
        | Scenario::Kill
        | Scenario::Term
        | Scenario::Freeze
        | Scenario::Rolling
        | Scenario::TermAll
        | Scenario::KillThenCrash
        | Scenario::TermThenCrash
        | Scenario::Partition
        | Scenario::Drain
        | Scenario::Undrain
        | Scenario::Move => {}
    }
    Ok(judge.findings)
}

/// What did not stay where it was, once all is whole again.
pub(crate) fn judge_owners(
    scenario: Scenario,
    victim: &NodeName,
    before: &BTreeMap<ServiceIp, NodeName>,
    after: &BTreeMap<ServiceIp, NodeName>,
) -> Vec<Finding> {
    let may_move = |owner: &NodeName| match scenario.expected() {
        Expected::Stay => false,
        Expected::HandOver | Expected::TakeOver | Expected::Either => owner == victim || scenario == Scenario::Move,
    };
    let stayed = before.iter().filter(|(_, owner)| !may_move(owner));
    let moved = stayed.filter(|(ip, owner)| after.get(ip) != Some(owner));
    let finding = |(ip, owner): (&ServiceIp, &NodeName)| {
        let now = after.get(ip).map_or_else(|| "nobody".to_owned(), ToString::to_string);
        let detail = format!("{ip} of {owner} is answered by {now} after the fault; hit was {victim}");
        Finding { invariant: NO_MOVE_WHILE_THE_HOST_LIVES, detail }
    };
    moved.map(finding).collect()
}

struct Judge<'a> {
    fleet: &'a Fleet<'a>,
    observation: &'a Observation,
    scenario: Scenario,
    owners: &'a BTreeMap<ServiceIp, NodeName>,
    findings: Vec<Finding>,
}

impl Judge<'_> {
    fn found(&mut self, invariant: &'static str, detail: String) {
        self.findings.push(Finding { invariant, detail });
    }

    fn valid(&mut self) {
        let seen = &self.observation.seen;
        let lost = u64::from(seen.missed) + seen.forgotten;
        if lost > 0 {
            self.found(VALID, format!("the tap lost {lost} frames: run the trial again on a calmer machine"));
        }
    }

    fn recovers(&mut self) {
        let Observation { injected, end, records, .. } = self.observation;
        for (ip, record) in records {
            let served_again = record.first_answer_after(*injected).is_some();
            match record.outage(*injected, *end) {
                Outage::Recovered(_) => {}
                Outage::NotAnsweredBefore if self.scenario == Scenario::UplinkDown && served_again => {}
                Outage::NotAnsweredBefore => {
                    self.found(RECOVERS, format!("{ip} was not answered before the fault"));
                }
                Outage::NotRecovered => self.found(RECOVERS, format!("{ip} was never answered again")),
            }
        }
    }

    fn asked(&mut self) {
        let Observation { fresh_from, end, asked, .. } = self.observation;
        for (ip, asked) in asked {
            let longest = longest(asked.waits(*fresh_from..=*end));
            if longest.is_none_or(|longest| longest > TOLD_WITHIN) {
                let waited = longest.map_or_else(|| "in vain".to_owned(), |longest| format!("{longest:?}"));
                self.found(WHO_ASKS_IS_TOLD, format!("a client without a cache waited {waited} for {ip}"));
            }
        }
    }

    fn connections(&mut self) {
        let Some(kept) = self.observation.kept.filter(|kept| kept.resets > 0) else { return };
        self.found(NO_RESET, format!("{} of {} connections were reset", kept.resets, kept.established));
    }

    /// Who answers the client in the end is who should.
    fn wanted(&mut self) {
        let Observation { end, records, seen, victim, holder, wanted: Some(wanted), .. } = self.observation else {
            return;
        };
        if self.scenario == Scenario::Undrain && holder == victim {
            self.found(DONE_AS_ASKED, format!("{victim} was drained and had its addresses all the same"));
        }
        for ip in records.keys() {
            let answers = self.fleet.answered_by(seen, ip.addr(), *end);
            let right = match (wanted, &answers) {
                (Wanted::At(node), Some(answers)) => node == answers,
                (Wanted::Elsewhere(node), Some(answers)) => node != answers,
                (Wanted::At(_) | Wanted::Elsewhere(_), None) => false,
            };
            if !right {
                let answers = answers.map_or_else(|| "nobody".to_owned(), |node| node.to_string());
                self.found(DONE_AS_ASKED, format!("{ip} is at {answers}, wanted: {wanted:?}"));
            }
        }
    }

    /// The owner may repeat itself, as it does for minutes and then now and then; it begins no campaign anew.
    fn announced_only_what_moved(&mut self) -> Result<()> {
        let Observation { injected, end, seen, victim, .. } = self.observation;
        if !only_some_may_be_announced(self.scenario) {
            return Ok(());
        }
        for (ip, owner) in self.owners {
            let window = *injected..=*end;
            let mac = self.fleet.lab.host(owner)?.mac;
            let repeats = seen.announced_by(ip.addr(), mac, window.clone());
            let mut others = seen.announcers(ip.addr(), window);
            others.remove(&mac);
            let anew = repeats.windows(FORMS + 1).any(|few| {
                few.first().zip(few.last()).is_some_and(|(first, last)| last.duration_since(*first) < FIRST_STEPS)
            });
            let is_hit = owner == victim && self.scenario != Scenario::Rest;
            if !is_hit && (anew || !others.is_empty()) {
                let frames = seen.announced(ip.addr(), *injected..=*end);
                let by = self.scenario.name();
                let detail = format!(
                    "{frames} frames announced {ip} of {owner}, some of them by {others:?}; hit was {victim} by {by}"
                );
                self.found(ONLY_MOVED_ARE_ANNOUNCED, detail);
            }
        }
        Ok(())
    }

    /// Nobody but its owner is said to have an address, a client that asks is told so, and the host itself serves.
    fn stays(&mut self) -> Result<()> {
        let Observation { injected, end, seen, asked, emptied, records, victim, .. } = self.observation;
        let until = emptied.as_ref().map_or(*end, |emptied| *emptied.end());
        for (ip, owner) in self.owners {
            let mac = self.fleet.lab.host(owner)?.mac;
            let mut said: BTreeSet<MacAddr> = seen.claimants(ip.addr(), *injected..=until);
            said.extend(seen.answering(ip.addr(), *injected..=until));
            said.extend(asked.get(ip).map(|asked| asked.macs(*injected..=*end)).unwrap_or_default());
            said.retain(|other| *other != mac && *other != STRANGER);
            if !said.is_empty() {
                let detail = format!("{ip} of {owner} was claimed or served by {said:?}; hit was {victim}");
                self.found(NO_MOVE_WHILE_THE_HOST_LIVES, detail);
            }
            let told = || {
                let emptied = emptied.as_ref()?;
                seen.claimants(ip.addr(), emptied.clone()).contains(&mac).then_some(())
            };
            if records.contains_key(ip) && told().is_none() {
                let detail = format!("a client that asked for {ip} was not told that it is at {owner} ({mac})");
                self.found(NO_MOVE_WHILE_THE_HOST_LIVES, detail);
            }
        }
        Ok(())
    }

    fn winner_announces_last(&mut self) {
        let Observation { injected, end, seen, asked, .. } = self.observation;
        for (ip, asked) in asked {
            let last = seen.last_announcer(ip.addr(), *injected..=*end);
            let winner = asked.last_told(*injected..=*end);
            if let (Some(last), Some(winner)) = (last, winner)
                && last != winner
            {
                self.found(WINNER_ANNOUNCES_LAST, format!("{ip} is at {winner}, and {last} announced it last"));
            }
        }
    }

    /// The first claim of the stranger is answered, and the next ones no more often than RFC 5227 allows.
    fn defended(&mut self) -> Result<()> {
        let Observation { injected, end, seen, records, victim, .. } = self.observation;
        let mac = self.fleet.lab.host(victim)?.mac;
        for ip in records.keys() {
            let announced = seen.announced_by(ip.addr(), mac, *injected..=*end);
            let claimed = seen.announced_by(ip.addr(), STRANGER, *injected..=*end).first().copied();
            let defended = announced.first().copied();
            let late = claimed.zip(defended).map(|(claimed, defended)| defended.saturating_duration_since(claimed));
            if late.is_none_or(|late| late > DEFENDED_WITHIN) {
                self.found(DEFENDED, format!("{ip} was defended {late:?} after it was claimed"));
            }
            // Frames that belong together, of which one announcement may be the refresh that is due now and then.
            let bursts = announced.windows(2).filter(|pair| match pair {
                [before, after] => after.saturating_duration_since(*before) > BURST,
                _ => false,
            });
            let (bursts, watched) = (1 + bursts.count() as u64, end.saturating_duration_since(*injected));
            let allowed = 2 + watched.as_secs() / DEFEND_INTERVAL.as_secs();
            if bursts > allowed {
                self.found(DEFENDED, format!("{ip} was announced {bursts} times within {watched:?}"));
            }
        }
        Ok(())
    }

    /// A switch of an EVPN fabric freezes an address that moves more often.
    fn moves_seldom(&mut self) -> Result<()> {
        let Observation { injected, end, seen, records, holder, .. } = self.observation;
        let from = self.fleet.lab.host(holder)?.mac;
        for ip in records.keys() {
            let moves = seen.moves(ip.addr(), from, *injected..=*end).len();
            if moves > MOVES {
                self.found(MOVES_SELDOM, format!("{ip} moved {moves} times while the link of {holder} flapped"));
            }
        }
        Ok(())
    }

    fn served_once_told(&mut self) -> Result<()> {
        let Observation { injected, seen, records, victim, .. } = self.observation;
        let mac = self.fleet.lab.host(victim)?.mac;
        for (ip, record) in records {
            let told = seen.first_claim(ip.addr(), mac, *injected).map(|(at, _)| at);
            let served = record.first_answer_after(*injected);
            let late = told.zip(served).map(|(told, served)| served.saturating_duration_since(told));
            if late.is_none_or(|late| late > SERVED_WITHIN) {
                self.found(SERVED_ONCE_TOLD, format!("{ip} was served {late:?} after the client was told"));
            }
        }
        Ok(())
    }
}

impl Asked {
    fn last_told(&self, window: std::ops::RangeInclusive<std::time::Instant>) -> Option<MacAddr> {
        self.answers.iter().rev().find(|(at, _)| window.contains(at)).map(|(_, mac)| *mac)
    }
}

/// Not where every node is hit, nor where both sides of a cut may have claimed everything.
fn only_some_may_be_announced(scenario: Scenario) -> bool {
    !scenario.hits_all() && scenario.expected() != Expected::Either
}

/// The longest of some waits; `None` when one was in vain, or nobody asked.
pub(crate) fn longest(waits: Vec<Option<Duration>>) -> Option<Duration> {
    waits.into_iter().collect::<Option<Vec<Duration>>>()?.into_iter().max()
}

pub(crate) const VALID: &str = "every trial is a valid measurement";
pub(crate) const ONE_OWNER: &str = "after convergence one station answers for an address";
const RECOVERS: &str = "every trial recovers";
const ONLY_MOVED_ARE_ANNOUNCED: &str = "only addresses that moved are announced";
const NO_MOVE_WHILE_THE_HOST_LIVES: &str = "no address moves while its host is alive";
const DONE_AS_ASKED: &str = "what an operator asks for is done";
const NO_RESET: &str = "no established connection is reset while its host is alive";
const WHO_ASKS_IS_TOLD: &str = "a client without a cache is told within five seconds where an address is";
const WINNER_ANNOUNCES_LAST: &str = "after a heal the winner announces last";
const DEFENDED: &str = "a claim of a stranger is answered within a second, and every ten seconds at most";
const MOVES_SELDOM: &str = "an address moves at most four times while a link flaps";
const SERVED_ONCE_TOLD: &str = "a client behind an uplink that is back is served within a second of being told";

//= https://www.rfc-editor.org/rfc/rfc5227#section-2.4
//# the host MUST NOT send [another] defensive ARP Announcement [within] DEFEND_INTERVAL.
pub(crate) const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// A gratuitous request and a gratuitous reply.
const FORMS: usize = 2;
/// A campaign begins with steps at 0, 50 and 200 ms; the later ones are further apart.
const FIRST_STEPS: Duration = Duration::from_millis(300);
/// RFC 7432 section 15.1: the fifth move within 180 s is taken for a duplicate address.
const MOVES: usize = 4;
/// Chosen: far above every target, far below what a client's user puts up with.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
const DEFENDED_WITHIN: Duration = Duration::from_secs(1);
const SERVED_WITHIN: Duration = Duration::from_secs(1);
/// Chosen: more than lies between the forms of one announcement, less than between two claims of the stranger.
const BURST: Duration = Duration::from_millis(500);
