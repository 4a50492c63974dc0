//! A kernel on the bench: one host, whose only neighbour is the caller.
//!
//! ```text
//!   caller ── wire ══ eth0 host
//! ```
//!
//! The caller sends it any frame, hears every frame that it sends, and looks into its neighbour cache. Nothing else is on
//! the wire, so whatever changes in the cache the caller's frames have changed.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::TryStreamExt;
use garpike_announcer::io::{EtherType, OpenSocketError, PacketSocket};
use garpike_announcer::{Filter, Prefixes};
use garpike_election::{IfIndex, MacAddr};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{BridgeStpState, MacVlanMode};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::{LinkBridge, LinkMacVlan, LinkUnspec, LinkVeth};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use super::netns::Namespace;
use super::wiring::{CLIENT_SYSCTLS, Cable, LinkState, SWITCH_SYSCTLS};
use super::{Host, Init, LOOPBACK, LabError};

/// A host and the wire to it.
#[derive(Debug)]
pub struct Bench {
    host: Namespace,
    wire: Namespace,
    cable: Cable,
    sender: PacketSocket,
    listener: Socket,
}

/// A sysctl below `/proc/sys` and its value.
#[derive(Clone, Copy, Debug)]
pub struct Setting(pub &'static str, pub &'static str);

/// What a neighbour cache says about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// How sure it is (`NUD_*`).
    pub state: Nud,
    /// Where the address is.
    pub mac: Option<MacAddr>,
}

/// The states of neighbour unreachability detection (RFC 4861 section 7.3.2) as Linux has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nud {
    /// It is being looked for.
    Incomplete,
    /// It has answered lately.
    Reachable,
    /// It may be there.
    Stale,
    /// It is used, and will be asked soon.
    Delay,
    /// It is being asked.
    Probe,
    /// It was not found.
    Failed,
    /// The administrator says so.
    Permanent,
}

/// Whether a link is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cord {
    /// Plugged in.
    In,
    /// Pulled out.
    Out,
}

impl Bench {
    /// A host with the addresses of the lab's client and the kernel's defaults, but for the settings.
    ///
    /// # Errors
    ///
    /// When the kernel refuses something.
    pub fn new(_inside: &Init, settings: &[Setting]) -> Result<Self, BenchError> {
        let (host, wire) = (Namespace::new("host")?, Namespace::new("wire")?);
        host.set_sysctls(CLIENT_SYSCTLS)?;
        wire.set_sysctls(SWITCH_SYSCTLS)?;
        host.set_link(LOOPBACK, LinkState::Up)?;
        // Linux takes an interface whose peer has the same number for a network card, and tells of its carrier once a second.
        wire.add_bridge("unused")?;
        let cable = wire.add_cable("p-host", &host, "eth0", Host::CLIENT.mac)?;
        for (ip, prefix_len) in Host::CLIENT.addresses() {
            host.add_address(cable.card, ip, prefix_len)?;
        }
        for Setting(path, value) in settings.iter().copied() {
            host.run(move |_| std::fs::write(format!("/proc/sys/{path}"), value))?
                .map_err(|source| BenchError::Setting { path, value, source })?;
        }
        let port = cable.port;
        let filter = Filter::new(&Prefixes::default());
        let sender = wire.run(move |_| PacketSocket::open(port, EtherType::Arp, &filter.arp))??;
        let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
        let listener = wire.run(move |_| Socket::new(Domain::PACKET, Type::RAW, Some(protocol)))??;
        listener.set_nonblocking(true)?;
        Ok(Self { host, wire, cable, sender, listener })
    }

    /// The number of the host's network card.
    pub fn eth0(&self) -> IfIndex {
        self.cable.card
    }

    /// Sends the host a frame.
    ///
    /// # Errors
    ///
    /// When the wire is cut.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.sender.send(frame)
    }

    /// The frames that the host has sent since the last call, and those of the caller.
    ///
    /// # Errors
    ///
    /// When the socket fails.
    pub fn heard(&self) -> io::Result<Vec<Vec<u8>>> {
        std::iter::from_fn(|| receive(&self.listener).transpose()).collect()
    }

    /// Does something in the host's network namespace: opens a socket there, starts a program.
    ///
    /// # Errors
    ///
    /// When its thread has ended.
    pub fn on_host<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, BenchError> {
        Ok(self.host.run(move |_| job())?)
    }

    /// Has the host send a datagram to each address, so that it looks for it.
    ///
    /// # Errors
    ///
    /// When it has no sockets.
    pub fn look_for(&self, ips: Vec<IpAddr>) -> Result<(), BenchError> {
        self.on_host(move || {
            let (v4, v6) = (UdpSocket::bind("0.0.0.0:0")?, UdpSocket::bind("[::]:0")?);
            for socket in [&v4, &v6] {
                socket.set_nonblocking(true)?;
            }
            for ip in ips {
                // That nobody is there is what the caller wants to see.
                let _ = if ip.is_ipv4() { &v4 } else { &v6 }.send_to(&[0], (ip, DISCARD));
            }
            Ok(())
        })?
        .map_err(BenchError::Socket)
    }

    /// Puts an entry into the host's neighbour cache, as its administrator could.
    ///
    /// # Errors
    ///
    /// When its kernel refuses.
    pub fn set_neighbour(&self, ip: IpAddr, Neighbour { state, mac }: Neighbour) -> Result<(), BenchError> {
        let eth0 = self.cable.card.0;
        Ok(self.host.request(format!("set neighbour {ip}"), move |netlink| async move {
            let request = netlink.neighbours().add(eth0, ip).state(state.into()).replace();
            let request = match mac {
                Some(mac) => request.link_layer_address(&mac.0),
                None => request,
            };
            request.execute().await
        })?)
    }

    /// The host's neighbour cache.
    ///
    /// # Errors
    ///
    /// When its kernel does not answer.
    pub fn neighbours(&self) -> Result<BTreeMap<IpAddr, Neighbour>, BenchError> {
        let found = self.host.request("list neighbours".to_owned(), |netlink| async move {
            let mut found = Vec::new();
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                let list = netlink.neighbours().get().set_address_family(family).execute();
                found.extend(list.try_collect::<Vec<_>>().await?);
            }
            Ok(found)
        })?;
        Ok(found.iter().filter_map(neighbour).collect())
    }

    /// Plugs the caller's end of the wire in or out: the host's carrier comes or goes.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_cord(&self, cord: Cord) -> Result<(), BenchError> {
        Ok(self.wire.set_link(self.cable.port, link_state(cord))?)
    }

    /// Switches the host's network card on or off.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_card(&self, cord: Cord) -> Result<(), BenchError> {
        Ok(self.host.set_link(self.cable.card, link_state(cord))?)
    }

    /// Gives the host's network card another name and Ethernet address; it is off meanwhile.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn change_card(&self, name: &'static str, mac: MacAddr) -> Result<(), BenchError> {
        let link = || LinkUnspec::new_with_index(self.cable.card.0);
        let changes = [link().down().build(), link().name(name).address(mac.0.to_vec()).build(), link().up().build()];
        Ok(self.host.request(format!("change eth0 to {name} {mac}"), move |netlink| async move {
            for change in changes {
                netlink.link().change(change).execute().await?;
            }
            Ok(())
        })?)
    }

    /// Makes the host's network card a port of a bridge, or takes it out again.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_master(&self, bridge: Option<IfIndex>) -> Result<(), BenchError> {
        Ok(self.host.set_bridge(self.cable.card, bridge)?)
    }

    /// Makes a bridge on the host.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn add_bridge(&self, name: &'static str) -> Result<IfIndex, BenchError> {
        let bridge = self.host.add_bridge(name)?;
        self.host.set_link(bridge, LinkState::Up)?;
        Ok(bridge)
    }

    /// Makes a child of the host's network card, with an Ethernet address of its own.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn add_macvlan(&self, name: &'static str, mac: MacAddr) -> Result<(), BenchError> {
        let eth0 = self.cable.card.0;
        Ok(self.host.request(format!("add macvlan {name}"), move |netlink| async move {
            let child = LinkMacVlan::new(name, eth0, MacVlanMode::Bridge).address(mac.0.to_vec()).up();
            netlink.link().add(child.build()).execute().await
        })?)
    }

    /// Lays a cable within the host, and gives the number of its second end.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn add_pair(&self, one: &'static str, other: &'static str) -> Result<IfIndex, BenchError> {
        self.host.request(format!("lay cable {one}"), move |netlink| async move {
            netlink.link().add(LinkVeth::new(one, other).build()).execute().await
        })?;
        let [one, other] = [self.host.index_of(one)?, self.host.index_of(other)?];
        self.host.set_link(one, LinkState::Up)?;
        self.host.set_link(other, LinkState::Up)?;
        Ok(other)
    }

    /// Plugs an end of such a cable in or out.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_end(&self, end: IfIndex, cord: Cord) -> Result<(), BenchError> {
        Ok(self.host.set_link(end, link_state(cord))?)
    }

    /// Gives the host's network card an address.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn add_address(&self, ip: IpAddr, prefix_len: u8) -> Result<(), BenchError> {
        Ok(self.host.add_address(self.cable.card, ip, prefix_len)?)
    }

    /// Removes the host's network card, and with it the caller's end of the wire.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn remove_card(&self) -> Result<(), BenchError> {
        let eth0 = self.cable.card.0;
        Ok(self.host.request("remove eth0".to_owned(), move |netlink| async move {
            netlink.link().del(eth0).execute().await
        })?)
    }

    /// A thread in the host's network namespace.
    ///
    /// # Errors
    ///
    /// When it cannot be started there.
    pub fn spawn_on_host<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, BenchError> {
        spawn_in(&self.host, job)
    }
}

/// A switch that snoops on multicast listeners, as one with a querier does, between a caller and a node.
#[derive(Debug)]
pub struct SnoopingSwitch {
    _switch: Namespace,
    _caller: Namespace,
    node: Namespace,
    eth0: IfIndex,
    sender: PacketSocket,
    listener: Socket,
}

impl SnoopingSwitch {
    /// A bridge with snooping, a querier and short intervals.
    ///
    /// # Errors
    ///
    /// When the kernel refuses something.
    pub fn new(_inside: &Init) -> Result<Self, BenchError> {
        let (switch, caller, node) = (Namespace::new("switch")?, Namespace::new("caller")?, Namespace::new("node")?);
        caller.set_sysctls(SWITCH_SYSCTLS)?;
        node.set_sysctls(CLIENT_SYSCTLS)?;
        switch.set_sysctls(&[("net/ipv6/conf/default/accept_dad", "0")])?;
        let bridge = switch.add_bridge("br0")?;
        switch.set_link(bridge, LinkState::Up)?;
        // A querier asks from its own address (RFC 3810 section 5.1.14).
        switch.add_address(bridge, IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0xbb]), 64)?;
        switch.request("start the querier".to_owned(), move |netlink| async move {
            let link = LinkBridge::new("br0")
                .stp_state(BridgeStpState::Disabled)
                .mcast_snooping(true)
                .mcast_query_response_interval(10)
                .mcast_startup_query_interval(10)
                .mcast_query_interval(100);
            netlink.link().change(link.index(bridge.0).build()).execute().await?;
            let querier = LinkBridge::new("br0").mcast_querier(true);
            netlink.link().change(querier.index(bridge.0).build()).execute().await
        })?;
        let to_caller = switch.add_cable("p-caller", &caller, "eth0", Host::CLIENT.mac)?;
        let to_node = switch.add_cable("p-node", &node, "eth0", NODE_MAC)?;
        for cable in [to_caller, to_node] {
            switch.set_bridge(cable.port, Some(bridge))?;
        }
        let filter = Filter::new(&Prefixes::default());
        let sender = caller.run(move |_| PacketSocket::open(to_caller.card, EtherType::Arp, &filter.arp))??;
        let protocol = Protocol::from(i32::from(ETH_P_IPV6.to_be()));
        let listener = node.run(move |_| Socket::new(Domain::PACKET, Type::RAW, Some(protocol)))??;
        listener.set_nonblocking(true)?;
        Ok(Self { _switch: switch, _caller: caller, node, eth0: to_node.card, sender, listener })
    }

    /// Sends the frame and tells whether the node hears it.
    ///
    /// # Errors
    ///
    /// When a socket fails.
    pub fn reaches_node(&self, frame: &[u8]) -> io::Result<bool> {
        while self.next()?.is_some() {}
        self.sender.send(frame)?;
        thread::sleep(Duration::from_millis(100));
        while let Some(heard) = self.next()? {
            if heard == frame {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The number of the node's network card.
    pub fn eth0(&self) -> IfIndex {
        self.eth0
    }

    /// Does something in the node's network namespace.
    ///
    /// # Errors
    ///
    /// When its thread has ended.
    pub fn on_node<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, BenchError> {
        Ok(self.node.run(move |_| job())?)
    }

    /// A thread in the node's network namespace.
    ///
    /// # Errors
    ///
    /// When it cannot be started there.
    pub fn spawn_on_node<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, BenchError> {
        spawn_in(&self.node, job)
    }

    fn next(&self) -> io::Result<Option<Vec<u8>>> {
        receive(&self.listener)
    }
}

/// Why the bench cannot be used.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The lab refused something.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A setting of the host cannot be written.
    #[error("cannot write {value} to /proc/sys/{path} of the host: {source}")]
    Setting {
        /// Path below `/proc/sys`.
        path: &'static str,
        /// The value.
        value: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// There is no packet socket.
    #[error(transparent)]
    Open(#[from] OpenSocketError),
    /// Another socket fails.
    #[error("a socket of the bench: {0}")]
    Socket(#[from] io::Error),
}

impl From<super::NamespaceError> for BenchError {
    fn from(error: super::NamespaceError) -> Self {
        Self::Lab(error.into())
    }
}

impl From<Nud> for NeighbourState {
    fn from(state: Nud) -> Self {
        match state {
            Nud::Incomplete => Self::Incomplete,
            Nud::Reachable => Self::Reachable,
            Nud::Stale => Self::Stale,
            Nud::Delay => Self::Delay,
            Nud::Probe => Self::Probe,
            Nud::Failed => Self::Failed,
            Nud::Permanent => Self::Permanent,
        }
    }
}

fn neighbour(message: &NeighbourMessage) -> Option<(IpAddr, Neighbour)> {
    let state = [Nud::Incomplete, Nud::Reachable, Nud::Stale, Nud::Delay, Nud::Probe, Nud::Failed, Nud::Permanent];
    let state = state.into_iter().find(|state| NeighbourState::from(*state) == message.header.state)?;
    let (mut ip, mut mac) = (None, None);
    for attribute in &message.attributes {
        if let NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) = attribute {
            ip = Some(IpAddr::from(*address));
        } else if let NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) = attribute {
            ip = Some(IpAddr::from(*address));
        } else if let NeighbourAttribute::LinkLayerAddress(bytes) = attribute {
            mac = bytes.as_slice().try_into().ok().map(MacAddr);
        }
    }
    Some((ip?, Neighbour { state, mac }))
}

fn spawn_in<T: Send + 'static>(
    namespace: &Namespace,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, BenchError> {
    // A thread begins in the network namespace of the one that starts it.
    let name = format!("on-{}", namespace.name());
    Ok(namespace.run(move |_| thread::Builder::new().name(name).spawn(job))??)
}

fn link_state(cord: Cord) -> LinkState {
    match cord {
        Cord::In => LinkState::Up,
        Cord::Out => LinkState::Down,
    }
}

/// The next frame of a socket that does not block.
fn receive(socket: &Socket) -> io::Result<Option<Vec<u8>>> {
    use std::io::Read as _;

    let mut frame = vec![0; LONGEST_FRAME];
    let mut socket: &Socket = socket;
    match socket.read(&mut frame) {
        Ok(len) => {
            frame.truncate(len);
            Ok(Some(frame))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

const NODE_MAC: MacAddr = MacAddr([0x02, 0x77, 0, 0, 0, 0x0b]);
/// linux/if_ether.h
const ETH_P_ALL: u16 = 0x0003;
const ETH_P_IPV6: u16 = 0x86dd;
/// Of the usual MTU.
const LONGEST_FRAME: usize = 1514;
/// The port of RFC 863; whether anybody listens is of no concern.
const DISCARD: u16 = 9;
