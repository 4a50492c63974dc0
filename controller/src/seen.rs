//! A Service as the API shows it, in the smallest form from which all can be made that is needed of it.
//!
//! A controller of 10 000 Services holds them all: what it judges them by, and what a write must carry. A status is written
//! with the whole object (the right to patch is missing), whose metadata replace those in the cluster, so these are kept
//! whole but for the managed fields. The API server takes everything else of a status write's `spec` from its own copy; it
//! needs the type alone, without which it refuses addresses. As JSON that is a third of what the structs take.

mod raw;

use garpike_controller_api::config::PoolName;
use garpike_election::{ServiceIp, ServiceKey};
use garpike_kubernetes::Regarding;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::planner::{POOL_ANNOTATION, Write};

pub(crate) use raw::RawService;

/// A Service in its smallest form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) key: ServiceKey,
    pub(crate) version: u64,
    /// Who wrote the addresses in its status, as the API server calls him.
    pub(crate) status_manager: Option<Box<str>>,
    /// Whether it is none that could have an address, and still says why it has none.
    pub(crate) outdated_condition: bool,
    object: Box<[u8]>,
}

impl Seen {
    pub(crate) fn new(mut service: Service, status_manager: Option<Box<str>>) -> Self {
        let namespace = service.metadata.namespace.clone().unwrap_or_default();
        let name = service.metadata.name.clone().unwrap_or_default();
        service.metadata.managed_fields = None;
        let is_balanced = service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"));
        let conditions = service.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let outdated_condition = !is_balanced && conditions.into_iter().any(|condition| condition.type_ == CONDITION);
        service.spec = service.spec.map(judged);
        Self {
            key: ServiceKey::new(namespace, name),
            version: version(&service),
            status_manager,
            outdated_condition,
            object: serde_json::to_vec(&service).unwrap_or_default().into(),
        }
    }

    /// What judges and writers read of the object; what is left out is `None`.
    pub(crate) fn service(&self) -> Service {
        // It was written by `new`, so it can be read.
        serde_json::from_slice(&self.object).unwrap_or_default()
    }

    /// The object with what `write` wants, as the API server takes it.
    pub(crate) fn body(&self, write: &Write) -> Vec<u8> {
        let mut service = self.service();
        service.metadata.resource_version = Some(write.version.to_string());
        let annotations = service.metadata.annotations.get_or_insert_default();
        match &write.pool {
            Some(PoolName(name)) => drop(annotations.insert(POOL_ANNOTATION.to_owned(), name.clone())),
            None => drop(annotations.remove(POOL_ANNOTATION)),
        }
        let type_ = service.spec.as_ref().and_then(|spec| spec.type_.clone());
        service.spec = Some(ServiceSpec { type_, ..ServiceSpec::default() });
        let balancer = service.status.get_or_insert_default().load_balancer.take().unwrap_or_default();
        let shown = balancer.ingress.unwrap_or_default();
        let ingress = write.addresses.iter().map(|ip| entry(&shown, *ip)).collect::<Vec<_>>();
        let ingress = Some(ingress).filter(|entries| !entries.is_empty());
        let status = service.status.get_or_insert_default();
        status.load_balancer = Some(LoadBalancerStatus { ingress });
        // Whoever has an address does not wait for one.
        if !write.addresses.is_empty() {
            status.conditions = status.conditions.take().map(without_ours);
        }
        serde_json::to_vec(&service).unwrap_or_default()
    }

    /// The object in the words of an event.
    pub(crate) fn regarding(&self) -> Regarding {
        let (namespace, name) = (self.key.namespace.to_string(), self.key.name.to_string());
        let uid = self.service().metadata.uid.unwrap_or_default();
        Regarding { api_version: "v1", kind: "Service", namespace, name, uid }
    }
}

/// What is there of an address; somebody may have set its `ipMode`.
fn entry(shown: &[LoadBalancerIngress], ip: ServiceIp) -> LoadBalancerIngress {
    let same = |entry: &&LoadBalancerIngress| entry.ip.as_deref().and_then(|text| text.parse().ok()) == Some(ip);
    let entry = shown.iter().find(same).cloned();
    entry.unwrap_or_else(|| LoadBalancerIngress { ip: Some(ip.to_string()), ..LoadBalancerIngress::default() })
}

fn without_ours(mut conditions: Vec<Condition>) -> Vec<Condition> {
    conditions.retain(|condition| condition.type_ != CONDITION);
    conditions
}

/// The fields that decide about addresses.
fn judged(spec: ServiceSpec) -> ServiceSpec {
    let port = |port: ServicePort| ServicePort {
        port: port.port,
        protocol: port.protocol.filter(|protocol| protocol != "TCP"),
        ..ServicePort::default()
    };
    let is_local = spec.external_traffic_policy.as_deref() == Some("Local");
    if spec.type_.as_deref() != Some("LoadBalancer") {
        return ServiceSpec { type_: spec.type_, ..ServiceSpec::default() };
    }
    ServiceSpec {
        type_: spec.type_,
        load_balancer_class: spec.load_balancer_class,
        load_balancer_ip: spec.load_balancer_ip,
        cluster_ips: spec.cluster_ips.or_else(|| spec.cluster_ip.map(|ip| vec![ip])),
        ip_families: spec.ip_families,
        ip_family_policy: spec.ip_family_policy,
        external_traffic_policy: spec.external_traffic_policy.filter(|_| is_local),
        selector: spec.selector.filter(|_| is_local),
        ports: spec.ports.map(|ports| ports.into_iter().map(port).collect()),
        ..ServiceSpec::default()
    }
}

fn version(service: &Service) -> u64 {
    service.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The condition that says why a Service has no address.
pub(crate) const CONDITION: &str = "garpike.io/AddressAllocated";
/// Who we are in `metadata.managedFields`.
pub(crate) const FIELD_MANAGER: &str = "garpike-controller";

#[cfg(test)]
mod tests;
