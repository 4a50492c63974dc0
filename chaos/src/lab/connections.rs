//! Established TCP connections of the client, each with a byte to and fro every few hundredths of a second.
//!
//! What they show and probes do not: whether the host behind an address is still the same one. Another host resets
//! them.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::background::Background;
use super::{Lab, LabError, now};

impl Lab<'_> {
    /// Establishes `count` connections from the client, spread over `targets`, and begins to use them.
    ///
    /// # Errors
    ///
    /// When one cannot be established.
    pub fn connect(&self, targets: &[SocketAddr], count: usize) -> Result<Connections, ConnectError> {
        let mut streams = Vec::new();
        for &target in targets.iter().cycle().take(count) {
            let failed = |source| ConnectError::Refused { target, source };
            let socket =
                self.client.run(move |_| Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP)));
            let socket = socket.map_err(LabError::from)?.map_err(failed)?;
            socket.connect_timeout(&target.into(), CONNECTS_WITHIN).map_err(failed)?;
            // A byte must not wait for others.
            socket.set_tcp_nodelay(true).map_err(failed)?;
            socket.set_nonblocking(true).map_err(failed)?;
            streams.push(TcpStream::from(socket));
        }
        Connections::start(streams).map_err(ConnectError::Thread)
    }
}

/// Connections in use. Dropping them closes them.
#[derive(Debug)]
pub struct Connections(Background<Kept>);

/// What became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// How many there were.
    pub established: usize,
    /// How many were reset or closed by the other end.
    pub resets: usize,
    /// How often a byte took longer than a second to come back.
    pub stalls: usize,
    /// The longest time that a byte took, or had taken in the end.
    pub longest: Duration,
}

impl Connections {
    /// Closes them and tells what became of them.
    ///
    /// # Errors
    ///
    /// When they could not be used at all.
    pub fn stop(self) -> io::Result<Kept> {
        self.0.stop()
    }

    fn start(streams: Vec<TcpStream>) -> io::Result<Self> {
        Background::start("connections", move |stop| use_all(streams, stop)).map(Self)
    }
}

/// Why there are no connections.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The client is gone.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The other end does not accept.
    #[error("no connection to {target}: {source}")]
    Refused {
        /// The other end.
        target: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

async fn use_all(streams: Vec<TcpStream>, stop: CancellationToken) -> io::Result<Kept> {
    let mut kept = Kept { established: streams.len(), ..Kept::default() };
    let mut tasks = JoinSet::new();
    let count = u32::try_from(streams.len()).unwrap_or(u32::MAX).max(1);
    for (number, stream) in streams.into_iter().enumerate() {
        let stream = tokio::net::TcpStream::from_std(stream)?;
        // Spread over the period, so that they do not all send at once.
        let delay = PERIOD * u32::try_from(number).unwrap_or(0) / count;
        let stop = stop.clone();
        tasks.spawn(async move {
            tokio::time::sleep(delay).await;
            use_one(stream, stop).await
        });
    }
    while let Some(ended) = tasks.join_next().await {
        let Kept { established: _, resets, stalls, longest } = ended.map_err(io::Error::other)?;
        kept.resets += resets;
        kept.stalls += stalls;
        kept.longest = kept.longest.max(longest);
    }
    Ok(kept)
}

/// Sends a byte and waits for it, again and again, until `stop` or the end of the connection.
async fn use_one(mut stream: tokio::net::TcpStream, stop: CancellationToken) -> Kept {
    let mut kept = Kept { established: 1, ..Kept::default() };
    loop {
        let sent = now();
        let mut exchange = Exchange { sent, kept: &mut kept };
        let came_back = tokio::select! {
            came_back = round_trip(&mut stream) => came_back,
            () = stop.cancelled() => {
                exchange.took(now());
                return kept;
            }
        };
        exchange.took(now());
        if came_back.is_err() {
            kept.resets += 1;
            return kept;
        }
        tokio::select! {
            () = tokio::time::sleep_until((sent + PERIOD).into()) => {}
            () = stop.cancelled() => return kept,
        }
    }
}

async fn round_trip(stream: &mut tokio::net::TcpStream) -> io::Result<()> {
    stream.write_all(&[0]).await?;
    stream.read_exact(&mut [0]).await.map(drop)
}

struct Exchange<'a> {
    sent: Instant,
    kept: &'a mut Kept,
}

impl Exchange<'_> {
    fn took(&mut self, at: Instant) {
        let took = at.saturating_duration_since(self.sent);
        self.kept.longest = self.kept.longest.max(took);
        self.kept.stalls += usize::from(took > STALL);
    }
}

/// Between two bytes of a connection; chosen: 200 connections are 4000 packets a second each way.
const PERIOD: Duration = Duration::from_millis(50);
/// Chosen: two retransmissions (RFC 6298: 200 ms on Linux, doubled); a person notices it.
const STALL: Duration = Duration::from_secs(1);
/// Chosen with room for a machine under load.
const CONNECTS_WITHIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn a_connection_that_is_served_is_neither_reset_nor_stalled() {
        let (stream, mut server) = pair();
        let echo = thread::spawn(move || {
            let mut byte = [0];
            while server.read_exact(&mut byte).is_ok() && server.write_all(&byte).is_ok() {}
        });
        let connections = Connections::start(vec![stream]).unwrap();

        thread::sleep(PERIOD * 4);
        let kept = connections.stop().unwrap();

        echo.join().unwrap();
        assert_eq!((kept.established, kept.resets), (1, 0));
        assert!(kept.longest > Duration::ZERO);
    }

    #[test]
    fn a_connection_that_is_closed_counts_as_reset() {
        let (stream, server) = pair();
        let connections = Connections::start(vec![stream]).unwrap();

        drop(server);
        thread::sleep(PERIOD * 4);

        assert_eq!(connections.stop().unwrap().resets, 1);
    }

    #[test]
    fn a_byte_that_does_not_come_back_is_a_stall() {
        let (stream, server) = pair();
        let connections = Connections::start(vec![stream]).unwrap();

        thread::sleep(STALL + PERIOD * 2);
        let kept = connections.stop().unwrap();

        drop(server);
        assert_eq!((kept.resets, kept.stalls), (0, 1));
        assert!(kept.longest > STALL);
    }

    /// A connection over loopback.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        (stream, server)
    }
}
