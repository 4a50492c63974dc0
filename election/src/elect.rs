//! The election: from what is desired and who is alive to who owns what.
//!
//! Hard rules first (advertisement, node selector, exclusion, interface), then rank: state of the node, hash.
//! Invariant: the removal of a member changes the owner of its own addresses only.

use std::collections::{BTreeMap, BTreeSet};

use crate::assignment::{Assignment, Elected, Unowned};
use crate::desired::{Address, Desired, Placement, Selection};
use crate::hash::score;
use crate::members::{Members, NodeState};
use crate::{NodeName, ServiceIp};

/// Elects an owner for every desired address. Pure and total: any input has a result, equal inputs have equal ones.
pub fn elect(desired: &Desired, members: &Members) -> Assignment {
    Elector::default().elect(desired, members)
}

/// [`elect`] with a memory of the hash orders, so that a death costs a look at each candidate and no hash at all.
#[derive(Debug, Default)]
pub struct Elector {
    /// All living nodes, and the dead ones that may return. Their places are their numbers.
    roster: Vec<NodeName>,
    /// For each election key, the numbers of the roster in their hash order.
    orders: BTreeMap<ServiceIp, Vec<usize>>,
}

/// What the hard rules say of a node, for addresses with certain placements.
#[derive(Clone, Copy)]
enum Fitness {
    /// It is not alive.
    Dead,
    /// It may not own them.
    Unfit(Unowned),
    /// It may.
    Fit(NodeState),
}

impl Elector {
    /// Gives what [`elect`] gives.
    pub fn elect(&mut self, desired: &Desired, members: &Members) -> Assignment {
        self.cover(members);
        let keys: BTreeSet<ServiceIp> = desired.addresses.values().map(|address| address.election_key).collect();
        self.orders.retain(|key, _| keys.contains(key));
        // Many addresses have the same placements: one look at each node serves them all.
        let mut fitness: BTreeMap<&[Placement], Vec<Fitness>> = BTreeMap::new();
        let mut addresses = BTreeMap::new();
        for (ip, address) in &desired.addresses {
            let fitness = fitness
                .entry(&address.placements)
                .or_insert_with(|| self.roster.iter().map(|node| judge(node, address, desired, members)).collect());
            let order = self.orders.entry(address.election_key);
            let order = order.or_insert_with(|| order_of(&self.roster, address.election_key));
            addresses.insert(*ip, rank(&self.roster, order, fitness, address));
        }
        Assignment { addresses }
    }

    /// Extends the roster to all living members; forgets the dead when they outnumber the living.
    fn cover(&mut self, members: &Members) {
        let known: BTreeSet<&NodeName> = self.roster.iter().collect();
        let new: Vec<NodeName> = members.nodes.keys().filter(|node| !known.contains(node)).cloned().collect();
        if self.roster.len() + new.len() > 2 * members.nodes.len() {
            self.roster = members.nodes.keys().cloned().collect();
            self.orders.clear();
            return;
        }
        for node in new {
            for (key, order) in &mut self.orders {
                let own = score(&node, *key);
                let before = |number: &usize| self.roster.get(*number).is_some_and(|node| score(node, *key) < own);
                order.insert(order.partition_point(before), self.roster.len());
            }
            self.roster.push(node);
        }
    }
}

/// Applies the hard rules.
fn judge(node: &NodeName, address: &Address, desired: &Desired, members: &Members) -> Fitness {
    let Some(member) = members.nodes.get(node) else { return Fitness::Dead };
    if address.placements.is_empty() {
        return Fitness::Unfit(Unowned::NoAdvertisement);
    }
    let Some(interfaces) = address.interfaces_on(node) else { return Fitness::Unfit(Unowned::NoSelectedNode) };
    if desired.excluded.contains(node) {
        Fitness::Unfit(Unowned::AllExcluded)
    } else if !interfaces.meets(&member.interfaces) {
        Fitness::Unfit(Unowned::NoInterface)
    } else {
        Fitness::Fit(member.state)
    }
}

/// Ranks the fit nodes: by their state, and within one state in the hash order.
fn rank(roster: &[NodeName], order: &[usize], fitness: &[Fitness], address: &Address) -> Elected {
    let mut unowned = if address.placements.is_empty() { Unowned::NoAdvertisement } else { Unowned::NoSelectedNode };
    let mut fit: Vec<(NodeState, usize)> = Vec::new();
    let mut best = 0;
    for number in order {
        match fitness.get(*number) {
            None | Some(Fitness::Dead) => {}
            Some(Fitness::Unfit(reason)) => unowned = unowned.max(*reason),
            Some(Fitness::Fit(state)) => {
                fit.push((*state, *number));
                best += usize::from(*state == NodeState::BEST);
                if best == Elected::MAX_RANKED {
                    break;
                }
            }
        }
    }
    // Stable: within one state the hash order stays.
    fit.sort_by_key(|(state, _)| *state);
    let numbers = fit.into_iter().take(Elected::MAX_RANKED);
    let ranked: Vec<NodeName> = numbers.filter_map(|(_, number)| roster.get(number).cloned()).collect();
    let interfaces = ranked.first().and_then(|owner| address.interfaces_on(owner));
    Elected {
        unowned: ranked.is_empty().then_some(unowned),
        interfaces: interfaces.unwrap_or_else(|| Selection::Only(BTreeSet::new())),
        ranked,
    }
}

/// The numbers of the roster in their hash order for `key`.
fn order_of(roster: &[NodeName], key: ServiceIp) -> Vec<usize> {
    let mut scored: Vec<_> = roster.iter().enumerate().map(|(number, node)| (score(node, key), number)).collect();
    scored.sort_unstable();
    scored.into_iter().map(|(_, number)| number).collect()
}
