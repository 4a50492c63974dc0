//! What an input leads to: datagrams to send, timers, changes of the membership.

use std::collections::BTreeSet;
use std::mem;
use std::time::Duration;

use foca::OwnedNotification;
use garpike_election::NodeName;
use tracing::{debug, info, warn};

use super::{Cluster, Phase};
use crate::codec::{self, Standing};
use crate::config::{ANNOUNCE_TO, ASK_FACTS_EVERY};
use crate::datagram::{Datagram, Kind};
use crate::facts::{Facts, NODES_MAX};
use crate::peers::{End, Peer};
use crate::suspicion::Begun;
use crate::timers::Own;
use crate::{Event, Identity, Path, ProcessId, Transmit, envelope, metrics};

impl Cluster {
    /// Carries out what foca wants done, until it wants nothing more, and tells what has changed.
    pub(super) fn settle(&mut self) {
        let mut healed = BTreeSet::new();
        loop {
            let effects = self.swim.take_effects();
            if effects.is_empty() {
                break;
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
                    self.send_to(Kind::Swim, &to, &payload);
                }
            }
        }
        if !healed.is_empty() {
            info!(nodes = ?healed, "members that had been declared dead were alive all the time");
            self.push_event(Event::Healed { nodes: healed });
        }
        self.review_members();
        self.review_deliveries();
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
            OwnedNotification::MemberUp(identity) => self.note_up(identity, healed),
            OwnedNotification::MemberDown(identity) => self.note_down(&identity),
            OwnedNotification::Rename(before, after) => {
                debug!(node = %after.name, before = %before.generation, after = %after.generation, "new identity");
                if self.swim.is_active(&after) {
                    self.note_rename(&before, after);
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
                self.connected = self.swim.active().next().is_some();
                self.own.set_author(identity);
                self.timers.set(Own::Seeds, self.now);
                self.push_event(Event::DeclaredDead);
                let nearest: Vec<Identity> = self.peers.iter().map(|peer| peer.identity.clone()).collect();
                nearest.into_iter().take(ANNOUNCE_TO).for_each(|identity| self.swim.announce(identity));
                self.spread_facts();
            }
            OwnedNotification::Defunct => self.connected = false,
        }
    }

    fn note_up(&mut self, identity: Identity, healed: &mut BTreeSet<NodeName>) {
        let name = identity.name.clone();
        if let Some(peer) = self.peers.get_mut(&name) {
            let before = mem::replace(&mut peer.identity, identity.clone());
            peer.rumoured = false;
            if before.process != identity.process {
                self.follow_restart(&name);
            }
            return self.deliver_facts(&identity);
        }
        if self.peers.len() >= NODES_MAX {
            return metrics::member_refused();
        }
        info!(node = %name, gossip = %identity.gossip, "member is up");
        let dead = self.peers.insert(Peer::new(identity.clone(), self.now));
        let was_dead = dead.as_ref().is_some_and(|dead| dead.end == End::HostDead);
        if let Some(dead) = dead {
            if dead.identity.process == identity.process {
                metrics::heal();
                healed.insert(name.clone());
            }
            if let Some(peer) = self.peers.get_mut(&name) {
                peer.returned = was_dead;
            }
            self.tell_of_death(&identity, &dead);
        }
        self.follow_facts(&name);
        // It waits for our facts before it is ready: who was taken for dead gets them when it has acknowledged that.
        if !was_dead {
            self.deliver_facts(&identity);
        }
    }

    /// A member has another identity: it was restarted, or takes back its life.
    fn note_rename(&mut self, before: &Identity, after: Identity) {
        let name = after.name.clone();
        let Some(peer) = self.peers.get_mut(&name) else { return };
        peer.identity = after.clone();
        peer.rumoured = false;
        if before.process != after.process {
            info!(node = %name, gossip = %after.gossip, "speaker was restarted");
            self.deliveries.forget(&name);
            self.follow_restart(&name);
        }
        self.deliver_facts(&after);
    }

    /// foca takes a member for dead: it left, or others have given a verdict that has not come here, or will not.
    fn note_down(&mut self, identity: &Identity) {
        let Some(peer) = self.peers.get_mut(&identity.name).filter(|peer| peer.identity == *identity) else { return };
        if peer.is_here() {
            peer.rumoured = true;
            self.watching.rumour(&identity.name, self.now);
            self.look_after(&identity.name);
        }
    }

    /// Tells what has changed among the members since the last input.
    fn review_members(&mut self) {
        if self.twin.is_some() && self.members.nodes.contains_key(&self.config.local) != self.counts_itself() {
            self.stale = true;
        }
        let said = mem::take(&mut self.said);
        if !mem::take(&mut self.stale) {
            if !said.is_empty() {
                self.review_said(&said);
            }
            return;
        }
        self.review_keys();
        if self.has_found_all() {
            self.become_ready();
            return self.settle();
        }
        self.ask_who_has_not_spoken();
        self.follow_members();
        self.founding = self.is_founding();
        let members = self.count_members();
        if members != self.members {
            self.members = members;
            metrics::members(self.members.nodes.len());
            self.push_event(Event::MembersChanged);
        }
    }

    /// The same when some members have said something, and who they are and whether they are here is as it was: it costs
    /// no look at the others.
    fn review_said(&mut self, said: &BTreeSet<NodeName>) {
        self.review_keys_of(said);
        if self.has_found_all() {
            self.become_ready();
            return self.settle();
        }
        if self.is_founding() != self.founding {
            self.stale = true;
            return self.review_members();
        }
        self.ask_who_has_not_spoken();
        let mut changed = false;
        for name in said {
            let Some(member) = self.peers.get(name).map(|peer| self.describe(peer)) else { continue };
            if self.members.nodes.get(name) != Some(&member) {
                self.members.nodes.insert(name.clone(), member);
                changed = true;
            }
        }
        if changed {
            self.push_event(Event::MembersChanged);
        }
    }

    /// Whether this node, which joins, knows everybody. A member that has not spoken for itself yet would seem to rank behind
    /// us, and one that does not know that we join would take us for one that has been there.
    fn has_found_all(&self) -> bool {
        if self.phase != Phase::Joining || !self.all_have_spoken() || self.deliveries.has_facts() {
            return false;
        }
        let (names, addrs) = self.active_names_and_addrs();
        self.seeds.missing(&names, &addrs).is_empty()
    }

    fn ask_who_has_not_spoken(&mut self) {
        if !self.all_have_spoken() {
            self.timers.set_if_unset(Own::MissingFacts, self.now + ASK_FACTS_EVERY);
        }
    }

    pub(super) fn send_facts(&mut self, to: &Identity) {
        let facts = self.own.to_bytes();
        self.send_to(Kind::Facts, to, &facts);
    }

    pub(super) fn send_standing(&mut self, kind: Kind, to: &Identity, standing: &Standing) {
        let payload = codec::encode(standing).expect("an identity is bounded by its name");
        self.send_to(kind, to, &payload);
    }

    /// Sends to a node by UDP, and to a member where that is blocked over the wires too.
    pub(super) fn send_by_open_ways(&mut self, kind: Kind, to: &Identity, payload: &[u8]) {
        self.send_to(kind, to, payload);
        for path in self.open_wires(&to.name) {
            self.send(kind, Some(to.process), &path, payload);
        }
    }

    /// The wires to a member that answers there, but not by UDP.
    fn open_wires(&self, name: &NodeName) -> Vec<Path> {
        let Some(peer) = self.peers.get(name).filter(|peer| peer.udp_blocked.is_some()) else { return Vec::new() };
        let wires = self.book.of(&peer.identity).map(Facts::wires).unwrap_or_default();
        self.wire_paths(&wires)
    }

    pub(super) fn send_to(&mut self, kind: Kind, to: &Identity, payload: &[u8]) {
        self.send(kind, Some(to.process), &Path::Udp(to.gossip), payload);
    }

    /// Seals a datagram and puts it out for sending.
    pub(super) fn send(&mut self, kind: Kind, to: Option<ProcessId>, path: &Path, payload: &[u8]) {
        if self.transmits.len() >= TRANSMITS_MAX {
            return metrics::unsent();
        }
        self.sequence += 1;
        let (name, process) = (self.config.local.as_str(), self.config.process);
        let text = Datagram { kind, to, name, process, sequence: self.sequence, payload }.to_bytes();
        self.traffic.sent(kind);
        let payload = envelope::wrap(&self.config.sealing, self.keys.held(kind, to, path), &text, &mut self.rng);
        self.transmits.push_back(Transmit { to: path.clone(), payload });
    }
}

/// Chosen: one input leads to at most a few datagrams per member.
const TRANSMITS_MAX: usize = 8192;
