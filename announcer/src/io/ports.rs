//! The two sockets of each interface that can announce: one hears ARP, the other neighbour discovery.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound::{Excluded, Unbounded};
use std::task::{Context, Poll};

use garpike_election::IfIndex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;

use super::packet_socket::{EtherType, OpenSocketError, PacketSocket};
use crate::announcer::Frame;
use crate::filter::Filter;
use crate::metrics;

/// The open sockets.
#[derive(Debug)]
pub(super) struct Ports {
    sockets: BTreeMap<Key, AsyncFd<PacketSocket>>,
    filter: Filter,
    /// The socket that was readable last; the next search begins behind it.
    last: Key,
}

/// Which socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) interface: IfIndex,
    family: Family,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

/// What a socket had to give.
#[derive(Debug)]
pub(super) enum Reception<'a> {
    Frame(&'a [u8]),
    /// A frame that is not this interface's own.
    OtherInterface,
    Empty,
}

impl Ports {
    pub(super) fn new(filter: Filter) -> Self {
        Self { sockets: BTreeMap::new(), filter, last: Key { interface: IfIndex(0), family: Family::V4 } }
    }

    /// Closes the sockets of all other interfaces and opens those that are missing; gives the interfaces where that
    /// failed.
    pub(super) fn open(&mut self, wanted: &BTreeSet<IfIndex>) -> BTreeSet<IfIndex> {
        self.sockets.retain(|key, _| wanted.contains(&key.interface));
        let mut failed = BTreeSet::new();
        for &interface in wanted {
            for family in [Family::V4, Family::V6] {
                let key = Key { interface, family };
                if self.sockets.contains_key(&key) {
                    continue;
                }
                match open(key, &self.filter) {
                    Ok(socket) => {
                        self.sockets.insert(key, socket);
                    }
                    Err(error) => {
                        metrics::socket_error("open");
                        warn!(%interface, %error, "cannot listen on the interface; trying again");
                        failed.insert(interface);
                    }
                }
            }
        }
        failed
    }

    /// Has all sockets pass what `filter` passes.
    pub(super) fn set_filter(&mut self, filter: Filter) {
        if filter == self.filter {
            return;
        }
        for (key, socket) in &self.sockets {
            if let Err(error) = socket.get_ref().set_filter(program(&filter, key.family)) {
                metrics::socket_error("filter");
                warn!(interface = %key.interface, %error, "the kernel refuses the packet filter");
            }
        }
        self.filter = filter;
    }

    /// Sends a frame on its interface.
    pub(super) fn send(&self, frame: &Frame) -> io::Result<()> {
        let family = if frame.ip.v4().is_some() { Family::V4 } else { Family::V6 };
        let key = Key { interface: frame.interface, family };
        self.sockets.get(&key).ok_or(io::ErrorKind::NotConnected)?.get_ref().send(&frame.bytes)
    }

    /// The next socket that may have frames; the sockets take turns.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<Key> {
        let behind = self.sockets.range((Excluded(self.last), Unbounded));
        for (key, socket) in behind.chain(self.sockets.range(..=self.last)) {
            if socket.poll_read_ready(cx).is_ready() {
                self.last = *key;
                return Poll::Ready(*key);
            }
        }
        Poll::Pending
    }

    /// Takes a frame from a socket.
    pub(super) fn receive<'a>(&self, key: Key, buffer: &'a mut [u8]) -> io::Result<Reception<'a>> {
        let Some(socket) = self.sockets.get(&key) else { return Ok(Reception::Empty) };
        match socket.try_io(Interest::READABLE, |socket| socket.receive(buffer)) {
            Ok(Some(received)) => Ok(Reception::Frame(received.frame)),
            Ok(None) => Ok(Reception::OtherInterface),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Reception::Empty),
            Err(error) => Err(error),
        }
    }
}

fn open(key: Key, filter: &Filter) -> Result<AsyncFd<PacketSocket>, OpenSocketError> {
    let interface = key.interface;
    let ether_type = match key.family {
        Family::V4 => EtherType::Arp,
        Family::V6 => EtherType::Ipv6,
    };
    let socket = PacketSocket::open(interface, ether_type, program(filter, key.family))?;
    socket.into_async().map_err(|source| OpenSocketError::Kernel { interface, source })
}

fn program(filter: &Filter, family: Family) -> &[crate::filter::Instruction] {
    match family {
        Family::V4 => &filter.arp,
        Family::V6 => &filter.ndp,
    }
}
