//! The order in which nodes are asked to own an address: MetalLB's, so that a migration moves nothing.

use sha2::{Digest, Sha256};

use crate::{NodeName, ServiceIp};

/// The score of `node` for `key`: SHA-256 of the ASCII text `<node>#<ip>`; the lowest score, compared as bytes,
/// comes first.
///
/// The text of the address is its canonical form (dotted quad, RFC 5952). This is a constant of the protocol, guarded
/// by golden vectors: every node must compute the same.
pub fn score(node: &NodeName, key: ServiceIp) -> [u8; 32] {
    Sha256::digest(format!("{node}#{key}")).into()
}

/// The place of a node in a roster. Small: there is an order for each of thousands of addresses.
pub(crate) type Number = u16;

/// The nodes of a roster, the first candidate first.
pub(crate) type Order = Box<[Number]>;

/// The hash orders of election keys.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// The keys as they were given.
    keys: Vec<ServiceIp>,
    /// Sorted by the keys.
    orders: Vec<(ServiceIp, Order)>,
}

impl Orders {
    /// Has those of `keys` and no others; what is known already is not hashed again.
    pub(crate) fn follow(&mut self, keys: impl Iterator<Item = ServiceIp> + Clone, roster: &[NodeName]) {
        // Deaths and returns change none.
        if keys.clone().eq(self.keys.iter().copied()) {
            return;
        }
        self.keys = keys.collect();
        let mut keys = self.keys.clone();
        keys.sort_unstable();
        keys.dedup();
        let mut known = std::mem::take(&mut self.orders).into_iter().peekable();
        let orders = keys.into_iter().map(|key| {
            while known.next_if(|(other, _)| *other < key).is_some() {}
            known.next_if(|(other, _)| *other == key).unwrap_or_else(|| (key, order_of(roster, key)))
        });
        self.orders = orders.collect();
    }

    /// Takes in the node that is put at the end of `roster`.
    pub(crate) fn insert(&mut self, node: &NodeName, roster: &[NodeName]) {
        let Ok(number) = Number::try_from(roster.len()) else { return };
        for (key, order) in &mut self.orders {
            let own = score(node, *key);
            let before = |number: &Number| roster.get(usize::from(*number)).is_some_and(|node| score(node, *key) < own);
            let mut longer = std::mem::take(order).into_vec();
            longer.insert(longer.partition_point(before), number);
            *order = longer.into();
        }
    }

    /// The order for `key`, looked for at the place `near` first.
    pub(crate) fn get(&self, key: ServiceIp, near: usize) -> Option<(usize, &[Number])> {
        let is_there = self.orders.get(near).is_some_and(|(other, _)| *other == key);
        let at = if is_there { near } else { self.orders.binary_search_by_key(&key, |(other, _)| *other).ok()? };
        self.orders.get(at).map(|(_, order)| (at, order.as_ref()))
    }
}

/// The nodes of a roster with their numbers; those beyond the largest number, of which no cluster has any, are left out.
pub(crate) fn numbered(roster: &[NodeName]) -> impl Iterator<Item = (Number, &NodeName)> {
    (0..=Number::MAX).zip(roster)
}

/// The numbers of the roster in their hash order for `key`.
pub(crate) fn order_of(roster: &[NodeName], key: ServiceIp) -> Order {
    let mut scored: Vec<_> = numbered(roster).map(|(number, node)| (score(node, key), number)).collect();
    scored.sort_unstable();
    scored.into_iter().map(|(_, number)| number).collect()
}

/// The given nodes in their order for `key`, the first candidate first.
pub fn order<'a>(nodes: impl IntoIterator<Item = &'a NodeName>, key: ServiceIp) -> Vec<&'a NodeName> {
    let mut scored: Vec<_> = nodes.into_iter().map(|node| (score(node, key), node)).collect();
    scored.sort_unstable();
    scored.dedup();
    scored.into_iter().map(|(_, node)| node).collect()
}
