//! The task that runs a cluster.
//!
//! It reads what has arrived before it looks at what is due, so that a process that was held up hears the answers that
//! wait for it before it takes anybody for dead. A datagram that cannot be sent is dropped, as the network might have
//! done. Dropping the future of [`Node::run`] at any point is safe: others then take this node for dead.

use std::io;
use std::time::{Duration, Instant};

use garpike_election::{InterfaceName, Members, NodeState, Selection};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, trace, warn};

use super::{GossipSocket, seed};
use crate::envelope::DATAGRAM_MAX;
use crate::{Cluster, Config, Event, Status, metrics};

/// The task; [`Node::run`] is its body.
pub struct Node {
    cluster: Cluster,
    socket: GossipSocket,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    members: watch::Sender<Members>,
    status: watch::Sender<Status>,
    status_at: Instant,
    /// Who waits for the end of the farewell.
    leaving: Vec<oneshot::Sender<()>>,
}

/// The other end of a [`Node`].
#[derive(Debug)]
pub struct Handle {
    /// Who is alive.
    pub members: watch::Receiver<Members>,
    /// What people want to know; renewed at most every 200 ms.
    pub status: watch::Receiver<Status>,
    /// What happened. When nobody takes them, the newest are lost and counted; `members` is always right.
    pub events: mpsc::Receiver<Event>,
    /// What this node is to do.
    pub commands: mpsc::Sender<Command>,
}

/// Something that a [`Node`] is told to do.
#[derive(Debug)]
pub enum Command {
    /// Tell everybody what this node is doing.
    SetState(NodeState),
    /// Tell everybody on which interfaces this node can announce.
    SetInterfaces(Selection<InterfaceName>),
    /// Leave the cluster; `done` is told when the others have been told, and the task ends.
    Leave {
        /// Told in the end.
        done: oneshot::Sender<()>,
    },
}

impl Node {
    /// A node that takes part through `socket`.
    ///
    /// `config.gossip` must be the address at which others reach the socket.
    #[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
    pub fn new(config: Config, socket: GossipSocket) -> (Self, Handle) {
        let now = Instant::now();
        let cluster = Cluster::new(config, seed(), now);
        let (members, members_out) = watch::channel(cluster.members().clone());
        let (status, status_out) = watch::channel(cluster.status());
        let (events, events_out) = mpsc::channel(EVENTS_DEPTH);
        let (commands_in, commands) = mpsc::channel(COMMANDS_DEPTH);
        let node = Self { cluster, socket, commands, events, members, status, status_at: now, leaving: Vec::new() };
        let handle = Handle { members: members_out, status: status_out, events: events_out, commands: commands_in };
        (node, handle)
    }

    /// Takes part until the node has left or `cancel` is called, which ends it at once and without a farewell.
    #[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut buffer = vec![0; DATAGRAM_MAX + 1];
        count_error(self.socket.writable().await);
        self.handle_due(Instant::now());
        while !self.cluster.is_gone() {
            let due = self.cluster.poll_timeout().unwrap_or_else(|| Instant::now() + IDLE);
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(command) = self.commands.recv() => self.obey(command, Instant::now()),
                readable = self.socket.readable() => count_error(readable),
                () = sleep_until(due.into()) => {}
            }
            if self.receive(&mut buffer) == Received::Error {
                // The kernel reports an error once, normally; should it persist, the task must not spin.
                sleep(PAUSE_AFTER_ERROR).await;
            }
            self.handle_due(Instant::now());
        }
        self.publish_status(Instant::now());
        for done in self.leaving {
            // Who asked may have gone.
            let _ = done.send(());
        }
    }

    fn obey(&mut self, command: Command, now: Instant) {
        match command {
            Command::SetState(state) => self.cluster.set_state(state, now),
            Command::SetInterfaces(interfaces) => self.cluster.set_interfaces(interfaces, now),
            Command::Leave { done } => {
                self.leaving.push(done);
                self.cluster.leave(now);
            }
        }
        self.let_out();
    }

    /// Takes in what has arrived, up to a limit, so that timers are not starved by a flood.
    #[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
    fn receive(&mut self, buffer: &mut [u8]) -> Received {
        for _ in 0..DATAGRAMS_PER_WAKE_UP {
            match self.socket.receive(buffer) {
                Ok((len, from)) => {
                    let bytes = buffer.get(..len).unwrap_or_default();
                    self.cluster.handle_datagram(from, bytes, Instant::now());
                    self.let_out();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Received::All,
                Err(error) => {
                    count_error(Err(error));
                    return Received::Error;
                }
            }
        }
        Received::All
    }

    fn handle_due(&mut self, now: Instant) {
        if let Some(due) = self.cluster.poll_timeout().filter(|due| *due <= now) {
            let late = now.saturating_duration_since(due);
            if late > STALL {
                warn!(milliseconds = late.as_millis(), "this process was held up");
                metrics::stall();
            }
            self.cluster.handle_timeout(now);
            self.let_out();
        }
        if now.saturating_duration_since(self.status_at) >= STATUS_EVERY {
            self.publish_status(now);
        }
    }

    fn publish_status(&mut self, now: Instant) {
        self.status_at = now;
        self.status.send_replace(self.cluster.status());
    }

    /// Sends what is to be sent, and tells what has happened.
    fn let_out(&mut self) {
        while let Some(transmit) = self.cluster.poll_transmit() {
            if let Err(error) = self.socket.send(&transmit.payload, transmit.to) {
                trace!(to = %transmit.to, %error, "datagram not sent");
                metrics::unsent();
            }
        }
        while let Some(event) = self.cluster.poll_event() {
            if event == Event::MembersChanged {
                self.members.send_replace(self.cluster.members().clone());
            }
            if self.events.try_send(event).is_err() {
                metrics::event_lost();
            }
        }
    }
}

fn count_error(result: io::Result<()>) {
    if let Err(error) = result {
        debug!(%error, "gossip socket");
        metrics::socket_error();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Received {
    All,
    Error,
}

/// Chosen: a reader that is 256 events behind is stuck.
const EVENTS_DEPTH: usize = 256;

/// Chosen: commands come from one owner, one at a time.
const COMMANDS_DEPTH: usize = 16;

/// Chosen: a few milliseconds of work.
const DATAGRAMS_PER_WAKE_UP: usize = 256;

/// Chosen: fresh enough for people.
const STATUS_EVERY: Duration = Duration::from_millis(200);

/// Later than this, others may have begun to suspect us.
const STALL: Duration = Duration::from_millis(300);

/// How long to sleep when nothing is due at all.
const IDLE: Duration = Duration::from_secs(1);

/// Chosen: far below the probe period.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};

    use garpike_election::NodeName;
    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;
    use crate::io::{BindError, new_process};
    use crate::{Key, Sealing, SecretKey};

    #[tokio::test]
    async fn two_nodes_on_loopback_find_and_lose_each_other() {
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (a, b) = (socket(), socket());
        let seeds = [a.local_addr(), b.local_addr()];
        let (node_a, mut a) = Node::new(config("a", &a, &seeds), a);
        let (node_b, mut b) = Node::new(config("b", &b, &seeds), b);
        tasks.spawn(node_a.run(cancel.clone()));
        tasks.spawn(node_b.run(cancel.clone()));

        wait(&mut a, |members| states(members) == [("a", NodeState::Ready), ("b", NodeState::Ready)]).await;
        wait(&mut b, |members| states(members) == [("a", NodeState::Ready), ("b", NodeState::Ready)]).await;

        b.commands.send(Command::SetState(NodeState::Restarting)).await.unwrap();
        wait(&mut a, |members| states(members) == [("a", NodeState::Ready), ("b", NodeState::Restarting)]).await;

        let (done, left) = oneshot::channel();
        b.commands.send(Command::Leave { done }).await.unwrap();
        timeout(LIMIT, left).await.unwrap().unwrap();
        wait(&mut a, |members| states(members) == [("a", NodeState::Ready)]).await;
        timeout(LIMIT, tasks.join_next()).await.unwrap().unwrap().unwrap();

        let mut events = Vec::new();
        while let Ok(event) = a.events.try_recv() {
            events.push(event);
        }
        assert!(events.contains(&Event::Ready), "{events:?}");
        timeout(LIMIT, a.status.wait_for(|status| status.dead.len() == 1)).await.unwrap().unwrap();

        cancel.cancel();
        timeout(LIMIT, tasks.join_next()).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_death_of_one_of_three_is_known_to_the_others() {
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let sockets = [socket(), socket(), socket()];
        let seeds = sockets.each_ref().map(GossipSocket::local_addr);
        let mut nodes = Vec::new();
        for (name, socket) in ["a", "b", "c"].into_iter().zip(sockets) {
            let (node, handle) = Node::new(config(name, &socket, &seeds), socket);
            nodes.push((tasks.spawn(node.run(cancel.clone())), handle));
        }
        let ready = |name| (name, NodeState::Ready);
        for (_, handle) in &mut nodes {
            wait(handle, |members| states(members) == [ready("a"), ready("b"), ready("c")]).await;
        }

        let (dead, _handle) = nodes.pop().unwrap();
        dead.abort();

        for (_, handle) in &mut nodes {
            wait(handle, |members| states(members) == [ready("a"), ready("b")]).await;
        }
        cancel.cancel();
        assert!(tasks.join_next().await.unwrap().is_err(), "the dead one");
        while let Some(ended) = timeout(LIMIT, tasks.join_next()).await.unwrap() {
            ended.unwrap();
        }
    }

    #[tokio::test]
    async fn a_peer_that_is_not_there_and_garbage_do_not_end_the_task() {
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let socket = socket();
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        // Nobody listens on a port that was just given back: its kernel answers "port unreachable".
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        stranger.send_to(b"garbage", socket.local_addr()).unwrap();
        stranger.send_to(&[0x47; 5000], socket.local_addr()).unwrap();

        let (node, mut handle) = Node::new(config("a", &socket, &[nobody]), socket);
        tasks.spawn(node.run(cancel.clone()));

        wait(&mut handle, |members| states(members) == [("a", NodeState::Ready)]).await;
        let reasons: Vec<_> = handle.status.borrow().rejected.iter().map(|rejected| rejected.reason).collect();
        assert_eq!(reasons, ["too_long", "unknown_version"]);
        cancel.cancel();
        timeout(LIMIT, tasks.join_next()).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_socket_bound_to_every_address_reaches_both_families() {
        let Ok(both) = GossipSocket::bind("[::]:0".parse().unwrap()) else {
            // Only a kernel without IPv6 refuses it.
            assert!(!std::path::Path::new("/proc/net/if_inet6").exists());
            return;
        };
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(LIMIT)).unwrap();
        let mut buffer = [0; 9];

        timeout(LIMIT, both.writable()).await.unwrap().unwrap();
        both.send(b"hello", peer.local_addr().unwrap()).unwrap();
        assert_eq!(peer.recv_from(&mut buffer).unwrap().0, 5);
        peer.send_to(b"hi", ("127.0.0.1", both.local_addr().port())).unwrap();
        timeout(LIMIT, both.readable()).await.unwrap().unwrap();
        assert_eq!(both.receive(&mut buffer).unwrap(), (2, peer.local_addr().unwrap()));
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_its_mend() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let _holder = UdpSocket::bind(taken).unwrap();

        let error = GossipSocket::bind(taken).unwrap_err();

        let text = error.to_string();
        assert!(matches!(error, BindError::InUse { .. }), "{text}");
        assert!(
            text.contains("127.0.0.1") && text.contains(&taken.port().to_string()) && text.contains("--ml-bindport")
        );
        assert!(matches!(GossipSocket::bind("192.0.2.1:0".parse().unwrap()), Err(BindError::NotOurs { .. })));
    }

    const LIMIT: Duration = Duration::from_secs(10);

    async fn wait(handle: &mut Handle, condition: impl FnMut(&Members) -> bool) {
        timeout(LIMIT, handle.members.wait_for(condition)).await.unwrap().unwrap();
    }

    fn states(members: &Members) -> Vec<(&str, NodeState)> {
        members.nodes.iter().map(|(name, member)| (name.as_str(), member.state)).collect()
    }

    fn socket() -> GossipSocket {
        GossipSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap()
    }

    fn config(name: &str, socket: &GossipSocket, seeds: &[SocketAddr]) -> Config {
        let (generation, process) = new_process();
        Config {
            local: NodeName::new(name).unwrap(),
            generation,
            process,
            gossip: socket.local_addr(),
            seeds: seeds.to_vec(),
            sealing: Sealing::Sealed(Key::derive(&SecretKey::parse(b"secret").unwrap(), "test")),
            interfaces: Selection::All,
        }
    }
}
