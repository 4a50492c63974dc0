//! The TCP socket that listens next to the gossip's UDP socket.
//!
//! The kernel hands a connection over only when its client has said something (`TCP_DEFER_ACCEPT`). Who just connects and
//! resets, as a prober of hosts does, then never takes a place in the queue of a process that is frozen and accepts
//! nobody: of 200 such probes in a row 200 are answered, without it only as many as the queue has places, and one.

use std::io;
use std::net::SocketAddr;

use nix::libc;
use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::TcpListener;

sockopt_impl!(
    /// For how many seconds the kernel keeps a connection of which nothing has been heard.
    DeferAccept, SetOnly, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, libc::c_int
);

pub(super) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(addr)?;
    setsockopt(&socket, DeferAccept, &DEFER_SECONDS)?;
    socket.listen(QUEUE)?;
    TcpListener::from_std(socket.into())
}

fn bind(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier life that linger in TIME_WAIT must not keep this one from starting.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(addr))?;
    Ok(socket)
}

/// Chosen: a client speaks at once; longer than a lost segment takes to be repeated a few times.
const DEFER_SECONDS: libc::c_int = 30;

/// Chosen: what waits while this process is held up for a moment. The kernel caps it at net.core.somaxconn.
const QUEUE: i32 = 1024;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tokio::time::timeout;

    use super::*;
    use crate::ProbeId;
    use crate::io::host_probe::HostProbes;

    #[tokio::test]
    async fn a_frozen_process_s_kernel_answers_every_probe() {
        let (listener, addr) = frozen();
        setsockopt(&listener, DeferAccept, &DEFER_SECONDS).unwrap();
        listener.listen(PLACES).unwrap();

        assert_eq!(answered_of(PROBES, addr).await, 200);
    }

    #[tokio::test]
    async fn without_deferring_a_frozen_process_s_queue_fills_with_dead_connections() {
        let (listener, addr) = frozen();
        listener.listen(PLACES).unwrap();

        // The kernel queues one more than it was told.
        assert_eq!(answered_of(PROBES, addr).await, 9);
    }

    /// Too few for the probes; what a real listener has is only filled later.
    const PLACES: i32 = 8;

    const PROBES: u64 = 200;

    /// A socket on which nobody will ever accept.
    fn frozen() -> (Socket, SocketAddr) {
        let socket = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, addr)
    }

    /// How many probes, one after the other, were answered.
    #[expect(clippy::disallowed_methods, reason = "real sockets have real time")]
    async fn answered_of(count: u64, to: SocketAddr) -> usize {
        let mut probes = HostProbes::new(to);
        let mut answered = 0;
        for probe in 0..count {
            probes.begin(ProbeId(probe), to, Instant::now());
            // An answer over loopback takes microseconds; what is not answered now is given its second below.
            let _ = timeout(Duration::from_millis(2), probes.ready()).await;
            answered += probes.take_answered(Instant::now()).len();
        }
        let end = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            let _ = timeout(Duration::from_millis(50), probes.ready()).await;
            answered += probes.take_answered(Instant::now()).len();
        }
        answered
    }
}
