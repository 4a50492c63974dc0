//! What others see of a speaker: the routes of its two HTTP servers.
//!
//! Looks at the latest values of every task and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use garpike_announcer::Surroundings;
use garpike_election::{NodeName, NodeState, Selection};
use garpike_kubernetes::Trouble;
use garpike_kubernetes::http::{self, Answer};
use hyper::StatusCode;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::args::{Args, PerIpMetrics};
use crate::checks::Finding;
use crate::decisions::Decisions;
use crate::metallb;
use crate::pipeline::View;
use crate::rights::Right;
use crate::source::cluster::{Kind, Watch};
use crate::source::{Origin, Snapshot};
use crate::state::State;

/// What the admin servers look at.
pub(crate) struct Window {
    pub(crate) node: NodeName,
    pub(crate) started: Instant,
    pub(crate) view: watch::Receiver<View>,
    pub(crate) snapshots: watch::Receiver<Snapshot>,
    pub(crate) decisions: watch::Receiver<Decisions>,
    /// How the watches of the cluster do; `None`: there is no cluster.
    pub(crate) watches: Option<watch::Receiver<BTreeMap<Kind, Watch>>>,
    /// The rights that are missing; `None`: there is no cluster.
    pub(crate) missing_rights: Option<watch::Receiver<BTreeSet<Right>>>,
    pub(crate) membership: watch::Receiver<garpike_membership::Status>,
    pub(crate) announcer: watch::Receiver<garpike_announcer::Status>,
    pub(crate) surroundings: watch::Receiver<Surroundings>,
    pub(crate) findings: watch::Receiver<Vec<Finding>>,
    pub(crate) per_ip: PerIpMetrics,
    pub(crate) prometheus: PrometheusHandle,
}

impl Window {
    fn health(&self, path: &str) -> Option<Answer> {
        match path {
            "/healthz" => Some(Answer::text(StatusCode::OK, "ok\n")),
            "/readyz" => Some(match self.obstacle() {
                None => Answer::text(StatusCode::OK, format!("ok\n{}", self.missing_rights())),
                Some(obstacle) => Answer::text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("not ready: {obstacle}\n{}", self.missing_rights()),
                ),
            }),
            "/state.json" => Some(self.state()),
            _ => None,
        }
    }

    /// All metrics in Prometheus' text format, those that MetalLB's users know among them.
    pub(crate) fn metrics(&self) -> String {
        self.prometheus.run_upkeep();
        let mut text = self.prometheus.render();
        if self.watches.is_some() {
            text.push_str(&metallb::of_configuration(&self.snapshots.borrow()));
        }
        match self.per_ip {
            PerIpMetrics::Shown => {
                // Whoever changes the values is not held up while the text is made.
                let counts = metallb::counts(&self.announcer.borrow());
                let view = self.view.borrow().clone();
                text.push_str(&metallb::of_addresses(&view, &self.node, &counts));
            }
            PerIpMetrics::Hidden => {}
        }
        text
    }

    /// A line for each right that is missing, which is no reason not to serve.
    fn missing_rights(&self) -> String {
        let Some(missing) = &self.missing_rights else { return String::new() };
        missing.borrow().iter().map(|right| format!("a right is missing: {right}\n")).collect()
    }

    fn obstacle(&self) -> Option<String> {
        if self.snapshots.borrow().origin == Origin::Nothing
            && let Some(watches) = &self.watches
        {
            let waiting: Vec<String> = watches
                .borrow()
                .iter()
                .filter(|(_, watch)| !watch.synced)
                .map(|(kind, watch)| waits(*kind, watch))
                .collect();
            return Some(format!("not known yet: {}", waiting.join("; ")));
        }
        let view = self.view.borrow();
        let member = view.members.as_ref().and_then(|members| members.nodes.get(&self.node));
        match member.map(|member| member.state) {
            None => return Some("the membership has not started".to_owned()),
            // A drained node stands in for others and owns what nobody else can.
            Some(NodeState::Ready | NodeState::HeldDown | NodeState::Draining) => {}
            Some(state @ (NodeState::Joining | NodeState::Restarting)) => {
                return Some(format!("this node is {}", state.as_str()));
            }
        }
        let nowhere = Selection::Only([].into());
        (self.surroundings.borrow().interfaces == nowhere).then(|| "no interface can announce".to_owned())
    }

    fn state(&self) -> Answer {
        match serde_json::to_string_pretty(&State::seen_through(self)) {
            Ok(json) => Answer::json(json),
            Err(error) => Answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

/// What is missing of a kind of objects.
fn waits(kind: Kind, watch: &Watch) -> String {
    let resource = kind.as_str();
    match &watch.trouble {
        None => format!("{resource} (no answer of the Kubernetes API)"),
        Some(Trouble::Forbidden(text)) => format!("{resource} (grant the verbs list and watch: {text})"),
        Some(trouble @ (Trouble::Unknown(_) | Trouble::Failed(_))) => format!("{resource} ({trouble})"),
    }
}

/// The bound ports of the admin servers; a port of 0 has none.
pub(crate) struct Listeners {
    health: Option<TcpListener>,
    metrics: Option<TcpListener>,
}

impl Listeners {
    /// Binds both.
    ///
    /// # Errors
    ///
    /// When a port is taken; names the flag and the mend.
    pub(crate) async fn bind(args: &Args) -> Result<Self> {
        let mut listeners = Self { health: None, metrics: None };
        if args.health_probe_port != 0 {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.health_probe_port));
            listeners.health = Some(bind("--health-probe-port", address).await?);
        }
        if args.port != 0 {
            // Both families where the host has both.
            let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, args.port));
            listeners.metrics = Some(match TcpListener::bind(any).await {
                Ok(listener) => listener,
                Err(_) => bind("--port", SocketAddr::from((Ipv4Addr::UNSPECIFIED, args.port))).await?,
            });
        }
        Ok(listeners)
    }

    /// The port of the metrics, for who serves them otherwise.
    pub(crate) fn take_metrics(&mut self) -> Option<TcpListener> {
        self.metrics.take()
    }

    /// Serves what `window` shows until `stop`.
    pub(crate) async fn serve(self, window: Arc<Window>, stop: CancellationToken) {
        let health = Arc::clone(&window);
        tokio::join!(
            serve_on(self.health, Arc::new(move |path| health.health(path)), &stop),
            serve_on(
                self.metrics,
                Arc::new(move |path| (path == "/metrics").then(|| Answer::metrics(window.metrics()))),
                &stop
            ),
        );
    }
}

/// Binds the address of an HTTP server.
///
/// # Errors
///
/// Names `flag`, the address and the mend when the port is taken.
async fn bind(flag: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{flag}: cannot listen on {address}; choose another port or stop its present user"))
}

async fn serve_on(listener: Option<TcpListener>, routes: Arc<http::Routes>, stop: &CancellationToken) {
    match listener {
        Some(listener) => http::serve(listener, routes, stop.clone()).await,
        None => stop.cancelled().await,
    }
}
