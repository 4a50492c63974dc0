//! The host of an API server: a station on the segment that is no node.

use std::net::Ipv4Addr;
use std::thread::{self, JoinHandle};

use garpike_election::{IfIndex, MacAddr, NodeName};

use super::netns::Namespace;
use super::plan::Host;
use super::wiring::CLIENT_SYSCTLS;
use super::{Lab, LabError};

/// A host that is neither a node nor a client.
#[derive(Debug)]
pub(super) struct Station {
    namespace: Namespace,
    /// Its card on the other side of a partition, where it has one.
    aside: Option<IfIndex>,
}

impl Lab<'_> {
    /// Plugs a host for an API server into the segment; gives its address.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn add_api_host(&mut self) -> Result<Ipv4Addr, LabError> {
        let (namespace, _) = self.switch.connect("api", Host::API, CLIENT_SYSCTLS)?;
        self.api_host = Some(Station { namespace, aside: None });
        Ok(Host::API.v4)
    }

    /// Starts a thread on the host of the API server: its sockets and processes are of that host.
    ///
    /// # Errors
    ///
    /// When there is no such host, or no thread can be started.
    pub fn on_api_host(&self, job: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LabError> {
        let host = self.api_host.as_ref().ok_or(LabError::NoApiHost)?;
        // A thread begins in the network namespace of the one that starts it.
        let start = move || thread::Builder::new().name("kubernetes".to_owned()).spawn(job);
        host.namespace.run(move |_| start())?.map_err(LabError::Thread)
    }

    /// Moves a node behind the second bridge, as [`Lab::partition`] does, but lets it keep the API server: that is what a
    /// partition of the clients' segment alone is like.
    ///
    /// # Errors
    ///
    /// As all faults.
    pub fn partition_with_api(&mut self, node: &NodeName) -> Result<std::time::Instant, LabError> {
        let ip = self.host(node)?.v4;
        let host = self.api_host.as_mut().ok_or(LabError::NoApiHost)?;
        let aside = if let Some(aside) = host.aside {
            aside
        } else {
            let cable = self.switch.namespace.add_cable("p-api-aside", &host.namespace, "eth1", ASIDE)?;
            self.switch.namespace.set_bridge(cable.port, Some(self.switch.clients.aside))?;
            host.aside = Some(cable.card);
            cable.card
        };
        host.namespace.add_route(aside, ip)?;
        self.partition([node])
    }
}

/// Of the second card, 02:77:00:00:01:05.
const ASIDE: MacAddr = MacAddr([0x02, 0x77, 0, 0, 0x01, 0x05]);
