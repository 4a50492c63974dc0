//! The addresses that a node begins with, and who was found there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use garpike_election::NodeName;

/// The seeds of this node.
#[derive(Debug)]
pub(crate) struct Seeds(BTreeMap<SocketAddr, Seed>);

#[derive(Debug)]
enum Seed {
    Unknown,
    Ourselves,
    Node(NodeName),
}

impl Seeds {
    pub(crate) fn new(addrs: &[SocketAddr], own: SocketAddr) -> Self {
        let seed = |addr: SocketAddr| if addr == own { Seed::Ourselves } else { Seed::Unknown };
        Self(addrs.iter().map(|addr| (*addr, seed(*addr))).collect())
    }

    /// Takes other seeds; what was found at those that stay is still known.
    pub(crate) fn replace(&mut self, addrs: &[SocketAddr], own: SocketAddr) {
        let Self(mut known) = std::mem::replace(self, Self::new(addrs, own));
        for (addr, seed) in &mut self.0 {
            if let Some(known) = known.remove(addr) {
                *seed = known;
            }
        }
    }

    /// The seeds at which no active member is known.
    pub(crate) fn missing(
        &self,
        active_names: &BTreeSet<&NodeName>,
        active_addrs: &BTreeSet<SocketAddr>,
    ) -> Vec<SocketAddr> {
        let is_missing = |(addr, seed): &(&SocketAddr, &Seed)| match seed {
            Seed::Ourselves => false,
            Seed::Unknown => !active_addrs.contains(*addr),
            Seed::Node(name) => !active_names.contains(name) && !active_addrs.contains(*addr),
        };
        self.0.iter().filter(is_missing).map(|(addr, _)| *addr).collect()
    }

    /// A process of `name` answered at the seed address.
    pub(crate) fn found(&mut self, addr: SocketAddr, name: NodeName) {
        self.learn(addr, Seed::Node(name));
    }

    /// The seed address is one of our own.
    pub(crate) fn is_ourselves(&mut self, addr: SocketAddr) {
        self.learn(addr, Seed::Ourselves);
    }

    fn learn(&mut self, addr: SocketAddr, seed: Seed) {
        if let Some(known) = self.0.get_mut(&addr) {
            *known = seed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_seeds_keep_what_was_found_at_those_that_stay() {
        let addr = |last: u8| SocketAddr::from(([10, 0, 0, last], 7946));
        let mut seeds = Seeds::new(&[addr(1), addr(2), addr(3)], addr(1));
        seeds.found(addr(2), "n2".parse().unwrap());
        let n2 = "n2".parse().unwrap();
        let missing = |seeds: &Seeds| seeds.missing(&BTreeSet::from([&n2]), &BTreeSet::new());

        seeds.replace(&[addr(1), addr(2), addr(4)], addr(1));

        assert_eq!(missing(&seeds), [addr(4)]);
    }
}
