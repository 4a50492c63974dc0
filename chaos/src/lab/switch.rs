//! The switch: bridges in a namespace of their own, and the cables that lead to them.

use garpike_election::{IfIndex, NodeName};

use super::netns::Namespace;
use super::plan::Host;
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
        let cable = self.plug(&namespace, &format!("p-{name}"), "eth0", host, self.clients)?;
        Ok((namespace, cable))
    }

    /// Gives a node its second network card, where nodes have one.
    pub(super) fn connect_second(
        &self,
        name: &NodeName,
        namespace: &Namespace,
        host: Host,
    ) -> Result<Option<Second>, LabError> {
        let Some(bridges) = self.nodes else { return Ok(None) };
        let cable = self.plug(namespace, &format!("q-{name}"), "eth1", host, bridges)?;
        Ok(Some(Second { host, cable }))
    }

    fn plug(
        &self,
        namespace: &Namespace,
        port: &str,
        card: &str,
        host: Host,
        bridges: Bridges,
    ) -> Result<Cable, LabError> {
        let cable = self.namespace.add_cable(port, namespace, card, host.mac)?;
        for (ip, prefix_len) in host.addresses() {
            namespace.add_address(cable.card, ip, prefix_len)?;
        }
        self.namespace.set_bridge(cable.port, Some(bridges.main))?;
        Ok(cable)
    }
}

/// The second link of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Second {
    pub(super) host: Host,
    pub(super) cable: Cable,
}
