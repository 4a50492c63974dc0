//! Virtual time, the hosts, the network between them, and a client behind the gateways.
//!
//! Everything that happens is an event in one queue. A world does nothing of its own: scenarios let time pass and break
//! things, the judge looks on.

mod faults;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use garpike_election::{Desired, NodeName, ServiceIp};
use garpike_membership::{Profile, Sealing};
use rand::rngs::{StdRng, Xoshiro256PlusPlus};
use rand::{RngExt as _, SeedableRng as _};

use super::client::Client;
use super::host::{Gateways, Host, HostAddress, Plan, gateway_mac, name_of};
use super::judge::Judge;
use super::network::{Network, Station};
use super::queue::{Event, Queue};

pub(super) use traffic::{Recorded, Sent};

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

/// What a world is made of.
pub(super) struct Blueprint {
    /// How many hosts start at the beginning.
    pub(super) nodes: usize,
    /// How many may come later.
    pub(super) spare: usize,
    pub(super) racks: usize,
    pub(super) desired: Desired,
    pub(super) loss: f64,
    pub(super) profile: Profile,
    pub(super) sealing: Sealing,
    pub(super) gateways: Gateways,
    pub(super) start: Start,
}

/// How a cluster begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Start {
    /// All hosts boot within this time and find each other.
    Join { within: Duration },
    /// Each knows from the beginning what all say of themselves.
    Formed,
}

/// The hosts, the network and the client.
pub(super) struct World {
    clock: Clock,
    rng: StdRng,
    queue: Queue,
    hosts: Vec<Host>,
    /// The most hosts that there can be.
    capacity: usize,
    racks: usize,
    pub(super) network: Network,
    client: Client,
    pub(super) judge: Judge,
    plan: Plan,
    paused_since: BTreeMap<usize, Instant>,
    /// Something changed since the condition of a wait was last looked at.
    changed: bool,
    recorded: Option<Vec<Recorded>>,
    last_heard: Option<LastHeard>,
    /// Events handled.
    pub(super) events: u64,
    pub(super) sent: Sent,
}

/// When each host last got a datagram of one of them.
struct LastHeard {
    of: usize,
    by: Vec<Option<Instant>>,
}

impl World {
    /// Lets the hosts begin.
    pub(super) fn begin(blueprint: Blueprint, seed: u64) -> Self {
        let Blueprint { nodes, spare, racks, desired, loss, profile, sealing, gateways, start } = blueprint;
        let clock = Clock::new();
        let mut rng = StdRng::seed_from_u64(seed);
        let capacity = nodes + spare;
        let ports = (0..capacity).map(|index| index % racks).chain(0..racks).collect();
        let address = |index| HostAddress { index, rack: index % racks };
        let seeds = || (0..capacity.min(SEEDS_MAX)).map(|index| address(index).gossip()).collect();
        let mut world = Self {
            clock,
            network: Network::new(ports, loss, Xoshiro256PlusPlus::from_rng(&mut rng)),
            rng,
            queue: Queue::default(),
            hosts: Vec::new(),
            capacity,
            racks,
            client: Client::new(racks),
            judge: Judge::new(),
            plan: Plan { desired, sealing, profile, seeds: Vec::new(), gateways, start: clock.start },
            paused_since: BTreeMap::new(),
            changed: false,
            recorded: None,
            last_heard: None,
            events: 0,
            sent: Sent::default(),
        };
        match start {
            Start::Join { within } => {
                world.plan.seeds = seeds();
                world.boot(nodes, within);
            }
            Start::Formed => {
                world.form(nodes);
                // For those who come later.
                world.plan.seeds = seeds();
            }
        }
        world
    }

    /// Boots the next `count` hosts at random times within `spread`; they find the others by their seeds.
    pub(super) fn boot(&mut self, count: usize, spread: Duration) {
        let spread_nanos = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX).max(1);
        let mut starts: Vec<Duration> =
            (0..count).map(|_| Duration::from_nanos(self.rng.random_range(0..spread_nanos))).collect();
        starts.sort_unstable();
        let begin = self.clock.now;
        for after in starts {
            self.advance_to(begin + after);
            let index = self.hosts.len();
            self.add_host(name_of(index));
            self.judge.reality_changed(&self.hosts);
            self.collect(index);
        }
    }

    /// One more host, under a name that another one may have.
    pub(super) fn boot_named(&mut self, name: NodeName) -> usize {
        let index = self.hosts.len();
        self.add_host(name);
        self.judge.reality_changed(&self.hosts);
        self.collect(index);
        index
    }

    /// Makes a cluster that has existed for long: everybody knows what everybody says, and has proved itself to those
    /// that it speaks to. Nobody looks for seeds: all are ready from the beginning, and nobody's state is news.
    fn form(&mut self, nodes: usize) {
        for index in 0..nodes {
            self.add_host(name_of(index));
        }
        self.tell_all_to_all();
        // Nodes that started together do not stay in step.
        for index in 0..nodes {
            self.advance(FORMED_SPREAD / count(nodes));
            self.collect(index);
        }
        self.advance(FORMED_WITHIN);
        self.tell_all_to_all();
        for index in 0..nodes {
            self.collect(index);
        }
    }

    /// The first host learns of all, and all learn from it.
    fn tell_all_to_all(&mut self) {
        let now = self.clock.now;
        let states: Vec<Vec<u8>> = self.hosts.iter().map(|host| host.process.cluster.state()).collect();
        if let Some((first, others)) = self.hosts.split_first_mut() {
            for state in states.iter().skip(1) {
                first.process.handle_state(state, now);
            }
            let all = first.process.cluster.state();
            for host in others {
                host.process.handle_state(&all, now);
            }
        }
        self.judge.reality_changed(&self.hosts);
    }

    fn add_host(&mut self, name: NodeName) {
        let index = self.hosts.len();
        debug_assert!(index < self.capacity, "every host has a port");
        let seed = self.rng.random();
        self.judge.add();
        self.hosts.push(Host::boot(&self.plan, name, self.address(index), seed, self.clock.now));
    }

    fn address(&self, index: usize) -> HostAddress {
        HostAddress { index, rack: index % self.racks }
    }

    /// The number of the gateway of a rack.
    pub(super) fn gateway(&self, rack: usize) -> Station {
        self.capacity + rack
    }

    /// All stations: the hosts and the gateways.
    pub(super) fn stations(&self) -> BTreeSet<Station> {
        (0..self.hosts.len()).chain(self.capacity..self.capacity + self.racks).collect()
    }

    /// The virtual time.
    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    pub(super) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The name of host `index`.
    pub(super) fn name(&self, index: usize) -> NodeName {
        self.hosts.get(index).map_or_else(|| name_of(index), |host| host.name.clone())
    }

    /// Lets `duration` pass.
    pub(super) fn advance(&mut self, duration: Duration) {
        self.advance_to(self.clock.now + duration);
    }

    fn advance_to(&mut self, end: Instant) {
        self.advance_until(end, |_| false);
    }

    /// Lets time pass until `condition` or for at most `longest`; gives the time that passed if it came true. It is
    /// looked at whenever a host changed its mind about who is alive or who answers what.
    pub(super) fn wait(&mut self, longest: Duration, condition: impl FnMut(&Self) -> bool) -> Option<Duration> {
        let start = self.clock.now;
        self.advance_until(start + longest, condition).then(|| self.clock.now - start)
    }

    fn advance_until(&mut self, end: Instant, mut condition: impl FnMut(&Self) -> bool) -> bool {
        self.changed = true;
        loop {
            if std::mem::take(&mut self.changed) && condition(self) {
                return true;
            }
            let Some((at, event)) = self.queue.pop_until(end) else { break };
            self.clock.now = self.clock.now.max(at);
            self.events += 1;
            self.handle(event);
        }
        self.clock.now = end;
        false
    }

    /// Begins to measure how long the client gets no answer from these addresses.
    pub(super) fn measure(&mut self, ips: impl IntoIterator<Item = ServiceIp>) {
        let idle = !self.client.measures();
        self.client.measure(ips, self.clock.now);
        if idle && self.client.measures() {
            self.queue.push(self.clock.now, Event::Probe);
        }
    }

    /// Measures no more.
    pub(super) fn stop_measuring(&mut self) -> Option<Duration> {
        let longest = self.client.longest_gap(self.clock.now);
        self.client.measure([], self.clock.now);
        longest
    }

    /// Whether every running speaker believes what is true.
    pub(super) fn is_whole(&self) -> bool {
        self.judge.is_whole(&self.hosts)
    }

    /// Whether all running speakers of `by` see all of `nodes` as dead.
    pub(super) fn know_dead(&self, by: &BTreeSet<usize>, nodes: &BTreeSet<usize>) -> bool {
        self.judge.is_known_dead(nodes, by, &self.hosts)
    }

    /// Whether all running speakers count `nodes`, and they count everybody that runs.
    pub(super) fn all_know_alive(&self, nodes: &[usize]) -> bool {
        self.judge.is_known_alive(nodes, &self.hosts)
    }

    /// The living host that has the address, if all who answer for it name the same one: the owner, answered by itself
    /// or by who stands in for it.
    pub(super) fn owner(&self, ip: ServiceIp) -> Option<usize> {
        self.owner_among(ip, |_| true)
    }

    /// The same, but only these hosts are asked.
    pub(super) fn owner_among(&self, ip: ServiceIp, asked: impl Fn(usize) -> bool) -> Option<usize> {
        let answered = self.judge.answered(ip, &self.hosts, asked);
        let mut macs = answered.keys();
        let (mac, None) = (macs.next()?, macs.next()) else { return None };
        HostAddress::index_of_mac(*mac).filter(|index| self.hosts.get(*index).is_some_and(Host::lives))
    }

    /// Whether every address has exactly one living owner on the wire.
    pub(super) fn has_one_owner_each(&self) -> bool {
        self.plan.desired.addresses.keys().all(|ip| self.owner(*ip).is_some())
    }

    /// Who answers for an address with whose Ethernet address, for people.
    pub(super) fn describe_answers(&self, ip: ServiceIp) -> String {
        let answered = self.judge.answered(ip, &self.hosts, |_| true);
        let words = answered.iter().map(|(mac, by)| {
            let owner =
                HostAddress::index_of_mac(*mac).map_or_else(|| mac.to_string(), |owner| self.name(owner).to_string());
            format!("{owner} (said by {})", self.name(*by))
        });
        let words: Vec<String> = words.collect();
        if words.is_empty() { "nobody".to_owned() } else { words.join(" and ") }
    }

    /// A host that answers for an address with the Ethernet address of another one, its owner.
    pub(super) fn stand_in(&self, ip: ServiceIp, owner: usize) -> Option<usize> {
        let answered = self.judge.answered(ip, &self.hosts, |index| index != owner);
        answered.get(&self.address(owner).mac()).copied()
    }

    /// The owner that the gateway of the address sends to.
    pub(super) fn cached(&self, ip: ServiceIp) -> Option<usize> {
        self.client.cached(ip).and_then(|(_, mac)| HostAddress::index_of_mac(mac))
    }

    /// Who owns what on the wire, where exactly one does.
    pub(super) fn owners(&self) -> BTreeMap<ServiceIp, usize> {
        self.plan.desired.addresses.keys().filter_map(|ip| Some((*ip, self.owner(*ip)?))).collect()
    }

    /// Asks what the speaker of a host answers, after something has changed there.
    fn look_at(&mut self, index: usize) {
        let now = self.clock.now;
        let asker = gateway_mac(index % self.racks);
        let Some(host) = self.hosts.get_mut(index) else { return };
        let local = host.local(now);
        let addresses = self.plan.desired.addresses.keys();
        let answers = addresses.filter_map(|ip| Some((*ip, host.process.answer(*ip, asker, local)?))).collect();
        self.judge.answers(index, answers);
        self.judge.review(index, &self.hosts, now);
        self.changed = true;
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX).max(1)
}

/// Chosen: all members of the small clusters; large ones are configured with a few.
const SEEDS_MAX: usize = 100;
/// Chosen: longer than the periods of the protocol that matter for load.
const FORMED_SPREAD: Duration = Duration::from_millis(200);
/// Chosen: those who speak to each other have asked each other for a proof of life, and are ready.
const FORMED_WITHIN: Duration = Duration::from_millis(1500);

#[cfg(test)]
mod tests;
