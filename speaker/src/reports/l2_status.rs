//! Which ServiceL2Status objects there have to be, and which write comes next.
//!
//! The owner of a Service has one object that says so; it deletes those of others, and whoever is no owner deletes its own.
//! Two nodes that both take themselves for the owner, as after a partition, would delete and make each other's objects for
//! ever: so what had to be repeated for a Service is repeated ever more seldom, and a member that is there is given time to
//! delete its own. Pure: no clock and no socket.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use garpike_controller_api::{InterfaceInfo, ServiceL2Status, ServiceL2StatusStatus};
use garpike_election::{InterfaceName, NodeName, Presence, Selection, ServiceKey};
use garpike_kubernetes::Update;
use kube::Resource as _;

use crate::pipeline::View;

/// The label with the node that answers.
pub(crate) const NODE_LABEL: &str = "metallb.io/node";
/// The label with the name of the Service.
pub(crate) const SERVICE_LABEL: &str = "metallb.io/service-name";
/// The label with the namespace of the Service.
pub(crate) const NAMESPACE_LABEL: &str = "metallb.io/service-namespace";

/// A write that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// Make an object for a Service.
    Create { service: ServiceKey },
    /// Write the status of an object of ours.
    Report { name: String, status: ServiceL2StatusStatus },
    /// Make the object of an earlier pod of this node the present one's, or it goes with that pod.
    Adopt { name: String },
    /// Delete an object.
    Delete { name: String },
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    service: ServiceKey,
    node: String,
    owner: Option<String>,
    status: ServiceL2StatusStatus,
    since: Instant,
}

/// How often something was repeated for a Service.
#[derive(Clone, Copy, Debug)]
struct Repeated {
    times: u32,
    last: Instant,
}

/// The objects there are, and those there have to be.
#[derive(Debug)]
pub(crate) struct L2Statuses {
    node: NodeName,
    /// The uid of the pod of this speaker.
    pod: Option<String>,
    /// The Services that this node answers for, with the interfaces where these are not all.
    owned: BTreeMap<ServiceKey, Vec<InterfaceInfo>>,
    /// The members whose speaker runs.
    here: BTreeSet<NodeName>,
    objects: BTreeMap<String, Known>,
    names: BTreeMap<ServiceKey, BTreeSet<String>>,
    /// The Services of which something may have to be written.
    open: BTreeSet<ServiceKey>,
    repeated: BTreeMap<ServiceKey, Repeated>,
    listed: bool,
}

impl L2Statuses {
    pub(crate) fn new(node: NodeName) -> Self {
        Self {
            node,
            pod: None,
            owned: BTreeMap::new(),
            here: BTreeSet::new(),
            objects: BTreeMap::new(),
            names: BTreeMap::new(),
            open: BTreeSet::new(),
            repeated: BTreeMap::new(),
            listed: false,
        }
    }

    /// Takes which pod this is.
    pub(crate) fn handle_pod(&mut self, uid: Option<&str>) {
        if uid.is_some() && self.pod.as_deref() != uid {
            self.pod = uid.map(str::to_owned);
            self.open.extend(self.owned.keys().cloned());
        }
    }

    /// Takes who owns what.
    pub(crate) fn handle_view(&mut self, view: &View) {
        let mut owned: BTreeMap<ServiceKey, Vec<InterfaceInfo>> = BTreeMap::new();
        for (ip, interfaces) in view.assignment.owned_by(&self.node) {
            for service in view.desired.addresses.get(&ip).iter().flat_map(|address| &address.services) {
                owned.insert(service.clone(), named(interfaces));
            }
        }
        let members = view.members.iter().flat_map(|members| &members.nodes);
        self.here =
            members.filter(|(_, member)| member.presence == Presence::Here).map(|(name, _)| name.clone()).collect();
        let all: BTreeSet<&ServiceKey> = owned.keys().chain(self.owned.keys()).collect();
        let changed = all.into_iter().filter(|service| owned.get(*service) != self.owned.get(*service));
        self.open.extend(changed.cloned());
        self.owned = owned;
    }

    /// Takes what the API server tells of the objects.
    pub(crate) fn handle_update(&mut self, update: Update<ServiceL2Status>, now: Instant) {
        match update {
            Update::All(objects) => {
                self.listed = true;
                self.objects.clear();
                self.names.clear();
                for object in objects {
                    self.learn(&object, now);
                }
                // Those of Services that nobody holds any more too.
                self.open.extend(self.names.keys().cloned());
                self.open.extend(self.owned.keys().cloned());
            }
            Update::Applied(object) => self.learn(&object, now),
            Update::Gone(object) => self.handle_gone(object.meta().name.as_deref().unwrap_or_default()),
            Update::Trouble(_) => {}
        }
    }

    /// Takes an object as the API server has it.
    pub(crate) fn learn(&mut self, object: &ServiceL2Status, now: Instant) {
        let metadata = object.meta();
        let label = |label: &str| metadata.labels.as_ref().and_then(|labels| labels.get(label)).cloned();
        let (Some(node), Some(name), Some(namespace), Some(object_name)) =
            (label(NODE_LABEL), label(SERVICE_LABEL), label(NAMESPACE_LABEL), metadata.name.clone())
        else {
            return;
        };
        let service = ServiceKey { namespace, name };
        let owner = metadata.owner_references.iter().flatten().map(|owner| owner.uid.clone()).next();
        let since = self.objects.get(&object_name).map_or(now, |known| known.since);
        let status = object.status.clone().unwrap_or_default();
        self.open.insert(service.clone());
        self.names.entry(service.clone()).or_default().insert(object_name.clone());
        self.objects.insert(object_name, Known { service, node, owner, status, since });
    }

    /// An object is gone.
    pub(crate) fn handle_gone(&mut self, name: &str) {
        let Some(Known { service, .. }) = self.objects.remove(name) else { return };
        if let Some(names) = self.names.get_mut(&service) {
            names.remove(name);
            if names.is_empty() {
                self.names.remove(&service);
            }
        }
        self.open.insert(service);
    }

    /// The next write that is due.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Write> {
        if !self.listed {
            return None;
        }
        let mut settled = Vec::new();
        let mut found = None;
        for service in &self.open {
            match self.judge(service, now) {
                Due::Write(write) => {
                    found = Some((service.clone(), write));
                    break;
                }
                Due::Later => {}
                Due::Nothing => settled.push(service.clone()),
            }
        }
        for service in settled {
            self.open.remove(&service);
        }
        let (service, write) = found?;
        if matches!(write, Write::Create { .. } | Write::Delete { .. }) {
            self.note(service, now);
        }
        Some(write)
    }

    /// A write that has failed is due again.
    pub(crate) fn retry(&mut self, write: &Write) {
        let service = match write {
            Write::Create { service } => Some(service.clone()),
            Write::Report { name, .. } | Write::Adopt { name } | Write::Delete { name } => {
                self.objects.get(name).map(|known| known.service.clone())
            }
        };
        if let Some(service) = service {
            // What has not happened was not repeated.
            self.repeated.remove(&service);
            self.open.insert(service);
        }
    }

    /// Whether something remains to be done, be it later.
    pub(crate) fn is_busy(&self) -> bool {
        self.listed && !self.open.is_empty()
    }

    fn judge(&self, service: &ServiceKey, now: Instant) -> Due {
        let objects = self.names.get(service).into_iter().flatten();
        let objects: Vec<(&String, &Known)> =
            objects.filter_map(|name| Some((name, self.objects.get(name)?))).collect();
        let own = || objects.iter().filter(|(_, known)| known.node == self.node.as_str());
        let Some(interfaces) = self.owned.get(service) else {
            return own().next().map_or(Due::Nothing, |(name, _)| Due::Write(Write::Delete { name: (*name).clone() }));
        };
        let rested = self.repeated.get(service).is_none_or(|repeated| now >= repeated.last + repeated.pause());
        let Some((name, known)) = own().next() else {
            return if rested { Due::Write(Write::Create { service: service.clone() }) } else { Due::Later };
        };
        if self.pod.is_some() && known.owner != self.pod {
            return Due::Write(Write::Adopt { name: (*name).clone() });
        }
        let status = ServiceL2StatusStatus {
            node: self.node.to_string(),
            service_name: service.name.clone(),
            service_namespace: service.namespace.clone(),
            interfaces: interfaces.clone(),
        };
        if known.status != status {
            return Due::Write(Write::Report { name: (*name).clone(), status });
        }
        if let Some((name, _)) = own().nth(1) {
            return Due::Write(Write::Delete { name: (*name).clone() });
        }
        let mut due = Due::Nothing;
        for (name, known) in objects.iter().filter(|(_, known)| known.node != self.node.as_str()) {
            let lives = NodeName::new(&known.node).is_ok_and(|node| self.here.contains(&node));
            if rested && (!lives || now >= known.since + OWN_AFFAIR) {
                return Due::Write(Write::Delete { name: (*name).clone() });
            }
            due = Due::Later;
        }
        due
    }

    /// Notes that something is written for a Service that may have to be repeated.
    fn note(&mut self, service: ServiceKey, now: Instant) {
        let repeated = self.repeated.entry(service).or_insert(Repeated { times: 0, last: now });
        let calm = now.saturating_duration_since(repeated.last) > CALM;
        repeated.times = if calm { 1 } else { repeated.times.saturating_add(1) };
        repeated.last = now;
        self.repeated.retain(|_, repeated| now.saturating_duration_since(repeated.last) <= CALM);
    }
}

enum Due {
    Write(Write),
    Later,
    Nothing,
}

impl Repeated {
    /// How long to wait before the next one.
    fn pause(self) -> Duration {
        // Deleting what the owner before has left, and making one's own, are two.
        match self.times.checked_sub(FREE) {
            None | Some(0) => Duration::ZERO,
            Some(more) => FIRST_PAUSE.saturating_mul(1 << more.min(MAX_DOUBLINGS)),
        }
    }
}

/// The interfaces as the status names them: none when all of them answer.
fn named(interfaces: &Selection<InterfaceName>) -> Vec<InterfaceInfo> {
    match interfaces {
        Selection::All => Vec::new(),
        Selection::Only(names) => names.iter().map(|name| InterfaceInfo { name: name.to_string() }).collect(),
    }
}

/// Chosen: a member that lost a Service deletes its object within this time, also one of a thousand.
const OWN_AFFAIR: Duration = Duration::from_secs(30);
/// How many creations and deletions for a Service are made without a pause. Chosen: two moves.
const FREE: u32 = 4;
/// Chosen: two nodes that disagree for an hour write a few dozen times.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Chosen: 5 s become 5 min.
const MAX_DOUBLINGS: u32 = 6;
/// Chosen: what has not been repeated for so long was no dispute.
const CALM: Duration = Duration::from_secs(15 * 60);

#[cfg(test)]
mod tests;
