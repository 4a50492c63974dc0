//! What comes in and what goes out: the responder, and the frames that it and the schedule send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use garpike_election::{IfIndex, MacAddr, ServiceIp};

#[cfg(doc)]
use super::Event;
use super::{Announcer, OUTBOX_DEPTH, Port};
use crate::campaigns::Shot;
use crate::wire::{self, Arp, ArpOperation, Ethernet, Message, NaFlags, NeighborAdvertisement, NeighborSolicitation};

/// A frame to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// On which interface.
    pub interface: IfIndex,
    /// Which address it is about.
    pub ip: IpAddr,
    /// What for.
    pub kind: FrameKind,
    /// From the Ethernet header on.
    pub bytes: wire::Bytes,
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FrameKind {
    /// Somebody asked.
    Reply,
    /// The address was gained.
    Announcement,
    /// Somebody asked for an address whose owner is away.
    StandIn,
    /// A station is to say something.
    Question,
    /// A station is to say something to an address that was gained.
    Directed,
    /// Whoever answers for an owned address is to say so.
    Probe,
}

impl Frame {
    pub(super) fn announcement(interface: IfIndex, port: &Port, ip: ServiceIp, shot: Shot) -> Option<Self> {
        let (kind, message) = match shot {
            Shot::Arp(form, ip) => (FrameKind::Announcement, port.gratuitous(form, ip)),
            Shot::Advertisement(ip) => {
                (FrameKind::Announcement, Message::NeighborAdvertisement(port.advertisement(ip, port.mac)))
            }
            Shot::Directed(station) => (FrameKind::Directed, port.directed_request(ip, station)?),
        };
        Some(Self { interface, ip: ip.addr(), kind, bytes: message.emit() })
    }
}

impl FrameKind {
    /// The kind as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reply => "reply",
            Self::Announcement => "announcement",
            Self::StandIn => "stand_in",
            Self::Question => "question",
            Self::Directed => "directed",
            Self::Probe => "probe",
        }
    }
}

/// Why a received frame is not answered. Most never are: it is no fault by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unanswered {
    /// It is no message of ours, or malformed.
    Unusable(wire::Ignored),
    /// It came in on an interface that cannot announce.
    Interface,
    /// One of our own interfaces sent it.
    OwnFrame,
    /// Another station claims an address of ours; see [`Event::Claimed`].
    ForeignClaim,
    /// It is a reply, an advertisement or an announcement.
    NotAsked,
    /// It is the answer of a station that was asked; see [`Event::StationAnswered`].
    Station,
    /// It shows that a station sends to this node for an address that was gained; see [`Event::Acknowledged`].
    Acknowledgement,
    /// It answers a question of the self-check; see [`Event::Checked`].
    SelfCheck,
    /// It is addressed to another station.
    NotForUs,
    /// It asks for an address that is neither owned nor stood in for.
    NotOwned,
    /// It asks for such an address on an interface that may not announce it, or does not reach its owner.
    NotHere,
    /// It asks for an address that this node owns and does not claim; see [`Event::Withheld`].
    Withheld,
    /// It asks for an answer to a link-layer address that no single station has.
    BadSender,
    /// Too many frames wait to be sent.
    Backlog,
}

impl Unanswered {
    /// The reason as a metric label.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unusable(ignored) => ignored.reason(),
            Self::Interface => "interface",
            Self::OwnFrame => "own_frame",
            Self::ForeignClaim => "foreign_claim",
            Self::NotAsked => "not_asked",
            Self::Station => "station",
            Self::Acknowledgement => "acknowledgement",
            Self::SelfCheck => "self_check",
            Self::NotForUs => "not_for_us",
            Self::NotOwned => "not_owned",
            Self::NotHere => "not_here",
            Self::Withheld => "withheld",
            Self::BadSender => "bad_sender",
            Self::Backlog => "backlog",
        }
    }
}

impl Announcer {
    /// Takes a frame that `interface` received; the answer, if it gets one, is the next of
    /// [`Announcer::poll_transmit`].
    ///
    /// # Errors
    ///
    /// Why it is not answered.
    pub fn handle_frame(&mut self, interface: IfIndex, frame: &[u8], now: Instant) -> Result<(), Unanswered> {
        let message = wire::parse(frame).map_err(Unanswered::Unusable)?;
        let source = message.ethernet().source;
        if self.own_macs.contains(&source) {
            self.hear_own(interface, source, now);
            return Err(Unanswered::OwnFrame);
        }
        if self.hear_claim(interface, &message, now) {
            return Err(Unanswered::ForeignClaim);
        }
        if self.hear_check(interface, &message) {
            return Err(Unanswered::SelfCheck);
        }
        if !asks(&message) {
            return Err(self.hear_statement(interface, &message, now));
        }
        let port = self.ports.get(&interface).ok_or(Unanswered::Interface)?;
        let ip = ServiceIp::new(message.target()).map_err(|_| Unanswered::NotOwned)?;
        let (kind, mac, answers) = if let Some(served) = self.served.get_mut(&ip) {
            served.requests += 1;
            let here = served.ports.contains(&interface).then_some(port.mac);
            (FrameKind::Reply, here, Some(&mut served.answers))
        } else if let Some(stand_in) = self.standing_in.get_mut(&ip) {
            (FrameKind::StandIn, stand_in.macs.get(&interface).copied(), Some(&mut stand_in.answers))
        } else if let Some(mac) = self.handover.answer(ip, interface) {
            (FrameKind::Reply, mac, None)
        } else {
            self.note_asker_elsewhere(interface, ip, &message, now);
            return Err(Unanswered::NotOwned);
        };
        let otherwise = if self.doubts.silences(ip) { Unanswered::Withheld } else { Unanswered::NotHere };
        let reply = port.reply(&message, mac.ok_or(otherwise)?)?;
        if self.outbox.len() >= OUTBOX_DEPTH {
            return Err(Unanswered::Backlog);
        }
        if let Some(answers) = answers {
            *answers += 1;
        }
        self.outbox.push_back(Frame { interface, ip: ip.addr(), kind, bytes: reply.emit() });
        self.note_asker(interface, ip, &message, now);
        self.hear_question(ip, message.ethernet(), now);
        Ok(())
    }
}

impl Port {
    /// What answers a request: that its target is at `mac`, which need not be this port's own.
    fn reply(&self, request: &Message, mac: MacAddr) -> Result<Message, Unanswered> {
        match request {
            Message::Arp(request) => self.arp_reply(request, mac),
            Message::NeighborSolicitation(solicitation) => self.advertisement_to(solicitation, mac),
            Message::NeighborAdvertisement(_) => Err(Unanswered::NotAsked),
        }
    }

    fn arp_reply(&self, request: &Arp, mac: MacAddr) -> Result<Message, Unanswered> {
        let destination = request.ethernet.destination;
        if destination != MacAddr::BROADCAST && destination != self.mac {
            return Err(Unanswered::NotForUs);
        }
        let asker = single_station(request.sender_mac)?;
        Ok(Message::Arp(Arp {
            ethernet: Ethernet { destination: asker, source: self.mac },
            operation: ArpOperation::Reply,
            sender_mac: mac,
            sender_ip: request.target_ip,
            target_mac: asker,
            target_ip: request.sender_ip,
        }))
    }

    fn advertisement_to(&self, solicitation: &NeighborSolicitation, mac: MacAddr) -> Result<Message, Unanswered> {
        let destination = solicitation.ethernet.destination;
        if !destination.is_multicast() && destination != self.mac {
            return Err(Unanswered::NotForUs);
        }
        let mut advertisement = self.advertisement(solicitation.target, mac);
        if solicitation.source_ip.is_unspecified() {
            //= https://www.rfc-editor.org/rfc/rfc4861#section-7.2.4
            //# If the source of the solicitation is the unspecified address, the node MUST set the Solicited flag to
            //# zero and multicast the advertisement to the all-nodes address.
            return Ok(Message::NeighborAdvertisement(advertisement));
        }
        //= https://www.rfc-editor.org/rfc/rfc4861#section-7.2.2
        //# [The source link-layer address option] MUST be included in multicast solicitations and SHOULD be included
        //# in unicast solicitations.
        let asker = single_station(solicitation.source_mac.unwrap_or(solicitation.ethernet.source))?;
        advertisement.ethernet.destination = asker;
        advertisement.destination_ip = solicitation.source_ip;
        advertisement.flags.solicited = true;
        Ok(Message::NeighborAdvertisement(advertisement))
    }

    /// An unsolicited advertisement to all nodes that `target` is at `mac`.
    ///
    /// It replaces what neighbours know (override), because there is one owner and it is here. The service IP is not
    /// the address of a router. The source is the interface's link-local address: RFC 4861 section 4.4 wants an address
    /// of the interface, and hosts and switches that guard neighbour discovery know that one. Without one (the kernel
    /// can be told not to make it) the target itself is the source; Linux takes both (measured).
    fn advertisement(&self, target: Ipv6Addr, mac: MacAddr) -> NeighborAdvertisement {
        NeighborAdvertisement {
            ethernet: Ethernet { destination: wire::multicast_mac(wire::ALL_NODES), source: self.mac },
            source_ip: self.link_local.unwrap_or(target),
            destination_ip: wire::ALL_NODES,
            target,
            target_mac: Some(mac),
            flags: NaFlags { router: false, solicited: false, overrides: true },
        }
    }

    /// A gratuitous ARP. Linux heeds a reply at once only if it names its own sender as target hardware address
    /// (RFC 5944 section 4.6); in a request that field means nothing.
    fn gratuitous(&self, operation: ArpOperation, ip: Ipv4Addr) -> Message {
        let target_mac = match operation {
            ArpOperation::Request => MacAddr::ZERO,
            ArpOperation::Reply => self.mac,
        };
        Message::Arp(Arp {
            ethernet: Ethernet { destination: MacAddr::BROADCAST, source: self.mac },
            operation,
            sender_mac: self.mac,
            sender_ip: ip,
            target_mac,
            target_ip: ip,
        })
    }
}

/// Whether somebody wants to know where an address is.
fn asks(message: &Message) -> bool {
    match message {
        Message::Arp(arp) => arp.operation == ArpOperation::Request && !arp.is_gratuitous(),
        Message::NeighborSolicitation(_) => true,
        Message::NeighborAdvertisement(_) => false,
    }
}

/// The address, if a frame to it reaches one station.
pub(super) fn single_station(mac: MacAddr) -> Result<MacAddr, Unanswered> {
    if mac.is_multicast() || mac == MacAddr::ZERO { Err(Unanswered::BadSender) } else { Ok(mac) }
}
