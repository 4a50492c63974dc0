//! The composition root: opens everything, carries values between the tasks, ends them in order.
//!
//! ```text
//!  source thread ──── Snapshot ────┐                      ┌──── owned ────► announcer task
//!                                  ├──► this task: elects ┤
//!  membership task ── Members ─────┘                      └──── view ─────► /state.json
//! ```
//!
//! A task that ends before it was asked to ends the process: a node that is half alive is worse than a dead one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use garpike_announcer::io as announcer_io;
use garpike_controller_api::{Scope, Severity};
use garpike_election::{Change, InterfaceName, NodeName, NodeState, Selection, ServiceIp, Unowned};
use garpike_membership::io as membership_io;
use garpike_membership::{Key, Sealing, SecretKey};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::args::{Args, BindServiceIps};
use crate::complaints::Complaints;
use crate::handover::Handover;
use crate::pipeline::{Pipeline, View};
use crate::source::{ExcludeLabel, Rules, Source};
use crate::window::{Listeners, Window};
use crate::{local_addresses, metrics};

/// Runs a speaker until SIGTERM or SIGINT.
///
/// # Errors
///
/// When something that it needs is missing at the start (key, port, right), or a task ends unexpectedly. The message
/// names what, and the mend.
pub async fn run(args: &Args) -> Result<()> {
    let mut signals = Signals::new()?;
    let mut speaker = Speaker::start(args).await?;
    tokio::select! {
        ended = speaker.serve() => return ended,
        () = signals.next() => {}
    }
    tokio::select! {
        ended = speaker.end() => ended,
        () = signals.next() => bail!("ended by a second signal, before everything was handed over"),
    }
}

/// How a task ended.
struct Ended {
    task: &'static str,
    result: Result<()>,
}

/// The tasks, and the state that this one owns: the election.
struct Speaker {
    node: NodeName,
    source: Source,
    membership: membership_io::Handle,
    announcer: announcer_io::Handles,
    pipeline: Pipeline,
    owned: watch::Sender<BTreeMap<ServiceIp, Selection<InterfaceName>>>,
    view: watch::Sender<View>,
    /// The addresses that nobody may own, with the reason that was told.
    unowned: BTreeMap<ServiceIp, Unowned>,
    complaints: Complaints,
    tasks: JoinSet<Ended>,
    stop: CancellationToken,
}

impl Speaker {
    async fn start(args: &Args) -> Result<Self> {
        let prometheus = PrometheusBuilder::new().install_recorder().context("cannot install the metrics recorder")?;
        metrics::describe();
        let sealing = sealing(args)?;
        let source = Source::start(&args.manifests, rules(args))?;
        let listeners = Listeners::bind(args).await?;

        let (owned, owned_receiver) = watch::channel(BTreeMap::new());
        let (announcer_task, announcer) =
            announcer_io::Task::new(garpike_announcer::Config::default(), owned_receiver)?;
        let gossip = args.gossip_address()?;
        let (generation, process) = membership_io::new_process();
        let config = garpike_membership::Config {
            local: args.node_name.clone(),
            generation,
            process,
            gossip,
            seeds: args.seeds(),
            sealing,
            // Told as soon as the announcer knows them.
            interfaces: Selection::Only([].into()),
        };
        info!(node = %config.local, gossip = %config.gossip, version = env!("CARGO_PKG_VERSION"), "speaker starts");
        let (membership_task, membership) =
            membership_io::Node::new(config, membership_io::GossipSocket::bind(gossip)?);

        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let token = stop.clone();
        tasks.spawn(async move {
            let result = announcer_task.run(token).await.map_err(Into::into);
            Ended { task: "announcer", result }
        });
        let token = stop.clone();
        spawn(&mut tasks, "membership", membership_task.run(token));
        if args.bind_service_ips == BindServiceIps::Lo {
            let keep = local_addresses::keep(source.snapshots.clone(), announcer.announceable.clone(), stop.clone());
            spawn(&mut tasks, "service IPs on lo", keep);
        }
        let (view, view_receiver) = watch::channel(View::default());
        let window = Window {
            node: args.node_name.clone(),
            started: now(),
            view: view_receiver,
            problems: source.snapshots.clone(),
            membership: membership.status.clone(),
            announcer: announcer.status.clone(),
            announceable: announcer.announceable.clone(),
            prometheus,
        };
        spawn(&mut tasks, "admin servers", listeners.serve(window, stop.clone()));

        let node = args.node_name.clone();
        let pipeline = Pipeline::new(node.clone());
        let unowned = BTreeMap::new();
        let complaints = Complaints::default();
        Ok(Self { node, source, membership, announcer, pipeline, owned, view, unowned, complaints, tasks, stop })
    }

    /// Elects on every change, until a task ends.
    async fn serve(&mut self) -> Result<()> {
        self.source.snapshots.mark_changed();
        self.membership.members.mark_changed();
        self.announcer.announceable.mark_changed();
        loop {
            tokio::select! {
                ended = self.tasks.join_next() => return Err(unexpected_end(ended)),
                changed = self.membership.members.changed() => {
                    changed.context("the membership is gone")?;
                    self.follow_members().await;
                }
                Some(event) = self.membership.events.recv() => self.handle_membership(event).await,
                changed = self.source.snapshots.changed() => {
                    changed.context("the thread that reads the manifests is gone")?;
                    self.follow_manifests().await;
                }
                changed = self.announcer.announceable.changed() => {
                    changed.context("the announcer is gone")?;
                    self.tell_interfaces().await?;
                }
                changed = self.membership.status.changed() => {
                    changed.context("the membership is gone")?;
                    self.complaints.report(&self.membership.status.borrow_and_update().complaints, now());
                }
                // The announcer has logged and counted it; who owns an address is not decided by whoever claims it.
                Some(_) = self.announcer.events.recv() => {}
            }
        }
    }

    async fn follow_manifests(&mut self) {
        let snapshot = self.source.snapshots.borrow_and_update().clone();
        for severity in [Severity::Error, Severity::Warning, Severity::Note] {
            let problems = snapshot.problems.iter().filter(|problem| problem.severity == severity).count();
            metrics::manifest_problems(severity.as_str(), problems);
        }
        let changes = self.pipeline.handle_desired(snapshot.desired);
        self.publish(changes).await;
    }

    async fn follow_members(&mut self) {
        let members = self.membership.members.borrow_and_update().clone();
        let changes = self.pipeline.handle_members(members);
        self.publish(changes).await;
    }

    async fn handle_membership(&mut self, event: garpike_membership::Event) {
        match event {
            // The new members come by the watch.
            garpike_membership::Event::MembersChanged => {}
            garpike_membership::Event::Ready => info!("ready"),
            garpike_membership::Event::Healed { nodes } => {
                info!(?nodes, "members are back that had lived all the time: announcing again what this node owns");
                self.reannounce().await;
            }
            garpike_membership::Event::DeclaredDead => {
                warn!("the others had declared this node dead: announcing again what it owns");
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

    async fn tell_interfaces(&mut self) -> Result<()> {
        let interfaces = self.announcer.announceable.borrow_and_update().clone();
        let command = membership_io::Command::SetInterfaces(interfaces);
        self.membership.commands.send(command).await.map_err(|_| anyhow!("the membership is gone"))
    }

    /// Makes a new assignment known: to the announcer first, then to people.
    async fn publish(&mut self, changes: Vec<Change>) {
        let owned = self.pipeline.owned();
        self.owned.send_if_modified(|current| {
            let changed = *current != owned;
            *current = owned;
            changed
        });
        // The announcer runs on this thread: its first frames do not wait for the log.
        tokio::task::yield_now().await;
        let view = self.pipeline.view().clone();
        self.report_unowned(&view);
        self.view.send_replace(view);
        for Change { ip, from, to } in &changes {
            let meaning = match (from, to) {
                (_, Some(to)) if *to == self.node => "gained",
                (Some(from), _) if *from == self.node => "lost",
                (_, _) => "elsewhere",
            };
            metrics::owner_changed(meaning);
            let name = |node: &Option<NodeName>| node.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
            if changes.len() <= CHANGES_LOGGED {
                info!(service_ip = %ip, from = name(from), to = name(to), meaning, "owner changed");
            } else {
                debug!(service_ip = %ip, from = name(from), to = name(to), meaning, "owner changed");
            }
        }
        if changes.len() > CHANGES_LOGGED {
            info!(addresses = changes.len(), "owners changed; --log-level debug names each");
        }
    }

    /// Counts the addresses that nobody may own, and warns once of each, as soon as this node can judge that.
    fn report_unowned(&mut self, view: &View) {
        let addresses = &view.assignment.addresses;
        let unowned: BTreeMap<ServiceIp, Unowned> =
            addresses.iter().filter_map(|(ip, elected)| Some((*ip, elected.unowned?))).collect();
        metrics::addresses(addresses.len(), unowned.len());
        let local = view.members.as_ref().and_then(|members| members.nodes.get(&self.node));
        let nowhere = Selection::Only([].into());
        if !local.is_some_and(|local| local.state == NodeState::Ready && local.interfaces != nowhere) {
            return;
        }
        for (ip, unowned) in unowned.iter().filter(|(ip, unowned)| self.unowned.get(ip) != Some(unowned)) {
            let Some(address) = view.desired.addresses.get(ip) else { continue };
            let services: Vec<String> = address.services.iter().map(ToString::to_string).collect();
            let interfaces = address.placements.iter().map(|placement| placement.interfaces.clone());
            let interfaces = interfaces.reduce(Selection::union).unwrap_or(Selection::All);
            let (reason, mend) = (unowned.reason(), unowned.mend());
            warn!(service_ip = %ip, ?services, ?interfaces, reason, "nobody answers for the address; {mend}");
        }
        self.unowned = unowned;
    }

    /// Hands over, leaves, and ends the tasks.
    async fn end(&mut self) -> Result<()> {
        info!("asked to end: handing over");
        let restarting = membership_io::Command::SetState(NodeState::Restarting);
        self.membership.commands.send(restarting).await.map_err(|_| anyhow!("the membership is gone"))?;
        self.hand_over().await?;
        let (done, left) = oneshot::channel();
        self.membership
            .commands
            .send(membership_io::Command::Leave { done })
            .await
            .map_err(|_| anyhow!("the membership is gone"))?;
        if tokio::time::timeout(LONGEST_LEAVE, left).await.is_err() {
            warn!("not all members could be told that this node leaves");
        }
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            let Ended { task, result } = ended.context("a task panicked")?;
            result.with_context(|| format!("the task {task} failed"))?;
        }
        info!("ended");
        Ok(())
    }

    /// Goes on answering until an heir has announced, address by address.
    async fn hand_over(&mut self) -> Result<()> {
        let heirs = |ip: &ServiceIp| {
            let elected = self.pipeline.view().assignment.addresses.get(ip);
            elected.is_some_and(|elected| elected.ranked.len() > 1)
        };
        let owned = self.pipeline.owned();
        let inheritable: Vec<ServiceIp> = owned.keys().filter(|ip| heirs(ip)).copied().collect();
        let mut handover = Handover::new(owned, inheritable, now());
        while !handover.is_done(now()) {
            tokio::select! {
                ended = self.tasks.join_next() => return Err(unexpected_end(ended)),
                () = tokio::time::sleep_until(handover.poll_timeout().into()) => {}
                event = self.announcer.events.recv() => match event.context("the announcer is gone")? {
                    garpike_announcer::Event::Claimed { ip, .. } => {
                        handover.handle_claimed(ip);
                        self.owned.send_replace(handover.owned().clone());
                    }
                    garpike_announcer::Event::NoInterface { .. } => {}
                },
            }
        }
        Ok(())
    }
}

/// Starts a task that cannot fail, only end.
fn spawn(tasks: &mut JoinSet<Ended>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(async move {
        task.await;
        Ended { task: name, result: Ok(()) }
    });
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

fn sealing(args: &Args) -> Result<Sealing> {
    let Some(path) = &args.ml_secret_key_path else {
        warn!("--insecure-plaintext: whoever reaches the gossip port can move every address");
        return Ok(Sealing::InsecurePlaintext);
    };
    let secret = SecretKey::read(path).context("--ml-secret-key-path")?;
    Ok(Sealing::Sealed(Key::derive(&secret, &args.cluster_name)))
}

fn rules(args: &Args) -> Rules {
    let load_balancer_class = Some(args.lb_class.clone()).filter(|class| !class.is_empty());
    Rules {
        scope: Scope { load_balancer_class, ..Scope::default() },
        exclude_label: if args.ignore_exclude_lb { ExcludeLabel::Ignored } else { ExcludeLabel::Excludes },
    }
}

fn unexpected_end(ended: Option<Result<Ended, JoinError>>) -> anyhow::Error {
    match ended {
        Some(Ok(Ended { task, result: Ok(()) })) => anyhow!("the task {task} ended unexpectedly"),
        Some(Ok(Ended { task, result: Err(error) })) => error.context(format!("the task {task} failed")),
        Some(Err(error)) => anyhow::Error::new(error).context("a task panicked"),
        None => anyhow!("there is no task left"),
    }
}

#[expect(clippy::disallowed_methods, reason = "the composition root reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Chosen: a screen of lines; a move of thousands of addresses must not flood the log.
const CHANGES_LOGGED: usize = 16;
/// A farewell is repeated for 250 ms.
const LONGEST_LEAVE: Duration = Duration::from_millis(400);
