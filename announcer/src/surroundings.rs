//! How the wires of this node look, for the facts that the membership gossips.

use std::collections::{BTreeMap, BTreeSet};

use garpike_election::{InterfaceName, Selection, Wire};
use ipnet::IpNet;

use crate::links::Link;

/// What the announcer sees of the network around this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The interfaces that can announce.
    pub interfaces: Selection<InterfaceName>,
    /// How they look to others on their wires.
    pub wires: BTreeMap<InterfaceName, Wire>,
    /// Whether a station that is no member was heard on one of them within the last ten minutes.
    pub stations: bool,
    /// Whether a gateway that was known does not answer any more.
    pub gateway_silent: bool,
}

impl Default for Surroundings {
    /// Nothing is known of the node's interfaces, or there are none.
    fn default() -> Self {
        let (interfaces, wires) = (Selection::Only(BTreeSet::new()), BTreeMap::new());
        Self { interfaces, wires, stations: false, gateway_silent: false }
    }
}

/// The networks that tell which segment an interface is on: one address for each, link-local ones and those of a single
/// address left out.
pub(crate) fn telling_nets(link: &Link) -> BTreeSet<IpNet> {
    let tells = |net: &&IpNet| match net {
        IpNet::V4(net) => !net.addr().is_link_local() && net.prefix_len() < net.max_prefix_len(),
        IpNet::V6(net) => !net.addr().is_unicast_link_local() && net.prefix_len() < net.max_prefix_len(),
    };
    let nets: BTreeSet<IpNet> = link.nets.iter().filter(tells).copied().collect();
    let mut seen = BTreeSet::new();
    nets.into_iter().filter(|net| seen.insert(net.trunc())).take(MAX_NETS).collect()
}

/// Chosen: more than an interface has in practice, few enough for a datagram of facts.
const MAX_NETS: usize = 4;

#[cfg(test)]
mod tests {
    use garpike_election::MacAddr;

    use super::*;

    #[test]
    fn each_network_is_told_once_and_only_if_it_tells_the_segment() {
        let nets = [
            "192.168.8.12/22",
            "192.168.8.11/22",
            "169.254.3.3/16",
            "192.168.10.1/32",
            "fe80::1/64",
            "fc00::2/64",
            "fc00::1/64",
            "fc00:1::1/128",
        ];
        let link = Link { nets: nets.map(|net| net.parse().unwrap()).to_vec(), ..link() };

        let told: Vec<String> = telling_nets(&link).iter().map(ToString::to_string).collect();

        assert_eq!(told, ["192.168.8.11/22", "fc00::1/64"]);
    }

    #[test]
    fn the_networks_of_an_interface_are_bounded() {
        let nets = (0..100).map(|i| format!("10.{i}.0.1/16").parse().unwrap()).collect();

        assert_eq!(telling_nets(&Link { nets, ..link() }).len(), MAX_NETS);
    }

    fn link() -> Link {
        Link::ethernet("eth0".parse().unwrap(), MacAddr([2, 0, 0, 0, 0, 1]), Vec::new())
    }
}
