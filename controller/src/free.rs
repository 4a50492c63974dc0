//! The free addresses of one pool and one family, lowest first in the order in which the ranges are written.
//!
//! Invariant: `pieces` are disjoint and hold exactly the free addresses, and no piece begins or ends with an address
//! that the pool leaves unused. Every operation is logarithmic in the number of pieces, however many addresses there are.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use garpike_controller_api::Family;
use garpike_controller_api::config::Pool;
use garpike_election::ServiceIp;

/// An address by its place in its pool. The order is that in which addresses are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot {
    /// The place of the range in the pool.
    range: usize,
    /// The address as a number.
    number: u128,
}

/// The free addresses of one pool and one family.
#[derive(Clone, Debug)]
pub(crate) struct FreeAddresses {
    family: Family,
    /// Whether addresses that end in .0 or .255 are left unused.
    avoid_buggy_ips: bool,
    /// First address of each range, with the last one and the place of the range.
    ranges: BTreeMap<u128, (u128, usize)>,
    /// First slot of each free piece, with the last number.
    pieces: BTreeMap<Slot, u128>,
    /// How many addresses are free.
    count: u128,
}

impl FreeAddresses {
    /// All addresses of that family in `pool`.
    pub(crate) fn new(family: Family, pool: &Pool) -> Self {
        let mut free = Self {
            family,
            avoid_buggy_ips: pool.avoid_buggy_ips && family == Family::V4,
            ranges: BTreeMap::new(),
            pieces: BTreeMap::new(),
            count: 0,
        };
        for (range, written) in pool.ranges.iter().enumerate().filter(|(_, range)| range.family() == family) {
            let (first, last) = (number(written.first()), number(written.last()));
            free.ranges.insert(first, (last, range));
            free.insert(Slot { range, number: first }, last);
            free.count = free.count.saturating_add(written.count() - free.avoided(first, last));
        }
        free
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u128 {
        self.count
    }

    /// The first free address.
    pub(crate) fn lowest(&self) -> Option<Slot> {
        self.pieces.first_key_value().map(|(slot, _)| *slot)
    }

    /// The place of `ip`, if one of the ranges holds it.
    pub(crate) fn slot(&self, ip: ServiceIp) -> Option<Slot> {
        if Family::of(ip) != self.family {
            return None;
        }
        let number = number(ip.addr());
        let (_, (last, range)) = self.ranges.range(..=number).next_back()?;
        (number <= *last).then_some(Slot { range: *range, number })
    }

    /// The address at `slot`.
    pub(crate) fn ip(&self, slot: Slot) -> Option<ServiceIp> {
        let ip = match self.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(slot.number).ok()?)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(slot.number)),
        };
        ServiceIp::new(ip).ok()
    }

    /// Takes `slot` out; says whether it was free.
    pub(crate) fn take(&mut self, slot: Slot) -> bool {
        let Some((&first, &last)) = self.pieces.range(..=slot).next_back() else { return false };
        if first.range != slot.range || slot.number > last {
            return false;
        }
        self.pieces.remove(&first);
        // A piece may hold addresses that the pool leaves unused.
        self.count -= u128::from(!self.avoids(slot.number));
        if first < slot {
            self.insert(first, slot.number - 1);
        }
        if slot.number < last {
            self.insert(Slot { number: slot.number + 1, ..slot }, last);
        }
        true
    }

    /// Puts `slot` back; nothing happens when it is free, or left unused by the pool.
    pub(crate) fn put_back(&mut self, slot: Slot) {
        let below = self.pieces.range(..=slot).next_back().map(|(first, last)| (*first, *last));
        let below = below.filter(|(first, _)| first.range == slot.range);
        if self.avoids(slot.number) || below.is_some_and(|(_, last)| slot.number <= last) {
            return;
        }
        self.count += 1;
        let next = slot.number.checked_add(1).map(|number| Slot { number, ..slot });
        let above = next.and_then(|next| self.pieces.remove(&next));
        let last = above.unwrap_or(slot.number);
        match below {
            Some((first, below_last)) if below_last.checked_add(1) == Some(slot.number) => {
                self.pieces.insert(first, last);
            }
            Some(_) | None => {
                self.pieces.insert(slot, last);
            }
        }
    }

    /// Adds a piece without the unused addresses at its ends. Two of them may lie side by side: .255 and .0.
    fn insert(&mut self, first: Slot, last: u128) {
        let mut free = (first.number..=last).skip_while(|number| self.avoids(*number));
        let Some(number) = free.next() else { return };
        let last = (number..=last).rev().find(|number| !self.avoids(*number)).unwrap_or(number);
        self.pieces.insert(Slot { number, ..first }, last);
    }

    /// How many addresses from `first` to `last` the pool leaves unused.
    fn avoided(&self, first: u128, last: u128) -> u128 {
        let up_to = |number: u128| number / 256 + (number + 1) / 256;
        if self.avoid_buggy_ips { up_to(last) - up_to(first) + u128::from(self.avoids(first)) } else { 0 }
    }

    fn avoids(&self, number: u128) -> bool {
        self.avoid_buggy_ips && matches!(number & 0xff, 0 | 255)
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::pool;

    proptest! {
        /// The naive model: the set of all free addresses.
        #[test]
        fn is_a_set_of_addresses(steps in prop::collection::vec((0..3_usize, 0..24_u32), 0..120)) {
            let mut free = FreeAddresses::new(Family::V4, &pool("p", &["10.0.0.8/29", "10.0.0.0/29", "10.0.0.20-10.0.0.22"]));
            let all: Vec<Slot> = (0..24).filter_map(|host| free.slot(ip(host))).collect();
            let mut model: BTreeSet<Slot> = all.iter().copied().collect();
            prop_assert_eq!(model.len(), 19);
            for (action, host) in steps {
                let Some(slot) = free.slot(ip(host)) else { continue };
                match action {
                    0 => prop_assert_eq!(free.take(slot), model.remove(&slot)),
                    1 => {
                        free.put_back(slot);
                        model.insert(slot);
                    }
                    _ => {
                        let lowest = free.lowest();
                        prop_assert_eq!(lowest, model.first().copied());
                        if let Some(lowest) = lowest {
                            prop_assert!(free.take(lowest) && model.remove(&lowest));
                        }
                    }
                }
                let counted: u128 = free.pieces.iter().map(|(first, last)| last - first.number + 1).sum();
                prop_assert_eq!(counted, model.len() as u128);
                prop_assert_eq!(counted, free.count());
                prop_assert!(free.pieces.len() <= 3 + model.len());
            }
            all.iter().for_each(|slot| free.put_back(*slot));
            prop_assert_eq!(free.pieces.len(), 3, "all pieces have grown together");
        }
    }

    #[test]
    fn the_first_range_as_written_goes_first() {
        let mut free = FreeAddresses::new(Family::V4, &pool("p", &["10.0.0.8/31", "10.0.0.0/31"]));
        let mut order = Vec::new();
        while let Some(slot) = free.lowest() {
            order.push(free.ip(slot).unwrap().to_string());
            assert!(free.take(slot));
        }

        assert_eq!(order, ["10.0.0.8", "10.0.0.9", "10.0.0.0", "10.0.0.1"]);
    }

    #[test]
    fn the_largest_blocks_work_to_their_very_end() {
        let ranges = ["2001:db8::/32", "fec0::-feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"];
        let mut free = FreeAddresses::new(Family::V6, &pool("p", &ranges));
        for text in ["2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::"]
        {
            let slot = free.slot(text.parse().unwrap()).unwrap();
            assert!(free.take(slot) && !free.take(slot), "{text}");
            free.put_back(slot);
        }
        assert_eq!(free.pieces.len(), 2);
        assert_eq!(free.slot("2001:db9::".parse().unwrap()), None);
        assert_eq!(free.slot("10.0.0.1".parse().unwrap()), None);
    }

    #[test]
    fn addresses_that_end_in_0_or_255_are_skipped_in_one_step() {
        let pool =
            Pool { avoid_buggy_ips: true, ..pool("p", &["10.0.0.254-10.0.2.1", "10.9.0.0/32", "10.9.0.255-10.9.1.0"]) };
        let mut free = FreeAddresses::new(Family::V4, &pool);
        assert_eq!(free.count(), 256);
        let mut order = Vec::new();
        while let Some(slot) = free.lowest() {
            order.push(free.ip(slot).unwrap());
            assert!(free.take(slot));
        }

        assert_eq!((order.len(), free.count()), (256, 0));
        assert!(order.iter().all(|ip| !matches!(ip.v4().unwrap().octets(), [.., 0 | 255])));
        let buggy = free.slot("10.0.1.0".parse().unwrap()).unwrap();
        free.put_back(buggy);
        assert_eq!((free.lowest(), free.count()), (None, 0));
    }

    fn ip(host: u32) -> ServiceIp {
        ServiceIp::new(Ipv4Addr::from_bits(0x0a00_0000 + host).into()).unwrap()
    }
}
