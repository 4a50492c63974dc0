//! Where a speaker learns what is wanted, and who its peers are: from files, or from the Kubernetes API.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result};
use garpike_controller_api::Scope;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::api::{self, Api};
use crate::args::Args;
use crate::checks::Finding;
use crate::peers::{Peers, Question};
use crate::pipeline::View;
use crate::rights::Right;
use crate::source::cluster::{Kind, Watch};
use crate::source::directory::Source;
use crate::source::{ExcludeLabel, Rules, Snapshot};

/// Where what people want comes from.
pub(super) enum Wanted {
    /// Files. Held for its thread.
    Directory { _thread: Source },
    /// The Kubernetes API.
    Cluster(Box<Api>),
}

/// What is told to the Kubernetes API.
pub(super) struct Shown {
    pub(super) view: watch::Receiver<View>,
    pub(super) findings: watch::Receiver<Vec<Finding>>,
}

impl Wanted {
    /// Begins to read. Waits for the peers, not for long.
    pub(super) async fn start(
        args: &Args,
        Shown { view, findings }: Shown,
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
            findings,
            pod: some(&args.pod_name),
            peers: question,
        };
        let mut api = Api::start(config, stop.child_token()).await?;
        // Who knows its peers at once joins in milliseconds; an API server that is away is not waited for.
        if !args.ml_labels.is_empty() {
            let _ = tokio::time::timeout(PEERS_WITHIN, api.peers.changed()).await;
        }
        let snapshots = api.cluster.snapshots.clone();
        Ok((Self::Cluster(Box::new(api)), snapshots))
    }

    /// How the watches of the cluster do, if there are any.
    pub(super) fn watches(&self) -> Option<watch::Receiver<BTreeMap<Kind, Watch>>> {
        match self {
            Self::Directory { .. } => None,
            Self::Cluster(api) => Some(api.cluster.watches.clone()),
        }
    }

    /// By how many seconds the clock of this host is ahead of the API server's, if there is a cluster.
    pub(super) fn clock_ahead(&self) -> Option<watch::Receiver<i64>> {
        match self {
            Self::Directory { .. } => None,
            Self::Cluster(api) => Some(api.clock_ahead.clone()),
        }
    }

    /// The rights that are missing, if there is a cluster.
    pub(super) fn missing_rights(&self) -> Option<watch::Receiver<BTreeSet<Right>>> {
        match self {
            Self::Directory { .. } => None,
            Self::Cluster(api) => Some(api.missing_rights.clone()),
        }
    }

    /// The speakers of the cluster, as far as they are known.
    pub(super) fn peers(&self) -> Peers {
        match self {
            Self::Directory { .. } => Peers::default(),
            Self::Cluster(api) => api.peers.borrow().clone().unwrap_or_else(|| api.last_peers.clone()),
        }
    }

    /// The speakers of the cluster when they have changed; never, without one.
    pub(super) async fn next_peers(&mut self) -> Result<()> {
        match self {
            Self::Directory { .. } => std::future::pending().await,
            Self::Cluster(api) => api.peers.changed().await.context("the thread that asks the Kubernetes API is gone"),
        }
    }
}

fn rules(args: &Args) -> Rules {
    let load_balancer_class = Some(args.lb_class.clone()).filter(|class| !class.is_empty());
    Rules {
        scope: Scope { load_balancer_class, namespace: args.namespace.clone() },
        exclude_label: if args.ignore_exclude_lb { ExcludeLabel::Ignored } else { ExcludeLabel::Excludes },
    }
}

/// Chosen: an API server that is there answers within it, and one that is not delays a start by no more.
const PEERS_WITHIN: Duration = Duration::from_secs(1);
