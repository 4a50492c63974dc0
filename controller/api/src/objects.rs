//! The objects of one source, each once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;

use garpike_election::ServiceKey;
use k8s_openapi::api::core::v1::{Namespace, Node, Service, ServiceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::problem::Problem;
use crate::tree::Lines;
use crate::{Community, IPAddressPool, L2Advertisement, ServingEndpoints};

/// What people wrote, not judged yet.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// The pools.
    pub pools: BTreeMap<ObjectKey, Sourced<IPAddressPool>>,
    /// The advertisements.
    pub advertisements: BTreeMap<ObjectKey, Sourced<L2Advertisement>>,
    /// The names of BGP communities; those of files are not kept.
    pub communities: BTreeMap<ObjectKey, Sourced<Community>>,
    /// The Services of every type.
    pub services: BTreeMap<ObjectKey, Sourced<Service>>,
    /// The nodes.
    pub nodes: BTreeMap<ObjectKey, Sourced<Node>>,
    /// The namespaces.
    pub namespaces: BTreeMap<ObjectKey, Sourced<Namespace>>,
    /// The addresses that `garpike allocate` gave to Services; those that a Service holds itself go first.
    pub statuses: BTreeMap<ObjectKey, Sourced<ServiceStatus>>,
    /// The annotations of Nodes that `garpike drain` wrote; they go before those of the Nodes themselves.
    pub node_overrides: BTreeMap<ObjectKey, Sourced<ObjectMeta>>,
    /// The annotations of Services that `garpike move` wrote; they go before those of the Services themselves.
    pub service_overrides: BTreeMap<ObjectKey, Sourced<ObjectMeta>>,
    /// The endpoints of each Service that has some; `None`: nothing is known of endpoints, and they count as everywhere.
    pub endpoints: Option<BTreeMap<ObjectKey, ServingEndpoints>>,
}

impl Objects {
    /// Takes in the objects of `other`. Of two with one key the present one stays, and a problem names both.
    pub fn merge(&mut self, other: Self) -> Vec<Problem> {
        let Self {
            pools,
            advertisements,
            communities,
            services,
            nodes,
            namespaces,
            statuses,
            node_overrides,
            service_overrides,
            endpoints,
        } = other;
        if let Some(endpoints) = endpoints {
            let known = self.endpoints.get_or_insert_default();
            for (key, serving) in endpoints {
                known.entry(key).or_default().extend(&serving);
            }
        }
        let mut problems = Vec::new();
        insert_all(&mut self.pools, pools, "IPAddressPool", &mut problems);
        insert_all(&mut self.advertisements, advertisements, "L2Advertisement", &mut problems);
        insert_all(&mut self.communities, communities, "Community", &mut problems);
        insert_all(&mut self.services, services, "Service", &mut problems);
        insert_all(&mut self.nodes, nodes, "Node", &mut problems);
        insert_all(&mut self.namespaces, namespaces, "Namespace", &mut problems);
        insert_all(&mut self.statuses, statuses, "Service", &mut problems);
        insert_all(&mut self.node_overrides, node_overrides, "Node", &mut problems);
        insert_all(&mut self.service_overrides, service_overrides, "Service", &mut problems);
        problems
    }
}

fn insert_all<T>(
    into: &mut BTreeMap<ObjectKey, Sourced<T>>,
    from: BTreeMap<ObjectKey, Sourced<T>>,
    kind: &str,
    problems: &mut Vec<Problem>,
) {
    problems.extend(from.into_iter().filter_map(|(key, sourced)| insert(into, key, sourced, kind)));
}

/// Takes in one object, unless its key is taken.
pub(crate) fn insert<T>(
    into: &mut BTreeMap<ObjectKey, Sourced<T>>,
    key: ObjectKey,
    sourced: Sourced<T>,
    kind: &str,
) -> Option<Problem> {
    match into.entry(key) {
        Entry::Vacant(entry) => {
            entry.insert(sourced);
            None
        }
        Entry::Occupied(present) => {
            let problem = Problem::error(format!("is there already, in {}", present.get().source))
                .of(format!("{kind} {}", present.key()))
                .mend("rename or remove one of the two; the first is used");
            Some(sourced.source.locate(problem))
        }
    }
}

/// Namespace and name; the namespace of cluster-wide kinds is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl ObjectKey {
    /// The key of an object of which a part may be missing, for messages.
    pub(crate) fn shown(namespace: Option<String>, name: Option<String>) -> Self {
        Self { namespace: namespace.unwrap_or_default(), name: name.unwrap_or_else(|| "without a name".to_owned()) }
    }
}

impl From<&ObjectKey> for ServiceKey {
    fn from(key: &ObjectKey) -> Self {
        Self::new(&*key.namespace, &*key.name)
    }
}

impl From<&ServiceKey> for ObjectKey {
    fn from(key: &ServiceKey) -> Self {
        Self { namespace: key.namespace.to_string(), name: key.name.to_string() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// An object and where it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The object.
    pub object: T,
    /// Where it comes from.
    pub source: Source,
}

impl<T> Sourced<T> {
    /// What `f` makes of the object, from the same place.
    pub(crate) fn map<U>(self, f: impl FnOnce(T) -> U) -> Sourced<U> {
        Sourced { object: f(self.object), source: self.source }
    }
}

/// Where an object comes from. The default is no file: the Kubernetes API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source(Option<Arc<Place>>);

/// Where in a file.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    file: Arc<str>,
    lines: Lines,
}

impl Source {
    pub(crate) fn new(file: Arc<str>, lines: Lines) -> Self {
        Self(Some(Arc::new(Place { file, lines })))
    }

    /// Names file and line in `problem`.
    #[must_use]
    pub fn locate(&self, problem: Problem) -> Problem {
        match &self.0 {
            Some(place) => place.lines.locate(problem, place.file.clone()),
            None => problem,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(place) => write!(f, "{}:{}", place.file, place.lines.line()),
            None => f.write_str("the cluster"),
        }
    }
}
