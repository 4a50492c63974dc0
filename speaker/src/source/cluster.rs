//! What people want, from the Kubernetes API.
//!
//! Watches tell the [`Index`] what there is; a change that matters is judged a few milliseconds later, together with those
//! that come with it. An API server that is away changes nothing: what was known stays. A speaker that starts meanwhile
//! goes by what it knew when it ran last ([`saved`]), until all watches have told everything again.

mod index;
pub mod saved;
mod seen;
mod trim;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, BoxStream, StreamExt as _};
use garpike_controller_api::{Problem, Scope, Severity};
use garpike_election::ServiceKey;
use garpike_kubernetes::{Trouble, follow, follow_as};
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Origin, Rules, Snapshot, now, report};
use crate::metrics;
pub use index::{Index, Input, Kind, News, Watch};
use saved::StateDir;
pub use seen::{SeenService, SeenSlice};

/// The watches, and what is made of what they tell.
#[derive(Debug)]
pub(crate) struct Cluster {
    rules: Rules,
    index: Index,
    /// Where their meaning is kept for the next start.
    state_dir: Option<StateDir>,
    on_disk: OnDisk,
    snapshots: watch::Sender<Snapshot>,
    services: watch::Sender<Services>,
    /// What is wrong with pools and advertisements; `None` before they are known.
    configuration: watch::Sender<Option<Vec<String>>>,
    watches: watch::Sender<BTreeMap<Kind, Watch>>,
    /// The objects are not judged again before.
    not_before: Instant,
    /// When they are to be judged, and written, next.
    judge_at: Option<Instant>,
    save_at: Option<Instant>,
}

/// Whether the newest snapshot is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnDisk {
    Newest,
    Older,
}

/// The `metadata.uid` of each Service, without which `kubectl describe` finds no event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services(BTreeMap<ServiceKey, Box<str>>);

impl Services {
    pub(crate) fn uid(&self, service: &ServiceKey) -> Option<&str> {
        self.0.get(service).map(AsRef::as_ref)
    }
}

/// What others see of it.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) snapshots: watch::Receiver<Snapshot>,
    pub(crate) services: watch::Receiver<Services>,
    pub(crate) configuration: watch::Receiver<Option<Vec<String>>>,
    pub(crate) watches: watch::Receiver<BTreeMap<Kind, Watch>>,
}

impl Cluster {
    /// Nothing is known and nothing is asked yet.
    pub(crate) fn new(rules: Rules, state_dir: Option<StateDir>) -> (Self, Handle) {
        let index = Index::default();
        let (snapshots, snapshots_out) = watch::channel(Snapshot::default());
        let (services, services_out) = watch::channel(Services::default());
        let (configuration, configuration_out) = watch::channel(None);
        let (watches, watches_out) = watch::channel(index.watches());
        let cluster = Self {
            rules,
            index,
            state_dir,
            on_disk: OnDisk::Older,
            snapshots,
            services,
            configuration,
            watches,
            not_before: Instant::now(),
            judge_at: None,
            save_at: None,
        };
        (
            cluster,
            Handle {
                snapshots: snapshots_out,
                services: services_out,
                configuration: configuration_out,
                watches: watches_out,
            },
        )
    }

    /// Follows the cluster until `stop`.
    pub(crate) async fn run(mut self, client: Client, stop: CancellationToken) {
        let mut inputs = inputs(client, self.rules.scope.clone());
        let fall_back = tokio::time::sleep(FALL_BACK_AFTER);
        tokio::pin!(fall_back);
        let mut may_fall_back = true;
        loop {
            let review = Instant::now() + self.patience();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(input) = inputs.next() => self.handle(input),
                () = sleep_until(self.judge_at.unwrap_or(review)) => self.judge(),
                () = sleep_until(self.save_at.unwrap_or(review)), if self.save_at.is_some() => self.save(),
                () = &mut fall_back, if may_fall_back => {
                    may_fall_back = false;
                    self.fall_back();
                }
            }
        }
        self.save();
    }

    fn handle(&mut self, input: Input) {
        metrics::object_told();
        let news = self.index.handle(input);
        let watches = self.index.watches();
        self.watches.send_if_modified(|current| {
            let changed = *current != watches;
            if changed {
                tell_watches(current, &watches);
                *current = watches;
            }
            changed
        });
        let first = self.snapshots.borrow().origin != Origin::Live && self.index.is_synced();
        if news == News::Yes || first {
            self.judge_at.get_or_insert_with(|| self.not_before.max(Instant::now() + SETTLE));
        }
    }

    fn judge(&mut self) {
        self.judge_at = None;
        if !self.index.is_synced() {
            return;
        }
        let begun = Instant::now();
        let next = self.rules.judge_cluster(&mut self.index, now());
        metrics::objects_judged();
        self.not_before = Instant::now() + (begun.elapsed() * REST).min(LONGEST_REST);
        self.on_disk = OnDisk::Older;
        self.save_at.get_or_insert_with(|| Instant::now() + SAVE_EVERY);
        self.services.send_if_modified(|services| {
            let changed = services.0 != *self.index.uids();
            if changed {
                services.0 = self.index.uids().clone();
            }
            changed
        });
        let configuration = Some(configuration_errors(&next));
        self.configuration.send_if_modified(|current| {
            let changed = *current != configuration;
            *current = configuration;
            changed
        });
        publish(&self.snapshots, next);
    }

    /// Writes what is known to disk if it has changed, else notes that it is still so.
    fn save(&mut self) {
        self.save_at = None;
        let Some(state_dir) = self.state_dir.as_ref().filter(|_| self.index.is_synced()) else { return };
        self.save_at = Some(Instant::now() + SAVE_EVERY);
        if !self.index.is_live() {
            return;
        }
        let written = match self.on_disk {
            OnDisk::Older => state_dir.write(&self.rules, &self.snapshots.borrow()),
            OnDisk::Newest => state_dir.touch(),
        };
        self.on_disk = if written.is_ok() { OnDisk::Newest } else { OnDisk::Older };
        if let Err(error) = written {
            warn!(%error, "what is known of the cluster cannot be kept for the next start");
        }
    }

    /// Goes by what was known at the last run, as long as the API server has not told everything.
    fn fall_back(&mut self) {
        if self.index.is_synced() {
            return;
        }
        let Some(state_dir) = &self.state_dir else {
            return warn!("waiting for the Kubernetes API; without --state-dir nothing is known from before");
        };
        match state_dir.read(&self.rules, now()) {
            Ok((snapshot, at)) => {
                warn!(
                    addresses = snapshot.desired.addresses.len(),
                    known = %humantime::format_rfc3339_seconds(at),
                    "the Kubernetes API does not answer: starting from what this speaker knew last"
                );
                publish(&self.snapshots, snapshot);
            }
            Err(error) => warn!(%error, "the Kubernetes API does not answer, and there is nothing to start from"),
        }
    }

    /// How long what is known means the same: until the first choice of an owner ends.
    fn patience(&self) -> Duration {
        let until = self.snapshots.borrow().changes_at().map(|at| at.duration_since(now()).unwrap_or_default());
        until.map_or(REVIEW_EVERY, |until| until.clamp(SETTLE, REVIEW_EVERY))
    }
}

/// What all watches tell, in one stream.
fn inputs(client: Client, scope: Scope) -> BoxStream<'static, Input> {
    let namespace = scope.namespace.clone();
    let load_balancers = watcher::Config::default().fields("spec.type=LoadBalancer");
    let any = watcher::Config::default;
    let judge = move |service| SeenService::new(service, &scope);
    let services = follow_as(Api::all(client.clone()), load_balancers, judge).map(Input::Service);
    let slices = follow_as(Api::all(client.clone()), any(), |slice| SeenSlice::new(&slice)).map(Input::Slice);
    let nodes = follow(Api::all(client.clone()), any(), trim::node).map(Input::Node);
    let pools = follow(Api::namespaced(client.clone(), &namespace), any(), trim::pool).map(Input::Pool);
    let advertisements =
        follow(Api::namespaced(client, &namespace), any(), trim::advertisement).map(Input::Advertisement);
    let all = [services.boxed(), slices.boxed(), nodes.boxed(), pools.boxed(), advertisements.boxed()];
    stream::select_all(all).boxed()
}

/// What is wrong with the objects that configure the load balancer. Services have events for what is wrong with them.
fn configuration_errors(snapshot: &Snapshot) -> Vec<String> {
    let errors = snapshot.problems.iter().filter(|problem| problem.severity == Severity::Error);
    let of_service = |problem: &&Problem| problem.object.as_ref().is_some_and(|object| object.starts_with("Service "));
    errors.filter(|problem| !of_service(problem)).map(ToString::to_string).collect()
}

fn publish(snapshots: &watch::Sender<Snapshot>, next: Snapshot) {
    snapshots.send_if_modified(|current| {
        let changed = *current != next;
        if changed {
            report(current, &next);
            *current = next;
        }
        changed
    });
}

/// Logs which watches are in trouble, and which no longer are.
fn tell_watches(before: &BTreeMap<Kind, Watch>, after: &BTreeMap<Kind, Watch>) {
    for (kind, watch) in after {
        let resource = kind.as_str();
        let had = before.get(kind).and_then(|watch| watch.trouble.as_ref());
        match (&watch.trouble, had) {
            // Each attempt may fail in its own way; that it fails is told once.
            (Some(Trouble::Failed(_)), Some(Trouble::Failed(_))) | (None, None) => {}
            (Some(Trouble::Failed(text)), _) => warn!(resource, "the Kubernetes API does not tell: {text}"),
            (Some(trouble @ (Trouble::Forbidden(_) | Trouble::Unknown(_))), had) => {
                if had != Some(trouble) {
                    warn!(resource, verbs = "list, watch", "cannot be watched: {trouble}");
                }
            }
            (None, Some(_)) => info!(resource, "the Kubernetes API tells again"),
        }
    }
}

/// Chosen: what one `kubectl apply` or one controller writes at once comes within this time.
const SETTLE: Duration = Duration::from_millis(5);
/// So many times as long as a judgement took, none follows. Chosen: however much changes, judging takes a tenth of a processor, up to
/// some thousand Services.
const REST: u32 = 9;
/// Chosen: to judge ten thousand Services takes a few times less.
const LONGEST_REST: Duration = Duration::from_millis(50);
/// Chosen: what a crash may lose of the newest changes is little, and so are the writes.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// Chosen: a clock that is set is noticed after this time at the latest.
const REVIEW_EVERY: Duration = Duration::from_secs(30);
/// Chosen: an API server that is there has told all within it; a node that starts serves nothing meanwhile.
const FALL_BACK_AFTER: Duration = Duration::from_secs(2);

/// How long ago, at most, what is kept on disk may have been the truth. Chosen: a night without an API server.
pub(crate) const FRESH_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The time between two points of the system's clock; nothing when it was set back.
fn age(at: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(at).unwrap_or_default()
}
