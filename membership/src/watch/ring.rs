//! Who watches whom.
//!
//! All nodes whose speakers run stand on a ring, in the order of a hash of their names. A node is watched by its next
//! [`WATCHERS`] successors, and sends its heartbeats to them. Whoever has the same members computes the same ring; a node
//! that comes or goes concerns its neighbours only. The place of a node that is not on the ring is known too: that is how
//! the watchers of a speaker that is gone are found.

use std::collections::{BTreeMap, BTreeSet};

use garpike_election::NodeName;
use sha2::{Digest as _, Sha256};

/// How many successors watch a node. Simulated: two of three suffice for a verdict, so a verdict survives the death or the
/// deafness of one watcher; a fourth costs a third more packets and gains nothing.
pub(crate) const WATCHERS: usize = 3;

/// A place on the ring. The name makes the order total.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place(u64, NodeName);

/// The ring.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Ring {
    places: BTreeMap<NodeName, u64>,
    order: BTreeSet<Place>,
}

impl Ring {
    pub(crate) fn insert(&mut self, node: &NodeName) {
        if !self.places.contains_key(node) {
            let hash = hash(node);
            self.places.insert(node.clone(), hash);
            self.order.insert(Place(hash, node.clone()));
        }
    }

    pub(crate) fn remove(&mut self, node: &NodeName) {
        if let Some(hash) = self.places.remove(node) {
            self.order.remove(&Place(hash, node.clone()));
        }
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.places.keys()
    }

    /// The nodes of the ring after `node`, nearest first, itself left out.
    pub(crate) fn successors(&self, node: &NodeName) -> impl Iterator<Item = &NodeName> {
        let place = self.place(node);
        let after = self.order.range(place.clone()..).chain(self.order.range(..place));
        after.map(|Place(_, name)| name).filter(move |name| *name != node)
    }

    /// The watchers of `node`.
    pub(crate) fn watchers(&self, node: &NodeName) -> impl Iterator<Item = &NodeName> {
        self.successors(node).take(WATCHERS)
    }

    /// Whether `watcher` is one of the watchers of `node`.
    pub(crate) fn watches(&self, watcher: &NodeName, node: &NodeName) -> bool {
        self.watchers(node).any(|other| other == watcher)
    }

    /// The nodes of the ring that `watcher`, itself on it, watches.
    pub(crate) fn watched_by(&self, watcher: &NodeName) -> impl Iterator<Item = &NodeName> {
        let place = self.place(watcher);
        let before = self.order.range(..place.clone()).rev().chain(self.order.range(place..).rev());
        before.map(|Place(_, name)| name).filter(move |name| *name != watcher).take(WATCHERS)
    }

    fn place(&self, node: &NodeName) -> Place {
        Place(self.places.get(node).copied().unwrap_or_else(|| hash(node)), node.clone())
    }
}

/// All nodes must agree on it: explicit bytes, with a golden vector.
fn hash(node: &NodeName) -> u64 {
    let digest = Sha256::new().chain_update(b"garpike ring 1\0").chain_update(node.as_str()).finalize();
    let (first, _) = digest.split_first_chunk().expect("SHA-256 has 32 bytes");
    u64::from_be_bytes(*first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_places() {
        // Computed with Python: int.from_bytes(hashlib.sha256(b"garpike ring 1\0" + name).digest()[:8], "big")
        assert_eq!(hash(&name(1)), 0x6a48_9a89_86a0_dada);
        assert_eq!(hash(&name(2)), 0xa0ae_4f53_b179_27e2);
    }

    #[test]
    fn in_a_small_ring_everybody_watches_everybody() {
        for count in [2, 3, 4] {
            let ring = ring(0..count);
            for (a, b) in (0..count).flat_map(|a| (0..count).map(move |b| (a, b))).filter(|(a, b)| a != b) {
                assert!(ring.watches(&name(a), &name(b)), "{a} and {b} of {count}");
            }
        }
    }

    proptest! {
        #[test]
        fn watching_and_being_watched_agree(nodes in prop::collection::btree_set(0..1000_u32, 1..40)) {
            let ring = ring(nodes.iter().copied());
            for watcher in &nodes {
                let watched: Vec<NodeName> = ring.watched_by(&name(*watcher)).cloned().collect();
                for node in nodes.iter().filter(|node| *node != watcher) {
                    prop_assert_eq!(ring.watches(&name(*watcher), &name(*node)), watched.contains(&name(*node)));
                }
            }
        }

        #[test]
        fn the_watchers_of_a_node_that_is_gone_are_those_it_had(nodes in prop::collection::btree_set(0..1000_u32, 2..40)) {
            let whole = ring(nodes.iter().copied());
            let gone = name(*nodes.first().unwrap());
            let mut without = whole.clone();
            without.remove(&gone);

            prop_assert!(whole.watchers(&gone).eq(without.watchers(&gone)));
            without.insert(&gone);
            prop_assert_eq!(without, whole);
        }
    }

    fn ring(nodes: impl IntoIterator<Item = u32>) -> Ring {
        let mut ring = Ring::default();
        nodes.into_iter().for_each(|node| ring.insert(&name(node)));
        ring
    }

    fn name(node: u32) -> NodeName {
        NodeName::new(&format!("node-{node}")).unwrap()
    }
}
