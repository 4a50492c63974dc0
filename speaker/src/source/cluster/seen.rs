//! What is kept of Services and EndpointSlices: their meaning.
//!
//! There are thousands of both. As objects of the API they take ten times the room, so they are judged as they come, each by
//! itself, and so a change of anything else (a label of an EndpointSlice, a field of another component) leaves them equal.

use garpike_controller_api::config::Service;
use garpike_controller_api::{
    ObjectKey, Problem, Scope, ServingEndpoints, Source as Place, Sourced, judge_held, service_of,
};
use garpike_election::ServiceKey;
use k8s_openapi::api::core::v1::Service as ServiceObject;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenService {
    /// Its namespace and name.
    pub key: ServiceKey,
    /// Its `metadata.uid`.
    pub uid: Box<str>,
    /// The Service, if it has addresses that are ours to answer for. Nothing is known here of its endpoints.
    pub service: Option<Box<Service>>,
    /// What is wrong with it.
    pub complaints: Vec<Problem>,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenSlice {
    /// Its namespace, and that of its Service.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// The name of its Service.
    pub service: Option<Box<str>>,
    /// Who can serve.
    pub serving: ServingEndpoints,
}

impl SeenService {
    /// What a Service means.
    pub fn new(object: ServiceObject, scope: &Scope) -> Self {
        let metadata = &object.metadata;
        let key = ObjectKey {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        };
        let uid = metadata.uid.clone().unwrap_or_default().into();
        let (service, complaints) = judge_held(&key, &Sourced { object, source: Place::default() }, scope);
        Self { key: ServiceKey::from(&key), uid, service: service.map(Box::new), complaints }
    }
}

impl SeenSlice {
    /// What an EndpointSlice means.
    pub fn new(slice: &EndpointSlice) -> Self {
        Self {
            namespace: slice.metadata.namespace.clone().unwrap_or_default().into(),
            name: slice.metadata.name.clone().unwrap_or_default().into(),
            service: service_of(slice).map(|service| service.name.into()),
            serving: ServingEndpoints::of(slice),
        }
    }
}
