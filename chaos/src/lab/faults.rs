//! What goes wrong in the lab. Every fault is undone by another call and returns the instant just before it began.
//!
//! `crash` is a host that falls silent: its network card still has a carrier, so only silence tells. `link_down` is a
//! pulled cable: the node sees it. `kill`, `term` and `freeze` hit the speaker alone; its host lives on.

use std::time::{Duration, Instant};

use garpike_election::NodeName;
use nix::sys::signal::Signal;

use super::process::{Role, Which};
use super::switch::Bridges;
use super::wiring::LinkState;
use super::{Lab, LabError, now};

impl Lab<'_> {
    /// Lets a host fall silent at once: its port leaves the bridge, its processes stop.
    ///
    /// # Errors
    ///
    /// As all faults: when there is no such node or the kernel refuses.
    pub fn crash(&mut self, node: &NodeName) -> Result<Instant, LabError> {
        let begun = now();
        self.attach(node, Attached::Nowhere)?;
        self.processes.signal(node, Which::All, Signal::SIGSTOP)?;
        Ok(begun)
    }

    /// Undoes [`Lab::crash`] as if the host had been paused: its processes go on where they were.
    ///
    /// # Errors
    ///
    /// As all faults.
    pub fn revive(&mut self, node: &NodeName) -> Result<Instant, LabError> {
        let begun = now();
        self.attach(node, Attached::Main)?;
        self.processes.signal(node, Which::All, Signal::SIGCONT)?;
        Ok(begun)
    }

    /// Undoes [`Lab::crash`] by a new start of the host: no process, no service IP and no neighbour is left. The
    /// caller starts its processes again.
    ///
    /// # Errors
    ///
    /// As all faults, and when a process does not end.
    pub fn reboot(&mut self, node: &NodeName) -> Result<Instant, LabError> {
        let begun = self.power_off(node)?;
        self.power_on(node)?;
        Ok(begun)
    }

    /// Lets a host fall silent at once and ends its processes.
    ///
    /// # Errors
    ///
    /// As all faults, and when a process does not end.
    pub fn power_off(&mut self, node: &NodeName) -> Result<Instant, LabError> {
        let begun = now();
        self.attach(node, Attached::Nowhere)?;
        self.processes.signal(node, Which::All, Signal::SIGKILL)?;
        self.processes.wait(node, Which::All, ENDS_WITHIN)?;
        Ok(begun)
    }

    /// Plugs a host in again that was powered off; the caller starts its processes.
    ///
    /// # Errors
    ///
    /// As all faults.
    pub fn power_on(&mut self, node: &NodeName) -> Result<Instant, LabError> {
        let begun = now();
        self.node(node)?.namespace.forget()?;
        self.link_up(node)?;
        self.attach(node, Attached::Main)?;
        Ok(begun)
    }

    /// Takes the switch's side of a node's cable to the clients down: the node loses that carrier.
    ///
    /// # Errors
    ///
    /// As all faults.
    pub fn link_down(&mut self, node: &NodeName) -> Result<Instant, LabError> {
        self.set_port(node, LinkState::Down)
    }

    /// Undoes [`Lab::link_down`].
    ///
    /// # Errors
    ///
    /// As all faults.
    pub fn link_up(&mut self, node: &NodeName) -> Result<Instant, LabError> {
        self.set_port(node, LinkState::Up)
    }

    /// Kills a node's speaker (SIGKILL).
    ///
    /// # Errors
    ///
    /// As all faults, and when no speaker runs there.
    pub fn kill(&mut self, node: &NodeName) -> Result<Instant, LabError> {
        self.signal_speaker(node, Signal::SIGKILL)
    }

    /// Kills what serves on a node; its speaker lives on.
    ///
    /// # Errors
    ///
    /// As all faults, and when nothing serves there.
    pub fn kill_echo(&mut self, node: &NodeName) -> Result<Instant, LabError> {
        self.signal_role(node, Role::Echo, Signal::SIGKILL)
    }

    /// Asks a node's speaker to end (SIGTERM).
    ///
    /// # Errors
    ///
    /// As all faults, and when no speaker runs there.
    pub fn term(&mut self, node: &NodeName) -> Result<Instant, LabError> {
        self.signal_speaker(node, Signal::SIGTERM)
    }

    /// Stops a node's speaker without ending it (SIGSTOP).
    ///
    /// # Errors
    ///
    /// As all faults, and when no speaker runs there.
    pub fn freeze(&mut self, node: &NodeName) -> Result<Instant, LabError> {
        self.signal_speaker(node, Signal::SIGSTOP)
    }

    /// Undoes [`Lab::freeze`].
    ///
    /// # Errors
    ///
    /// As all faults, and when no speaker runs there.
    pub fn thaw(&mut self, node: &NodeName) -> Result<Instant, LabError> {
        self.signal_speaker(node, Signal::SIGCONT)
    }

    /// Waits until a node's speaker has ended, after [`Lab::term`].
    ///
    /// # Errors
    ///
    /// When it still runs after `timeout`.
    pub fn wait_for_end(&mut self, node: &NodeName, timeout: Duration) -> Result<(), LabError> {
        self.processes.wait(node, Which::Only(Role::Speaker), timeout)
    }

    /// Splits the segment: these nodes see each other and nobody else. The client stays with the others.
    ///
    /// # Errors
    ///
    /// As all faults.
    pub fn partition<'n>(&mut self, nodes: impl IntoIterator<Item = &'n NodeName>) -> Result<Instant, LabError> {
        let begun = now();
        for node in nodes {
            self.attach(node, Attached::Aside)?;
        }
        Ok(begun)
    }

    /// Undoes [`Lab::partition`] for all nodes.
    ///
    /// # Errors
    ///
    /// As all faults.
    pub fn heal(&mut self) -> Result<Instant, LabError> {
        let begun = now();
        let aside = self.nodes.iter().filter(|(_, node)| node.attached == Attached::Aside);
        let aside: Vec<NodeName> = aside.map(|(name, _)| name.clone()).collect();
        for node in &aside {
            self.attach(node, Attached::Main)?;
        }
        Ok(begun)
    }

    /// Cuts the client off behind a switch that goes on giving it a carrier: it keeps what it knows of its neighbours.
    ///
    /// # Errors
    ///
    /// As all faults.
    pub fn uplink_down(&mut self) -> Result<Instant, LabError> {
        let begun = now();
        self.switch.namespace.set_bridge(self.client_port, None)?;
        Ok(begun)
    }

    /// Undoes [`Lab::uplink_down`].
    ///
    /// # Errors
    ///
    /// As all faults.
    pub fn uplink_up(&mut self) -> Result<Instant, LabError> {
        let begun = now();
        self.switch.namespace.set_bridge(self.client_port, Some(self.switch.clients.main))?;
        Ok(begun)
    }

    fn attach(&mut self, name: &NodeName, attached: Attached) -> Result<(), LabError> {
        let node = self.nodes.get_mut(name).ok_or_else(|| LabError::no_such_node(name))?;
        let bridge = |of: Bridges| match attached {
            Attached::Main => Some(of.main),
            Attached::Aside => Some(of.aside),
            Attached::Nowhere => None,
        };
        self.switch.namespace.set_bridge(node.cable.port, bridge(self.switch.clients))?;
        if let (Some(second), Some(bridges)) = (node.second, self.switch.nodes) {
            self.switch.namespace.set_bridge(second.cable.port, bridge(bridges))?;
        }
        node.attached = attached;
        Ok(())
    }

    fn set_port(&mut self, node: &NodeName, state: LinkState) -> Result<Instant, LabError> {
        let port = self.node(node)?.cable.port;
        let begun = now();
        self.switch.namespace.set_link(port, state)?;
        Ok(begun)
    }

    fn signal_speaker(&mut self, node: &NodeName, signal: Signal) -> Result<Instant, LabError> {
        self.signal_role(node, Role::Speaker, signal)
    }

    fn signal_role(&mut self, node: &NodeName, role: Role, signal: Signal) -> Result<Instant, LabError> {
        self.node(node)?;
        let begun = now();
        match self.processes.signal(node, Which::Only(role), signal)? {
            0 => Err(LabError::NotRunning { node: node.clone(), role }),
            _ => Ok(begun),
        }
    }
}

/// Where a node's port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    /// With the client.
    Main,
    /// On the other side of a partition.
    Aside,
    /// In no bridge: frames go nowhere, the carrier stays.
    Nowhere,
}

/// SIGKILL needs one scheduling of the process; chosen with room for a machine under load.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
