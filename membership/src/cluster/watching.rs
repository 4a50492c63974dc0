//! Heartbeats, watches, votes: how this node finds out who is silent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use garpike_election::{InterfaceName, NodeName, Presence, Selection, Wire};

use super::Cluster;
use crate::config::{REFUSED_EVERY, SUBSCRIBED_FOR, TEMPORARY_FOR};
use crate::datagram::Kind;
use crate::notice::Vote as VoteMessage;
use crate::peers::{Cause, Peer};
use crate::timers::Own;
use crate::watch::ring::{Ring, WATCHERS};
use crate::watch::timing::Timing;
use crate::watch::votes::{Charge, Votes};
use crate::watch::{Act, Light, Permission, Vote, Watch};
use crate::{Identity, Path, ProbeId, ProcessId, Profile, Request, WatchStatus, codec, metrics};

/// What this node watches, and what it hears.
pub(super) struct Watching {
    pub(super) timing: Timing,
    pub(super) ring: Ring,
    watches: BTreeMap<NodeName, Watched>,
    votes: BTreeMap<NodeName, Votes>,
    /// Nodes that pinged us, and wait for our heartbeats by a ring of their own.
    subscribers: BTreeMap<NodeName, Instant>,
    /// Heartbeats sent.
    heartbeats: u32,
    /// When anybody was last heard.
    heard: Instant,
    /// When a station that is no member was last heard.
    station: Option<Instant>,
    probes: BTreeMap<ProbeId, NodeName>,
    next_probe: u64,
    /// Nodes died: whoever gets a new watcher is looked into at once.
    pub(super) hasten: bool,
}

struct Watched {
    watch: Watch,
    /// This node is none of the subject's watchers, and looks after it until then.
    temporary: Option<Instant>,
}

impl Watching {
    pub(super) fn new(profile: Profile, local: &NodeName, now: Instant) -> Self {
        let mut ring = Ring::default();
        ring.insert(local);
        Self {
            timing: Timing::of(profile),
            ring,
            watches: BTreeMap::new(),
            votes: BTreeMap::new(),
            subscribers: BTreeMap::new(),
            heartbeats: 0,
            heard: now,
            station: None,
            probes: BTreeMap::new(),
            next_probe: 0,
            hasten: false,
        }
    }

    /// Whether no member has been heard for so long that one of them would be overdue.
    pub(super) fn is_dark(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) >= self.timing.overdue
    }

    pub(super) fn heartbeat(&mut self, from: &NodeName, number: u32, now: Instant) {
        if let Some(watched) = self.watches.get_mut(from) {
            watched.watch.heartbeat(number, now);
        }
    }

    pub(super) fn subscribe(&mut self, node: &NodeName, now: Instant) {
        if self.subscribers.len() < SUBSCRIBERS_MAX {
            self.subscribers.insert(node.clone(), now + SUBSCRIBED_FOR);
        }
    }

    /// Forgets everything about a node.
    pub(super) fn forget(&mut self, node: &NodeName) {
        self.watches.remove(node);
        self.votes.remove(node);
        self.subscribers.remove(node);
    }

    pub(super) fn forget_old_votes(&mut self, now: Instant) {
        if let Some(then) = now.checked_sub(self.timing.vote_valid()) {
            self.votes.values_mut().for_each(|votes| votes.forget_before(then));
        }
        self.votes.retain(|_, votes| !votes.is_empty());
    }

    /// A vote by foca's hearsay; it counts under the name of its subject, who does not vote about itself.
    pub(super) fn rumour(&mut self, node: &NodeName, now: Instant) {
        self.votes.entry(node.clone()).or_default().cast(node.clone(), Charge::HostDead, now);
    }

    /// How a node is watched here.
    pub(super) fn status(&self, node: &NodeName) -> Option<WatchStatus> {
        Some(self.watches.get(node)?.watch.status())
    }

    fn next(&self) -> Option<Instant> {
        self.watches.values().map(|watched| watched.watch.next(&self.timing)).min()
    }
}

impl Cluster {
    /// Something authentic and fresh came from a process of the node `name`.
    pub(super) fn hear(&mut self, name: &NodeName, process: ProcessId, from: &Path) {
        let now = self.now;
        let was_dark = self.watching.is_dark(now);
        self.watching.heard = now;
        if was_dark {
            self.light_returned();
        }
        let overdue = self.watching.timing.overdue;
        let Some(peer) = self.peers.get_mut(name) else { return self.hear_dead(name, process) };
        if peer.identity.process != process {
            // Another life, or another node of this name: in the same place, it shows that the host lives.
            let same_place = *from == Path::Udp(peer.identity.gossip);
            if same_place {
                self.hear_host(name);
            }
            return;
        }
        peer.heard = Some(now);
        match from {
            Path::Udp(_) => {
                peer.heard_by_udp = Some(now);
                peer.udp_blocked = None;
            }
            Path::Wire(..) => {
                if peer.heard_otherwise(overdue, now) {
                    metrics::wire_veto();
                }
            }
        }
        let gone = peer.away.as_ref().is_some_and(|away| matches!(away.cause, Cause::Gone { .. }));
        let to_be_told = (gone || peer.rumoured).then(|| peer.identity.clone());
        if let Some(watched) = self.watching.watches.get_mut(name)
            && watched.watch.speaker_heard(&self.watching.timing, now) == Vote::Retracted
        {
            self.retract(name);
        }
        if let Some(identity) = to_be_told {
            self.tell_that_it_was_given_up(&identity);
        }
    }

    /// The host behind a [`Request::ProbeHost`] lives.
    pub fn handle_host_answer(&mut self, probe: ProbeId, now: Instant) {
        self.now = now;
        if let Some(name) = self.watching.probes.remove(&probe) {
            self.hear_host(&name);
        }
        self.settle();
    }

    /// A station other than the members, asked by [`Request::AskStations`], said something.
    pub fn handle_station_answer(&mut self, now: Instant) {
        self.now = now;
        self.watching.station = Some(now);
        if self.watching.is_dark(now) {
            self.watching.watches.values_mut().for_each(|watched| watched.watch.permit(now));
            self.schedule_watches();
        }
        self.settle();
    }

    /// A datagram to this address came back: the host says that nobody listens there (ICMP). Anybody can say so in its name:
    /// it is reason to look after the speaker at once, and for a while no more than that.
    pub fn handle_refused(&mut self, at: SocketAddr, now: Instant) {
        self.now = now;
        let quiet = |peer: &Peer| peer.refused.is_none_or(|last| now.saturating_duration_since(last) >= REFUSED_EVERY);
        let refused = self.peers.here().find(|peer| peer.identity.gossip == at).filter(|peer| quiet(peer));
        let Some(name) = refused.map(|peer| peer.identity.name.clone()) else { return };
        if let Some(peer) = self.peers.get_mut(&name) {
            peer.refused = Some(now);
        }
        let light = self.light();
        match self.watching.watches.get_mut(&name) {
            Some(watched) => watched.watch.doubt(light, now),
            None => self.watch_for_a_while(&name, light),
        }
        self.schedule_watches();
        self.settle();
    }

    /// The speaker of `name` at this address answers by TCP: if nothing of it comes by UDP, that is blocked. It is not taken
    /// for alive by this: whoever cannot hear it cannot watch it.
    pub fn handle_reached(&mut self, with: SocketAddr, name: &NodeName, now: Instant) {
        self.now = now;
        let overdue = self.watching.timing.overdue;
        match self.peers.get_mut(name) {
            Some(peer) => {
                peer.heard_otherwise(overdue, now);
            }
            None => {
                if self.reached.len() < REACHED_MAX {
                    self.reached.insert(with, now);
                }
            }
        }
    }

    /// What this node hears of the others.
    fn light(&self) -> Light {
        if !self.watching.is_dark(self.now) {
            return Light::Lit;
        }
        let surroundings = &self.config.surroundings;
        let fresh = |at: Instant| {
            at > self.watching.heard && self.now.saturating_duration_since(at) <= self.watching.timing.station_fresh
        };
        let given = if surroundings.stations {
            self.watching.station.is_some_and(fresh)
        } else {
            // Nobody is known who could tell: only the carrier does.
            surroundings.interfaces != Selection::Only(BTreeSet::new())
        };
        Light::Dark(if given { Permission::Given } else { Permission::Withheld })
    }

    fn light_returned(&mut self) {
        let (now, timing) = (self.now, self.watching.timing);
        let retracted = self.watching.watches.iter_mut().filter_map(|(name, watched)| {
            (watched.watch.light_returned(&timing, now) == Vote::Retracted).then(|| name.clone())
        });
        for name in retracted.collect::<Vec<_>>() {
            self.retract(&name);
        }
    }

    fn hear_host(&mut self, name: &NodeName) {
        let Some(watched) = self.watching.watches.get_mut(name) else { return };
        if watched.watch.host_answered(&self.watching.timing, self.now) == Vote::Retracted {
            self.retract(name);
        }
        self.schedule_watches();
    }

    // Heartbeats

    pub(super) fn send_heartbeats(&mut self) {
        let now = self.now;
        self.watching.subscribers.retain(|_, until| *until > now);
        let watchers = self.watching.ring.watchers(&self.config.local);
        let names: BTreeSet<&NodeName> = watchers.chain(self.watching.subscribers.keys()).collect();
        let here = names.into_iter().filter_map(|name| self.peers.get(name)).filter(|peer| peer.is_here());
        let to: Vec<(ProcessId, Path)> =
            here.map(|peer| (peer.identity.process, Path::Udp(peer.identity.gossip))).collect();
        self.watching.heartbeats = self.watching.heartbeats.wrapping_add(1);
        let number = codec::encode(&self.watching.heartbeats).expect("is a number");
        for (process, path) in to {
            self.send(Kind::Heartbeat, Some(process), &path, &number);
        }
        if !self.peers.is_empty() {
            self.timers.set(Own::Heartbeat, now + self.watching.timing.heartbeat);
        }
    }

    // Watches

    /// Brings ring and watches in line with the members.
    pub(super) fn follow_members(&mut self) {
        let (now, light) = (self.now, self.light());
        let hasten = std::mem::take(&mut self.watching.hasten);
        let local = &self.config.local;
        let here = |name: &NodeName| self.peers.get(name).is_some_and(Peer::is_here);
        let watching = &mut self.watching;
        let gone: Vec<NodeName> = watching.ring.nodes().filter(|name| *name != local && !here(name)).cloned().collect();
        gone.iter().for_each(|name| watching.ring.remove(name));
        for peer in self.peers.here() {
            watching.ring.insert(&peer.identity.name);
        }
        let mut subjects: BTreeMap<&NodeName, Presence> =
            watching.ring.watched_by(local).map(|name| (name, Presence::Here)).collect();
        for peer in self.peers.iter().filter(|peer| !peer.is_here()) {
            if watching.ring.watches(local, &peer.identity.name) {
                subjects.insert(&peer.identity.name, Presence::Away);
            }
        }
        let peers = &self.peers;
        watching.watches.retain(|name, watched| {
            subjects.contains_key(name)
                || (peers.get(name).is_some() && (watched.temporary.is_some() || watched.watch.is_at_work()))
        });
        for (name, presence) in subjects {
            match watching.watches.get_mut(name) {
                Some(watched) => {
                    watched.temporary = None;
                    watched.watch.set_presence(presence, now);
                }
                None => {
                    let suspicious = watching.timing.suspicious;
                    let fresh = peers.get(name).is_some_and(|peer| peer.was_heard_within(suspicious, now));
                    let watch = if hasten && !fresh {
                        Watch::begin_at_once(presence, light, now)
                    } else {
                        Watch::begin(presence, now)
                    };
                    watching.watches.insert(name.clone(), Watched { watch, temporary: None });
                }
            }
        }
        if !self.peers.is_empty() {
            // The first ones at once: a new watcher waits for them.
            self.timers.set_if_unset(Own::Heartbeat, now);
        }
        self.schedule_watches();
    }

    /// Looks after a node that may be silent, whoever its watchers are.
    pub(super) fn look_after(&mut self, name: &NodeName) {
        let (now, light, timing) = (self.now, self.light(), self.watching.timing);
        let Some(peer) = self.peers.get(name) else { return };
        match self.watching.watches.get_mut(name) {
            Some(watched) => watched.watch.hurry(light, &timing, now),
            None if peer.was_heard_within(timing.suspicious, now) => {}
            None => self.watch_for_a_while(name, light),
        }
        self.schedule_watches();
    }

    /// Watches a member that this node need not watch.
    fn watch_for_a_while(&mut self, name: &NodeName, light: Light) {
        let Some(peer) = self.peers.get(name) else { return };
        let watch = Watch::begin_at_once(peer.presence(), light, self.now);
        let temporary = Some(self.now + TEMPORARY_FOR);
        self.watching.watches.insert(name.clone(), Watched { watch, temporary });
    }

    pub(super) fn step_watches(&mut self) {
        let (now, timing) = (self.now, self.watching.timing);
        let due = self.watching.watches.iter().filter(|(_, watched)| watched.watch.next(&timing) <= now);
        for name in due.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            let light = self.light();
            while let Some(act) =
                self.watching.watches.get_mut(&name).and_then(|watched| watched.watch.step(light, &timing, now))
            {
                self.act(&name, act, light);
            }
        }
        self.watching
            .watches
            .retain(|_, watched| watched.temporary.is_none_or(|until| watched.watch.is_at_work() && until > now));
        self.schedule_watches();
    }

    pub(super) fn schedule_watches(&mut self) {
        if let Some(at) = self.watching.next() {
            self.timers.set_no_later(Own::Watches, at);
        }
    }

    fn act(&mut self, name: &NodeName, act: Act, light: Light) {
        match act {
            Act::Look => self.look_at_host(name),
            Act::Ping => {
                self.ping(name);
                if light != Light::Lit && self.config.surroundings.stations {
                    self.timers.set_if_unset(Own::Stations, self.now);
                }
            }
            Act::Accuse(charge) => {
                self.send_vote(name, Some(charge));
                self.ping(name);
                self.judge(name);
            }
        }
    }

    /// Pings the speaker on every way that leads to it, and looks at its host.
    fn ping(&mut self, name: &NodeName) {
        let Some(peer) = self.peers.get(name) else { return };
        let identity = peer.identity.clone();
        let facts = self.book.of(&identity).map(crate::facts::Facts::wires);
        let wires = facts.or_else(|| Some(peer.away.as_ref()?.member.wires.clone())).unwrap_or_default();
        self.ping_on_all_ways(&identity, &wires);
        self.look_at_host(name);
    }

    pub(super) fn ping_on_all_ways(&mut self, to: &Identity, wires: &BTreeMap<InterfaceName, Wire>) {
        self.send_to(Kind::Ping, to, &[]);
        for path in self.wire_paths(wires) {
            self.send(Kind::Ping, Some(to.process), &path, &[]);
        }
    }

    /// The ways over the wires that this node shares with another one.
    pub(super) fn wire_paths(&self, theirs: &BTreeMap<InterfaceName, Wire>) -> Vec<Path> {
        let ours = &self.config.surroundings.wires;
        let shared = theirs.values().filter_map(|their| {
            let (interface, _) = ours.iter().find(|(_, our)| our.meets(their))?;
            Some(Path::Wire(interface.clone(), their.mac))
        });
        shared.take(WIRES_PINGED).collect()
    }

    fn look_at_host(&mut self, name: &NodeName) {
        let Some(peer) = self.peers.get(name) else { return };
        let gossip = peer.identity.gossip;
        let ports: BTreeSet<u16> = self.config.host_ports.iter().copied().chain([gossip.port()]).collect();
        for port in ports {
            let probe = ProbeId(self.watching.next_probe);
            self.watching.next_probe += 1;
            if self.watching.probes.len() >= PROBES_MAX {
                self.watching.probes.pop_first();
            }
            self.watching.probes.insert(probe, name.clone());
            self.push_request(Request::ProbeHost { probe, to: (gossip.ip(), port).into() });
        }
    }

    pub(super) fn ask_stations(&mut self) {
        let at_work = self.watching.watches.values().any(|watched| watched.watch.is_at_work());
        if at_work && self.watching.is_dark(self.now) {
            self.push_request(Request::AskStations);
            self.timers.set(Own::Stations, self.now + self.watching.timing.ask_stations_every);
        }
    }

    // Votes

    /// Tells our opinion to the watchers of a node, to whoever has voted, and, the longer nobody agrees, to more and more
    /// others, who then look after it themselves: views of the ring may differ, and watchers may have died.
    fn send_vote(&mut self, name: &NodeName, charge: Option<Charge>) {
        let Some(subject) = self.peers.get(name).map(|peer| peer.identity.clone()) else { return };
        let standing = self.watching.watches.get(name).and_then(|watched| watched.watch.accusing_since());
        let for_so_long = standing.map(|since| self.now.saturating_duration_since(since)).unwrap_or_default();
        let rounds = for_so_long.as_millis() / (self.watching.timing.ping_every * WIDEN_AFTER).as_millis().max(1);
        let wide = WATCHERS * (1 + usize::try_from(rounds).unwrap_or(usize::MAX).min(WIDEST));
        let nearest = self.watching.ring.successors(name).take(wide);
        let voters = self.watching.votes.get(name).into_iter().flat_map(Votes::voters);
        let names: BTreeSet<&NodeName> = nearest.chain(voters).filter(|other| *other != name).collect();
        let members = names.into_iter().filter_map(|other| self.peers.get(other));
        let to: Vec<Identity> = members.map(|peer| peer.identity.clone()).collect();
        let vote = codec::encode(&VoteMessage { subject, charge }).expect("an identity is bounded by its name");
        for other in to {
            self.send_by_open_ways(Kind::Vote, &other, &vote);
        }
    }

    fn retract(&mut self, name: &NodeName) {
        self.send_vote(name, None);
    }

    /// Another watcher tells its opinion.
    pub(super) fn handle_vote(&mut self, voter: &NodeName, vote: &VoteMessage) {
        let name = &vote.subject.name;
        if *name == self.config.local || name == voter {
            return;
        }
        let Some(peer) = self.peers.get(name) else { return self.remind(voter, &vote.subject) };
        if peer.identity != vote.subject {
            return;
        }
        let votes = self.watching.votes.entry(name.clone()).or_default();
        let Some(charge) = vote.charge else { return votes.retract(voter) };
        votes.cast(voter.clone(), charge, self.now);
        self.look_after(name);
        let (light, timing, now) = (self.light(), self.watching.timing, self.now);
        if charge == Charge::HostDead
            && let Some(watched) = self.watching.watches.get_mut(name)
        {
            watched.watch.contradict(light, &timing, now);
            self.schedule_watches();
        }
        self.judge(name);
    }

    /// Makes votes a verdict, if they suffice. Nobody gives a verdict who has not looked itself.
    fn judge(&mut self, name: &NodeName) {
        let Some(own) = self.watching.watches.get(name).and_then(|watched| watched.watch.charge()) else { return };
        let none = Votes::default();
        let votes = self.watching.votes.get(name).unwrap_or(&none);
        let verdict = match (self.light(), own) {
            (Light::Lit, _) => votes.verdict(own, self.watching.timing.vote_valid(), self.now),
            // Nobody is there who could agree.
            (Light::Dark(_), Charge::SpeakerGone) | (Light::Dark(Permission::Given), Charge::HostDead) => {
                Some((own, Vec::new()))
            }
            (Light::Dark(Permission::Withheld), Charge::HostDead) => None,
        };
        if let Some((charge, voters)) = verdict {
            self.pronounce(name, charge, &voters);
        }
    }
}

/// Chosen: a host has one network for its services, or two.
const WIRES_PINGED: usize = 2;

/// Chosen: 4 s of probes of three hosts on two ports.
const PROBES_MAX: usize = 1024;

/// Chosen: more seeds than that are not all missing.
const REACHED_MAX: usize = 64;

/// Chosen: the largest cluster that is tested.
const SUBSCRIBERS_MAX: usize = 1024;

/// After so many repetitions of a vote without a verdict, three more nodes are asked, and so on up to this many times.
const WIDEN_AFTER: u32 = 3;
const WIDEST: usize = 4;
