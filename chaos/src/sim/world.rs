//! Virtual time, the segment between the hosts, and a client on it.
//!
//! Everything that happens is an event in one queue, ordered by time and then by the order in which it was caused.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use garpike_announcer::wire;
use garpike_election::{Desired, MacAddr, NodeName, ServiceIp};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::host::{Host, name_of};

/// The time of a simulation, from 0.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    now: Instant,
}

impl Clock {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "only differences to it are ever used")]
        let start = Instant::now();
        Self { start, now: start }
    }

    /// The virtual time since the start.
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }
}

/// The hosts, the segment and the client.
pub struct World {
    clock: Clock,
    rng: StdRng,
    loss_percent: f64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    /// How many events were ever queued: breaks ties in the order of their causes.
    caused: u64,
    hosts: Vec<Host>,
    /// The hosts on the other side of a partition; the client is not there.
    aside: BTreeSet<usize>,
    client: Client,
    desired: Desired,
    /// Some host changed its mind since the condition of a wait was last looked at.
    changed: bool,
    /// Events handled.
    pub events: u64,
    /// Datagrams sent.
    pub datagrams: u64,
}

/// A station with a neighbour cache that probes each address every [`PROBE_INTERVAL`].
#[derive(Default)]
struct Client {
    cache: BTreeMap<ServiceIp, MacAddr>,
    last_answer: BTreeMap<ServiceIp, Instant>,
    longest_gap: BTreeMap<ServiceIp, Duration>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Scheduled {
    at: Instant,
    cause: u64,
    event: Event,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Wake { host: usize },
    Datagram { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    Frame { from: usize, bytes: Vec<u8> },
    Probe,
}

impl World {
    /// Boots `nodes` hosts that want `desired`, at slightly different times, on a segment that loses `loss_percent` of
    /// all datagrams and frames.
    pub fn boot(nodes: usize, desired: Desired, loss_percent: f64, seed: u64) -> Self {
        let mut world = Self {
            clock: Clock::new(),
            rng: StdRng::seed_from_u64(seed),
            loss_percent,
            queue: BinaryHeap::new(),
            caused: 0,
            hosts: Vec::new(),
            aside: BTreeSet::new(),
            client: Client::default(),
            desired,
            changed: false,
            events: 0,
            datagrams: 0,
        };
        for index in 0..nodes {
            world.clock.now += Duration::from_micros(world.rng.random_range(0..BOOT_SPREAD_MICROS));
            let seed = world.rng.random();
            let host = Host::boot(index, nodes, &world.desired, seed, world.clock.now);
            world.hosts.push(host);
            world.collect(index);
        }
        world.push(world.clock.now, Event::Probe);
        world
    }

    /// The virtual time.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The names of all hosts.
    pub fn nodes(&self) -> Vec<NodeName> {
        (0..self.hosts.len()).map(name_of).collect()
    }

    /// Lets `duration` pass.
    pub fn advance(&mut self, duration: Duration) {
        let end = self.clock.now + duration;
        self.advance_until(end, |_| false);
    }

    /// Lets time pass until `condition` or for at most `longest`; gives the time that passed if it came true. It is
    /// looked at whenever a host changed its mind about who is alive or who owns what.
    pub fn wait(&mut self, longest: Duration, condition: impl Fn(&Self) -> bool) -> Option<Duration> {
        let start = self.clock.now;
        self.advance_until(start + longest, condition).then(|| self.clock.now - start)
    }

    /// The host dies: nothing of it is heard again, and nothing reaches it.
    pub fn crash(&mut self, node: &NodeName) {
        if let Some(host) = self.hosts.iter_mut().find(|host| host.name == *node) {
            host.alive = false;
        }
    }

    /// Cuts hosts off from the others and from the client.
    pub fn cut(&mut self, nodes: &[NodeName]) {
        let hosts = self.hosts.iter().enumerate();
        self.aside = hosts.filter(|(_, host)| nodes.contains(&host.name)).map(|(index, _)| index).collect();
    }

    /// Ends the partition.
    pub fn heal(&mut self) {
        self.aside.clear();
    }

    /// The living hosts that answer for `ip`.
    pub fn answering(&self, ip: ServiceIp) -> Vec<&NodeName> {
        self.hosts.iter().filter(|host| host.answers(ip)).map(|host| &host.name).collect()
    }

    /// The host that the client would send to, by its neighbour cache.
    pub fn cached(&self, ip: ServiceIp) -> Option<&NodeName> {
        let mac = self.client.cache.get(&ip)?;
        self.hosts.iter().find(|host| host.mac == *mac).map(|host| &host.name)
    }

    /// Whether every living host believes that exactly the living hosts live.
    pub fn agrees_with_reality(&self) -> bool {
        let living = || self.hosts.iter().filter(|host| host.alive);
        let names: BTreeSet<&NodeName> = living().map(|host| &host.name).collect();
        living().all(|host| host.members().nodes.keys().eq(names.iter().copied()))
    }

    /// Whether all other living hosts see `node` as dead.
    pub fn others_know_dead(&self, node: &NodeName) -> bool {
        let mut others = self.hosts.iter().filter(|host| host.alive && host.name != *node);
        others.all(|host| !host.members().nodes.contains_key(node))
    }

    /// Whether some living host sees another living host as dead.
    pub fn has_false_death(&self) -> bool {
        let living = || self.hosts.iter().filter(|host| host.alive);
        living().any(|host| living().any(|other| !host.members().nodes.contains_key(&other.name)))
    }

    /// The longest time between two answers that the client got for `ip` since [`World::start_measuring`].
    pub fn longest_gap(&self, ip: ServiceIp) -> Duration {
        let open = self.client.last_answer.get(&ip).map_or(Duration::ZERO, |last| self.clock.now - *last);
        self.client.longest_gap.get(&ip).copied().unwrap_or_default().max(open)
    }

    /// Forgets the gaps so far.
    pub fn start_measuring(&mut self) {
        self.client.longest_gap.clear();
        let now = self.clock.now;
        self.client.last_answer = self.desired.addresses.keys().map(|ip| (*ip, now)).collect();
    }

    fn advance_until(&mut self, end: Instant, condition: impl Fn(&Self) -> bool) -> bool {
        self.changed = true;
        loop {
            if std::mem::take(&mut self.changed) && condition(self) {
                return true;
            }
            let Some(Reverse(next)) = self.queue.peek() else { break };
            if next.at > end {
                break;
            }
            let Some(Reverse(next)) = self.queue.pop() else { break };
            self.clock.now = next.at;
            self.events += 1;
            self.handle(next.event);
        }
        self.clock.now = end;
        false
    }

    fn handle(&mut self, event: Event) {
        let now = self.clock.now;
        match event {
            Event::Wake { host: index } => {
                let Some(host) = self.hosts.get_mut(index) else { return };
                if host.wake_at != Some(now) || !host.alive {
                    return;
                }
                host.wake_at = None;
                host.handle_timeout(now);
                self.collect(index);
            }
            Event::Datagram { from, to, bytes } => {
                let sender = self.hosts.iter().position(|host| host.gossip == from);
                let Some(index) = self.hosts.iter().position(|host| host.gossip == to && host.alive) else { return };
                if sender.is_some_and(|sender| self.is_cut(sender, index)) {
                    return;
                }
                if let Some(host) = self.hosts.get_mut(index) {
                    host.handle_datagram(from, &bytes, now);
                }
                self.collect(index);
            }
            Event::Frame { from, bytes } => {
                if !self.aside.contains(&from) {
                    self.client.handle_frame(&bytes);
                }
                for index in 0..self.hosts.len() {
                    let reached = index != from && !self.is_cut(from, index);
                    let Some(host) = self.hosts.get_mut(index) else { continue };
                    if reached && host.alive {
                        host.handle_frame(&bytes, now);
                        self.collect(index);
                    }
                }
            }
            Event::Probe => {
                let near =
                    self.hosts.iter().enumerate().filter(|(index, host)| host.alive && !self.aside.contains(index));
                let reachable: BTreeSet<MacAddr> = near.map(|(_, host)| host.mac).collect();
                for ip in self.desired.addresses.keys() {
                    self.client.probe(*ip, &reachable, now);
                }
                self.push(now + PROBE_INTERVAL, Event::Probe);
            }
        }
    }

    /// Puts what a host wants to send, and its next wake-up, into the queue.
    fn collect(&mut self, index: usize) {
        let now = self.clock.now;
        let Some(host) = self.hosts.get_mut(index) else { return };
        self.changed |= std::mem::take(&mut host.changed);
        let gossip = host.gossip;
        let datagrams: Vec<_> = std::iter::from_fn(|| host.cluster.poll_transmit()).collect();
        let frames: Vec<_> = std::iter::from_fn(|| host.announcer.poll_transmit()).collect();
        let wake_at = host.poll_timeout().map(|at| at.max(now));
        if wake_at != host.wake_at {
            host.wake_at = wake_at;
            if let Some(at) = wake_at {
                self.push(at, Event::Wake { host: index });
            }
        }
        for transmit in datagrams {
            self.datagrams += 1;
            let event = Event::Datagram { from: gossip, to: transmit.to, bytes: transmit.payload };
            self.carry(event);
        }
        for frame in frames {
            let event = Event::Frame { from: index, bytes: frame.bytes.to_vec() };
            self.carry(event);
        }
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.aside.contains(&a) != self.aside.contains(&b)
    }

    /// Delivers after the delay of a switch, or loses.
    fn carry(&mut self, event: Event) {
        let delay = Duration::from_micros(self.rng.random_range(DELAY_MICROS));
        if self.rng.random_range(0.0..100.0) >= self.loss_percent {
            self.push(self.clock.now + delay, event);
        }
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.caused += 1;
        self.queue.push(Reverse(Scheduled { at, cause: self.caused, event }));
    }
}

impl Client {
    /// Updates the cache as a Linux neighbour cache does on a gratuitous ARP request or an overriding advertisement.
    fn handle_frame(&mut self, bytes: &[u8]) {
        let claim = wire::parse(bytes).ok().and_then(|message| message.claim());
        if let Some((ip, mac)) = claim.and_then(|claim| Some((ServiceIp::new(claim.ip).ok()?, claim.mac))) {
            self.cache.insert(ip, mac);
        }
    }

    /// Sends to whom the cache names; a host that is reached answers, whoever owns the address.
    fn probe(&mut self, ip: ServiceIp, reachable: &BTreeSet<MacAddr>, now: Instant) {
        if !self.cache.get(&ip).is_some_and(|mac| reachable.contains(mac)) {
            return;
        }
        if let Some(last) = self.last_answer.insert(ip, now) {
            let gap = self.longest_gap.entry(ip).or_default();
            *gap = (*gap).max(now - last);
        }
    }
}

/// How often the simulated client probes each address.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_millis(5);
/// One way through a switch and two kernels; as the prototype behind the detection figures assumed.
const DELAY_MICROS: std::ops::Range<u64> = 100..500;
/// Chosen: hosts do not start their timers in step.
const BOOT_SPREAD_MICROS: u64 = 200_000;
