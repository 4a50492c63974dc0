//! A network of clusters in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use garpike_election::{Members, NodeName, NodeState, Presence, Selection};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::{
    Cluster, Config, Event, FeatureLevel, Generation, Key, Path, ProcessId, Profile, Request, Sealing, SecretKey,
    Surroundings,
};

/// One-way delay of a datagram.
const LATENCY: Range<Duration> = Duration::from_micros(100)..Duration::from_micros(500);

pub(super) struct Net {
    begin: Instant,
    pub(super) now: Instant,
    pub(super) rng: StdRng,
    /// The share of datagrams that get lost.
    pub(super) loss: f64,
    pub(super) nodes: BTreeMap<SocketAddr, Cluster>,
    /// Hosts whose speaker was killed: their kernels refuse connections.
    refusing: BTreeSet<SocketAddr>,
    /// Pairs of addresses that do not reach each other.
    cuts: BTreeSet<(SocketAddr, SocketAddr)>,
    /// Nodes that do not run, until when.
    stalls: BTreeMap<SocketAddr, Instant>,
    on_the_wire: BTreeMap<(Instant, u64), Datagram>,
    /// Every datagram that was sent.
    pub(super) recorded: Vec<Datagram>,
    /// Who wanted the stations on its wire to say something.
    pub(super) asked_stations: BTreeSet<SocketAddr>,
    pub(super) events: Vec<(Instant, SocketAddr, Event)>,
}

#[derive(Clone)]
pub(super) struct Datagram {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

impl Net {
    pub(super) fn new(seed: u64) -> Self {
        let begin = start();
        Self {
            begin,
            now: begin,
            rng: StdRng::seed_from_u64(seed),
            loss: 0.0,
            nodes: BTreeMap::new(),
            refusing: BTreeSet::new(),
            cuts: BTreeSet::new(),
            stalls: BTreeMap::new(),
            on_the_wire: BTreeMap::new(),
            recorded: Vec::new(),
            asked_stations: BTreeSet::new(),
            events: Vec::new(),
        }
    }

    /// Nodes 1 to `count`, all started at once with all as seeds, after they have found each other.
    pub(super) fn settled(count: u8, seed: u64) -> Self {
        let mut net = Self::new(seed);
        for node in 1..=count {
            net.start(config(node, count));
        }
        net.run(Duration::from_secs(1));
        net.assert_all_know_all();
        // So that faults come at any moment of the probe period.
        let phase = net.rng.random_range(0..200);
        net.run(Duration::from_millis(phase));
        net.events.clear();
        net.recorded.clear();
        net
    }

    pub(super) fn start(&mut self, config: Config) {
        let addr = config.gossip;
        let cluster = Cluster::new(config, self.rng.random(), self.now);
        self.refusing.remove(&addr);
        self.nodes.insert(addr, cluster);
        self.flush(addr);
    }

    /// The host dies.
    pub(super) fn crash(&mut self, node: u8) {
        self.nodes.remove(&addr(node));
        self.refusing.remove(&addr(node));
    }

    /// The speaker is killed, its host lives.
    pub(super) fn kill(&mut self, node: u8) {
        self.nodes.remove(&addr(node)).unwrap();
        self.refusing.insert(addr(node));
    }

    /// The node does nothing for so long; datagrams for it wait.
    pub(super) fn stall(&mut self, node: u8, duration: Duration) {
        self.stalls.insert(addr(node), self.now + duration);
    }

    /// Cuts the connections between the two groups, both ways.
    pub(super) fn cut(&mut self, left: &[u8], right: &[u8]) {
        for (a, b) in left.iter().flat_map(|a| right.iter().map(|b| (addr(*a), addr(*b)))) {
            self.cuts.extend([(a, b), (b, a)]);
        }
    }

    /// Lets nothing through from the first node to the second.
    pub(super) fn cut_one_way(&mut self, from: u8, to: u8) {
        self.cuts.insert((addr(from), addr(to)));
    }

    pub(super) fn heal(&mut self) {
        self.cuts.clear();
    }

    pub(super) fn node(&mut self, node: u8) -> &mut Cluster {
        self.nodes.get_mut(&addr(node)).unwrap()
    }

    /// What `node` sees.
    pub(super) fn members(&self, node: u8) -> &Members {
        self.nodes.get(&addr(node)).unwrap().members()
    }

    /// Does something to a node and lets its datagrams out.
    pub(super) fn with(&mut self, node: u8, act: impl FnOnce(&mut Cluster, Instant)) {
        let now = self.now;
        act(self.node(node), now);
        self.flush(addr(node));
    }

    pub(super) fn deliver(&mut self, datagram: &Datagram) {
        let now = self.now;
        if let Some(cluster) = self.nodes.get_mut(&datagram.to) {
            cluster.handle_datagram(datagram.from, &datagram.bytes, now);
            self.flush(datagram.to);
        }
    }

    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until the condition holds; gives how long that took.
    pub(super) fn run_until(&mut self, within: Duration, condition: impl Fn(&Self) -> bool) -> Duration {
        let begin = self.now;
        while !condition(self) {
            assert!(self.step(begin + within), "not within {within:?}: {}", self.views());
        }
        self.now - begin
    }

    /// The nodes that `node` counts as living.
    pub(super) fn living(&self, node: u8) -> BTreeSet<NodeName> {
        self.nodes.get(&addr(node)).unwrap().members().nodes.keys().cloned().collect()
    }

    pub(super) fn knows_all(&self, cluster: &Cluster) -> bool {
        let running: BTreeSet<&NodeName> = self.nodes.values().map(|cluster| &cluster.members().local).collect();
        let members = &cluster.members().nodes;
        members.keys().collect::<BTreeSet<_>>() == running
            && members.values().all(|member| {
                matches!(member.state, NodeState::Ready | NodeState::HeldDown) && member.presence == Presence::Here
            })
    }

    pub(super) fn all_know_all(&self) -> bool {
        self.nodes.values().all(|cluster| self.knows_all(cluster))
    }

    #[track_caller]
    pub(super) fn assert_all_know_all(&self) {
        assert!(self.all_know_all(), "{}", self.views());
    }

    pub(super) fn events_of(&self, node: u8) -> Vec<Event> {
        self.events.iter().filter(|(_, at, _)| *at == addr(node)).map(|(_, _, event)| event.clone()).collect()
    }

    pub(super) fn count(&self, event: &Event) -> usize {
        self.events.iter().filter(|(_, _, happened)| happened == event).count()
    }

    fn views(&self) -> String {
        self.nodes.values().map(|cluster| format!("\n{:?}", cluster.members())).collect()
    }

    /// Advances to the next thing that happens, no later than `end`.
    fn step(&mut self, end: Instant) -> bool {
        let arrival = self.on_the_wire.first_key_value().map(|((at, _), _)| *at);
        let timeout = (self.nodes.iter())
            .filter_map(|(addr, cluster)| {
                Some((self.woken(cluster.poll_timeout()?).max(self.running_again(*addr)), *addr))
            })
            .min();
        let at = arrival.into_iter().chain(timeout.map(|(at, _)| at)).min();
        let Some(at) = at.filter(|at| *at <= end) else { return false };
        self.now = self.now.max(at);
        if arrival == Some(at) {
            let (_, datagram) = self.on_the_wire.pop_first().unwrap();
            let again = self.running_again(datagram.to);
            if again > self.now {
                // It waits in the socket, before the timers.
                self.put(again, datagram);
            } else {
                self.deliver(&datagram);
            }
        } else if let Some((_, addr)) = timeout {
            let now = self.now;
            self.nodes.get_mut(&addr).unwrap().handle_timeout(now);
            self.flush(addr);
        }
        true
    }

    /// When a sleeper until `deadline` really wakes: up to a millisecond late, always the same for one deadline.
    fn woken(&self, deadline: Instant) -> Instant {
        let since = deadline.saturating_duration_since(self.begin);
        let nanos = since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos());
        deadline + Duration::from_nanos(nanos.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1_000_000)
    }

    fn running_again(&self, addr: SocketAddr) -> Instant {
        self.stalls.get(&addr).copied().unwrap_or(self.now).max(self.now)
    }

    fn flush(&mut self, from: SocketAddr) {
        while let Some(transmit) = self.nodes.get_mut(&from).and_then(Cluster::poll_transmit) {
            assert!(transmit.payload.len() <= 1428, "{} bytes", transmit.payload.len());
            let Path::Udp(to) = transmit.to else { continue };
            let datagram = Datagram { from, to, bytes: transmit.payload };
            self.recorded.push(datagram.clone());
            let lost = self.loss > 0.0 && self.rng.random_bool(self.loss);
            if !lost && !self.cuts.contains(&(from, to)) {
                let at = self.now + self.rng.random_range(LATENCY);
                self.put(at, datagram);
            }
        }
        while let Some(request) = self.nodes.get_mut(&from).and_then(Cluster::poll_request) {
            self.carry_out(from, request);
        }
        while let Some(event) = self.nodes.get_mut(&from).and_then(Cluster::poll_event) {
            self.events.push((self.now, from, event));
        }
    }

    /// TCP, much simplified: it works at once or not at all.
    fn carry_out(&mut self, from: SocketAddr, request: Request) {
        let reaches = |net: &mut Self, to: SocketAddr| {
            let lost = net.loss > 0.0 && (net.rng.random_bool(net.loss) || net.rng.random_bool(net.loss));
            !lost && !net.cuts.contains(&(from, to)) && !net.cuts.contains(&(to, from))
        };
        let now = self.now;
        match request {
            Request::ProbeHost { probe, to } => {
                let host_lives = self.nodes.contains_key(&to) || self.refusing.contains(&to);
                if host_lives && reaches(self, to) {
                    self.nodes.get_mut(&from).unwrap().handle_host_answer(probe, now);
                    self.flush(from);
                }
            }
            Request::Exchange { with } => {
                if with == from || !reaches(self, with) {
                    return;
                }
                let Some(theirs) = self.nodes.get(&with).map(Cluster::state) else { return };
                let ours = self.nodes.get(&from).unwrap().state();
                self.nodes.get_mut(&from).unwrap().handle_state(&theirs, now).unwrap();
                self.flush(from);
                self.nodes.get_mut(&with).unwrap().handle_state(&ours, now).unwrap();
                self.flush(with);
            }
            Request::AskStations => {
                self.asked_stations.insert(from);
            }
            Request::Reach { .. } => {}
        }
    }

    fn put(&mut self, at: Instant, datagram: Datagram) {
        let count = self.on_the_wire.last_key_value().map_or(0, |((_, count), _)| *count);
        let unique = (count..).find(|count| !self.on_the_wire.contains_key(&(at, *count))).unwrap();
        self.on_the_wire.insert((at, unique), datagram);
    }
}

/// Node `node` of `count`, which has all nodes as seeds.
pub(super) fn config(node: u8, count: u8) -> Config {
    Config {
        local: name(node),
        generation: Generation(1_000_000 + u64::from(node)),
        process: ProcessId(u64::from(node)),
        gossip: addr(node),
        seeds: (1..=count).map(addr).collect(),
        sealing: sealed("secret"),
        surroundings: Surroundings::new(Selection::All),
        profile: Profile::Default,
        restart_grace: Duration::from_secs(60),
        failback: Some(Duration::from_secs(30)),
        host_ports: Vec::new(),
        spread: garpike_election::Spread::Hash,
        feature_level: FeatureLevel::CURRENT,
        later_facts: BTreeMap::new(),
    }
}

pub(super) fn sealed(secret: &str) -> Sealing {
    Key::derive(&SecretKey::parse(secret.as_bytes()).unwrap(), "garpike").into()
}

pub(super) fn addr(node: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, node], 7946))
}

pub(super) fn name(node: u8) -> NodeName {
    NodeName::new(&format!("node-{node}")).unwrap()
}

pub(super) fn names(nodes: &[u8]) -> BTreeSet<NodeName> {
    nodes.iter().map(|node| name(*node)).collect()
}

#[expect(clippy::disallowed_methods, reason = "virtual time begins at one reading")]
fn start() -> Instant {
    Instant::now()
}
