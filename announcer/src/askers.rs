//! Who asked for which service IP lately, whoever owns it.
//!
//! Whoever asked has the owner in its neighbour cache and sends to it: when the address moves, it is announced early, and
//! these stations are asked whether they have taken it in. Requests are broadcast, so the heirs hear them, too. Memory
//! is bounded, whoever floods the segment: a few stations for each of so many addresses.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use garpike_election::{IfIndex, MacAddr, ServiceIp};

use crate::schedule::Turn;
use crate::stations::Question;

/// The latest askers of each address.
#[derive(Debug, Default)]
pub(crate) struct Askers {
    by_ip: HashMap<ServiceIp, Vec<Asker>>,
    /// When those that are long silent were forgotten last.
    tidied: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Asker {
    station: IpAddr,
    mac: MacAddr,
    interface: IfIndex,
    asked: Instant,
}

impl Askers {
    /// Notes that a station asked for an address.
    pub(crate) fn note(&mut self, ip: ServiceIp, interface: IfIndex, station: IpAddr, mac: MacAddr, now: Instant) {
        if !self.by_ip.contains_key(&ip) && !self.has_room(now) {
            return;
        }
        let askers = self.by_ip.entry(ip).or_default();
        let known = askers.iter_mut().find(|asker| asker.station == station && asker.interface == interface);
        let asker = Asker { station, mac, interface, asked: now };
        if let Some(known) = known {
            *known = asker;
        } else if askers.len() < ASKERS_MAX {
            askers.reserve_exact(1);
            askers.push(asker);
        } else if let Some(oldest) = askers.iter_mut().min_by_key(|asker| asker.asked) {
            *oldest = asker;
        }
    }

    /// Whether an address goes before others that nobody asked for lately.
    pub(crate) fn turn(&self, ip: ServiceIp, now: Instant) -> Turn {
        if self.by_ip.get(&ip).is_some_and(|askers| askers.iter().any(|asker| asker.is_recent(now))) {
            Turn::Early
        } else {
            Turn::Ordinary
        }
    }

    /// Who asked for the address lately on an interface, the latest first.
    pub(crate) fn of(&self, ip: ServiceIp, interface: IfIndex, now: Instant) -> Vec<Question> {
        let askers = self.by_ip.get(&ip).into_iter().flatten();
        let mut recent: Vec<&Asker> =
            askers.filter(|asker| asker.interface == interface && asker.is_recent(now)).collect();
        recent.sort_by_key(|asker| Reverse(asker.asked));
        recent.into_iter().map(|asker| Question { ip: asker.station, mac: Some(asker.mac) }).collect()
    }

    /// Whether another address fits in, perhaps in place of those that nobody asked for any more.
    fn has_room(&mut self, now: Instant) -> bool {
        let may_tidy = self.tidied.is_none_or(|tidied| now >= tidied + TIDY_INTERVAL);
        if self.by_ip.len() >= ADDRESSES_MAX && may_tidy {
            self.tidied = Some(now);
            self.by_ip.retain(|_, askers| askers.iter().any(|asker| asker.is_recent(now)));
        }
        self.by_ip.len() < ADDRESSES_MAX
    }
}

impl Asker {
    fn is_recent(&self, now: Instant) -> bool {
        now < self.asked + RECENT
    }
}

/// Chosen: a gateway and some clients; more learn of a move by the announcement.
const ASKERS_MAX: usize = 4;
/// Chosen: the largest number of addresses that a cluster is built for; together with the askers less than 3 MB.
const ADDRESSES_MAX: usize = 10_000;
/// Chosen: several times as long as neighbours keep an entry that they use.
const RECENT: Duration = Duration::from_secs(600);
/// Chosen: looking at all of them takes a fraction of a millisecond, which must not happen at each request.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
