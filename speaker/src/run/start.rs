//! The start: opens everything that a speaker needs, in the order in which one needs the other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use garpike_announcer::{Duties, io as announcer_io};
use garpike_election::NodeState;
use garpike_kubernetes::TlsRules;
use garpike_membership::FeatureLevel;
use garpike_membership::io as membership_io;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::tasks::{Ended, spawn};
use super::wanted::{Shown, Wanted};
use super::{Announcer, Membership, Speaker, keys, known, now, seeds};
use crate::api;
use crate::args::{Args, BindServiceIps, MetricsAuth};
use crate::availability::Availability;
use crate::complaints::Complaints;
use crate::data_plane::{self, DataPlane};
use crate::decisions::Decisions;
use crate::failovers::Failovers;
use crate::pipeline::{Pipeline, View};
use crate::relay::Relay;
use crate::source::Origin;
use crate::window::{Listeners, Window};
use crate::{checks, excluded, local_addresses, metrics};

impl Speaker {
    /// Opens everything.
    ///
    /// # Errors
    ///
    /// When something is missing; names what, and the mend.
    pub(super) async fn start(args: &Args) -> Result<Self> {
        let prometheus = prometheus()?;
        let (sealing, keys) = keys::sealing(args)?;
        let stop = CancellationToken::new();
        let (view, view_receiver) = watch::channel(View::default());
        let (findings, findings_receiver) = watch::channel(Vec::new());
        let shown = Shown { view: view_receiver.clone(), findings: findings_receiver.clone() };
        let (mut source, snapshots) = Wanted::start(args, shown, &stop).await?;
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
        let (announcer_task, mut announcer) =
            announcer_io::Task::new(announcing, args.ndp_unicast.into(), duties_receiver)?;
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
            profile: args.profile.make_possible(),
            restart_grace: args.restart_grace,
            failback: args.failback.delay(),
            host_ports: vec![KUBELET_PORT],
            spread: args.placement.spread(),
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
        let looking = checks::Looking {
            view: view_receiver.clone(),
            membership: membership.status.clone(),
            announcer: announcer.status.clone(),
            surroundings: announcer.surroundings.clone(),
            spread: args.placement.spread(),
            clock_ahead: source.clock_ahead(),
            findings,
        };
        spawn(&mut tasks, "checks", looking.run(stop.clone()));
        let (decisions, decisions_receiver) = watch::channel(Decisions::open(args.state_dir.as_deref()));
        let window = Window {
            node: args.node_name.clone(),
            started: now(),
            view: view_receiver,
            snapshots: snapshots.clone(),
            decisions: decisions_receiver,
            watches: source.watches(),
            missing_rights: source.missing_rights(),
            membership: membership.status.clone(),
            announcer: announcer.status.clone(),
            surroundings: announcer.surroundings.clone(),
            findings: findings_receiver,
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
        let mut pipeline = Pipeline::new(node.clone());
        pipeline.handle_unlike(peers.unlike);
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
            failovers: Failovers::default(),
            availability: Availability::default(),
            later: VecDeque::new(),
            tasks,
            stop,
        })
    }
}

/// Where the metrics of the process are kept.
fn prometheus() -> Result<PrometheusHandle> {
    let mut prometheus = PrometheusBuilder::new();
    for (name, buckets) in garpike_announcer::histograms().into_iter().chain(metrics::histograms()) {
        prometheus = prometheus.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)?;
    }
    let prometheus = prometheus.install_recorder().context("cannot install the metrics recorder")?;
    metrics::describe();
    Ok(prometheus)
}

/// The kernel tells its interfaces within milliseconds; chosen with room for a machine under load.
const LINKS_WITHIN: Duration = Duration::from_millis(500);
/// A kubelet listens there; on a host without one the refusal shows as well that the host lives.
const KUBELET_PORT: u16 = 10250;
