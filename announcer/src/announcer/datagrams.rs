//! Datagrams of the membership: in and out of frames, by the interfaces that can announce.

use std::fmt;

use garpike_election::{IfIndex, InterfaceName, MacAddr};

use super::Announcer;
use crate::wire::{self, Ethernet, Ignored};

/// A datagram that came, or is to go, in a bare frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The interface here.
    pub interface: InterfaceName,
    /// The Ethernet address of the other end.
    pub mac: MacAddr,
    /// The bytes, without padding.
    pub payload: Vec<u8>,
}

/// Why a datagram is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Undelivered {
    /// The frame holds none.
    Unusable(Ignored),
    /// There is no interface of that name or number that can announce.
    Interface,
    /// One of our own interfaces sent it.
    OwnFrame,
    /// It is addressed to another station.
    NotForUs,
    /// It is to go to no single station.
    BadReceiver,
    /// It is too long for a frame.
    TooLong,
}

impl Undelivered {
    /// The reason as a metric label.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unusable(ignored) => ignored.reason(),
            Self::Interface => "interface",
            Self::OwnFrame => "own_frame",
            Self::NotForUs => "not_for_us",
            Self::BadReceiver => "bad_receiver",
            Self::TooLong => "too_long",
        }
    }
}

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl Announcer {
    /// Takes the datagram out of a frame that `interface` received.
    ///
    /// # Errors
    ///
    /// Why there is none for this node in it.
    pub fn unwrap_datagram(&self, interface: IfIndex, frame: &[u8]) -> Result<Datagram, Undelivered> {
        let (ethernet, payload) = wire::unwrap_datagram(frame).map_err(Undelivered::Unusable)?;
        let port = self.ports.get(&interface).ok_or(Undelivered::Interface)?;
        if self.own_macs.contains(&ethernet.source) {
            return Err(Undelivered::OwnFrame);
        }
        if ethernet.destination != port.mac {
            return Err(Undelivered::NotForUs);
        }
        Ok(Datagram { interface: port.name.clone(), mac: ethernet.source, payload: payload.to_owned() })
    }

    /// Puts a datagram into a frame, and names the interface that is to send it.
    ///
    /// # Errors
    ///
    /// Why it cannot be sent.
    pub fn wrap_datagram(&self, datagram: &Datagram) -> Result<(IfIndex, Vec<u8>), Undelivered> {
        let mut ports = self.ports.iter();
        let found = ports.find(|(_, port)| port.name == datagram.interface);
        let (index, port) = found.ok_or(Undelivered::Interface)?;
        if datagram.mac.is_multicast() || datagram.mac == MacAddr::ZERO {
            return Err(Undelivered::BadReceiver);
        }
        let ethernet = Ethernet { destination: datagram.mac, source: port.mac };
        let frame = wire::wrap_datagram(ethernet, &datagram.payload).map_err(|_| Undelivered::TooLong)?;
        Ok((*index, frame))
    }
}
