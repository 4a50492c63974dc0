//! When which announcement of a gained address leaves one interface.
//!
//! Each address runs through the steps of its family. Of the steps that are due the earliest in the sequence goes
//! first, so every gained address is on the wire once before any is repeated; the pacer bounds the rate. A step waits
//! for the one before it, so a repeat is never closer to its predecessor than the table says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use garpike_election::ServiceIp;

use crate::pacer::Pacer;
use crate::wire::ArpOperation;

/// What is sent in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shot {
    /// A gratuitous ARP of this form.
    Arp(ArpOperation, Ipv4Addr),
    /// An unsolicited neighbour advertisement.
    Advertisement(Ipv6Addr),
}

/// The campaigns of one interface.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// For each step, the addresses for which it is the next one, with the time when it is due.
    waiting: [BTreeSet<(Instant, ServiceIp)>; MAX_STEPS],
    /// Where in `waiting` each address is.
    position: BTreeMap<ServiceIp, (usize, Instant)>,
    pacer: Pacer,
}

impl Schedule {
    pub(crate) fn new(pacer: Pacer) -> Self {
        Self { waiting: Default::default(), position: BTreeMap::new(), pacer }
    }

    /// Begins the campaign for `ip`, anew if one is running.
    pub(crate) fn start(&mut self, ip: ServiceIp, now: Instant) {
        self.cancel(ip);
        self.wait(ip, 0, now);
    }

    /// Sends nothing more for `ip`.
    pub(crate) fn cancel(&mut self, ip: ServiceIp) {
        if let Some((step, due)) = self.position.remove(&ip)
            && let Some(waiting) = self.waiting.get_mut(step)
        {
            waiting.remove(&(due, ip));
        }
    }

    /// Whether a campaign for `ip` is running.
    pub(crate) fn is_running(&self, ip: ServiceIp) -> bool {
        self.position.contains_key(&ip)
    }

    /// When there will be something to send.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        let due = self.waiting.iter().filter_map(|waiting| waiting.first()).map(|(due, _)| *due).min()?;
        Some(due.max(self.pacer.ready_at()))
    }

    /// What is to be sent now, if anything.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(ServiceIp, Shot)> {
        let (step, ip) = self.waiting.iter().enumerate().find_map(|(step, waiting)| {
            let (due, ip) = waiting.first()?;
            (*due <= now).then_some((step, *ip))
        })?;
        let (_, shot) = at(ip, step)?;
        self.pacer.take(now)?;
        self.cancel(ip);
        if let Some((gap, _)) = at(ip, step + 1) {
            self.wait(ip, step + 1, now + gap);
        }
        Some((ip, shot))
    }

    fn wait(&mut self, ip: ServiceIp, step: usize, due: Instant) {
        if let Some(waiting) = self.waiting.get_mut(step) {
            waiting.insert((due, ip));
            self.position.insert(ip, (step, due));
        }
    }
}

/// A step of the address's family: how long after the step before, and what.
fn at(ip: ServiceIp, step: usize) -> Option<(Duration, Shot)> {
    let (gap_ms, shot) = match ip.addr() {
        IpAddr::V4(ip) => ARP_STEPS.get(step).map(|(gap_ms, form)| (*gap_ms, Shot::Arp(*form, ip)))?,
        IpAddr::V6(ip) => NA_GAPS_MS.get(step).map(|gap_ms| (*gap_ms, Shot::Advertisement(ip)))?,
    };
    Some((Duration::from_millis(gap_ms), shot))
}

const MAX_STEPS: usize = ARP_STEPS.len();

/// At 0 ms, 50 ms, 200 ms, 1 s and 3 s both forms, the request first: Linux takes either at once, and some other systems
/// take only one of them. Five times, because one lost announcement costs a Linux neighbour 20 to 50 s (measured).
const ARP_STEPS: [(u64, ArpOperation); 10] = [
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
];

//= https://www.rfc-editor.org/rfc/rfc4861#section-7.2.6
//# a node MAY send up to MAX_NEIGHBOR_ADVERTISEMENT unsolicited Neighbor Advertisement messages to the all-nodes
//# multicast address. [...] These advertisements MUST be separated by at least RetransTimer seconds.
const NA_GAPS_MS: [u64; 3] = [0, 1000, 1000];
