//! What the network around this node looks like, as its announcer sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use garpike_election::{Handicap, InterfaceName, MacAddr, Selection, Wire};

/// What the cluster is told of the links of this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Surroundings {
    /// The interfaces on which this node can announce.
    pub interfaces: Selection<InterfaceName>,
    /// How they look on their wires.
    pub wires: BTreeMap<InterfaceName, Wire>,
    /// Whether a station other than the members (a gateway, somebody who asked for an address) is known on one of them.
    pub stations: bool,
    /// How the gateways behind them do.
    pub gateway: Gateway,
    /// What makes this node a worse owner than others, as far as the cluster does not find it out itself.
    pub handicaps: BTreeSet<Handicap>,
}

impl Surroundings {
    /// Nothing is known yet of links; `interfaces` can announce.
    pub fn new(interfaces: Selection<InterfaceName>) -> Self {
        Self {
            interfaces,
            wires: BTreeMap::new(),
            stations: false,
            gateway: Gateway::Answers,
            handicaps: BTreeSet::new(),
        }
    }
}

/// Whether the gateways of a node answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gateway {
    /// All that ever did, or there is none.
    Answers,
    /// One that did does not any more.
    Silent,
}

/// The way that a datagram comes or goes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Path {
    /// UDP, by the address of the other end.
    Udp(SocketAddr),
    /// A bare Ethernet frame of [`ETHERTYPE`], by the interface here and the Ethernet address of the other end.
    Wire(InterfaceName, MacAddr),
}

/// The EtherType of datagrams in bare frames: IEEE 802 local experimental 1.
pub const ETHERTYPE: u16 = 0x88b5;

impl Path {
    /// The other end without its port: its IP or Ethernet address.
    pub fn station(&self) -> String {
        match self {
            Self::Udp(addr) => addr.ip().to_string(),
            Self::Wire(_, mac) => mac.to_string(),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(addr) => fmt::Display::fmt(addr, f),
            Self::Wire(interface, mac) => write!(f, "{mac} on {interface}"),
        }
    }
}

impl serde::Serialize for Path {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<SocketAddr> for Path {
    fn from(addr: SocketAddr) -> Self {
        Self::Udp(addr)
    }
}

/// Something that the owner of a cluster is asked to do, besides sending datagrams.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Open a TCP connection and drop it at once, with a reset. When it is accepted **or refused**, the host lives: say so
    /// by [`crate::Cluster::handle_host_answer`]. Anything else, or nothing within 1 s, says nothing.
    ProbeHost {
        /// What the answer is to name.
        probe: ProbeId,
        /// Where to.
        to: SocketAddr,
    },
    /// Let the stations on the wires say something (ARP and neighbour requests); say by
    /// [`crate::Cluster::handle_station_answer`] when one of them did.
    AskStations,
    /// Exchange states with the member at this address (TCP): hand its [`crate::Cluster::state`] to
    /// [`crate::Cluster::handle_state`] and ours to it.
    Exchange {
        /// Where to.
        with: SocketAddr,
    },
    /// Find out whether the speaker at this address answers by TCP, though not by UDP: say so by
    /// [`crate::Cluster::handle_reached`].
    Reach {
        /// Where to.
        with: SocketAddr,
    },
}

/// The number of a probe of a host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProbeId(pub u64);
