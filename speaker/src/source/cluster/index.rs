//! What is known of the cluster.
//!
//! Takes what the watches tell, and says whether it is news: whether anything has changed that may decide who owns an
//! address. Of a Service its meaning is kept ([`seen`]), of its endpoints the sets of nodes that can serve, so a pod that
//! comes or goes beside others on its node is none.

use std::collections::{BTreeMap, BTreeSet};

use garpike_controller_api::config::{Config, Service};
use garpike_controller_api::{
    IPAddressPool, L2Advertisement, ObjectKey, Objects, Problem, ServingEndpoints, Source as Place, Sourced,
};
use garpike_election::{NodeName, ServiceKey};
use garpike_kubernetes::{Lenient, Trouble, Update};
use k8s_openapi::api::core::v1::Node;
use kube::Resource;

use super::seen::{SeenService, SeenSlice};

/// A kind of objects that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Services of `type: LoadBalancer`.
    Services,
    /// EndpointSlices.
    EndpointSlices,
    /// Nodes.
    Nodes,
    /// IPAddressPools.
    Pools,
    /// L2Advertisements.
    Advertisements,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 5] = [Self::Services, Self::EndpointSlices, Self::Nodes, Self::Pools, Self::Advertisements];

    /// The resource as RBAC rules name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices.discovery.k8s.io",
            Self::Nodes => "nodes",
            Self::Pools => "ipaddresspools.metallb.io",
            Self::Advertisements => "l2advertisements.metallb.io",
        }
    }
}

/// What a watch tells.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time, handed on at once")]
pub enum Input {
    /// Of Services.
    Service(Update<SeenService>),
    /// Of EndpointSlices.
    Slice(Update<SeenSlice>),
    /// Of Nodes.
    Node(Update<Node>),
    /// Of IPAddressPools.
    Pool(Update<Lenient<IPAddressPool>>),
    /// Of L2Advertisements.
    Advertisement(Update<Lenient<L2Advertisement>>),
}

/// How a watch does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Whether all objects of the kind have been told once.
    pub synced: bool,
    /// Why nothing is told at present.
    pub trouble: Option<Trouble>,
}

/// Whether something has changed that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It has.
    Yes,
    /// It has not.
    No,
}

impl News {
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, Self::No) => Self::No,
            (Self::Yes, _) | (_, Self::Yes) => Self::Yes,
        }
    }
}

/// The objects, and how far they are known.
#[derive(Debug, Default)]
pub struct Index {
    /// All but the Services and their endpoints.
    objects: Objects,
    /// What the objects mean. Its Services are those of now, the rest is of the last judgement.
    config: Config,
    /// The `metadata.uid` of each Service that has addresses.
    uids: BTreeMap<ServiceKey, Box<str>>,
    /// What is wrong with Services.
    complaints: BTreeMap<ServiceKey, Vec<Problem>>,
    /// The slices of each Service, of whatever type, by their names.
    slices: BTreeMap<ServiceKey, Vec<(Box<str>, ServingEndpoints)>>,
    /// The nodes that are or were in them.
    nodes: BTreeSet<NodeName>,
    watches: BTreeMap<Kind, Watch>,
    /// The objects that cannot be read, each with what is wrong.
    broken: BTreeMap<(Kind, ObjectKey), String>,
}

impl Index {
    /// Takes what a watch tells.
    pub fn handle(&mut self, input: Input) -> News {
        match input {
            Input::Service(update) => {
                let update = self.note(Kind::Services, update);
                self.handle_services(update)
            }
            Input::Slice(update) => {
                let update = self.note(Kind::EndpointSlices, update);
                self.handle_slices(update)
            }
            Input::Node(update) => {
                let update = self.note(Kind::Nodes, update);
                apply(&mut self.objects.nodes, update.into())
            }
            Input::Pool(update) => {
                let (change, news) = self.sift(Kind::Pools, update);
                apply(&mut self.objects.pools, change).or(news)
            }
            Input::Advertisement(update) => {
                let (change, news) = self.sift(Kind::Advertisements, update);
                apply(&mut self.objects.advertisements, change).or(news)
            }
        }
    }

    /// Whether all kinds have been told.
    pub fn is_synced(&self) -> bool {
        Kind::ALL.iter().all(|kind| self.watches.get(kind).is_some_and(|watch| watch.synced))
    }

    /// What the objects mean, where `validate` judges all but the Services, and what is wrong with them.
    pub fn config(&mut self, validate: impl FnOnce(&Objects) -> (Config, Vec<Problem>)) -> (&Config, Vec<Problem>) {
        let (config, mut problems) = validate(&self.objects);
        let services = std::mem::take(&mut self.config.services);
        self.config = Config { services, ..config };
        problems.extend(self.complaints.values().flatten().cloned());
        problems.extend(self.unreadable());
        (&self.config, problems)
    }

    /// The `metadata.uid` of each Service that has addresses.
    pub fn uids(&self) -> &BTreeMap<ServiceKey, Box<str>> {
        &self.uids
    }

    /// What is wrong with objects that cannot be read.
    fn unreadable(&self) -> impl Iterator<Item = Problem> {
        self.broken.iter().map(|((kind, key), error)| {
            let problem = Problem::error(format!("cannot be read and has no effect: {error}"));
            problem.of(format!("{} {key}", kind.as_str())).mend("write it as its CRD says")
        })
    }

    /// How the watches do, those that have told nothing yet included.
    pub fn watches(&self) -> BTreeMap<Kind, Watch> {
        Kind::ALL.iter().map(|kind| (*kind, self.watches.get(kind).cloned().unwrap_or_default())).collect()
    }

    /// Whether every watch is told what happens.
    pub fn is_live(&self) -> bool {
        self.watches().values().all(|watch| watch.synced && watch.trouble.is_none())
    }

    fn note<K>(&mut self, kind: Kind, update: Update<K>) -> Update<K> {
        let watch = self.watches.entry(kind).or_default();
        match &update {
            Update::Trouble(trouble) => watch.trouble = Some(trouble.clone()),
            Update::All(_) => *watch = Watch { synced: true, trouble: None },
            Update::Applied(_) | Update::Gone(_) => watch.trouble = None,
        }
        update
    }

    /// Keeps the objects that can be read; of the others, what is wrong.
    fn sift<K: Resource>(&mut self, kind: Kind, update: Update<Lenient<K>>) -> (Change<K>, News) {
        let update = self.note(kind, update);
        let before = self.broken.clone();
        if matches!(update, Update::All(_)) {
            self.broken.retain(|(other, _), _| *other != kind);
        }
        let mut read = |lenient: Lenient<K>| {
            let key = key_of(&lenient);
            match lenient.object {
                Ok(object) => {
                    self.broken.remove(&(kind, key));
                    Ok(object)
                }
                Err(error) => {
                    self.broken.insert((kind, key.clone()), error);
                    Err(key)
                }
            }
        };
        let change = match update {
            Update::All(all) => Change::All(all.into_iter().filter_map(|lenient| read(lenient).ok()).collect()),
            Update::Applied(lenient) => read(lenient).map_or_else(Change::Gone, Change::Applied),
            Update::Gone(lenient) => {
                let key = key_of(&lenient);
                self.broken.remove(&(kind, key.clone()));
                Change::Gone(key)
            }
            Update::Trouble(_) => Change::None,
        };
        (change, if self.broken == before { News::No } else { News::Yes })
    }

    fn handle_services(&mut self, update: Update<SeenService>) -> News {
        match update {
            Update::All(all) => {
                let before = (
                    std::mem::take(&mut self.config.services),
                    std::mem::take(&mut self.uids),
                    std::mem::take(&mut self.complaints),
                );
                let (mut services, mut uids) = (Vec::new(), Vec::new());
                for SeenService { key, uid, service, complaints } in all {
                    if let Some(service) = service {
                        services.push((key.clone(), self.served(*service)));
                        uids.push((key.clone(), uid));
                    }
                    if !complaints.is_empty() {
                        self.complaints.insert(key, complaints);
                    }
                }
                // Collected, because a map that grows in order is left half empty.
                self.config.services = services.into_iter().collect();
                self.uids = uids.into_iter().collect();
                let changed = before.0 != self.config.services || before.1 != self.uids || before.2 != self.complaints;
                if changed { News::Yes } else { News::No }
            }
            Update::Applied(SeenService { key, uid, service, complaints }) => {
                let service = service.map(|service| (self.served(*service), uid));
                self.replace(key, service, complaints)
            }
            Update::Gone(SeenService { key, .. }) => self.replace(key, None, Vec::new()),
            Update::Trouble(_) => News::No,
        }
    }

    fn replace(&mut self, key: ServiceKey, service: Option<(Service, Box<str>)>, complaints: Vec<Problem>) -> News {
        let (service, uid) = service.unzip();
        let changed = self.config.services.get(&key) != service.as_ref()
            || self.uids.get(&key) != uid.as_ref()
            || self.complaints.get(&key).map_or(&[][..], Vec::as_slice) != complaints;
        if !changed {
            return News::No;
        }
        set(&mut self.config.services, &key, service);
        set(&mut self.uids, &key, uid);
        set(&mut self.complaints, &key, Some(complaints).filter(|complaints| !complaints.is_empty()));
        News::Yes
    }

    /// The Service with the endpoints that are known of it.
    fn served(&self, mut service: Service) -> Service {
        service.serve_by(self.serving(&service.key).as_ref());
        service
    }

    fn handle_slices(&mut self, update: Update<SeenSlice>) -> News {
        match update {
            Update::All(slices) => {
                let mut known: BTreeMap<ServiceKey, Vec<(Box<str>, ServingEndpoints)>> = BTreeMap::new();
                self.nodes.clear();
                for SeenSlice { namespace, name, service, mut serving } in slices {
                    let Some(service) = service else { continue };
                    serving.share_names(&mut self.nodes);
                    known.entry(ServiceKey::new(namespace, service)).or_default().push((name, serving));
                }
                let shrunk = known.into_iter().map(|(service, mut slices)| {
                    slices.shrink_to_fit();
                    (service, slices)
                });
                self.slices = shrunk.collect();
                let services: Vec<ServiceKey> = self.config.services.keys().cloned().collect();
                services.iter().map(|service| self.review(service)).fold(News::No, News::or)
            }
            Update::Applied(SeenSlice { namespace, name, service, mut serving }) => {
                serving.share_names(&mut self.nodes);
                let service = service.map(|service| ServiceKey::new(namespace.clone(), service));
                let before = self.service_of(&namespace, &name, service.as_ref());
                let left = before.filter(|before| Some(before) != service.as_ref());
                let news = left.map_or(News::No, |before| self.forget(&before, &name));
                let Some(service) = service else { return news };
                let slices = self.slices.entry(service.clone()).or_default();
                match slices.iter_mut().find(|(other, _)| *other == name) {
                    Some((_, known)) => *known = serving,
                    None => slices.push((name, serving)),
                }
                self.review(&service).or(news)
            }
            Update::Gone(SeenSlice { namespace, name, .. }) => {
                let service = self.service_of(&namespace, &name, None);
                service.map_or(News::No, |service| self.forget(&service, &name))
            }
            Update::Trouble(_) => News::No,
        }
    }

    /// The Service that a slice is kept for, `likely` this one. Seldom another one: then all of the namespace are looked at.
    fn service_of(&self, namespace: &str, slice: &str, likely: Option<&ServiceKey>) -> Option<ServiceKey> {
        let has = |slices: &[(Box<str>, ServingEndpoints)]| slices.iter().any(|(name, _)| **name == *slice);
        let likely = likely.filter(|service| self.slices.get(*service).is_some_and(|slices| has(slices)));
        likely.cloned().or_else(|| {
            let first = ServiceKey::new(namespace, "");
            let mut all = self.slices.range(first..).take_while(|(service, _)| *service.namespace == *namespace);
            all.find(|(_, slices)| has(slices)).map(|(service, _)| service.clone())
        })
    }

    fn forget(&mut self, service: &ServiceKey, slice: &str) -> News {
        if let Some(slices) = self.slices.get_mut(service) {
            slices.retain(|(name, _)| **name != *slice);
            if slices.is_empty() {
                self.slices.remove(service);
            }
        }
        self.review(service)
    }

    /// Puts the endpoints of a Service together again. Those of Services whose addresses are not ours to answer for change
    /// nothing here.
    fn review(&mut self, service: &ServiceKey) -> News {
        let serving = self.serving(service);
        let Some(service) = self.config.services.get_mut(service) else { return News::No };
        let before = service.endpoints.clone();
        service.serve_by(serving.as_ref());
        if service.endpoints == before { News::No } else { News::Yes }
    }

    fn serving(&self, service: &ServiceKey) -> Option<ServingEndpoints> {
        let slices = self.slices.get(service)?;
        let mut serving = ServingEndpoints::default();
        for (_, endpoints) in slices {
            serving.extend(endpoints);
        }
        Some(serving)
    }
}

fn set<T>(map: &mut BTreeMap<ServiceKey, T>, key: &ServiceKey, value: Option<T>) {
    match value {
        Some(value) => drop(map.insert(key.clone(), value)),
        None => drop(map.remove(key)),
    }
}

/// What becomes of a kind.
enum Change<K> {
    All(Vec<K>),
    Applied(K),
    Gone(ObjectKey),
    None,
}

impl<K: Resource> From<Update<K>> for Change<K> {
    fn from(update: Update<K>) -> Self {
        match update {
            Update::All(all) => Self::All(all),
            Update::Applied(object) => Self::Applied(object),
            Update::Gone(object) => Self::Gone(key_of(&object)),
            Update::Trouble(_) => Self::None,
        }
    }
}

fn apply<K: Resource + PartialEq>(known: &mut BTreeMap<ObjectKey, Sourced<K>>, change: Change<K>) -> News {
    let changed = match change {
        Change::All(objects) => {
            let all: BTreeMap<_, _> = objects.into_iter().map(|object| (key_of(&object), sourced(object))).collect();
            let changed = *known != all;
            *known = all;
            changed
        }
        Change::Applied(object) => {
            let (key, object) = (key_of(&object), sourced(object));
            let changed = known.get(&key) != Some(&object);
            known.insert(key, object);
            changed
        }
        Change::Gone(key) => known.remove(&key).is_some(),
        Change::None => false,
    };
    if changed { News::Yes } else { News::No }
}

fn key_of<K: Resource>(object: &K) -> ObjectKey {
    let metadata = object.meta();
    ObjectKey {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

fn sourced<K>(object: K) -> Sourced<K> {
    Sourced { object, source: Place::default() }
}

#[cfg(test)]
mod tests;
