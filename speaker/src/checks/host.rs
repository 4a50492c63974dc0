//! Reads the settings of the kernel that the checks look at.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use garpike_announcer::io::arp_sysctl;
use garpike_election::{InterfaceName, Selection};

/// The settings of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Host {
    /// The settings that let the kernel speak for addresses of other interfaces.
    pub(crate) arp: Vec<arp_sysctl::Finding>,
    /// The interfaces whose IPv6 packets are forwarded, which makes this host a router there.
    pub(crate) forwards_ipv6: BTreeSet<InterfaceName>,
}

impl Host {
    /// Reads what there is to know of the interfaces that can announce. What cannot be read is as it should be.
    pub(crate) fn read(interfaces: &Selection<InterfaceName>) -> Self {
        Self::read_below(Path::new(IPV6_CONF), interfaces)
    }

    fn read_below(ipv6_conf: &Path, interfaces: &Selection<InterfaceName>) -> Self {
        let Selection::Only(interfaces) = interfaces else { return Self::default() };
        let forwards = |name: &&InterfaceName| {
            let setting = fs::read_to_string(ipv6_conf.join(name.as_str()).join("forwarding"));
            setting.is_ok_and(|value| value.trim() != "0")
        };
        Self {
            arp: arp_sysctl::check(interfaces),
            forwards_ipv6: interfaces.iter().filter(forwards).cloned().collect(),
        }
    }
}

const IPV6_CONF: &str = "/proc/sys/net/ipv6/conf";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarding_is_a_setting_of_each_interface() {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in [("eth0", "1\n"), ("eth1", "0\n")] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("forwarding"), value).unwrap();
        }
        let names = ["eth0", "eth1", "eth2"].map(|name| InterfaceName::new(name).unwrap());

        let host = Host::read_below(dir.path(), &Selection::Only(names.clone().into()));

        let [eth0, ..] = names;
        assert_eq!(host.forwards_ipv6, BTreeSet::from([eth0]));
    }
}
