//! What an input leads to: datagrams to send, timers, changes of the membership.

use std::collections::BTreeSet;
use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use foca::OwnedNotification;
use garpike_election::NodeName;
use tracing::{debug, info, warn};

use super::{Cluster, Dead, Phase};
use crate::codec::{self, Standing};
use crate::config::{ASK_FACTS_EVERY, DEAD_MAX};
use crate::datagram::{Datagram, Kind, Sender};
use crate::suspicion::Begun;
use crate::timers::Own;
use crate::{Event, Identity, ProcessId, Transmit, envelope, metrics};

impl Cluster {
    /// Carries out what foca wants done, until it wants nothing more, and tells what has changed.
    pub(super) fn settle(&mut self) {
        let mut healed = BTreeSet::new();
        loop {
            let effects = self.swim.take_effects();
            if effects.is_empty() {
                break;
            }
            for facts in effects.facts {
                self.learn(facts);
            }
            for (timer, after) in effects.timers {
                self.start_timer(timer, after);
            }
            for notification in effects.notifications {
                self.note(notification, &mut healed);
            }
            for (to, payload) in effects.datagrams {
                // foca remembers earlier identities of ours as dead, and tries to reach them.
                if to.name != self.config.local {
                    self.send(Kind::Swim, Some(to.process), to.gossip, &payload);
                }
            }
        }
        if !healed.is_empty() {
            info!(nodes = ?healed, "members that had been declared dead were alive all the time");
            self.push_event(Event::Healed { nodes: healed });
        }
        self.review_members();
    }

    fn start_timer(&mut self, timer: foca::Timer<Identity>, after: Duration) {
        if let foca::Timer::ChangeSuspectToDown { member_id, incarnation, .. } = &timer {
            match self.suspicions.begin(&timer, member_id, *incarnation) {
                Begun::Already => return,
                Begun::New => {
                    debug!(node = %member_id.name, "suspected");
                    self.timers.set(Own::Suspects, self.now);
                }
            }
        }
        self.timers.add(self.now + after, timer);
    }

    fn note(&mut self, notification: OwnedNotification<Identity>, healed: &mut BTreeSet<NodeName>) {
        self.stale = true;
        match notification {
            OwnedNotification::MemberUp(identity) => self.note_up(&identity, healed),
            OwnedNotification::MemberDown(identity) => self.note_down(identity),
            OwnedNotification::Rename(before, after) => {
                debug!(node = %after.name, before = %before.generation, after = %after.generation, "new identity");
                if before.process != after.process && self.swim.is_active(&after) {
                    info!(node = %after.name, gossip = %after.gossip, "member restarted");
                    self.send_facts(&after);
                }
            }
            OwnedNotification::Active => self.connected = true,
            OwnedNotification::Idle => {
                self.connected = false;
                self.timers.set(Own::Seeds, self.now);
            }
            OwnedNotification::Rejoin(identity) => {
                warn!(generation = %identity.generation, "others had declared this node dead");
                metrics::declared_dead();
                self.connected = false;
                self.timers.set(Own::Seeds, self.now);
                self.push_event(Event::DeclaredDead);
            }
            OwnedNotification::Defunct => self.connected = false,
        }
    }

    fn note_up(&mut self, identity: &Identity, healed: &mut BTreeSet<NodeName>) {
        let dead = self.dead.remove(&identity.name);
        if dead.is_some_and(|dead| dead.identity.process == identity.process) {
            metrics::heal();
            healed.insert(identity.name.clone());
        }
        info!(node = %identity.name, gossip = %identity.gossip, "member is up");
        self.send_facts(identity);
    }

    fn note_down(&mut self, identity: Identity) {
        let last_state = self.book.of(&identity).map(|facts| facts.state);
        info!(node = %identity.name, gossip = %identity.gossip, ?last_state, "member is down");
        metrics::death();
        // Every survivor should know it now, not at the next time of gossip.
        self.swim.gossip();
        if self.dead.len() >= DEAD_MAX
            && let Some(longest) = self.dead.values().min_by_key(|dead| dead.at).map(|dead| dead.identity.name.clone())
        {
            self.dead.remove(&longest);
        }
        self.dead.insert(identity.name.clone(), Dead { identity, at: self.now, last_state });
    }

    /// Tells what has changed among the members since the last input.
    fn review_members(&mut self) {
        if self.members.nodes.contains_key(&self.config.local) != self.counts_itself() {
            self.stale = true;
        }
        if !mem::take(&mut self.stale) {
            return;
        }
        if self.phase == Phase::Joining {
            let (names, addrs) = self.active_names_and_addrs();
            if self.seeds.missing(&names, &addrs).is_empty() {
                self.become_ready();
                return self.settle();
            }
        }
        if self.members_without_facts().next().is_some() {
            self.timers.set_if_unset(Own::MissingFacts, self.now + ASK_FACTS_EVERY);
        }
        let members = self.count_members();
        if members != self.members {
            self.members = members;
            metrics::members(self.members.nodes.len());
            self.push_event(Event::MembersChanged);
        }
    }

    pub(super) fn send_facts(&mut self, to: &Identity) {
        let facts = self.own.to_bytes();
        self.send(Kind::Facts, Some(to.process), to.gossip, &facts);
    }

    pub(super) fn send_standing(&mut self, kind: Kind, to: &Identity, standing: &Standing) {
        let payload = codec::encode(standing).expect("an identity is bounded by its name");
        self.send(kind, Some(to.process), to.gossip, &payload);
    }

    /// Seals a datagram and puts it out for sending.
    pub(super) fn send(&mut self, kind: Kind, to: Option<ProcessId>, addr: SocketAddr, payload: &[u8]) {
        if self.transmits.len() >= TRANSMITS_MAX {
            return metrics::unsent();
        }
        self.sequence += 1;
        let sender = Sender { name: self.config.local.clone(), process: self.config.process };
        let text = Datagram { kind, to, sender, sequence: self.sequence, payload }.to_bytes();
        metrics::sent(kind);
        let payload = envelope::wrap(&self.config.sealing, &text, &mut self.rng);
        self.transmits.push_back(Transmit { to: addr, payload });
    }
}

/// Chosen: one input leads to at most a few datagrams per member.
const TRANSMITS_MAX: usize = 8192;
