//! Finds out whether a host lives whose speaker is silent.
//!
//! A TCP connection is opened and reset at once. That the other kernel accepts it or refuses it with a reset shows that
//! the host lives, even if its speaker is frozen or gone. An ICMP error shows nothing: a router sends it just as well.
//! All probes belong to the task of the [`super::Node`], so that the answers that arrived while this process was held up
//! are known before any timer is looked at.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tracing::trace;

use crate::ProbeId;
use crate::metrics::{self, HostProbe};

/// The probes that wait for an answer.
#[derive(Debug)]
pub(super) struct HostProbes {
    /// Our address on the network of the gossip: the answers must come from that network too.
    from: SocketAddr,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    probe: ProbeId,
    stream: TcpStream,
    until: Instant,
}

impl HostProbes {
    /// Probes from the IP address of `gossip`.
    pub(super) fn new(gossip: SocketAddr) -> Self {
        let mut from = gossip;
        from.set_port(0);
        Self { from, waiting: Vec::new() }
    }

    /// Begins a probe. That it cannot be sent is not told: it is as good as lost.
    pub(super) fn begin(&mut self, probe: ProbeId, to: SocketAddr, now: Instant) {
        self.waiting.retain(|waiting| waiting.until > now);
        if self.waiting.len() >= WAITING_MAX {
            return metrics::host_probe(HostProbe::Unsent);
        }
        match connect(self.from, to) {
            Ok(stream) => self.waiting.push(Waiting { probe, stream, until: now + ANSWER_WITHIN }),
            Err(error) => {
                trace!(%to, %error, "host not probed");
                metrics::host_probe(HostProbe::Unsent);
            }
        }
    }

    /// Waits until [`Self::take_answered`] has something to do.
    pub(super) async fn ready(&self) {
        poll_fn(|context| {
            // Each is asked, so that each wakes this task.
            let ready = self.waiting.iter().filter(|waiting| waiting.stream.poll_write_ready(context).is_ready());
            if ready.count() > 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Takes the probes whose hosts have answered, and forgets those that will not.
    pub(super) fn take_answered(&mut self, now: Instant) -> Vec<ProbeId> {
        let mut answered = Vec::new();
        self.waiting.retain(|waiting| {
            let outcome = match waiting.stream.try_io(Interest::WRITABLE, || outcome(&waiting.stream)) {
                Ok(outcome) => outcome,
                Err(_) if now < waiting.until => return true,
                Err(_) => HostProbe::Unanswered,
            };
            match outcome {
                HostProbe::Accepted | HostProbe::Refused => answered.push(waiting.probe),
                HostProbe::Unanswered | HostProbe::Unsent => {}
            }
            metrics::host_probe(outcome);
            false
        });
        answered
    }
}

/// A connection that is being opened, and reset when it is dropped.
fn connect(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    match to {
        SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
        SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
    }
    if from.is_ipv4() == to.is_ipv4() {
        socket.bind(&SockAddr::from(from))?;
    }
    match socket.connect(&SockAddr::from(to)) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        Ok(()) | Err(_) => {}
    }
    TcpStream::from_std(socket.into())
}

/// What has become of a connection that the kernel calls ready.
fn outcome(stream: &TcpStream) -> io::Result<HostProbe> {
    match stream.take_error()? {
        None => match stream.peer_addr() {
            Ok(_) => Ok(HostProbe::Accepted),
            Err(_) => Err(io::ErrorKind::WouldBlock.into()),
        },
        // A reset that came right after the connection: somebody had accepted it.
        Some(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(HostProbe::Accepted),
        Some(error) if error.kind() == io::ErrorKind::ConnectionRefused && !is_icmp(stream) => Ok(HostProbe::Refused),
        Some(_) => Ok(HostProbe::Unanswered),
    }
}

/// Whether the connection failed by an ICMP message: the kernel then keeps it in the socket's queue of errors.
fn is_icmp(stream: &TcpStream) -> bool {
    let mut buffer = [];
    SockRef::from(stream).recv_with_flags(&mut buffer, libc::MSG_ERRQUEUE).is_ok()
}

/// An answer that comes later is of no use: the watcher has voted.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Chosen: five probes of each of fifty hosts.
const WAITING_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_host_that_listens_answers_and_is_left_without_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut probes = HostProbes::new("127.0.0.1:7946".parse().unwrap());

        probes.begin(ProbeId(1), listener.local_addr().unwrap(), now());
        timeout(LIMIT, probes.ready()).await.unwrap();

        assert_eq!(probes.take_answered(now()), [ProbeId(1)]);
        let (mut accepted, from) = listener.accept().unwrap();
        assert_eq!(from.ip().to_string(), "127.0.0.1");
        let ended = io::Read::read(&mut accepted, &mut [0]).unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::ConnectionReset);
        assert!(probes.waiting.is_empty());
    }

    #[tokio::test]
    async fn a_host_that_refuses_answers() {
        for localhost in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(localhost) else {
                // Only a kernel without IPv6 refuses it.
                assert!(!std::path::Path::new("/proc/net/if_inet6").exists());
                continue;
            };
            let nobody = listener.local_addr().unwrap();
            drop(listener);
            let mut probes = HostProbes::new(nobody);

            probes.begin(ProbeId(2), nobody, now());
            let _ = timeout(LIMIT, probes.ready()).await;

            assert_eq!(probes.take_answered(now()), [ProbeId(2)], "{localhost}");
        }
    }

    #[tokio::test]
    async fn a_probe_comes_from_the_gossip_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut probes = HostProbes::new("127.7.7.7:7946".parse().unwrap());

        probes.begin(ProbeId(1), listener.local_addr().unwrap(), now());

        assert_eq!(listener.accept().unwrap().1.ip().to_string(), "127.7.7.7");
    }

    #[tokio::test]
    async fn a_silent_host_has_its_second_and_is_forgotten() {
        let silent = full_listener();
        let to = silent.local_addr().unwrap().as_socket().unwrap();
        let mut probes = HostProbes::new("127.0.0.1:0".parse().unwrap());
        let filler = std::net::TcpStream::connect(to).unwrap();
        let began = now();
        probes.begin(ProbeId(3), to, began);

        timeout(Duration::from_millis(200), probes.ready()).await.unwrap_err();

        assert_eq!(probes.take_answered(began + ANSWER_WITHIN - Duration::from_millis(1)), []);
        assert_eq!(probes.waiting.len(), 1);
        assert_eq!(probes.take_answered(began + ANSWER_WITHIN), []);
        assert!(probes.waiting.is_empty());
        drop(filler);
    }

    /// The kernel sends nothing from a loopback address to another network (198.51.100.0/24 is nobody's, RFC 5737).
    #[tokio::test]
    async fn a_host_to_which_there_is_no_way_does_not_answer() {
        let mut probes = HostProbes::new("127.0.0.1:7946".parse().unwrap());

        probes.begin(ProbeId(4), "198.51.100.1:7946".parse().unwrap(), now());

        assert!(probes.waiting.is_empty());
        assert_eq!(probes.take_answered(now()), []);
    }

    #[tokio::test]
    async fn probes_are_bounded_and_make_room_again() {
        let silent = full_listener();
        let mut probes = HostProbes::new("127.0.0.1:0".parse().unwrap());
        let began = now();
        for probe in 0..300 {
            probes.begin(ProbeId(probe), silent.local_addr().unwrap().as_socket().unwrap(), began);
        }
        assert_eq!(probes.waiting.len(), WAITING_MAX);
        let first = probes.take_answered(now()).len();
        assert!(first <= 2, "{first} of a listener with one place");

        probes.begin(ProbeId(300), silent.local_addr().unwrap().as_socket().unwrap(), began + ANSWER_WITHIN);
        assert_eq!(probes.waiting.len(), 1);
    }

    const LIMIT: Duration = Duration::from_secs(10);

    /// Accepts nobody, and has one place.
    fn full_listener() -> Socket {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::from("127.0.0.1:0".parse::<SocketAddr>().unwrap())).unwrap();
        socket.listen(0).unwrap();
        socket
    }

    #[expect(clippy::disallowed_methods, reason = "real sockets have real time")]
    fn now() -> Instant {
        Instant::now()
    }
}
