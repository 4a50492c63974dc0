//! A Service as the API sends it, of which most is passed over while it is read: who manages which field is the larger part
//! of an object, and a page holds hundreds.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Service, ServiceSpec, ServiceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::Seen;

/// What a watch reads.
#[derive(Clone, Debug)]
pub(crate) struct RawService {
    pub(crate) seen: Seen,
    /// Name and version, which the watch asks for.
    metadata: ObjectMeta,
}

impl<'de> Deserialize<'de> for RawService {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { metadata, spec, status } = Wire::deserialize(deserializer)?;
        let status_manager = metadata.managed_fields.into_iter().find(Entry::manages_addresses);
        let metadata = metadata.rest;
        let kept = ObjectMeta {
            name: metadata.name.clone(),
            namespace: metadata.namespace.clone(),
            resource_version: metadata.resource_version.clone(),
            ..ObjectMeta::default()
        };
        let seen = Seen::new(Service { metadata, spec, status }, status_manager.and_then(|entry| entry.manager));
        Ok(Self { seen, metadata: kept })
    }
}

impl Resource for RawService {
    type DynamicType = ();
    type Scope = <Service as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        Service::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Service::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Service::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Service::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[derive(Deserialize)]
struct Wire {
    metadata: Metadata,
    spec: Option<ServiceSpec>,
    status: Option<ServiceStatus>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default, rename = "managedFields")]
    managed_fields: Vec<Entry>,
    #[serde(flatten)]
    rest: ObjectMeta,
}

/// Who manages some fields.
#[derive(Deserialize)]
struct Entry {
    manager: Option<Box<str>>,
    subresource: Option<String>,
    #[serde(default, rename = "fieldsV1")]
    fields: Fields,
}

#[derive(Default, Deserialize)]
struct Fields {
    #[serde(default, rename = "f:status")]
    status: StatusFields,
}

#[derive(Default, Deserialize)]
struct StatusFields {
    #[serde(rename = "f:loadBalancer")]
    load_balancer: Option<IgnoredAny>,
}

impl Entry {
    fn manages_addresses(&self) -> bool {
        self.subresource.as_deref() == Some("status") && self.fields.status.load_balancer.is_some()
    }
}
