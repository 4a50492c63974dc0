//! The file `garpike-overrides.yaml`: annotations of Nodes and Services that go before those in the users' own files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::SystemTime;

use garpike_controller_api::config::Config;
use garpike_controller_api::manifests::OVERRIDES_FILE;
use garpike_controller_api::{ChosenOwner, DRAIN_ANNOTATION, OWNER_ANNOTATION, ObjectKey, Objects};
use garpike_election::{NodeName, ServiceKey};
use serde::Serialize;
use thiserror::Error;

use crate::status_file::{self, UnwritableName, WriteError, Written};

/// What the file says.
#[derive(Debug)]
pub(super) struct Overrides {
    /// The value of the drain of each node.
    nodes: BTreeMap<String, String>,
    /// The value of the choice of an owner of each Service.
    services: BTreeMap<ServiceKey, String>,
}

impl Overrides {
    /// What the file says among `objects`.
    pub(super) fn read(objects: &Objects) -> Self {
        let nodes = objects.node_overrides.iter().filter_map(|(key, sourced)| {
            let value = sourced.object.annotations.as_ref()?.get(DRAIN_ANNOTATION)?;
            Some((key.name.clone(), value.clone()))
        });
        let services = objects.service_overrides.iter().filter_map(|(key, sourced)| {
            let value = sourced.object.annotations.as_ref()?.get(OWNER_ANNOTATION)?;
            Some((key.into(), value.clone()))
        });
        Self { nodes: nodes.collect(), services: services.collect() }
    }

    /// Removes what has no effect: choices that are over or whose Service is gone, and denials of what nobody says.
    pub(super) fn forget_the_past(&mut self, objects: &Objects, now: SystemTime) {
        self.services.retain(|service, value| match value.parse::<ChosenOwner>() {
            Ok(chosen) => chosen.until > now && objects.services.contains_key(&service.into()),
            Err(_) => chooses(objects, service, now),
        });
        self.nodes.retain(|node, value| value == "true" || drains(objects, node));
    }

    /// Drains a node that is not drained already.
    pub(super) fn drain(&mut self, node: &NodeName, config: &Config) {
        if !config.drained.contains_key(node) {
            self.nodes.insert(node.to_string(), "true".to_owned());
        }
    }

    /// Ends the drain of a node, also one that its own manifest asks for.
    pub(super) fn undrain(&mut self, node: &NodeName, objects: &Objects) {
        self.nodes.remove(node.as_str());
        if drains(objects, node.as_str()) {
            self.nodes.insert(node.to_string(), "false".to_owned());
        }
    }

    /// Chooses an owner for Services that share addresses, by the first of them.
    pub(super) fn choose(&mut self, services: &[ServiceKey], chosen: &ChosenOwner) {
        self.services.retain(|service, _| !services.contains(service));
        if let Some(oldest) = services.first() {
            self.services.insert(oldest.clone(), chosen.to_string());
        }
    }

    /// Ends the choice of an owner for Services that share addresses, also one that a Service's own manifest makes.
    pub(super) fn end_choice(&mut self, services: &[ServiceKey], objects: &Objects, now: SystemTime) {
        for service in services {
            self.services.remove(service);
            if chooses(objects, service, now) {
                self.services.insert(service.clone(), String::new());
            }
        }
    }

    /// Writes the file in `dir`, unless it says that already or there is nothing to say.
    pub(super) fn write(&self, dir: &Path) -> Result<Written, WriteOverridesError> {
        let path = dir.join(OVERRIDES_FILE);
        if self.nodes.is_empty() && self.services.is_empty() && !path.exists() {
            return Ok(Written::Unchanged);
        }
        Ok(status_file::write_file(dir, &path, &self.render()?)?)
    }

    fn render(&self) -> Result<String, UnwritableName> {
        let mut text = HEADER.to_owned();
        for (name, value) in &self.nodes {
            let metadata = Metadata { namespace: None, name, annotations: [(DRAIN_ANNOTATION, value)].into() };
            push(&mut text, "Node", metadata)?;
        }
        for (key, value) in &self.services {
            let (namespace, name) = (&*key.namespace, &*key.name);
            let annotations = [(OWNER_ANNOTATION, value)].into();
            push(&mut text, "Service", Metadata { namespace: Some(namespace), name, annotations })?;
        }
        Ok(text)
    }
}

/// Whether the users' own manifest of a node drains it.
fn drains(objects: &Objects, node: &str) -> bool {
    let key = ObjectKey { namespace: String::new(), name: node.to_owned() };
    let value =
        objects.nodes.get(&key).and_then(|node| node.object.metadata.annotations.as_ref()?.get(DRAIN_ANNOTATION));
    value.is_some_and(|value| value.trim() == "true")
}

/// Whether the users' own manifest of a Service chooses an owner that is still to own it.
fn chooses(objects: &Objects, service: &ServiceKey, now: SystemTime) -> bool {
    let service = objects.services.get(&service.into());
    let value = service.and_then(|service| service.object.metadata.annotations.as_ref()?.get(OWNER_ANNOTATION));
    value.and_then(|value| value.trim().parse().ok()).is_some_and(|chosen: ChosenOwner| chosen.until > now)
}

fn push(text: &mut String, kind: &str, metadata: Metadata<'_>) -> Result<(), UnwritableName> {
    let name = metadata.name.to_owned();
    let document = Document { api_version: "v1", kind, metadata };
    let yaml =
        serde_saphyr::to_string(&document).map_err(|error| UnwritableName { name, reason: error.to_string() })?;
    // Writing to a String cannot fail.
    let _ = write!(text, "---\n{}\n", yaml.trim_end());
    Ok(())
}

/// Why the file was not written.
#[derive(Debug, Error)]
pub enum WriteOverridesError {
    /// The name of an object cannot be written.
    #[error(transparent)]
    Name(#[from] UnwritableName),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

const HEADER: &str = "# Written by \"garpike drain\", \"undrain\" and \"move\"; edits are overwritten.
# Its annotations go before those in the other files of this directory. Copy it to the other hosts together with them.
";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    api_version: &'a str,
    kind: &'a str,
    metadata: Metadata<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    name: &'a str,
    annotations: BTreeMap<&'a str, &'a String>,
}
