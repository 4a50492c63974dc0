//! A few prefixes that cover many addresses, for packet filters, which have no tables.
//!
//! What is covered besides the addresses costs only that the core sees, and drops, frames that do not concern it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// The most prefixes per family. Chosen: at four instructions per word and prefix the program stays a fifth of the
/// kernel's limit (`BPF_MAXINSNS`, 4096), and a foreign frame costs less than a microsecond.
pub const MAX_PREFIXES: usize = 64;

/// At most [`MAX_PREFIXES`] disjoint prefixes per family, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixes {
    /// For ARP.
    pub v4: Vec<Ipv4Net>,
    /// For neighbour discovery.
    pub v6: Vec<Ipv6Net>,
}

impl Prefixes {
    /// The prefixes that cover the addresses, as narrow as their number allows. The order of the addresses is of no
    /// consequence.
    pub fn covering(v4: impl IntoIterator<Item = Ipv4Addr>, v6: impl IntoIterator<Item = Ipv6Addr>) -> Self {
        Self::covering_with(MAX_PREFIXES, v4, v6)
    }

    /// The same with at most `most` prefixes per family, but one at least.
    pub fn covering_with(
        most: usize,
        v4: impl IntoIterator<Item = Ipv4Addr>,
        v6: impl IntoIterator<Item = Ipv6Addr>,
    ) -> Self {
        let v4 = cover(v4.into_iter().map(|ip| u128::from(ip.to_bits())).collect(), 32, most);
        let v6 = cover(v6.into_iter().map(Ipv6Addr::to_bits).collect(), 128, most);
        let v4_net = |(bits, len)| {
            let bits = u32::try_from(bits).expect("a prefix of 32-bit addresses has 32 bits");
            Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), len)
        };
        let v6_net = |(bits, len)| Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), len);
        Self { v4: v4.into_iter().map(v4_net).collect(), v6: v6.into_iter().map(v6_net).collect() }
    }
}

/// Groups addresses of `width` bits by the longest common prefix length that gives few enough groups, and narrows each
/// group to what its members have in common.
fn cover(mut addresses: Vec<u128>, width: u8, most: usize) -> Vec<(u128, u8)> {
    addresses.sort_unstable();
    addresses.dedup();
    let groups_at = |len: u8| {
        let heads = addresses.iter().map(|address| truncate(*address, len, width));
        heads.fold((0, None), |(count, last), head| (count + usize::from(last != Some(head)), Some(head))).0
    };
    // A longer length never gives fewer groups.
    let (mut len, mut too_long) = (0, width + 1);
    while too_long - len > 1 {
        let middle = len.midpoint(too_long);
        if groups_at(middle) <= most { len = middle } else { too_long = middle }
    }
    let mut groups: BTreeMap<u128, (u128, u128)> = BTreeMap::new();
    for address in addresses {
        let head = truncate(address, len, width);
        groups.entry(head).and_modify(|(_, last)| *last = address).or_insert((address, address));
    }
    groups
        .into_values()
        .map(|(first, last)| {
            let differing = u128::BITS - (first ^ last).leading_zeros();
            let common = width - u8::try_from(differing).expect("at most 128 bits differ");
            (truncate(first, common, width), common)
        })
        .collect()
}

/// The address with only its first `len` of `width` bits.
fn truncate(address: u128, len: u8, width: u8) -> u128 {
    let dropped = u32::from(width - len);
    address.checked_shr(dropped).and_then(|bits| bits.checked_shl(dropped)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_addresses_are_covered_exactly() {
        let ips = ["192.168.10.1", "192.168.10.2", "10.0.0.7"].map(|ip| ip.parse().unwrap());
        let v6 = ["fc00::1", "fc00::2"].map(|ip| ip.parse().unwrap());
        let prefixes = Prefixes::covering(ips, v6);
        assert_eq!(text(&prefixes.v4), ["10.0.0.7/32", "192.168.10.1/32", "192.168.10.2/32"]);
        assert_eq!(text(&prefixes.v6), ["fc00::1/128", "fc00::2/128"]);
    }

    #[test]
    fn many_addresses_share_prefixes_and_a_lone_one_stays_narrow() {
        let pool = (0..=255).map(|last| Ipv4Addr::new(192, 168, 10, last));
        let prefixes = Prefixes::covering(pool.chain([Ipv4Addr::new(10, 0, 0, 7)]), []);
        assert!(prefixes.v4.len() <= MAX_PREFIXES, "{prefixes:?}");
        assert_eq!(prefixes.v4.first().unwrap().to_string(), "10.0.0.7/32");
        assert_eq!(prefixes.v4.get(1).unwrap().to_string(), "192.168.10.0/29");
    }

    #[test]
    fn no_address_needs_no_prefix() {
        assert_eq!(Prefixes::covering([], []), Prefixes::default());
    }

    proptest! {
        #[test]
        fn every_address_is_covered_whatever_the_order(
            mut v4 in proptest::collection::vec(any::<u32>().prop_map(Ipv4Addr::from_bits), 0..300),
            mut v6 in proptest::collection::vec(any::<u128>().prop_map(Ipv6Addr::from_bits), 0..300),
        ) {
            let prefixes = Prefixes::covering(v4.clone(), v6.clone());
            prop_assert!(prefixes.v4.len() <= MAX_PREFIXES && prefixes.v6.len() <= MAX_PREFIXES);
            prop_assert!(v4.iter().all(|ip| prefixes.v4.iter().any(|net| net.contains(ip))));
            prop_assert!(v6.iter().all(|ip| prefixes.v6.iter().any(|net| net.contains(ip))));
            let one = Prefixes::covering_with(1, v4.clone(), v6.clone());
            prop_assert!(one.v4.len() <= 1 && one.v6.len() <= 1);
            prop_assert!(v4.iter().all(|ip| one.v4.iter().any(|net| net.contains(ip))));
            v4.reverse();
            v6.reverse();
            prop_assert_eq!(prefixes, Prefixes::covering(v4, v6));
        }
    }

    fn text<T: ToString>(nets: &[T]) -> Vec<String> {
        nets.iter().map(ToString::to_string).collect()
    }
}
