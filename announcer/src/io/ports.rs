//! The sockets of each interface that can announce: for ARP, neighbour discovery, and datagrams of the membership.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound::{Excluded, Unbounded};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use garpike_election::IfIndex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::icmpv6_socket::Icmpv6Socket;
use super::packet_socket::{Batch, EtherType, OpenSocketError, PacketSocket, Received, into_async};
use super::port::Port;
use crate::announcer::Frame;
use crate::filter::Filter;

/// The open sockets.
#[derive(Debug)]
pub(super) struct Ports {
    sockets: BTreeMap<Key, AsyncFd<Port>>,
    ndp_unicast: NdpUnicast,
    filter: Filter,
    /// The socket that was readable last; the next search begins behind it.
    last: Key,
}

/// Whether a solicitation that is sent to a service IP itself is heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NdpUnicast {
    /// By a packet socket, whose filter every IPv6 packet passes that comes to the interface.
    #[default]
    On,
    /// Not: neighbours that ask whether an entry still holds get no answer and then ask everybody.
    Off,
}

/// Which socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) interface: IfIndex,
    pub(super) channel: Channel,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Channel {
    Arp,
    Ndp,
    Datagrams,
}

/// What a socket had to give.
#[derive(Debug)]
pub(super) enum Reception<'a> {
    Frame(&'a [u8]),
    /// A frame that has waited for so long that this process must have been held up: what it asks for may be another's.
    Stale,
    /// A frame that is not this interface's own.
    OtherInterface,
}

impl Ports {
    pub(super) fn new(ndp_unicast: NdpUnicast, filter: Filter) -> Self {
        Self {
            sockets: BTreeMap::new(),
            ndp_unicast,
            filter,
            last: Key { interface: IfIndex(0), channel: Channel::Arp },
        }
    }

    /// Closes the sockets of all other interfaces and opens those that are missing; gives the interfaces where that
    /// failed, and why.
    pub(super) fn open(&mut self, wanted: &BTreeSet<IfIndex>) -> BTreeMap<IfIndex, OpenSocketError> {
        self.sockets.retain(|key, _| wanted.contains(&key.interface));
        let mut failed = BTreeMap::new();
        for &interface in wanted {
            for channel in [Channel::Arp, Channel::Ndp, Channel::Datagrams] {
                let key = Key { interface, channel };
                if self.sockets.contains_key(&key) {
                    continue;
                }
                match open(key, self.ndp_unicast, &self.filter) {
                    Ok(socket) => {
                        self.sockets.insert(key, socket);
                    }
                    Err(error) => {
                        failed.insert(interface, error);
                    }
                }
            }
        }
        failed
    }

    /// Closes the sockets of an interface.
    pub(super) fn close(&mut self, interface: IfIndex) {
        self.sockets.retain(|key, _| key.interface != interface);
    }

    /// Has all sockets pass what `filter` passes; gives the interfaces where the kernel refuses that, and why. It is tried
    /// again with the next call.
    pub(super) fn set_filter(&mut self, filter: Filter) -> BTreeMap<IfIndex, io::Error> {
        if filter == self.filter {
            return BTreeMap::new();
        }
        let mut refused = BTreeMap::new();
        for (key, socket) in &self.sockets {
            if let Err(error) = socket.get_ref().set_filter(program(&filter, key.channel, self.ndp_unicast)) {
                refused.insert(key.interface, error);
            }
        }
        if refused.is_empty() {
            self.filter = filter;
        }
        refused
    }

    /// Sends frames that leave by the same socket, and gives how many; when it is not all of them, the next one fails.
    pub(super) fn send(&self, frames: &[Frame]) -> io::Result<usize> {
        let Some(key) = frames.first().map(Key::of) else { return Ok(0) };
        self.socket(key)?.send_all(frames.iter().map(|frame| &*frame.bytes))
    }

    /// Sends a frame that carries a datagram.
    pub(super) fn send_datagram(&self, interface: IfIndex, frame: &[u8]) -> io::Result<()> {
        self.socket(Key { interface, channel: Channel::Datagrams })?.send(frame)
    }

    fn socket(&self, key: Key) -> io::Result<&PacketSocket> {
        Ok(self.sockets.get(&key).ok_or(io::ErrorKind::NotConnected)?.get_ref().mouth())
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

    /// Takes the frames that a socket has, none if it has none.
    pub(super) fn receive(&self, key: Key, batch: &mut Batch) -> io::Result<()> {
        let Some(socket) = self.sockets.get(&key) else {
            batch.clear();
            return Ok(());
        };
        match socket.try_io(Interest::READABLE, |socket| socket.receive_all(batch)) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Key {
    /// By which socket a frame leaves.
    pub(super) fn of(frame: &Frame) -> Self {
        let channel = if frame.ip.is_ipv4() { Channel::Arp } else { Channel::Ndp };
        Self { interface: frame.interface, channel }
    }
}

/// What the frames of a batch are when the wall clock says `now`.
pub(super) fn receptions(batch: &Batch, now: SystemTime) -> impl Iterator<Item = Reception<'_>> {
    batch.frames().map(move |received| match received {
        Some(Received { came, .. }) if is_stale(came, now) => Reception::Stale,
        Some(Received { frame, .. }) => Reception::Frame(frame),
        None => Reception::OtherInterface,
    })
}

fn open(key: Key, ndp_unicast: NdpUnicast, filter: &Filter) -> Result<AsyncFd<Port>, OpenSocketError> {
    let interface = key.interface;
    let program = program(filter, key.channel, ndp_unicast);
    let frames = |ether_type| PacketSocket::open(interface, ether_type, program).map(Port::Frames);
    let port = match (key.channel, ndp_unicast) {
        (Channel::Arp, _) => frames(EtherType::Arp),
        (Channel::Ndp, NdpUnicast::On) => frames(EtherType::Ipv6),
        (Channel::Ndp, NdpUnicast::Off) => Icmpv6Socket::open(interface, program).map(Port::Multicast),
        (Channel::Datagrams, _) => frames(EtherType::Datagram),
    };
    into_async(port?).map_err(|source| OpenSocketError::Kernel { interface, source })
}

/// Whether a frame that came at a time of the wall clock is too old to be looked at.
///
/// The clock may be set meanwhile. Set back, a frame seems to come from the future: it is taken for fresh. Set forward,
/// those that wait at that moment seem old and are lost, as the wire might have lost them; the next ones are stamped by the
/// new time, so nothing is dropped for longer.
fn is_stale(came: Option<SystemTime>, now: SystemTime) -> bool {
    came.and_then(|came| now.duration_since(came).ok()).is_some_and(|age| age > STALE_AFTER)
}

/// A speaker that was held up for this long may have lost its addresses meanwhile: chosen, below the 140 ms after which
/// others look for it.
const STALE_AFTER: Duration = Duration::from_millis(100);

fn program(filter: &Filter, channel: Channel, ndp_unicast: NdpUnicast) -> &[crate::filter::Instruction] {
    match (channel, ndp_unicast) {
        (Channel::Arp, _) => &filter.arp,
        (Channel::Ndp, NdpUnicast::On) => &filter.ndp,
        (Channel::Ndp, NdpUnicast::Off) => &filter.icmpv6,
        (Channel::Datagrams, _) => &filter.datagrams,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_stale_after_100_ms_whatever_was_done_to_the_clock() {
        let came = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let hour = Duration::from_secs(3600);
        for (now, stale, what) in [
            (came, false, "at once"),
            (came + STALE_AFTER, false, "just in time"),
            (came + STALE_AFTER + Duration::from_nanos(1), true, "too late"),
            (came + hour, true, "the clock was set forward, or the machine slept"),
            (came - hour, false, "the clock was set back"),
        ] {
            assert_eq!(is_stale(Some(came), now), stale, "{what}");
        }
        assert!(!is_stale(None, came), "a kernel that tells no time");
    }
}
