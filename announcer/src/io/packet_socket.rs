//! Packet sockets (`AF_PACKET`), bound to one interface; the only unsafe code of the workspace.
//!
//! A socket is opened deaf, gets its filter, and is bound then, so nothing unfiltered is ever queued. It hands out only
//! frames of the interface that it is bound to: a parent interface also hears its macvlan and VLAN children. Each comes
//! with the time at which the kernel got it.

#![expect(unsafe_code, reason = "socket2 and libc offer no safe way to packet addresses and options")]

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, SystemTime};

use garpike_election::IfIndex;
use nix::sys::socket::{
    ControlMessageOwned, LinkAddr, MsgFlags, RecvMsg, SetSockOpt as _, recvmsg, sockopt::ReceiveTimestampns,
};
use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::groups::is_out_of_memory;
use super::privileges::with_net_raw;
use crate::filter::Instruction;

/// A packet socket on one interface.
#[derive(Debug)]
pub struct PacketSocket {
    socket: Socket,
    interface: IfIndex,
}

/// A frame that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// From the Ethernet header on, cut off at the length of the buffer.
    pub frame: &'a [u8],
    /// When the kernel got it, by the wall clock as it was then.
    pub came: Option<SystemTime>,
}

/// Which frames a socket gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtherType {
    /// ARP.
    Arp,
    /// IPv6.
    Ipv6,
    /// Datagrams of the membership.
    Datagram,
}

impl PacketSocket {
    /// Checks that packet sockets may be opened at all.
    ///
    /// # Errors
    ///
    /// [`OpenSocketError::Permission`], or what else the kernel says.
    pub fn check_permission() -> Result<(), OpenSocketError> {
        deaf(IfIndex(0)).map(drop)
    }

    /// Opens a socket that does not block and passes what `filter` passes.
    ///
    /// # Errors
    ///
    /// When the capability is missing, the interface is gone, or the kernel refuses otherwise.
    pub fn open(interface: IfIndex, ether_type: EtherType, filter: &[Instruction]) -> Result<Self, OpenSocketError> {
        let failed = |source| OpenSocketError::Kernel { interface, source };
        let socket = Self { socket: deaf(interface)?, interface };
        socket.socket.set_nonblocking(true).map_err(failed)?;
        socket.set_filter(filter).map_err(failed)?;
        // Kernels before 4.20 do not know it; the filter drops our own frames as well.
        let _ = socket.set_option(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING);
        ReceiveTimestampns.set(&socket.socket, &true).map_err(|errno| failed(errno.into()))?;
        socket.bind(ether_type)?;
        Ok(socket)
    }

    /// Hands the socket to the reactor of the tokio runtime that runs this.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to watch the socket.
    pub fn into_async(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the socket owns its descriptor from construction to drop and always gives the same one.
        let registered = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) };
        registered.map_err(io::Error::from)
    }

    /// Replaces the filter; the kernel switches from one to the other between two frames.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the program.
    pub fn set_filter(&self, filter: &[Instruction]) -> io::Result<()> {
        let program: Vec<SockFilter> = filter
            .iter()
            .map(|instruction| {
                SockFilter::new(instruction.code, instruction.if_true, instruction.if_false, instruction.k)
            })
            .collect();
        self.socket.attach_filter(&program)
    }

    /// Sends a frame.
    ///
    /// # Errors
    ///
    /// `WouldBlock` or `ENOBUFS` when queues are full, `ENETDOWN` or `ENXIO` when the interface is down or gone.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// Takes the next frame; `None` for one of another interface.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is none, `ENETDOWN` once when the interface went down.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<Received<'a>>> {
        let mut control = Control([0; CONTROL_LEN]);
        let mut parts = [IoSliceMut::new(buffer)];
        let received = recvmsg::<LinkAddr>(self.as_raw_fd(), &mut parts, Some(&mut control.0), MsgFlags::empty())?;
        let of_ours = received.address.map(|sender| sender.ifindex()) == usize::try_from(self.interface.0).ok();
        let (len, came) = (received.bytes, came(&received));
        Ok(buffer.get(..len).filter(|_| of_ours).map(|frame| Received { frame, came }))
    }

    fn set_option(&self, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
        let on: libc::c_int = 1;
        // SAFETY: the value is a live integer of the length stated; the option takes one.
        let result = unsafe { libc::setsockopt(self.as_raw_fd(), level, option, (&raw const on).cast(), INT_LEN) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn bind(&self, ether_type: EtherType) -> Result<(), OpenSocketError> {
        let protocol = match ether_type {
            EtherType::Arp => libc::ETH_P_ARP,
            EtherType::Ipv6 => libc::ETH_P_IPV6,
            EtherType::Datagram => libc::ETH_P_802_EX1,
        };
        let interface = self.interface;
        let protocol = u16::try_from(protocol).expect("an EtherType has 16 bits");
        let mut storage = SockAddrStorage::zeroed();
        // SAFETY: `sockaddr_ll` is one of the platform's `sockaddr_*` types.
        *unsafe { storage.view_as() } = link_layer(protocol, interface);
        // SAFETY: the storage holds an initialised `sockaddr_ll`, its family is set, and the length is that type's.
        let address = unsafe { SockAddr::new(storage, LINK_LAYER_LEN) };
        self.socket.bind(&address).map_err(|source| match source.raw_os_error() {
            Some(libc::ENODEV | libc::ENXIO) => OpenSocketError::InterfaceGone { interface },
            _ => OpenSocketError::Kernel { interface, source },
        })
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Why there is no packet socket.
#[derive(Debug, Error)]
pub enum OpenSocketError {
    /// The process lacks the right.
    #[error(
        "opening a packet socket needs the capability CAP_NET_RAW; add NET_RAW to \
         securityContext.capabilities.add of the container, or start as root"
    )]
    Permission {
        /// What the kernel said.
        source: io::Error,
    },
    /// The interface was removed meanwhile.
    #[error("interface {interface} does not exist any more")]
    InterfaceGone {
        /// Its number.
        interface: IfIndex,
    },
    /// Anything else.
    #[error("cannot open a packet socket on interface {interface}: {source}")]
    Kernel {
        /// Its number.
        interface: IfIndex,
        /// What the kernel said.
        source: io::Error,
    },
}

impl OpenSocketError {
    /// Whether the socket's share of option memory (`net.core.optmem_max`) does not hold the filter.
    pub(super) fn is_out_of_memory(&self) -> bool {
        match self {
            Self::Kernel { source, .. } => is_out_of_memory(source),
            Self::Permission { .. } | Self::InterfaceGone { .. } => false,
        }
    }
}

/// Room for what the kernel says of a frame, aligned as its headers want it.
#[repr(align(8))]
struct Control([u8; CONTROL_LEN]);

fn came(received: &RecvMsg<'_, '_, LinkAddr>) -> Option<SystemTime> {
    let time = received
        .cmsgs()
        .ok()?
        .find_map(|message| if let ControlMessageOwned::ScmTimestampns(time) = message { Some(time) } else { None })?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from(time))
}

/// A packet socket with protocol 0, which receives nothing until it is bound.
fn deaf(interface: IfIndex) -> Result<Socket, OpenSocketError> {
    with_net_raw(|| Socket::new(Domain::PACKET, Type::RAW, None)).map_err(|source| {
        if source.kind() == io::ErrorKind::PermissionDenied {
            OpenSocketError::Permission { source }
        } else {
            OpenSocketError::Kernel { interface, source }
        }
    })
}

fn link_layer(protocol: u16, interface: IfIndex) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).expect("AF_PACKET is 17"),
        sll_protocol: protocol.to_be(),
        sll_ifindex: i32::try_from(interface.0).expect("the kernel numbers interfaces with a positive int"),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

#[expect(clippy::cast_possible_truncation, reason = "used for types of a few bytes, when compiling")]
const fn socklen<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

/// A time stamp takes 32 bytes with its header; chosen with room for another message.
const CONTROL_LEN: usize = 96;
const LINK_LAYER_LEN: libc::socklen_t = socklen::<libc::sockaddr_ll>();
const INT_LEN: libc::socklen_t = socklen::<libc::c_int>();
