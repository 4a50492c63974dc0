//! One simulated host: the three cores, wired as the speaker wires them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use garpike_announcer::{Announcer, Link, LinkSet};
use garpike_election::{Desired, IfIndex, InterfaceName, MacAddr, Members, NodeName, Selection, ServiceIp};
use garpike_membership::{Cluster, Generation, Key, ProcessId, Sealing, SecretKey};
use garpike_speaker::Pipeline;

/// A host with its speaker.
pub(super) struct Host {
    pub(super) name: NodeName,
    pub(super) mac: MacAddr,
    pub(super) gossip: SocketAddr,
    pub(super) alive: bool,
    pub(super) cluster: Cluster,
    pub(super) pipeline: Pipeline,
    pub(super) announcer: Announcer,
    /// When this host wakes up next; an earlier or later wake-up in the queue is stale.
    pub(super) wake_at: Option<Instant>,
    /// Who is alive or who owns what may have changed since this was last taken.
    pub(super) changed: bool,
}

impl Host {
    /// Boots host `index` of `count`: its speaker joins by the addresses of all others.
    pub(super) fn boot(index: usize, count: usize, desired: &Desired, seed: [u8; 32], now: Instant) -> Self {
        let name = name_of(index);
        let interface = Selection::Only(BTreeSet::from([ethernet()]));
        let seeds = (0..count).filter(|other| *other != index).map(gossip_of).collect();
        let secret = SecretKey::parse(b"the simulator has no secrets").expect("is not empty");
        let config = garpike_membership::Config {
            local: name.clone(),
            generation: Generation(1),
            process: ProcessId(u64::from_le_bytes(first_eight(seed)).max(1)),
            gossip: gossip_of(index),
            seeds,
            sealing: Sealing::Sealed(Key::derive(&secret, "simulator")),
            interfaces: interface,
        };
        let mut host = Self {
            mac: mac_of(index),
            gossip: gossip_of(index),
            alive: true,
            cluster: Cluster::new(config, seed, now),
            pipeline: Pipeline::new(name.clone()),
            announcer: Announcer::new(garpike_announcer::Config::default()),
            wake_at: None,
            changed: false,
            name,
        };
        host.announcer.handle_links(links_of(host.mac, index), now);
        host.pipeline.handle_desired(desired.clone());
        host.elect(now);
        host
    }

    /// Hands a datagram to the membership.
    pub(super) fn handle_datagram(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) {
        self.cluster.handle_datagram(from, bytes, now);
        self.follow(now);
    }

    /// Hands a frame to the announcer.
    pub(super) fn handle_frame(&mut self, bytes: &[u8], now: Instant) {
        // What is not answered has a reason, which is of no interest here.
        let _ = self.announcer.handle_frame(ETH0, bytes, now);
        while self.announcer.poll_event().is_some() {}
    }

    /// Lets time pass.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.cluster.handle_timeout(now);
        self.announcer.handle_timeout(now);
        self.follow(now);
    }

    /// When something is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.cluster.poll_timeout(), self.announcer.poll_timeout()].into_iter().flatten().min()
    }

    /// Who lives, as this host sees it.
    pub(super) fn members(&self) -> &Members {
        self.cluster.members()
    }

    /// Whether this host would answer for `ip`.
    pub(super) fn answers(&self, ip: ServiceIp) -> bool {
        self.alive && self.announcer.serves(ip, ETH0)
    }

    /// Carries what the membership learnt to the election, and its result to the announcer.
    fn follow(&mut self, now: Instant) {
        while let Some(event) = self.cluster.poll_event() {
            match event {
                garpike_membership::Event::MembersChanged | garpike_membership::Event::Ready => self.elect(now),
                garpike_membership::Event::Healed { .. } | garpike_membership::Event::DeclaredDead => {
                    self.elect(now);
                    self.announcer.reannounce(now);
                }
                garpike_membership::Event::NameConflict { .. } => {}
            }
        }
    }

    fn elect(&mut self, now: Instant) {
        self.pipeline.handle_members(self.cluster.members().clone());
        self.announcer.handle_owned(self.pipeline.owned(), now);
        self.changed = true;
    }
}

/// The name of host `index`, from 0.
pub(super) fn name_of(index: usize) -> NodeName {
    format!("n{}", index + 1).parse().expect("is a node name")
}

fn ethernet() -> InterfaceName {
    "eth0".parse().expect("is an interface name")
}

fn gossip_of(index: usize) -> SocketAddr {
    let [high, low] = u16::try_from(index + 1).expect("there are fewer than 65535 hosts").to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, high, low)), 7946)
}

fn mac_of(index: usize) -> MacAddr {
    let [high, low] = u16::try_from(index + 1).expect("there are fewer than 65535 hosts").to_be_bytes();
    MacAddr([0x02, 0x77, 0, 0, high, low])
}

fn links_of(mac: MacAddr, index: usize) -> LinkSet {
    let low = u16::try_from(index + 1).expect("there are fewer than 65535 hosts");
    let link = Link {
        name: ethernet(),
        mac: Some(mac),
        up: true,
        carrier: true,
        carrier_ups: 1,
        loopback: false,
        no_arp: false,
        point_to_point: false,
        master: None,
        nets: vec![format!("fe80::{low:x}/64").parse().expect("is a prefix")],
        mtu: 1500,
    };
    LinkSet { links: BTreeMap::from([(ETH0, link)]) }
}

fn first_eight(seed: [u8; 32]) -> [u8; 8] {
    std::array::from_fn(|i| seed.get(i).copied().unwrap_or_default())
}

/// The one interface of a simulated host.
const ETH0: IfIndex = IfIndex(2);
