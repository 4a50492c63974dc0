//! The same in a cluster: an annotation of the Node or of a Service, written with the rights of who asks.

use std::collections::BTreeMap;
use std::fmt::Debug;

use garpike_controller_api::{
    DRAIN_ANNOTATION, IPAddressPool, L2Advertisement, OWNER_ANNOTATION, ObjectKey, Objects, ServingEndpoints, Sourced,
    service_of,
};
use garpike_election::ServiceKey;
use garpike_kubernetes::Lenient;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::{Facts, Group, Judgement, Place, Report, Request, judge};
use crate::status_file::Written;

/// Why a request was not carried out in a cluster.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The objects that it is judged by cannot be read.
    #[error("cannot list {kind} objects")]
    List {
        /// Their kind.
        kind: &'static str,
        /// The answer.
        source: Box<kube::Error>,
    },
    /// The annotation cannot be written.
    #[error("cannot annotate {object}")]
    Annotate {
        /// The object.
        object: String,
        /// The answer.
        source: Box<kube::Error>,
    },
}

/// Judges a request and, unless it is refused, writes it to the annotations of the objects that it is about. `namespace`
/// holds the pools and the advertisements.
///
/// # Errors
///
/// When a right is missing, or the API server does not answer.
pub async fn carry_out_in_cluster(
    client: &Client,
    namespace: &str,
    request: &Request,
    facts: Facts<'_>,
) -> Result<Report, ClusterError> {
    let objects = read(client, namespace).await?;
    let Judgement { refusals, changes, group, config: _, problems } = judge(&objects, Vec::new(), request, facts);
    let annotations = if refusals.is_empty() { annotations(request, &group, &objects) } else { Vec::new() };
    for annotation in &annotations {
        annotation.write(client).await?;
    }
    let written = if annotations.is_empty() { Written::Unchanged } else { Written::Changed };
    let place = Place::Annotations(annotations.iter().map(Annotation::object).collect());
    let Group { addresses, services } = group;
    Ok(Report { refusals, changes, addresses, services, problems, place, written })
}

/// One annotation to write; `None` removes it.
#[derive(Debug, PartialEq, Eq)]
enum Annotation {
    Drain(String, Option<String>),
    Owner(ServiceKey, Option<String>),
}

impl Annotation {
    fn object(&self) -> String {
        match self {
            Self::Drain(node, _) => format!("Node {node}"),
            Self::Owner(service, _) => format!("Service {service}"),
        }
    }

    async fn write(&self, client: &Client) -> Result<(), ClusterError> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = |name: &str, value: &Option<String>| {
            Patch::Merge(serde_json::json!({ "metadata": { "annotations": { name: value } } }))
        };
        let written = match self {
            Self::Drain(node, value) => {
                Api::<Node>::all(client.clone()).patch(node, &params, &patch(DRAIN_ANNOTATION, value)).await.map(drop)
            }
            Self::Owner(service, value) => {
                let services: Api<Service> = Api::namespaced(client.clone(), &service.namespace);
                services.patch(&service.name, &params, &patch(OWNER_ANNOTATION, value)).await.map(drop)
            }
        };
        written.map_err(|source| ClusterError::Annotate { object: self.object(), source: Box::new(source) })
    }
}

/// What must be written; nothing that is so already.
fn annotations(request: &Request, group: &Group, objects: &Objects) -> Vec<Annotation> {
    let drain = |node: &str| {
        let key = ObjectKey { namespace: String::new(), name: node.to_owned() };
        objects.nodes.get(&key).and_then(|node| node.object.annotations().get(DRAIN_ANNOTATION))
    };
    let owner = |service: &ServiceKey| {
        objects.services.get(&service.into()).and_then(|service| service.object.annotations().get(OWNER_ANNOTATION))
    };
    match request {
        Request::Drain(node) if drain(node.as_str()).is_some_and(|value| value.trim() == "true") => Vec::new(),
        Request::Drain(node) => vec![Annotation::Drain(node.to_string(), Some("true".to_owned()))],
        Request::Undrain(node) if drain(node.as_str()).is_none() => Vec::new(),
        Request::Undrain(node) => vec![Annotation::Drain(node.to_string(), None)],
        // The oldest Service of a group decides; what others say would only confuse.
        Request::Move { chosen, .. } => {
            let wanted = |at: usize| (at == 0).then(|| chosen.to_string());
            let services = group.services.iter().enumerate();
            let missing = services.filter(|(at, service)| owner(service) != wanted(*at).as_ref());
            missing.map(|(at, service)| Annotation::Owner(service.clone(), wanted(at))).collect()
        }
        Request::EndMove(_) => {
            let chosen = group.services.iter().filter(|service| owner(service).is_some());
            chosen.map(|service| Annotation::Owner(service.clone(), None)).collect()
        }
    }
}

/// All objects that decide who may own what.
async fn read(client: &Client, namespace: &str) -> Result<Objects, ClusterError> {
    Ok(Objects {
        pools: readable(list::<Lenient<IPAddressPool>>(namespaced(client, namespace), "IPAddressPool").await?),
        advertisements: readable(
            list::<Lenient<L2Advertisement>>(namespaced(client, namespace), "L2Advertisement").await?,
        ),
        services: list::<Service>(Api::all(client.clone()), "Service").await?,
        nodes: list::<Node>(Api::all(client.clone()), "Node").await?,
        namespaces: list::<Namespace>(Api::all(client.clone()), "Namespace").await?,
        endpoints: Some(endpoints(list::<EndpointSlice>(Api::all(client.clone()), "EndpointSlice").await?)),
        ..Objects::default()
    })
}

/// Where each Service can be served.
fn endpoints(slices: BTreeMap<ObjectKey, Sourced<EndpointSlice>>) -> BTreeMap<ObjectKey, ServingEndpoints> {
    let mut endpoints: BTreeMap<ObjectKey, ServingEndpoints> = BTreeMap::new();
    for slice in slices.values().map(|sourced| &sourced.object) {
        if let Some(service) = service_of(slice) {
            endpoints.entry(service).or_default().extend(&ServingEndpoints::of(slice));
        }
    }
    endpoints
}

/// Those that can be read; the others have no effect, and the speakers tell why.
fn readable<K>(objects: BTreeMap<ObjectKey, Sourced<Lenient<K>>>) -> BTreeMap<ObjectKey, Sourced<K>> {
    let readable = |(key, sourced): (ObjectKey, Sourced<Lenient<K>>)| {
        Some((key, Sourced { object: sourced.object.object.ok()?, source: sourced.source }))
    };
    objects.into_iter().filter_map(readable).collect()
}

fn namespaced<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), namespace)
}

async fn list<K>(api: Api<K>, kind: &'static str) -> Result<BTreeMap<ObjectKey, Sourced<K>>, ClusterError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let listed = api.list(&ListParams::default()).await;
    let listed = listed.map_err(|source| ClusterError::List { kind, source: Box::new(source) })?;
    let objects = listed.items.into_iter().map(|object| {
        let key = ObjectKey { namespace: object.namespace().unwrap_or_default(), name: object.name_any() };
        (key, Sourced { object, source: garpike_controller_api::Source::default() })
    });
    Ok(objects.collect())
}

/// Who wrote the annotations, as `kubectl get --show-managed-fields` shows it.
const FIELD_MANAGER: &str = "garpike";

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use garpike_controller_api::ChosenOwner;

    use super::*;

    #[test]
    fn a_node_is_annotated_once() {
        let drain = Request::Drain("n1".parse().unwrap());
        let undrain = Request::Undrain("n1".parse().unwrap());
        let written = Annotation::Drain("n1".to_owned(), Some("true".to_owned()));

        assert_eq!(annotations(&drain, &Group::default(), &node(None)), [written]);
        assert_eq!(annotations(&drain, &Group::default(), &node(Some("true"))), []);
        assert_eq!(annotations(&undrain, &Group::default(), &node(None)), []);
        let removed = Annotation::Drain("n1".to_owned(), None);
        assert_eq!(annotations(&undrain, &Group::default(), &node(Some("true"))), [removed]);
    }

    #[test]
    fn of_services_that_share_addresses_the_oldest_says_who_owns_them() {
        let [old, young] = ["old", "young"].map(|name| ServiceKey::new("d", name));
        let chosen =
            ChosenOwner { node: "n2".parse().unwrap(), until: UNIX_EPOCH + Duration::from_secs(2_000_000_000) };
        let group = Group { services: vec![old.clone(), young.clone()], ..Group::default() };
        let ip = "10.0.0.1".parse().unwrap();
        let request = Request::Move { ip, chosen: chosen.clone() };
        let objects = services(&[(&old, None), (&young, Some("n3@2030-01-01T00:00:00Z"))]);

        let expected =
            [Annotation::Owner(old.clone(), Some(chosen.to_string())), Annotation::Owner(young.clone(), None)];
        assert_eq!(annotations(&request, &group, &objects), expected);
        let ended = annotations(&Request::EndMove(ip), &group, &objects);
        assert_eq!(ended, [Annotation::Owner(young, None)]);
        let objects = services(&[(&old, Some(&chosen.to_string()))]);
        assert_eq!(annotations(&request, &Group { services: vec![old], ..Group::default() }, &objects), []);
    }

    fn node(drain: Option<&str>) -> Objects {
        let mut node = Node::default();
        node.annotations_mut().extend(drain.map(|value| (DRAIN_ANNOTATION.to_owned(), value.to_owned())));
        let key = ObjectKey { namespace: String::new(), name: "n1".to_owned() };
        Objects { nodes: [(key, Sourced { object: node, ..Sourced::default() })].into(), ..Objects::default() }
    }

    fn services(owners: &[(&ServiceKey, Option<&str>)]) -> Objects {
        let service = |(key, owner): &(&ServiceKey, Option<&str>)| {
            let mut service = Service::default();
            service.annotations_mut().extend(owner.map(|value| (OWNER_ANNOTATION.to_owned(), value.to_owned())));
            (ObjectKey::from(*key), Sourced { object: service, ..Sourced::default() })
        };
        Objects { services: owners.iter().map(service).collect(), ..Objects::default() }
    }
}
