//! Conflict watch: what this node does when another station claims an address that it owns (RFC 5227 section 2.4).
//!
//! | who claims it | what is done |
//! |---|---|
//! | a living member | asked 300 ms later; if it still answers, a foreign speaker runs there and gets the address. Until then the address is answered, and not announced if the member ranks first: it may know what this node is about to learn |
//! | a node taken for dead | the better rank keeps it and announces once, the other falls silent while the better answers |
//! | a gateway that answers for everybody | told; nothing else |
//! | anybody else | told, and defended by one announcement in 10 s |
//!
//! The node's own interfaces are never foreign, and a subnet's routers may answer for its anycast address.

use std::time::{Duration, Instant};

use garpike_election::{IfIndex, MacAddr, ServiceIp};
use ipnet::IpNet;

use super::{Announcer, Because, CLAIM_EVENT_INTERVAL, Claimant, Event, Frame, FrameKind, OUTBOX_DEPTH, push_event};
use crate::campaigns::Shot;
use crate::duties::Standing;
use crate::schedule::Reach;
use crate::wire::{Arp, ArpOperation, Claim, Ethernet, Message};

impl Announcer {
    /// Whether the frame tells neighbours, on an interface where an owned address belongs, that it is elsewhere; what is
    /// to be done about it is done.
    pub(super) fn hear_claim(&mut self, interface: IfIndex, message: &Message, now: Instant) -> bool {
        let Some(claim) = message.claim().filter(|claim| !self.own_macs.contains(&claim.mac)) else { return false };
        let Ok(ip) = ServiceIp::new(claim.ip) else { return false };
        self.hear_successor(interface, ip, claim.mac);
        let silent = self.doubts.silences(ip) && self.ports.contains_key(&interface);
        // What is stood in for is not ours to defend: the owner and its heirs see to that.
        if let Some(stand_in) = self.standing_in.get_mut(&ip) {
            stand_in.heard = Some((now, claim.mac));
        }
        let Some(served) = self.served.get_mut(&ip).filter(|served| silent || served.ports.contains(&interface)) else {
            return false;
        };
        let contest = served.contest.get_or_insert_default();
        contest.foreign_claims += 1;
        contest.heard = Some((now, claim.mac));
        if self.is_anycast(interface, message) {
            return true;
        }
        let claimant = self.claimant(interface, message, claim);
        self.tell_claim(interface, ip, claim.mac, &claimant, now);
        if let Claimant::Dead(node) = &claimant {
            self.rouse(node, now);
            self.tend_sentinels(now);
        }
        if self.doubts.of(ip).is_some() {
            self.hear_in_doubt(ip, claimant, claim.mac, now);
            return true;
        }
        match claimant {
            Claimant::Member(node) => {
                if self.peers.outranks_by_claiming(&node, ip) {
                    self.fall_quiet(ip);
                }
                self.dispute(ip, node, claim.mac, now);
            }
            Claimant::Dead(node) if self.peers.outranks(&node, ip) => {
                self.withhold(ip, Because::Outranked(node), claim.mac, now);
            }
            Claimant::Dead(_) => self.defend(ip, SETTLE_INTERVAL, now),
            Claimant::Gateway => {}
            //= https://www.rfc-editor.org/rfc/rfc5227#section-2.4
            //# if the host has not seen any other conflicting ARP packets within the last DEFEND_INTERVAL seconds, [...]
            //# broadcasting one single ARP Announcement
            Claimant::Stranger => self.defend(ip, DEFEND_INTERVAL, now),
        }
        true
    }

    /// Takes that somebody asks for an address that is answered here. A speaker asks a dead node, and it alone, for what it
    /// has taken from it: both own the address, and this one says so to everybody unless the other ranks first.
    pub(super) fn hear_question(&mut self, ip: ServiceIp, Ethernet { destination, source }: Ethernet, now: Instant) {
        let Some(node) = self.peers.node_of(source).filter(|_| !destination.is_multicast()).cloned() else { return };
        if self.peers.standing(&node) == Some(Standing::Dead) {
            self.rouse(&node, now);
            if !self.peers.outranks(&node, ip) {
                self.defend(ip, SETTLE_INTERVAL, now);
            }
            self.tend_sentinels(now);
        } else if self.may_defend(ip, SETTLE_INTERVAL, now) && self.end_dispute(ip, &node) {
            // If the other one goes on all the same, its next claim begins another dispute.
            self.speak_up(ip, now);
        }
    }

    /// Who says so.
    pub(super) fn claimant(&self, interface: IfIndex, message: &Message, Claim { mac, .. }: Claim) -> Claimant {
        self.peers.claimant(mac).unwrap_or_else(|| {
            let is_gateway = self.stations.get(&interface).is_some_and(|stations| stations.has_gateway(mac));
            if is_gateway && answers(message) { Claimant::Gateway } else { Claimant::Stranger }
        })
    }

    /// Whether the message answers for the subnet-router anycast address, as every router of a subnet does.
    fn is_anycast(&self, interface: IfIndex, message: &Message) -> bool {
        //= https://www.rfc-editor.org/rfc/rfc4861#section-7.2.7
        //# Neighbor Advertisements sent in response to a Neighbor Solicitation [for an anycast address] SHOULD be
        //# delayed [...]. In addition, the Override flag in Neighbor Advertisements SHOULD be set to 0.
        let Message::NeighborAdvertisement(advertisement) = message else { return false };
        let links = self.links.iter().filter_map(|links| links.links.get(&interface));
        let mut nets = links.flat_map(|link| &link.nets);
        !advertisement.flags.overrides
            && nets.any(|net| match net {
                IpNet::V4(_) => false,
                IpNet::V6(net) => net.network() == advertisement.target,
            })
    }

    fn tell_claim(&mut self, interface: IfIndex, ip: ServiceIp, mac: MacAddr, by: &Claimant, now: Instant) {
        let (Some(served), Some(port)) = (self.served.get_mut(&ip), self.ports.get(&interface)) else { return };
        let contest = served.contest.get_or_insert_default();
        if contest.claimed.as_ref().is_some_and(|(last, _, _)| now < *last + CLAIM_EVENT_INTERVAL) {
            return;
        }
        let event = Event::Claimed { ip, mac, interface: port.name.clone(), by: by.clone() };
        if push_event(&mut self.events, event) {
            contest.claimed = Some((now, mac, by.clone()));
        }
    }

    /// Announces the address once, on each interface where it is answered, unless that was done within `interval`.
    pub(super) fn defend(&mut self, ip: ServiceIp, interval: Duration, now: Instant) {
        if !self.may_defend(ip, interval, now) {
            return;
        }
        let Some(served) = self.served.get_mut(&ip) else { return };
        served.contest.get_or_insert_default().defended = Some(now);
        let shots: Vec<Shot> = match (ip.v4(), ip.v6()) {
            (Some(ip), _) => [ArpOperation::Request, ArpOperation::Reply].map(|form| Shot::Arp(form, ip)).to_vec(),
            (None, ip) => ip.into_iter().map(Shot::Advertisement).collect(),
        };
        for (index, port) in served.ports.iter().filter_map(|index| Some((*index, self.ports.get(index)?))) {
            let frames = shots.iter().filter_map(|shot| Frame::announcement(index, port, ip, *shot));
            self.outbox.extend(frames);
        }
    }

    /// Announces the address no more until [`Announcer::speak_up`]: it would come and go with each announcement.
    fn fall_quiet(&mut self, ip: ServiceIp) {
        for index in self.served.get(&ip).into_iter().flat_map(|served| &served.ports) {
            if let Some(port) = self.ports.get_mut(index) {
                port.campaigns.cancel(ip);
            }
        }
        self.outbox.retain(|frame| frame.kind != FrameKind::Announcement || frame.ip != ip.addr());
    }

    /// Announces an address that is disputed no more: neighbours may have believed the other one.
    pub(super) fn speak_up(&mut self, ip: ServiceIp, now: Instant) {
        if !self.end_quiet(ip, now) {
            self.defend(ip, SETTLE_INTERVAL, now);
        } else if let Some(served) = self.served.get_mut(&ip) {
            served.contest.get_or_insert_default().defended = Some(now);
        }
    }

    /// Begins the announcements anew if they had ended for a dispute, and tells whether.
    pub(super) fn end_quiet(&mut self, ip: ServiceIp, now: Instant) -> bool {
        let turn = self.askers.turn(ip, now);
        let mut was_quiet = false;
        for index in self.served.get(&ip).into_iter().flat_map(|served| &served.ports) {
            if let Some(port) = self.ports.get_mut(index).filter(|port| !port.campaigns.knows(ip)) {
                port.campaigns.start(ip, Reach::Long, turn, now);
                was_quiet = true;
            }
        }
        was_quiet
    }

    fn may_defend(&self, ip: ServiceIp, interval: Duration, now: Instant) -> bool {
        self.served.get(&ip).is_some_and(|served| {
            let defended = served.contest.as_ref().and_then(|contest| contest.defended);
            let late = defended.is_none_or(|last| now >= last + interval);
            late && self.outbox.len() + 2 * served.ports.len() <= OUTBOX_DEPTH
        })
    }
}

/// Whether the message answers a question: it is not said to everybody of one's own accord.
fn answers(message: &Message) -> bool {
    match message {
        Message::Arp(Arp { operation: ArpOperation::Reply, .. }) => !message.is_gratuitous(),
        Message::Arp(Arp { operation: ArpOperation::Request, .. }) | Message::NeighborSolicitation(_) => false,
        Message::NeighborAdvertisement(advertisement) => advertisement.flags.solicited,
    }
}

//= https://www.rfc-editor.org/rfc/rfc5227#section-1.1
//# DEFEND_INTERVAL      10 seconds
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// Chosen: the other node falls silent when it hears the first; the second is for one that was lost.
pub(super) const SETTLE_INTERVAL: Duration = Duration::from_secs(1);
