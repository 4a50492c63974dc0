//! Address ranges as pools write them: CIDR blocks and `START-END`.
//!
//! A range is never walked: an IPv6 /64 is as cheap as a /32. Every address of a range can be a service IP.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use garpike_election::ServiceIp;
use ipnet::IpNet;
use thiserror::Error;

/// The two families of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of `ip`.
    pub fn of(ip: ServiceIp) -> Self {
        match ip.addr() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }

    /// The name as `spec.ipFamilies` writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All addresses from `first` to `last`, both included and of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// Takes the addresses from `first` to `last`.
    ///
    /// # Errors
    ///
    /// When the families differ, the order is wrong, or an address between them cannot be a service IP.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, InvalidRange> {
        let (first, last) = (first.to_canonical(), last.to_canonical());
        if first.is_ipv4() != last.is_ipv4() {
            return Err(InvalidRange::MixedFamilies { first, last });
        }
        if first > last {
            return Err(InvalidRange::Backwards { first, last });
        }
        let range = Self { first, last };
        match UNSERVABLE.iter().find(|(from, to, _)| range.first <= *to && *from <= range.last) {
            Some((from, to, kind)) => Err(InvalidRange::Unservable { from: *from, to: *to, kind }),
            None => Ok(range),
        }
    }

    /// The lowest address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The highest address.
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// The family of all its addresses.
    pub fn family(&self) -> Family {
        match self.first {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// Whether `ip` lies in the range.
    pub fn contains(&self, ip: IpAddr) -> bool {
        // An IPv4 address sorts before every IPv6 one, so a range of the other family holds neither.
        self.first <= ip && ip <= self.last
    }

    /// Whether some address lies in both ranges.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// How many addresses there are.
    pub fn count(&self) -> u128 {
        let distance = match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => u128::from(last.to_bits().saturating_sub(first.to_bits())),
            (IpAddr::V6(first), IpAddr::V6(last)) => last.to_bits().saturating_sub(first.to_bits()),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
        };
        distance.saturating_add(1)
    }
}

/// The text as [`FromStr`] reads it: `START-END`, or the address alone.
impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for AddressRange {
    type Err = InvalidRange;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidRange::NotARange;
        if let Some((first, last)) = s.split_once('-') {
            let first = first.trim().parse().map_err(|_| invalid())?;
            let last = last.trim().parse().map_err(|_| invalid())?;
            return Self::new(first, last);
        }
        let text = s.trim();
        if let Ok(ip) = text.parse::<IpAddr>() {
            let prefix = if ip.to_canonical().is_ipv4() { 32 } else { 128 };
            return Err(InvalidRange::BareAddress { ip: ip.to_canonical(), prefix });
        }
        let net: IpNet = text.parse().map_err(|_| invalid())?;
        Self::new(net.network(), last_of(net))
    }
}

/// The highest address of a block, that of an IPv4 one included.
fn last_of(net: IpNet) -> IpAddr {
    match net {
        IpNet::V4(net) => IpAddr::V4(net.broadcast()),
        IpNet::V6(net) => IpAddr::V6(net.broadcast()),
    }
}

/// What [`ServiceIp`] refuses, as ranges.
const UNSERVABLE: [(IpAddr, IpAddr, &str); 8] = [
    (v4([0, 0, 0, 0]), v4([0, 0, 0, 0]), "the unspecified address"),
    (v4([127, 0, 0, 0]), v4([127, 255, 255, 255]), "loopback"),
    (v4([224, 0, 0, 0]), v4([239, 255, 255, 255]), "multicast"),
    (v4([255, 255, 255, 255]), v4([255, 255, 255, 255]), "the broadcast address"),
    (v6([0; 8]), v6([0, 0, 0, 0, 0, 0, 0, 1]), "unspecified and loopback"),
    (v6([0, 0, 0, 0, 0, 0xffff, 0, 0]), v6([0, 0, 0, 0, 0, 0xffff, 0xffff, 0xffff]), "IPv4-mapped"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0]), v6([0xfebf, !0, !0, !0, !0, !0, !0, !0]), "link-local"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0]), v6([!0; 8]), "multicast"),
];

const fn v4([a, b, c, d]: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h))
}

/// Why a text is not an address range; each reads on after the text.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidRange {
    /// Neither a CIDR block nor two addresses.
    #[error("is not an address range; write CIDR such as 192.168.10.0/24 or START-END")]
    NotARange,
    /// One address without a prefix length.
    #[error("is one address and not a range; write {ip}/{prefix}")]
    BareAddress {
        /// The address.
        ip: IpAddr,
        /// The prefix length that means this address alone.
        prefix: u8,
    },
    /// From one family to the other.
    #[error("goes from {first} to {last}, which is another family; write one range for each family")]
    MixedFamilies {
        /// The start.
        first: IpAddr,
        /// The end.
        last: IpAddr,
    },
    /// The start lies after the end.
    #[error("starts after its end; write {last}-{first}")]
    Backwards {
        /// The start.
        first: IpAddr,
        /// The end.
        last: IpAddr,
    },
    /// Some addresses cannot be service IPs.
    #[error("holds addresses that no Service can have ({from}-{to}, {kind}); leave them out")]
    Unservable {
        /// The first of them.
        from: IpAddr,
        /// The last of them.
        to: IpAddr,
        /// What they are.
        kind: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_metallb_reads() {
        for (text, first, last, count) in [
            ("192.168.10.0/24", "192.168.10.0", "192.168.10.255", 256),
            ("10.0.0.5/24", "10.0.0.0", "10.0.0.255", 256),
            ("192.168.9.1-192.168.9.5", "192.168.9.1", "192.168.9.5", 5),
            ("10.0.0.1 - 10.0.0.2", "10.0.0.1", "10.0.0.2", 2),
            (" 10.10.1.65/32 ", "10.10.1.65", "10.10.1.65", 1),
            ("fc00:f853:0ccd:e799::/124", "fc00:f853:ccd:e799::", "fc00:f853:ccd:e799::f", 16),
            ("2001:db8::/64", "2001:db8::", "2001:db8::ffff:ffff:ffff:ffff", 1 << 64),
            ("::ffff:10.0.0.1-::ffff:10.0.0.9", "10.0.0.1", "10.0.0.9", 9),
        ] {
            let range: AddressRange = text.parse().unwrap();
            assert_eq!((range.first().to_string(), range.last().to_string()), (first.to_owned(), last.to_owned()));
            assert_eq!(range.count(), count, "{text}");
        }
    }

    #[test]
    fn refuses_with_the_mend() {
        for (text, error) in [
            ("192.168.9.300-192.168.9.5", "is not an address range; write CIDR such as 192.168.10.0/24 or START-END"),
            ("", "is not an address range; write CIDR such as 192.168.10.0/24 or START-END"),
            ("10.0.0.0/33", "is not an address range; write CIDR such as 192.168.10.0/24 or START-END"),
            ("10.0.0.1", "is one address and not a range; write 10.0.0.1/32"),
            ("fc00::1", "is one address and not a range; write fc00::1/128"),
            (
                "10.0.0.1-fc00::1",
                "goes from 10.0.0.1 to fc00::1, which is another family; write one range for each family",
            ),
            ("10.0.0.9-10.0.0.1", "starts after its end; write 10.0.0.1-10.0.0.9"),
            (
                "0.0.0.0/0",
                "holds addresses that no Service can have (0.0.0.0-0.0.0.0, the unspecified address); leave them out",
            ),
            (
                "fe80::/64",
                "holds addresses that no Service can have (fe80::-febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff, link-local); leave them out",
            ),
        ] {
            assert_eq!(text.parse::<AddressRange>().unwrap_err().to_string(), error, "{text}");
        }
    }

    #[test]
    fn a_mapped_block_is_the_ipv4_block() {
        let range: AddressRange = "::ffff:10.0.0.0/120".parse().unwrap();

        assert_eq!(range, "10.0.0.0/24".parse().unwrap());
    }

    proptest! {
        #[test]
        fn any_text_is_a_range_or_an_error(text in ".{0,60}") {
            if let Ok(range) = text.parse::<AddressRange>() {
                prop_assert!(range.first() <= range.last());
            }
        }

        #[test]
        fn every_end_of_a_range_can_be_a_service_ip(a: u32, b: u32) {
            let (first, last) = (Ipv4Addr::from(a.min(b)), Ipv4Addr::from(a.max(b)));
            if let Ok(range) = AddressRange::new(first.into(), last.into()) {
                prop_assert!(ServiceIp::new(range.first()).is_ok() && ServiceIp::new(range.last()).is_ok());
            }
        }

        #[test]
        fn unservable_and_service_ip_agree(bits: u128, v4: bool) {
            #[expect(clippy::cast_possible_truncation, reason = "any 32 bits will do")]
            let ip = if v4 { IpAddr::V4(Ipv4Addr::from_bits(bits as u32)) } else { IpAddr::V6(Ipv6Addr::from_bits(bits)) };
            prop_assert_eq!(AddressRange::new(ip, ip).is_ok(), ServiceIp::new(ip.to_canonical()).is_ok());
        }

        #[test]
        fn the_text_reads_back(a: u128, b: u128) {
            if let Ok(range) = AddressRange::new(Ipv6Addr::from(a.min(b)).into(), Ipv6Addr::from(a.max(b)).into()) {
                prop_assert_eq!(range.to_string().parse::<AddressRange>(), Ok(range));
            }
        }
    }
}
