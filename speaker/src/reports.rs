//! What this speaker writes to the Kubernetes API: who answers for a Service, as ServiceL2Status objects and as events.
//!
//! Always after the fact, and slowly: at most [`WRITES_PER_SECOND`], so that a node that inherits a thousand Services does
//! not press an API server that has just lost one too. Nothing waits for it.

mod events;
mod l2_status;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use garpike_controller_api::{ServiceL2Status, ServiceL2StatusSpec};
use garpike_election::{NodeName, ServiceKey};
use garpike_kubernetes::{Recorder, Severity, Trouble, Update, follow_as};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::metrics;
use crate::peers::{OwnPod, Peers};
use crate::pipeline::View;
use crate::rights::{Right, Rights};
use crate::source::Snapshot;
use crate::source::cluster::Services;
use events::{Told, Warning};
use l2_status::{L2Statuses, NAMESPACE_LABEL, NODE_LABEL, SERVICE_LABEL, Seen, Write};

/// What reports are made of.
pub(crate) struct Reports {
    pub(crate) namespace: String,
    pub(crate) node: NodeName,
    pub(crate) view: watch::Receiver<View>,
    pub(crate) peers: watch::Receiver<Option<Peers>>,
    pub(crate) services: watch::Receiver<Services>,
    pub(crate) snapshots: watch::Receiver<Snapshot>,
    pub(crate) rights: Rights,
    pub(crate) recorder: Recorder,
}

impl Reports {
    /// Reports until `stop`.
    pub(crate) async fn run(mut self, client: Client, stop: CancellationToken) {
        let api: Api<ServiceL2Status> = Api::namespaced(client, &self.namespace);
        let (own, any) = (self.node.clone(), watcher::Config::default());
        let mut updates = follow_as(api.clone(), any, move |object| Seen::by(&own, object)).boxed();
        let mut statuses = L2Statuses::new(self.node.clone());
        let mut told = Told::default();
        let mut settle_at: Option<Instant> = None;
        let mut write_at = Instant::now();
        let mut failures = 0;
        loop {
            let pod = self.peers.borrow().as_ref().and_then(|peers| peers.own.clone());
            statuses.handle_pod(pod.as_ref().map(|pod| pod.uid.as_str()));
            tokio::select! {
                () = stop.cancelled() => return,
                Some(update) = updates.next() => {
                    self.note_rights(&update);
                    statuses.handle_update(update, now());
                }
                changed = self.view.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    settle_at.get_or_insert_with(|| Instant::now() + SETTLE);
                }
                changed = self.snapshots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    settle_at.get_or_insert_with(|| Instant::now() + SETTLE);
                }
                () = sleep_until(settle_at.unwrap_or(write_at)), if settle_at.is_some() => {
                    settle_at = None;
                    let view = self.view.borrow_and_update().clone();
                    statuses.handle_view(&view);
                    let problems = self.snapshots.borrow_and_update().problems.clone();
                    let tell = |service: &ServiceKey, event: Warning| {
                        let regarding = events::regarding(service, &self.services.borrow());
                        self.recorder.tell(regarding, Severity::Warning, event.reason, event.text);
                    };
                    told.handle(&view, &problems, &self.node, tell);
                }
                () = sleep_until(write_at), if statuses.is_busy() => {
                    let Some(write) = statuses.next(now()) else {
                        // What is left waits for somebody else.
                        write_at = Instant::now() + LOOK_AGAIN;
                        continue;
                    };
                    let written = self.write(&api, &write, pod.as_ref(), &mut statuses).await;
                    self.rights.note(needed_for(&write), &written);
                    let pause = match written {
                        Ok(()) => {
                            failures = 0;
                            Duration::from_secs(1) / WRITES_PER_SECOND * requests(&write)
                        }
                        Err(error) => {
                            failures += 1;
                            self.complain(&write, &error, failures);
                            metrics::report_failed();
                            statuses.retry(&write);
                            FIRST_PAUSE.saturating_mul(1 << u32::min(failures, MAX_DOUBLINGS))
                        }
                    };
                    write_at = Instant::now() + pause;
                }
            }
        }
    }

    async fn write(
        &self,
        api: &Api<ServiceL2Status>,
        write: &Write,
        pod: Option<&OwnPod>,
        statuses: &mut L2Statuses,
    ) -> Result<(), kube::Error> {
        metrics::report_written();
        match write {
            Write::Create { service } => {
                let object = self.object(service, pod);
                let made = api.create(&PostParams::default(), &object).await?;
                self.learn(made, statuses);
                events::node_assigned(service, &self.node, &self.services.borrow(), &self.recorder);
            }
            Write::Report { service, name, status } => {
                // None of them: all interfaces answer, and the field is left out.
                let interfaces = Some(&status.interfaces).filter(|interfaces| !interfaces.is_empty());
                let patch = Patch::Merge(json!({ "status": {
                    "node": status.node,
                    "serviceName": status.service_name,
                    "serviceNamespace": status.service_namespace,
                    "interfaces": interfaces,
                }}));
                match api.patch_status(name, &PatchParams::default(), &patch).await {
                    Ok(object) => self.learn(object, statuses),
                    Err(error) if is_gone(&error) => statuses.handle_gone(service.clone(), name),
                    Err(error) => return Err(error),
                }
            }
            Write::Adopt { service, name } => {
                let owners = pod.map(owner).into_iter().collect::<Vec<_>>();
                let patch = Patch::Merge(json!({ "metadata": { "ownerReferences": owners } }));
                match api.patch(name, &PatchParams::default(), &patch).await {
                    Ok(object) => self.learn(object, statuses),
                    Err(error) if is_gone(&error) => statuses.handle_gone(service.clone(), name),
                    Err(error) => return Err(error),
                }
            }
            Write::Delete { service, name } => {
                match api.delete(name, &DeleteParams::default()).await {
                    Ok(_) => {}
                    Err(error) if is_gone(&error) => {}
                    Err(error) => return Err(error),
                }
                statuses.handle_gone(service.clone(), name);
            }
        }
        Ok(())
    }

    fn learn(&self, object: ServiceL2Status, statuses: &mut L2Statuses) {
        if let Some(seen) = Seen::by(&self.node, object) {
            statuses.learn(seen, now());
        }
    }

    /// Whoever may not list them learns of none, and writes none.
    fn note_rights(&self, update: &Update<Option<Seen>>) {
        let right = Right { verb: "list", resource: RESOURCE };
        match update {
            Update::Trouble(Trouble::Forbidden(text)) => self.rights.refused(right, text),
            Update::Trouble(Trouble::Unknown(_) | Trouble::Failed(_)) => {}
            Update::All(_) | Update::Applied(_) | Update::Gone(_) => self.rights.granted(right),
        }
    }

    fn object(&self, service: &ServiceKey, pod: Option<&OwnPod>) -> ServiceL2Status {
        let labels = BTreeMap::from([
            (NODE_LABEL.to_owned(), self.node.to_string()),
            (SERVICE_LABEL.to_owned(), service.name.to_string()),
            (NAMESPACE_LABEL.to_owned(), service.namespace.to_string()),
        ]);
        let metadata = ObjectMeta {
            generate_name: Some("l2-".to_owned()),
            namespace: Some(self.namespace.clone()),
            labels: Some(labels),
            owner_references: pod.map(|pod| vec![owner(pod)]),
            ..ObjectMeta::default()
        };
        ServiceL2Status { metadata, spec: ServiceL2StatusSpec::default(), status: None }
    }

    fn complain(&self, write: &Write, error: &kube::Error, failures: u32) {
        if failures == 1 {
            warn!(%error, ?write, resource = RESOURCE, "cannot be written; trying again");
        } else {
            debug!(%error, ?write, "cannot be written");
        }
    }
}

/// The right that a write needs.
fn needed_for(write: &Write) -> Right {
    match write {
        Write::Create { .. } => Right { verb: "create", resource: RESOURCE },
        Write::Report { .. } => Right { verb: "patch", resource: "servicel2statuses/status.metallb.io" },
        Write::Adopt { .. } => Right { verb: "patch", resource: RESOURCE },
        Write::Delete { .. } => Right { verb: "delete", resource: RESOURCE },
    }
}

fn owner(pod: &OwnPod) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        ..OwnerReference::default()
    }
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// How many requests a write is: a new status comes with an event.
fn requests(write: &Write) -> u32 {
    match write {
        Write::Create { .. } => 2,
        Write::Report { .. } | Write::Adopt { .. } | Write::Delete { .. } => 1,
    }
}

const RESOURCE: &str = "servicel2statuses.metallb.io";
/// At most. Chosen: MetalLB's two owners wrote five times as often without end; with what the API server delays and hands on
/// together, no second has more than 50.
const WRITES_PER_SECOND: u32 = 45;
/// Chosen: the frames of a takeover are out long before, and what moves twice is written once.
const SETTLE: Duration = Duration::from_millis(500);
/// Chosen: what waits for others waits for tens of seconds.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Chosen: an API server that restarts is away for seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Chosen: 250 ms become 16 s.
const MAX_DOUBLINGS: u32 = 6;
