//! The process of a speaker: the three cores, wired as the shipped speaker wires them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use garpike_announcer::wire::{self, Arp, ArpOperation, Ethernet, Message};
use garpike_announcer::{Announcer, Link, LinkSet, Unanswered};
use garpike_election::{
    Desired, IfIndex, InterfaceName, MacAddr, Members, NodeName, NodeState, Selection, ServiceIp, Wire,
};
use garpike_membership::{
    Cluster, Event, FeatureLevel, Generation, Key, Path, ProbeId, ProcessId, Profile, Request, Sealing, SourcedKeys,
    Surroundings, Transmit,
};
use garpike_speaker::Pipeline;
use ipnet::IpNet;

use super::{FIRST_NET, HostAddress};

/// What all speakers of a simulation have in common.
pub(in crate::sim) struct Plan {
    pub(in crate::sim) desired: Desired,
    pub(in crate::sim) sealing: Sealing,
    pub(in crate::sim) profile: Profile,
    /// Where members are looked for; a host leaves out itself.
    pub(in crate::sim) seeds: Vec<SocketAddr>,
    /// Whether a gateway is on each wire.
    pub(in crate::sim) gateways: Gateways,
    /// The beginning of time.
    pub(in crate::sim) start: Instant,
}

/// Whether there is a station besides the members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gateways {
    /// A gateway on each wire.
    Present,
    /// Nobody but the members and a silent client.
    Absent,
}

/// Which version of the speaker a host has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sim) enum Release {
    /// This one.
    This,
    /// The next one: a feature level higher, with facts of which this one knows nothing.
    Next,
}

impl Release {
    /// What it can do.
    pub(in crate::sim) fn level(self) -> FeatureLevel {
        match self {
            Self::This => FeatureLevel::CURRENT,
            Self::Next => FeatureLevel(FeatureLevel::CURRENT.0 + 1),
        }
    }

    fn later_facts(self) -> BTreeMap<u16, Vec<u8>> {
        match self {
            Self::This => BTreeMap::new(),
            Self::Next => BTreeMap::from([(1, b"of the next one".to_vec()), (1000, Vec::new())]),
        }
    }
}

/// A process.
pub(in crate::sim) struct Process {
    pub(in crate::sim) cluster: Cluster,
    pipeline: Pipeline,
    announcer: Announcer,
    /// What it owns by its latest election.
    pub(in crate::sim) owned: BTreeMap<ServiceIp, Selection<InterfaceName>>,
    /// Who is alive, who owns what, or what is answered may have changed since this was last taken.
    pub(in crate::sim) changed: bool,
    /// How often it found another node under its name.
    pub(in crate::sim) name_conflicts: u64,
    ending: Ending,
}

/// How far the end of a process by SIGTERM is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    No,
    /// Others are being told.
    Handover {
        until: Instant,
    },
    Leaving,
}

impl Plan {
    /// What a process that starts at `now` takes from a wall clock that is wrong by so much.
    pub(super) fn generation(&self, now: Instant, wall_offset_millis: i64) -> Generation {
        let elapsed = u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX);
        Generation((WALL_CLOCK_AT_START + elapsed).saturating_add_signed(wall_offset_millis))
    }
}

impl Process {
    /// A process that begins.
    pub(super) fn start(
        plan: &Plan,
        name: &NodeName,
        address: HostAddress,
        release: Release,
        generation: Generation,
        seed: [u8; 32],
        now: Instant,
    ) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = seed;
        let mut surroundings = Surroundings::new(Selection::Only(BTreeSet::from([ethernet()])));
        let wire = Wire { mac: address.mac(), nets: BTreeSet::from([address.net()]) };
        surroundings.wires.insert(ethernet(), wire);
        surroundings.stations = plan.gateways == Gateways::Present;
        let config = garpike_membership::Config {
            local: name.clone(),
            generation,
            process: ProcessId(u64::from_le_bytes([a, b, c, d, e, f, g, h]).max(1)),
            gossip: address.gossip(),
            seeds: plan.seeds.iter().copied().filter(|seed| *seed != address.gossip()).collect(),
            sealing: plan.sealing.clone(),
            surroundings,
            profile: plan.profile,
            restart_grace: RESTART_GRACE,
            failback: Some(FAILBACK),
            host_ports: vec![KUBELET],
            spread: garpike_election::Spread::Hash,
            feature_level: release.level(),
            later_facts: release.later_facts(),
        };
        // The judge asks for every address itself.
        let config_of_announcer = garpike_announcer::Config { self_check_interval: None, ..Default::default() };
        let mut announcer = Announcer::new(config_of_announcer);
        announcer.handle_links(address.links(), now);
        let mut pipeline = Pipeline::new(name.clone());
        pipeline.handle_desired(plan.desired.clone());
        Self {
            cluster: Cluster::new(config, seed, now),
            pipeline,
            announcer,
            owned: BTreeMap::new(),
            changed: true,
            name_conflicts: 0,
            ending: Ending::No,
        }
    }

    pub(super) fn handle_datagram(&mut self, path: Path, bytes: &[u8], now: Instant) {
        self.cluster.handle_datagram(path, bytes, now);
        self.follow(now);
    }

    pub(super) fn handle_frame(&mut self, bytes: &[u8], now: Instant) {
        // What else is not answered has a reason that is of no interest here.
        if self.announcer.handle_frame(ETH0, bytes, now) == Err(Unanswered::ForeignClaim) {
            self.changed = true;
        }
        self.follow_announcer();
    }

    /// Whether what is answered has changed by itself.
    fn follow_announcer(&mut self) {
        while let Some(event) = self.announcer.poll_event() {
            self.changed |= match event {
                garpike_announcer::Event::Withheld { .. }
                | garpike_announcer::Event::Claims { .. }
                | garpike_announcer::Event::HandedOver { .. } => true,
                garpike_announcer::Event::Claimed { .. }
                | garpike_announcer::Event::KernelsAnswer { .. }
                | garpike_announcer::Event::OneSegment { .. }
                | garpike_announcer::Event::Checked { .. }
                | garpike_announcer::Event::Announced { .. }
                | garpike_announcer::Event::Acknowledged { .. }
                | garpike_announcer::Event::WrongAnswer { .. }
                | garpike_announcer::Event::StationAnswered { .. }
                | garpike_announcer::Event::NoInterface { .. } => false,
            };
        }
    }

    pub(super) fn handle_refused(&mut self, at: SocketAddr, now: Instant) {
        self.cluster.handle_refused(at, now);
        self.follow(now);
    }

    pub(super) fn handle_host_answer(&mut self, probe: ProbeId, now: Instant) {
        self.cluster.handle_host_answer(probe, now);
        self.follow(now);
    }

    pub(super) fn handle_station_answer(&mut self, now: Instant) {
        self.cluster.handle_station_answer(now);
        self.follow(now);
    }

    /// Takes in what another member knows.
    pub(in crate::sim) fn handle_state(&mut self, state: &[u8], now: Instant) {
        // A state that another core made is well formed; if it were not, membership would not become whole.
        let _ = self.cluster.handle_state(state, now);
        self.follow(now);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.cluster.handle_timeout(now);
        self.announcer.handle_timeout(now);
        self.follow_announcer();
        if matches!(self.ending, Ending::Handover { until } if until <= now) {
            self.leave(now);
        }
        self.follow(now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let handover = match self.ending {
            Ending::Handover { until } => Some(until),
            Ending::No | Ending::Leaving => None,
        };
        [self.cluster.poll_timeout(), self.announcer.poll_timeout(), handover].into_iter().flatten().min()
    }

    pub(in crate::sim) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.cluster.poll_transmit()
    }

    pub(in crate::sim) fn poll_request(&mut self) -> Option<Request> {
        self.cluster.poll_request()
    }

    pub(in crate::sim) fn poll_frame(&mut self) -> Option<wire::Bytes> {
        self.announcer.poll_transmit().map(|frame| frame.bytes)
    }

    /// Begins the orderly end: tells the others, and leaves when they know or after a while.
    pub(in crate::sim) fn terminate(&mut self, now: Instant) {
        self.ending = Ending::Handover { until: now + HANDOVER };
        self.cluster.set_state(NodeState::Restarting, now);
        self.follow(now);
    }

    /// Takes the node out of service by the operator's wish.
    pub(in crate::sim) fn set_state(&mut self, state: NodeState, now: Instant) {
        self.cluster.set_state(state, now);
        self.follow(now);
    }

    /// Takes the one key that the source of keys holds.
    pub(in crate::sim) fn set_key(&mut self, key: Key, now: Instant) {
        self.cluster.set_keys(SourcedKeys { keys: vec![key], complaints: Vec::new() }, now);
        self.follow(now);
    }

    /// Whether the orderly end is complete.
    pub(super) fn has_left(&self) -> bool {
        self.ending == Ending::Leaving && self.cluster.is_gone()
    }

    /// Who lives, as this process sees it.
    pub(in crate::sim) fn members(&self) -> &Members {
        self.cluster.members()
    }

    /// What the process answers on the wire when `asker` asks for `ip`.
    pub(in crate::sim) fn answer(&mut self, ip: ServiceIp, asker: MacAddr, now: Instant) -> Option<MacAddr> {
        let question = Message::Arp(Arp {
            ethernet: Ethernet { destination: MacAddr::BROADCAST, source: asker },
            operation: ArpOperation::Request,
            sender_mac: asker,
            sender_ip: Ipv4Addr::UNSPECIFIED,
            target_mac: MacAddr::ZERO,
            target_ip: ip.v4()?,
        });
        self.announcer.handle_frame(ETH0, &question.emit(), now).ok()?;
        let reply = wire::parse(&self.announcer.poll_transmit()?.bytes).ok()?;
        reply.claim().map(|claim| claim.mac)
    }

    /// Carries what the membership learnt to the election, and its result to the announcer.
    fn follow(&mut self, now: Instant) {
        while let Some(event) = self.cluster.poll_event() {
            match event {
                Event::MembersChanged => self.elect(now),
                Event::Healed { .. } | Event::DeclaredDead | Event::TakenForDead => {
                    self.elect(now);
                    self.announcer.reannounce(now);
                }
                Event::FactsKnown if matches!(self.ending, Ending::Handover { .. }) => self.leave(now),
                Event::NameConflict { .. } => self.name_conflicts += 1,
                Event::Ready
                | Event::FactsKnown
                | Event::VerdictHeld
                | Event::HostDied { .. }
                | Event::GraceOver { .. } => {}
            }
        }
    }

    fn leave(&mut self, now: Instant) {
        self.ending = Ending::Leaving;
        self.cluster.leave(now);
    }

    fn elect(&mut self, now: Instant) {
        self.pipeline.handle_members(self.cluster.members().clone());
        self.owned = self.pipeline.owned();
        self.announcer.handle_duties(self.pipeline.duties(), now);
        self.changed = true;
    }
}

impl HostAddress {
    /// The address of its interface with the net of its rack.
    fn net(self) -> IpNet {
        IpNet::new(self.gossip().ip(), 16).expect("is a length of an IPv4 prefix")
    }

    fn links(self) -> LinkSet {
        let IpAddr::V4(ip) = self.gossip().ip() else { return LinkSet::default() };
        let [_, _, high, low] = ip.octets();
        let low = u16::from_be_bytes([high, low]);
        let link = Link::ethernet(
            ethernet(),
            self.mac(),
            vec![self.net(), format!("fe80::{low:x}/64").parse().expect("is a prefix")],
        );
        LinkSet { links: BTreeMap::from([(ETH0, link)]) }
    }
}

/// The Ethernet address of the gateway of a rack.
pub(in crate::sim) fn gateway_mac(rack: usize) -> MacAddr {
    MacAddr([0x02, 0x77, 1, u8::try_from(rack).expect("there are few racks"), 0, 1])
}

/// The rack in which a host address is.
pub(in crate::sim) fn rack_of(addr: SocketAddr) -> Option<usize> {
    let IpAddr::V4(ip) = addr.ip() else { return None };
    let [_, net, ..] = ip.octets();
    net.checked_sub(FIRST_NET).map(usize::from)
}

/// The path of a frame on the one interface.
pub(in crate::sim) fn wire_path(mac: MacAddr) -> Path {
    Path::Wire(ethernet(), mac)
}

fn ethernet() -> InterfaceName {
    "eth0".parse().expect("is an interface name")
}

/// The one interface of a simulated host.
const ETH0: IfIndex = IfIndex(2);
/// The kubelet's port, which answers while the kernel lives.
const KUBELET: u16 = 10250;
/// The speaker's defaults.
const RESTART_GRACE: Duration = Duration::from_secs(60);
const FAILBACK: Duration = Duration::from_secs(30);
/// For how long a speaker that was told to end waits until everybody knows.
const HANDOVER: Duration = Duration::from_millis(500);
/// Milliseconds since the epoch; any time long after it does.
const WALL_CLOCK_AT_START: u64 = 1_800_000_000_000;
