//! The election: from what is desired and who is alive to who owns what.
//!
//! Hard rules first (advertisement, node selector, exclusion, interface, endpoints), then rank: endpoints that are ready
//! before those that terminate, state of the node, choice of an operator, handicaps, and in the end the hash, or the order of
//! [`Spread::Balanced`] if all members ask for it.
//! A node whose speaker is away keeps its rank while another can stand in for it.
//! Invariant: the removal of a member changes the owner only of the addresses that it owned or stood in for.

use std::collections::{BTreeMap, BTreeSet};

use crate::NodeName;
use crate::assignment::{Assignment, Elected, Unowned};
use crate::desired::{Address, Desired, Endpoints, Placement, Selection};
use crate::fitness::{Fitness, Rank};
use crate::hash::{Number, Orders, numbered};
use crate::members::Members;
use crate::spread::{Balance, Spread};

/// Elects an owner for every desired address. Pure and total: any input has a result, equal inputs have equal ones.
pub fn elect(desired: &Desired, members: &Members) -> Assignment {
    Elector::default().elect(desired, members)
}

/// [`elect`] with a memory of the hash orders, so that a death costs a look at each candidate and no hash at all.
#[derive(Debug, Default)]
pub struct Elector {
    /// All living nodes, the dead ones that may return, and for even numbers those that are described. Their places are
    /// their numbers.
    roster: Vec<NodeName>,
    /// For each election key, the roster in its hash order.
    orders: Orders,
    /// The orders that go before these while owners are spread evenly; else empty.
    balance: Balance,
}

/// The candidates for addresses with certain placements and endpoints.
struct Field<'a> {
    /// What the rules say of each node of the roster.
    fitness: Vec<Fitness<'a>>,
    /// The rank of the best of them.
    best: Option<Rank>,
}

impl Elector {
    /// Gives what [`elect`] gives.
    pub fn elect(&mut self, desired: &Desired, members: &Members) -> Assignment {
        let spread = members.spread();
        self.cover(desired, members, spread);
        self.orders.follow(desired.addresses.values().map(|address| address.election_key), &self.roster);
        match spread {
            Spread::Hash => self.balance.clear(),
            Spread::Balanced => self.balance.follow(desired, members, &self.roster, &self.orders),
        }
        // Many addresses have the same placements and endpoints: one look at each node serves them all.
        let mut fields: BTreeMap<(&[Placement], &Endpoints), Field<'_>> = BTreeMap::new();
        let numbers: BTreeMap<&NodeName, Number> = if desired.moves.is_empty() {
            BTreeMap::new()
        } else {
            numbered(&self.roster).map(|(number, node)| (node, number)).collect()
        };
        let (mut fit, mut next) = (Vec::new(), 0);
        // Collected, because a map that grows in order is left half empty.
        let addresses = desired.addresses.iter().map(|(ip, address)| {
            let field = fields.entry((&address.placements, &address.endpoints));
            let field = field.or_insert_with(|| Field::new(Fitness::of_all(&self.roster, address, desired, members)));
            // The keys come in the order of the addresses, but for addresses that stay together.
            let (at, hash) = self.orders.get(address.election_key, next).unwrap_or_default();
            next = at + 1;
            let order = self.balance.order(address.election_key).unwrap_or(hash);
            let chosen = desired.moves.get(ip).and_then(|node| numbers.get(node)).copied();
            (*ip, field.elect(&self.roster, order, chosen, address, &mut fit))
        });
        Assignment { addresses: addresses.collect() }
    }

    /// Extends the roster to all that count; forgets the others when they outnumber these.
    fn cover(&mut self, desired: &Desired, members: &Members, spread: Spread) {
        let described = match spread {
            Spread::Hash => None,
            Spread::Balanced => Some(&desired.roster),
        };
        let counted: BTreeSet<&NodeName> = members.nodes.keys().chain(described.into_iter().flatten()).collect();
        let known: BTreeSet<&NodeName> = self.roster.iter().collect();
        let new: Vec<NodeName> = counted.difference(&known).map(|node| (*node).clone()).collect();
        if self.roster.len() + new.len() > 2 * counted.len() {
            self.roster = counted.into_iter().cloned().collect();
            self.orders = Orders::default();
            self.balance.clear();
            return;
        }
        for node in new {
            self.orders.insert(&node, &self.roster);
            self.roster.push(node);
        }
    }
}

impl<'a> Field<'a> {
    fn new(fitness: Vec<Fitness<'a>>) -> Self {
        let best = fitness.iter().filter_map(Fitness::candidate).map(|candidate| candidate.rank).min();
        Self { fitness, best }
    }

    /// Ranks the candidates, those of one rank in the given order but for the `chosen` one, and finds who stands in for
    /// the first. `fit` is room to do that in.
    fn elect(
        &self,
        roster: &[NodeName],
        order: &[Number],
        chosen: Option<Number>,
        address: &Address,
        fit: &mut Vec<(Rank, Number)>,
    ) -> Elected {
        let none = if address.placements.is_empty() { Unowned::NoAdvertisement } else { Unowned::NoSelectedNode };
        let mut unowned = none;
        fit.clear();
        let mut best = 0;
        for number in order {
            match self.fitness.get(usize::from(*number)) {
                None | Some(Fitness::Dead) => {}
                Some(Fitness::Unfit(reason) | Fitness::Unbacked(reason, _)) => unowned = unowned.max(*reason),
                Some(Fitness::Fit(candidate)) => {
                    fit.push((candidate.rank, *number));
                    best += usize::from(Some(candidate.rank) == self.best);
                    if best == Elected::MAX_RANKED {
                        break;
                    }
                }
            }
        }
        // Stable: within one rank the order stays.
        fit.sort_by_key(|(rank, _)| *rank);
        if let Some((rank, chosen)) = chosen.and_then(|number| Some((self.rank(number)?, number))) {
            fit.retain(|(_, number)| *number != chosen);
            fit.insert(fit.partition_point(|(other, _)| other.state_is_better_than(rank)), (rank, chosen));
        }
        let owner = fit.first().map(|(_, number)| *number);
        let named = |number: Number| roster.get(usize::from(number)).cloned();
        let mut ranked = Vec::with_capacity(fit.len().min(Elected::MAX_RANKED));
        ranked.extend(fit.iter().take(Elected::MAX_RANKED).filter_map(|(_, number)| named(*number)));
        let interfaces = ranked.first().and_then(|owner: &NodeName| address.interfaces_on(owner));
        let stand_in = owner.and_then(|owner| self.stand_in(order, owner));
        Elected {
            unowned: ranked.is_empty().then_some(unowned),
            interfaces: interfaces.unwrap_or_else(|| Selection::Only(BTreeSet::new())),
            stand_in: stand_in.and_then(named),
            ranked,
        }
    }

    fn rank(&self, number: Number) -> Option<Rank> {
        self.fitness.get(usize::from(number))?.candidate().map(|candidate| candidate.rank)
    }

    /// The best of those who can stand in for the owner, should it be away.
    fn stand_in(&self, order: &[Number], owner: Number) -> Option<Number> {
        let owner = self.fitness.get(usize::from(owner))?.candidate().filter(|owner| !owner.is_here())?;
        let candidates =
            order.iter().filter_map(|number| Some((*number, self.fitness.get(usize::from(*number))?.deputy()?)));
        let able = candidates.filter(|(_, candidate)| candidate.covers(owner));
        // Of several equal ones the first: the order decides.
        able.min_by_key(|(_, candidate)| candidate.rank).map(|(number, _)| number)
    }
}
