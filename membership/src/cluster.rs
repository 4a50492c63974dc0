//! The membership protocol of one node, without IO.
//!
//! The owner hands in datagrams and the time, sends what [`Cluster::poll_transmit`] gives, does what
//! [`Cluster::poll_request`] asks, and calls [`Cluster::handle_timeout`] at [`Cluster::poll_timeout`]. Invariant: a datagram
//! that is not authentic, not fresh or not meant for this process changes nothing but a counter, and at most makes the node
//! ask its sender to prove itself.
//!
//! ```text
//!         every seed found, or 3 s          leave()            said so five times
//! joining ────────────────────────► joined ─────────► leaving ────────────────────► gone
//! ```
//!
//! Who joins and what is said spreads by foca; who died is found by the watchers (`watching`, `verdicts`).

mod exchange;
mod handicaps;
mod keys;
mod receive;
mod settle;
mod show;
#[cfg(test)]
mod tests;
mod verdicts;
mod watching;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use garpike_election::{Member, Members, NodeName, NodeState};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use self::watching::Watching;
use crate::config::{
    ANNOUNCE_TO, ASK_FACTS_EVERY, EXCHANGE_EVERY, FAREWELL_EVERY, FAREWELLS, HOUSEKEEPING_EVERY, JOIN_WITHIN,
    LOST_SEEDS_EVERY, REMEMBER_DEAD, SEEDS_EVERY, TELL_SUSPECT_EVERY,
};
use crate::datagram::Kind;
use crate::deliveries::{Deliveries, Item};
use crate::facts::{Facts, FactsBook, News};
use crate::hold_down::HoldDown;
use crate::lateness::Lateness;
use crate::lost_gateway::LostGateway;
use crate::peers::{Peers, Start};
use crate::rejected::Rejections;
use crate::seeds::Seeds;
use crate::session::Sessions;
use crate::suspicion::{Outcome, Suspicions};
use crate::swim::Swim;
use crate::timers::{Due, Own, Timers};
use crate::told::Told;
use crate::traffic::Traffic;
use crate::watch::timing::Timing;
use crate::{Config, Event, Identity, Path, Request, Transmit, codec, metrics, peers};

/// The cluster as one process takes part in it.
pub struct Cluster {
    config: Config,
    rng: StdRng,
    swim: Swim,
    sessions: Sessions,
    timers: Timers,
    suspicions: Suspicions,
    watching: Watching,
    deliveries: Deliveries,
    seeds: Seeds,
    own: Facts,
    /// What this node is once it has joined: ready or draining.
    wanted: NodeState,
    hold_down: HoldDown,
    lateness: Lateness,
    lost_gateway: LostGateway,
    book: FactsBook,
    peers: Peers,
    rejections: Rejections,
    keys: keys::Keys,
    phase: Phase,
    /// When this node had found its peers.
    ready_at: Option<Instant>,
    /// foca is in touch with a member.
    connected: bool,
    twin: Option<Twin>,
    /// Somebody may not hold our latest facts.
    facts_open: bool,
    told: Told,
    /// Seeds that are no members, but answer by TCP; when they did.
    reached: BTreeMap<SocketAddr, Instant>,
    /// How often the dead were pinged.
    revenant_rounds: u32,
    /// The number of the last datagram that was sent.
    sequence: u64,
    /// The time of the last input.
    now: Instant,
    members: Members,
    /// Something happened that may have changed `members`.
    stale: bool,
    /// The members that have said something new, while nothing else happened.
    said: BTreeSet<NodeName>,
    /// Whether the whole cluster was starting when `members` was counted.
    founding: bool,
    traffic: Traffic,
    transmits: VecDeque<Transmit>,
    requests: VecDeque<Request>,
    events: VecDeque<Event>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Joining,
    Joined,
    Leaving { said: u32 },
    Gone,
}

/// Another node that lives under our name.
#[derive(Clone, Debug)]
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
        let mut own = Facts::new(&identity, state, config.sealing.ids(), &config.surroundings);
        own.set_release(config.feature_level, &config.later_facts);
        own.set_spread(config.spread);
        let mut cluster = Self {
            swim: Swim::new(identity, config.profile, StdRng::from_rng(&mut rng)),
            sessions: Sessions::default(),
            timers: Timers::default(),
            suspicions: Suspicions::default(),
            watching: Watching::new(config.profile, &config.local, now),
            deliveries: Deliveries::default(),
            seeds,
            own,
            wanted: NodeState::Ready,
            hold_down: HoldDown::new(config.failback),
            lateness: Lateness::new(Timing::of(config.profile).overdue),
            lost_gateway: LostGateway::default(),
            book: FactsBook::default(),
            peers: Peers::default(),
            rejections: Rejections::default(),
            keys: keys::Keys::default(),
            phase,
            ready_at: None,
            connected: false,
            twin: None,
            facts_open: false,
            told: Told::default(),
            reached: BTreeMap::new(),
            revenant_rounds: 0,
            sequence: 0,
            now,
            members: Members { local: config.local.clone(), nodes: BTreeMap::new() },
            stale: false,
            said: BTreeSet::new(),
            founding: false,
            traffic: Traffic::default(),
            transmits: VecDeque::new(),
            requests: VecDeque::new(),
            events: VecDeque::new(),
            rng,
            config,
        };
        cluster.timers.set(Own::Seeds, now);
        cluster.timers.set(Own::Housekeeping, now + HOUSEKEEPING_EVERY);
        cluster.exchange_later();
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
        self.note_lateness(self.timers.next());
        while let Some(due) = self.timers.pop_due(now) {
            match due {
                Due::Swim(timer) => self.handle_swim_timer(timer),
                Due::Own(Own::Heartbeat) => self.send_heartbeats(),
                Due::Own(Own::Watches) => self.step_watches(),
                Due::Own(Own::Stations) => self.ask_stations(),
                Due::Own(Own::Deliveries) => self.deliver_again(),
                Due::Own(Own::Revenants) => self.ping_the_dead(),
                Due::Own(Own::Grace) => self.end_graces(),
                Due::Own(Own::HoldDown) => self.review_state(),
                Due::Own(Own::Founded) => self.stale = true,
                Due::Own(Own::Seeds) => self.try_seeds(),
                Due::Own(Own::Joined) => self.become_ready(),
                Due::Own(Own::Suspects) => self.tell_suspects(),
                Due::Own(Own::Housekeeping) => self.keep_house(),
                Due::Own(Own::MissingFacts) => self.ask_for_facts(),
                Due::Own(Own::Exchange) => self.exchange_with_somebody(),
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

    /// The next thing that is to be done besides sending.
    pub fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Tells everybody what this node is doing: `Ready`, `Draining` or `Restarting`; or `Joining` while it does not know
    /// yet what to answer for. A node that joins goes on saying so until it has joined: a drained one that starts must
    /// not be ready in between.
    pub fn set_state(&mut self, state: NodeState, now: Instant) {
        self.now = now;
        if state != NodeState::Restarting {
            self.wanted = state;
        }
        if state == NodeState::Restarting || self.phase != Phase::Joining {
            self.change_state(state);
        }
        self.settle();
    }

    /// Takes other addresses of members to look for; who is a member already stays one.
    pub fn set_seeds(&mut self, seeds: &[SocketAddr], now: Instant) {
        self.now = now;
        self.seeds.replace(seeds, self.config.gossip);
        if matches!(self.phase, Phase::Joining | Phase::Joined) {
            self.timers.set(Own::Seeds, now);
        }
        self.stale = true;
        self.settle();
    }

    /// Leaves the cluster: tells the others, several times, and hears nothing any more. [`Self::is_gone`] tells when
    /// that is done.
    pub fn leave(&mut self, now: Instant) {
        self.now = now;
        match self.phase {
            Phase::Joining | Phase::Joined => {
                self.change_state(NodeState::Restarting);
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
            match self.suspicions.end(member_id, *incarnation, known) {
                Outcome::Refuted => metrics::suspicion(metrics::Suspicion::Refuted),
                Outcome::Stands => {
                    metrics::suspicion(metrics::Suspicion::Stands);
                    self.look_after(&member_id.name.clone());
                }
            }
            return;
        }
        self.swim.handle_timer(timer);
    }

    fn try_seeds(&mut self) {
        let (names, addrs) = self.active_names_and_addrs();
        let settled = self.connected && self.phase == Phase::Joined;
        let missing = self.seeds.missing(&names, &addrs);
        for seed in missing {
            if settled {
                self.push_request(Request::Reach { with: seed });
            }
            let nonce = self.sessions.ask_seed(seed, &mut self.rng, self.now);
            self.send(Kind::Challenge, None, &Path::Udp(seed), nonce.as_bytes());
        }
        if !self.connected {
            // foca does nothing of its own while it knows no active member.
            let known: Vec<Identity> = self.swim.known().map(|member| member.id().clone()).take(ANNOUNCE_TO).collect();
            for identity in known {
                self.swim.announce(identity);
            }
        }
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

    fn keep_house(&mut self) {
        self.sessions.forget_silent(self.now);
        self.review_keys();
        self.review_handicaps();
        if let Some(then) = self.now.checked_sub(REMEMBER_DEAD) {
            self.peers.forget_dead_before(then);
        }
        let peers = &self.peers;
        self.book.retain(|name| peers.get(name).is_some() || peers.dead(name).is_some());
        self.watching.forget_old_votes(self.now);
        self.told.forget_old(self.now);
        let now = self.now;
        self.reached.retain(|_, at| now.saturating_duration_since(*at) < HOUSEKEEPING_EVERY);
        let gone = self.peers.iter().filter(|peer| !peer.is_here()).map(|peer| peer.identity.gossip);
        for with in gone.collect::<Vec<_>>() {
            self.push_request(Request::Reach { with });
        }
        self.timers.set(Own::Housekeeping, self.now + HOUSEKEEPING_EVERY);
    }

    fn ask_for_facts(&mut self) {
        let without: Vec<Identity> = self.members_without_facts().cloned().collect();
        for member in &without {
            self.send_to(Kind::FactsWanted, member, &[]);
        }
        if !without.is_empty() {
            self.timers.set(Own::MissingFacts, self.now + ASK_FACTS_EVERY);
        }
    }

    fn exchange_with_somebody(&mut self) {
        let count = self.peers.here().count();
        if count > 0 {
            let chosen = self.rng.random_range(0..count);
            let with = self.peers.here().nth(chosen).map(|peer| peer.identity.gossip);
            if let Some(with) = with {
                self.push_request(Request::Exchange { with });
            }
        }
        self.exchange_later();
    }

    fn exchange_later(&mut self) {
        let pause = EXCHANGE_EVERY.mul_f64(self.rng.random_range(0.9..1.1));
        self.timers.set(Own::Exchange, self.now + pause);
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
            self.ready_at = Some(self.now);
            self.timers.set(Own::Founded, self.now + FOUNDING);
            self.review_state();
            self.push_event(Event::Ready);
        }
    }

    /// Between joining, held down and what is wanted, the state is the cluster's own to choose.
    fn review_state(&mut self) {
        if self.phase != Phase::Joined {
            return;
        }
        let held_down = self.hold_down.is_on(self.now);
        match self.own.state {
            NodeState::Joining | NodeState::Ready | NodeState::HeldDown => self.change_state(self.wanted),
            NodeState::Draining | NodeState::Restarting => {}
        }
        if let Some(at) = self.hold_down.ends_at().filter(|at| held_down && *at > self.now) {
            self.timers.set(Own::HoldDown, at);
        }
    }

    fn change_state(&mut self, state: NodeState) {
        let held_down = state == NodeState::Ready && self.hold_down.is_on(self.now);
        let state = if held_down { NodeState::HeldDown } else { state };
        if self.own.set_state(state) == News::Yes {
            self.spread_facts();
        }
    }

    /// Sends our facts to every member until it acknowledges them.
    fn spread_facts(&mut self) {
        self.stale = true;
        self.facts_open = true;
        let members: Vec<Identity> = self.peers.iter().map(|peer| peer.identity.clone()).collect();
        for member in &members {
            self.deliver_facts(member);
        }
    }

    fn deliver_facts(&mut self, to: &Identity) {
        self.send_facts(to);
        if self.peers.get(&to.name).is_some_and(peers::Peer::is_here) {
            self.facts_open = true;
            self.deliveries.sent(&to.name, Item::Facts, self.now);
            self.schedule_deliveries();
        }
    }

    /// Whether every member has said something; with thousands that join it is asked thousands of times.
    fn all_have_spoken(&self) -> bool {
        self.book.len() >= self.peers.len() && self.members_without_facts().next().is_none()
    }

    fn members_without_facts(&self) -> impl Iterator<Item = &Identity> {
        self.peers.iter().map(|peer| &peer.identity).filter(|identity| self.book.of(identity).is_none())
    }

    fn active_names_and_addrs(&self) -> (BTreeSet<&NodeName>, BTreeSet<SocketAddr>) {
        self.peers.iter().map(|peer| (&peer.identity.name, peer.identity.gossip)).unzip()
    }

    fn count_members(&self) -> Members {
        let local = self.config.local.clone();
        let member = |peer: &peers::Peer| (peer.identity.name.clone(), self.describe(peer));
        let mut nodes: BTreeMap<_, _> = self.peers.iter().map(member).collect();
        if self.counts_itself() {
            nodes.insert(local.clone(), peers::describe(&self.own));
        }
        Members { local, nodes }
    }

    fn describe(&self, peer: &peers::Peer) -> Member {
        let mut member = peer.describe(self.book.of(&peer.identity));
        if self.founding && member.state == NodeState::Joining {
            member.state = NodeState::Ready;
        }
        member
    }

    /// Whether the whole cluster is only starting. Then the first one to be ready does not take what belongs to those who
    /// will be in a moment: nobody has served it yet.
    fn is_founding(&self) -> bool {
        let recent = |at: Instant| self.now.saturating_duration_since(at) < FOUNDING;
        self.ready_at.is_some_and(recent)
            && self.peers.iter().all(|peer| {
                let state = self.book.of(&peer.identity).map(|facts| facts.state);
                let starts = match state {
                    None | Some(NodeState::Joining) => true,
                    Some(NodeState::Ready | NodeState::Draining) => {
                        matches!(peer.start, Start::Ready(at) if recent(at))
                    }
                    Some(NodeState::HeldDown | NodeState::Restarting) => false,
                };
                starts && peer.is_here() && !peer.returned
            })
    }

    fn counts_itself(&self) -> bool {
        self.twin.as_ref().is_none_or(|twin| twin.until <= self.now)
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

    fn push_request(&mut self, request: Request) {
        if self.requests.len() < REQUESTS_MAX && !self.requests.contains(&request) {
            self.requests.push_back(request);
        }
    }
}

/// Chosen: nodes that know each other are ready within milliseconds of each other.
const FOUNDING: Duration = Duration::from_secs(1);

/// Chosen: events are few, and their reader is slower only when it is stuck.
const EVENTS_MAX: usize = 256;

/// Chosen: the owner takes them after every input; no input leads to more.
const REQUESTS_MAX: usize = 256;
