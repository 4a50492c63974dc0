//! Letting other stations say something: questions to gateways and recent askers, and what their answers mean.
//!
//! A question is an ordinary ARP request or neighbour solicitation for the station's own address, so every station
//! answers. An answer proves that the wire works; it says nothing about who is alive, and may be forged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use garpike_election::{IfIndex, MacAddr, Selection, Wire};
use ipnet::IpNet;

use super::{Announcer, Event, Frame, FrameKind, OUTBOX_DEPTH, Port, Unanswered, push_event};
use crate::stations::{Gateways, Question, Whom};
use crate::surroundings::{Surroundings, telling_nets};
use crate::wire::{self, Arp, ArpOperation, Claim, Ethernet, Message, NeighborSolicitation};

impl Announcer {
    /// Takes the default gateways. They are asked at once and every 30 s from then on, to know which of them answer; every
    /// second while one does not that was known.
    pub fn handle_gateways(&mut self, gateways: &Gateways, now: Instant) {
        for index in gateways.gateways.keys() {
            self.stations.entry(*index).or_default();
        }
        let none = BTreeMap::new();
        for (index, stations) in &mut self.stations {
            let appeared = stations.set_gateways(gateways.gateways.get(index).unwrap_or(&none));
            let members = &self.members;
            let appeared = appeared.into_iter().filter(|new| !new.mac.is_some_and(|mac| members.contains(&mac)));
            if let Some(port) = self.ports.get_mut(index) {
                appeared.for_each(|gateway| port.campaigns.add_gateway(gateway, now));
            }
        }
        self.check_at = (!gateways.gateways.is_empty()).then_some(now);
        self.handle_timeout(now);
    }

    /// Takes the Ethernet addresses of the members of the cluster: what they say is no answer of a station.
    pub fn handle_members(&mut self, macs: BTreeSet<MacAddr>) {
        self.members = macs;
    }

    /// Asks at most four stations on each interface that can announce. The first answer there is told by
    /// [`Event::StationAnswered`].
    pub fn ask_stations(&mut self, now: Instant) {
        self.ask(Whom::All, now);
    }

    /// What the membership is to know of the node's wires.
    pub fn surroundings(&self) -> Surroundings {
        let links = self.links.iter().flat_map(|links| &links.links);
        let wires = links.filter_map(|(index, link)| {
            let port = self.ports.get(index)?;
            Some((port.name.clone(), Wire { mac: port.mac, nets: telling_nets(link) }))
        });
        Surroundings {
            interfaces: Selection::Only(self.ports.values().map(|port| port.name.clone()).collect()),
            wires: wires.collect(),
            stations: self.stations_known(),
            gateway_silent: self.gateway_is_silent(),
        }
    }

    /// Whether a station that is no member was heard lately on an interface that can announce.
    pub fn stations_known(&self) -> bool {
        self.stations.iter().any(|(index, stations)| self.ports.contains_key(index) && stations.is_known(&self.members))
    }

    /// Whether a gateway that was known does not answer any more on an interface that can announce.
    pub fn gateway_is_silent(&self) -> bool {
        self.stations.iter().any(|(index, stations)| self.ports.contains_key(index) && stations.gateway_is_silent())
    }

    /// Checks the gateways when it is time, and forgets old stations.
    pub(super) fn tend_stations(&mut self, now: Instant) {
        if self.check_at.is_some_and(|at| at <= now) {
            self.check_at = Some(now + CHECK_INTERVAL);
            self.ask(Whom::Gateways, now);
        }
        if self.review_at.take_if(|at| *at <= now).is_some() {
            let (ports, members) = (&self.ports, &self.members);
            let reviewed = self.stations.iter_mut().filter(|(index, _)| ports.contains_key(index));
            if reviewed.filter_map(|(_, stations)| stations.review_gateways(members).then_some(())).count() > 0 {
                self.ask(Whom::Gateways, now);
            }
        }
        for stations in
            self.stations.values_mut().filter(|stations| stations.poll_timeout().is_some_and(|at| at <= now))
        {
            stations.handle_timeout(now);
        }
    }

    pub(super) fn stations_due(&self) -> Option<Instant> {
        self.stations
            .values()
            .filter_map(|stations| stations.poll_timeout())
            .chain(self.check_at)
            .chain(self.review_at)
            .min()
    }

    fn ask(&mut self, whom: Whom, now: Instant) {
        let links = self.links.iter().flat_map(|links| &links.links);
        for (index, link) in links {
            let (Some(port), Some(stations)) = (self.ports.get(index), self.stations.get_mut(index)) else { continue };
            for question in stations.ask(whom, &self.members, now) {
                let Some(message) = port.question(question, &link.nets) else { continue };
                if self.outbox.len() < OUTBOX_DEPTH {
                    let (ip, kind) = (question.ip, FrameKind::Question);
                    self.outbox.push_back(Frame { interface: *index, ip, kind, bytes: message.emit() });
                    stations.note_question(ip);
                    self.review_at.get_or_insert(now + REVIEW_AFTER);
                }
            }
        }
    }

    /// Takes a message that asks for nothing. The result is why it is not answered.
    pub(super) fn hear_statement(&mut self, interface: IfIndex, message: &Message, now: Instant) -> Unanswered {
        let Some(port) = self.ports.get(&interface) else { return Unanswered::Interface };
        let Ethernet { destination, source } = message.ethernet();
        let Some(mut station) = speaker(message).filter(|_| destination == port.mac) else {
            return Unanswered::NotAsked;
        };
        if station.mac == MacAddr::ZERO {
            // A socket that does not tell the sender, and an answer without the option: it is where it was asked.
            let asked_at = self.stations.get(&interface).and_then(|stations| stations.mac_of(station.ip));
            let Some(mac) = asked_at else { return Unanswered::NotAsked };
            station.mac = mac;
        }
        if [source, station.mac].iter().any(|mac| self.members.contains(mac)) {
            return Unanswered::NotAsked;
        }
        let stations = self.stations.get_mut(&interface);
        let is_first = stations.is_some_and(|stations| stations.handle_answer(station.ip, station.mac, now));
        if is_first {
            push_event(&mut self.events, Event::StationAnswered { interface: port.name.clone(), mac: station.mac });
        }
        match self.hear_acknowledgement(interface, message, station, now) {
            Some(()) => Unanswered::Acknowledgement,
            None if is_first => Unanswered::Station,
            None => Unanswered::NotAsked,
        }
    }
}

impl Port {
    /// The question, from an address of the interface; `None` where the interface has none of the family.
    pub(super) fn question(&self, Question { ip, mac }: Question, nets: &[IpNet]) -> Option<Message> {
        match ip {
            IpAddr::V4(ip) => Some(self.arp_question(ip, mac, nets)),
            IpAddr::V6(ip) => self.solicitation(ip, mac, nets),
        }
    }

    /// Asks from the address that shares a net with the station. A station answers an asker to whom it has no route only
    /// if he names no address (RFC 5227 section 2.1.1: the form of a probe).
    fn arp_question(&self, ip: Ipv4Addr, mac: Option<MacAddr>, nets: &[IpNet]) -> Message {
        let own = nets.iter().find_map(|net| match net {
            IpNet::V4(net) => (net.contains(&ip) && net.addr() != ip).then(|| net.addr()),
            IpNet::V6(_) => None,
        });
        self.arp_request(own.unwrap_or(Ipv4Addr::UNSPECIFIED), ip, mac)
    }

    /// Asks `target` where it is, at its Ethernet address if that is known.
    pub(super) fn arp_request(&self, sender: Ipv4Addr, target: Ipv4Addr, mac: Option<MacAddr>) -> Message {
        Message::Arp(Arp {
            ethernet: Ethernet { destination: mac.unwrap_or(MacAddr::BROADCAST), source: self.mac },
            operation: ArpOperation::Request,
            sender_mac: self.mac,
            sender_ip: sender,
            target_mac: MacAddr::ZERO,
            target_ip: target,
        })
    }

    fn solicitation(&self, target: Ipv6Addr, mac: Option<MacAddr>, nets: &[IpNet]) -> Option<Message> {
        let near = || {
            nets.iter().find_map(|net| match net {
                IpNet::V4(_) => None,
                IpNet::V6(net) => net.contains(&target).then(|| net.addr()),
            })
        };
        Some(self.solicitation_from(self.link_local.or_else(near)?, target, mac))
    }

    /// Asks `target` where it is, at its Ethernet address if that is known.
    pub(super) fn solicitation_from(&self, source_ip: Ipv6Addr, target: Ipv6Addr, mac: Option<MacAddr>) -> Message {
        let group = wire::solicited_node(target);
        let (destination, destination_ip) =
            mac.map_or_else(|| (wire::multicast_mac(group), group), |mac| (mac, target));
        Message::NeighborSolicitation(NeighborSolicitation {
            ethernet: Ethernet { destination, source: self.mac },
            source_ip,
            destination_ip,
            target,
            source_mac: Some(self.mac),
        })
    }
}

/// Who says something of itself, and where it is.
fn speaker(message: &Message) -> Option<Claim> {
    match message {
        //= https://www.rfc-editor.org/rfc/rfc4861#section-7.2.4
        //# If the solicitation's IP Destination Address is not a multicast address, the Target Link-Layer Address option
        //# MAY be omitted
        Message::NeighborAdvertisement(advertisement) => {
            let mac = advertisement.target_mac.unwrap_or(advertisement.ethernet.source);
            Some(Claim { ip: advertisement.target.into(), mac })
        }
        Message::Arp(_) | Message::NeighborSolicitation(_) => message.claim(),
    }
}

/// Chosen: some hundred nodes together ask a gateway a few times a second.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Chosen: far above the time that a gateway needs for its answer.
const REVIEW_AFTER: Duration = Duration::from_secs(1);
