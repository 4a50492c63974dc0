//! Make-before-break: an address that goes to another living speaker is answered here until that one claims it.
//!
//! ```text
//!          lost, the new owner is here              it claims the address, or GIVE_UP_AFTER has passed,
//! served ─────────────────────────────► handed over ───────────────────────────────────────────────────► silent
//!                                                    or it is gone, or nobody owns the address
//! ```
//!
//! Nothing is announced meanwhile. What this node answered with the address of an owner that is away is handed over in
//! the same way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use garpike_election::{IfIndex, MacAddr, NodeName, ServiceIp};

use super::{Announcer, Event, push_event};
use crate::duties::{Duties, Standing};

/// The addresses that are handed over.
#[derive(Debug, Default)]
pub(super) struct Handover {
    leaving: BTreeMap<ServiceIp, Leaving>,
    /// No bound passes before.
    due: Option<Instant>,
    /// How those of the present batch ended.
    claimed: usize,
    given_up: usize,
}

/// An address that another node is to claim.
#[derive(Debug)]
struct Leaving {
    to: NodeName,
    /// Where it is answered, and with which Ethernet address.
    macs: BTreeMap<IfIndex, MacAddr>,
    until: Instant,
}

impl Handover {
    /// The Ethernet address with which it is answered on the interface; the outer `None`: it is not handed over.
    pub(super) fn answer(&self, ip: ServiceIp, interface: IfIndex) -> Option<Option<MacAddr>> {
        self.leaving.get(&ip).map(|leaving| leaving.macs.get(&interface).copied())
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = (ServiceIp, &NodeName)> {
        self.leaving.iter().map(|(ip, leaving)| (*ip, &leaving.to))
    }

    /// The interfaces on which each of them is answered.
    pub(super) fn places(&self) -> impl Iterator<Item = (ServiceIp, IfIndex)> {
        self.leaving.iter().flat_map(|(ip, leaving)| leaving.macs.keys().map(|index| (*ip, *index)))
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.due
    }

    fn insert(&mut self, ip: ServiceIp, leaving: Leaving) {
        self.due = Some(self.due.map_or(leaving.until, |due| due.min(leaving.until)));
        self.leaving.insert(ip, leaving);
    }
}

impl Announcer {
    /// Goes on answering for what `next` gives to others that are here. Called while the core still has its old duties.
    pub(super) fn begin_handovers(&mut self, next: &Duties, now: Instant) {
        let successor = |ip: &ServiceIp| {
            let to = next.elsewhere.get(ip).filter(|_| !next.stood_in.contains_key(ip))?;
            let here = next.nodes.get(to).is_some_and(|peer| peer.standing == Standing::Here);
            here.then(|| to.clone())
        };
        self.handover.leaving.retain(|ip, leaving| match successor(ip) {
            Some(to) if to == leaving.to => true,
            Some(to) => {
                (leaving.to, leaving.until) = (to, now + GIVE_UP_AFTER);
                true
            }
            None => false,
        });
        // Who has claimed it already need not be waited for.
        let claimed = |heard: Option<(Instant, MacAddr)>, to: &NodeName| {
            heard.is_some_and(|(at, mac)| now < at + RECENT && self.peers.node_of(mac) == Some(to))
        };
        for ip in self.owned.keys().filter(|ip| !next.owned.contains_key(ip)) {
            let Some((to, served)) = successor(ip).zip(self.served.get(ip)) else { continue };
            let ports = served.ports.iter().filter_map(|index| Some((*index, self.ports.get(index)?.mac)));
            let macs: BTreeMap<_, _> = ports.collect();
            let heard = served.contest.as_ref().and_then(|contest| contest.heard);
            if !macs.is_empty() && !claimed(heard, &to) {
                self.handover.insert(*ip, Leaving { to, macs, until: now + GIVE_UP_AFTER });
            }
        }
        for (ip, stand_in) in self.stood_in.keys().filter_map(|ip| Some((ip, self.standing_in.get(ip)?))) {
            let back = next.elsewhere.get(ip) == self.peers.elsewhere.get(ip);
            let Some(to) = successor(ip).filter(|_| !back && !next.owned.contains_key(ip)) else { continue };
            if !claimed(stand_in.heard, &to) {
                let (macs, until) = (stand_in.macs.clone(), now + GIVE_UP_STAND_IN_AFTER);
                self.handover.insert(*ip, Leaving { to, macs, until });
            }
        }
        self.end_batch();
    }

    /// Takes a claim of another station on an interface: if it is the new owner's, this node falls silent.
    pub(super) fn hear_successor(&mut self, interface: IfIndex, ip: ServiceIp, mac: MacAddr) {
        let Some(leaving) = self.handover.leaving.get(&ip) else { return };
        if leaving.macs.contains_key(&interface) && self.peers.node_of(mac) == Some(&leaving.to) {
            self.handover.leaving.remove(&ip);
            self.handover.claimed += 1;
            self.end_batch();
        }
    }

    /// Gives up what the new owner has not claimed in time.
    pub(super) fn tend_handovers(&mut self, now: Instant) {
        if self.handover.due.is_none_or(|due| now < due) {
            return;
        }
        let before = self.handover.leaving.len();
        self.handover.leaving.retain(|_, leaving| now < leaving.until);
        self.handover.given_up += before - self.handover.leaving.len();
        self.handover.due = self.handover.leaving.values().map(|leaving| leaving.until).min();
        self.end_batch();
    }

    /// Follows the interfaces: what is gone answers nothing, and what has another Ethernet address tells that one.
    pub(super) fn settle_handovers(&mut self) {
        let (ports, own) = (&self.ports, &self.own_macs);
        for leaving in self.handover.leaving.values_mut() {
            leaving
                .macs
                .retain(|index, mac| ports.get(index).is_some_and(|port| port.mac == *mac || !own.contains(mac)));
        }
    }

    /// Tells how the batch went when nothing of it is left.
    fn end_batch(&mut self) {
        let (claimed, given_up) = (self.handover.claimed, self.handover.given_up);
        if !self.handover.leaving.is_empty() {
            return;
        }
        self.handover.due = None;
        if claimed + given_up > 0 {
            push_event(&mut self.events, Event::HandedOver { claimed, given_up });
            (self.handover.claimed, self.handover.given_up) = (0, 0);
        }
    }
}

/// Chosen: the new owner announces once it knows, some milliseconds later in general; a manifest that it reads later than
/// this node may take a second. Two Ethernet addresses are told after it has claimed the address unheard, never nobody's.
const GIVE_UP_AFTER: Duration = Duration::from_secs(1);
/// Chosen: the owner's host may be the one that has just died, and must not be named for longer than gossip takes.
const GIVE_UP_STAND_IN_AFTER: Duration = Duration::from_millis(100);
/// Chosen: a claim of the new owner that came before this node learnt that the address moves; gossip is never so late.
const RECENT: Duration = Duration::from_secs(2);
