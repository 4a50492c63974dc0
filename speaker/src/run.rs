//! The composition root: opens everything, carries values between the tasks, ends them in order.
//!
//! ```text
//!  source thread ──── Snapshot ────┐                      ┌─── duties ────► announcer task
//!                                  ├──► this task: elects ┤
//!  membership task ── Members ─────┘                      └──── view ─────► /state.json
//!         ▲
//!  key thread: keys
//! ```
//!
//! A task that ends before it was asked to ends the process: a node that is half alive is worse than a dead one.

mod end;
mod keys;
mod publish;
mod start;
mod tasks;
mod wanted;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use garpike_announcer::{Duties, io as announcer_io};
use garpike_controller_api::Severity;
use garpike_election::{Handicap, Members, NodeName, NodeState, Presence, ServiceIp, Unowned};
use garpike_membership::io as membership_io;
use garpike_membership::{Gateway, Surroundings};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::args::Args;
use crate::availability::Availability;
use crate::complaints::Complaints;
use crate::data_plane::DataPlane;
use crate::decisions::{self, Decisions};
use crate::failovers::{Cause, Failovers, Phase, Trigger};
use crate::metrics;
use crate::peers::Peers;
use crate::pipeline::{Pipeline, View};
use crate::source::{Origin, Snapshot};
use crate::take_over;
use tasks::{Ended, unexpected_end};
use wanted::Wanted;

/// Runs a speaker until SIGTERM or SIGINT.
///
/// # Errors
///
/// When something that it needs is missing at the start (key, port, right), or a task ends unexpectedly. The message
/// names what, and the mend.
pub async fn run(args: &Args) -> Result<()> {
    // Before any thread is started, which would have it in force.
    if let Err(error) = announcer_io::lower_net_raw() {
        warn!(%error, "CAP_NET_RAW stays in force all the time: the kernel does not let it be lowered");
    }
    let mut signals = Signals::new()?;
    tokio::select! {
        free = take_over::hold_back_for_bgp(args) => free?,
        () = signals.next() => return Ok(()),
    }
    let mut speaker = Speaker::start(args).await?;
    tokio::select! {
        ended = speaker.serve() => return ended,
        () = signals.next() => {}
    }
    tokio::select! {
        ended = speaker.end() => ended,
        () = signals.next() => bail!("ended by a second signal, before all members knew"),
    }
}

/// What this task uses of the membership.
struct Membership {
    members: watch::Receiver<Members>,
    status: watch::Receiver<garpike_membership::Status>,
    events: mpsc::Receiver<garpike_membership::Event>,
    commands: mpsc::Sender<membership_io::Command>,
}

/// What this task uses of the announcer.
struct Announcer {
    surroundings: watch::Receiver<garpike_announcer::Surroundings>,
    events: mpsc::Receiver<garpike_announcer::Event>,
    commands: mpsc::Sender<announcer_io::Command>,
}

/// The addresses at which members are looked for.
fn seeds(join: &[SocketAddr], peers: &Peers, gossip: SocketAddr) -> Vec<SocketAddr> {
    let others = peers.reachable_from(gossip.ip()).map(|ip| SocketAddr::new(ip, gossip.port()));
    join.iter().copied().chain(others).collect()
}

/// The tasks, and the state that this one owns: the election.
struct Speaker {
    node: NodeName,
    source: Wanted,
    snapshots: watch::Receiver<Snapshot>,
    /// The addresses to meet that flags name.
    join: Vec<SocketAddr>,
    gossip: SocketAddr,
    keys: Option<membership_io::KeySource>,
    membership: Membership,
    announcer: Announcer,
    data_plane: watch::Receiver<DataPlane>,
    pipeline: Pipeline,
    duties: watch::Sender<Duties>,
    view: watch::Sender<View>,
    decisions: watch::Sender<Decisions>,
    /// The addresses that nobody may own, with the reason that was told.
    unowned: BTreeMap<ServiceIp, Unowned>,
    complaints: Complaints,
    failovers: Failovers,
    availability: Availability,
    /// Events that came with the members, and are handled after them.
    later: VecDeque<garpike_membership::Event>,
    tasks: JoinSet<Ended>,
    stop: CancellationToken,
}

impl Speaker {
    /// Elects on every change, until a task ends.
    async fn serve(&mut self) -> Result<()> {
        self.snapshots.mark_changed();
        self.membership.members.mark_changed();
        self.announcer.surroundings.mark_changed();
        if let Some(keys) = &mut self.keys {
            keys.keys.mark_changed();
        }
        loop {
            tokio::select! {
                ended = self.tasks.join_next() => return Err(unexpected_end(ended)),
                changed = self.membership.members.changed() => {
                    changed.context("the membership is gone")?;
                    self.follow_members().await;
                }
                Some(event) = self.membership.events.recv() => self.handle_membership(event).await,
                changed = self.snapshots.changed() => {
                    changed.context("the thread that reads what is wanted is gone")?;
                    self.follow_wanted().await?;
                }
                changed = self.source.next_peers() => {
                    changed?;
                    let peers = self.source.peers();
                    let seeds = seeds(&self.join, &peers, self.gossip);
                    self.pipeline.handle_unlike(peers.unlike);
                    let command = membership_io::Command::SetSeeds(seeds);
                    self.membership.commands.send(command).await.map_err(|_| anyhow!("the membership is gone"))?;
                }
                changed = self.announcer.surroundings.changed() => {
                    changed.context("the announcer is gone")?;
                    self.tell_surroundings().await?;
                }
                Ok(()) = self.data_plane.changed() => self.tell_surroundings().await?,
                changed = self.membership.status.changed() => {
                    changed.context("the membership is gone")?;
                    self.follow_status();
                }
                sourced = keys::next(self.keys.as_mut()) => {
                    let command = membership_io::Command::SetKeys(sourced?);
                    self.membership.commands.send(command).await.map_err(|_| anyhow!("the membership is gone"))?;
                }
                Some(event) = self.announcer.events.recv() => self.handle_announcer(&event),
            }
            while let Some(event) = self.later.pop_front() {
                self.handle_membership(event).await;
            }
        }
    }

    /// Looks at what the membership shows of itself, a few times a second.
    fn follow_status(&mut self) {
        {
            let status = self.membership.status.borrow_and_update();
            self.complaints.report(&status.complaints, now());
            if let Some(keys) = &self.keys {
                keys.set_held(status.keys.iter().map(|key| key.id));
            }
        }
        self.availability.handle_timeout(now());
        let (answered, unanswered) = self.availability.take();
        metrics::address_seconds(answered, unanswered);
    }

    async fn follow_wanted(&mut self) -> Result<()> {
        let snapshot = self.snapshots.borrow_and_update().clone();
        if snapshot.origin == Origin::Nothing {
            return Ok(());
        }
        for severity in [Severity::Error, Severity::Warning, Severity::Note] {
            let problems = snapshot.problems.iter().filter(|problem| problem.severity == severity).count();
            metrics::manifest_problems(severity.as_str(), problems);
        }
        let drained = snapshot.drained.contains_key(&self.node);
        let changes = self.pipeline.handle_desired(snapshot.desired);
        self.failovers.handle_changes(&self.node, &changes, Trigger::Wanted, now());
        self.publish(changes, "what is wanted has changed").await;
        // What one node says of itself reaches all at once, whenever each of them reads its files.
        let state = if drained { NodeState::Draining } else { NodeState::Ready };
        let command = membership_io::Command::SetState(state);
        self.membership.commands.send(command).await.map_err(|_| anyhow!("the membership is gone"))
    }

    async fn follow_members(&mut self) {
        // What the members tell by their absence: it came before them.
        while let Ok(event) = self.membership.events.try_recv() {
            match self.note_loss(event) {
                None => {}
                Some(event) => self.later.push_back(event),
            }
        }
        let members = self.membership.members.borrow_and_update().clone();
        let before = self.pipeline.view().members.clone();
        let changes = self.pipeline.handle_members(members);
        let after = self.pipeline.view().members.as_deref();
        if let Some(after) = after {
            let trigger = Trigger::Members { before: before.as_deref(), after };
            self.failovers.handle_changes(&self.node, &changes, trigger, now());
        }
        let cause = match after.filter(|_| !changes.is_empty()) {
            Some(after) => decisions::cause(before.as_deref(), after),
            None => String::new(),
        };
        self.publish(changes, &cause).await;
    }

    /// Notes that a member was lost, for the measure of what follows; gives back what is something else.
    fn note_loss(&mut self, event: garpike_membership::Event) -> Option<garpike_membership::Event> {
        match event {
            garpike_membership::Event::HostDied { node, silent, at } => {
                self.failovers.handle_loss(node, Cause::Crash, silent, at);
                None
            }
            garpike_membership::Event::GraceOver { node, at } => {
                self.failovers.handle_loss(node, Cause::GraceOver, None, at);
                None
            }
            garpike_membership::Event::MembersChanged
            | garpike_membership::Event::Ready
            | garpike_membership::Event::Healed { .. }
            | garpike_membership::Event::FactsKnown
            | garpike_membership::Event::VerdictHeld
            | garpike_membership::Event::DeclaredDead
            | garpike_membership::Event::TakenForDead
            | garpike_membership::Event::NameConflict { .. } => Some(event),
        }
    }

    /// Measures. The announcer has logged and counted the rest; who owns an address is not decided by whoever claims it.
    fn handle_announcer(&mut self, event: &garpike_announcer::Event) {
        if let garpike_announcer::Event::Announced { ip, at } = event {
            for (phase, cause, took) in self.failovers.handle_announced(*ip, *at) {
                metrics::failover(phase, cause, took);
                if (phase, cause) == (Phase::Total, Cause::Crash) {
                    self.availability.handle_outage(took);
                }
            }
        }
    }

    async fn handle_membership(&mut self, event: garpike_membership::Event) {
        let Some(event) = self.note_loss(event) else { return };
        match event {
            // The new members come by the watch; losses have been noted.
            garpike_membership::Event::MembersChanged
            | garpike_membership::Event::FactsKnown
            | garpike_membership::Event::VerdictHeld
            | garpike_membership::Event::HostDied { .. }
            | garpike_membership::Event::GraceOver { .. } => {}
            garpike_membership::Event::Ready => info!("ready"),
            garpike_membership::Event::Healed { nodes } => {
                info!(?nodes, "members are back that had lived all the time: announcing again what this node owns");
                self.reannounce().await;
            }
            garpike_membership::Event::DeclaredDead => {
                warn!("the others had declared this node dead: announcing again what it owns");
                self.reannounce().await;
            }
            garpike_membership::Event::TakenForDead => {
                info!("a node that was alone had taken this one for dead: announcing again what it owns");
                self.reannounce().await;
            }
            garpike_membership::Event::NameConflict { other } => {
                warn!(%other, node = %self.node, "another node has this name; give each node its own --node-name");
            }
        }
    }

    /// Announces everything again that this node owns by the latest members: the last word on the wire is the owner's.
    async fn reannounce(&mut self) {
        self.follow_members().await;
        // Full: one that waits in the queue does the same.
        let _ = self.announcer.commands.try_send(announcer_io::Command::Reannounce);
    }

    async fn tell_surroundings(&mut self) -> Result<()> {
        let data_plane = *self.data_plane.borrow_and_update();
        let surroundings = known(&self.announcer.surroundings.borrow_and_update(), data_plane);
        let command = membership_io::Command::SetSurroundings(surroundings);
        self.membership.commands.send(command).await.map_err(|_| anyhow!("the membership is gone"))
    }
}

/// What the membership is told of what the announcer sees.
fn known(seen: &garpike_announcer::Surroundings, data_plane: DataPlane) -> Surroundings {
    let garpike_announcer::Surroundings { interfaces, wires, stations, gateway_silent } = seen;
    let gateway = if *gateway_silent { Gateway::Silent } else { Gateway::Answers };
    let handicaps = match data_plane {
        DataPlane::Works => BTreeSet::new(),
        DataPlane::Fails => BTreeSet::from([Handicap::NoDataPlane]),
    };
    Surroundings { interfaces: interfaces.clone(), wires: wires.clone(), stations: *stations, gateway, handicaps }
}

/// Whether the speaker of a node runs; who is no member needs no stand-in.
fn presence(view: &View, node: &NodeName) -> Presence {
    let member = view.members.as_ref().and_then(|members| members.nodes.get(node));
    member.map_or(Presence::Here, |member| member.presence)
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let of = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { terminate: of(SignalKind::terminate())?, interrupt: of(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the composition root reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
