//! Answering for an owner whose speaker is away, with the owner's Ethernet address.
//!
//! The owner's host goes on forwarding, so neighbour caches, switch tables and connections stay right as long as whoever
//! asks is told where the owner is. Only the Ethernet source of an answer is this node's own: a switch that learnt the
//! owner's address here would send the owner's traffic here. For the same reason nothing is ever announced.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use garpike_election::{IfIndex, InterfaceName, MacAddr, ServiceIp};

use super::Announcer;
use crate::schedule::Reach;

/// An address of an owner that is away.
#[derive(Debug, Default)]
pub(super) struct StandIn {
    /// Where it is answered, and with which Ethernet address.
    pub(super) macs: BTreeMap<IfIndex, MacAddr>,
    pub(super) answers: u64,
    /// Who claimed it last.
    pub(super) heard: Option<(Instant, MacAddr)>,
}

impl Announcer {
    /// Takes the whole set of addresses whose owners are away, each with the owner's Ethernet address on every interface
    /// here that reaches the owner. They are answered and never announced. What is owned as well is answered as owned.
    pub fn handle_stood_in(&mut self, stood_in: BTreeMap<ServiceIp, BTreeMap<InterfaceName, MacAddr>>, now: Instant) {
        if self.stood_in == stood_in {
            return;
        }
        self.standing_in.retain(|ip, _| stood_in.contains_key(ip));
        self.stood_in = stood_in;
        self.settle(&BTreeSet::new(), Reach::Long, now);
    }

    /// Whether requests for the address are answered on the interface in place of its owner.
    pub fn stands_in(&self, ip: ServiceIp, interface: IfIndex) -> bool {
        self.standing_in.get(&ip).is_some_and(|stand_in| stand_in.macs.contains_key(&interface))
    }

    /// How many addresses are stood in for.
    pub fn stood_in_count(&self) -> usize {
        self.stood_in.len()
    }

    /// Makes `standing_in` follow from `stood_in` and `ports`.
    pub(super) fn settle_stand_ins(&mut self) {
        for (ip, macs) in &self.stood_in {
            let stand_in = self.standing_in.entry(*ip).or_default();
            let ports = self.ports.iter().filter(|(_, port)| port.carries(*ip));
            stand_in.macs = ports.filter_map(|(index, port)| Some((*index, *macs.get(&port.name)?))).collect();
        }
    }
}
