//! A raw ICMPv6 socket on one interface: it hears the neighbour discovery that the kernel takes for the host's own.
//!
//! That is what comes by multicast to a group that is joined, and by unicast to an address of the host. What is sent to a service IP
//! by unicast is not among it: the kernel looks for a way to forward that. In exchange a packet that the host forwards never meets
//! this socket, while each one meets a packet socket's filter.
//!
//! What was heard is handed out as the frame that it came in, as far as the kernel tells. It does not tell the station: the
//! frame names the one of the link-layer address option, without an option none (zeros).

use std::io::{self, IoSliceMut};
use std::net::Ipv6Addr;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, RawFd};

use garpike_election::{IfIndex, MacAddr};
use nix::sys::socket::sockopt::{Ipv6RecvHopLimit, Ipv6RecvPacketInfo, ReceiveTimestampns};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SetSockOpt as _, SockaddrIn6, recvmsg};
use socket2::{Domain, Protocol, Socket};

use super::packet_socket::{
    Batch, CONTROL_LEN, Control, FRAME_LEN, OpenSocketError, PacketSocket, RECEIVE_BUFFER, came, open_raw, set_filter,
};
use crate::filter::Instruction;
use crate::wire;

/// A raw ICMPv6 socket, and a packet socket that sends: what is sent names the station as well.
#[derive(Debug)]
pub(super) struct Icmpv6Socket {
    socket: Socket,
    interface: IfIndex,
    pub(super) mouth: PacketSocket,
}

impl Icmpv6Socket {
    /// Opens a socket that does not block and passes what `filter` passes. What came before the filter was there is passed too.
    pub(super) fn open(interface: IfIndex, filter: &[Instruction]) -> Result<Self, OpenSocketError> {
        let failed = |source| OpenSocketError::Kernel { interface, source };
        let socket = open_raw(interface, Domain::IPV6, Some(Protocol::ICMPV6))?;
        socket.bind_device_by_index_v6(NonZeroU32::new(interface.0)).map_err(failed)?;
        set_filter(&socket, filter).map_err(failed)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        for option in [
            Ipv6RecvPacketInfo.set(&socket, &true),
            Ipv6RecvHopLimit.set(&socket, &true),
            ReceiveTimestampns.set(&socket, &true),
        ] {
            option.map_err(|errno| failed(errno.into()))?;
        }
        Ok(Self { socket, interface, mouth: PacketSocket::open_deaf(interface)? })
    }

    pub(super) fn set_filter(&self, filter: &[Instruction]) -> io::Result<()> {
        set_filter(&self.socket, filter)
    }

    /// Takes the next packets, as many as there are and the batch has room for, as frames.
    pub(super) fn receive_all(&self, batch: &mut Batch) -> io::Result<()> {
        batch.clear();
        while !batch.is_full() {
            match self.receive(batch) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !batch.is_empty() => break,
                result => result?,
            }
        }
        Ok(())
    }

    fn receive(&self, batch: &mut Batch) -> io::Result<()> {
        let (mut message, mut control) = ([0; FRAME_LEN - HEADERS_LEN], Control([0; CONTROL_LEN]));
        let mut parts = [IoSliceMut::new(&mut message)];
        let received =
            recvmsg::<SockaddrIn6>(self.socket.as_raw_fd(), &mut parts, Some(&mut control.0), MsgFlags::empty())?;
        let (len, source, came) = (received.bytes, received.address, came(&received));
        let (mut destination, mut hop_limit, mut here) = (None, None, false);
        for told in received.cmsgs()? {
            if let ControlMessageOwned::Ipv6PacketInfo(info) = told {
                destination = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr));
                here = info.ipi6_ifindex == self.interface.0;
            } else if let ControlMessageOwned::Ipv6HopLimit(limit) = told {
                hop_limit = u8::try_from(limit).ok();
            }
        }
        // Without these the kernel has not told whose packet it is: before the options were set.
        if let (Some(source), Some(destination), Some(hop_limit), true) = (source, destination, hop_limit, here) {
            let message = message.get(..len).unwrap_or_default();
            let headers = self.headers(source.ip(), destination, hop_limit, message);
            batch.push(&[&headers, message], came);
        }
        Ok(())
    }

    /// The headers of the frame that a message came in.
    fn headers(&self, source: Ipv6Addr, destination: Ipv6Addr, hop_limit: u8, message: &[u8]) -> [u8; HEADERS_LEN] {
        let to_host = || self.mouth.mac().unwrap_or(MacAddr::ZERO);
        let to = if destination.is_multicast() { wire::multicast_mac(destination) } else { to_host() };
        let from = wire::link_layer_option(message).unwrap_or(MacAddr::ZERO);
        let [high, low] = u16::try_from(message.len()).expect("a buffer is shorter").to_be_bytes();
        let mut headers = [0; HEADERS_LEN];
        let parts: [&[u8]; 5] = [
            &to.0,
            &from.0,
            &[0x86, 0xdd, 0x60, 0, 0, 0, high, low, 58, hop_limit],
            &source.octets(),
            &destination.octets(),
        ];
        headers.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        headers
    }
}

impl AsRawFd for Icmpv6Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Of Ethernet and IPv6.
const HEADERS_LEN: usize = 54;
