//! The protocol core: answers for owned addresses and for those of others whose speaker is away, announces gained ones,
//! and settles what others claim.
//!
//! ```text
//! handle_links  ─┐                                      ┌─► poll_transmit: replies, announcements, probes
//! handle_duties ─┼─► which address on which interface ──┤
//! handle_frame  ─┘                                      └─► poll_event: foreign claims, complaints
//! ```
//!
//! Invariant: a frame for an address leaves only on an interface that can announce it, while it is owned, stood in for or
//! handed over. Only what is owned is announced. The core does not decide ownership: a foreign claim may silence it for a
//! while, and never gives it an address.

mod announce;
mod ask;
mod conflict;
mod datagrams;
mod doubt;
mod event;
mod frames;
mod handover;
mod peers;
mod segments;
mod self_check;
mod sentinel;
mod stand_in;
mod status;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::Ipv6Addr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use garpike_election::{IfIndex, InterfaceName, MacAddr, Selection, ServiceIp};

use crate::askers::Askers;
use crate::campaigns::Campaigns;
use crate::duties::Duties;
use crate::excluded::Excluded;
use crate::links::{Link, LinkSet};
use crate::pacer::Pacer;
use crate::prefixes::{MAX_PREFIXES, Prefixes};
use crate::schedule::Reach;
use crate::stations::Stations;
use crate::wire;

pub use datagrams::{Datagram, Undelivered};
pub use doubt::Because;
pub use event::Event;
pub use frames::{Frame, FrameKind, Unanswered};
pub use peers::Claimant;
pub use self_check::{Outcome, SelfCheckStatus, WrongAnswer};
pub use status::{Acknowledgement, AddressStatus, DoubtStatus, InterfaceStatus, StandInStatus, Status};

use doubt::Doubts;
use event::push_event;
use handover::Handover;
use peers::Peers;
use segments::Segments;
use self_check::SelfCheck;
use sentinel::Sentinels;
use stand_in::StandIn;

/// What can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Interfaces that never announce.
    pub excluded: Excluded,
    /// The rate of announcements on each interface. Replies are not held back.
    pub announcements_per_second: NonZeroU32,
    /// How many announcements may leave an interface at once.
    pub announcement_burst: NonZeroU32,
    /// How often an address of another node is asked for, in a small cluster; `None`: never.
    pub self_check_interval: Option<Duration>,
}

/// The core. One per node.
#[derive(Debug)]
pub struct Announcer {
    config: Config,
    /// The last snapshot; `None` until there was one.
    links: Option<LinkSet>,
    /// The interfaces that can announce.
    ports: BTreeMap<IfIndex, Port>,
    /// The Ethernet addresses of all interfaces: frames from them are our own.
    own_macs: BTreeSet<MacAddr>,
    /// The input of `handle_owned`.
    owned: BTreeMap<ServiceIp, Selection<InterfaceName>>,
    /// What follows from `owned` and `ports`, with the same keys as `owned`: one look-up per request.
    served: HashMap<ServiceIp, Served>,
    /// The input of `handle_stood_in`: the Ethernet addresses of the owners as seen on interfaces here.
    stood_in: BTreeMap<ServiceIp, BTreeMap<InterfaceName, MacAddr>>,
    /// What follows from `stood_in` and `ports`, with the same keys as `stood_in`.
    standing_in: HashMap<ServiceIp, StandIn>,
    /// Who asked for which of all these addresses.
    askers: Askers,
    /// The stations behind each interface.
    stations: BTreeMap<IfIndex, Stations>,
    /// The Ethernet addresses of the members.
    members: BTreeSet<MacAddr>,
    peers: Peers,
    handover: Handover,
    doubts: Doubts,
    sentinels: Sentinels,
    segments: Segments,
    self_check: SelfCheck,
    /// The rate of probes; `None` before the first.
    prober: Option<Pacer>,
    /// When gateways are asked next; `None` while there is none.
    check_at: Option<Instant>,
    /// When it is looked whether they have answered; `None` while nobody was asked.
    review_at: Option<Instant>,
    outbox: VecDeque<Frame>,
    events: VecDeque<Event>,
}

/// An interface that can announce.
#[derive(Debug)]
struct Port {
    name: InterfaceName,
    mac: MacAddr,
    link_local: Option<Ipv6Addr>,
    has_ipv6: bool,
    carrier_ups: u32,
    campaigns: Campaigns,
}

/// An owned address.
#[derive(Debug, Default)]
struct Served {
    /// Where it is answered.
    ports: Vec<IfIndex>,
    /// `Event::NoInterface` was given.
    complained: bool,
    /// When it was gained, or an interface that announces it.
    gained: Option<Instant>,
    /// How far the news of that has come.
    news: News,
    /// When a station showed first since then that it sends to this node, and which.
    acknowledged: Option<(Instant, MacAddr)>,
    /// Requests that were heard, answers that were given, and frames that announced it.
    requests: u64,
    answers: u64,
    announcements: u64,
    /// Few addresses have one, and there may be ten thousand.
    contest: Option<Box<Contest>>,
}

/// How far the news of a gained address has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum News {
    /// No frame has left.
    #[default]
    Untold,
    /// One has.
    Told,
}

/// What others claim of an owned address.
#[derive(Debug, Default)]
struct Contest {
    foreign_claims: u64,
    /// The last foreign claim that became an event.
    claimed: Option<(Instant, MacAddr, Claimant)>,
    /// The last foreign claim.
    heard: Option<(Instant, MacAddr)>,
    /// When it was last announced against one.
    defended: Option<Instant>,
}

impl Announcer {
    /// A core that knows no interface and owns nothing.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            links: None,
            ports: BTreeMap::new(),
            own_macs: BTreeSet::new(),
            owned: BTreeMap::new(),
            served: HashMap::new(),
            stood_in: BTreeMap::new(),
            standing_in: HashMap::new(),
            askers: Askers::default(),
            stations: BTreeMap::new(),
            members: BTreeSet::new(),
            peers: Peers::default(),
            handover: Handover::default(),
            doubts: Doubts::default(),
            sentinels: Sentinels::default(),
            segments: Segments::default(),
            self_check: SelfCheck::default(),
            prober: None,
            check_at: None,
            review_at: None,
            outbox: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes a snapshot of the interfaces. Where an interface appears, gets its carrier back, or has a new Ethernet
    /// address or its first IPv6 address, the owned addresses are announced on it.
    pub fn handle_links(&mut self, links: LinkSet, now: Instant) {
        if self.links.as_ref() == Some(&links) {
            return;
        }
        self.stations.retain(|index, _| links.links.contains_key(index));
        self.own_macs = links.links.values().filter_map(|link| link.mac).collect();
        let mut before = std::mem::take(&mut self.ports);
        let mut fresh = BTreeSet::new();
        // Containers come and go all the time; their links are no reason to look at every owned address.
        let mut matters = self.links.is_none();
        for (index, link) in &links.links {
            let Some(mac) = link.mac.filter(|_| link.obstacle(&self.config.excluded).is_none()) else { continue };
            let port = match before.remove(index).filter(|port| port.continues_as(link)) {
                Some(port) => {
                    matters |= port.has_ipv6 != link.has_ipv6();
                    Port { link_local: link.link_local(), has_ipv6: link.has_ipv6(), ..port }
                }
                None => {
                    fresh.insert(*index);
                    Port::new(link, mac, self.campaigns(now))
                }
            };
            self.ports.insert(*index, port);
        }
        matters |= !fresh.is_empty() || !before.is_empty();
        if !fresh.is_empty() {
            // Gateways behind a new interface have not been asked there.
            self.check_at = self.check_at.map(|_| now);
        }
        self.links = Some(links);
        if self.follow_segments(&fresh) || matters {
            self.settle_handovers();
            self.settle(&fresh, Reach::Long, now);
        }
    }

    /// Takes everything that this node is to answer for, and what is to be known of the other nodes. What goes to a living
    /// node is answered until that one claims it; what had no owner is probed before it is claimed.
    pub fn handle_duties(&mut self, duties: Duties, now: Instant) {
        self.note_taken(&duties, now);
        self.begin_handovers(&duties, now);
        let Duties { owned, untried, stood_in, elsewhere, nodes, members, local, desired } = duties;
        self.peers = Peers::new(local, desired, elsewhere, nodes);
        let free = self.review_doubts(&owned, &untried, now);
        self.handle_members(members);
        self.handle_stood_in(stood_in, now);
        self.handle_owned(owned, now);
        for ip in free {
            self.resume(ip, now);
        }
        self.follow_self_check(now);
        self.handle_timeout(now);
    }

    /// Takes the whole set of owned addresses, each with the interfaces that may announce it. Gained ones are
    /// announced, lost ones fall silent, the others are left alone.
    pub fn handle_owned(&mut self, owned: BTreeMap<ServiceIp, Selection<InterfaceName>>, now: Instant) {
        if self.owned == owned {
            return;
        }
        for ip in self.owned.keys().filter(|ip| !owned.contains_key(ip)) {
            for index in self.served.remove(ip).unwrap_or_default().ports {
                if let Some(port) = self.ports.get_mut(&index) {
                    port.campaigns.cancel(*ip);
                }
            }
        }
        self.owned = owned;
        self.settle(&BTreeSet::new(), Reach::Long, now);
    }

    /// Announces every owned address again, for a few seconds: others may have claimed it meanwhile.
    pub fn reannounce(&mut self, now: Instant) {
        let all = self.ports.keys().copied().collect();
        self.settle(&all, Reach::Short, now);
    }

    /// Announces every owned address again on one interface, for instance because what was sent there is lost.
    pub fn reannounce_on(&mut self, interface: IfIndex, now: Instant) {
        self.settle(&BTreeSet::from([interface]), Reach::Long, now);
    }

    /// Puts the announcements and questions that are due into the queue of [`Announcer::poll_transmit`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tend_stations(now);
        self.tend_handovers(now);
        self.tend_doubts(now);
        self.tend_sentinels(now);
        self.tend_self_check(now);
        self.announce(now);
    }

    /// When [`Announcer::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let probe_at = self.prober.as_ref().map(Pacer::ready_at);
        let doubts = self.doubts.next_at().map(|at| probe_at.map_or(at, |ready| at.max(ready)));
        let others = [self.handover.next_at(), doubts, self.sentinels.next_at(probe_at), self.self_check.next_at()];
        let announcements = self.ports.values().filter_map(|port| port.campaigns.next_at());
        announcements.chain(self.stations_due()).chain(others.into_iter().flatten()).min()
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self) -> Option<Frame> {
        self.outbox.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether a frame that waits to be sent is still true.
    pub fn still_wants(&self, frame: &Frame) -> bool {
        let about = |wanted: fn(&Self, ServiceIp, IfIndex) -> bool| {
            ServiceIp::new(frame.ip).is_ok_and(|ip| wanted(self, ip, frame.interface))
        };
        match frame.kind {
            FrameKind::Reply => {
                about(|core, ip, index| core.serves(ip, index) || core.handover.answer(ip, index).flatten().is_some())
            }
            FrameKind::Announcement | FrameKind::Directed => about(Self::serves),
            FrameKind::StandIn => about(Self::stands_in),
            FrameKind::Question | FrameKind::Probe => true,
        }
    }

    /// Whether the address is owned and may be announced on the interface.
    pub fn serves(&self, ip: ServiceIp, interface: IfIndex) -> bool {
        self.served.get(&ip).is_some_and(|served| served.ports.contains(&interface))
    }

    /// The numbers of the interfaces that can announce.
    pub fn ports(&self) -> impl Iterator<Item = IfIndex> {
        self.ports.keys().copied()
    }

    /// How many addresses are owned.
    pub fn owned_count(&self) -> usize {
        self.owned.len()
    }

    /// Few prefixes that cover the addresses that are answered for, and those of other owners, for the packet filter.
    pub fn prefixes(&self) -> Prefixes {
        self.prefixes_with(MAX_PREFIXES)
    }

    /// The same with at most `most` of each family.
    pub fn prefixes_with(&self, most: usize) -> Prefixes {
        let ips = || self.owned.keys().chain(self.stood_in.keys()).chain(self.peers.elsewhere.keys());
        Prefixes::covering_with(most, ips().filter_map(|ip| ip.v4()), ips().filter_map(|ip| ip.v6()))
    }

    /// The solicited-node groups to join on each interface: without them a snooping switch, and most network cards,
    /// keep solicitations away.
    pub fn groups(&self) -> BTreeSet<(IfIndex, Ipv6Addr)> {
        let owned = self.owned.keys().filter_map(|ip| Some((ip, &self.served.get(ip)?.ports)));
        let owned = owned.flat_map(|(ip, ports)| ports.iter().map(move |index| (*ip, *index)));
        let stood_in = self.stood_in.keys().filter_map(|ip| Some((ip, &self.standing_in.get(ip)?.macs)));
        let stood_in = stood_in.flat_map(|(ip, macs)| macs.keys().map(move |index| (*ip, *index)));
        let leaving = self.handover.places();
        owned
            .chain(stood_in)
            .chain(leaving)
            .filter_map(|(ip, index)| Some((index, wire::solicited_node(ip.v6()?))))
            .collect()
    }

    /// The pacer of probes, at the rate of the announcements of one interface.
    fn prober(&mut self, now: Instant) -> &mut Pacer {
        let fresh = self.pacer(now);
        self.prober.get_or_insert(fresh)
    }

    /// Drops the frames that are no longer true.
    fn forget_untrue_frames(&mut self) {
        let mut outbox = std::mem::take(&mut self.outbox);
        outbox.retain(|frame| self.still_wants(frame));
        self.outbox = outbox;
    }

    fn pacer(&self, now: Instant) -> Pacer {
        Pacer::new(self.config.announcements_per_second, self.config.announcement_burst, now)
    }

    fn campaigns(&self, now: Instant) -> Campaigns {
        Campaigns::new(self.config.announcements_per_second, self.config.announcement_burst, now)
    }

    /// Makes `served` follow from `owned` and `ports`. Starts the announcements of each address on the interfaces where
    /// it was not served, and as far as `again` says on the `fresh` ones.
    fn settle(&mut self, fresh: &BTreeSet<IfIndex>, again: Reach, now: Instant) {
        // Growing step by step takes longer than all else together when thousands of addresses are gained.
        self.served.reserve(self.owned.len().saturating_sub(self.served.len()));
        for (ip, selection) in &self.owned {
            let served = self.served.entry(*ip).or_default();
            let before = std::mem::take(&mut served.ports);
            let silent = self.doubts.silences(*ip);
            for (index, port) in &mut self.ports {
                let here = port.carries(*ip) && selection.contains(&port.name);
                if here && !silent && !self.segments.share(*index, &served.ports) {
                    served.ports.push(*index);
                    let reach = if before.contains(index) { again } else { Reach::Long };
                    if fresh.contains(index) || !before.contains(index) {
                        port.campaigns.start(*ip, reach, self.askers.turn(*ip, now), now);
                        if reach == Reach::Long {
                            (served.gained, served.acknowledged, served.news) = (Some(now), None, News::Untold);
                        }
                    }
                } else {
                    port.campaigns.cancel(*ip);
                }
            }
            let complaint = served.ports.is_empty() && self.links.is_some() && !silent;
            served.complained =
                complaint && (served.complained || push_event(&mut self.events, Event::NoInterface { ip: *ip }));
        }
        self.settle_stand_ins();
        self.forget_untrue_frames();
        self.handle_timeout(now);
    }
}

impl Port {
    fn new(link: &Link, mac: MacAddr, campaigns: Campaigns) -> Self {
        Self {
            name: link.name.clone(),
            mac,
            link_local: link.link_local(),
            has_ipv6: link.has_ipv6(),
            carrier_ups: link.carrier_ups,
            campaigns,
        }
    }

    /// Whether neighbours and switches still know what was announced here.
    fn continues_as(&self, link: &Link) -> bool {
        self.name == link.name && Some(self.mac) == link.mac && self.carrier_ups == link.carrier_ups
    }

    /// Whether packets to the address would be taken here. An interface needs no address for ARP to work, but where
    /// IPv6 is switched off the kernel drops what an answer would attract.
    fn carries(&self, ip: ServiceIp) -> bool {
        ip.v4().is_some() || self.has_ipv6
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            excluded: Excluded::default(),
            announcements_per_second: ANNOUNCEMENTS_PER_SECOND,
            announcement_burst: ANNOUNCEMENT_BURST,
            self_check_interval: Some(SELF_CHECK_INTERVAL),
        }
    }
}

/// Chosen: 10 000 addresses are announced once within a second, at 7 Mbit/s.
const ANNOUNCEMENTS_PER_SECOND: NonZeroU32 = NonZeroU32::new(10_000).expect("is not zero");
/// Chosen: what a socket's default send buffer (212 992 bytes) holds at the kernel's 768 bytes for a small frame, halved.
const ANNOUNCEMENT_BURST: NonZeroU32 = NonZeroU32::new(128).expect("is not zero");
/// Chosen: five questions in a second; several hundred addresses are seen within minutes.
const SELF_CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// Chosen: a burst on each of eight interfaces, and a batch of replies. A shell empties the queue after each input.
const OUTBOX_DEPTH: usize = 2048;
/// Chosen: a conflict is worth telling each second; each of its frames is counted.
const CLAIM_EVENT_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
