//! What is known of the cluster.
//!
//! Takes what the watches tell, and says whether it is news: whether anything has changed that may decide who owns an
//! address. The endpoints of a Service are kept as the sets of nodes that can serve, so a pod that comes or goes beside
//! others on its node is none.

use std::collections::BTreeMap;

use garpike_controller_api::{
    IPAddressPool, L2Advertisement, ObjectKey, Objects, Problem, ServingEndpoints, Source as Place, Sourced, service_of,
};
use garpike_kubernetes::{Lenient, Trouble, Update};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;

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
    Service(Update<Service>),
    /// Of EndpointSlices.
    Slice(Update<EndpointSlice>),
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
    objects: Objects,
    /// The Service of each EndpointSlice, and what it has there.
    slices: BTreeMap<ObjectKey, (ObjectKey, ServingEndpoints)>,
    /// The slices of each Service.
    slices_of: BTreeMap<ObjectKey, Vec<ObjectKey>>,
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
                apply(&mut self.objects.services, update.into())
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

    /// The objects, once all kinds have been told.
    pub fn objects(&self) -> Option<&Objects> {
        let synced = |kind: &Kind| self.watches.get(kind).is_some_and(|watch| watch.synced);
        Kind::ALL.iter().all(synced).then_some(&self.objects)
    }

    /// What is wrong with objects that cannot be read.
    pub fn problems(&self) -> impl Iterator<Item = Problem> {
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

    fn handle_slices(&mut self, update: Update<EndpointSlice>) -> News {
        match update {
            Update::All(slices) => {
                self.slices.clear();
                self.slices_of.clear();
                for slice in slices {
                    let key = key_of(&slice);
                    if let Some(service) = service_of(&slice) {
                        self.slices_of.entry(service.clone()).or_default().push(key.clone());
                        self.slices.insert(key, (service, ServingEndpoints::of(&slice)));
                    }
                }
                let endpoints: BTreeMap<_, _> = self
                    .slices_of
                    .keys()
                    .map(|service| (service.clone(), self.serving(service)))
                    .filter(|(_, serving)| !serving.is_empty())
                    .collect();
                let news = if self.objects.endpoints.as_ref() == Some(&endpoints) { News::No } else { News::Yes };
                self.objects.endpoints = Some(endpoints);
                news
            }
            Update::Applied(slice) => {
                let key = key_of(&slice);
                let before = self.forget(&key);
                let after = service_of(&slice);
                if let Some(service) = &after {
                    self.slices_of.entry(service.clone()).or_default().push(key.clone());
                    self.slices.insert(key, (service.clone(), ServingEndpoints::of(&slice)));
                }
                self.review([before.filter(|service| Some(service) != after.as_ref()), after])
            }
            Update::Gone(slice) => {
                let before = self.forget(&key_of(&slice));
                self.review([before, None])
            }
            Update::Trouble(_) => News::No,
        }
    }

    /// Forgets a slice, and names the Service that it belonged to.
    fn forget(&mut self, slice: &ObjectKey) -> Option<ObjectKey> {
        let (service, _) = self.slices.remove(slice)?;
        if let Some(slices) = self.slices_of.get_mut(&service) {
            slices.retain(|other| other != slice);
            if slices.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        Some(service)
    }

    /// Puts the endpoints of Services together again whose slices have changed.
    fn review(&mut self, services: [Option<ObjectKey>; 2]) -> News {
        let mut news = News::No;
        for service in services.into_iter().flatten() {
            let serving = self.serving(&service);
            let known = self.objects.endpoints.get_or_insert_default();
            let changed = known.get(&service).map_or(!serving.is_empty(), |before| *before != serving);
            if !changed {
                continue;
            }
            // Whose addresses are not ours to answer for changes nothing here.
            if self.objects.services.contains_key(&service) {
                news = News::Yes;
            }
            if serving.is_empty() {
                known.remove(&service);
            } else {
                known.insert(service, serving);
            }
        }
        news
    }

    fn serving(&self, service: &ObjectKey) -> ServingEndpoints {
        let mut serving = ServingEndpoints::default();
        for slice in self.slices_of.get(service).into_iter().flatten() {
            if let Some((_, endpoints)) = self.slices.get(slice) {
                serving.extend(endpoints);
            }
        }
        serving
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

pub(super) fn key_of<K: Resource>(object: &K) -> ObjectKey {
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
