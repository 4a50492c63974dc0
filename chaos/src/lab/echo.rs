//! What answers behind a service IP in the lab: a server that sends every datagram and every byte back.
//!
//! It is a process of its own on every node, so that it can be frozen with its host and goes on when only the speaker
//! dies. Each address has its own sockets, which may be bound before the address is local and answer from it.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use socket2::{Domain, Socket, Type};
use thiserror::Error;
use tokio::task::JoinSet;

/// Answers on all `addresses` until the process is killed.
///
/// # Errors
///
/// When a socket cannot be made or bound, or fails for good.
pub fn serve(addresses: &[SocketAddr]) -> Result<Infallible, EchoError> {
    if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
        return Err(EchoError::Count { count: addresses.len() });
    }
    let (failed, failure) = mpsc::sync_channel(1);
    for &address in addresses {
        let error = move |source| EchoError::Socket { address, source };
        let datagrams: UdpSocket = bind(address, Type::DGRAM).map_err(error)?.into();
        let connections = listen(address).map_err(error)?;
        // The first failure ends the process, so nobody joins the others.
        let told = failed.clone();
        let serve = move || drop(told.send(error(answer(&datagrams))));
        thread::Builder::new().spawn(serve).map_err(error)?;
        let told = failed.clone();
        let serve = move || drop(told.send(error(accept(connections))));
        thread::Builder::new().spawn(serve).map_err(error)?;
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

/// A socket that may be bound before the address is local.
fn bind(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    // A listener is bound again while connections of an earlier one linger.
    socket.set_reuse_address(kind == Type::STREAM)?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address, Type::STREAM)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Serves all connections of one address in the calling thread.
fn accept(listener: TcpListener) -> io::Error {
    let serve = async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                    // An error is that of one connection, which the client has given up.
                    let Ok((mut stream, _)) = accepted else { continue };
                    connections.spawn(async move {
                        stream.set_nodelay(true)?;
                        let (mut from, mut to) = stream.split();
                        // It ends with the client, or with a reset.
                        tokio::io::copy(&mut from, &mut to).await.map(drop)
                    });
                }
                Some(_) = connections.join_next() => {}
            }
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let never: io::Result<Infallible> = runtime.and_then(|runtime| runtime.block_on(serve));
    match never {
        Err(error) => error,
    }
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

/// Of one address at a time; chosen: a scenario has 200. More wait in the backlog.
const MAX_CONNECTIONS: usize = 1024;
/// Chosen: as many as a scenario establishes.
const BACKLOG: i32 = 256;
/// Two threads each; chosen: more than any scenario has service IPs to probe.
const MAX_ADDRESSES: usize = 64;
/// A probe has 8 bytes; chosen: longer datagrams are cut, not refused.
const MAX_DATAGRAM: usize = 512;

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn datagrams_come_back_from_the_address_they_were_sent_to() {
        for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
            let server: UdpSocket = bind(SocketAddr::new(ip, 0), Type::DGRAM).unwrap().into();
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
    fn bytes_of_a_connection_come_back() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || accept(listener));
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();

        let mut bytes = [0; 3];
        client.write_all(b"123").unwrap();
        client.read_exact(&mut bytes).unwrap();

        assert_eq!(&bytes, b"123");
    }

    #[test]
    fn an_address_need_not_be_local_yet() {
        // Of RFC 5737 and RFC 3849: no host has them.
        for address in ["192.0.2.1:0", "[2001:db8::1]:0"] {
            let address: SocketAddr = address.parse().unwrap();
            for kind in [Type::DGRAM, Type::STREAM] {
                let bound = bind(address, kind).unwrap().local_addr().unwrap().as_socket().unwrap();
                assert_eq!(bound.ip(), address.ip());
            }
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
