//! The custom resources of group `metallb.io`, with exactly MetalLB's field names.
//!
//! These types say what can be written, not what is right: [`crate::validate`] gives them a meaning. The definitions that
//! the API server is given are made from them by [`definitions`].

mod bgp;
mod definition;
mod states;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use bgp::{
    BFDProfile, BFDProfileSpec, BGPAdvertisement, BGPAdvertisementSpec, BGPPeer, BGPPeerSpec, DynamicAsn, NoStatus,
    OldBGPPeer, OldBGPPeerSpec, OldExpression, OldNodeSelector, SecretReference, ServiceBGPStatus,
    ServiceBGPStatusSpec, ServiceBGPStatusStatus,
};
pub use definition::definitions;
pub use states::{
    Community, CommunityAlias, CommunitySpec, CommunityStatus, ConfigurationResult, ConfigurationState,
    ConfigurationStateSpec, ConfigurationStateStatus, InterfaceInfo, ServiceL2Status, ServiceL2StatusSpec,
    ServiceL2StatusStatus,
};

/// Addresses that may be given to Services.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "IPAddressPool",
    plural = "ipaddresspools",
    namespaced,
    status = "IPAddressPoolStatus",
    derive = "PartialEq",
    doc = "Addresses that may be given to Services.",
    printcolumn = r#"{"name": "Auto Assign", "jsonPath": ".spec.autoAssign", "type": "boolean"}"#,
    printcolumn = r#"{"name": "Avoid Buggy IPs", "jsonPath": ".spec.avoidBuggyIPs", "type": "boolean"}"#,
    printcolumn = r#"{"name": "Addresses", "jsonPath": ".spec.addresses", "type": "string"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPoolSpec {
    /// CIDR blocks such as `192.168.10.0/24` and ranges such as `192.168.9.1-192.168.9.5`.
    pub addresses: Vec<String>,
    /// Whether Services get addresses of this pool without asking for it; yes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = true))]
    pub auto_assign: Option<bool>,
    /// Whether IPv4 addresses that end in .0 or .255 are left unused; no when absent.
    #[serde(default, rename = "avoidBuggyIPs", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub avoid_buggy_ips: Option<bool>,
    /// Keeps the pool for some Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_allocation: Option<ServiceAllocation>,
}

/// How much of a pool is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPoolStatus {
    /// How many IPv4 addresses Services have.
    #[serde(rename = "assignedIPv4")]
    pub assigned_ipv4: i64,
    /// How many IPv6 addresses Services have.
    #[serde(rename = "assignedIPv6")]
    pub assigned_ipv6: i64,
    /// How many IPv4 addresses are free.
    #[serde(rename = "availableIPv4")]
    pub available_ipv4: i64,
    /// How many IPv6 addresses are free.
    #[serde(rename = "availableIPv6")]
    pub available_ipv6: i64,
}

/// For which Services a pool is kept. Its presence alone takes the pool out of general use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAllocation {
    /// The pool with the lowest positive number is tried first; 0 or absent is tried last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = definition::without_format)]
    pub priority: Option<i64>,
    /// The names of the namespaces whose Services may use the pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// The labels of the namespaces whose Services may use the pool; one that matches is enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespace_selectors: Vec<LabelSelector>,
    /// The labels of the Services that may use the pool; one that matches is enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_selectors: Vec<LabelSelector>,
}

/// Which addresses are announced by ARP and NDP, and where.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "L2Advertisement",
    plural = "l2advertisements",
    namespaced,
    status = "L2AdvertisementStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Which addresses are announced by ARP and NDP, and where.",
    printcolumn = r#"{"name": "IPAddressPools", "jsonPath": ".spec.ipAddressPools", "type": "string"}"#,
    printcolumn = r#"{"name": "IPAddressPool Selectors", "jsonPath": ".spec.ipAddressPoolSelectors", "type": "string"}"#,
    printcolumn = r#"{"name": "Interfaces", "jsonPath": ".spec.interfaces", "type": "string"}"#,
    printcolumn = r#"{"name": "Node Selectors", "jsonPath": ".spec.nodeSelectors", "type": "string", "priority": 10}"#
)]
#[serde(rename_all = "camelCase")]
pub struct L2AdvertisementSpec {
    /// The names of the pools; all pools when this and `ipAddressPoolSelectors` are empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_address_pools: Vec<String>,
    /// The labels of the pools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_address_pool_selectors: Vec<LabelSelector>,
    /// The labels of the nodes that may announce; all nodes when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_selectors: Vec<LabelSelector>,
    /// The interfaces that announce; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
    /// The labels of the Services; all Services when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_selectors: Vec<LabelSelector>,
    /// The nodes that are preferred among those that may announce.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preferred_node_selectors: Vec<PreferredNodeSelector>,
}

/// How much some nodes are preferred.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreferredNodeSelector {
    /// From 1 to 100; the weights of all selectors that match a node are summed.
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// The labels of the nodes; an empty selector matches every node.
    pub preference: LabelSelector,
}

/// Nothing: nobody writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct L2AdvertisementStatus {}
