//! The lab: a network segment of real kernels in one machine, and an oracle that sees only the wire.
//!
//! One network namespace per host, a switch that is a bridge, a client, and cables that are veth pairs; set up by
//! rtnetlink alone, so no other program is needed. What the lab reports comes from the client's side of the wire, never
//! from what a speaker says about itself.
//!
//! ```text
//!   n1 eth0 ── p-n1 ┐     ┌ p-cl ── eth0 cl
//!   n2 eth0 ── p-n2 ┼ br0 ┤                      (br1: the other side of a partition)
//!   n3 eth0 ── p-n3 ┘     └ p-fresh ── eth0 fresh
//! ```
//!
//! With a second link every node also has `eth1` on a bridge for the nodes alone (br2, br3). `fresh` is the client without
//! a cache. Where speakers ask a Kubernetes API, its server is one more host on the segment, `api`.
//!
//! To use it, [`enter`] first thing in `main`, then [`Lab::build`]. Clocks: this module is a shell and reads them.

mod api_host;
mod arrival;
mod asked;
mod asker;
mod background;
pub mod bench;
mod connections;
mod dialer;
pub mod echo;
mod enter;
mod faults;
mod http;
mod limits;
pub mod load;
mod netns;
mod outage;
mod plan;
mod probe;
mod process;
mod selftest;
pub mod stand_in;
mod stranger;
mod switch;
mod tap;
mod wiring;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use garpike_announcer::io::{EtherType, OpenSocketError, PacketSocket};
use garpike_announcer::{Filter, Prefixes};
use garpike_election::{IfIndex, NodeName};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use thiserror::Error;

pub use asked::Asked;
pub use asker::{AskError, Asker};
pub use connections::{ConnectError, Connections, Kept};
pub use dialer::{Dialed, Dialer};
pub use enter::{EnterError, Entered, Init, enter};
pub use http::HttpError;
pub use limits::Forbidding;
pub use netns::NamespaceError;
pub use outage::{Disturbance, Outage, Record, Sample};
pub use plan::{Host, STRANGER};
pub use probe::{Probe, ProbeError};
pub(crate) use process::Finished;
pub use process::{Exit, Role, UnexpectedExit};
pub use selftest::{Check, Report, SelfTestError, selftest};
pub use stranger::Stranger;
pub use tap::{Announcement, Answer, Tap, TapError, Tapped};

use api_host::Station;
use faults::Attached;
use netns::Namespace;
use plan::NodeNumber;
use process::Processes;
use switch::{Second, Switch};
use wiring::{CLIENT_SYSCTLS, Cable, NODE_SYSCTLS};

/// What to build.
#[derive(Clone, Copy, Debug)]
pub struct LabConfig {
    /// How many nodes, 1 to 100.
    pub nodes: usize,
    /// How many network cards each node has.
    pub links: Links,
}

/// How the nodes are connected.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// One network card, for clients and gossip
    #[value(name = "1")]
    One,
    /// Two network cards: clients on the first, gossip on the second
    #[value(name = "2")]
    Two,
}

/// A segment with its hosts. Dropping it ends their processes and removes everything.
#[derive(Debug)]
pub struct Lab<'init> {
    processes: Processes,
    nodes: BTreeMap<NodeName, Node>,
    client: Namespace,
    client_port: IfIndex,
    fresh: Namespace,
    fresh_card: IfIndex,
    api_host: Option<Station>,
    switch: Switch,
    init: &'init mut Init,
}

impl<'init> Lab<'init> {
    /// Builds the segment. One lab at a time: `init` is borrowed until it is dropped.
    ///
    /// # Errors
    ///
    /// When the configuration has no room for so many nodes, or the kernel refuses something.
    pub fn build(init: &'init mut Init, config: LabConfig) -> Result<Self, LabError> {
        let numbers = NodeNumber::first(config.nodes).ok_or(LabError::Nodes { nodes: config.nodes })?;
        let switch = Switch::new(config.links)?;
        let mut nodes = BTreeMap::new();
        for number in numbers {
            let (name, host) = (number.name(), Host::node(number));
            let (namespace, cable) = switch.connect(name.as_str(), host, NODE_SYSCTLS)?;
            let second = switch.connect_second(&name, &namespace, Host::node_inside(number))?;
            nodes.insert(name, Node { host, namespace, cable, second, attached: Attached::Main });
        }
        let (client, Cable { port: client_port, .. }) = switch.connect("cl", Host::CLIENT, CLIENT_SYSCTLS)?;
        let (fresh, Cable { card: fresh_card, .. }) = switch.connect("fresh", Host::FRESH, CLIENT_SYSCTLS)?;
        let processes = Processes::new(init.scratch().join("logs"))?;
        Ok(Self { processes, nodes, client, client_port, fresh, fresh_card, api_host: None, switch, init })
    }

    /// The names of the nodes, in order.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.nodes.keys()
    }

    /// The addresses of a node on the clients' segment.
    ///
    /// # Errors
    ///
    /// When the lab has no such node.
    pub fn host(&self, node: &NodeName) -> Result<Host, LabError> {
        Ok(self.node(node)?.host)
    }

    /// The addresses under which the other nodes reach it: on the second link, where there is one.
    ///
    /// # Errors
    ///
    /// When the lab has no such node.
    pub fn host_inside(&self, node: &NodeName) -> Result<Host, LabError> {
        let node = self.node(node)?;
        Ok(node.second.map_or(node.host, |second| second.host))
    }

    /// A directory for files of the processes, such as manifests. It goes with the lab's process.
    pub fn scratch(&self) -> &Path {
        self.init.scratch()
    }

    /// Starts a process on a node. Its output goes to a log, its input is empty.
    ///
    /// # Errors
    ///
    /// When there is no such node or the program cannot be started.
    pub fn spawn(&mut self, node: &NodeName, role: Role, command: Command) -> Result<Pid, LabError> {
        let namespace = &self.nodes.get(node).ok_or_else(|| LabError::no_such_node(node))?.namespace;
        self.processes.spawn(namespace, node, role, command)
    }

    /// Runs a program on a node to its end.
    ///
    /// # Errors
    ///
    /// When there is no such node, the program cannot be started, or does not end in time.
    pub(crate) fn run_on(
        &mut self,
        node: &NodeName,
        command: Command,
        timeout: Duration,
    ) -> Result<Finished, LabError> {
        let namespace = &self.nodes.get(node).ok_or_else(|| LabError::no_such_node(node))?.namespace;
        self.processes.finish(namespace, node, command, timeout)
    }

    /// Runs a program at the client to its end.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or does not end in time.
    pub(crate) fn run_at_client(&mut self, command: Command, timeout: Duration) -> Result<Finished, LabError> {
        let client = NodeName::new("client").expect("letters are a name");
        self.processes.finish(&self.client, &client, command, timeout)
    }

    /// Where the logs of the processes lie.
    pub(crate) fn logs(&self) -> &Path {
        self.processes.logs()
    }

    /// The processes that ended without a fault that asked them to, each told once.
    pub fn unexpected_exits(&mut self) -> Vec<UnexpectedExit> {
        self.processes.take_unexpected()
    }

    /// Gives a node's network card an address of the segment, for which its kernel then answers.
    ///
    /// # Errors
    ///
    /// When there is no such node or its kernel refuses.
    pub fn add_address(&self, node: &NodeName, ip: IpAddr) -> Result<(), LabError> {
        let node = self.node(node)?;
        node.namespace.add_address(node.cable.card, ip, host_prefix_len(ip))
    }

    /// Takes it away again.
    ///
    /// # Errors
    ///
    /// When there is no such node or its kernel refuses.
    pub fn remove_address(&self, node: &NodeName, ip: IpAddr) -> Result<(), LabError> {
        let node = self.node(node)?;
        node.namespace.remove_address(node.cable.card, ip)
    }

    /// Tells a node's kernel for good where the client is: it answers the client even when its neighbour table, which all
    /// namespaces of the machine share, is full.
    ///
    /// # Errors
    ///
    /// When there is no such node or its kernel refuses.
    pub fn introduce_client(&self, node: &NodeName) -> Result<(), LabError> {
        let node = self.node(node)?;
        let Host { v4, v6, mac, .. } = Host::CLIENT;
        for ip in [IpAddr::V4(v4), IpAddr::V6(v6)] {
            node.namespace.add_neighbour(node.cable.card, ip, mac)?;
        }
        Ok(())
    }

    /// Makes an address local to a node without putting it on its network card: the node takes packets to it, and its
    /// kernel answers for it neither by ARP nor by neighbour discovery.
    ///
    /// # Errors
    ///
    /// When there is no such node or its kernel refuses.
    pub fn add_local_address(&self, node: &NodeName, ip: IpAddr) -> Result<(), LabError> {
        self.node(node)?.namespace.add_address(LOOPBACK, ip, host_prefix_len(ip))
    }

    /// Takes it away again.
    ///
    /// # Errors
    ///
    /// When there is no such node or its kernel refuses.
    pub fn remove_local_address(&self, node: &NodeName, ip: IpAddr) -> Result<(), LabError> {
        self.node(node)?.namespace.remove_address(LOOPBACK, ip)
    }

    /// Opens a socket for datagrams in bare frames on a node's network card.
    fn datagram_socket(&self, node: &NodeName) -> Result<Result<PacketSocket, OpenSocketError>, LabError> {
        let node = self.node(node)?;
        let (eth0, filter) = (node.cable.card, Filter::new(&Prefixes::default()));
        Ok(node.namespace.run(move |_| PacketSocket::open(eth0, EtherType::Datagram, &filter.datagrams))?)
    }

    /// Whether a node's network card sees a carrier.
    ///
    /// # Errors
    ///
    /// When there is no such node or its kernel does not answer.
    pub fn has_carrier(&self, node: &NodeName) -> Result<bool, LabError> {
        let node = self.node(node)?;
        node.namespace.has_carrier(node.cable.card)
    }

    /// Empties the client's neighbour cache, so that it asks for every address again.
    ///
    /// # Errors
    ///
    /// When its kernel refuses.
    pub fn forget_client_neighbours(&self) -> Result<(), LabError> {
        self.client.forget_neighbours()
    }

    /// Copies the logs of all processes to a directory that outlives the lab, and names it.
    ///
    /// # Errors
    ///
    /// When the copy cannot be written.
    pub fn keep_logs(&self) -> Result<PathBuf, LabError> {
        let logs = self.processes.logs();
        let copy = || {
            let kept = enter::temporary_directory()?.keep();
            for entry in fs::read_dir(logs)? {
                let entry = entry?;
                fs::copy(entry.path(), kept.join(entry.file_name()))?;
            }
            Ok(kept)
        };
        copy().map_err(|source| LabError::Log { path: logs.to_owned(), source })
    }

    fn node(&self, node: &NodeName) -> Result<&Node, LabError> {
        self.nodes.get(node).ok_or_else(|| LabError::no_such_node(node))
    }
}

impl Drop for Lab<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            match self.keep_logs() {
                Ok(path) => tracing::error!(path = %path.display(), "the lab ends in a panic; its logs are kept"),
                Err(error) => tracing::error!(%error, "the lab ends in a panic; its logs are lost"),
            }
        }
        self.processes.end();
        if let Err(error) = fs::remove_dir_all(self.processes.logs()) {
            tracing::debug!(%error, "logs are not removed");
        }
    }
}

/// Why the lab could not do what it was asked to.
#[derive(Debug, Error)]
pub enum LabError {
    /// The plan of addresses has no room.
    #[error("a lab of {nodes} nodes is not possible, 1 to {} are", NodeNumber::MAX)]
    Nodes {
        /// How many were asked for.
        nodes: usize,
    },
    /// There is no node of this name.
    #[error("the lab has no node {node}; they are n1, n2, ...")]
    NoSuchNode {
        /// The name.
        node: NodeName,
    },
    /// A namespace could not be made or used.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The kernel refused a change.
    #[error("namespace {namespace}: cannot {what}: {source}")]
    Netlink {
        /// Where.
        namespace: String,
        /// What was asked for.
        what: String,
        /// The kernel's answer.
        source: Box<rtnetlink::Error>,
    },
    /// An interface is missing.
    #[error("namespace {namespace}: there is no link {link}")]
    NoLink {
        /// Where.
        namespace: String,
        /// Its name.
        link: String,
    },
    /// A sysctl could not be written.
    #[error(
        "namespace {namespace}: cannot write {value} to /proc/sys/{path}: {source}; in a container /proc/sys is often \
         read-only: run outside of it, or privileged"
    )]
    Sysctl {
        /// Where.
        namespace: String,
        /// Path below `/proc/sys`.
        path: &'static str,
        /// The value.
        value: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {} as the {role} of {node}: {source}", program.display())]
    Spawn {
        /// Where.
        node: NodeName,
        /// As what.
        role: Role,
        /// The program.
        program: OsString,
        /// The cause.
        source: io::Error,
    },
    /// A signal could not be sent.
    #[error("cannot send {signal} to the {role} of {node}: {errno}")]
    Signal {
        /// Where.
        node: NodeName,
        /// To whom.
        role: Role,
        /// The signal.
        signal: Signal,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A fault aims at a process that does not run.
    #[error("no {role} runs on {node}")]
    NotRunning {
        /// Where.
        node: NodeName,
        /// The process.
        role: Role,
    },
    /// The segment has no host for an API server.
    #[error("the lab has no host for an API server")]
    NoApiHost,
    /// A process does not end.
    #[error("a process of {node} still runs {timeout:?} after it was told to end")]
    StillRunning {
        /// Where.
        node: NodeName,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// A log could not be written or copied.
    #[error("log {}: {source}", path.display())]
    Log {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

impl LabError {
    fn no_such_node(node: &NodeName) -> Self {
        Self::NoSuchNode { node: node.clone() }
    }
}

#[derive(Debug)]
struct Node {
    host: Host,
    namespace: Namespace,
    cable: Cable,
    second: Option<Second>,
    attached: Attached,
}

fn host_prefix_len(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

#[expect(clippy::disallowed_methods, reason = "the lab is a shell: it measures with the system's clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// `lo` is the first interface of every network namespace.
const LOOPBACK: IfIndex = IfIndex(1);
