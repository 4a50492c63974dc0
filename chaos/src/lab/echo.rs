//! What answers behind a service IP in the lab: a UDP server that sends every datagram back.
//!
//! It is a process of its own on every node, so that it can be frozen with its host and goes on when only the speaker
//! dies. Each address has its own socket, which may be bound before the address is local and answers from it.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

/// Answers on all `addresses` until the process is killed.
///
/// # Errors
///
/// When a socket cannot be made or bound, or fails for good.
pub fn serve(addresses: &[SocketAddr]) -> Result<Infallible, EchoError> {
    if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
        return Err(EchoError::Count { count: addresses.len() });
    }
    let bind = |&address| bind(address).map_err(|source| EchoError::Socket { address, source });
    let sockets = addresses.iter().map(bind).collect::<Result<Vec<UdpSocket>, _>>()?;
    let (failed, failure) = mpsc::sync_channel(1);
    for (&address, socket) in addresses.iter().zip(sockets) {
        let failed = failed.clone();
        let serve = move || drop(failed.send(EchoError::Socket { address, source: answer(&socket) }));
        // The first failure ends the process, so nobody joins the others.
        thread::Builder::new().spawn(serve).map_err(|source| EchoError::Socket { address, source })?;
    }
    Err(failure.recv().expect("this thread holds a sender"))
}

/// The hidden command of this program that runs [`serve`].
pub fn command(addresses: &[SocketAddr]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["chaos", "echo"]).args(addresses.iter().map(ToString::to_string));
    command
}

/// Why the echo server ended.
#[derive(Debug, Error)]
pub enum EchoError {
    /// No address, or too many.
    #[error("{count} addresses to answer on, 1 to {MAX_ADDRESSES} are possible")]
    Count {
        /// How many were given.
        count: usize,
    },
    /// A socket failed.
    #[error("cannot answer on {address}: {source}")]
    Socket {
        /// Its address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn answer(socket: &UdpSocket) -> io::Error {
    let mut datagram = [0; MAX_DATAGRAM];
    loop {
        let (len, from) = match socket.recv_from(&mut datagram) {
            Ok(received) => received,
            // An ICMP error about an earlier answer.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return error,
        };
        if let Some(bytes) = datagram.get(..len) {
            // The address may have left this host meanwhile; the client sees a lost probe.
            let _ = socket.send_to(bytes, from);
        }
    }
}

/// One thread each; chosen: more than any scenario has service IPs to probe.
const MAX_ADDRESSES: usize = 64;
/// A probe has 8 bytes; chosen: longer datagrams are cut, not refused.
const MAX_DATAGRAM: usize = 512;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    use super::*;

    #[test]
    fn datagrams_come_back_from_the_address_they_were_sent_to() {
        for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
            let server = bind(SocketAddr::new(ip, 0)).unwrap();
            let address = server.local_addr().unwrap();
            thread::spawn(move || answer(&server));
            let client = UdpSocket::bind(SocketAddr::new(ip, 0)).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();

            client.send_to(b"12345678", address).unwrap();
            let mut bytes = [0; 16];

            assert_eq!(client.recv_from(&mut bytes).unwrap(), (8, address));
            assert_eq!(&bytes[..8], b"12345678");
        }
    }

    #[test]
    fn an_address_need_not_be_local_yet() {
        // Of RFC 5737 and RFC 3849: no host has them.
        for address in ["192.0.2.1:0", "[2001:db8::1]:0"] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(bind(address).unwrap().local_addr().unwrap().ip(), address.ip());
        }
    }

    #[test]
    fn no_address_and_too_many_are_refused() {
        let address: SocketAddr = "127.0.0.1:7".parse().unwrap();
        for count in [0, MAX_ADDRESSES + 1] {
            assert!(matches!(serve(&vec![address; count]), Err(EchoError::Count { .. })));
        }
    }
}
