//! The sockets of the gossip: UDP, and TCP at the same address and port.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SetSockOpt as _, SockaddrStorage, recvmsg, sockopt};
use nix::{cmsg_space, libc};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use thiserror::Error;
use tokio::io::Interest;
use tokio::net::{TcpListener, UdpSocket};
use tracing::debug;

use super::listener;

/// A bound UDP socket, and a listening TCP socket at the same address and port.
#[derive(Debug)]
pub struct GossipSocket {
    datagrams: Datagrams,
    listener: TcpListener,
}

/// The UDP half.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
    local: SocketAddr,
}

/// Which of the two sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// Streams.
    Tcp,
}

/// Why the gossip address cannot be used.
#[derive(Debug, Error)]
pub enum BindError {
    /// Something else listens there.
    #[error(
        "cannot listen on {transport} {} port {}: the port is in use; another speaker, MetalLB or Docker Swarm uses it \
         on this host: stop that, or choose another port with --ml-bindport on all nodes",
        .addr.ip(), .addr.port()
    )]
    InUse {
        /// Which socket.
        transport: Transport,
        /// The address.
        addr: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The host does not have the address.
    #[error(
        "cannot listen on {transport} {} port {}: this host does not have that address; give one of its own with \
         --ml-bindaddr",
        .addr.ip(), .addr.port()
    )]
    NotOurs {
        /// Which socket.
        transport: Transport,
        /// The address.
        addr: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot listen on {transport} {} port {}", .addr.ip(), .addr.port())]
    Other {
        /// Which socket.
        transport: Transport,
        /// The address.
        addr: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl GossipSocket {
    /// Binds the address; port 0 lets the kernel choose one that is free for both. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn bind(addr: SocketAddr) -> Result<Self, BindError> {
        let mut tries = if addr.port() == 0 { TRIES } else { 1 };
        loop {
            tries -= 1;
            match Self::bind_both(addr) {
                Err(BindError::InUse { transport: Transport::Tcp, .. }) if tries > 0 => {}
                result => return result,
            }
        }
    }

    /// The address that was bound, with the port that the kernel chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.datagrams.local
    }

    pub(super) fn into_parts(self) -> (Datagrams, TcpListener) {
        (self.datagrams, self.listener)
    }

    fn bind_both(addr: SocketAddr) -> Result<Self, BindError> {
        let datagrams = Datagrams::open(addr).map_err(|source| BindError::new(Transport::Udp, addr, source))?;
        let addr = datagrams.local;
        let listener = listener::listen(addr).map_err(|source| BindError::new(Transport::Tcp, addr, source))?;
        Ok(Self { datagrams, listener })
    }
}

impl Datagrams {
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.ready(Interest::READABLE | Interest::ERROR).await.map(drop)
    }

    /// Waits until the runtime knows that the socket takes datagrams; before that, every send would be refused.
    pub(super) async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// Takes a datagram that has arrived.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (len, from) = self.socket.try_recv_from(buffer)?;
        // A socket that is bound to `::` sees IPv4 senders as mapped addresses.
        Ok((len, SocketAddr::new(from.ip().to_canonical(), from.port())))
    }

    /// Sends a datagram or drops it.
    pub(super) fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        let to = match (self.local, to.ip()) {
            (SocketAddr::V6(_), IpAddr::V4(ip)) => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
            (SocketAddr::V6(_), IpAddr::V6(_)) | (SocketAddr::V4(_), _) => to,
        };
        match self.socket.try_send_to(bytes, to) {
            // What the kernel has learnt of an earlier datagram it tells once, in place of sending this one.
            Err(error) if is_about_an_earlier_one(&error) => self.socket.try_send_to(bytes, to),
            sent => sent,
        }
    }

    /// Takes a datagram that has come back; gives where it went, if the host there says that nobody listens.
    pub(super) fn take_returned(&self) -> io::Result<Option<SocketAddr>> {
        let mut control = cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
        self.socket.try_io(Interest::ERROR, || {
            let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
            let returned = recvmsg::<SockaddrStorage>(self.socket.as_raw_fd(), &mut [], Some(&mut control), flags)?;
            let refused = returned.cmsgs()?.any(|message| {
                let (ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _)) = message
                else {
                    return false;
                };
                i32::try_from(error.ee_errno).is_ok_and(|errno| errno == libc::ECONNREFUSED)
            });
            Ok(returned.address.filter(|_| refused).and_then(canonical))
        })
    }

    fn open(addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        // The kernel caps this at net.core.rmem_max; a smaller buffer works as well, with more loss in bursts.
        if let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER) {
            debug!(%error, "receive buffer not enlarged");
        }
        mark(&socket, addr);
        if let Err(errno) = report_returned(&socket, addr) {
            debug!(%errno, "datagrams that come back are not reported");
        }
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::from(addr))?;
        let socket = UdpSocket::from_std(socket.into())?;
        let local = socket.local_addr()?;
        Ok(Self { socket, local })
    }
}

impl BindError {
    fn new(transport: Transport, addr: SocketAddr, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::AddrInUse {
            Self::InUse { transport, addr, source }
        } else if source.kind() == io::ErrorKind::AddrNotAvailable {
            Self::NotOurs { transport, addr, source }
        } else {
            Self::Other { transport, addr, source }
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        })
    }
}

/// Whether a call failed because of what has become of a datagram that was sent before.
pub(super) fn is_about_an_earlier_one(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable
    )
}

/// A socket that is bound to `::` knows IPv4 addresses as mapped ones.
fn canonical(address: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || address.as_sockaddr_in().map(|address| SocketAddr::V4(SocketAddrV4::from(*address)));
    let v6 = || address.as_sockaddr_in6().map(|address| SocketAddr::V6(SocketAddrV6::from(*address)));
    let address = v4().or_else(v6)?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// Has the kernel keep what ICMP says of datagrams: that a speaker was killed is known at the next heartbeat to it.
fn report_returned(socket: &Socket, addr: SocketAddr) -> nix::Result<()> {
    sockopt::Ipv4RecvErr.set(socket, &true).or_else(|errno| if addr.is_ipv6() { Ok(()) } else { Err(errno) })?;
    if addr.is_ipv6() { sockopt::Ipv6RecvErr.set(socket, &true) } else { Ok(()) }
}

/// Marks what the socket sends as network control: where the traffic of users fills a link, switches that know of classes
/// let heartbeats pass, and nobody is taken for dead because others are busy. Without the mark all works as well.
fn mark(socket: &Socket, addr: SocketAddr) {
    let marked = match addr {
        SocketAddr::V4(_) => socket.set_tos_v4(NETWORK_CONTROL),
        // A socket that is bound to `::` speaks IPv4 as well.
        SocketAddr::V6(_) => socket.set_tclass_v6(NETWORK_CONTROL).and_then(|()| socket.set_tos_v4(NETWORK_CONTROL)),
    };
    if let Err(error) = marked {
        debug!(%error, "datagrams not marked as network control");
    }
}

/// Chosen: more than 1000 datagrams with the kernel's overhead, a burst from every node of a large cluster.
const RECEIVE_BUFFER: usize = 1024 * 1024;

/// CS6 (RFC 2474 section 4.2.2.2: precedence 110 is for routing traffic), in the upper six bits.
const NETWORK_CONTROL: u32 = 0b11_0000 << 2;

/// Chosen: ports that are free for UDP are seldom taken for TCP.
const TRIES: u32 = 16;

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_datagram_to_a_port_where_nobody_listens_comes_back_and_the_next_ones_are_sent() {
        for loopback in [IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()] {
            let socket = Datagrams::open(SocketAddr::new(loopback, 0)).unwrap();
            let closed = Datagrams::open(SocketAddr::new(loopback, 0)).unwrap().local;
            let open = Datagrams::open(SocketAddr::new(loopback, 0)).unwrap();
            socket.writable().await.unwrap();

            socket.send(b"to nobody", closed).unwrap();
            tokio::time::timeout(Duration::from_secs(5), socket.readable()).await.unwrap().unwrap();

            assert_eq!(socket.send(b"to somebody", open.local).unwrap(), 11, "the error is of the one before");
            assert_eq!(socket.take_returned().unwrap(), Some(closed));
            assert_eq!(socket.take_returned().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            open.readable().await.unwrap();
            assert_eq!(open.receive(&mut [0; 64]).unwrap(), (11, socket.local));
        }
    }
}
