//! Packet sockets (`AF_PACKET`), bound to one interface; the only file with unsafe code of the workspace.
//!
//! A socket is opened deaf, gets its filter, and is bound then, so nothing unfiltered is ever queued. It hands out only
//! frames of the interface that it is bound to: a parent interface also hears its macvlan and VLAN children. Each comes
//! with the time at which the kernel got it.

#![expect(unsafe_code, reason = "socket2 and libc offer no safe way to packet addresses and options")]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, SystemTime};

use garpike_election::{IfIndex, MacAddr};
use nix::sys::socket::{
    ControlMessageOwned, LinkAddr, MsgFlags, MultiHeaders, RecvMsg, SetSockOpt as _, getsockname, recvmmsg, recvmsg,
    sendmmsg, sockopt::ReceiveTimestampns,
};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::groups::is_out_of_memory;
use super::port::Port;
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

/// The frames that one call to the kernel brought, and room for those of the next.
#[derive(Debug)]
pub struct Batch {
    buffers: Box<[[u8; FRAME_LEN]]>,
    /// Of each frame in the buffers, in their order.
    told: Vec<Told>,
}

/// What the kernel tells of a frame.
#[derive(Clone, Copy, Debug)]
struct Told {
    len: usize,
    came: Option<SystemTime>,
    origin: Origin,
}

/// Whose frame it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The interface's own.
    Own,
    /// A child's.
    Other,
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
        socket.socket.set_recv_buffer_size(RECEIVE_BUFFER).map_err(failed)?;
        // Kernels before 4.20 do not know it; the filter drops our own frames as well.
        let _ = socket.set_option(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING);
        ReceiveTimestampns.set(&socket.socket, &true).map_err(|errno| failed(errno.into()))?;
        socket.bind(match ether_type {
            EtherType::Arp => libc::ETH_P_ARP,
            EtherType::Ipv6 => libc::ETH_P_IPV6,
            EtherType::Datagram => libc::ETH_P_802_EX1,
        })?;
        Ok(socket)
    }

    /// Opens a socket that sends and hears nothing.
    ///
    /// # Errors
    ///
    /// Those of [`PacketSocket::open`].
    pub(super) fn open_deaf(interface: IfIndex) -> Result<Self, OpenSocketError> {
        let socket = Self { socket: deaf(interface)?, interface };
        socket.socket.set_nonblocking(true).map_err(|source| OpenSocketError::Kernel { interface, source })?;
        socket.bind(0)?;
        Ok(socket)
    }

    /// Replaces the filter; the kernel switches from one to the other between two frames.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the program.
    pub fn set_filter(&self, filter: &[Instruction]) -> io::Result<()> {
        set_filter(&self.socket, filter)
    }

    /// Sends a frame.
    ///
    /// # Errors
    ///
    /// `WouldBlock` or `ENOBUFS` when queues are full, `ENETDOWN` or `ENXIO` when the interface is down or gone.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// Sends frames in their order, and gives how many; when it is not all of them, the next one fails.
    ///
    /// # Errors
    ///
    /// Those of [`PacketSocket::send`], when the first one fails.
    pub fn send_all<'a>(&self, frames: impl Iterator<Item = &'a [u8]>) -> io::Result<usize> {
        let parts: Vec<[IoSlice<'_>; 1]> = frames.map(|frame| [IoSlice::new(frame)]).collect();
        if let [[frame]] = parts.as_slice() {
            return self.send(frame).map(|()| 1);
        }
        let mut headers = MultiHeaders::<()>::preallocate(parts.len(), None);
        let nowhere = vec![None; parts.len()];
        let sent = sendmmsg(self.as_raw_fd(), &mut headers, &parts, nowhere, [], MsgFlags::empty())?;
        Ok(sent.count())
    }

    /// Takes the next frames, as many as there are and the batch has room for.
    ///
    /// # Errors
    ///
    /// Those of [`PacketSocket::receive`]; the batch is empty then.
    pub fn receive_all(&self, batch: &mut Batch) -> io::Result<()> {
        batch.clear();
        let mut parts: Vec<[IoSliceMut<'_>; 1]> =
            batch.buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let control = Some(Vec::with_capacity(CONTROL_LEN));
        let mut headers = MultiHeaders::<LinkAddr>::preallocate(parts.len(), control);
        for received in recvmmsg(self.as_raw_fd(), &mut headers, parts.iter_mut(), MsgFlags::empty(), None)? {
            let told = Told { len: received.bytes, came: came(&received), origin: self.origin(&received) };
            batch.told.push(told);
        }
        Ok(())
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
        let (len, came, origin) = (received.bytes, came(&received), self.origin(&received));
        Ok(buffer.get(..len).filter(|_| origin == Origin::Own).map(|frame| Received { frame, came }))
    }

    /// The Ethernet address of the interface, as long as it has one.
    pub(super) fn mac(&self) -> Option<MacAddr> {
        getsockname::<LinkAddr>(self.as_raw_fd()).ok()?.addr().map(MacAddr)
    }

    fn origin(&self, received: &RecvMsg<'_, '_, LinkAddr>) -> Origin {
        let is_own = received.address.map(|sender| sender.ifindex()) == usize::try_from(self.interface.0).ok();
        if is_own { Origin::Own } else { Origin::Other }
    }

    fn set_option(&self, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
        let on: libc::c_int = 1;
        // SAFETY: the value is a live integer of the length stated; the option takes one.
        let result = unsafe { libc::setsockopt(self.as_raw_fd(), level, option, (&raw const on).cast(), INT_LEN) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn bind(&self, protocol: libc::c_int) -> Result<(), OpenSocketError> {
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

impl Batch {
    /// How many frames it has room for. Chosen: a call to the kernel costs a tenth of what its work for a frame costs, so more
    /// save nothing; all are handled in some ten microseconds.
    pub const MOST: usize = 32;

    /// Without frames.
    pub fn new() -> Self {
        Self { buffers: vec![[0; FRAME_LEN]; Self::MOST].into(), told: Vec::with_capacity(Self::MOST) }
    }

    /// Forgets the frames.
    pub fn clear(&mut self) {
        self.told.clear();
    }

    /// Adds a frame of the interface's own, made of these parts, cut off at the length of a buffer.
    pub(super) fn push(&mut self, parts: &[&[u8]], came: Option<SystemTime>) {
        let Some(buffer) = self.buffers.get_mut(self.told.len()) else { return };
        let mut rest = buffer.as_mut_slice();
        for part in parts {
            let (start, end) = rest.split_at_mut(part.len().min(rest.len()));
            start.copy_from_slice(part.get(..start.len()).unwrap_or_default());
            rest = end;
        }
        let len = FRAME_LEN - rest.len();
        self.told.push(Told { len, came, origin: Origin::Own });
    }

    /// Whether it holds no frame.
    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Whether there may be more frames than it had room for.
    pub fn is_full(&self) -> bool {
        self.told.len() == Self::MOST
    }

    /// The frames; `None` for one of another interface.
    pub fn frames(&self) -> impl Iterator<Item = Option<Received<'_>>> {
        self.buffers.iter().zip(&self.told).map(|(buffer, told)| {
            let frame = buffer.get(..told.len).filter(|_| told.origin == Origin::Own)?;
            Some(Received { frame, came: told.came })
        })
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
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
pub(super) struct Control(pub(super) [u8; CONTROL_LEN]);

/// When the kernel got what was received.
pub(super) fn came<S>(received: &RecvMsg<'_, '_, S>) -> Option<SystemTime> {
    let time = received
        .cmsgs()
        .ok()?
        .find_map(|message| if let ControlMessageOwned::ScmTimestampns(time) = message { Some(time) } else { None })?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from(time))
}

/// Hands a port to the reactor of the tokio runtime that runs this.
///
/// # Errors
///
/// When the kernel refuses to watch its socket.
pub(super) fn into_async(port: Port) -> io::Result<AsyncFd<Port>> {
    // SAFETY: a port owns its descriptor from construction to drop and always gives the same one.
    let registered = unsafe { AsyncFd::register_with_interest(port, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

/// Has a socket pass what `filter` passes.
pub(super) fn set_filter(socket: &Socket, filter: &[Instruction]) -> io::Result<()> {
    let to_kernel = |it: &Instruction| SockFilter::new(it.code, it.if_true, it.if_false, it.k);
    socket.attach_filter(&filter.iter().map(to_kernel).collect::<Vec<_>>())
}

/// A packet socket with protocol 0, which receives nothing until it is bound.
fn deaf(interface: IfIndex) -> Result<Socket, OpenSocketError> {
    open_raw(interface, Domain::PACKET, None)
}

/// A socket for which the capability is needed.
pub(super) fn open_raw(
    interface: IfIndex,
    domain: Domain,
    protocol: Option<Protocol>,
) -> Result<Socket, OpenSocketError> {
    with_net_raw(|| Socket::new(domain, Type::RAW, protocol)).map_err(|source| {
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

/// The longest frame that is looked at, in bytes: one of the usual MTU. Neighbour discovery with more options than fit
/// is counted as truncated.
pub(super) const FRAME_LEN: usize = 2048;
/// Chosen: with 50 000 requests a second the usual 208 KiB are full after 5 ms, in which the processor may well be another's. The
/// kernel doubles it, and grants at most `net.core.rmem_max`.
pub(super) const RECEIVE_BUFFER: usize = 1 << 20;
/// A time stamp takes 32 bytes with its header, the address and the hop limit of a packet 36 and 24; chosen with room for another.
pub(super) const CONTROL_LEN: usize = 128;
const LINK_LAYER_LEN: libc::socklen_t = socklen::<libc::sockaddr_ll>();
const INT_LEN: libc::socklen_t = socklen::<libc::c_int>();
