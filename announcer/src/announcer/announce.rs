//! Announcing what is owned, and who has heard it: directed requests to the gateways and to who asked lately, and what
//! their answers show.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use garpike_election::{IfIndex, MacAddr, ServiceIp};

use super::frames::single_station;
use super::{Announcer, Event, Frame, FrameKind, News, OUTBOX_DEPTH, Port, push_event};
use crate::campaigns::Shot;
use crate::stations::Question;
use crate::wire::{ArpOperation, Claim, Message};

impl Announcer {
    /// Queues what the interfaces are to say by themselves.
    pub(super) fn announce(&mut self, now: Instant) {
        for (index, port) in &mut self.ports {
            let stations = self.stations.get(index);
            let gateways = || stations.into_iter().flat_map(|stations| stations.gateways());
            let whom = |ip: ServiceIp| {
                let mut whom = Vec::new();
                for question in gateways().take(MAX_GATEWAYS).chain(self.askers.of(ip, *index, now)) {
                    let is_member = question.mac.is_some_and(|mac| self.members.contains(&mac));
                    let is_there = whom.iter().any(|other: &Question| other.ip == question.ip);
                    if question.ip.is_ipv4() == ip.addr().is_ipv4() && !is_member && !is_there {
                        whom.push(question);
                    }
                }
                whom
            };
            while self.outbox.len() < OUTBOX_DEPTH {
                let Some((ip, shot)) = port.campaigns.next(now, whom) else { break };
                let shot = match shot {
                    Shot::Directed(Question { ip, mac }) => {
                        let mac = stations.and_then(|stations| stations.mac_of(ip)).or(mac);
                        if mac.is_some_and(|mac| self.members.contains(&mac)) {
                            continue;
                        }
                        Shot::Directed(Question { ip, mac })
                    }
                    Shot::Arp(..) | Shot::Advertisement(_) => shot,
                };
                self.outbox.extend(Frame::announcement(*index, port, ip, shot));
            }
        }
    }

    /// A frame has left. The first that announces a gained address is told, all are counted.
    pub fn handle_sent(&mut self, frame: &Frame, now: Instant) {
        let announced = ServiceIp::new(frame.ip).ok().filter(|_| frame.kind == FrameKind::Announcement);
        let Some((ip, served)) = announced.and_then(|ip| Some((ip, self.served.get_mut(&ip)?))) else { return };
        served.announcements += 1;
        if served.news == News::Untold && push_event(&mut self.events, Event::Announced { ip, at: now }) {
            served.news = News::Told;
        }
    }

    /// Notes who asked for an address that is not answered here.
    pub(super) fn note_asker_elsewhere(&mut self, interface: IfIndex, ip: ServiceIp, message: &Message, now: Instant) {
        if self.peers.elsewhere.contains_key(&ip)
            && let Some(station) = asker(message, &self.members)
        {
            self.askers.note(ip, interface, station.ip, station.mac, now);
        }
    }

    /// Notes who asked for an address that was answered. Who asked this node and nobody else knew where it is.
    pub(super) fn note_asker(&mut self, interface: IfIndex, ip: ServiceIp, message: &Message, now: Instant) {
        let Some(station) = asker(message, &self.members) else { return };
        self.stations.entry(interface).or_default().note_asker(station.ip, station.mac, now);
        self.askers.note(ip, interface, station.ip, station.mac, now);
        if !message.ethernet().destination.is_multicast() {
            self.acknowledge(interface, ip, station, now);
        }
        if let Some(port) = self.ports.get_mut(&interface) {
            port.campaigns.add_asker(ip, Question { ip: station.ip, mac: Some(station.mac) }, now);
        }
    }

    /// Takes an answer of a station to this node. `None` if it acknowledges nothing.
    pub(super) fn hear_acknowledgement(
        &mut self,
        interface: IfIndex,
        message: &Message,
        station: Claim,
        now: Instant,
    ) -> Option<()> {
        let answered = match message {
            Message::Arp(arp) => (arp.operation == ArpOperation::Reply).then(|| IpAddr::from(arp.target_ip)),
            Message::NeighborSolicitation(_) => None,
            Message::NeighborAdvertisement(advertisement) => {
                advertisement.flags.solicited.then(|| IpAddr::from(advertisement.destination_ip))
            }
        };
        self.acknowledge(interface, ServiceIp::new(answered?).ok()?, station, now)
    }

    fn acknowledge(&mut self, interface: IfIndex, ip: ServiceIp, station: Claim, now: Instant) -> Option<()> {
        let served = self.served.get_mut(&ip)?;
        self.ports.get_mut(&interface)?.campaigns.acknowledge(ip, station.ip)?;
        if let Some(gained) = served.gained
            && served.acknowledged.is_none()
        {
            served.acknowledged = Some((now, station.mac));
            push_event(&mut self.events, Event::Acknowledged { ip, mac: station.mac, after: now - gained });
        }
        Some(())
    }
}

impl Port {
    /// Asks a station for its own address, in the name of an address that was gained.
    pub(super) fn directed_request(&self, ip: ServiceIp, station: Question) -> Option<Message> {
        match (ip.addr(), station.ip) {
            (IpAddr::V4(ip), IpAddr::V4(target)) => Some(self.arp_request(ip, target, station.mac)),
            (IpAddr::V6(ip), IpAddr::V6(target)) => Some(self.solicitation_from(ip, target, station.mac)),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }
}

/// Who asks by a message, if it is a station that is no member.
fn asker(message: &Message, members: &BTreeSet<MacAddr>) -> Option<Claim> {
    let ip: IpAddr = match message {
        Message::Arp(arp) => arp.sender_ip.into(),
        Message::NeighborSolicitation(solicitation) => solicitation.source_ip.into(),
        Message::NeighborAdvertisement(_) => return None,
    };
    let mac = message.claim().map_or_else(|| message.ethernet().source, |claim| claim.mac);
    let mac = single_station(mac).ok()?;
    (!ip.is_unspecified() && !members.contains(&mac)).then_some(Claim { ip, mac })
}

/// Chosen: more than share a segment in practice.
const MAX_GATEWAYS: usize = 4;
