//! The objects of a cluster as Kubernetes itself would write them: nodes and pods by the kubelet, endpoints by their
//! controller.

use std::net::IpAddr;

use garpike_election::{NodeName, ServiceIp};
use serde_json::{Value, json};

/// A node that is ready.
pub(crate) fn node(name: &NodeName, ip: IpAddr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"},
        },
        "status": {
            "addresses": [{"type": "InternalIP", "address": ip}, {"type": "Hostname", "address": name}],
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status",
                "lastHeartbeatTime": LONG_AGO, "lastTransitionTime": LONG_AGO,
            }],
        },
    })
}

/// The pod of the speaker of a node.
pub(crate) fn speaker_pod(namespace: &str, node: &NodeName, ip: IpAddr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": speaker_pod_name(node), "namespace": namespace,
            "labels": {"app": "metallb", "component": "speaker", "garpike.io/program": "speaker"},
        },
        "spec": {
            "nodeName": node, "hostNetwork": true,
            "containers": [{"name": "speaker", "image": "garpike:lab"}],
        },
        "status": {
            "phase": "Running", "hostIP": ip, "hostIPs": [{"ip": ip}], "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": LONG_AGO}],
        },
    })
}

/// Its name.
pub(crate) fn speaker_pod_name(node: &NodeName) -> String {
    format!("speaker-{node}")
}

/// Which nodes may take the traffic of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrafficPolicy {
    /// All of them.
    Cluster,
    /// Those with an endpoint.
    Local,
}

impl TrafficPolicy {
    fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Local => "Local",
        }
    }
}

/// A Service that serves the echo, in these families. Without node ports, of which there are 2768.
pub(crate) fn service(name: &str, families: &[&str], policy: TrafficPolicy) -> Value {
    let family_policy = if families.len() > 1 { "RequireDualStack" } else { "SingleStack" };
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
            "ipFamilyPolicy": family_policy, "ipFamilies": families,
            "externalTrafficPolicy": policy.as_str(),
            "selector": {"app": name},
            "ports": [{"port": ECHO_PORT, "protocol": "UDP"}],
        },
    })
}

/// The addresses of a Service in its status, as the controller writes them.
pub(crate) fn ingress(ips: &[ServiceIp]) -> Value {
    let entries: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip.addr()})).collect();
    json!({"loadBalancer": {"ingress": entries}})
}

/// A pod behind a Service.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) node: NodeName,
    pub(crate) stage: Stage,
}

/// How far the life of a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It serves.
    Ready,
    /// It was told to end, and serves what comes until it has.
    Terminating,
}

impl Endpoint {
    pub(crate) fn ready(node: &NodeName) -> Self {
        Self { node: node.clone(), stage: Stage::Ready }
    }
}

/// The EndpointSlice of a Service for one family.
pub(crate) fn slice(service: &str, family: &str, endpoints: &[Endpoint]) -> Value {
    let endpoint = |(number, endpoint): (usize, &Endpoint)| {
        let Endpoint { node, stage } = endpoint;
        let ready = *stage == Stage::Ready;
        let address = if family == "IPv6" { format!("fd00:10:244::{number:x}") } else { format!("10.244.0.{number}") };
        json!({
            "addresses": [address], "nodeName": node,
            "conditions": {"ready": ready, "serving": true, "terminating": !ready},
        })
    };
    let endpoints: Vec<Value> = (1..).zip(endpoints).map(endpoint).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-{}", family.to_lowercase()), "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [{"port": ECHO_PORT, "protocol": "UDP"}],
    })
}

/// Where the Services of the lab are.
pub(crate) const NAMESPACE: &str = "default";
/// The echo service of RFC 862.
const ECHO_PORT: u16 = 7;
const LONG_AGO: &str = "2026-01-01T00:00:00Z";
