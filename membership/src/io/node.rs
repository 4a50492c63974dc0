//! The task that runs a cluster.
//!
//! It reads what has arrived before it looks at what is due, so that a process that was held up hears the answers that
//! wait for it before it takes anybody for dead. A datagram that cannot be sent is dropped, as the network might have
//! done. TCP connections are served by tasks of their own, which it owns. Dropping the future of [`Node::run`] at any point
//! is safe: others then take this node for dead.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use garpike_election::{InterfaceName, MacAddr, Members, NodeState};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, trace, warn};

use super::host_probe::HostProbes;
use super::socket::{Datagrams, is_about_an_earlier_one};
use super::stream_client::{exchange, reach};
use super::stream_faults::StreamFaults;
use super::stream_server::{Context, FromStream, Published, serve};
use super::{GossipSocket, seed};
use crate::datagram::Sender;
use crate::envelope::DATAGRAM_MAX;
use crate::metrics::Exchange;
use crate::stream::Snapshot;
use crate::{Cluster, Config, Event, Path, Request, SourcedKeys, Status, Surroundings, metrics};

/// The task; [`Node::run`] is its body.
pub struct Node {
    cluster: Cluster,
    gossip: SocketAddr,
    socket: Datagrams,
    /// Until [`Node::run`] hands it to the task that serves it.
    listener: Option<TcpListener>,
    probes: HostProbes,
    published: watch::Sender<Published>,
    /// The members have changed, and the streams have not been told.
    unpublished: bool,
    from_streams: mpsc::Receiver<FromStream>,
    context: Context,
    faults: StreamFaults,
    /// With whom an exchange is going on.
    exchanging: BTreeSet<SocketAddr>,
    /// The server of streams, and the exchanges. Those give the address of the other node.
    tasks: JoinSet<Option<SocketAddr>>,
    commands: mpsc::Receiver<Command>,
    heard: mpsc::Receiver<Heard>,
    frames: mpsc::Sender<Frame>,
    ask_stations: mpsc::Sender<()>,
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
    /// What the announcer heard.
    pub heard: mpsc::Sender<Heard>,
    /// Datagrams that the announcer is to send as frames of [`crate::ETHERTYPE`].
    pub frames: mpsc::Receiver<Frame>,
    /// Whenever the announcer is to let the stations on its wires say something.
    pub ask_stations: mpsc::Receiver<()>,
}

/// A datagram in a bare frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The interface here.
    pub interface: InterfaceName,
    /// The Ethernet address of the other end.
    pub mac: MacAddr,
    /// What follows the Ethernet header, without padding.
    pub payload: Vec<u8>,
}

/// What the announcer heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// A frame of [`crate::ETHERTYPE`]. Its payload may have been padded with zeros to the least length of a frame.
    Frame(Frame),
    /// A station that is no member said something.
    Station,
}

/// Something that a [`Node`] is told to do.
#[derive(Debug)]
pub enum Command {
    /// Tell everybody what this node is doing.
    SetState(NodeState),
    /// Take the links of this node, and tell everybody what they should know of them.
    SetSurroundings(Surroundings),
    /// Look for members at these addresses, no longer at others.
    SetSeeds(Vec<SocketAddr>),
    /// Take what the source of keys holds.
    SetKeys(SourcedKeys),
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
        let gossip = config.gossip;
        let local = Sender { name: config.local.clone(), process: config.process };
        let cluster = Cluster::new(config, seed(), now);
        let (socket, listener) = socket.into_parts();
        let published = Published { sealing: cluster.sealing().clone(), snapshot: snapshot_of(&cluster) };
        let (published, published_out) = watch::channel(published);
        let (from_streams_in, from_streams) = mpsc::channel(FROM_STREAMS_DEPTH);
        let context = Context { local, published: published_out, node: from_streams_in };
        let (members, members_out) = watch::channel(cluster.members().clone());
        let (status, status_out) = watch::channel(cluster.status());
        let (events, events_out) = mpsc::channel(EVENTS_DEPTH);
        let (commands_in, commands) = mpsc::channel(COMMANDS_DEPTH);
        let (heard_in, heard) = mpsc::channel(HEARD_DEPTH);
        let (frames, frames_out) = mpsc::channel(FRAMES_DEPTH);
        let (ask_stations, ask_stations_out) = mpsc::channel(1);
        let node = Self {
            cluster,
            gossip,
            socket,
            listener: Some(listener),
            probes: HostProbes::new(gossip),
            published,
            unpublished: false,
            from_streams,
            context,
            faults: StreamFaults::default(),
            exchanging: BTreeSet::new(),
            tasks: JoinSet::new(),
            commands,
            heard,
            frames,
            ask_stations,
            events,
            members,
            status,
            status_at: now,
            leaving: Vec::new(),
        };
        let handle = Handle {
            members: members_out,
            status: status_out,
            events: events_out,
            commands: commands_in,
            heard: heard_in,
            frames: frames_out,
            ask_stations: ask_stations_out,
        };
        (node, handle)
    }

    /// Takes part until the node has left or `cancel` is called, which ends it at once and without a farewell.
    #[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut buffer = vec![0; DATAGRAM_MAX + 1];
        if let Some(listener) = self.listener.take() {
            let context = self.context.clone();
            self.tasks.spawn(async move {
                serve(listener, context).await;
                None
            });
        }
        count_error(self.socket.writable().await);
        self.handle_due(Instant::now());
        while !self.cluster.is_gone() {
            let due = self.cluster.poll_timeout().unwrap_or_else(|| Instant::now() + IDLE);
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(command) = self.commands.recv() => self.obey(command, Instant::now()),
                Some(heard) = self.heard.recv() => self.take(heard, Instant::now()),
                Some(from_stream) = self.from_streams.recv() => self.take_from_stream(from_stream, Instant::now()),
                Some(ended) = self.tasks.join_next() => {
                    let with = ended.unwrap_or_else(|error| resume_unwind(error.into_panic()));
                    if let Some(with) = with {
                        self.exchanging.remove(&with);
                    }
                }
                readable = self.socket.readable() => count_error(readable),
                () = self.probes.ready() => {}
                // Whoever takes over addresses goes first.
                () = yield_now(), if self.unpublished => self.publish_state(),
                () = sleep_until(due.into()) => {}
            }
            self.receive(&mut buffer).await;
            self.receive_what_came_late(&mut buffer).await;
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
            Command::SetSurroundings(surroundings) => self.cluster.set_surroundings(surroundings, now),
            Command::SetSeeds(seeds) => self.cluster.set_seeds(&seeds, now),
            Command::SetKeys(sourced) => {
                self.cluster.set_keys(sourced, now);
                self.unpublished = true;
            }
            Command::Leave { done } => {
                self.leaving.push(done);
                self.cluster.leave(now);
            }
        }
        self.let_out();
    }

    fn take(&mut self, heard: Heard, now: Instant) {
        match heard {
            Heard::Frame(Frame { interface, mac, payload }) => {
                self.cluster.handle_datagram(Path::Wire(interface, mac), &payload, now);
            }
            Heard::Station => self.cluster.handle_station_answer(now),
        }
        self.let_out();
    }

    fn take_from_stream(&mut self, from_stream: FromStream, now: Instant) {
        match from_stream {
            FromStream::State { from, state } => match self.cluster.handle_state(&state, now) {
                Ok(_) => self.let_out(),
                Err(rejected) => self.context.reject(from, rejected.into()),
            },
            FromStream::Reached { with, name } => self.cluster.handle_reached(with, &name, now),
            FromStream::Fault { from, fault } => self.faults.count(fault, from, now),
        }
    }

    /// Takes in what has arrived, up to a limit, so that timers are not starved by a flood.
    #[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
    async fn receive(&mut self, buffer: &mut [u8]) -> Received {
        let now = Instant::now();
        for probe in self.probes.take_answered(now) {
            self.cluster.handle_host_answer(probe, now);
        }
        self.let_out();
        for _ in 0..HEARD_DEPTH {
            let Ok(heard) = self.heard.try_recv() else { break };
            self.take(heard, now);
        }
        for _ in 0..RETURNED_PER_WAKE_UP {
            match self.socket.take_returned() {
                Ok(Some(refused)) => self.cluster.handle_refused(refused, now),
                Ok(None) => {}
                Err(_) => break,
            }
        }
        self.let_out();
        for _ in 0..DATAGRAMS_PER_WAKE_UP {
            match self.socket.receive(buffer) {
                Ok((len, from)) => {
                    let bytes = buffer.get(..len).unwrap_or_default();
                    self.cluster.handle_datagram(from, bytes, Instant::now());
                    self.let_out();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Received::All,
                Err(error) if is_about_an_earlier_one(&error) => {}
                Err(error) => {
                    count_error(Err(error));
                    // The kernel reports an error once, normally; should it persist, the task must not spin.
                    sleep(PAUSE_AFTER_ERROR).await;
                    return Received::All;
                }
            }
        }
        Received::UpToLimit
    }

    /// Reads again when a timer is late.
    ///
    /// Then this process was held up, and what has arrived meanwhile may not be known yet: the runtime asks the kernel for
    /// it only between two runs of this task, and a process that was stopped and continued is told of its timers first.
    #[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
    async fn receive_what_came_late(&mut self, buffer: &mut [u8]) {
        let now = Instant::now();
        if self.cluster.poll_timeout().is_none_or(|due| now.saturating_duration_since(due) < LATE) {
            return;
        }
        for _ in 0..READ_AGAIN {
            yield_now().await;
            if self.receive(buffer).await == Received::All {
                break;
            }
        }
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
        self.cluster.report_metrics();
        let mut status = self.cluster.status();
        self.faults.show(&mut status, now);
        self.status.send_replace(status);
        if self.cluster.digest() != self.published.borrow().snapshot.digest {
            self.publish_state();
        }
    }

    /// Lets the streams know what this node knows.
    fn publish_state(&mut self) {
        self.unpublished = false;
        let (sealing, snapshot) = (self.cluster.sealing().clone(), snapshot_of(&self.cluster));
        self.published.send_replace(Published { sealing, snapshot });
    }

    fn exchange(&mut self, with: SocketAddr) {
        if self.exchanging.len() >= EXCHANGES_MAX || !self.exchanging.insert(with) {
            return metrics::exchanged(Exchange::Busy);
        }
        let (gossip, context) = (self.gossip, self.context.clone());
        self.tasks.spawn(async move {
            exchange(gossip, with, context).await;
            Some(with)
        });
    }

    fn reach(&mut self, with: SocketAddr) {
        if self.exchanging.len() >= EXCHANGES_MAX || !self.exchanging.insert(with) {
            return;
        }
        let (gossip, sealing, context) = (self.gossip, self.cluster.sealing().clone(), self.context.clone());
        self.tasks.spawn(async move {
            let local = (context.local.name.clone(), context.local.process);
            match reach(local, Some(gossip), with, sealing).await {
                // The node is gone: so is the use of it.
                Ok(name) => drop(context.node.send(FromStream::Reached { with, name }).await),
                Err(fault) => debug!(%with, reason = fault.reason(), "not reached by TCP either"),
            }
            Some(with)
        });
    }

    /// Sends what is to be sent, does what is to be done, and tells what has happened.
    #[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
    fn let_out(&mut self) {
        while let Some(transmit) = self.cluster.poll_transmit() {
            let to = match transmit.to {
                Path::Udp(to) => to,
                Path::Wire(interface, mac) => {
                    let frame = Frame { interface, mac, payload: transmit.payload };
                    if self.frames.try_send(frame).is_err() {
                        metrics::unsent();
                    }
                    continue;
                }
            };
            if let Err(error) = self.socket.send(&transmit.payload, to) {
                trace!(%to, %error, "datagram not sent");
                metrics::unsent();
            }
        }
        while let Some(request) = self.cluster.poll_request() {
            match request {
                // Full: it is being done.
                Request::AskStations => drop(self.ask_stations.try_send(())),
                Request::ProbeHost { probe, to } => self.probes.begin(probe, to, Instant::now()),
                Request::Exchange { with } => self.exchange(with),
                Request::Reach { with } => self.reach(with),
            }
        }
        while let Some(event) = self.cluster.poll_event() {
            if event == Event::MembersChanged {
                self.members.send_replace(self.cluster.members().clone());
                self.unpublished = true;
            }
            if event == Event::VerdictHeld {
                self.unpublished = true;
            }
            if self.events.try_send(event).is_err() {
                metrics::event_lost();
            }
        }
    }
}

fn snapshot_of(cluster: &Cluster) -> Snapshot {
    Snapshot { digest: cluster.digest(), state: cluster.state().into() }
}

fn count_error(result: io::Result<()>) {
    if let Err(error) = result {
        debug!(%error, "gossip socket");
        metrics::socket_error();
    }
}

/// How much of what has arrived was taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Received {
    All,
    UpToLimit,
}

/// Chosen: a reader that is 256 events behind is stuck.
const EVENTS_DEPTH: usize = 256;

/// Chosen: what a flood brings beyond that is lost, as on the wire.
const HEARD_DEPTH: usize = 256;

/// Chosen: a few frames for each member that is checked at a time.
const FRAMES_DEPTH: usize = 256;

/// Chosen: states of 1 MiB at most; streams wait for room.
const FROM_STREAMS_DEPTH: usize = 8;

/// Chosen: one with each of a few members at a time; the cluster asks again.
const EXCHANGES_MAX: usize = 8;

/// Chosen: commands come from one owner, one at a time.
const COMMANDS_DEPTH: usize = 16;

/// Chosen: a few milliseconds of work.
const DATAGRAMS_PER_WAKE_UP: usize = 256;

/// Chosen: fresh enough for people.
const STATUS_EVERY: Duration = Duration::from_millis(200);

/// Chosen: above what a busy machine does to every timer now and then, below what others notice.
const LATE: Duration = Duration::from_millis(20);

/// Chosen: with [`DATAGRAMS_PER_WAKE_UP`], as many as the socket's buffer holds.
const READ_AGAIN: usize = 4;

/// Later than this, others may have begun to suspect us.
const STALL: Duration = Duration::from_millis(300);

/// How long to sleep when nothing is due at all.
const IDLE: Duration = Duration::from_secs(1);

/// Chosen: far below the probe period.
/// Chosen: one for each member that a node sends to; the rest waits for its next turn.
const RETURNED_PER_WAKE_UP: usize = 16;
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests;
