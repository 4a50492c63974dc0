//! When which announcement of an address leaves one interface.
//!
//! Each address runs through the steps of its family, and knows when it was announced last. A step waits for the one
//! before it, so a repeat is never closer to its predecessor than the table says. The long tail of the table is for
//! neighbours that could not hear the first steps; it is left out where all that matter have acknowledged.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound::{Excluded, Unbounded};
use std::ops::Range;
use std::time::{Duration, Instant};

use garpike_election::ServiceIp;

use crate::campaigns::Shot;
use crate::queue::{Place, Queue};
use crate::wire::ArpOperation;

/// The addresses that are announced on one interface.
#[derive(Debug)]
pub(crate) struct Schedule {
    entries: BTreeMap<ServiceIp, Entry>,
    queue: Queue<PLACES>,
}

#[derive(Debug)]
struct Entry {
    reach: Reach,
    /// The last announcement.
    announced: Option<Instant>,
    /// Where it waits for its next announcement; `None` when all are sent.
    next: Option<Place>,
}

/// How many steps an address takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Those of the first three seconds.
    Short,
    /// Those of the first three minutes.
    Long,
}

/// When an address gets its first announcement, of those that begin together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Before the others: somebody wants to reach it.
    Early,
    /// In the order of the addresses.
    Ordinary,
}

impl Schedule {
    pub(crate) fn new() -> Self {
        Self { entries: BTreeMap::new(), queue: Queue::new() }
    }

    /// Begins with the first step, anew if steps were left.
    pub(crate) fn start(&mut self, ip: ServiceIp, reach: Reach, turn: Turn, now: Instant) {
        let step = match turn {
            Turn::Early => 0,
            Turn::Ordinary => 1,
        };
        let next = Place { step, due: now };
        let entry = self.entries.entry(ip).or_insert(Entry { reach, announced: None, next: None });
        if let Some(place) = entry.next.replace(next) {
            self.queue.remove(ip, place);
            if entry.reach == Reach::Short {
                entry.reach = reach;
            }
        } else {
            entry.reach = reach;
        }
        self.queue.put(ip, next);
    }

    /// Announces the address no more.
    pub(crate) fn cancel(&mut self, ip: ServiceIp) {
        if let Some(place) = self.entries.remove(&ip).and_then(|entry| entry.next) {
            self.queue.remove(ip, place);
        }
    }

    /// Leaves the long tail out.
    pub(crate) fn shorten(&mut self, ip: ServiceIp) {
        let Some(entry) = self.entries.get_mut(&ip) else { return };
        entry.reach = Reach::Short;
        if let Some(place) = entry.next.take_if(|place| step_of(*place) >= tail(ip)) {
            self.queue.remove(ip, place);
        }
    }

    /// How far the announcements of the address are to go; `None` if it is not announced here.
    pub(crate) fn reach(&self, ip: ServiceIp) -> Option<Reach> {
        self.entries.get(&ip).map(|entry| entry.reach)
    }

    /// How many addresses are announced.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The address behind this one, in a ring.
    pub(crate) fn behind(&self, ip: Option<ServiceIp>) -> Option<ServiceIp> {
        let behind = ip.and_then(|ip| self.entries.range((Excluded(ip), Unbounded)).next());
        behind.or_else(|| self.entries.first_key_value()).map(|(ip, _)| *ip)
    }

    /// When the address was announced last, and when that comes next.
    pub(crate) fn times(&self, ip: ServiceIp) -> (Option<Instant>, Option<Instant>) {
        let entry = self.entries.get(&ip);
        (entry.and_then(|entry| entry.announced), entry.and_then(|entry| entry.next).map(|place| place.due))
    }

    /// When there will be something to send.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.queue.next_at()
    }

    /// The first announcement of an address, if one is due.
    pub(crate) fn next_first(&mut self, now: Instant) -> Option<(ServiceIp, Shot)> {
        self.next(FIRST, now)
    }

    /// A later announcement of an address, if one is due.
    pub(crate) fn next_repeat(&mut self, now: Instant) -> Option<(ServiceIp, Shot)> {
        self.next(REPEATS, now)
    }

    /// An announcement beside the steps, unless one of them is near enough.
    pub(crate) fn refresh(&mut self, ip: ServiceIp, now: Instant) -> Option<Shot> {
        let entry = self.entries.get_mut(&ip)?;
        let is_near = entry.announced.is_none_or(|announced| now < announced + NEAR)
            || entry.next.is_some_and(|place| step_of(place) < tail(ip) || place.due < now + NEAR);
        if is_near {
            return None;
        }
        entry.announced = Some(now);
        shot(ip, 0)
    }

    fn next(&mut self, places: Range<u8>, now: Instant) -> Option<(ServiceIp, Shot)> {
        let (ip, place) = self.queue.due(places, now)?;
        self.queue.remove(ip, place);
        let entry = self.entries.get_mut(&ip).expect("whoever waits is announced");
        let step = step_of(place);
        entry.announced = Some(now);
        entry.next = gap(ip, step + 1, entry.reach).map(|gap| Place { step: place_of(step + 1), due: now + gap });
        if let Some(place) = entry.next {
            self.queue.put(ip, place);
        }
        Some((ip, shot(ip, step)?))
    }
}

/// What is sent in a step.
fn shot(ip: ServiceIp, step: u8) -> Option<Shot> {
    match ip.addr() {
        IpAddr::V4(ip) => ARP_STEPS.get(usize::from(step)).map(|(_, form)| Shot::Arp(*form, ip)),
        IpAddr::V6(ip) => NA_GAPS_MS.get(usize::from(step)).map(|_| Shot::Advertisement(ip)),
    }
}

/// How long a step is to wait after the one before it; `None` if it is not taken.
fn gap(ip: ServiceIp, step: u8, reach: Reach) -> Option<Duration> {
    if reach == Reach::Short && step >= tail(ip) {
        return None;
    }
    let gap_ms = match ip.addr() {
        IpAddr::V4(_) => ARP_STEPS.get(usize::from(step)).map(|(gap_ms, _)| *gap_ms)?,
        IpAddr::V6(_) => NA_GAPS_MS.get(usize::from(step)).copied()?,
    };
    Some(Duration::from_millis(gap_ms))
}

/// The first step of the long tail.
fn tail(ip: ServiceIp) -> u8 {
    match ip.addr() {
        IpAddr::V4(_) => ARP_TAIL,
        IpAddr::V6(_) => NA_TAIL,
    }
}

/// The step of a place in the queue: there are two places for the first one.
fn step_of(place: Place) -> u8 {
    place.step.saturating_sub(1)
}

fn place_of(step: u8) -> u8 {
    step + 1
}

/// At 0 ms, 50 ms, 200 ms, 1 s and 3 s both forms, the request first: Linux takes either at once, and some other systems
/// take only one of them. Five times, because one lost announcement costs a Linux neighbour 20 to 50 s (measured). Then
/// at 10, 30, 60 and 180 s: chosen, an uplink may be down for longer than 3 s, and some routers keep an entry for hours.
const ARP_STEPS: [(u64, ArpOperation); 18] = [
    (0, ArpOperation::Request),
    (0, ArpOperation::Reply),
    (50, ArpOperation::Request),
    (0, ArpOperation::Reply),
    (150, ArpOperation::Request),
    (0, ArpOperation::Reply),
    (800, ArpOperation::Request),
    (0, ArpOperation::Reply),
    (2000, ArpOperation::Request),
    (0, ArpOperation::Reply),
    (7000, ArpOperation::Request),
    (0, ArpOperation::Reply),
    (20_000, ArpOperation::Request),
    (0, ArpOperation::Reply),
    (30_000, ArpOperation::Request),
    (0, ArpOperation::Reply),
    (120_000, ArpOperation::Request),
    (0, ArpOperation::Reply),
];
const ARP_TAIL: u8 = 10;

//= https://www.rfc-editor.org/rfc/rfc4861#section-7.2.6
//# a node MAY send up to MAX_NEIGHBOR_ADVERTISEMENT unsolicited Neighbor Advertisement messages to the all-nodes
//# multicast address. [...] These advertisements MUST be separated by at least RetransTimer seconds.
///
/// Three, at 0, 1 and 2 s. The tail at 10, 30, 60 and 180 s goes beyond what the RFC foresees for one change, for the same
/// reason as that of ARP, and keeps its distance.
const NA_GAPS_MS: [u64; 7] = [0, 1000, 1000, 8000, 20_000, 30_000, 120_000];
const NA_TAIL: u8 = 3;

/// One place for each step, and one more for first announcements that go before the others.
const PLACES: usize = ARP_STEPS.len() + 1;
const FIRST: Range<u8> = 0..2;
const REPEATS: Range<u8> = 2..19;
/// RetransTimer (RFC 4861 section 10): no two advertisements are closer than that.
const NEAR: Duration = Duration::from_secs(1);
