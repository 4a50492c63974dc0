//! Owned addresses whose claim is in doubt: probed, and but for a mere dispute silent, until nobody else answers.
//!
//! ```text
//! gained, had no owner ──► untried ──────────────┐ three probes in a row
//! a living member claims it ──► disputed ────────┤ without answer
//!                  a probe is answered           ├──────────────────────► claimed
//!            ┌───────────┬───────────┐           │
//!            ▼           ▼           ▼           │
//!         in use  foreign speaker  outranked ────┘
//! ```
//!
//! A probe asks without claiming (RFC 5227 section 2.1.1). Nothing is announced and no request answered for an address
//! that is untried, in use, answered by a foreign speaker, or of a node that ranks first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use garpike_election::{IfIndex, InterfaceName, MacAddr, NodeName, Selection, ServiceIp};

use super::{Announcer, Claimant, Event, Frame, FrameKind, News, OUTBOX_DEPTH, Port, push_event};
use crate::duties::Standing;
use crate::schedule::Reach;
use crate::wire::{self, Arp, ArpOperation, Ethernet, Message, NeighborSolicitation};

/// Why the claim of an owned address is in doubt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Because {
    /// Nobody owned it before: somebody else may use it.
    Untried,
    /// A living member claims it as well; it is answered here until that proves to go on.
    Disputed(NodeName),
    /// A station that is no node of this cluster answers.
    InUse,
    /// Something else than the speaker of this cluster answers on a member.
    ForeignSpeaker(NodeName),
    /// A node that is taken for dead answers, and ranks before this one.
    Outranked(NodeName),
}

impl Because {
    /// The reason as a metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Untried => "untried",
            Self::Disputed(_) => "disputed",
            Self::InUse => "in_use",
            Self::ForeignSpeaker(_) => "foreign_speaker",
            Self::Outranked(_) => "outranked",
        }
    }

    /// The other node.
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Untried | Self::InUse => None,
            Self::Disputed(node) | Self::ForeignSpeaker(node) | Self::Outranked(node) => Some(node),
        }
    }

    fn silences(&self) -> bool {
        match self {
            Self::Disputed(_) => false,
            Self::Untried | Self::InUse | Self::ForeignSpeaker(_) | Self::Outranked(_) => true,
        }
    }

    /// Between two probes while none is answered.
    fn gap(&self) -> Duration {
        match self {
            Self::Untried => UNTRIED_GAP,
            Self::Disputed(_) | Self::InUse | Self::ForeignSpeaker(_) | Self::Outranked(_) => GAP,
        }
    }

    /// From an answer to the next probe: at first, and at most.
    fn rest(&self) -> (Duration, Duration) {
        match self {
            Self::Untried => (Duration::ZERO, Duration::ZERO),
            Self::Disputed(_) => (GRACE, GRACE),
            Self::Outranked(_) => (GAP, GAP),
            Self::ForeignSpeaker(_) => (SECOND, SECOND),
            Self::InUse => (SECOND, LONGEST_REST),
        }
    }
}

/// The addresses in doubt.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    doubts: BTreeMap<ServiceIp, Doubt>,
    due: BTreeSet<(Instant, ServiceIp)>,
    /// Addresses that the kernels of several members answer: no speaker does that.
    kernels: BTreeSet<ServiceIp>,
}

#[derive(Debug)]
struct Doubt {
    because: Because,
    by: Option<MacAddr>,
    /// How many probes have gone without an answer.
    unanswered: u32,
    rest: Duration,
    due: Instant,
    /// When somebody answered last.
    heard: Option<Instant>,
    /// Since when several members have answered, and when they did last.
    several: Option<(Instant, Instant)>,
    /// How the other node stood when the duties came last.
    standing: Option<Standing>,
}

impl Doubts {
    /// Whether the address is neither answered nor announced.
    pub(super) fn silences(&self, ip: ServiceIp) -> bool {
        !self.doubts.is_empty() && self.doubts.get(&ip).is_some_and(|doubt| doubt.because.silences())
    }

    /// Why the address is in doubt, and who answers.
    pub(super) fn of(&self, ip: ServiceIp) -> Option<(&Because, Option<MacAddr>)> {
        self.doubts.get(&ip).map(|doubt| (&doubt.because, doubt.by))
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    fn insert(&mut self, ip: ServiceIp, because: Because, by: Option<MacAddr>, now: Instant) {
        self.remove(ip);
        let (rest, _) = because.rest();
        let due = now + rest;
        self.due.insert((due, ip));
        self.doubts.insert(
            ip,
            Doubt { because, by, unanswered: 0, rest, due, heard: by.map(|_| now), several: None, standing: None },
        );
    }

    fn remove(&mut self, ip: ServiceIp) -> Option<Doubt> {
        let doubt = self.doubts.remove(&ip)?;
        self.due.remove(&(doubt.due, ip));
        Some(doubt)
    }

    fn wait(&mut self, ip: ServiceIp, due: Instant) {
        if let Some(doubt) = self.doubts.get_mut(&ip) {
            self.due.remove(&(doubt.due, ip));
            doubt.due = due;
            self.due.insert((due, ip));
        }
    }
}

impl Announcer {
    /// Drops the doubts that new duties settle and begins those that they bring. Gives the addresses that may be claimed at
    /// once. Called when the core has its new view of the nodes, but still owns what it did.
    pub(super) fn review_doubts(
        &mut self,
        owned: &BTreeMap<ServiceIp, Selection<InterfaceName>>,
        untried: &BTreeSet<ServiceIp>,
        now: Instant,
    ) -> Vec<ServiceIp> {
        let mut free = Vec::new();
        self.follow_outlived(now);
        self.doubts.kernels.retain(|ip| owned.contains_key(ip));
        let settled: Vec<ServiceIp> = self
            .doubts
            .doubts
            .iter()
            .filter_map(|(ip, doubt)| {
                let standing = doubt.because.node().map(|node| self.peers.standing(node));
                let settled = match &doubt.because {
                    Because::Untried | Because::InUse => false,
                    // Whose speaker ran there is dead: nobody answers any more.
                    Because::Disputed(_) | Because::ForeignSpeaker(_) => {
                        !matches!(standing, Some(Some(Standing::Here | Standing::Away)))
                    }
                    // The membership knows the other node again: its word counts.
                    Because::Outranked(_) => standing != Some(Some(Standing::Dead)),
                };
                (settled || !owned.contains_key(ip)).then_some(*ip)
            })
            .collect();
        for ip in settled {
            let Some(doubt) = self.doubts.remove(ip).filter(|_| owned.contains_key(&ip)) else { continue };
            if doubt.because.silences() {
                free.push(ip);
            } else {
                self.end_quiet(ip, now);
            }
        }
        for ip in untried.iter().filter(|ip| !self.owned.contains_key(ip) && owned.contains_key(ip)) {
            self.doubts.insert(*ip, Because::Untried, None, now);
        }
        free
    }

    /// A foreign speaker outlives the membership of its node when the grace of the one before it is over: it is a station like
    /// any other then. One on a node that ran ours until its host died has died with it.
    fn follow_outlived(&mut self, now: Instant) {
        let mut outlived = Vec::new();
        for (ip, doubt) in &mut self.doubts.doubts {
            let Because::ForeignSpeaker(node) = &doubt.because else { continue };
            let standing = self.peers.standing(node);
            if doubt.standing == Some(Standing::Away) && standing == Some(Standing::Dead) {
                outlived.push((*ip, doubt.by));
            }
            doubt.standing = standing;
        }
        for (ip, by) in outlived {
            self.doubts.insert(ip, Because::InUse, by, now);
        }
    }

    /// Keeps the address, but asks whether `node` really answers for it.
    pub(super) fn dispute(&mut self, ip: ServiceIp, node: NodeName, mac: MacAddr, now: Instant) {
        if !self.doubts.doubts.contains_key(&ip) && !self.doubts.kernels.contains(&ip) {
            self.doubts.insert(ip, Because::Disputed(node), Some(mac), now);
        }
    }

    /// The other node does not claim the address any more; tells whether it had.
    pub(super) fn end_dispute(&mut self, ip: ServiceIp, node: &NodeName) -> bool {
        let disputed = self.doubts.of(ip).is_some_and(|(because, _)| match because {
            Because::Disputed(other) => other == node,
            Because::Untried | Because::InUse | Because::ForeignSpeaker(_) | Because::Outranked(_) => false,
        });
        disputed && self.doubts.remove(ip).is_some()
    }

    /// Falls silent for the address until `mac` does not answer for it any more.
    pub(super) fn withhold(&mut self, ip: ServiceIp, because: Because, mac: MacAddr, now: Instant) {
        for index in self.served.get_mut(&ip).map(|served| std::mem::take(&mut served.ports)).unwrap_or_default() {
            if let Some(port) = self.ports.get_mut(&index) {
                port.campaigns.cancel(ip);
            }
        }
        self.doubts.insert(ip, because.clone(), Some(mac), now);
        if let Some(doubt) = self.doubts.doubts.get_mut(&ip) {
            doubt.standing = because.node().and_then(|node| self.peers.standing(node));
        }
        self.forget_untrue_frames();
        push_event(&mut self.events, Event::Withheld { ip, because, mac });
    }

    /// Claims the address.
    pub(super) fn resume(&mut self, ip: ServiceIp, now: Instant) {
        let told = self.doubts.remove(ip).is_none_or(|doubt| doubt.because != Because::Untried);
        let places = self.places(ip);
        let Some(served) = self.served.get_mut(&ip) else { return };
        for index in &places {
            if let Some(port) = self.ports.get_mut(index).filter(|_| !served.ports.contains(index)) {
                port.campaigns.start(ip, Reach::Long, self.askers.turn(ip, now), now);
            }
        }
        served.ports = places;
        (served.gained, served.acknowledged, served.news) = (Some(now), None, News::Untold);
        if told {
            push_event(&mut self.events, Event::Claims { ip });
        }
    }

    /// Takes a claim for an address in doubt.
    pub(super) fn hear_in_doubt(&mut self, ip: ServiceIp, claimant: Claimant, mac: MacAddr, now: Instant) {
        let Some(doubt) = self.doubts.doubts.get(&ip) else { return };
        let because = match claimant {
            Claimant::Gateway => return,
            Claimant::Stranger => Because::InUse,
            Claimant::Member(node) => Because::ForeignSpeaker(node),
            Claimant::Dead(_) if doubt.because == Because::InUse => Because::InUse,
            Claimant::Dead(node) if self.peers.outranks(&node, ip) => Because::Outranked(node),
            Claimant::Dead(_) => return self.resume(ip, now),
        };
        if let Because::Disputed(node) = &doubt.because {
            // What comes before the first probe may still be a view that lags.
            if doubt.unanswered == 0 || because.node() != Some(node) {
                return;
            }
        }
        if let (Because::ForeignSpeaker(one), Because::ForeignSpeaker(other)) = (&doubt.because, &because)
            && one != other
            && doubt.heard.is_some_and(|at| now < at + GAP)
        {
            let since = doubt.several.filter(|(_, last)| now < *last + STILL_SEVERAL).map_or(now, |(since, _)| since);
            if now >= since + KERNELS_AFTER {
                // Two speakers answer while one hands over to the other; kernels that hold the address do it for ever.
                self.doubts.kernels.insert(ip);
                push_event(&mut self.events, Event::KernelsAnswer { ip });
                return self.resume(ip, now);
            }
            if let Some(doubt) = self.doubts.doubts.get_mut(&ip) {
                (doubt.unanswered, doubt.heard, doubt.several) = (0, Some(now), Some((since, now)));
            }
            return;
        }
        if doubt.because != because {
            return self.withhold(ip, because, mac, now);
        }
        let (_, longest) = because.rest();
        let rest = if doubt.unanswered > 0 { (doubt.rest * 2).min(longest) } else { doubt.rest };
        if let Some(doubt) = self.doubts.doubts.get_mut(&ip) {
            (doubt.unanswered, doubt.rest, doubt.by, doubt.heard) = (0, rest, Some(mac), Some(now));
        }
        self.doubts.wait(ip, now + rest);
    }

    /// Probes what is due, and claims what nobody answers for.
    pub(super) fn tend_doubts(&mut self, now: Instant) {
        while let Some((_, ip)) = self.doubts.due.first().copied().filter(|(due, _)| *due <= now) {
            let Some(doubt) = self.doubts.doubts.get(&ip) else { return };
            let gap = doubt.because.gap();
            if doubt.unanswered >= PROBES {
                if doubt.because.silences() {
                    self.resume(ip, now);
                } else {
                    self.doubts.remove(ip);
                    self.speak_up(ip, now);
                }
                continue;
            }
            let places = self.places(ip);
            if places.is_empty() {
                self.doubts.wait(ip, now + SECOND);
                continue;
            }
            if self.outbox.len() + places.len() > OUTBOX_DEPTH || self.prober(now).take(now).is_none() {
                return;
            }
            for index in places {
                let Some(port) = self.ports.get(&index) else { continue };
                let bytes = port.probe(ip).emit();
                self.outbox.push_back(Frame { interface: index, ip: ip.addr(), kind: FrameKind::Probe, bytes });
            }
            if let Some(doubt) = self.doubts.doubts.get_mut(&ip) {
                doubt.unanswered += 1;
            }
            self.doubts.wait(ip, now + gap);
        }
    }

    /// The interfaces on which an owned address is to be answered, if it is.
    pub(super) fn places(&self, ip: ServiceIp) -> Vec<IfIndex> {
        let Some(selection) = self.owned.get(&ip) else { return Vec::new() };
        let mut places = Vec::new();
        for (index, port) in &self.ports {
            if port.carries(ip) && selection.contains(&port.name) && !self.segments.share(*index, &places) {
                places.push(*index);
            }
        }
        places
    }
}

impl Port {
    /// Asks who answers for the address, without claiming it.
    ///
    /// A solicitation comes from the interface's own address where it has one: MetalLB answers none that names no
    /// link-layer address, as one from `::` must not.
    fn probe(&self, ip: ServiceIp) -> Message {
        match ip.addr() {
            IpAddr::V4(ip) => Message::Arp(self.arp_probe(ip)),
            IpAddr::V6(ip) => Message::NeighborSolicitation(self.solicitation_for(ip)),
        }
    }

    fn arp_probe(&self, ip: Ipv4Addr) -> Arp {
        Arp {
            ethernet: Ethernet { destination: MacAddr::BROADCAST, source: self.mac },
            operation: ArpOperation::Request,
            sender_mac: self.mac,
            sender_ip: Ipv4Addr::UNSPECIFIED,
            target_mac: MacAddr::ZERO,
            target_ip: ip,
        }
    }

    fn solicitation_for(&self, target: Ipv6Addr) -> NeighborSolicitation {
        let group = wire::solicited_node(target);
        NeighborSolicitation {
            ethernet: Ethernet { destination: wire::multicast_mac(group), source: self.mac },
            source_ip: self.link_local.unwrap_or(Ipv6Addr::UNSPECIFIED),
            destination_ip: group,
            target,
            source_mac: self.link_local.map(|_| self.mac),
        }
    }
}

//= https://www.rfc-editor.org/rfc/rfc5227#section-1.1
//# PROBE_NUM            3
const PROBES: u32 = 3;
/// Chosen. RFC 5227 waits for a second and more between probes, and allows less where links are known to be quick (section
/// 2.2); a station on a segment answers within a millisecond or two, and a Service that gets an address is to be announced
/// within 100 ms.
const UNTRIED_GAP: Duration = Duration::from_millis(10);
/// Chosen: an owner that lives answers within this time even if its machine is held up for a moment.
const GAP: Duration = Duration::from_millis(200);
/// Chosen: members learn of a change within some ten milliseconds of each other, with a lost datagram within 200.
const GRACE: Duration = Duration::from_millis(250);
const SECOND: Duration = Duration::from_secs(1);
/// Chosen: longer than two speakers of MetalLB answered beside each other on a real cluster (1.3 s).
const KERNELS_AFTER: Duration = Duration::from_secs(4);
/// Chosen: a probe each second is answered by several; one may be lost.
const STILL_SEVERAL: Duration = Duration::from_millis(2500);
/// Chosen: seldom enough to disturb nobody, often enough that an address of a MetalLB that has ended is answered again within
/// three seconds.
const LONGEST_REST: Duration = Duration::from_secs(2);
