//! The election: from what is desired and who is alive to who owns what.
//!
//! Hard rules first (advertisement, node selector, exclusion, interface), then rank: state of the node, hash.
//! Invariant: the removal of a member changes the owner of its own addresses only.

use std::collections::{BTreeMap, BTreeSet};

use crate::assignment::{Assignment, Elected, Unowned};
use crate::desired::{Address, Desired, Selection};
use crate::hash::score;
use crate::members::Members;
use crate::{NodeName, ServiceIp};

/// Elects an owner for every desired address. Pure and total: any input has a result, equal inputs have equal ones.
pub fn elect(desired: &Desired, members: &Members) -> Assignment {
    Elector::default().elect(desired, members)
}

/// [`elect`] with a memory of the hash orders, so that a death costs a filter and no hash at all.
#[derive(Debug, Default)]
pub struct Elector {
    /// For each election key, the nodes of `roster` in their hash order.
    orders: BTreeMap<ServiceIp, Vec<NodeName>>,
    /// The nodes that `orders` covers: all living ones, and the dead ones that may return.
    roster: BTreeSet<NodeName>,
}

impl Elector {
    /// Gives what [`elect`] gives.
    pub fn elect(&mut self, desired: &Desired, members: &Members) -> Assignment {
        self.cover(members);
        let keys: BTreeSet<ServiceIp> = desired.addresses.values().map(|address| address.election_key).collect();
        self.orders.retain(|key, _| keys.contains(key));
        let addresses =
            desired.addresses.iter().map(|(ip, address)| (*ip, self.elect_one(address, desired, members))).collect();
        Assignment { addresses }
    }

    fn elect_one(&mut self, address: &Address, desired: &Desired, members: &Members) -> Elected {
        let (ranked, unowned) = self.candidates(address, desired, members);
        let interfaces = ranked
            .first()
            .and_then(|owner| address.interfaces_on(owner))
            .unwrap_or_else(|| Selection::Only(BTreeSet::new()));
        Elected { ranked, interfaces, unowned }
    }

    fn candidates(
        &mut self,
        address: &Address,
        desired: &Desired,
        members: &Members,
    ) -> (Vec<NodeName>, Option<Unowned>) {
        if address.placements.is_empty() {
            return (Vec::new(), Some(Unowned::NoAdvertisement));
        }
        let mut unowned = Unowned::NoSelectedNode;
        let mut candidates = Vec::new();
        for node in self.order(address.election_key) {
            let Some(member) = members.nodes.get(node) else { continue };
            let Some(interfaces) = address.interfaces_on(node) else { continue };
            if desired.excluded.contains(node) {
                unowned = unowned.max(Unowned::AllExcluded);
            } else if !interfaces.meets(&member.interfaces) {
                unowned = unowned.max(Unowned::NoInterface);
            } else {
                candidates.push((member.state, node.clone()));
            }
        }
        // Stable: within one state the hash order stays.
        candidates.sort_by_key(|(state, _)| *state);
        let unowned = candidates.is_empty().then_some(unowned);
        (candidates.into_iter().map(|(_, node)| node).collect(), unowned)
    }

    fn order(&mut self, key: ServiceIp) -> &[NodeName] {
        self.orders.entry(key).or_insert_with(|| crate::hash::order(&self.roster, key).into_iter().cloned().collect())
    }

    /// Extends the roster to all living members; forgets the dead when they outnumber the living.
    fn cover(&mut self, members: &Members) {
        let new: Vec<NodeName> = members.nodes.keys().filter(|node| !self.roster.contains(*node)).cloned().collect();
        if self.roster.len() + new.len() > 2 * members.nodes.len() {
            self.roster = members.nodes.keys().cloned().collect();
            self.orders.clear();
            return;
        }
        for node in new {
            for (key, order) in &mut self.orders {
                let own = score(&node, *key);
                let at = order.partition_point(|other| score(other, *key) < own);
                order.insert(at, node.clone());
            }
            self.roster.insert(node);
        }
    }
}
