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
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use garpike_controller_api::config::PoolName;
use garpike_controller_api::{IPAddressPoolStatus, Scope};
use garpike_kubernetes::{Severity, connect, recorder};
use hyper::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::args::{Args, MetricsAuth};
use crate::health::{Doing, Health};
use crate::io::lease::Leadership;
use crate::io::term::{End, Office, serve};
use crate::io::{foreign, lease, server};
use crate::lease::Identity;
use crate::metrics;

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
        let _ = timeout(GIVE_BACK_WITHIN, controller.tasks.join_next()).await;
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

        let probes = server::bind("--health-probe-port", args.health_probe_port).await?;
        let shown = health.subscribe();
        tasks.spawn(async move {
            server::serve(probes, move |path| probe(path, &shown.borrow())).await;
            "probes"
        });
        let shown = counts.subscribe();
        let routes = move |path: &str| scrape(path, &prometheus, &shown.borrow());
        match args.metrics_auth {
            MetricsAuth::None if args.port != 0 => {
                let listener = server::bind("--port", args.port).await?;
                tasks.spawn(async move {
                    server::serve(listener, routes).await;
                    "metrics"
                });
            }
            MetricsAuth::None => {}
            MetricsAuth::TokenReview => warn!("/metrics is not served: --metrics-auth token-review needs HTTPS"),
        }

        let me = Identity { pod: args.pod_name.clone(), process: process_name() };
        let leadership = watch::Sender::new(Leadership::Unknown);
        let office_leadership = leadership.subscribe();
        let leases = Api::namespaced(client.clone(), &namespace);
        let give_back = give_back.clone();
        tasks.spawn(async move {
            lease::keep(leases, me, leadership, give_back).await;
            "lease"
        });
        let (recorder, record) = recorder(client.clone(), "metallb-controller", args.pod_name.clone());
        tasks.spawn(async move {
            record.await;
            "events"
        });

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
        office_task.spawn(work(office));
        Ok(Self { tasks, work: office_task })
    }
}

/// Works one term after the other.
async fn work(office: Office) -> End {
    let stop = office.stop.clone();
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
        let end = serve(office.clone(), from).await;
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

fn probe(path: &str, health: &Health) -> Option<(StatusCode, String)> {
    match path {
        "/healthz" => Some((StatusCode::OK, "ok\n".to_owned())),
        "/readyz" if health.is_ready() => Some((StatusCode::OK, health.to_string())),
        "/readyz" => Some((StatusCode::SERVICE_UNAVAILABLE, health.to_string())),
        _ => None,
    }
}

fn scrape(
    path: &str,
    prometheus: &PrometheusHandle,
    counts: &BTreeMap<PoolName, IPAddressPoolStatus>,
) -> Option<(StatusCode, String)> {
    (path == "/metrics").then(|| (StatusCode::OK, prometheus.render() + &metrics::pools(counts)))
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

/// Chosen: MetalLB's controller ends a moment after a rollout is complete.
const LOOK_EACH: Duration = Duration::from_secs(1);
/// Chosen: a little longer than a term needs to end.
const END_WITHIN: Duration = Duration::from_millis(550);
/// Chosen: with that, the process ends within a second.
const GIVE_BACK_WITHIN: Duration = Duration::from_millis(400);
