//! The frames of ARP (RFC 826) and of IPv6 neighbour discovery (RFC 4861) that concern addresses.
//!
//! [`parse`] takes any bytes and never panics or allocates; what it cannot use it names as [`Ignored`]. What is
//! emitted parses back to the same [`Message`]. Router discovery, redirects, VLAN tags and IPv6 extension headers are
//! left to others. Beside them travel datagrams of the membership ([`wrap_datagram`]).

mod arp;
mod datagram;
mod ethernet;
mod ndp;

use std::net::IpAddr;

use garpike_election::MacAddr;

pub use arp::{Arp, ArpOperation};
pub use datagram::{MAX_DATAGRAM_LEN, TooLong, unwrap as unwrap_datagram, wrap as wrap_datagram};
pub use ethernet::{Bytes, Ethernet, MAX_FRAME_LEN};
pub use ndp::{
    ALL_NODES, NaFlags, NeighborAdvertisement, NeighborSolicitation, link_layer_option, multicast_mac, solicited_node,
};

/// One of the messages by which neighbours find each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// An ARP request or reply.
    Arp(Arp),
    /// Who has this IPv6 address?
    NeighborSolicitation(NeighborSolicitation),
    /// This IPv6 address is here.
    NeighborAdvertisement(NeighborAdvertisement),
}

/// That an address is to be found at a link-layer address, as a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The address.
    pub ip: IpAddr,
    /// Where it is said to be.
    pub mac: MacAddr,
}

/// Reads an Ethernet frame. Padding behind the message is accepted.
///
/// # Errors
///
/// Why the frame is no message of ours; most traffic is not.
pub fn parse(frame: &[u8]) -> Result<Message, Ignored> {
    let (ethernet, ether_type, payload) = Ethernet::parse(frame)?;
    match ether_type {
        ethernet::ARP => Arp::parse(ethernet, payload).map(Message::Arp),
        ethernet::IPV6 => ndp::parse(ethernet, payload),
        ethernet::VLAN | ethernet::SERVICE_VLAN => Err(Ignored::Tagged),
        _ => Err(Ignored::EtherType),
    }
}

impl Message {
    /// The frame's link-layer addresses.
    pub fn ethernet(&self) -> Ethernet {
        match self {
            Self::Arp(arp) => arp.ethernet,
            Self::NeighborSolicitation(solicitation) => solicitation.ethernet,
            Self::NeighborAdvertisement(advertisement) => advertisement.ethernet,
        }
    }

    /// The address that the message asks for or tells about.
    pub fn target(&self) -> IpAddr {
        match self {
            Self::Arp(arp) => arp.target_ip.into(),
            Self::NeighborSolicitation(solicitation) => solicitation.target.into(),
            Self::NeighborAdvertisement(advertisement) => advertisement.target.into(),
        }
    }

    /// Which address the frame says is where: what a neighbour that hears it would write into its cache.
    ///
    /// An ARP message claims its sender address, request or reply, unless it is a probe. An advertisement claims its
    /// target if it names a link-layer address. A solicitation claims nothing but the address that it is sent from.
    pub fn claim(&self) -> Option<Claim> {
        match self {
            Self::Arp(arp) => (!arp.is_probe()).then(|| Claim { ip: arp.sender_ip.into(), mac: arp.sender_mac }),
            Self::NeighborSolicitation(solicitation) => {
                solicitation.source_mac.map(|mac| Claim { ip: solicitation.source_ip.into(), mac })
            }
            Self::NeighborAdvertisement(advertisement) => {
                advertisement.target_mac.map(|mac| Claim { ip: advertisement.target.into(), mac })
            }
        }
    }

    /// Whether nobody asked: a gratuitous ARP (sender and target are the same address) or an unsolicited advertisement.
    pub fn is_gratuitous(&self) -> bool {
        match self {
            Self::Arp(arp) => arp.is_gratuitous(),
            Self::NeighborSolicitation(_) => false,
            Self::NeighborAdvertisement(advertisement) => !advertisement.flags.solicited,
        }
    }

    /// The message as the frame that goes on the wire, without padding and checksum of Ethernet.
    pub fn emit(&self) -> Bytes {
        match self {
            Self::Arp(arp) => arp.emit(),
            Self::NeighborSolicitation(solicitation) => solicitation.emit(),
            Self::NeighborAdvertisement(advertisement) => advertisement.emit(),
        }
    }
}

/// Why a frame is no message of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ignored {
    /// The frame ends before its headers say so.
    Truncated,
    /// A VLAN tag: the frame belongs to another segment.
    Tagged,
    /// Neither ARP nor IPv6.
    EtherType,
    /// ARP for other than IPv4 over Ethernet.
    ArpFormat,
    /// ARP, neither request nor reply.
    ArpOperation,
    /// EtherType IPv6 with another version in the header.
    IpVersion,
    /// IPv6, but the header is followed by something else than ICMPv6.
    NotIcmpv6,
    /// The hop limit is not 255: the packet may come from another segment.
    HopLimit,
    /// The checksum of ICMPv6 is wrong.
    Checksum,
    /// ICMPv6 other than neighbour solicitation and advertisement.
    IcmpType,
    /// A code other than 0.
    IcmpCode,
    /// The target is a multicast address.
    MulticastTarget,
    /// The source is a multicast address.
    MulticastSource,
    /// A solicitation from `::` that is no proper probe for duplicates, a solicited advertisement to many, or a datagram
    /// from or to no single station.
    Addressing,
    /// A datagram without content, or longer than any.
    DatagramLength,
    /// An option with length 0, or that ends behind the message, or a link-layer address that is not Ethernet's.
    Option,
}

impl Ignored {
    /// The reason as a metric label.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Tagged => "tagged",
            Self::EtherType => "ether_type",
            Self::ArpFormat => "arp_format",
            Self::ArpOperation => "arp_operation",
            Self::IpVersion => "ip_version",
            Self::NotIcmpv6 => "not_icmpv6",
            Self::HopLimit => "hop_limit",
            Self::Checksum => "checksum",
            Self::IcmpType => "icmp_type",
            Self::IcmpCode => "icmp_code",
            Self::MulticastTarget => "multicast_target",
            Self::MulticastSource => "multicast_source",
            Self::Addressing => "addressing",
            Self::DatagramLength => "datagram_length",
            Self::Option => "option",
        }
    }
}

#[cfg(test)]
mod tests;
