//! The resources that report what is so, and the one that only BGP uses.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::definition;

/// Which node answers for the addresses of a Service.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "ServiceL2Status",
    plural = "servicel2statuses",
    namespaced,
    status = "ServiceL2StatusStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Which node answers for the addresses of a Service.",
    printcolumn = r#"{"name": "Allocated Node", "jsonPath": ".status.node", "type": "string"}"#,
    printcolumn = r#"{"name": "Service Name", "jsonPath": ".status.serviceName", "type": "string"}"#,
    printcolumn = r#"{"name": "Service Namespace", "jsonPath": ".status.serviceNamespace", "type": "string"}"#
)]
pub struct ServiceL2StatusSpec {}

/// Who answers, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceL2StatusStatus {
    /// The node that answers.
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
    /// The interfaces that answer; none are named when all do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<InterfaceInfo>,
}

/// An interface that answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InterfaceInfo {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// Whether the configuration that a component works by is right.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "ConfigurationState",
    plural = "configurationstates",
    namespaced,
    no_spec,
    status = "ConfigurationStateStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Whether the configuration that a component works by is right. The label metallb.io/component-type says which component, metallb.io/node-name of which node.",
    printcolumn = r#"{"name": "Result", "jsonPath": ".status.result", "type": "string"}"#,
    printcolumn = r#"{"name": "ErrorSummary", "jsonPath": ".status.errorSummary", "type": "string"}"#,
    printcolumn = r#"{"name": "Age", "jsonPath": ".metadata.creationTimestamp", "type": "date"}"#
)]
pub struct ConfigurationStateSpec {}

/// What is wrong with the configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigurationStateStatus {
    /// Whether it is right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<ConfigurationResult>,
    /// What is wrong, one line for each problem; empty when nothing is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error_summary: String,
    /// What each part of the component says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// Whether a configuration is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConfigurationResult {
    /// It is.
    Valid,
    /// It is not.
    Invalid,
    /// Nobody has looked yet.
    Unknown,
}

/// Names for BGP communities. They are read and have no effect.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "metallb.io",
    version = "v1beta1",
    kind = "Community",
    plural = "communities",
    namespaced,
    status = "CommunityStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Names for BGP communities."
)]
#[serde(default)]
pub struct CommunitySpec {
    /// The names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<CommunityAlias>,
}

/// A name for a BGP community.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CommunityAlias {
    /// The name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The community: `1234:1234`, or `large:1234:1234:1234`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
}

/// Nothing: nobody writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommunityStatus {}

/// The conditions as Kubernetes restricts them where it checks them itself.
fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "What each part of the component says.",
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "description": "What one part says.",
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": {
                    "description": "When it began to say so.",
                    "type": "string",
                    "format": "date-time",
                },
                "message": {"description": "In words; may be empty.", "type": "string", "maxLength": 32768},
                "observedGeneration": {
                    "description": "The metadata.generation that it speaks of.",
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                },
                "reason": {
                    "description": "In one word.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "status": {"description": "Whether it is so.", "type": "string", "enum": ["True", "False", "Unknown"]},
                "type": {
                    "description": "What it is about.",
                    "type": "string",
                    "maxLength": 316,
                    "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                },
            },
        },
    })
}
