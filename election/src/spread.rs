//! Owners in even numbers: the order of candidates for `--placement balanced`.
//!
//! Made from the roster, the nodes that are described whether they live or not, so that a death or a return changes no order:
//! whoever is dead is passed over, and the addresses of the living stay. Invariant: while the whole roster may own them, the
//! numbers of addresses of two nodes differ by one at most. Addresses with one election key count as one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::desired::{Address, Desired};
use crate::hash::{Number, Order, Orders, numbered};
use crate::members::Members;
use crate::{NodeName, ServiceIp};

/// How owners are spread over the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// By the hash alone, each address for itself: MetalLB's order.
    Hash,
    /// By the hash as far as no node gets more than its share.
    Balanced,
}

impl Spread {
    /// The word for it in `/state.json` and in flags.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Balanced => "balanced",
        }
    }
}

/// The orders, and what they were made of.
#[derive(Debug, Default)]
pub(crate) struct Balance {
    made_of: Wishes,
    orders: BTreeMap<ServiceIp, Order>,
}

/// Who may own what, whoever lives.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wishes {
    /// Sets of candidates, by their numbers in the roster.
    fields: Vec<Vec<Number>>,
    /// Which of them each election key has.
    keys: BTreeMap<ServiceIp, usize>,
}

/// Keys with the same candidates.
struct Group<'a> {
    candidates: &'a [Number],
    keys: Vec<ServiceIp>,
}

impl Balance {
    /// Forgets everything: the numbers of the roster mean other nodes.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Makes the orders for what is wanted, unless they are there. `hash` has those of all keys.
    pub(crate) fn follow(&mut self, desired: &Desired, members: &Members, roster: &[NodeName], hash: &Orders) {
        let wishes = Wishes::of(desired, members, roster);
        if wishes != self.made_of {
            self.orders = wishes.orders(roster, hash);
            self.made_of = wishes;
        }
    }

    /// The order for a key.
    pub(crate) fn order(&self, key: ServiceIp) -> Option<&[Number]> {
        self.orders.get(&key).map(AsRef::as_ref)
    }
}

impl Wishes {
    fn of(desired: &Desired, members: &Members, roster: &[NodeName]) -> Self {
        let mut wishes = Self::default();
        let mut known: BTreeMap<&[crate::Placement], usize> = BTreeMap::new();
        for address in desired.addresses.values() {
            let field = *known.entry(&address.placements).or_insert_with(|| {
                let candidates = numbered(roster).filter(|(_, node)| may_own(node, address, desired, members));
                wishes.fields.push(candidates.map(|(number, _)| number).collect());
                wishes.fields.len() - 1
            });
            wishes.keys.entry(address.election_key).or_insert(field);
        }
        wishes
    }

    /// The keys by their candidates, those with the fewest first, who have no other choice. In the order of names, which are the
    /// same on all nodes; numbers are not.
    fn groups(&self, roster: &[NodeName]) -> Vec<Group<'_>> {
        let names = self.fields.iter().map(|candidates| {
            let mut names: Vec<&NodeName> =
                candidates.iter().filter_map(|number| roster.get(usize::from(*number))).collect();
            names.sort_unstable();
            names
        });
        let names: Vec<Vec<&NodeName>> = names.collect();
        let mut groups: BTreeMap<&[&NodeName], Group<'_>> = BTreeMap::new();
        for (key, field) in &self.keys {
            let Some((candidates, names)) = self.fields.get(*field).zip(names.get(*field)) else { continue };
            groups.entry(names).or_insert_with(|| Group { candidates, keys: Vec::new() }).keys.push(*key);
        }
        let mut groups: Vec<Group<'_>> = groups.into_values().collect();
        groups.sort_by_key(|group| group.candidates.len());
        groups
    }

    /// The first of each order gets no more than its share of all, the second no more than its share of what the first has.
    /// The others follow by their hash.
    fn orders(&self, roster: &[NodeName], hash: &Orders) -> BTreeMap<ServiceIp, Order> {
        let groups = self.groups(roster);
        let mut loads: BTreeMap<Number, usize> = BTreeMap::new();
        let mut orders = BTreeMap::new();
        for Group { candidates, keys } in &groups {
            let mut estates: BTreeMap<Number, Vec<ServiceIp>> = BTreeMap::new();
            let mut room = Room::for_more(keys.len(), candidates.iter().copied(), &loads);
            for key in keys {
                let Some(first) = hash.get(*key, 0).and_then(|(_, order)| room.take_first(order)) else { continue };
                *loads.entry(first).or_default() += 1;
                estates.entry(first).or_default().push(*key);
            }
            for (owner, keys) in estates {
                let others = candidates.iter().copied().filter(|number| *number != owner);
                let mut room = Room::for_more(keys.len(), others, &BTreeMap::new());
                for key in keys {
                    let Some((_, order)) = hash.get(key, 0) else { continue };
                    let heir = room.take_first(order);
                    let ahead = || [Some(owner), heir].into_iter().flatten();
                    let rest = order.iter().copied().filter(|number| !ahead().any(|one| one == *number));
                    orders.insert(key, ahead().chain(rest).collect());
                }
            }
        }
        orders
    }
}

/// Whether `node` may own an address, as long as what people wrote stays: not whether it lives, or has endpoints at present.
fn may_own(node: &NodeName, address: &Address, desired: &Desired, members: &Members) -> bool {
    let counts = desired.roster.contains(node) || members.nodes.contains_key(node);
    let allowed = address.placements.iter().any(|placement| placement.nodes.contains(node));
    counts && allowed && !desired.excluded.contains(node)
}

/// How many more each node takes, so that all of them come to the same level.
struct Room {
    /// What is left until the level.
    below: BTreeMap<Number, usize>,
    /// How many nodes go one above it.
    above: usize,
}

impl Room {
    /// Room for `count` more on `nodes`, which have `loads`.
    fn for_more(count: usize, nodes: impl Iterator<Item = Number>, loads: &BTreeMap<Number, usize>) -> Self {
        let loads: BTreeMap<Number, usize> =
            nodes.map(|node| (node, loads.get(&node).copied().unwrap_or_default())).collect();
        let needed = |level: usize| loads.values().map(|load| level.saturating_sub(*load)).sum::<usize>();
        let mut level = loads.values().min().copied().unwrap_or_default();
        while !loads.is_empty() && needed(level + 1) <= count {
            level += 1;
        }
        // Who is above the level already takes none.
        let below = loads.iter().filter(|(_, load)| **load <= level).map(|(node, load)| (*node, level - load));
        Self { below: below.collect(), above: count - needed(level).min(count) }
    }

    /// The first of `order` that has room; takes it.
    fn take_first(&mut self, order: &[Number]) -> Option<Number> {
        let node = *order.iter().find(|node| match self.below.get(node) {
            None => false,
            Some(0) => self.above > 0,
            Some(1..) => true,
        })?;
        match self.below.get_mut(&node) {
            Some(left @ 1..) => *left -= 1,
            Some(0) | None => {
                self.above -= 1;
                self.below.remove(&node);
            }
        }
        Some(node)
    }
}

/// The given nodes in their order for each of `keys`, if these are all that there are and every node may own them.
pub fn balanced_orders(nodes: &[NodeName], keys: &[ServiceIp]) -> BTreeMap<ServiceIp, Vec<NodeName>> {
    let mut roster = nodes.to_vec();
    roster.sort_unstable();
    roster.dedup();
    let mut hash = Orders::default();
    hash.follow(keys.iter().copied(), &roster);
    let all = numbered(&roster).map(|(number, _)| number).collect();
    let wishes = Wishes { fields: vec![all], keys: keys.iter().map(|key| (*key, 0)).collect() };
    let names = |order: Order| order.iter().filter_map(|number| roster.get(usize::from(*number)).cloned()).collect();
    wishes.orders(&roster, &hash).into_iter().map(|(key, order)| (key, names(order))).collect()
}
