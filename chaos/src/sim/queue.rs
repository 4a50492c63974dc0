//! What will happen, ordered by time and then by the order in which it was caused.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::time::Instant;

use garpike_membership::ProbeId;

use super::host::HostAddress;

/// The future.
#[derive(Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    /// How many events were ever queued: breaks ties.
    caused: u64,
}

/// Something that will happen.
pub(super) enum Event {
    /// A timer of a speaker is due.
    Wake { host: usize },
    /// Something reaches a host.
    Arrival { host: usize, parcel: Box<Parcel> },
    /// A frame for everybody reaches the station that is no host.
    AtGateway { rack: usize, frame: Rc<[u8]> },
    /// The first segment of a TCP connection reaches the kernel of a host.
    Syn { from: usize, to: usize, port: u16, life: u32, probe: ProbeId },
    /// Two speakers have opened a TCP connection, and exchange what they know.
    Exchange { from: usize, to: usize },
    /// A host learns whether the speaker of another one answers by TCP.
    Reach { from: usize, to: usize },
    /// The client asks.
    Probe,
}

/// What reaches the speaker of a host, or waits for it in a queue of the kernel.
pub(super) enum Parcel {
    /// A datagram of the membership.
    Datagram { from: HostAddress, via: Via, bytes: Vec<u8> },
    /// The kernel there says that nobody listens for datagrams.
    Refused { by: HostAddress },
    /// An ARP or ND frame.
    Frame(Rc<[u8]>),
    /// A probed host lives; for the life of the speaker that asked.
    HostAnswer { life: u32, probe: ProbeId },
    /// A station on the wire said something; for the life of the speaker that asked.
    StationAnswer { life: u32 },
}

/// How a datagram came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Via {
    Udp,
    Wire,
}

struct Entry {
    at: Instant,
    cause: u64,
    event: Event,
}

impl Queue {
    pub(super) fn push(&mut self, at: Instant, event: Event) {
        self.caused += 1;
        self.heap.push(Reverse(Entry { at, cause: self.caused, event }));
    }

    /// Takes the next event if it is not later than `end`.
    pub(super) fn pop_until(&mut self, end: Instant) -> Option<(Instant, Event)> {
        if self.heap.peek()?.0.at > end {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.event))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.cause).cmp(&(other.at, other.cause))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cause == other.cause
    }
}

impl Eq for Entry {}
