//! Names and addresses of the lab's hosts: pure arithmetic, so that a reader of a capture knows who is who.
//!
//! The net is 192.168.8.0/22 and fc00:f853:ccd:e799::/64. Node `n1` has 192.168.8.11, fc00:f853:ccd:e799::1:11 and
//! 02:77:00:00:00:0b; the client has .200, ::1:200 and 02:77:00:00:01:01, the client without a cache .201, ::1:201 and
//! 02:77:00:00:01:02, the host of the API server .202, ::1:202 and 02:77:00:00:01:04. A second link of `n1`, where there is one,
//! has 192.168.16.11, fc00:f853:ccd:e79a::1:11 and 02:77:00:00:02:0b.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use garpike_election::{MacAddr, NodeName};

/// A host's addresses on one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// The address of its network card.
    pub mac: MacAddr,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

impl Host {
    /// The client.
    pub const CLIENT: Self = Self {
        mac: MacAddr([0x02, 0x77, 0, 0, 0x01, 0x01]),
        v4: Ipv4Addr::new(192, 168, 8, 200),
        v6: Ipv6Addr::new(0xfc00, 0xf853, 0x0ccd, 0xe799, 0, 0, 1, 0x0200),
    };

    /// The client without a cache.
    pub const FRESH: Self = Self {
        mac: MacAddr([0x02, 0x77, 0, 0, 0x01, 0x02]),
        v4: Ipv4Addr::new(192, 168, 8, 201),
        v6: Ipv6Addr::new(0xfc00, 0xf853, 0x0ccd, 0xe799, 0, 0, 1, 0x0201),
    };

    /// The host of the API server.
    pub const API: Self = Self {
        mac: MacAddr([0x02, 0x77, 0, 0, 0x01, 0x04]),
        v4: Ipv4Addr::new(192, 168, 8, 202),
        v6: Ipv6Addr::new(0xfc00, 0xf853, 0x0ccd, 0xe799, 0, 0, 1, 0x0202),
    };

    /// The `number`th node, counted from 1.
    pub(super) fn node(number: NodeNumber) -> Self {
        Self::numbered(number, 0, 8, 0xe799)
    }

    /// The `number`th node, as the other nodes reach it where nodes have a link of their own.
    pub(super) fn node_inside(number: NodeNumber) -> Self {
        Self::numbered(number, 2, 16, 0xe79a)
    }

    fn numbered(number: NodeNumber, macs: u8, v4: u8, v6: u16) -> Self {
        let host = number.0 + 10;
        Self {
            mac: MacAddr([0x02, 0x77, 0, 0, macs, host]),
            v4: Ipv4Addr::new(192, 168, v4, host),
            v6: Ipv6Addr::new(0xfc00, 0xf853, 0x0ccd, v6, 0, 0, 1, digits_as_hex(host)),
        }
    }

    /// Both addresses with their prefix lengths.
    pub(super) fn addresses(&self) -> [(IpAddr, u8); 2] {
        [(self.v4.into(), PREFIX_LEN_V4), (self.v6.into(), PREFIX_LEN_V6)]
    }
}

/// A node's number, 1 to [`NodeNumber::MAX`].
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeNumber(u8);

impl NodeNumber {
    /// Beyond it the addresses would run into the client's.
    pub(super) const MAX: u8 = 100;

    /// The numbers of so many nodes; None when they are more than the plan has room for, or none.
    pub(super) fn first(nodes: usize) -> Option<impl Iterator<Item = Self>> {
        let last = u8::try_from(nodes).ok().filter(|last| (1..=Self::MAX).contains(last))?;
        Some((1..=last).map(Self))
    }

    /// The node's name: `n1`, `n2`, ...
    pub(super) fn name(self) -> NodeName {
        NodeName::new(&format!("n{}", self.0)).expect("a letter and digits are a node name")
    }
}

/// Of the network card that claims addresses which are not its own.
pub const STRANGER: MacAddr = MacAddr([0x02, 0x77, 0, 0, 0x01, 0x03]);

/// 11 becomes 0x11, so that an IPv6 address shows the same digits as the IPv4 address.
fn digits_as_hex(number: u8) -> u16 {
    let number = u16::from(number);
    ((number / 100) << 8) | ((number / 10 % 10) << 4) | (number % 10)
}

/// Of 192.168.8.0/22, in which the pool of MetalLB's own examples lies, 192.168.10.0; and of the nodes' own 192.168.16.0/22.
const PREFIX_LEN_V4: u8 = 22;
/// Of fc00:f853:ccd:e799::/64, the IPv6 net of the same examples, and of the nodes' own.
const PREFIX_LEN_V6: u8 = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn addresses_show_the_number_of_the_node() {
        let first = NodeNumber::first(1).unwrap().next().unwrap();

        let host = Host::node(first);

        assert_eq!(first.name().as_str(), "n1");
        assert_eq!(host.v4.to_string(), "192.168.8.11");
        assert_eq!(host.v6.to_string(), "fc00:f853:ccd:e799::1:11");
        assert_eq!(host.mac.to_string(), "02:77:00:00:00:0b");
        assert_eq!(Host::CLIENT.v6.to_string(), "fc00:f853:ccd:e799::1:200");
    }

    #[test]
    fn no_two_hosts_share_an_address() {
        let nodes = NodeNumber::first(100).unwrap().map(Host::node);
        let hosts: Vec<Host> = nodes.chain([Host::CLIENT, Host::FRESH, Host::API]).collect();
        let inside = NodeNumber::first(100).unwrap().map(Host::node_inside);
        let hosts: Vec<Host> = hosts.into_iter().chain(inside).collect();

        let addresses: BTreeSet<IpAddr> = hosts.iter().flat_map(|host| host.addresses()).map(|(ip, _)| ip).collect();
        let macs: BTreeSet<MacAddr> = hosts.iter().map(|host| host.mac).chain([STRANGER]).collect();

        assert_eq!(addresses.len(), 406);
        assert_eq!(macs.len(), 204);
    }

    #[test]
    fn only_as_many_nodes_as_the_plan_has_room_for() {
        assert!(NodeNumber::first(0).is_none());
        assert!(NodeNumber::first(100).is_some());
        assert!(NodeNumber::first(101).is_none());
    }
}
