//! The kinds that only BGP uses. They are accepted, so that manifests apply; nobody acts by them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::definition;

/// How addresses would be announced by BGP.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "BGPAdvertisement",
    plural = "bgpadvertisements",
    namespaced,
    status = "NoStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "How addresses would be announced by BGP, which is not active.",
    printcolumn = r#"{"name": "IPAddressPools", "jsonPath": ".spec.ipAddressPools", "type": "string"}"#,
    printcolumn = r#"{"name": "IPAddressPool Selectors", "jsonPath": ".spec.ipAddressPoolSelectors", "type": "string"}"#,
    printcolumn = r#"{"name": "Peers", "jsonPath": ".spec.peers", "type": "string"}"#,
    printcolumn = r#"{"name": "Node Selectors", "jsonPath": ".spec.nodeSelectors", "type": "string", "priority": 10}"#
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "message": "serviceSelectors and aggregationLength are mutually exclusive, can only be used together with default aggregationLength (32) and aggregationLengthV6 (128)",
    "rule": "!has(self.serviceSelectors) || self.serviceSelectors.size() == 0 || ((!has(self.aggregationLength) || self.aggregationLength == 32) && (!has(self.aggregationLengthV6) || self.aggregationLengthV6 == 128))",
}]))]
pub struct BGPAdvertisementSpec {
    /// How long the announced IPv4 prefixes are.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("default" = 32))]
    pub aggregation_length: Option<i32>,
    /// How long the announced IPv6 prefixes are.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = 128))]
    pub aggregation_length_v6: Option<i32>,
    /// The attribute LOCAL_PREF.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_pref: Option<i32>,
    /// The communities, or their names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<String>,
    /// The names of the pools.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip_address_pools: Vec<String>,
    /// The labels of the pools.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip_address_pool_selectors: Vec<LabelSelector>,
    /// The labels of the nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_selectors: Vec<LabelSelector>,
    /// The names of the BGPPeers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
    /// The labels of the Services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_selectors: Vec<LabelSelector>,
}

/// A router.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta2",
    kind = "BGPPeer",
    plural = "bgppeers",
    namespaced,
    status = "NoStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A router, with which nobody speaks: BGP is not active.",
    printcolumn = r#"{"name": "Address", "jsonPath": ".spec.peerAddress", "type": "string"}"#,
    printcolumn = r#"{"name": "ASN", "jsonPath": ".spec.peerASN", "type": "string"}"#,
    printcolumn = r#"{"name": "BFD Profile", "jsonPath": ".spec.bfdProfile", "type": "string"}"#,
    printcolumn = r#"{"name": "Multi Hops", "jsonPath": ".spec.ebgpMultiHop", "type": "string"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct BGPPeerSpec {
    /// The number of our autonomous system.
    #[serde(rename = "myASN")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub my_asn: i64,
    /// The number of the peer's autonomous system.
    #[serde(default, rename = "peerASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub peer_asn: Option<i64>,
    /// Whether the peer is of our autonomous system, where its number is not written.
    #[serde(default, rename = "dynamicASN", skip_serializing_if = "Option::is_none")]
    pub dynamic_asn: Option<DynamicAsn>,
    /// The number that we show to this peer.
    #[serde(default, rename = "localASN", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    pub local_asn: Option<i64>,
    /// The address of the peer; this or `interface`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_address: Option<String>,
    /// The interface on which the peer is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Our own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<String>,
    /// The TCP port of the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = definition::without_format, range(min = 1, max = 16384), extend("default" = 179))]
    pub peer_port: Option<i32>,
    /// How long a silent peer counts as there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_time: Option<String>,
    /// How often a sign of life is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_time: Option<String>,
    /// How long to wait between attempts to connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [
        {
            "message": "connect time should be between 1 seconds to 65535",
            "rule": "duration(self).getSeconds() >= 1 && duration(self).getSeconds() <= 65535",
        },
        {
            "message": "connect time should contain a whole number of seconds",
            "rule": "duration(self).getMilliseconds() % 1000 == 0",
        },
    ]))]
    pub connect_time: Option<String>,
    /// The identifier of our router.
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    pub router_id: Option<String>,
    /// The labels of the nodes that speak with the peer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_selectors: Vec<LabelSelector>,
    /// The password of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// The Secret that holds the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<SecretReference>,
    /// The name of a BFDProfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd_profile: Option<String>,
    /// Whether routes stay while we restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "message": "EnableGracefulRestart cannot be changed after creation",
        "rule": "self == oldSelf",
    }]))]
    pub enable_graceful_restart: Option<bool>,
    /// Whether the peer is more than one hop away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebgp_multi_hop: Option<bool>,
    /// The VRF of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// Whether each family has a connection of its own.
    #[serde(default, rename = "disableMP", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub disable_mp: Option<bool>,
    /// Whether both families go over one connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub dual_stack_address_family: Option<bool>,
}

/// Of which autonomous system a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DynamicAsn {
    /// Of ours.
    Internal,
    /// Of any other.
    External,
}

/// The name of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct SecretReference {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// A router, as releases before 0.13 wrote it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "BGPPeer",
    root = "OldBGPPeer",
    plural = "bgppeers",
    namespaced,
    status = "NoStatus",
    derive = "PartialEq",
    derive = "Default",
    deprecated = "v1beta1 is deprecated, please use v1beta2",
    doc = "A router, with which nobody speaks: BGP is not active.",
    printcolumn = r#"{"name": "Address", "jsonPath": ".spec.peerAddress", "type": "string"}"#,
    printcolumn = r#"{"name": "ASN", "jsonPath": ".spec.peerASN", "type": "string"}"#,
    printcolumn = r#"{"name": "BFD Profile", "jsonPath": ".spec.bfdProfile", "type": "string"}"#,
    printcolumn = r#"{"name": "Multi Hops", "jsonPath": ".spec.ebgpMultiHop", "type": "string"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct OldBGPPeerSpec {
    /// The number of our autonomous system.
    #[serde(rename = "myASN")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub my_asn: i64,
    /// The number of the peer's autonomous system.
    #[serde(rename = "peerASN")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub peer_asn: i64,
    /// The address of the peer.
    pub peer_address: String,
    /// Our own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<String>,
    /// The TCP port of the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = definition::without_format, range(min = 0, max = 16384))]
    pub peer_port: Option<i32>,
    /// How long a silent peer counts as there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_time: Option<String>,
    /// How often a sign of life is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_time: Option<String>,
    /// The identifier of our router.
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    pub router_id: Option<String>,
    /// The labels of the nodes that speak with the peer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_selectors: Vec<OldNodeSelector>,
    /// The password of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// The name of a BFDProfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd_profile: Option<String>,
    /// Whether the peer is more than one hop away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebgp_multi_hop: Option<bool>,
}

/// The labels of nodes, as v1beta1 has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OldNodeSelector {
    /// Labels that must be equal.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Conditions on labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<OldExpression>,
}

/// A condition on a label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OldExpression {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// What it is compared with.
    #[schemars(length(min = 1))]
    pub values: Vec<String>,
}

/// How fast a silent router is noticed.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "BFDProfile",
    plural = "bfdprofiles",
    namespaced,
    status = "NoStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "How fast a silent router would be noticed; BGP is not active.",
    printcolumn = r#"{"name": "Passive Mode", "jsonPath": ".spec.passiveMode", "type": "boolean"}"#,
    printcolumn = r#"{"name": "Transmit Interval", "jsonPath": ".spec.transmitInterval", "type": "integer"}"#,
    printcolumn = r#"{"name": "Receive Interval", "jsonPath": ".spec.receiveInterval", "type": "integer"}"#,
    printcolumn = r#"{"name": "Multiplier", "jsonPath": ".spec.detectMultiplier", "type": "integer"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct BFDProfileSpec {
    /// The shortest interval of packets that we take, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60000))]
    pub receive_interval: Option<i32>,
    /// The shortest interval of packets that we send, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60000))]
    pub transmit_interval: Option<i32>,
    /// After how many missing packets a peer is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 255))]
    pub detect_multiplier: Option<i32>,
    /// The interval of echo packets, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60000))]
    pub echo_interval: Option<i32>,
    /// Whether echo packets are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub echo_mode: Option<bool>,
    /// Whether the peer must begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passive_mode: Option<bool>,
    /// The least TTL of packets over several hops.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 254))]
    pub minimum_ttl: Option<i32>,
}

/// To which routers a node announces a Service.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "ServiceBGPStatus",
    plural = "servicebgpstatuses",
    namespaced,
    status = "ServiceBGPStatusStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "To which routers a node announces a Service. Nobody writes it: BGP is not active.",
    printcolumn = r#"{"name": "Node", "jsonPath": ".status.node", "type": "string"}"#,
    printcolumn = r#"{"name": "Service Name", "jsonPath": ".status.serviceName", "type": "string"}"#,
    printcolumn = r#"{"name": "Service Namespace", "jsonPath": ".status.serviceNamespace", "type": "string"}"#
)]
pub struct ServiceBGPStatusSpec {}

/// Who announces, and to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceBGPStatusStatus {
    /// The node that announces.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(transform = definition::immutable)]
    pub node: String,
    /// The name of the Service.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(transform = definition::immutable)]
    pub service_name: String,
    /// The namespace of the Service.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(transform = definition::immutable)]
    pub service_namespace: String,
    /// The names of the BGPPeers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
}

/// Nothing: nobody writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NoStatus {}
