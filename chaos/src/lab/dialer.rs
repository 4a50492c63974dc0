//! A client that opens a new TCP connection every few milliseconds and notes whether it was established in time.
//!
//! What it shows and datagrams do not: whether kube-proxy still sends new connections to endpoints that are dead. A connection whose
//! first SYN went there stays with that endpoint, however often it is repeated.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::background::Background;
use super::{ConnectError, Lab, LabError, now};

impl Lab<'_> {
    /// Begins to open a connection to `target` from the client every `each`.
    ///
    /// # Errors
    ///
    /// When the client is gone, or a thread cannot be started.
    pub fn dial(&self, target: SocketAddr, each: Duration) -> Result<Dialer, ConnectError> {
        // A thread begins in the network namespace of the one that starts it.
        let dialer = self.client.run(move |_| Dialer::start(target, each)).map_err(LabError::from)?;
        dialer.map_err(ConnectError::Thread)
    }
}

/// A running client. Dropping it ends it.
#[derive(Debug)]
pub struct Dialer(Background<Vec<Dialed>>);

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialed {
    /// When it was begun.
    pub begun: Instant,
    /// Whether it was established within a second.
    pub established: bool,
}

impl Dialer {
    /// Waits for the connections under way, and tells of all in the order in which they were begun.
    ///
    /// # Errors
    ///
    /// When none could be opened at all.
    pub fn stop(self) -> io::Result<Vec<Dialed>> {
        self.0.stop()
    }

    fn start(target: SocketAddr, each: Duration) -> io::Result<Self> {
        Background::start("dialer", move |stop| dial_all(target, each, stop)).map(Self)
    }
}

async fn dial_all(target: SocketAddr, each: Duration, stop: CancellationToken) -> io::Result<Vec<Dialed>> {
    let mut due = interval(each);
    due.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut under_way, mut all) = (JoinSet::new(), Vec::new());
    while all.len() < MAX_CONNECTIONS {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = under_way.join_next() => all.push(ended.map_err(io::Error::other)?),
            _ = due.tick() => {
                under_way.spawn(dial(target));
            }
        }
    }
    while let Some(ended) = under_way.join_next().await {
        all.push(ended.map_err(io::Error::other)?);
    }
    all.sort_by_key(|dialed| dialed.begun);
    Ok(all)
}

async fn dial(target: SocketAddr) -> Dialed {
    let begun = now();
    let established = timeout(IN_TIME, TcpStream::connect(target)).await.is_ok_and(|connected| connected.is_ok());
    Dialed { begun, established }
}

/// One that is established later needed a second SYN (RFC 6298: 1 s after the first).
const IN_TIME: Duration = Duration::from_secs(1);
/// At 20 ms more than half an hour.
const MAX_CONNECTIONS: usize = 100_000;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn a_connection_that_is_accepted_is_established_and_one_that_is_refused_is_not() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let target = listener.local_addr().unwrap();
        let dialer = Dialer::start(target, EACH).unwrap();
        for _ in 0..3 {
            listener.accept().unwrap();
        }
        let until = now();
        drop(listener);
        thread::sleep(EACH * 10);

        let all = dialer.stop().unwrap();

        assert!(all.iter().filter(|dialed| dialed.established).count() >= 3, "{all:?}");
        assert!(all.iter().any(|dialed| !dialed.established && dialed.begun > until), "{all:?}");
        assert!(all.windows(2).all(|pair| pair[0].begun <= pair[1].begun));
    }

    const EACH: Duration = Duration::from_millis(5);
}
