//! The task that owns the core and its sockets.
//!
//! ```text
//! watch: owned addresses ─┐                      ┌─► sockets: frames
//! mpsc:  commands         ├─► Task { Announcer } ├─► mpsc:  events
//! watch: link snapshots  ─┤                      ├─► watch: status
//! sockets: frames        ─┘                      └─► watch: interfaces that can announce
//! ```
//!
//! It never waits for anybody but in its one `select!`: what cannot be sent or told at once is retried or counted. It
//! may be dropped at any point; the node is then silent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::time::{Duration, Instant};

use garpike_election::{IfIndex, InterfaceName, Selection, ServiceIp};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::groups::{Groups, Progress};
use super::netlink::watch_links;
use super::packet_socket::{OpenSocketError, PacketSocket};
use super::ports::{Key, Ports, Reception};
use crate::announcer::{Announcer, Config, Event, Frame, FrameKind, Status};
use crate::filter::Filter;
use crate::links::LinkSet;
use crate::metrics;

/// The announcer with its sockets, ready to [`Task::run`].
#[derive(Debug)]
pub struct Task {
    announcer: Announcer,
    ports: Ports,
    groups: Groups,
    owned: watch::Receiver<BTreeMap<ServiceIp, Selection<InterfaceName>>>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    status: watch::Sender<Status>,
    announceable: watch::Sender<Selection<InterfaceName>>,
    /// Interfaces that lack a socket.
    deaf: BTreeSet<IfIndex>,
    /// Announcements that the kernel had no room for.
    unsent: VecDeque<Frame>,
    /// When to try `unsent` again.
    resend_at: Option<Instant>,
    /// When to try again to open sockets and join groups that failed.
    reopen_at: Option<Instant>,
    /// When to go on joining groups.
    join_at: Option<Instant>,
    /// When to publish the status; `None` while it has not changed.
    publish_at: Option<Instant>,
}

/// The other ends of a task's channels.
#[derive(Debug)]
pub struct Handles {
    /// What the announcer tells. Whoever does not take them in time loses the newest.
    pub events: mpsc::Receiver<Event>,
    /// The state; counters may be a second old, the rest a fifth of one.
    pub status: watch::Receiver<Status>,
    /// The interfaces that can announce, for the facts that the membership gossips. Empty until they are known.
    pub announceable: watch::Receiver<Selection<InterfaceName>>,
    /// What the announcer is told.
    pub commands: mpsc::Sender<Command>,
}

/// What the announcer can be told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Announce every owned address again: others may have claimed it meanwhile.
    Reannounce,
}

/// Why the task ended without being asked to.
#[derive(Debug, Error)]
pub enum TaskError {
    /// The link monitor is gone.
    #[error("the link monitor ended unexpectedly")]
    Monitor(#[source] Option<JoinError>),
}

impl Task {
    /// Prepares the task. It answers for what `owned` holds at any time.
    ///
    /// # Errors
    ///
    /// When packet sockets are not allowed here; the message names what is missing.
    pub fn new(
        config: Config,
        owned: watch::Receiver<BTreeMap<ServiceIp, Selection<InterfaceName>>>,
    ) -> Result<(Self, Handles), OpenSocketError> {
        PacketSocket::check_permission()?;
        let announcer = Announcer::new(config);
        let (event_sender, events) = mpsc::channel(EVENT_DEPTH);
        let (command_sender, commands) = mpsc::channel(COMMAND_DEPTH);
        let (status_sender, status) = watch::channel(Status::default());
        let (announceable_sender, announceable) = watch::channel(announcer.announceable());
        let task = Self {
            ports: Ports::new(Filter::new(&announcer.prefixes())),
            announcer,
            groups: Groups::default(),
            owned,
            commands,
            events: event_sender,
            status: status_sender,
            announceable: announceable_sender,
            deaf: BTreeSet::new(),
            unsent: VecDeque::new(),
            resend_at: None,
            reopen_at: None,
            join_at: None,
            publish_at: None,
        };
        Ok((task, Handles { events, status, announceable, commands: command_sender }))
    }

    /// Answers and announces until `stop` is cancelled or nobody can change the owned addresses any more.
    ///
    /// # Errors
    ///
    /// When the link monitor fails, which it should not.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        let (link_sender, mut links) = watch::channel(None);
        let mut monitor = JoinSet::new();
        monitor.spawn(watch_links(link_sender));
        self.owned.mark_changed();
        loop {
            let deadline = self.deadline();
            let timer = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // In this order: a command means what was known when it was given, a flood of frames starves nothing.
                biased;
                () = stop.cancelled() => return Ok(()),
                changed = self.owned.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let owned = self.owned.borrow_and_update().clone();
                    self.handle_owned(owned, now());
                }
                // The sender lives as long as the monitor, whose end is a branch of its own.
                Ok(()) = links.changed() => {
                    let links = links.borrow_and_update().clone();
                    self.handle_links(links, now());
                }
                Some(command) = self.commands.recv() => self.handle_command(command, now()),
                ended = monitor.join_next() => {
                    return Err(TaskError::Monitor(ended.and_then(Result::err)));
                }
                () = timer => self.handle_timeout(now()),
                key = poll_fn(|cx| self.ports.poll_readable(cx)) => self.handle_readable(key),
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let own = [self.resend_at, self.reopen_at, self.join_at, self.publish_at];
        own.into_iter().chain([self.announcer.poll_timeout()]).flatten().min()
    }

    fn handle_owned(&mut self, owned: BTreeMap<ServiceIp, Selection<InterfaceName>>, now: Instant) {
        debug!(count = owned.len(), "owned addresses");
        self.announcer.handle_owned(owned, now);
        self.follow(now);
        self.publish_within(STATUS_INTERVAL, now);
    }

    fn handle_links(&mut self, links: Option<LinkSet>, now: Instant) {
        let Some(links) = links else { return };
        self.announcer.handle_links(links, now);
        self.follow(now);
        self.publish_within(STATUS_INTERVAL, now);
        let announceable = self.announcer.announceable();
        self.announceable.send_if_modified(|current| {
            let changed = *current != announceable;
            if changed {
                info!(?announceable, "interfaces that can announce");
                *current = announceable;
            }
            changed
        });
    }

    fn handle_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Reannounce => self.announcer.reannounce(now),
        }
        self.flush(now);
    }

    /// Handles a batch of frames, each of them to the end, so that an answer does not wait for the rest.
    fn handle_readable(&mut self, key: Key) {
        self.publish_within(COUNTERS_INTERVAL, now());
        let mut buffer = [0; FRAME_BUFFER_LEN];
        for _ in 0..BATCH {
            match self.ports.receive(key, &mut buffer) {
                Ok(Reception::Frame(frame)) => {
                    let now = now();
                    if let Err(unanswered) = self.announcer.handle_frame(key.interface, frame, now) {
                        metrics::frame_unanswered(unanswered.reason());
                    }
                    self.flush(now);
                }
                Ok(Reception::OtherInterface) => metrics::frame_unanswered("other_interface"),
                Ok(Reception::Empty) => return,
                Err(error) => {
                    debug!(interface = %key.interface, %error, "cannot read from the socket");
                    metrics::socket_error("receive");
                    return;
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.announcer.handle_timeout(now);
        if self.resend_at.take_if(|at| *at <= now).is_some() {
            for _ in 0..self.unsent.len() {
                let Some(frame) = self.unsent.pop_front() else { break };
                if self.announcer.serves(frame.ip, frame.interface) {
                    self.send(frame, now);
                }
            }
        }
        if self.reopen_at.take_if(|at| *at <= now).is_some() {
            self.follow(now);
        }
        if self.join_at.take_if(|at| *at <= now).is_some() {
            self.join_groups(now);
        }
        if self.publish_at.take_if(|at| *at <= now).is_some() {
            self.status.send_replace(self.announcer.status());
        }
        self.flush(now);
    }

    /// Brings sockets, filters and groups in line with the core. What is to be announced goes first: it is what others
    /// wait for.
    fn follow(&mut self, now: Instant) {
        let wanted: BTreeSet<_> = self.announcer.ports().collect();
        let deaf = self.ports.open(&wanted);
        // What was announced there so far is lost.
        for interface in self.deaf.difference(&deaf) {
            self.announcer.reannounce_on(*interface, now);
        }
        self.deaf = deaf;
        self.flush(now);
        self.ports.set_filter(Filter::new(&self.announcer.prefixes()));
        self.groups.want(self.announcer.groups());
        self.join_groups(now);
        if !self.deaf.is_empty() {
            self.reopen_at.get_or_insert(now + REOPEN_INTERVAL);
        }
        metrics::sizes(self.announcer.owned_count(), wanted.len());
    }

    fn join_groups(&mut self, now: Instant) {
        match self.groups.step() {
            Progress::Done => {}
            Progress::More => self.join_at = Some(now),
            Progress::Refused => {
                self.reopen_at.get_or_insert(now + REOPEN_INTERVAL);
            }
        }
    }

    /// Sends and tells everything that the core has ready.
    fn flush(&mut self, now: Instant) {
        while let Some(frame) = self.announcer.poll_transmit() {
            self.send(frame, now);
        }
        while let Some(event) = self.announcer.poll_event() {
            match &event {
                Event::Claimed { ip, mac, interface } => {
                    info!(service_ip = %ip, %mac, %interface, "another station claims the address");
                }
                Event::NoInterface { ip } => {
                    warn!(service_ip = %ip, "no interface of this node can announce the address");
                }
            }
            if self.events.try_send(event).is_err() {
                metrics::event_dropped();
            }
        }
    }

    fn publish_within(&mut self, interval: Duration, now: Instant) {
        let at = now + interval;
        self.publish_at = Some(self.publish_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn send(&mut self, frame: Frame, now: Instant) {
        let Err(error) = self.ports.send(&frame) else {
            metrics::frame_sent(frame.kind.as_str());
            self.publish_within(COUNTERS_INTERVAL, now);
            return;
        };
        let (reason, full) = match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::WouldBlock, _) | (_, Some(libc::ENOBUFS)) => ("queue_full", true),
            (io::ErrorKind::NotConnected, _) => ("no_socket", false),
            (io::ErrorKind::NetworkDown, _) => ("interface_down", false),
            (_, Some(libc::ENXIO | libc::ENODEV)) => ("interface_gone", false),
            _ => ("other", false),
        };
        metrics::send_error(reason);
        // An asker asks again. Where an interface is down or gone, its return begins the announcements anew.
        if full && frame.kind == FrameKind::Announcement && self.unsent.len() < UNSENT_DEPTH {
            self.unsent.push_back(frame);
            self.resend_at.get_or_insert(now + RESEND_INTERVAL);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// The longest frame that is looked at, in bytes: one of the usual MTU. Neighbour discovery with more options than fit
/// is counted as truncated.
const FRAME_BUFFER_LEN: usize = 2048;
/// Chosen: frames that are handled before the other inputs get their turn, well under a millisecond.
const BATCH: usize = 64;
/// Chosen: a burst of events for several hundred addresses, while the receiver is busy for a moment.
const EVENT_DEPTH: usize = 1024;
/// Chosen: commands are rare, and one more `Reannounce` in the queue adds nothing.
const COMMAND_DEPTH: usize = 8;
/// Chosen: half a second at the full rate of announcements; the schedule repeats them anyway.
const UNSENT_DEPTH: usize = 4096;
/// Chosen: the time in which a gigabit link sends some thousand frames.
const RESEND_INTERVAL: Duration = Duration::from_millis(5);
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);
/// Chosen: people and probes that read the state do not notice it.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);
/// Chosen: a picture of 10 000 addresses takes some milliseconds, which traffic alone must not cost more often.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(1);
