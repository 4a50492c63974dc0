//! From votes to consequences: who is away, who is dead, who must know.

use std::time::Duration;

use garpike_election::{Member, NodeName, NodeState, Presence};
use tracing::{debug, info, warn};

use super::Cluster;
use crate::codec;
use crate::config::{OLD_REVENANTS_EVERY, REVENANTS_EVERY, SHOW_DEAD};
use crate::datagram::Kind;
use crate::deliveries::Item;
use crate::notice::{Force, Notice, NoticeId, is_majority};
use crate::peers::{Away, Cause, Dead, End, Peer, Start};
use crate::timers::Own;
use crate::watch::votes::Charge;
use crate::{Event, Identity, Path, ProcessId, metrics, peers};

impl Cluster {
    /// The watchers have agreed.
    pub(super) fn pronounce(&mut self, name: &NodeName, charge: Charge, voters: &[NodeName]) {
        let Some(peer) = self.peers.get(name) else { return };
        let notice = Notice {
            subject: peer.identity.clone(),
            charge,
            force: Force::InForce,
            version: self.version_of(&peer.identity),
            holders: 1,
            known: self.known_before(),
            deaths: self.peers.deaths(name, self.now).saturating_add(1),
            silent_ms: self.silence_of(name).map_or(0, |silent| small(silent.as_millis())),
        };
        info!(node = %name, verdict = charge.as_str(), ?voters, "the watchers have agreed");
        metrics::verdict(charge, metrics::By::Vote);
        if !self.carry_out(&notice) {
            return;
        }
        let everybody: Vec<Identity> = self.peers.here().map(|peer| peer.identity.clone()).collect();
        for member in &everybody {
            self.tell(member, notice.clone());
        }
        // It may live all the same, and must then know; but a node that hears nobody is the one that may be wrong.
        if !self.watching.is_dark(self.now) {
            self.tell(&notice.subject.clone(), notice);
        }
    }

    /// Somebody tells a verdict. Every one that is understood is acknowledged, whether or not it changes anything.
    pub(super) fn handle_notice(&mut self, from: &Path, teller: &NodeName, process: ProcessId, notice: &Notice) {
        let held = codec::encode(&notice.id()).expect("an identity is bounded by its name");
        self.send(Kind::NoticeHeld, Some(process), from, &held);
        if notice.subject.name == self.config.local {
            self.handle_own_notice(teller, notice);
        } else if notice.force == Force::InForce && self.carry_out(notice) {
            metrics::verdict(notice.charge, metrics::By::Notice);
        } else {
            self.learn_holders(notice);
        }
    }

    /// Somebody tells how many hold a verdict that is known here: those who gave it count.
    fn learn_holders(&mut self, notice: &Notice) {
        if notice.force == Force::InForce
            && notice.charge == Charge::HostDead
            && let Some(dead) = self.peers.dead_mut(&notice.subject.name)
            && dead.end == End::HostDead
            && dead.identity == notice.subject
            && notice.holders > dead.holders
        {
            let was = is_majority(dead.holders, dead.known);
            dead.holders = notice.holders;
            if !was && is_majority(dead.holders, dead.known) {
                self.push_event(Event::VerdictHeld);
            }
        }
    }

    pub(super) fn handle_notice_held(&mut self, by: &NodeName, id: NoticeId) {
        let about_itself = *by == id.node;
        // Who has come back since may acknowledge it as well, but did not believe it.
        if let Some(told) = self.told.get_mut(&id)
            && self.peers.get(by).is_some_and(|peer| peer.since < told.at)
            && !about_itself
        {
            told.holders.insert(by.clone());
            self.review_holders(&id);
        }
        if self.deliveries.acknowledged(by, &Item::Notice(id))
            && about_itself
            && let Some(identity) = self.peers.get(by).map(|peer| peer.identity.clone())
        {
            self.deliver_facts(&identity);
        }
    }

    /// When more than half hold a verdict, everybody is told so once more: whoever observes any of them is to know.
    fn review_holders(&mut self, id: &NoticeId) {
        let Some(notice) = self.latest_notice(id).filter(Notice::is_by_majority) else { return };
        if id.charge != Charge::HostDead || id.force != Force::InForce {
            return;
        }
        let known = self.peers.dead(&id.node).is_some_and(|dead| is_majority(dead.holders, dead.known));
        self.learn_holders(&notice);
        if !known && self.peers.dead(&id.node).is_some() {
            let everybody: Vec<Identity> = self.peers.here().map(|peer| peer.identity.clone()).collect();
            everybody.iter().for_each(|member| self.send_notice(member, &notice));
        }
    }

    /// A verdict about this very node, which lives.
    fn handle_own_notice(&mut self, teller: &NodeName, notice: &Notice) {
        let generation = self.swim.identity().generation;
        let this_life = notice.subject.process == self.config.process;
        if notice.force == Force::TakenBack {
            if this_life {
                info!("a node that was alone had taken this one for dead");
                self.push_event(Event::TakenForDead);
            }
            return;
        }
        if notice.charge == Charge::HostDead && notice.subject.generation <= generation {
            self.hold_down.handle(notice, self.now);
        }
        match notice.charge {
            // Nobody has heard more of this process than it said.
            Charge::SpeakerGone if this_life && notice.version == self.own.version => {
                info!("the others had found this speaker gone: telling them that it is there");
                self.own.go_above(notice.version);
                self.spread_facts();
            }
            Charge::HostDead if this_life => {
                if notice.subject.generation == generation {
                    warn!(holders = notice.holders, known = notice.known, "the others had declared this host dead");
                    self.swim.renew();
                }
                self.return_to(teller);
            }
            Charge::SpeakerGone | Charge::HostDead => {}
        }
        self.review_state();
    }

    /// Shows whoever takes this node for dead that it lives under another identity. Whole sides of a partition may have
    /// given each other up, and no seed of the one be on the other.
    fn return_to(&mut self, teller: &NodeName) {
        let living = self.peers.get(teller).map(|peer| &peer.identity);
        let teller = living.or_else(|| Some(&self.peers.dead(teller)?.identity)).cloned();
        if let Some(teller) = teller {
            self.swim.announce(teller);
        }
    }

    /// Does what a verdict says, if it concerns the life that is known; tells whether it was news.
    fn carry_out(&mut self, notice: &Notice) -> bool {
        let name = &notice.subject.name;
        let Some(peer) = self.peers.get(name).filter(|peer| peer.identity == notice.subject) else { return false };
        match notice.charge {
            Charge::HostDead => {
                let member = self.members.nodes.get(name).cloned();
                let dead = Dead {
                    last_state: self.book.of(&peer.identity).map(|facts| facts.state),
                    identity: peer.identity.clone(),
                    at: self.now,
                    end: End::HostDead,
                    member,
                    version: notice.version,
                    known: notice.known,
                    holders: notice.holders,
                    deaths: notice.deaths,
                    silent_ms: notice.silent_ms,
                };
                info!(node = %name, gossip = %dead.identity.gossip, last_state = ?dead.last_state, "member is dead");
                self.remove(dead);
                true
            }
            Charge::SpeakerGone => {
                if !peer.is_here() || self.version_of(&peer.identity) > notice.version {
                    return false;
                }
                info!(node = %name, "speaker is gone, its host lives");
                let cause = Cause::Gone { process: notice.subject.process, version: notice.version };
                let member = self.members.nodes.get(name).cloned();
                self.go_away(name, cause, member);
                true
            }
        }
    }

    /// A speaker does not run, but its host lives: it keeps what it owns for the time of the grace.
    fn go_away(&mut self, name: &NodeName, cause: Cause, member: Option<Member>) {
        let until = self.now + self.config.restart_grace;
        let Some(peer) = self.peers.get_mut(name) else { return };
        let described = member.unwrap_or_else(|| peer.describe(None));
        let member = Member { presence: Presence::Away, ..described };
        peer.away = Some(Away { since: self.now, until, cause, member });
        self.deliveries.forget(name);
        self.timers.set_no_later(Own::Grace, until);
        self.stale = true;
        if until <= self.now {
            self.end_graces();
        }
    }

    /// What a node says of itself has changed.
    pub(super) fn follow_facts(&mut self, name: &NodeName) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        let Some(facts) = self.book.of(&peer.identity) else { return };
        let state = facts.state;
        peer.returned = false;
        peer.start = match (peer.start, state) {
            (Start::Unseen | Start::Joining, NodeState::Joining) => Start::Joining,
            (Start::Joining, NodeState::Ready | NodeState::Draining) => Start::Ready(self.now),
            (start, _) => start,
        };
        match &mut peer.away {
            Some(away) if away.is_ended_by(facts) => {
                info!(node = %name, for_ms = self.now.saturating_duration_since(away.since).as_millis(), "speaker is back");
                peer.away = None;
            }
            Some(away) if state == NodeState::Restarting => {
                away.cause = Cause::Restarting;
            }
            None if state == NodeState::Restarting => {
                // By what it says, not by what was seen of it: who joins meanwhile has seen nothing.
                let said = peers::describe(facts);
                self.go_away(name, Cause::Restarting, Some(said));
            }
            Some(_) | None => {}
        }
    }

    /// Another process has taken the place of a member: its speaker was restarted.
    pub(super) fn follow_restart(&mut self, name: &NodeName) {
        let member = self.members.nodes.get(name).cloned();
        if self.peers.get(name).is_some_and(Peer::is_here) {
            self.go_away(name, Cause::Restarting, member);
        }
        self.follow_facts(name);
    }

    /// Speakers that did not come back in time.
    pub(super) fn end_graces(&mut self) {
        let now = self.now;
        let over = self.peers.iter().filter(|peer| peer.away.as_ref().is_some_and(|away| away.until <= now));
        let over: Vec<Peer> = over.cloned().collect();
        for peer in over {
            info!(node = %peer.identity.name, "speaker did not come back within its grace");
            let dead = Dead {
                last_state: self.book.of(&peer.identity).map(|facts| facts.state),
                at: now,
                end: End::GraceOver,
                member: peer.away.map(|away| away.member),
                version: self.version_of(&peer.identity),
                known: self.known_before(),
                holders: 0,
                silent_ms: 0,
                deaths: self.peers.deaths(&peer.identity.name, now),
                identity: peer.identity,
            };
            self.remove(dead);
        }
        if let Some(at) = self.peers.first_grace() {
            self.timers.set(Own::Grace, at);
        }
    }

    /// Whom it concerns is no member any more.
    fn remove(&mut self, dead: Dead) {
        metrics::death();
        let identity = dead.identity.clone();
        self.tell_of_loss(&dead);
        self.watching.forget(&identity.name);
        self.watching.hasten = true;
        self.deliveries.forget(&identity.name);
        self.peers.bury(dead);
        self.swim.condemn(identity);
        self.timers.set_if_unset(Own::Revenants, self.now + REVENANTS_EVERY);
        self.stale = true;
    }

    fn tell_of_loss(&mut self, dead: &Dead) {
        let (node, at) = (dead.identity.name.clone(), self.now);
        match dead.end {
            End::HostDead => {
                let said = (dead.silent_ms > 0).then(|| Duration::from_millis(dead.silent_ms.into()));
                let silent = self.silence_of(&node).or(said);
                self.push_event(Event::HostDied { node, silent, at });
            }
            End::GraceOver => self.push_event(Event::GraceOver { node, at }),
            End::Pardoned => {}
        }
    }

    /// For how long nothing was heard of a member, if this node is one of its watchers. Others hear of it only now and then.
    fn silence_of(&self, name: &NodeName) -> Option<Duration> {
        let heard = self.peers.get(name).and_then(|peer| peer.heard);
        let heard = heard.filter(|_| self.watching.ring.watches(&self.config.local, name));
        heard.map(|heard| self.now.saturating_duration_since(heard))
    }

    /// Somebody who is dead here gave a sign.
    pub(super) fn hear_dead(&mut self, name: &NodeName, process: ProcessId) {
        let Some(dead) = self.peers.dead(name).filter(|dead| dead.identity.process == process) else { return };
        match dead.end {
            End::HostDead | End::GraceOver => {
                let notice = self.notice_about(dead);
                self.tell_once(&dead.identity.clone(), notice);
            }
            End::Pardoned => {}
        }
    }

    /// A member that is held for gone gave a sign, and does not know.
    pub(super) fn tell_that_it_was_given_up(&mut self, identity: &Identity) {
        let away = self.peers.get(&identity.name).and_then(|peer| peer.away.as_ref());
        let (charge, version) = match away.map(|away| away.cause) {
            Some(Cause::Gone { version, .. }) => (Charge::SpeakerGone, version),
            // foca has it for dead, which it can only answer with another identity.
            Some(Cause::Restarting) | None => (Charge::HostDead, self.version_of(identity)),
        };
        let notice = Notice {
            subject: identity.clone(),
            charge,
            force: Force::InForce,
            version,
            holders: 0,
            known: self.known_before(),
            deaths: 0,
            silent_ms: 0,
        };
        self.tell_once(identity, notice);
    }

    /// A voter does not know a verdict yet.
    pub(super) fn remind(&mut self, voter: &NodeName, subject: &Identity) {
        let Some(dead) = self.peers.dead(&subject.name).filter(|dead| dead.identity == *subject) else { return };
        if dead.end == End::HostDead
            && let Some(voter) = self.peers.get(voter).map(|peer| peer.identity.clone())
        {
            let notice = self.notice_about(dead);
            self.tell_once(&voter, notice);
        }
    }

    /// A node that comes back must know that it was taken for dead.
    pub(super) fn tell_of_death(&mut self, to: &Identity, dead: &Dead) {
        match dead.end {
            End::HostDead | End::Pardoned => {
                let notice = self.notice_about(dead);
                self.tell_once(to, notice);
            }
            End::GraceOver => {}
        }
    }

    /// A verdict of old, for somebody who asks.
    ///
    /// Members that have been there all the time hold it. While the fault is still being found, some of them may be its
    /// next victims: then only those count that have acknowledged it to us.
    pub(super) fn notice_about(&self, dead: &Dead) -> Notice {
        let old = self.now.saturating_duration_since(dead.at) >= SURVIVORS_KNOWN;
        let holders = match dead.end {
            End::HostDead if old => self.peers.iter().filter(|peer| peer.since < dead.at).count() + 1,
            End::HostDead => usize::from(dead.holders).max(self.told.holders(&dead.identity) + 1),
            End::GraceOver | End::Pardoned => 0,
        };
        let holders = small(holders);
        Notice {
            subject: dead.identity.clone(),
            charge: Charge::HostDead,
            force: match dead.end {
                End::HostDead | End::GraceOver => Force::InForce,
                End::Pardoned => Force::TakenBack,
            },
            version: dead.version,
            holders,
            known: dead.known,
            deaths: dead.deaths,
            silent_ms: dead.silent_ms,
        }
    }

    fn tell_once(&mut self, to: &Identity, notice: Notice) {
        if !self.deliveries.is_open(&to.name, &Item::Notice(notice.id())) {
            self.tell(to, notice);
        }
    }

    /// Tells a verdict until it is acknowledged.
    fn tell(&mut self, to: &Identity, notice: Notice) {
        let id = notice.id();
        self.send_notice(to, &notice);
        self.told.note(id.clone(), notice, self.now);
        self.deliveries.sent(&to.name, Item::Notice(id), self.now);
        self.schedule_deliveries();
    }

    fn send_notice(&mut self, to: &Identity, notice: &Notice) {
        let bytes = codec::encode(notice).expect("an identity is bounded by its name");
        self.send_by_open_ways(Kind::Notice, to, &bytes);
    }

    /// Sends again what was not acknowledged.
    pub(super) fn deliver_again(&mut self) {
        while let Some((name, item)) = self.deliveries.pop_due(self.now) {
            let living = self.peers.get(&name).map(|peer| peer.identity.clone());
            let Some(to) = living.or_else(|| Some(self.peers.dead(&name)?.identity.clone())) else {
                self.deliveries.forget(&name);
                continue;
            };
            match item {
                Item::Facts => self.send_facts(&to),
                Item::Notice(id) => match self.latest_notice(&id) {
                    Some(notice) => self.send_notice(&to, &notice),
                    None => {
                        self.deliveries.acknowledged(&name, &Item::Notice(id));
                    }
                },
            }
        }
        self.schedule_deliveries();
    }

    /// A verdict with what is known by now of those who hold it.
    fn latest_notice(&self, id: &NoticeId) -> Option<Notice> {
        let dead = self.peers.dead(&id.node).filter(|dead| dead.identity.generation == id.generation);
        match dead {
            Some(dead) if id.charge == Charge::HostDead => Some(self.notice_about(dead)),
            Some(_) | None => self.told.notice(id),
        }
    }

    pub(super) fn schedule_deliveries(&mut self) {
        if let Some(at) = self.deliveries.next() {
            self.timers.set(Own::Deliveries, at);
        }
    }

    /// The watchers of the dead ask whether they live.
    pub(super) fn ping_the_dead(&mut self) {
        self.revenant_rounds = self.revenant_rounds.wrapping_add(1);
        let (now, local) = (self.now, &self.config.local);
        let ours = self.peers.iter_dead().filter(|dead| {
            let old = now.saturating_duration_since(dead.at) >= SHOW_DEAD;
            let due = !old || self.revenant_rounds.is_multiple_of(OLD_REVENANTS_EVERY);
            due && self.watching.ring.watches(local, &dead.identity.name)
        });
        let ours: Vec<(Identity, _)> =
            ours.map(|dead| (dead.identity.clone(), dead.member.as_ref().map(|member| member.wires.clone()))).collect();
        for (identity, wires) in ours {
            debug!(node = %identity.name, "does it live?");
            self.ping_on_all_ways(&identity, &wires.unwrap_or_default());
        }
        if self.peers.iter_dead().next().is_some() {
            self.timers.set(Own::Revenants, now + REVENANTS_EVERY);
        }
    }

    /// Tells the owner when everybody holds our facts.
    pub(super) fn review_deliveries(&mut self) {
        if self.facts_open && !self.deliveries.has_facts() {
            self.facts_open = false;
            self.push_event(Event::FactsKnown);
        }
    }

    /// How many members there were before the fault that is being found: those that died within it included.
    fn known_before(&self) -> u16 {
        let of_this_fault = self
            .peers
            .iter_dead()
            .filter(|dead| dead.end == End::HostDead && self.now.saturating_duration_since(dead.at) < ONE_FAULT);
        small(self.peers.len() + 1 + of_this_fault.count())
    }

    fn version_of(&self, identity: &Identity) -> u64 {
        self.book.of(identity).map_or(0, |facts| facts.version)
    }
}

/// After this time, whoever is a member is none of the victims of the same fault.
const SURVIVORS_KNOWN: Duration = Duration::from_secs(1);

/// Chosen: the verdicts about one fault come within a second, whatever it hits.
const ONE_FAULT: Duration = Duration::from_secs(10);

fn small(count: impl TryInto<u16>) -> u16 {
    count.try_into().unwrap_or(u16::MAX)
}
