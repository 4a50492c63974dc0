//! Events of Kubernetes objects, as `kubectl describe` shows them.
//!
//! They are a courtesy: who tells one never waits, and what does not fit into the queue is dropped and counted. A repeated
//! event becomes a higher count of the first one, as with the kubelet's.

use std::collections::{BTreeMap, VecDeque};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tracing::{debug, warn};

/// The object that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Regarding {
    /// As `v1`.
    pub api_version: &'static str,
    /// As `Service`.
    pub kind: &'static str,
    /// Its namespace; empty for cluster-wide kinds.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its `metadata.uid`; `kubectl describe` finds no event without.
    pub uid: String,
}

impl Regarding {
    /// The object with this metadata.
    pub fn of(api_version: &'static str, kind: &'static str, metadata: &ObjectMeta) -> Self {
        Self {
            api_version,
            kind,
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
        }
    }
}

/// `type` of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// All is well.
    Normal,
    /// Somebody should look.
    Warning,
}

/// Tells events. Clones share the queue.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Told>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    regarding: Regarding,
    severity: Severity,
    reason: String,
    message: String,
}

impl Recorder {
    /// Tells an event. Whether it was taken: `false` when too many wait.
    pub fn tell(&self, regarding: Regarding, severity: Severity, reason: &str, message: String) -> bool {
        let told = Told { regarding, severity, reason: reason.to_owned(), message };
        self.queue.try_send(told).is_ok()
    }

    /// How many more events are taken at once.
    pub fn room(&self) -> usize {
        self.queue.capacity()
    }
}

/// A recorder, and what writes its events: run it until the recorder is gone. `component` and `host` are shown as their
/// source; `fallback_namespace` takes those of cluster-wide objects.
pub fn recorder(client: Client, component: &'static str, host: String) -> (Recorder, impl Future<Output = ()> + Send) {
    let (queue, mut told) = mpsc::channel(QUEUE);
    let mut writer = Writer { client, component, host, written: BTreeMap::new(), order: VecDeque::new() };
    let write = async move {
        while let Some(told) = told.recv().await {
            writer.write(told).await;
        }
    };
    (Recorder { queue }, write)
}

struct Writer {
    client: Client,
    component: &'static str,
    host: String,
    /// The name and the count of each event that was written lately.
    written: BTreeMap<Told, (String, i32)>,
    order: VecDeque<Told>,
}

impl Writer {
    async fn write(&mut self, told: Told) {
        let namespace = if told.regarding.namespace.is_empty() { "default" } else { &told.regarding.namespace };
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        if let Some((name, count)) = self.written.get_mut(&told) {
            let patch = serde_json::json!({ "count": *count + 1, "lastTimestamp": now() });
            match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => {
                    *count += 1;
                    return;
                }
                // It has been removed meanwhile; events live for an hour.
                Err(error) => debug!(%error, "an event cannot be counted up: it is written anew"),
            }
        }
        let event = self.event(&told, namespace);
        match api.create(&PostParams::default(), &event).await {
            Ok(event) => self.remember(told, event.metadata.name.unwrap_or_default()),
            Err(error) => {
                let Regarding { kind, namespace, name, .. } = &told.regarding;
                warn!(%error, kind, namespace, name, reason = told.reason, "an event cannot be written");
            }
        }
    }

    fn event(&self, told: &Told, namespace: &str) -> Event {
        let Told { regarding, severity, reason, message } = told;
        let severity = match severity {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        };
        let at = now();
        Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}.", regarding.name)),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(regarding.api_version.to_owned()),
                kind: Some(regarding.kind.to_owned()),
                namespace: Some(regarding.namespace.clone()).filter(|namespace| !namespace.is_empty()),
                name: Some(regarding.name.clone()),
                uid: Some(regarding.uid.clone()).filter(|uid| !uid.is_empty()),
                ..ObjectReference::default()
            },
            type_: Some(severity.to_owned()),
            reason: Some(reason.clone()),
            // The API server refuses longer ones.
            message: Some(message.chars().take(MAX_MESSAGE).collect()),
            count: Some(1),
            first_timestamp: Some(at.clone()),
            last_timestamp: Some(at),
            source: Some(EventSource { component: Some(self.component.to_owned()), host: Some(self.host.clone()) }),
            reporting_component: Some(self.component.to_owned()),
            reporting_instance: Some(self.host.clone()),
            ..Event::default()
        }
    }

    fn remember(&mut self, told: Told, name: String) {
        if self.written.insert(told.clone(), (name, 1)).is_none() {
            self.order.push_back(told);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.written.remove(&oldest);
        }
    }
}

fn now() -> Time {
    Time(Timestamp::now())
}

/// Chosen: one for each of 4000 Services that get an address at once.
const QUEUE: usize = 4096;
/// Chosen: repeats come soon or do not matter.
const REMEMBERED: usize = 1024;
/// The limit of the API server (`validateV1Event`: 1024 bytes); a character has four bytes at most.
const MAX_MESSAGE: usize = 1024;
