//! The addresses of one pool and family that Services with one sharing key have, and which of them lack which ports.
//!
//! Invariant: `lacking` has an entry for each port that some of the slots serve, with the slots that do not. So the first
//! slot for one more Service is found without looking at those that are full.

use std::collections::{BTreeMap, BTreeSet};

use garpike_controller_api::Port;

use crate::free::Slot;

/// Where Services with one key share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shares {
    /// How many of them are at each slot.
    slots: BTreeMap<Slot, usize>,
    lacking: BTreeMap<Port, BTreeSet<Slot>>,
}

impl Shares {
    /// A Service with these ports comes to `slot`, where nobody serves them.
    pub(crate) fn enter(&mut self, slot: Slot, ports: &BTreeSet<Port>) {
        let count = self.slots.entry(slot).or_default();
        *count += 1;
        if *count == 1 {
            for slots in self.lacking.values_mut() {
                slots.insert(slot);
            }
        }
        for port in ports {
            if !self.lacking.contains_key(port) {
                self.lacking.insert(*port, self.slots.keys().copied().collect());
            }
            if let Some(slots) = self.lacking.get_mut(port) {
                slots.remove(&slot);
            }
        }
    }

    /// A Service with these ports leaves `slot`.
    pub(crate) fn leave(&mut self, slot: Slot, ports: &BTreeSet<Port>) {
        let Some(count) = self.slots.get_mut(&slot) else { return };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            self.slots.remove(&slot);
            for slots in self.lacking.values_mut() {
                slots.remove(&slot);
            }
        }
        for port in ports {
            let Some(slots) = self.lacking.get_mut(port) else { continue };
            if !is_last {
                slots.insert(slot);
            }
            if slots.len() == self.slots.len() {
                self.lacking.remove(port);
            }
        }
    }

    /// The slots at which nobody serves any of these ports, in the order in which addresses are given.
    pub(crate) fn open_to<'a>(&'a self, ports: &'a BTreeSet<Port>) -> Box<dyn Iterator<Item = Slot> + 'a> {
        let known = || ports.iter().filter_map(|port| self.lacking.get(port));
        match known().min_by_key(|slots| slots.len()) {
            None => Box::new(self.slots.keys().copied()),
            Some(fewest) => {
                Box::new(fewest.iter().copied().filter(move |slot| known().all(|slots| slots.contains(slot))))
            }
        }
    }

    /// Whether nobody shares.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use garpike_controller_api::{Family, Protocol};
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::pool;
    use crate::free::FreeAddresses;

    proptest! {
        /// The naive model: who is where with which ports.
        #[test]
        fn finds_what_a_look_at_every_slot_would_find(steps in prop::collection::vec((0..6_usize, 0..4_usize, ports()), 0..60)) {
            let free = FreeAddresses::new(Family::V4, &pool("p", &["10.0.0.0/29"]));
            let slots: Vec<Slot> =
                (0..4).map(|n| free.slot(format!("10.0.0.{n}").parse().unwrap()).unwrap()).collect();
            let mut shares = Shares::default();
            let mut model: BTreeMap<usize, (Slot, BTreeSet<Port>)> = BTreeMap::new();
            for (who, at, ports) in steps {
                if let Some((slot, ports)) = model.remove(&who) {
                    shares.leave(slot, &ports);
                }
                let is_taken = model.values().any(|(slot, others)| *slot == slots[at] && !others.is_disjoint(&ports));
                if !is_taken {
                    shares.enter(slots[at], &ports);
                    model.insert(who, (slots[at], ports.clone()));
                }
                let used: BTreeSet<Slot> = model.values().map(|(slot, _)| *slot).collect();
                let is_open = |slot: &Slot| {
                    model.values().all(|(of, others)| of != slot || others.is_disjoint(&ports))
                };
                let expected: Vec<Slot> = used.into_iter().filter(is_open).collect();
                prop_assert_eq!(shares.open_to(&ports).collect::<Vec<_>>(), expected);
                prop_assert_eq!(shares.is_empty(), model.is_empty());
            }
            for (slot, ports) in model.into_values() {
                shares.leave(slot, &ports);
            }
            prop_assert!(shares.is_empty() && shares.lacking.is_empty());
        }
    }

    fn ports() -> impl Strategy<Value = BTreeSet<Port>> {
        let port = (80..84_u16).prop_map(|number| Port { protocol: Protocol::Tcp, number });
        prop::collection::btree_set(port, 0..3)
    }
}
