//! The stations that are no members: the gateway of each rack, and a client behind it that asks each measured address
//! every few milliseconds.
//!
//! A gateway has a neighbour cache that heeds what is claimed on its wire, as that of Linux does. It does not ask by
//! itself: the entries are those of announcements.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use garpike_announcer::wire;
use garpike_election::{MacAddr, ServiceIp};

/// The gateways and the client.
#[derive(Default)]
pub(super) struct Client {
    caches: Vec<BTreeMap<ServiceIp, MacAddr>>,
    measured: BTreeMap<ServiceIp, Gap>,
}

/// The time without an answer.
#[derive(Clone, Copy, Debug)]
struct Gap {
    last_answer: Instant,
    longest: Duration,
}

impl Client {
    pub(super) fn new(racks: usize) -> Self {
        Self { caches: vec![BTreeMap::new(); racks], measured: BTreeMap::new() }
    }

    /// Updates the cache of a gateway as a Linux neighbour cache does on a gratuitous ARP or an overriding advertisement.
    pub(super) fn handle_frame(&mut self, rack: usize, bytes: &[u8]) {
        let claim = wire::parse(bytes).ok().and_then(|message| message.claim());
        if let Some((ip, mac)) = claim.and_then(|claim| Some((ServiceIp::new(claim.ip).ok()?, claim.mac)))
            && let Some(cache) = self.caches.get_mut(rack)
        {
            cache.insert(ip, mac);
        }
    }

    /// Where the gateways send packets for `ip`; the lowest rack that knows it counts.
    pub(super) fn cached(&self, ip: ServiceIp) -> Option<(usize, MacAddr)> {
        self.caches.iter().enumerate().find_map(|(rack, cache)| Some((rack, *cache.get(&ip)?)))
    }

    /// Measures the gaps of these addresses from here on, and of no others.
    pub(super) fn measure(&mut self, ips: impl IntoIterator<Item = ServiceIp>, now: Instant) {
        let gap = Gap { last_answer: now, longest: Duration::ZERO };
        self.measured = ips.into_iter().map(|ip| (ip, gap)).collect();
    }

    /// Whether something is measured.
    pub(super) fn measures(&self) -> bool {
        !self.measured.is_empty()
    }

    /// Asks every measured address once.
    pub(super) fn probe(&mut self, now: Instant, reaches: impl Fn(usize, MacAddr) -> bool) {
        let caches = &self.caches;
        for (ip, gap) in &mut self.measured {
            let reached = caches.iter().enumerate().any(|(rack, cache)| {
                // A host that is reached answers, whoever owns the address.
                cache.get(ip).is_some_and(|mac| reaches(rack, *mac))
            });
            if reached {
                gap.longest = gap.longest.max(now - gap.last_answer);
                gap.last_answer = now;
            }
        }
    }

    /// The longest time between two answers for any measured address.
    pub(super) fn longest_gap(&self, now: Instant) -> Option<Duration> {
        self.measured.values().map(|gap| gap.longest.max(now - gap.last_answer)).max()
    }
}

/// How often the client asks.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_millis(5);
