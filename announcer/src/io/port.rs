//! What is sent and heard by one kind of frame on one interface.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use super::icmpv6_socket::Icmpv6Socket;
use super::packet_socket::{Batch, PacketSocket};
use crate::filter::Instruction;

/// The sockets of one kind of frame.
#[derive(Debug)]
pub(super) enum Port {
    /// One packet socket for both directions.
    Frames(PacketSocket),
    /// Neighbour discovery without what is sent to a service IP by unicast.
    Multicast(Icmpv6Socket),
}

impl Port {
    pub(super) fn set_filter(&self, filter: &[Instruction]) -> io::Result<()> {
        match self {
            Self::Frames(socket) => socket.set_filter(filter),
            Self::Multicast(socket) => socket.set_filter(filter),
        }
    }

    /// The socket that sends.
    pub(super) fn mouth(&self) -> &PacketSocket {
        match self {
            Self::Frames(socket) => socket,
            Self::Multicast(socket) => &socket.mouth,
        }
    }

    /// Takes the next frames, as many as there are and the batch has room for.
    pub(super) fn receive_all(&self, batch: &mut Batch) -> io::Result<()> {
        match self {
            Self::Frames(socket) => socket.receive_all(batch),
            Self::Multicast(socket) => socket.receive_all(batch),
        }
    }
}

/// The descriptor of the socket that hears.
impl AsRawFd for Port {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Frames(socket) => socket.as_raw_fd(),
            Self::Multicast(socket) => socket.as_raw_fd(),
        }
    }
}
