//! What the kernel says about the node's interfaces, and which of them can announce.
//!
//! A [`LinkSet`] is a whole snapshot: what is not in it does not exist. It says nothing about routes.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use garpike_election::{IfIndex, InterfaceName, MacAddr};
use ipnet::IpNet;

use crate::excluded::Excluded;

/// All interfaces of the node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkSet {
    /// The interfaces by their number.
    pub links: BTreeMap<IfIndex, Link>,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: InterfaceName,
    /// Its Ethernet address; `None` when it is of another type.
    pub mac: Option<MacAddr>,
    /// Switched on by the administrator (`IFF_UP`).
    pub up: bool,
    /// The medium is there and usable (`IFF_LOWER_UP` and `IFF_RUNNING`), and has been for long enough after it flapped.
    pub carrier: bool,
    /// How often the carrier came, or the kernel told the neighbours anew where this host is, as a bond does that fails
    /// over: what was announced before may be forgotten, although no snapshot shows a loss.
    pub carrier_ups: u32,
    /// The loopback interface.
    pub loopback: bool,
    /// Neighbours are not asked for on it (`IFF_NOARP`).
    pub no_arp: bool,
    /// There is one neighbour only (`IFF_POINTOPOINT`).
    pub point_to_point: bool,
    /// The bridge, bond or VRF that it belongs to, which speaks in its place.
    pub master: Option<IfIndex>,
    /// Its usable addresses with their nets, in the kernel's order. Tentative ones are left out.
    pub nets: Vec<IpNet>,
    /// The largest packet in bytes.
    pub mtu: u32,
}

impl Link {
    /// An Ethernet interface that is up and has its carrier.
    pub fn ethernet(name: InterfaceName, mac: MacAddr, nets: Vec<IpNet>) -> Self {
        Self {
            name,
            mac: Some(mac),
            up: true,
            carrier: true,
            carrier_ups: 1,
            loopback: false,
            no_arp: false,
            point_to_point: false,
            master: None,
            nets,
            mtu: 1500,
        }
    }

    /// Its first IPv6 link-local address.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        self.ipv6().find(Ipv6Addr::is_unicast_link_local)
    }

    /// Whether the kernel takes IPv6 packets on it: it has an address of that family.
    pub fn has_ipv6(&self) -> bool {
        self.ipv6().next().is_some()
    }

    /// Why it cannot announce; `None` when it can.
    pub fn obstacle(&self, excluded: &Excluded) -> Option<Obstacle> {
        if self.loopback {
            Some(Obstacle::Loopback)
        } else if self.no_arp {
            Some(Obstacle::NoArp)
        } else if self.point_to_point {
            Some(Obstacle::PointToPoint)
        } else if self.mac.is_none() {
            Some(Obstacle::NotEthernet)
        } else if self.master.is_some() {
            Some(Obstacle::Enslaved)
        } else if excluded.contains(&self.name) {
            Some(Obstacle::Excluded)
        } else if !self.up {
            Some(Obstacle::Down)
        } else if !self.carrier {
            Some(Obstacle::NoCarrier)
        } else {
            None
        }
    }

    fn ipv6(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.nets.iter().filter_map(|net| match net {
            IpNet::V4(_) => None,
            IpNet::V6(net) => Some(net.addr()),
        })
    }
}

/// Why an interface cannot announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// It is the loopback interface.
    Loopback,
    /// It has no neighbour resolution.
    NoArp,
    /// It has one neighbour only.
    PointToPoint,
    /// It is not Ethernet.
    NotEthernet,
    /// It is a port of a bridge, bond or VRF.
    Enslaved,
    /// Its name is excluded.
    Excluded,
    /// It is switched off.
    Down,
    /// It has no carrier.
    NoCarrier,
}

impl Obstacle {
    /// The obstacle in words, for `/state.json` and logs.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Loopback => "is the loopback interface",
            Self::NoArp => "has no neighbour resolution (NOARP)",
            Self::PointToPoint => "is a point-to-point link",
            Self::NotEthernet => "is not Ethernet",
            Self::Enslaved => "is a port of a bridge, bond or VRF",
            Self::Excluded => "has an excluded name",
            Self::Down => "is down",
            Self::NoCarrier => "has no carrier",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_obstacle_is_named() {
        let good = || link("eth0");
        let master = Some(IfIndex(9));
        let table = [
            (good(), None),
            (Link { loopback: true, ..good() }, Some(Obstacle::Loopback)),
            (Link { no_arp: true, ..good() }, Some(Obstacle::NoArp)),
            (Link { point_to_point: true, ..good() }, Some(Obstacle::PointToPoint)),
            (Link { mac: None, ..good() }, Some(Obstacle::NotEthernet)),
            (Link { master, ..good() }, Some(Obstacle::Enslaved)),
            (Link { up: false, ..good() }, Some(Obstacle::Down)),
            (Link { carrier: false, ..good() }, Some(Obstacle::NoCarrier)),
            (Link { name: name("cali0123"), ..good() }, Some(Obstacle::Excluded)),
            (Link { name: name("veth7"), ..good() }, Some(Obstacle::Excluded)),
            (Link { name: name("mycali0"), ..good() }, None),
        ];
        for (link, expected) in table {
            assert_eq!(link.obstacle(&Excluded::default()), expected, "{link:?}");
        }
    }

    #[test]
    fn the_link_local_address_is_found_among_others() {
        let nets = ["192.168.8.11/22", "fc00::11/64", "fe80::1/64"].map(|net| net.parse().unwrap());
        let link = Link { nets: nets.to_vec(), ..link("eth0") };
        assert_eq!(link.link_local(), Some("fe80::1".parse().unwrap()));
        assert!(link.has_ipv6());
    }

    fn name(name: &str) -> InterfaceName {
        name.parse().unwrap()
    }

    fn link(text: &str) -> Link {
        Link::ethernet(name(text), MacAddr([2, 0, 0, 0, 0, 1]), Vec::new())
    }
}
