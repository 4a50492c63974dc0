//! Several cores and other stations on one segment, in virtual time.

use super::*;
use crate::duties::{Peer, Standing};

/// A segment. Frames arrive at once; stations of different parts do not hear each other.
pub(super) struct Segment {
    pub(super) cores: Vec<Announcer>,
    /// In which part each core is; the client and the other stations are in part 0.
    pub(super) part: Vec<u8>,
    /// What answers for addresses without being a core of this cluster.
    pub(super) others: BTreeMap<MacAddr, BTreeSet<ServiceIp>>,
    /// What the cores sent, with who and when.
    pub(super) log: Vec<(Instant, usize, FrameKind, Message)>,
    pub(super) events: Vec<(usize, Event)>,
    pub(super) now: Instant,
}

impl Segment {
    /// `nodes` cores without duties. They do not check each other.
    pub(super) fn of(nodes: usize) -> Self {
        Self::with(nodes, &Config { self_check_interval: None, ..Config::default() })
    }

    pub(super) fn with(nodes: usize, config: &Config) -> Self {
        let now = start();
        let cores = (0..nodes).map(|node| {
            let mut core = Announcer::new(config.clone());
            core.handle_links(LinkSet { links: BTreeMap::from([(ETH0, link(node))]) }, now);
            core
        });
        let (log, events) = (Vec::new(), Vec::new());
        Self { cores: cores.collect(), part: vec![0; nodes], others: BTreeMap::new(), log, events, now }
    }

    /// What a core shows of itself.
    pub(super) fn status(&self, node: usize) -> Status {
        self.cores[node].status(self.now, UNIX_EPOCH + Duration::from_secs(1_800_000_000))
    }

    /// Gives a core its duties.
    pub(super) fn set(&mut self, node: usize, duties: Duties) {
        self.cores[node].handle_duties(duties, self.now);
        self.deliver();
    }

    /// Gives every core its duties by one view that all have.
    pub(super) fn set_all(&mut self, world: &World) {
        for node in 0..self.cores.len() {
            self.set(node, world.duties(node));
        }
    }

    /// Lets time pass.
    pub(super) fn run_for(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        self.deliver();
        loop {
            let due = self.cores.iter().filter_map(Announcer::poll_timeout).min();
            let Some(next) = due.filter(|next| *next <= end) else { break };
            self.now = next.max(self.now);
            for core in &mut self.cores {
                core.handle_timeout(self.now);
            }
            self.deliver();
        }
        self.now = end;
    }

    /// The Ethernet addresses that a client is told when it asks for the address.
    pub(super) fn ask(&mut self, text: &str) -> BTreeSet<MacAddr> {
        let question = match ip(text).addr() {
            IpAddr::V4(_) => arp_request("192.168.9.200", text),
            IpAddr::V6(_) => solicitation("fc00::9:200", text),
        };
        let mut told = BTreeSet::new();
        for node in (0..self.cores.len()).filter(|node| self.part[*node] == 0) {
            let _ = self.cores[node].handle_frame(ETH0, &question.emit(), self.now);
            while let Some(frame) = self.cores[node].poll_transmit() {
                let message = wire::parse(&frame.bytes).unwrap();
                if message.ethernet().destination == CLIENT {
                    told.extend(message.claim().map(|claim| claim.mac));
                }
            }
        }
        told
    }

    /// Carries all frames until nobody has one.
    pub(super) fn deliver(&mut self) {
        for _ in 0..100_000 {
            let waiting =
                self.cores.iter_mut().enumerate().find_map(|(node, core)| Some((node, core.poll_transmit()?)));
            let Some((from, frame)) = waiting else { break };
            let message = wire::parse(&frame.bytes).unwrap();
            self.log.push((self.now, from, frame.kind, message));
            let part = self.part[from];
            self.send(part, &message, Some(from));
            if part == 0 {
                for answer in self.answers(&message) {
                    self.send(0, &answer, None);
                }
            }
        }
        for (node, core) in self.cores.iter_mut().enumerate() {
            self.events.extend(std::iter::from_fn(|| core.poll_event()).map(|event| (node, event)));
        }
    }

    /// Carries a message to every core of the part whose network card takes it.
    pub(super) fn send(&mut self, part: u8, message: &Message, from: Option<usize>) {
        let destination = message.ethernet().destination;
        for node in (0..self.cores.len()).filter(|node| Some(*node) != from && self.part[*node] == part) {
            if destination.is_multicast() || destination == mac(node) {
                let _ = self.cores[node].handle_frame(ETH0, &message.emit(), self.now);
            }
        }
    }

    /// What the other stations answer.
    fn answers(&self, asked: &Message) -> Vec<Message> {
        let Ok(wanted) = ServiceIp::new(asked.target()) else { return Vec::new() };
        let who = self.others.iter().filter(|(_, ips)| ips.contains(&wanted)).map(|(mac, _)| *mac);
        let to = asked.ethernet().source;
        match asked {
            Message::Arp(arp) if arp.operation == ArpOperation::Request && !arp.is_gratuitous() => who
                .map(|mac| {
                    Message::Arp(Arp {
                        ethernet: Ethernet { destination: to, source: mac },
                        operation: ArpOperation::Reply,
                        sender_mac: mac,
                        sender_ip: arp.target_ip,
                        target_mac: arp.sender_mac,
                        target_ip: arp.sender_ip,
                    })
                })
                .collect(),
            Message::NeighborSolicitation(asked) => who
                .map(|mac| {
                    Message::NeighborAdvertisement(NeighborAdvertisement {
                        ethernet: Ethernet { destination: to, source: mac },
                        source_ip: asked.target,
                        destination_ip: asked.source_ip,
                        target: asked.target,
                        target_mac: Some(mac),
                        flags: NaFlags { router: false, solicited: true, overrides: true },
                    })
                })
                .collect(),
            Message::Arp(_) | Message::NeighborAdvertisement(_) => Vec::new(),
        }
    }

    /// What was sent since `since` by this core, of one kind.
    pub(super) fn sent(&self, node: usize, kind: FrameKind, since: Instant) -> Vec<Message> {
        let sent = self.log.iter().filter(|(at, from, sent, _)| *at >= since && *from == node && *sent == kind);
        sent.map(|(_, _, _, message)| *message).collect()
    }

    pub(super) fn events_of(&mut self, node: usize) -> Vec<Event> {
        let (of, rest) = std::mem::take(&mut self.events).into_iter().partition(|(from, _)| *from == node);
        self.events = rest;
        let of: Vec<(usize, Event)> = of;
        of.into_iter().map(|(_, event)| event).collect()
    }
}

/// A view of the cluster.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) standing: Vec<Standing>,
    pub(super) owners: BTreeMap<ServiceIp, usize>,
    pub(super) untried: BTreeSet<ServiceIp>,
}

impl World {
    pub(super) fn new(nodes: usize, owners: &[(&str, usize)]) -> Self {
        let owners = owners.iter().map(|(text, owner)| (ip(text), *owner)).collect();
        Self { standing: vec![Standing::Here; nodes], owners, untried: BTreeSet::new() }
    }

    pub(super) fn owned_by(mut self, text: &str, node: usize) -> Self {
        self.owners.insert(ip(text), node);
        self
    }

    pub(super) fn with(mut self, node: usize, standing: Standing) -> Self {
        self.standing[node] = standing;
        self
    }

    /// What node `local` makes of it. Who stands in for owners that are away is node 0.
    pub(super) fn duties(&self, local: usize) -> Duties {
        let by = |own: bool| self.owners.iter().filter(move |(_, owner)| (**owner == local) == own);
        let nodes = self.standing.iter().enumerate().map(|(node, standing)| (name(node), peer(node, *standing)));
        let away = by(false).filter(|(_, owner)| local == 0 && self.standing[**owner] == Standing::Away);
        Duties {
            owned: by(true).map(|(ip, _)| (*ip, Selection::All)).collect(),
            untried: self.untried.iter().copied().filter(|ip| self.owners.get(ip) == Some(&local)).collect(),
            stood_in: away.map(|(ip, owner)| (*ip, BTreeMap::from([(eth(), mac(*owner))]))).collect(),
            elsewhere: by(false).map(|(ip, owner)| (*ip, name(*owner))).collect(),
            nodes: nodes.collect(),
            members: (0..self.standing.len()).map(mac).collect(),
            local: Some(name(local)),
            desired: Arc::default(),
        }
    }
}

pub(super) fn name(node: usize) -> NodeName {
    format!("node-{node}").parse().unwrap()
}

pub(super) fn mac(node: usize) -> MacAddr {
    MacAddr([0x02, 0x77, 0, 1, 0, u8::try_from(node).unwrap()])
}

fn peer(node: usize, standing: Standing) -> Peer {
    let nets = ["192.168.8", "fc00:"].map(|net| match net {
        "fc00:" => format!("fc00::{}/64", node + 1),
        net => format!("{net}.{}/22", node + 1),
    });
    let wire = Wire { mac: mac(node), nets: nets.iter().map(|net| net.parse().unwrap()).collect() };
    let member = Member { wires: BTreeMap::from([(eth(), wire)]), ..Member::new(NodeState::Ready, Selection::All) };
    Peer { standing, member }
}

fn link(node: usize) -> Link {
    let number = node + 1;
    let nets = [format!("192.168.8.{number}/22"), format!("fc00::{number}/64"), format!("fe80::{number}/64")];
    Link { mac: Some(mac(node)), nets: nets.iter().map(|net| net.parse().unwrap()).collect(), ..eth0() }
}

fn eth() -> InterfaceName {
    "eth0".parse().unwrap()
}
