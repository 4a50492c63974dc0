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
    Report { service: ServiceKey, name: Box<str>, status: ServiceL2StatusStatus },
    /// Make the object of an earlier pod of this node the present one's, or it goes with that pod.
    Adopt { service: ServiceKey, name: Box<str> },
    /// Delete an object.
    Delete { service: ServiceKey, name: Box<str> },
}

impl Write {
    /// Whose object it is.
    fn service(&self) -> &ServiceKey {
        match self {
            Self::Create { service }
            | Self::Report { service, .. }
            | Self::Adopt { service, .. }
            | Self::Delete { service, .. } => service,
        }
    }
}

/// What is kept of an object: of those of other nodes, whose they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    service: ServiceKey,
    name: Box<str>,
    node: Box<str>,
    own: Option<Own>,
}

/// What is kept of an object of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Own {
    /// The uid of the pod that it goes with.
    owner: Option<Box<str>>,
    /// The interfaces that it names, if it names the node and the Service too.
    interfaces: Option<Vec<InterfaceInfo>>,
}

impl Seen {
    /// What `node` keeps of an object; `None`: it is not labelled as ours are.
    pub(crate) fn by(node: &NodeName, object: ServiceL2Status) -> Option<Self> {
        let ServiceL2Status { metadata, status, .. } = object;
        let mut labels = metadata.labels?;
        let service = ServiceKey::new(labels.remove(NAMESPACE_LABEL)?, labels.remove(SERVICE_LABEL)?);
        let (name, told) = (metadata.name?.into(), labels.remove(NODE_LABEL)?);
        let own = (told == node.as_str()).then(|| {
            let owner = metadata.owner_references.into_iter().flatten().next().map(|owner| owner.uid.into());
            let right = status.filter(|status| {
                let of = (&*status.node, &*status.service_name, &*status.service_namespace);
                of == (&*told, &*service.name, &*service.namespace)
            });
            Own { owner, interfaces: right.map(|status| status.interfaces) }
        });
        Some(Self { service, name, node: told.into(), own })
    }
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    name: Box<str>,
    node: Box<str>,
    own: Option<Own>,
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
    /// The objects of each Service.
    objects: BTreeMap<ServiceKey, Vec<Known>>,
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
    pub(crate) fn handle_update(&mut self, update: Update<Option<Seen>>, now: Instant) {
        match update {
            Update::All(objects) => {
                self.listed = true;
                let before = std::mem::take(&mut self.objects);
                for seen in objects.into_iter().flatten() {
                    let known = before.get(&seen.service).into_iter().flatten();
                    let since = known.filter(|known| known.name == seen.name).map(|known| known.since).next();
                    self.learn(seen, since.unwrap_or(now));
                }
                // Those of Services that nobody holds any more too.
                self.open.extend(self.objects.keys().cloned());
                self.open.extend(self.owned.keys().cloned());
            }
            Update::Applied(Some(seen)) => self.learn(seen, now),
            Update::Gone(Some(seen)) => self.handle_gone(seen.service, &seen.name),
            Update::Applied(None) | Update::Gone(None) | Update::Trouble(_) => {}
        }
    }

    /// Takes an object as the API server has it; it was not there before `since` unless it is known.
    pub(crate) fn learn(&mut self, Seen { service, name, node, own }: Seen, since: Instant) {
        self.open.insert(service.clone());
        let objects = self.objects.entry(service).or_insert_with(|| Vec::with_capacity(1));
        match objects.iter_mut().find(|known| known.name == name) {
            Some(known) => (known.node, known.own) = (node, own),
            None => objects.push(Known { name, node, own, since }),
        }
    }

    /// An object is gone.
    pub(crate) fn handle_gone(&mut self, service: ServiceKey, name: &str) {
        let Some(objects) = self.objects.get_mut(&service) else { return };
        objects.retain(|known| *known.name != *name);
        if objects.is_empty() {
            self.objects.remove(&service);
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
        // What has not happened was not repeated.
        self.repeated.remove(write.service());
        self.open.insert(write.service().clone());
    }

    /// Whether something remains to be done, be it later.
    pub(crate) fn is_busy(&self) -> bool {
        self.listed && !self.open.is_empty()
    }

    fn judge(&self, service: &ServiceKey, now: Instant) -> Due {
        let objects = self.objects.get(service).map(Vec::as_slice).unwrap_or_default();
        let delete = |known: &Known| Due::Write(Write::Delete { service: service.clone(), name: known.name.clone() });
        let mut own = objects.iter().filter_map(|known| Some((known, known.own.as_ref()?)));
        let Some(interfaces) = self.owned.get(service) else {
            return own.next().map_or(Due::Nothing, |(known, _)| delete(known));
        };
        let rested = self.repeated.get(service).is_none_or(|repeated| now >= repeated.last + repeated.pause());
        let Some((known, Own { owner, interfaces: named })) = own.next() else {
            return if rested { Due::Write(Write::Create { service: service.clone() }) } else { Due::Later };
        };
        if self.pod.is_some() && owner.as_deref() != self.pod.as_deref() {
            return Due::Write(Write::Adopt { service: service.clone(), name: known.name.clone() });
        }
        if named.as_ref() != Some(interfaces) {
            let status = ServiceL2StatusStatus {
                node: self.node.to_string(),
                service_name: service.name.to_string(),
                service_namespace: service.namespace.to_string(),
                interfaces: interfaces.clone(),
            };
            return Due::Write(Write::Report { service: service.clone(), name: known.name.clone(), status });
        }
        if let Some((known, _)) = own.next() {
            return delete(known);
        }
        let mut due = Due::Nothing;
        for known in objects.iter().filter(|known| known.own.is_none()) {
            let lives = NodeName::new(&known.node).is_ok_and(|node| self.here.contains(&node));
            if rested && (!lives || now >= known.since + OWN_AFFAIR) {
                return delete(known);
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
