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

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, anyhow, bail};
use garpike_announcer::{Duties, io as announcer_io};
use garpike_controller_api::{Scope, Severity};
use garpike_election::{Change, Handicap, Members, NodeName, NodeState, Presence, Selection, ServiceIp, Unowned};
use garpike_kubernetes::TlsRules;
use garpike_membership::io as membership_io;
use garpike_membership::{FeatureLevel, Gateway, Sealing, SourcedKeys, Surroundings};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::api::{self, Api};
use crate::args::{Args, BindServiceIps, MetricsAuth};
use crate::complaints::Complaints;
use crate::data_plane::{self, DataPlane};
use crate::decisions::{self, Decisions};
use crate::peers::{Peers, Question};
use crate::pipeline::{Pipeline, View};
use crate::relay::Relay;
use crate::source::cluster::{Kind, Watch};
use crate::source::directory::Source;
use crate::source::{ExcludeLabel, Origin, Rules, Snapshot};
use crate::window::{Listeners, Window};
use crate::{excluded, local_addresses, metrics};

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
        () = signals.next() => bail!("ended by a second signal, before all members knew"),
    }
}

/// How a task ended.
struct Ended {
    task: &'static str,
    result: Result<()>,
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

/// Where what people want comes from.
enum Wanted {
    /// Files. Held for its thread.
    Directory { _thread: Source },
    /// The Kubernetes API.
    Cluster(Api),
}

impl Wanted {
    async fn start(
        args: &Args,
        view: watch::Receiver<View>,
        stop: &CancellationToken,
    ) -> Result<(Self, watch::Receiver<Snapshot>)> {
        if let Some(manifests) = &args.manifests {
            let thread = Source::start(manifests, rules(args))?;
            let snapshots = thread.snapshots.clone();
            return Ok((Self::Directory { _thread: thread }, snapshots));
        }
        let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let question = some(&args.ml_labels).map(|labels| Question {
            namespace: args.namespace.clone(),
            labels,
            node: args.node_name.clone(),
            pod: some(&args.pod_name),
        });
        if question.is_none() && args.join.is_empty() {
            warn!("neither --ml-labels nor --join is given: this speaker waits to be found by others");
        }
        let config = api::Config {
            kubeconfig: args.kubeconfig.clone(),
            rules: rules(args),
            state_dir: args.state_dir.clone(),
            node: args.node_name.clone(),
            view,
            pod: some(&args.pod_name),
            peers: question,
        };
        let mut api = Api::start(config, stop.child_token()).await?;
        // Who knows its peers at once joins in milliseconds; an API server that is away is not waited for.
        if !args.ml_labels.is_empty() {
            let _ = tokio::time::timeout(PEERS_WITHIN, api.peers.changed()).await;
        }
        let snapshots = api.cluster.snapshots.clone();
        Ok((Self::Cluster(api), snapshots))
    }

    /// How the watches of the cluster do, if there are any.
    fn watches(&self) -> Option<watch::Receiver<BTreeMap<Kind, Watch>>> {
        match self {
            Self::Directory { .. } => None,
            Self::Cluster(api) => Some(api.cluster.watches.clone()),
        }
    }

    /// The speakers of the cluster, as far as they are known.
    fn peers(&self) -> Peers {
        match self {
            Self::Directory { .. } => Peers::default(),
            Self::Cluster(api) => api.peers.borrow().clone().unwrap_or_default(),
        }
    }

    /// The speakers of the cluster when they have changed; never, without one.
    async fn next_peers(&mut self) -> Result<()> {
        match self {
            Self::Directory { .. } => std::future::pending().await,
            Self::Cluster(api) => api.peers.changed().await.context("the thread that asks the Kubernetes API is gone"),
        }
    }
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
    tasks: JoinSet<Ended>,
    stop: CancellationToken,
}

impl Speaker {
    async fn start(args: &Args) -> Result<Self> {
        // Before any thread is started, which would have it in force.
        if let Err(error) = announcer_io::lower_net_raw() {
            warn!(%error, "CAP_NET_RAW stays in force all the time: the kernel does not let it be lowered");
        }
        let mut prometheus = PrometheusBuilder::new();
        for (name, buckets) in garpike_announcer::histograms() {
            prometheus = prometheus.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)?;
        }
        let prometheus = prometheus.install_recorder().context("cannot install the metrics recorder")?;
        metrics::describe();
        let (sealing, keys) = sealing(args)?;
        let stop = CancellationToken::new();
        let (view, view_receiver) = watch::channel(View::default());
        let (mut source, snapshots) = Wanted::start(args, view_receiver.clone(), &stop).await?;
        if args.manifests.is_some() && args.metrics_auth() == MetricsAuth::TokenReview {
            bail!("--metrics-auth token-review: there is no cluster to review tokens with --manifests; write none");
        }
        let tls = TlsRules::new(&args.tls_min_version, &args.tls_cipher_suites, &args.tls_curve_preferences)
            .context("--tls-min-version, --tls-cipher-suites, --tls-curve-preferences")?;
        let mut listeners = Listeners::bind(args).await?;

        let (duties, duties_receiver) = watch::channel(Duties::default());
        let announcing = garpike_announcer::Config {
            excluded: excluded::read(args.excluded_interfaces.as_deref())?,
            announcements_per_second: args.announce_rate,
            ..garpike_announcer::Config::default()
        };
        let (announcer_task, mut announcer) = announcer_io::Task::new(announcing, duties_receiver)?;
        let mut tasks = JoinSet::new();
        let token = stop.clone();
        tasks.spawn(async move {
            let result = announcer_task.run(token).await.map_err(Into::into);
            Ended { task: "announcer", result }
        });
        // A restarted node that named no interface at first would lose the addresses that waited for it.
        if tokio::time::timeout(LINKS_WITHIN, announcer.surroundings.changed()).await.is_err() {
            warn!("no interface of this node can announce");
        }

        let peers = source.peers();
        let data_plane_url = args.dataplane_health();
        let first = match &data_plane_url {
            Some(url) => data_plane::first(url).await,
            None => DataPlane::Works,
        };
        let (data_plane_found, data_plane) = watch::channel(first);
        let gossip = args.gossip_address(peers.own.as_ref().map(|own| &*own.ips).unwrap_or_default())?;
        let (generation, process) = membership_io::new_process();
        let config = garpike_membership::Config {
            local: args.node_name.clone(),
            generation,
            process,
            gossip,
            seeds: seeds(&args.seeds(), &peers, gossip),
            sealing,
            surroundings: known(&announcer.surroundings.borrow(), *data_plane.borrow()),
            profile: args.profile.possible(),
            restart_grace: args.restart_grace,
            failback: args.failback.delay(),
            host_ports: vec![KUBELET_PORT],
            feature_level: FeatureLevel::CURRENT,
            later_facts: BTreeMap::new(),
        };
        info!(node = %config.local, gossip = %config.gossip, version = env!("CARGO_PKG_VERSION"), "speaker starts");
        let (membership_task, membership) =
            membership_io::Node::new(config, membership_io::GossipSocket::bind(gossip)?);
        if snapshots.borrow().origin == Origin::Nothing {
            // Nobody is to count on this node before it knows what to answer for.
            let joining = membership_io::Command::SetState(NodeState::Joining);
            membership.commands.try_send(joining).map_err(|_| anyhow!("the membership is gone"))?;
        }
        let token = stop.clone();
        spawn(&mut tasks, "membership", membership_task.run(token));
        if let Wanted::Cluster(api) = &mut source {
            spawn(&mut tasks, "Kubernetes", api.ended());
        }
        match data_plane_url {
            Some(url) => {
                let follow = data_plane::follow(url, data_plane_found, stop.clone());
                spawn(&mut tasks, "data plane", follow);
            }
            // Nobody asks: what is so stays so.
            None => drop(data_plane_found),
        }
        if args.bind_service_ips() == BindServiceIps::Lo {
            let keep = local_addresses::keep(snapshots.clone(), announcer.surroundings.clone(), stop.clone());
            spawn(&mut tasks, "service IPs on lo", keep);
        }
        let (decisions, decisions_receiver) = watch::channel(Decisions::open(args.state_dir.as_deref()));
        let window = Window {
            node: args.node_name.clone(),
            started: now(),
            view: view_receiver,
            snapshots: snapshots.clone(),
            decisions: decisions_receiver,
            watches: source.watches(),
            membership: membership.status.clone(),
            announcer: announcer.status.clone(),
            surroundings: announcer.surroundings.clone(),
            per_ip: args.per_ip_metrics(),
            prometheus,
        };
        let window = Arc::new(window);
        if let (Wanted::Cluster(api), MetricsAuth::TokenReview) = (&mut source, args.metrics_auth())
            && let Some(listener) = listeners.take_metrics()
        {
            let render = Arc::clone(&window);
            api.serve_metrics(api::Metrics {
                listener: listener.into_std().context("--port: cannot serve it by HTTPS")?,
                tls,
                certificate_dir: args.metrics_cert_dir.clone(),
                render: Arc::new(move || render.metrics()),
            });
        }
        spawn(&mut tasks, "admin servers", listeners.serve(window, stop.clone()));
        let relay = Relay {
            frames: membership.frames,
            ask_stations: membership.ask_stations,
            datagrams: announcer.datagrams,
            commands: announcer.commands.clone(),
            announcer_heard: announcer.heard,
            membership_heard: membership.heard,
        };
        spawn(&mut tasks, "relay", relay.run(stop.clone()));
        let membership = Membership {
            members: membership.members,
            status: membership.status,
            events: membership.events,
            commands: membership.commands,
        };
        let announcer =
            Announcer { surroundings: announcer.surroundings, events: announcer.events, commands: announcer.commands };

        let node = args.node_name.clone();
        let pipeline = Pipeline::new(node.clone());
        let unowned = BTreeMap::new();
        let complaints = Complaints::default();
        Ok(Self {
            node,
            source,
            snapshots,
            join: args.seeds(),
            gossip,
            keys,
            membership,
            announcer,
            data_plane,
            pipeline,
            duties,
            view,
            decisions,
            unowned,
            complaints,
            tasks,
            stop,
        })
    }

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
                    let seeds = seeds(&self.join, &self.source.peers(), self.gossip);
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
                    let status = self.membership.status.borrow_and_update();
                    self.complaints.report(&status.complaints, now());
                    if let Some(keys) = &self.keys {
                        keys.set_held(status.keys.iter().map(|key| key.id));
                    }
                }
                sourced = next_keys(self.keys.as_mut()) => {
                    let command = membership_io::Command::SetKeys(sourced?);
                    self.membership.commands.send(command).await.map_err(|_| anyhow!("the membership is gone"))?;
                }
                // The announcer has logged and counted it; who owns an address is not decided by whoever claims it.
                Some(_) = self.announcer.events.recv() => {}
            }
        }
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
        self.publish(changes, "what is wanted has changed").await;
        // What one node says of itself reaches all at once, whenever each of them reads its files.
        let state = if drained { NodeState::Draining } else { NodeState::Ready };
        let command = membership_io::Command::SetState(state);
        self.membership.commands.send(command).await.map_err(|_| anyhow!("the membership is gone"))
    }

    async fn follow_members(&mut self) {
        let members = self.membership.members.borrow_and_update().clone();
        let before = self.pipeline.view().members.clone();
        let changes = self.pipeline.handle_members(members);
        let after = self.pipeline.view().members.as_deref();
        let cause = match after.filter(|_| !changes.is_empty()) {
            Some(after) => decisions::cause(before.as_deref(), after),
            None => String::new(),
        };
        self.publish(changes, &cause).await;
    }

    async fn handle_membership(&mut self, event: garpike_membership::Event) {
        match event {
            // The new members come by the watch.
            garpike_membership::Event::MembersChanged | garpike_membership::Event::FactsKnown => {}
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

    /// Makes a new assignment known: to the announcer first, then to people.
    async fn publish(&mut self, changes: Vec<Change>, cause: &str) {
        let duties = self.pipeline.duties();
        let stood_in = self.duties.borrow().stood_in.len();
        if stood_in != duties.stood_in.len() {
            info!(before = stood_in, addresses = duties.stood_in.len(), "answering in place of owners that are away");
        }
        self.duties.send_if_modified(|current| {
            let changed = *current != duties;
            *current = duties;
            changed
        });
        // The announcer runs on this thread: its first frames do not wait for the log.
        tokio::task::yield_now().await;
        let view = self.pipeline.view().clone();
        self.report_unowned(&view);
        report_stand_ins(&view, &self.node);
        self.view.send_replace(view);
        let at = wall_clock();
        self.decisions.send_modify(|decisions| decisions.note(&changes, cause, at));
        for Change { ip, from, to } in &changes {
            let meaning = match (from, to) {
                (_, Some(to)) if *to == self.node => "gained",
                (Some(from), _) if *from == self.node => "lost",
                (_, _) => "elsewhere",
            };
            metrics::owner_changed(meaning);
            let name = |node: &Option<NodeName>| node.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
            if changes.len() <= CHANGES_LOGGED {
                info!(service_ip = %ip, from = name(from), to = name(to), meaning, cause, "owner changed");
            } else {
                debug!(service_ip = %ip, from = name(from), to = name(to), meaning, "owner changed");
            }
        }
        if changes.len() > CHANGES_LOGGED {
            info!(addresses = changes.len(), cause, "owners changed; --log-level debug names each");
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
        if !local.is_some_and(|local| serves(local.state) && local.interfaces != nowhere) {
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

    /// Lets others stand in, leaves, and ends the tasks. This node answers until the end.
    async fn end(&mut self) -> Result<()> {
        info!("asked to end: the next nodes stand in");
        // What others know by now is not that this node restarts.
        while self.membership.events.try_recv().is_ok() {}
        let restarting = membership_io::Command::SetState(NodeState::Restarting);
        self.membership.commands.send(restarting).await.map_err(|_| anyhow!("the membership is gone"))?;
        if self.has_heirs() {
            self.wait_until_known().await?;
        }
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

    /// Whether another node can answer for something that this one owns.
    fn has_heirs(&self) -> bool {
        let view = self.pipeline.view();
        let owned = view.assignment.addresses.values().filter(|elected| elected.owner() == Some(&self.node));
        let mut others = owned.flat_map(|elected| &elected.ranked).filter(|node| **node != self.node);
        others.any(|node| presence(view, node) == Presence::Here)
    }

    /// Waits until every member knows that this node restarts, but not for long: one that does not answer must not hold
    /// up the others.
    async fn wait_until_known(&mut self) -> Result<()> {
        let mut patience = std::pin::pin!(tokio::time::sleep(LONGEST_TELLING));
        loop {
            tokio::select! {
                ended = self.tasks.join_next() => return Err(unexpected_end(ended)),
                () = &mut patience => {
                    warn!("not all members have acknowledged that this node restarts");
                    return Ok(());
                }
                event = self.membership.events.recv() => match event.context("the membership is gone")? {
                    garpike_membership::Event::FactsKnown => return Ok(()),
                    garpike_membership::Event::MembersChanged
                    | garpike_membership::Event::Ready
                    | garpike_membership::Event::Healed { .. }
                    | garpike_membership::Event::DeclaredDead
                    | garpike_membership::Event::TakenForDead
                    | garpike_membership::Event::NameConflict { .. } => {}
                },
            }
        }
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

/// Counts the addresses whose owner is away, by who answers for them.
fn report_stand_ins(view: &View, local: &NodeName) {
    let (mut here, mut elsewhere, mut nobody) = (0, 0, 0);
    for elected in view.assignment.addresses.values() {
        let Some(owner) = elected.owner() else { continue };
        match (presence(view, owner), &elected.stand_in) {
            (Presence::Here, _) => {}
            (Presence::Away, Some(stand_in)) if stand_in == local => here += 1,
            (Presence::Away, Some(_)) => elsewhere += 1,
            (Presence::Away, None) => nobody += 1,
        }
    }
    metrics::stood_in(here, elsewhere, nobody);
}

/// Whether the speaker of a node runs; who is no member needs no stand-in.
fn presence(view: &View, node: &NodeName) -> Presence {
    let member = view.members.as_ref().and_then(|members| members.nodes.get(node));
    member.map_or(Presence::Here, |member| member.presence)
}

/// Whether a node in this state answers for what it owns and can judge who else does.
fn serves(state: NodeState) -> bool {
    match state {
        NodeState::Ready | NodeState::HeldDown | NodeState::Draining => true,
        NodeState::Joining | NodeState::Restarting => false,
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

/// How datagrams are protected, and the source of the keys if they are.
fn sealing(args: &Args) -> Result<(Sealing, Option<membership_io::KeySource>)> {
    let Some(path) = &args.ml_secret_key_path else {
        if args.key_cache.is_some() {
            bail!("--key-cache: there is nothing to keep without --ml-secret-key-path");
        }
        warn!("--insecure-plaintext: whoever reaches the gossip port can move every address");
        return Ok((Sealing::InsecurePlaintext, None));
    };
    let cache = args.key_cache.as_deref();
    let (source, keyring) = membership_io::KeySource::start(path, &args.cluster_name, cache).map_err(|error| {
        let flag = match error {
            membership_io::KeySourceError::Cache { .. } => "--key-cache",
            membership_io::KeySourceError::Secret(_) | membership_io::KeySourceError::Thread(_) => {
                "--ml-secret-key-path"
            }
        };
        anyhow::Error::new(error).context(flag)
    })?;
    if args.insecure_plaintext {
        warn!(
            "--insecure-plaintext with --ml-secret-key-path: gossip in the clear is still accepted, and whoever reaches \
             the port can move every address; drop --insecure-plaintext as soon as every node has the secret"
        );
        return Ok((Sealing::RollOut(keyring), Some(source)));
    }
    Ok((Sealing::Sealed(keyring), Some(source)))
}

/// What the files of the keys hold when they have changed; never, without keys.
async fn next_keys(keys: Option<&mut membership_io::KeySource>) -> Result<SourcedKeys> {
    let Some(keys) = keys else { return std::future::pending().await };
    keys.keys.changed().await.context("the thread that reads the keys is gone")?;
    Ok(keys.keys.borrow_and_update().clone())
}

fn rules(args: &Args) -> Rules {
    let load_balancer_class = Some(args.lb_class.clone()).filter(|class| !class.is_empty());
    Rules {
        scope: Scope { load_balancer_class, namespace: args.namespace.clone() },
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

#[expect(clippy::disallowed_methods, reason = "decisions are told with their time")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[expect(clippy::disallowed_methods, reason = "the composition root reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Chosen: a screen of lines; a move of thousands of addresses must not flood the log.
const CHANGES_LOGGED: usize = 16;
/// How long a speaker that ends waits for the acknowledgements of the members. Chosen: a quarter of the 2 s that MetalLB's
/// manifest grants between SIGTERM and SIGKILL.
const LONGEST_TELLING: Duration = Duration::from_millis(500);
/// The kernel tells its interfaces within milliseconds; chosen with room for a machine under load.
const LINKS_WITHIN: Duration = Duration::from_millis(500);
/// Chosen: an API server that is there answers within it, and one that is not delays a start by no more.
const PEERS_WITHIN: Duration = Duration::from_secs(1);
/// A kubelet listens there; on a host without one the refusal shows as well that the host lives.
const KUBELET_PORT: u16 = 10250;
/// A farewell is repeated for 250 ms.
const LONGEST_LEAVE: Duration = Duration::from_millis(400);
