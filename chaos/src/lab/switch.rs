//! The switch: bridges in a namespace of their own, and the cables that lead to them.

use garpike_election::{IfIndex, NodeName};

use super::netns::Namespace;
use super::plan::{Host, SecondLink};
use super::wiring::{Cable, LinkState, SWITCH_SYSCTLS};
use super::{LOOPBACK, LabError, Links};

/// The bridges, in a namespace of their own.
#[derive(Debug)]
pub(super) struct Switch {
    pub(super) namespace: Namespace,
    /// Of the clients' segment.
    pub(super) clients: Bridges,
    /// Of the nodes' own segment, where they have two links.
    pub(super) nodes: Option<Bridges>,
}

/// Of one segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bridges {
    pub(super) main: IfIndex,
    /// The other side of a partition.
    pub(super) aside: IfIndex,
}

impl Switch {
    pub(super) fn new(links: Links) -> Result<Self, LabError> {
        let namespace = Namespace::new("switch")?;
        namespace.set_sysctls(SWITCH_SYSCTLS)?;
        let bridges = |main, aside| -> Result<Bridges, LabError> {
            Ok(Bridges { main: namespace.add_bridge(main)?, aside: namespace.add_bridge(aside)? })
        };
        let clients = bridges("br0", "br1")?;
        let nodes = match links {
            Links::One => None,
            Links::Two => Some(bridges("br2", "br3")?),
        };
        Ok(Self { namespace, clients, nodes })
    }

    /// Makes a host with one network card, plugged into the main bridge.
    pub(super) fn connect(
        &self,
        name: &str,
        host: Host,
        sysctls: &'static [(&'static str, &'static str)],
    ) -> Result<(Namespace, Cable), LabError> {
        let namespace = Namespace::new(name)?;
        namespace.set_sysctls(sysctls)?;
        namespace.set_link(LOOPBACK, LinkState::Up)?;
        let cable = self.namespace.add_cable(&format!("p-{name}"), &namespace, "eth0", host.mac)?;
        for (ip, prefix_len) in host.addresses() {
            namespace.add_address(cable.card, ip, prefix_len)?;
        }
        self.namespace.set_bridge(cable.port, Some(self.clients.main))?;
        Ok((namespace, cable))
    }

    /// Gives a node its second network card, where nodes have one.
    pub(super) fn connect_second(
        &self,
        name: &NodeName,
        namespace: &Namespace,
        link: SecondLink,
    ) -> Result<Option<Second>, LabError> {
        let Some(bridges) = self.nodes else { return Ok(None) };
        let cable = self.namespace.add_cable(&format!("q-{name}"), namespace, "eth1", link.mac)?;
        namespace.add_address(cable.card, link.v4.into(), SecondLink::PREFIX_LEN)?;
        self.namespace.set_bridge(cable.port, Some(bridges.main))?;
        Ok(Some(Second { link, cable }))
    }
}

/// The second link of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Second {
    pub(super) link: SecondLink,
    pub(super) cable: Cable,
}
