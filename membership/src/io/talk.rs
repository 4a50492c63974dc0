//! A conversation over a TCP connection.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep_until, timeout};
use tracing::debug;

use crate::stream::{Conversation, Snapshot, StreamEvent, StreamFault};

/// The connection and the conversation.
#[derive(Debug)]
pub(super) struct Talk {
    stream: TcpStream,
    conversation: Conversation,
    buffer: Vec<u8>,
    outgoing: Vec<u8>,
    /// How much of `outgoing` was sent.
    sent: usize,
}

impl Talk {
    pub(super) fn new(stream: TcpStream, conversation: Conversation) -> Self {
        // Without it an observer whose host has died keeps its place for as long as the kernel repeats itself, 15 minutes.
        if let Err(error) = SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX)) {
            debug!(%error, "stream keeps the kernel's time-outs");
        }
        Self { stream, conversation, buffer: vec![0; READ_LEN], outgoing: Vec::new(), sent: 0 }
    }

    /// Goes on until the conversation brings something; `None` when it is over. Can be dropped and called again.
    #[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
    pub(super) async fn next(&mut self) -> Result<Option<StreamEvent>, StreamFault> {
        loop {
            if let Some(event) = self.conversation.poll_event() {
                return Ok(Some(event));
            }
            if self.is_all_sent() {
                self.sent = 0;
                self.outgoing = self.conversation.poll_transmit().unwrap_or_default();
            }
            let all_sent = self.is_all_sent();
            if all_sent && self.conversation.is_over() {
                return Ok(None);
            }
            let due = self.conversation.poll_timeout();
            tokio::select! {
                ready = self.stream.writable(), if !all_sent => {
                    ready.map_err(network)?;
                    self.write()?;
                }
                ready = self.stream.readable(), if all_sent => {
                    ready.map_err(network)?;
                    self.read(Instant::now())?;
                }
                () = sleep_until(due.into()) => {
                    if !all_sent {
                        return Err(StreamFault::Late);
                    }
                    self.conversation.handle_timeout(Instant::now())?;
                }
            }
        }
    }

    /// Whether the other end has been given everything that there is for it.
    pub(super) fn is_all_sent(&self) -> bool {
        self.sent == self.outgoing.len()
    }

    pub(super) fn handle_snapshot(&mut self, snapshot: Snapshot, now: Instant) -> Result<(), StreamFault> {
        self.conversation.handle_snapshot(snapshot, now)
    }

    /// Ends the connection so that nothing of it is left on this side.
    pub(super) fn reset(self) {
        reset(self.stream);
    }

    fn write(&mut self) -> Result<(), StreamFault> {
        let rest = self.outgoing.get(self.sent..).unwrap_or_default();
        match self.stream.try_write(rest) {
            Ok(sent) => self.sent += sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(network(error)),
        }
        Ok(())
    }

    fn read(&mut self, now: Instant) -> Result<(), StreamFault> {
        match self.stream.try_read(&mut self.buffer) {
            Ok(0) => self.conversation.handle_end(),
            Ok(len) => self.conversation.handle_bytes(self.buffer.get(..len).unwrap_or_default(), now),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(network(error)),
        }
    }
}

/// Opens a connection from the IP address of `from`, if there is one of that family.
pub(super) async fn connect(from: Option<SocketAddr>, to: SocketAddr) -> Result<TcpStream, StreamFault> {
    within(CONNECT_WITHIN, async {
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(network)?;
        if let Some(mut from) = from.filter(|from| from.is_ipv4() == to.is_ipv4()) {
            from.set_port(0);
            socket.bind(from).map_err(network)?;
        }
        socket.connect(to).await.map_err(network)
    })
    .await
}

/// Drops the connection with a reset: no state of it stays in this kernel.
pub(super) fn reset(stream: TcpStream) {
    if let Err(error) = SockRef::from(&stream).set_linger(Some(Duration::ZERO)) {
        debug!(%error, "connection closed, not reset");
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, StreamFault>>) -> Result<T, StreamFault> {
    timeout(limit, work).await.unwrap_or(Err(StreamFault::Late))
}

fn network(error: io::Error) -> StreamFault {
    debug!(%error, "stream");
    StreamFault::Network
}

/// Chosen: most frames of small clusters at once; 64 connections hold 512 KiB.
const READ_LEN: usize = 8 * 1024;

/// Chosen: as long as an observer waits for a sign of life.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(15);

/// Chosen: the first repetition of a lost SYN, after 1 s, may still be answered.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
