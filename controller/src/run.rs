//! The composition root of `garpike controller`: opens everything, and works whenever it holds the lease.
//!
//! ```text
//!  lease task ── Leadership ──► work task: one term after the other ── Health ──► /readyz
//!                                   │ watches ► Registry (planner) ► writes
//!                                   └── events ──► recorder task
//! ```
//!
//! A task that ends before it was asked to ends the process.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use garpike_controller_api::{Problem, Scope, Severity as Level};
use garpike_kubernetes::http::{self, Answer};
use garpike_kubernetes::{
    Component, ConfigurationReporter, Recorder, Serving, Severity, TlsRules, bgp_in_use, connect, recorder,
    serve_metrics, wait_for_bgp_to_end,
};
use hyper::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::args::{Args, MetricsAuth, WebhookMode};
use crate::dead_node::{Hints, Mode as DeadNodeHintMode};
use crate::gossip_secret::GossipSecret;
use crate::health::{Doing, Health, Webhook};
use crate::import::import;
use crate::io::dead_node::{DeadNodeHint, Speakers};
use crate::io::lease::Leadership;
use crate::io::term::{End, Office, serve};
use crate::io::{foreign, lease};
use crate::lease::Identity;
use crate::metrics;
use crate::webhook::{self, Certificates};

/// Runs a controller until SIGTERM or SIGINT.
///
/// # Errors
///
/// When something that it needs is missing at the start (credentials, a port), or a task ends unexpectedly. An API server
/// that is away is waited for.
pub async fn run(args: &Args) -> Result<()> {
    let mut signals = Signals::new()?;
    let stop = CancellationToken::new();
    let give_back = CancellationToken::new();
    let mut controller = Controller::start(args, &stop, &give_back).await?;
    let ended = tokio::select! {
        ended = controller.tasks.join_next() => {
            bail!("the task {} has ended", ended.transpose()?.unwrap_or("without a name"));
        }
        ended = controller.work.join_next() => ended.transpose()?.unwrap_or(End::Cut),
        () = signals.next() => {
            info!("ending");
            stop.cancel();
            // It may be judging 10 000 Services.
            let ended = timeout(END_WITHIN, controller.work.join_next()).await;
            ended.ok().flatten().transpose()?.unwrap_or(End::Cut)
        }
    };
    // A write that was not answered may still come: then the lease ends by itself.
    if ended == End::Stopped {
        give_back.cancel();
        // The others end as well; this one is worth waiting for.
        let _ = timeout(GIVE_BACK_WITHIN, async {
            while controller.tasks.join_next().await.is_some_and(|task| task.is_ok_and(|task| task != LEASE)) {}
        })
        .await;
    }
    Ok(())
}

/// The tasks, and among them the one that works.
struct Controller {
    tasks: JoinSet<&'static str>,
    work: JoinSet<End>,
}

impl Controller {
    async fn start(args: &Args, stop: &CancellationToken, give_back: &CancellationToken) -> Result<Self> {
        let prometheus = prometheus()?;
        let namespace = args.namespace();
        let client = connect(args.kubeconfig.as_deref()).await?;
        let health = watch::Sender::new(Health::default());
        let counts = watch::Sender::new(BTreeMap::new());
        let mut tasks = JoinSet::new();

        let probes = bind("--health-probe-port", args.health_probe_port).await?;
        let shown = health.subscribe();
        tasks.spawn(async move {
            http::serve(probes, Arc::new(move |path| probe(path, &shown.borrow())), to_the_end()).await;
            "probes"
        });
        let tls = tls_rules(args)?;
        if args.port != 0 {
            let listener = bind("--port", args.port).await?;
            let shown = counts.subscribe();
            let scrape = move || prometheus.render() + &metrics::pools(&shown.borrow());
            match args.metrics_auth {
                MetricsAuth::None => tasks.spawn(async move {
                    let route = move |path: &str| (path == "/metrics").then(|| Answer::metrics(scrape()));
                    http::serve(listener, Arc::new(route), to_the_end()).await;
                    "metrics"
                }),
                MetricsAuth::TokenReview => {
                    let certificate_dir = args.metrics_cert_dir.clone();
                    let serving = Serving { tls: tls.clone(), certificate_dir, review: Some(client.clone()) };
                    let serve = serve_metrics(listener, serving, Arc::new(scrape), stop.clone());
                    tasks.spawn(async move {
                        if let Err(error) = serve.await {
                            warn!(error = %error, "/metrics is not served");
                        }
                        "metrics"
                    })
                }
            };
        }

        let me = Identity { pod: args.pod_name.clone(), process: process_name() };
        let leadership = watch::Sender::new(Leadership::Unknown);
        let office_leadership = leadership.subscribe();
        let leases = Api::namespaced(client.clone(), &namespace);
        let give_back = give_back.clone();
        if args.webhook_mode != WebhookMode::OnlyWebhook {
            tasks.spawn(async move {
                lease::keep(leases, me, leadership, give_back).await;
                LEASE
            });
        }
        let (recorder, record) = recorder(client.clone(), "metallb-controller", args.pod_name.clone());
        tasks.spawn(async move {
            record.await;
            "events"
        });
        let namespaced =
            Namespaced { args, client: &client, namespace: &namespace, recorder: &recorder, health: &health, stop };
        namespaced.spawn(&mut tasks, tls).await?;

        let office = Office {
            client,
            scope: Scope { namespace, load_balancer_class: args.load_balancer_class() },
            leadership: office_leadership,
            recorder,
            health,
            counts,
            problems: watch::Sender::new(None),
            stop: stop.clone(),
        };
        let mut office_task = JoinSet::new();
        let pod = Some(args.pod_name.clone()).filter(|pod| !pod.is_empty());
        let bgp = if args.ignore_bgp { Bgp::Ignored } else { Bgp::Respected };
        office_task.spawn(work(office, pod, args.webhook_mode, bgp));
        Ok(Self { tasks, work: office_task })
    }
}

/// Works one term after the other. Only who is in office says what is wrong: the others would say something else.
async fn work(office: Office, pod: Option<String>, mode: WebhookMode, bgp: Bgp) -> End {
    let stop = office.stop.clone();
    match mode {
        WebhookMode::Enabled | WebhookMode::Disabled => {}
        WebhookMode::OnlyWebhook => {
            office.health.send_if_modified(|health| health.set(Doing::Checking));
            stop.cancelled().await;
            return End::Stopped;
        }
    }
    if bgp == Bgp::Respected {
        // Before the lease: a replica that stands by is ready, and the roll-out would go on.
        tokio::select! {
            () = stop.cancelled() => return End::Stopped,
            () = hold_back_for_bgp(&office) => {}
        }
    }
    loop {
        let term = async {
            let from = wait_for_the_lease(&office).await;
            sleep_until(from.into()).await;
            wait_for_metallb_to_end(&office).await;
            from
        };
        let from = tokio::select! {
            () = stop.cancelled() => return End::Stopped,
            from = term => from,
        };
        let end = tokio::select! {
            end = serve(office.clone(), from) => end,
            never = configuration_state(&office, pod.clone()) => match never {},
        };
        metrics::standing_by();
        match end {
            End::Stopped | End::Cut => return end,
            End::Lost => warn!("the lease is lost: writing nothing"),
            End::Foreign => {}
        }
    }
}

async fn wait_for_the_lease(office: &Office) -> Instant {
    let mut leadership = office.leadership.clone();
    loop {
        let now = leadership.borrow_and_update().clone();
        match now {
            Leadership::Leading { from, .. } => return from,
            Leadership::Standby { holder } => {
                office.health.send_if_modified(|health| health.set(Doing::StandingBy { holder }));
            }
            Leadership::Unknown => {
                office.health.send_if_modified(|health| health.set(Doing::Starting));
            }
        }
        if leadership.changed().await.is_err() {
            // The task of the lease has ended, and so will the process.
            std::future::pending::<()>().await;
        }
    }
}

/// `--ignore-bgp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bgp {
    Respected,
    Ignored,
}

/// What a MetalLB announces by BGP would be silent without it. Unready meanwhile, so that the roll-out ends no pod of it.
async fn hold_back_for_bgp(office: &Office) {
    let Office { client, scope, recorder, .. } = office;
    let first = match bgp_in_use(client, &scope.namespace).await {
        Ok(None) => return,
        Ok(Some(bgp)) => bgp,
        Err(error) => return warn!(error, "cannot see whether a MetalLB announces by BGP: going on"),
    };
    let refuse = wait_for_bgp_to_end(client, &scope.namespace, first, recorder, |why| {
        office.health.send_if_modified(|health| health.set(Doing::Refusing { why: why.clone() }));
        office.problems.send_replace(Some(vec![Problem::error(why)]));
    });
    tokio::select! {
        () = refuse => {}
        // All replicas refuse, and say the same: none of them is its owner.
        never = configuration_state(office, None) => match never {},
    }
    office.problems.send_replace(None);
}

/// MetalLB's controller knows of no lease.
async fn wait_for_metallb_to_end(office: &Office) {
    let pods: Api<Pod> = Api::namespaced(office.client.clone(), &office.scope.namespace);
    let mut told = None;
    loop {
        match foreign::find(&pods).await {
            Ok(None) => return,
            Ok(Some(pod)) => {
                if told.as_ref() != Some(&pod) {
                    let by = format!("{}/{}", pod.namespace, pod.name);
                    warn!(pod = by, "a controller of MetalLB runs: writing nothing until it is gone");
                    let message = "garpike writes nothing while this controller of MetalLB runs; remove its Deployment";
                    office.recorder.tell(pod.clone(), Severity::Warning, "ForeignController", message.to_owned());
                    office.health.send_if_modified(|health| health.set(Doing::HeldBack { by }));
                    told = Some(pod);
                }
            }
            Err(error) if told.is_none() => {
                warn!(error, "cannot see whether a controller of MetalLB runs beside this one: going on");
                return;
            }
            Err(_) => {}
        }
        sleep(LOOK_EACH).await;
    }
}

fn prometheus() -> Result<PrometheusHandle> {
    let mut prometheus = PrometheusBuilder::new();
    for (name, buckets) in metrics::histograms() {
        prometheus = prometheus.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)?;
    }
    let prometheus = prometheus.install_recorder().context("cannot install the metrics recorder")?;
    metrics::describe();
    Ok(prometheus)
}

fn probe(path: &str, health: &Health) -> Option<Answer> {
    match path {
        "/healthz" => Some(Answer::text(StatusCode::OK, "ok\n")),
        "/readyz" if health.is_ready() => Some(Answer::text(StatusCode::OK, health.to_string())),
        "/readyz" => Some(Answer::text(StatusCode::SERVICE_UNAVAILABLE, health.to_string())),
        _ => None,
    }
}

/// Probes are answered until the process ends.
fn to_the_end() -> CancellationToken {
    CancellationToken::new()
}

/// Binds a port on all addresses; only those of IPv4 where there is no IPv6.
///
/// # Errors
///
/// Names `flag`, the port and the mend when it is taken.
async fn bind(flag: &str, port: u16) -> Result<TcpListener> {
    let all = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from(([0, 0, 0, 0], port))];
    TcpListener::bind(&all[..])
        .await
        .with_context(|| format!("{flag}: cannot listen on port {port}; choose another one or stop its present user"))
}

fn tls_rules(args: &Args) -> Result<TlsRules> {
    let curves = args.tls_curve_preferences.iter().map(|curve| {
        let number =
            curve.parse().with_context(|| format!("--tls-curve-preferences: \"{curve}\" is not a number; write 29"));
        number as Result<u16>
    });
    Ok(TlsRules::new(&args.tls_min_version, &args.tls_cipher_suites, &curves.collect::<Result<Vec<_>>>()?)?)
}

/// What works in the namespace without the lease: each replica does it, and none gets in the way of another.
struct Namespaced<'a> {
    args: &'a Args,
    client: &'a Client,
    namespace: &'a str,
    recorder: &'a Recorder,
    health: &'a watch::Sender<Health>,
    stop: &'a CancellationToken,
}

impl Namespaced<'_> {
    async fn spawn(&self, tasks: &mut JoinSet<&'static str>, tls: TlsRules) -> Result<()> {
        let Self { args, client, namespace, recorder, health, stop } = *self;
        let (client, recorder, health, stop) = (client.clone(), recorder.clone(), health.clone(), stop.clone());
        if args.webhook_mode != WebhookMode::Disabled {
            let certificates = if args.disable_cert_rotation {
                let dir = args.cert_dir.clone();
                Certificates::Files { dir: dir.unwrap_or_else(|| std::env::temp_dir().join(CERT_DIR)) }
            } else {
                let why = "nobody has looked at its certificate";
                health.send_if_modified(|health| health.set_webhook(Webhook::Awaited(why.to_owned())));
                Certificates::Rotated { secret: args.webhook_secret.clone(), service: args.cert_service_name.clone() }
            };
            let listener = bind("the webhook", WEBHOOK_PORT).await?;
            let (client, namespace, stop) = (client.clone(), namespace.to_owned(), stop.clone());
            let serve = webhook::serve(listener, client, namespace, certificates, tls, health, stop);
            tasks.spawn(async move {
                if let Err(error) = serve.await {
                    warn!(%error, "the webhook is not served");
                }
                "webhook"
            });
        }
        if !args.ml_secret_name.is_empty() {
            let deployment = Some(args.deployment.clone()).filter(|deployment| !deployment.is_empty());
            let name = args.ml_secret_name.clone();
            let secret = GossipSecret::new(client.clone(), namespace, name, deployment, recorder.clone());
            let stop = stop.clone();
            tasks.spawn(async move {
                secret.run(stop).await;
                "gossip secret"
            });
        }
        if args.webhook_mode != WebhookMode::OnlyWebhook
            && let Some(hint) = self.dead_node_hint()
        {
            let stop = stop.clone();
            tasks.spawn(async move {
                tokio::select! {
                    never = hint.run() => match never {},
                    () = stop.cancelled() => "dead-node hint",
                }
            });
        }
        if args.webhook_mode != WebhookMode::OnlyWebhook {
            let namespace = namespace.to_owned();
            tasks.spawn(async move {
                import(client, namespace, recorder, stop.clone()).await;
                "import"
            });
        }
        Ok(())
    }
}

impl Namespaced<'_> {
    /// What marks the pods of dead nodes, or tells that it could.
    fn dead_node_hint(&self) -> Option<DeadNodeHint> {
        let Self { args, client, namespace, recorder, .. } = *self;
        let mode = args.dead_node_hint;
        if mode == DeadNodeHintMode::Off {
            return None;
        }
        if args.ml_secret_name.is_empty() {
            info!("without --ml-secret-name speakers cannot be listened to: no hint of dead nodes");
            return None;
        }
        let name = Some(args.pod_name.as_str()).filter(|name| !name.is_empty());
        let speakers = Speakers {
            client: client.clone(),
            namespace: namespace.to_owned(),
            labels: args.ml_labels.clone(),
            port: args.ml_bindport,
            secret: args.ml_secret_name.clone(),
            cluster: args.cluster_name.clone(),
            name: name.unwrap_or("controller").parse().ok()?,
        };
        let (client, recorder) = (client.clone(), recorder.clone());
        let hints = Hints::new(mode, args.dead_node_hint_share, namespace);
        Some(DeadNodeHint { client, speakers, hints, mode, recorder })
    }
}

/// Shows in the ConfigurationState of the controller what is wrong.
async fn configuration_state(office: &Office, pod: Option<String>) -> Infallible {
    let Office { client, scope, problems, stop, .. } = office;
    let reporter = ConfigurationReporter::new(client.clone(), &scope.namespace, Component::Controller, pod);
    let mut problems = problems.subscribe();
    let texts = watch::Sender::new(None);
    let shown = texts.subscribe();
    let translate = async {
        loop {
            let errors = problems.borrow_and_update().as_ref().map(|problems| {
                let errors = problems.iter().filter(|problem| problem.severity == Level::Error);
                errors.map(ToString::to_string).collect::<Vec<_>>()
            });
            texts.send_if_modified(|texts| std::mem::replace(texts, errors.clone()) != errors);
            if problems.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = translate => {}
        () = reporter.run(shown, stop.clone()) => {}
    }
    // The term ends by itself.
    std::future::pending().await
}

/// What no other process is called, a later one of the same pod included.
#[expect(clippy::disallowed_methods, reason = "a name is made of the time")]
fn process_name() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{:x}", std::process::id(), since.as_micros())
}

/// SIGTERM, SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The task that holds the lease, and gives it back.
const LEASE: &str = "lease";
/// Where MetalLB's manifests say that the webhook listens.
const WEBHOOK_PORT: u16 = 9443;
/// As in MetalLB, below the directory for temporary files.
const CERT_DIR: &str = "k8s-webhook-server/serving-certs";
/// Chosen: MetalLB's controller ends a moment after a rollout is complete.
const LOOK_EACH: Duration = Duration::from_secs(1);
/// Chosen: a little longer than a term needs to end.
const END_WITHIN: Duration = Duration::from_millis(550);
/// Chosen: with that, the process ends within a second.
const GIVE_BACK_WITHIN: Duration = Duration::from_millis(400);
