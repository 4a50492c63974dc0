//! The task that owns the core and its sockets.
//!
//! ```text
//! watch: duties          ─┐                      ┌─► sockets: frames
//! mpsc:  commands        ─┤                      ├─► mpsc:  events
//! mpsc:  datagrams       ─┼─► Task { Announcer } ┼─► mpsc:  what was heard for the membership
//! watch: links, gateways ─┤                      ├─► watch: status
//! sockets: frames        ─┘                      └─► watch: surroundings
//! ```
//!
//! It never waits for anybody but in its one `select!`: what cannot be sent or told at once is retried or counted. It
//! may be dropped at any point; the node is then silent.

mod failures;
mod traffic;

use std::collections::{BTreeSet, VecDeque};
use std::future::poll_fn;
use std::time::{Duration, Instant, SystemTime};

use garpike_election::IfIndex;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet, yield_now};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::chronicle::Chronicle;
use super::counts::Counts;
use super::gateways::watch_gateways;
use super::groups::{Groups, Progress, is_out_of_memory};
use super::interfaces::watch_links;
use super::netlink::Lost;
use super::packet_socket::{Batch, OpenSocketError, PacketSocket};
use super::ports::{NdpUnicast, Ports};
use super::troubles::{Operation, Place, Troubles};
use crate::announcer::{Announcer, Config, Datagram, Event, Frame, Status};
use crate::duties::Duties;
use crate::filter::Filter;
use crate::links::LinkSet;
use crate::metrics;
use crate::prefixes::MAX_PREFIXES;
use crate::stations::Gateways;
use crate::surroundings::Surroundings;

/// The announcer with its sockets, ready to [`Task::run`].
#[derive(Debug)]
pub struct Task {
    announcer: Announcer,
    ports: Ports,
    groups: Groups,
    duties: watch::Receiver<Duties>,
    commands: mpsc::Receiver<Command>,
    datagrams: mpsc::Receiver<Datagram>,
    heard: mpsc::Sender<Heard>,
    events: mpsc::Sender<Event>,
    status: watch::Sender<Status>,
    surroundings: watch::Sender<Surroundings>,
    chronicle: Chronicle,
    /// Interfaces that lack a socket.
    deaf: BTreeSet<IfIndex>,
    troubles: Troubles,
    /// How many prefixes of each family the filters may hold.
    most_prefixes: usize,
    counts: Counts,
    /// Frames that are being sent; kept for its room.
    outgoing: Vec<Frame>,
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
    /// The state. Its counters may be some seconds old, the more the more addresses there are, the rest a fifth of one.
    pub status: watch::Receiver<Status>,
    /// How the node's wires look, for the facts that the membership gossips. Empty until that is known.
    pub surroundings: watch::Receiver<Surroundings>,
    /// What the announcer is told.
    pub commands: mpsc::Sender<Command>,
    /// Datagrams of the membership that are to be sent as frames. What cannot be sent at once is lost and counted.
    pub datagrams: mpsc::Sender<Datagram>,
    /// What the membership should hear of. Whoever does not take it in time loses the newest.
    pub heard: mpsc::Receiver<Heard>,
}

/// Something on the wires that concerns the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A datagram in a bare frame.
    Datagram(Datagram),
    /// A station that is no member has answered.
    Station,
}

/// What the announcer can be told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Announce every owned address again: others may have claimed it meanwhile.
    Reannounce,
    /// Let the stations on the wires say something; [`Heard::Station`] tells when one did.
    AskStations,
}

/// Why the task ended without being asked to.
#[derive(Debug, Error)]
pub enum TaskError {
    /// The link monitor is gone.
    #[error("the link monitor ended unexpectedly")]
    Monitor(#[source] Option<JoinError>),
}

impl Task {
    /// Prepares the task. It answers for what `duties` holds at any time.
    ///
    /// # Errors
    ///
    /// When packet sockets are not allowed here; the message names what is missing.
    pub fn new(
        config: Config,
        ndp_unicast: NdpUnicast,
        duties: watch::Receiver<Duties>,
    ) -> Result<(Self, Handles), OpenSocketError> {
        PacketSocket::check_permission()?;
        let announcer = Announcer::new(config);
        let (event_sender, events) = mpsc::channel(EVENT_DEPTH);
        let (command_sender, commands) = mpsc::channel(COMMAND_DEPTH);
        let (datagram_sender, datagrams) = mpsc::channel(DATAGRAM_DEPTH);
        let (heard_sender, heard) = mpsc::channel(DATAGRAM_DEPTH);
        let (status_sender, status) = watch::channel(Status::default());
        let (surroundings_sender, surroundings) = watch::channel(announcer.surroundings());
        let task = Self {
            ports: Ports::new(ndp_unicast, Filter::new(&announcer.prefixes())),
            announcer,
            groups: Groups::default(),
            duties,
            commands,
            datagrams,
            heard: heard_sender,
            events: event_sender,
            status: status_sender,
            surroundings: surroundings_sender,
            chronicle: Chronicle::default(),
            deaf: BTreeSet::new(),
            troubles: Troubles::default(),
            most_prefixes: MAX_PREFIXES,
            counts: Counts::default(),
            outgoing: Vec::with_capacity(Batch::MOST),
            unsent: VecDeque::new(),
            resend_at: None,
            reopen_at: None,
            join_at: None,
            publish_at: None,
        };
        let (commands, datagrams) = (command_sender, datagram_sender);
        Ok((task, Handles { events, status, surroundings, commands, datagrams, heard }))
    }

    /// Answers and announces until `stop` is cancelled or nobody can change the duties any more.
    ///
    /// # Errors
    ///
    /// When the link monitor fails, which it should not.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        let (link_sender, mut links) = watch::channel(None);
        let (gateway_sender, mut gateways) = watch::channel(Gateways::default());
        let mut monitor = JoinSet::new();
        let (lost_sender, mut lost) = mpsc::channel(LOST_DEPTH);
        monitor.spawn(watch_links(link_sender, lost_sender.clone()));
        monitor.spawn(watch_gateways(gateway_sender, lost_sender));
        self.duties.mark_changed();
        let mut batch = Batch::new();
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
                changed = self.duties.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let duties = self.duties.borrow_and_update().clone();
                    self.handle_duties(duties, now());
                }
                // The senders live as long as the monitors, whose end is a branch of its own.
                Ok(()) = links.changed() => {
                    let links = links.borrow_and_update().clone();
                    self.handle_links(links, now());
                }
                Ok(()) = gateways.changed() => {
                    let gateways = gateways.borrow_and_update().clone();
                    self.handle_gateways(&gateways, now());
                }
                Some(command) = self.commands.recv() => self.handle_command(command, now()),
                Some(datagram) = self.datagrams.recv() => self.send_datagram(&datagram),
                Some(lost) = lost.recv() => self.handle_lost(&lost, now()),
                ended = monitor.join_next() => {
                    return Err(TaskError::Monitor(ended.and_then(Result::err)));
                }
                () = timer => self.handle_timeout(now()),
                key = poll_fn(|cx| self.ports.poll_readable(cx)) => self.handle_readable(key, &mut batch).await,
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let own = [self.resend_at, self.reopen_at, self.join_at, self.publish_at];
        own.into_iter().chain([self.announcer.poll_timeout()]).flatten().min()
    }

    fn handle_duties(&mut self, duties: Duties, now: Instant) {
        debug!(owned = duties.owned.len(), stood_in = duties.stood_in.len(), "duties");
        self.announcer.handle_duties(duties, now);
        self.follow(now);
        self.publish_within(STATUS_INTERVAL, now);
    }

    fn handle_links(&mut self, links: Option<LinkSet>, now: Instant) {
        let Some(links) = links else { return };
        self.announcer.handle_links(links, now);
        self.tell_surroundings();
        self.follow(now);
        self.publish_within(STATUS_INTERVAL, now);
    }

    fn handle_lost(&mut self, lost: &Lost, now: Instant) {
        self.troubles.note(Place::Node, Operation::Netlink, lost, now);
        self.publish_within(STATUS_INTERVAL, now);
    }

    fn handle_gateways(&mut self, gateways: &Gateways, now: Instant) {
        debug!(?gateways, "gateways");
        self.announcer.handle_gateways(gateways, now);
        self.flush(now);
    }

    /// Tells how the wires look, if that has changed.
    fn tell_surroundings(&self) {
        let mut surroundings = self.announcer.surroundings();
        // What is asked on an interface without sockets is not heard: another node can do better.
        for (_, name) in self.announcer.interface_names().filter(|(index, _)| self.deaf.contains(index)) {
            failures::forget(&mut surroundings, name);
        }
        self.surroundings.send_if_modified(|current| {
            let changed = *current != surroundings;
            if changed {
                info!(?surroundings, "what this node sees of its wires");
                *current = surroundings;
            }
            changed
        });
    }

    fn handle_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Reannounce => self.announcer.reannounce(now),
            Command::AskStations => self.announcer.ask_stations(now),
        }
        self.flush(now);
    }

    /// Lets the rest of the process read what others have said while it was held up, before the next frame is answered.
    async fn learn_what_was_missed(&mut self) {
        for _ in 0..TURNS_OF_OTHERS {
            yield_now().await;
        }
        if self.duties.has_changed().is_ok_and(|changed| changed) {
            let duties = self.duties.borrow_and_update().clone();
            self.handle_duties(duties, now());
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.announcer.handle_timeout(now);
        self.resend(now);
        if self.reopen_at.take_if(|at| *at <= now).is_some() {
            self.follow(now);
        }
        if self.join_at.take_if(|at| *at <= now).is_some() {
            self.join_groups(now);
        }
        if self.publish_at.take_if(|at| *at <= now).is_some() {
            self.publish(now);
        }
        self.flush(now);
    }

    /// Brings sockets, filters and groups in line with the core. What is to be announced goes first: it is what others
    /// wait for.
    fn follow(&mut self, now: Instant) {
        let wanted: BTreeSet<_> = self.announcer.ports().collect();
        let mut failed = self.ports.open(&wanted);
        while failed.values().any(OpenSocketError::is_out_of_memory) && self.takes_coarser_filter() {
            self.set_filter(now);
            failed = self.ports.open(&wanted);
        }
        let deaf: BTreeSet<IfIndex> = failed.keys().copied().collect();
        for (interface, error) in failed {
            self.troubles.note(Place::Interface(interface), Operation::Open, &error, now);
        }
        // What was announced there so far is lost.
        for interface in self.deaf.difference(&deaf) {
            self.announcer.reannounce_on(*interface, now);
        }
        if deaf != self.deaf {
            self.deaf = deaf;
            self.tell_surroundings();
        }
        self.flush(now);
        self.set_filter(now);
        self.groups.want(self.announcer.groups());
        self.join_groups(now);
        if !self.deaf.is_empty() {
            self.reopen_at.get_or_insert(now + REOPEN_INTERVAL);
        }
        metrics::sizes(self.announcer.owned_count(), self.announcer.stood_in_count(), wanted.len());
    }

    /// Has the sockets pass what concerns the addresses.
    fn set_filter(&mut self, now: Instant) {
        loop {
            let refused = self.ports.set_filter(Filter::new(&self.announcer.prefixes_with(self.most_prefixes)));
            if refused.values().any(is_out_of_memory) && self.takes_coarser_filter() {
                continue;
            }
            for (interface, error) in refused {
                self.troubles.note(Place::Interface(interface), Operation::Filter, &error, now);
                self.reopen_at.get_or_insert(now + REOPEN_INTERVAL);
            }
            return;
        }
    }

    /// Where the kernel has no room for the filter, a coarser one does: it lets more pass that the core drops.
    fn takes_coarser_filter(&mut self) -> bool {
        let coarser = self.most_prefixes > 1;
        if coarser {
            self.most_prefixes /= 2;
            info!(
                prefixes = self.most_prefixes,
                "net.core.optmem_max has no room for the filter: taking a coarser one"
            );
        }
        coarser
    }

    fn join_groups(&mut self, now: Instant) {
        match self.groups.step() {
            Progress::Done => {}
            Progress::More => self.join_at = Some(now),
            Progress::Refused(refused) => {
                self.troubles.note(Place::Interface(refused.interface), Operation::JoinGroup, &refused, now);
                self.reopen_at.get_or_insert(now + REOPEN_INTERVAL);
            }
        }
    }

    /// Sends and tells everything that the core has ready.
    fn flush(&mut self, now: Instant) {
        self.transmit(now);
        while let Some(event) = self.announcer.poll_event() {
            self.chronicle.tell(&event, now);
            match &event {
                Event::StationAnswered { .. } => {
                    self.tell(Heard::Station);
                    continue;
                }
                Event::Acknowledged { .. } | Event::Checked { .. } => continue,
                // What was handed over needs no filter and no group any more.
                Event::HandedOver { .. } => self.reopen_at = Some(now),
                Event::Claimed { .. }
                | Event::Withheld { .. }
                | Event::Claims { .. }
                | Event::KernelsAnswer { .. }
                | Event::OneSegment { .. }
                | Event::WrongAnswer { .. }
                | Event::Announced { .. }
                | Event::NoInterface { .. } => {}
            }
            if self.events.try_send(event).is_err() {
                metrics::event_dropped();
            }
        }
        let told = {
            let told = self.surroundings.borrow();
            (told.stations, told.gateway_silent)
        };
        if told != (self.announcer.stations_known(), self.announcer.gateway_is_silent()) {
            self.tell_surroundings();
        }
    }

    /// Tells the membership, if it keeps up.
    fn tell(&self, heard: Heard) {
        if self.heard.try_send(heard).is_err() {
            metrics::event_dropped();
        }
    }

    /// Traffic alone changes only the counters of the picture, whose cost grows with the number of addresses.
    fn publish_counters(&mut self, now: Instant) {
        let thousands = u32::try_from(self.announcer.owned_count() / 1000).unwrap_or(u32::MAX);
        self.publish_within(COUNTERS_INTERVAL.saturating_mul(thousands.saturating_add(1)), now);
    }

    fn publish_within(&mut self, interval: Duration, now: Instant) {
        let at = now + interval;
        self.publish_at = Some(self.publish_at.map_or(at, |earlier| earlier.min(at)));
    }
}

#[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Chosen: the membership reads up to five times, the speaker elects, each in a turn of its own, with room.
const TURNS_OF_OTHERS: usize = 16;
/// Chosen: one for each of more than ten thousand addresses that are gained at once, while the receiver is busy. Room is taken
/// as it is needed.
const EVENT_DEPTH: usize = 16_384;
/// Chosen: commands are rare, and one more `Reannounce` in the queue adds nothing.
const COMMAND_DEPTH: usize = 8;
/// Chosen: a few for each member that is checked at a time; what a flood brings beyond that is lost, as on the wire.
const DATAGRAM_DEPTH: usize = 256;
/// Chosen: soon enough for whoever mends it, seldom enough to cost nothing.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);
/// Chosen: one for each monitor; what is lost is counted the next time.
const LOST_DEPTH: usize = 4;
/// Chosen: people and probes that read the state do not notice it.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);
/// For each thousand addresses. Chosen: a picture takes half a millisecond for a thousand, in which nothing is answered;
/// that may hit one request in a thousand.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(1);
