//! The UDP socket of the gossip.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use thiserror::Error;
use tokio::net::UdpSocket;

/// A bound UDP socket.
#[derive(Debug)]
pub struct GossipSocket {
    socket: UdpSocket,
    local: SocketAddr,
}

/// Why the gossip address cannot be used.
#[derive(Debug, Error)]
pub enum BindError {
    /// Something else listens there.
    #[error(
        "cannot listen on UDP {} port {}: the port is in use; another speaker, MetalLB or Docker Swarm uses it on this \
         host: stop that, or choose another port with --ml-bindport on all nodes",
        .addr.ip(), .addr.port()
    )]
    InUse {
        /// The address.
        addr: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The host does not have the address.
    #[error(
        "cannot listen on UDP {} port {}: this host does not have that address; give one of its own with --ml-bindaddr",
        .addr.ip(), .addr.port()
    )]
    NotOurs {
        /// The address.
        addr: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot listen on UDP {} port {}", .addr.ip(), .addr.port())]
    Other {
        /// The address.
        addr: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl GossipSocket {
    /// Binds the address; port 0 lets the kernel choose. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn bind(addr: SocketAddr) -> Result<Self, BindError> {
        Self::open(addr).map_err(|source| {
            if source.kind() == io::ErrorKind::AddrInUse {
                BindError::InUse { addr, source }
            } else if source.kind() == io::ErrorKind::AddrNotAvailable {
                BindError::NotOurs { addr, source }
            } else {
                BindError::Other { addr, source }
            }
        })
    }

    /// The address that was bound, with the port that the kernel chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
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
        self.socket.try_send_to(bytes, to)
    }

    fn open(addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        // The kernel caps this at net.core.rmem_max; a smaller buffer works as well, with more loss in bursts.
        if let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER) {
            tracing::debug!(%error, "receive buffer not enlarged");
        }
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::from(addr))?;
        let socket = UdpSocket::from_std(socket.into())?;
        let local = socket.local_addr()?;
        Ok(Self { socket, local })
    }
}

/// Chosen: more than 1000 datagrams with the kernel's overhead, a burst from every node of a large cluster.
const RECEIVE_BUFFER: usize = 1024 * 1024;
