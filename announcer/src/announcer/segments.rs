//! Two interfaces of this node on one segment: only one of them answers for an address and announces it.
//!
//! Otherwise neighbours would learn two Ethernet addresses. Of such interfaces the one with the lowest number does it. They
//! are known by a common subnet, or because one hears what the other sends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use garpike_election::{IfIndex, MacAddr, Wire};

use super::{Announcer, Event, push_event};
use crate::schedule::Reach;
use crate::surroundings::telling_nets;

/// Which interfaces share a segment.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// Pairs, the lower number first.
    heard: BTreeSet<(IfIndex, IfIndex)>,
    by_subnet: BTreeSet<(IfIndex, IfIndex)>,
}

impl Segments {
    /// Whether the interface is on the segment of one of the others.
    pub(super) fn share(&self, interface: IfIndex, others: &[IfIndex]) -> bool {
        let paired = |other: &IfIndex| {
            let pair = (interface.min(*other), interface.max(*other));
            self.heard.contains(&pair) || self.by_subnet.contains(&pair)
        };
        others.iter().any(paired)
    }

    /// The pairs of interfaces that share one.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (IfIndex, IfIndex)> {
        self.heard.union(&self.by_subnet).copied()
    }
}

impl Announcer {
    /// Follows the interfaces and tells whether that changes anything. Where a cable was pulled, what was heard counts no
    /// more: `fresh` are those that came anew.
    pub(super) fn follow_segments(&mut self, fresh: &BTreeSet<IfIndex>) -> bool {
        let ports = &self.ports;
        let stays = |index: &IfIndex| ports.contains_key(index) && !fresh.contains(index);
        self.segments.heard.retain(|(a, b)| stays(a) && stays(b));
        let links = self.links.iter().flat_map(|links| &links.links);
        let wires: BTreeMap<IfIndex, Wire> = links
            .filter_map(|(index, link)| Some((*index, Wire { mac: ports.get(index)?.mac, nets: telling_nets(link) })))
            .collect();
        let pairs =
            wires.iter().flat_map(|(a, one)| wires.range(a..).skip(1).map(move |(b, other)| (a, one, b, other)));
        let met = pairs.filter(|(_, one, _, other)| one.meets(other)).map(|(a, _, b, _)| (*a, *b));
        let by_subnet: BTreeSet<_> = met.collect();
        let before = std::mem::replace(&mut self.segments.by_subnet, by_subnet);
        before != self.segments.by_subnet
    }

    /// Takes that a frame came in which one of this node's interfaces sent.
    pub(super) fn hear_own(&mut self, interface: IfIndex, source: MacAddr, now: Instant) {
        let mut senders = self.ports.iter().filter(|(_, port)| port.mac == source).map(|(index, _)| *index);
        let Some(sender) = senders.next().filter(|_| senders.next().is_none()) else { return };
        if sender == interface || !self.ports.contains_key(&interface) {
            return;
        }
        let pair @ (lower, higher) = (sender.min(interface), sender.max(interface));
        if self.segments.by_subnet.contains(&pair) || !self.segments.heard.insert(pair) {
            return;
        }
        let name = |index: IfIndex| self.ports.get(&index).map(|port| port.name.clone());
        if let Some((speaks, silent)) = name(lower).zip(name(higher)) {
            push_event(&mut self.events, Event::OneSegment { speaks, silent });
        }
        // Both have announced: the last word is that of the one that answers.
        self.settle(&BTreeSet::from([lower]), Reach::Short, now);
    }
}
