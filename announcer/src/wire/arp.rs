//! ARP for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use garpike_election::MacAddr;

use super::Ignored;
use super::ethernet::{self, Bytes, Ethernet};

/// Hardware type Ethernet, protocol type IPv4, and the lengths of their addresses.
const ETHERNET_IPV4: [u8; 6] = [0x00, 0x01, 0x08, 0x00, 6, 4];
const REQUEST: [u8; 2] = [0x00, 0x01];
const REPLY: [u8; 2] = [0x00, 0x02];

/// An ARP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// The frame's addresses; the source may differ from [`Arp::sender_mac`].
    pub ethernet: Ethernet,
    /// Question or answer.
    pub operation: ArpOperation,
    /// Where the sender says it is.
    pub sender_mac: MacAddr,
    /// Who the sender says it is; `0.0.0.0` in a probe.
    pub sender_ip: Ipv4Addr,
    /// Where the target is; means nothing in a request.
    pub target_mac: MacAddr,
    /// The address that is asked for, or the asker's in a reply.
    pub target_ip: Ipv4Addr,
}

/// What an ARP message does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ArpOperation {
    /// Asks where the target is.
    Request,
    /// Answers where the sender is.
    Reply,
}

impl Arp {
    /// Whether the sender asks if somebody has the address, without claiming any (RFC 5227 section 1.1).
    pub fn is_probe(&self) -> bool {
        self.sender_ip.is_unspecified()
    }

    /// Whether the sender tells everybody about itself.
    pub fn is_gratuitous(&self) -> bool {
        self.sender_ip == self.target_ip && !self.is_probe()
    }

    pub(super) fn parse(ethernet: Ethernet, packet: &[u8]) -> Result<Self, Ignored> {
        let (format, rest) = packet.split_first_chunk::<6>().ok_or(Ignored::Truncated)?;
        if *format != ETHERNET_IPV4 {
            return Err(Ignored::ArpFormat);
        }
        let (operation, rest) = rest.split_first_chunk::<2>().ok_or(Ignored::Truncated)?;
        let operation = match *operation {
            REQUEST => ArpOperation::Request,
            REPLY => ArpOperation::Reply,
            _ => return Err(Ignored::ArpOperation),
        };
        let (sender_mac, rest) = rest.split_first_chunk().ok_or(Ignored::Truncated)?;
        let (sender_ip, rest) = rest.split_first_chunk::<4>().ok_or(Ignored::Truncated)?;
        let (target_mac, rest) = rest.split_first_chunk().ok_or(Ignored::Truncated)?;
        let (target_ip, _padding) = rest.split_first_chunk::<4>().ok_or(Ignored::Truncated)?;
        Ok(Self {
            ethernet,
            operation,
            sender_mac: MacAddr(*sender_mac),
            sender_ip: Ipv4Addr::from(*sender_ip),
            target_mac: MacAddr(*target_mac),
            target_ip: Ipv4Addr::from(*target_ip),
        })
    }

    pub(super) fn emit(&self) -> Bytes {
        let mut bytes = self.ethernet.emit(ethernet::ARP);
        bytes.push(&ETHERNET_IPV4);
        bytes.push(match self.operation {
            ArpOperation::Request => &REQUEST,
            ArpOperation::Reply => &REPLY,
        });
        bytes.push(&self.sender_mac.0);
        bytes.push(&self.sender_ip.octets());
        bytes.push(&self.target_mac.0);
        bytes.push(&self.target_ip.octets());
        bytes
    }
}
