//! The Ethernet header, and the buffer that a frame of ours is written to.

use std::ops::Deref;

use garpike_election::MacAddr;

use super::Ignored;

/// The longest frame that is emitted: Ethernet 14, IPv6 40, neighbour advertisement 24, link-layer option 8 bytes.
pub const MAX_FRAME_LEN: usize = 86;

// https://www.iana.org/assignments/ieee-802-numbers
pub(super) const ARP: u16 = 0x0806;
pub(super) const IPV6: u16 = 0x86dd;
/// IEEE 802 local experimental EtherType 1: datagrams of the membership.
pub(super) const DATAGRAM: u16 = 0x88b5;
pub(super) const VLAN: u16 = 0x8100;
pub(super) const SERVICE_VLAN: u16 = 0x88a8;

/// Between which stations a frame travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ethernet {
    /// To whom.
    pub destination: MacAddr,
    /// From whom.
    pub source: MacAddr,
}

impl Ethernet {
    /// Splits a frame into addresses, EtherType and payload.
    pub(super) fn parse(frame: &[u8]) -> Result<(Self, u16, &[u8]), Ignored> {
        let (destination, rest) = frame.split_first_chunk().ok_or(Ignored::Truncated)?;
        let (source, rest) = rest.split_first_chunk().ok_or(Ignored::Truncated)?;
        let (ether_type, payload) = rest.split_first_chunk().ok_or(Ignored::Truncated)?;
        let ethernet = Self { destination: MacAddr(*destination), source: MacAddr(*source) };
        Ok((ethernet, u16::from_be_bytes(*ether_type), payload))
    }

    /// Begins a frame.
    pub(super) fn emit(self, ether_type: u16) -> Bytes {
        let mut bytes = Bytes { buffer: [0; MAX_FRAME_LEN], len: 0 };
        bytes.push(&self.destination.0);
        bytes.push(&self.source.0);
        bytes.push(&ether_type.to_be_bytes());
        bytes
    }
}

/// A frame that was emitted, at most [`MAX_FRAME_LEN`] bytes long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bytes {
    buffer: [u8; MAX_FRAME_LEN],
    len: usize,
}

impl Bytes {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        let place = self.buffer.get_mut(self.len..end).expect("MAX_FRAME_LEN is the length of the longest message");
        place.copy_from_slice(bytes);
        self.len = end;
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.get(..self.len).expect("push keeps len within the buffer")
    }
}
