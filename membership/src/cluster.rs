//! The membership protocol of one node, without IO.
//!
//! The owner hands in datagrams and the time, sends what [`Cluster::poll_transmit`] gives, and calls
//! [`Cluster::handle_timeout`] at [`Cluster::poll_timeout`]. Invariant: a datagram that is not authentic, not fresh
//! or not meant for this process changes nothing but a counter, and at most makes the node ask its sender to prove
//! itself. Detection is SWIM's alone: what it takes for death is silence of the speaker.
//!
//! ```text
//!         every seed found, or 3 s          leave()            said so five times
//! joining ────────────────────────► joined ─────────► leaving ────────────────────► gone
//! ```

mod receive;
mod settle;
mod show;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use garpike_election::{InterfaceName, Member, Members, NodeName, NodeState, Selection};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::config::{
    ANNOUNCE_TO, ASK_FACTS_EVERY, FACTS_EVERY, FAREWELL_EVERY, FAREWELLS, JOIN_WITHIN, LOST_SEEDS_EVERY, SEEDS_EVERY,
    TELL_SUSPECT_EVERY,
};
use crate::datagram::Kind;
use crate::facts::{Facts, FactsBook, News};
use crate::rejected::Rejections;
use crate::seeds::Seeds;
use crate::session::Sessions;
use crate::suspicion::{Hearing, Suspicions, Verdict};
use crate::swim::Swim;
use crate::timers::{Due, Own, Timers};
use crate::{Config, Event, Identity, Transmit, codec, metrics};

/// The cluster as one process takes part in it.
pub struct Cluster {
    config: Config,
    rng: StdRng,
    swim: Swim,
    sessions: Sessions,
    timers: Timers,
    suspicions: Suspicions,
    hearing: Hearing,
    seeds: Seeds,
    own: Facts,
    book: FactsBook,
    dead: BTreeMap<NodeName, Dead>,
    rejections: Rejections,
    phase: Phase,
    /// foca is in touch with a member.
    connected: bool,
    twin: Option<Twin>,
    /// The number of the last datagram that was sent.
    sequence: u64,
    /// The time of the last input.
    now: Instant,
    members: Members,
    /// Something happened that may have changed `members`.
    stale: bool,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Joining,
    Joined,
    Leaving { said: u32 },
    Gone,
}

/// A member that died or left.
#[derive(Clone, Debug)]
struct Dead {
    identity: Identity,
    at: Instant,
    last_state: Option<NodeState>,
}

/// Another node that lives under our name.
#[derive(Clone, Copy, Debug)]
struct Twin {
    at: SocketAddr,
    heard: Instant,
    /// Until then we do not count ourselves among the members.
    until: Instant,
}

impl Cluster {
    /// A process that begins to take part.
    ///
    /// `seed` makes nonces and challenges: outside of tests it must be 32 bytes from the operating system's generator,
    /// never used before.
    pub fn new(config: Config, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let identity = Identity {
            name: config.local.clone(),
            generation: config.generation,
            process: config.process,
            gossip: config.gossip,
        };
        let seeds = Seeds::new(&config.seeds, config.gossip);
        let alone = seeds.missing(&BTreeSet::new(), &BTreeSet::new()).is_empty();
        let (phase, state) =
            if alone { (Phase::Joined, NodeState::Ready) } else { (Phase::Joining, NodeState::Joining) };
        let own = Facts::new(&identity, state, config.interfaces.clone());
        let mut cluster = Self {
            swim: Swim::new(identity, StdRng::from_rng(&mut rng)),
            sessions: Sessions::default(),
            timers: Timers::default(),
            suspicions: Suspicions::default(),
            hearing: Hearing::new(now),
            seeds,
            own,
            book: FactsBook::default(),
            dead: BTreeMap::new(),
            rejections: Rejections::default(),
            phase,
            connected: false,
            twin: None,
            sequence: 0,
            now,
            members: Members { local: config.local.clone(), nodes: BTreeMap::new() },
            stale: false,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            rng,
            config,
        };
        cluster.timers.set(Own::Seeds, now);
        cluster.timers.set(Own::Facts, now + FACTS_EVERY);
        if alone {
            cluster.push_event(Event::Ready);
        } else {
            cluster.timers.set(Own::Joined, now + JOIN_WITHIN);
        }
        cluster.members = cluster.count_members();
        cluster
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        while let Some(due) = self.timers.pop_due(now) {
            match due {
                Due::Swim(timer) => self.handle_swim_timer(timer),
                Due::Own(Own::Seeds) => self.try_seeds(),
                Due::Own(Own::Joined) => self.become_ready(),
                Due::Own(Own::Suspects) => self.tell_suspects(),
                Due::Own(Own::Facts) => self.repeat_facts(),
                Due::Own(Own::MissingFacts) => self.ask_for_facts(),
                Due::Own(Own::Farewell) => self.say_farewell(),
            }
            self.settle();
        }
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Tells everybody what this node is doing.
    pub fn set_state(&mut self, state: NodeState, now: Instant) {
        self.now = now;
        self.change_state(state);
        self.settle();
    }

    /// Tells everybody on which interfaces this node can announce.
    pub fn set_interfaces(&mut self, interfaces: Selection<InterfaceName>, now: Instant) {
        self.now = now;
        if self.own.set_interfaces(interfaces) == News::Yes {
            self.spread_facts();
        }
        self.settle();
    }

    /// Leaves the cluster: tells the others, several times, and hears nothing any more. [`Self::is_gone`] tells when
    /// that is done.
    pub fn leave(&mut self, now: Instant) {
        self.now = now;
        match self.phase {
            Phase::Joining | Phase::Joined => {
                self.swim.leave();
                self.settle();
                self.timers.clear();
                self.phase = Phase::Leaving { said: 1 };
                self.timers.set(Own::Farewell, now + FAREWELL_EVERY);
            }
            Phase::Leaving { .. } | Phase::Gone => {}
        }
    }

    /// Whether this node has left and said so often enough.
    pub fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// Who is alive, this node included unless another one lives under its name.
    pub fn members(&self) -> &Members {
        &self.members
    }

    // Timers

    fn handle_swim_timer(&mut self, timer: foca::Timer<Identity>) {
        if let foca::Timer::ChangeSuspectToDown { member_id, incarnation, .. } = &timer {
            let known = self.swim.named(&member_id.name);
            match self.suspicions.judge(member_id, *incarnation, known, self.hearing, self.now) {
                Verdict::Refuted => return metrics::suspicion(metrics::Outcome::Refuted),
                Verdict::HeldBack(for_so_long) => {
                    self.timers.add(self.now + for_so_long, timer);
                    return metrics::suspicion(metrics::Outcome::HeldBack);
                }
                Verdict::Down => metrics::suspicion(metrics::Outcome::Down),
            }
        }
        self.swim.handle_timer(timer);
    }

    fn try_seeds(&mut self) {
        let (names, addrs) = self.active_names_and_addrs();
        for seed in self.seeds.missing(&names, &addrs) {
            let nonce = self.sessions.ask_seed(seed, &mut self.rng, self.now);
            self.send(Kind::Challenge, None, seed, nonce.as_bytes());
        }
        if !self.connected {
            // foca does nothing of its own while it knows no active member.
            let known: Vec<Identity> = self.swim.known().map(|member| member.id().clone()).take(ANNOUNCE_TO).collect();
            for identity in known {
                self.swim.announce(identity);
            }
        }
        let settled = self.connected && self.phase == Phase::Joined;
        let pause = if settled { LOST_SEEDS_EVERY } else { SEEDS_EVERY };
        // Nodes that started together do not stay in step.
        self.timers.set(Own::Seeds, self.now + pause.mul_f64(self.rng.random_range(0.9..1.1)));
    }

    fn tell_suspects(&mut self) {
        let standing = self.suspicions.standing(|name| self.swim.named(name));
        for (suspect, incarnation) in &standing {
            let suspicion =
                codec::Standing { identity: suspect.clone(), incarnation: *incarnation, state: foca::State::Suspect };
            self.send_standing(Kind::Suspected, suspect, &suspicion);
        }
        if !standing.is_empty() {
            self.timers.set(Own::Suspects, self.now + TELL_SUSPECT_EVERY);
        }
    }

    fn repeat_facts(&mut self) {
        self.swim.gossip_facts(&self.own);
        self.sessions.forget_silent(self.now);
        let known = self.swim.known().map(|member| &member.id().name).chain(self.dead.keys()).collect();
        self.book.keep(&known);
        self.timers.set(Own::Facts, self.now + FACTS_EVERY);
    }

    fn ask_for_facts(&mut self) {
        let without: Vec<Identity> = self.members_without_facts().cloned().collect();
        for member in &without {
            self.send(Kind::FactsWanted, Some(member.process), member.gossip, &[]);
        }
        if !without.is_empty() {
            self.timers.set(Own::MissingFacts, self.now + ASK_FACTS_EVERY);
        }
    }

    fn say_farewell(&mut self) {
        let Phase::Leaving { said } = self.phase else { return };
        self.swim.gossip();
        if said < FAREWELLS {
            self.phase = Phase::Leaving { said: said + 1 };
            self.timers.set(Own::Farewell, self.now + FAREWELL_EVERY);
        } else {
            self.phase = Phase::Gone;
        }
    }

    // State

    fn become_ready(&mut self) {
        if self.phase == Phase::Joining {
            self.phase = Phase::Joined;
            if self.own.state == NodeState::Joining {
                self.change_state(NodeState::Ready);
            }
            self.push_event(Event::Ready);
        }
    }

    fn change_state(&mut self, state: NodeState) {
        if self.own.set_state(state) == News::Yes {
            self.spread_facts();
        }
    }

    /// Sends our facts to every member at once, and by gossip to those that this misses.
    fn spread_facts(&mut self) {
        self.stale = true;
        let members: Vec<Identity> = self.swim.active().map(|member| member.id().clone()).collect();
        for member in &members {
            self.send_facts(member);
        }
        self.swim.gossip_facts(&self.own);
    }

    fn members_without_facts(&self) -> impl Iterator<Item = &Identity> {
        self.swim.active().map(foca::Member::id).filter(|identity| self.book.of(identity).is_none())
    }

    fn active_names_and_addrs(&self) -> (BTreeSet<&NodeName>, BTreeSet<SocketAddr>) {
        self.swim.active().map(|member| (&member.id().name, member.id().gossip)).unzip()
    }

    fn count_members(&self) -> Members {
        let local = self.config.local.clone();
        let mut nodes: BTreeMap<NodeName, Member> =
            (self.swim.active()).map(|member| (member.id().name.clone(), self.describe(member.id()))).collect();
        if self.counts_itself() {
            let ourselves = Member { state: self.own.state, interfaces: self.own.interfaces() };
            nodes.insert(local.clone(), ourselves);
        }
        Members { local, nodes }
    }

    fn counts_itself(&self) -> bool {
        self.twin.is_none_or(|twin| twin.until <= self.now)
    }

    /// A member that has not yet spoken for itself ranks behind the others.
    fn describe(&self, identity: &Identity) -> Member {
        match self.book.of(identity) {
            Some(facts) => Member { state: facts.state, interfaces: facts.interfaces() },
            None => Member { state: NodeState::Joining, interfaces: Selection::All },
        }
    }

    fn push_event(&mut self, event: Event) {
        if event == Event::MembersChanged && self.events.contains(&event) {
            return;
        }
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        } else {
            metrics::event_lost();
        }
    }
}

/// Chosen: events are few, and their reader is slower only when it is stuck.
const EVENTS_MAX: usize = 256;
