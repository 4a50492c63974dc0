//! The drains and choices of owners, from the annotations of the objects and of the file of overrides.
//!
//! An object of that file that has an annotation decides, whatever the users' own object has there: also that there is no
//! drain (`"false"`) and no choice (`""`).

use std::collections::{BTreeMap, BTreeSet};

use garpike_election::NodeName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Complaints, Subject};
use crate::objects::{ObjectKey, Objects, Source, Sourced};
use crate::overrides::{ChosenOwner, DRAIN_ANNOTATION, OWNER_ANNOTATION};
use crate::problem::{FieldPath, Problem};

/// The nodes that are to be emptied, each with the place that says so.
pub(super) fn drained(objects: &Objects, problems: &mut Vec<Problem>) -> BTreeMap<NodeName, Source> {
    let mut drained = BTreeMap::new();
    let keys: BTreeSet<&ObjectKey> = objects.nodes.keys().chain(objects.node_overrides.keys()).collect();
    for key in keys {
        let own = objects.nodes.get(key).map(|node| (&node.object.metadata, &node.source));
        let Some((value, source)) = annotation(DRAIN_ANNOTATION, objects.node_overrides.get(key), own) else {
            continue;
        };
        let mut complaints = Complaints::new(Subject { kind: "Node", key }, source, problems);
        let at = FieldPath::annotation(DRAIN_ANNOTATION);
        match (value, NodeName::new(&key.name)) {
            ("true", Ok(name)) => {
                drained.insert(name, source.clone());
            }
            ("true", Err(error)) => {
                complaints.add(Problem::error(error.to_string()).at(FieldPath::of(["metadata", "name"])));
            }
            ("false" | "", _) => {}
            (other, _) => {
                let problem = Problem::error("is not a drain and has no effect").at(at).value(other);
                complaints.add(problem.mend("write \"true\", or remove the annotation"));
            }
        }
    }
    drained
}

/// The node that was chosen as owner of the addresses of a Service, whether or not the time of the choice is over.
pub(super) fn chosen_owner(
    key: &ObjectKey,
    metadata: &ObjectMeta,
    source: &Source,
    overriding: Option<&Sourced<ObjectMeta>>,
    problems: &mut Vec<Problem>,
) -> Option<Box<Sourced<ChosenOwner>>> {
    let written = annotation(OWNER_ANNOTATION, overriding, Some((metadata, source)));
    let (value, source) = written.filter(|(value, _)| !value.is_empty())?;
    match value.parse() {
        Ok(chosen) => Some(Box::new(Sourced { object: chosen, source: source.clone() })),
        Err(error) => {
            let problem = Problem::error(format!("{error}; it has no effect")).value(value);
            let problem = problem.at(FieldPath::annotation(OWNER_ANNOTATION));
            let problem = problem.mend("write NODE@TIME such as node-a@2030-12-31T23:59:59Z");
            Complaints::new(Subject { kind: "Service", key }, source, problems).add(problem);
            None
        }
    }
}

/// Complains of overrides of Services that are not there.
pub(super) fn without_a_service(objects: &Objects, problems: &mut Vec<Problem>) {
    for (key, Sourced { source, .. }) in &objects.service_overrides {
        if !objects.services.contains_key(key) {
            let mut complaints = Complaints::new(Subject { kind: "Service", key }, source, problems);
            let problem = Problem::note("is written nowhere else, so this has no effect");
            complaints.add(problem.mend("the next \"garpike move\" removes it"));
        }
    }
}

/// The annotation of that name without white space around it, and where it stands.
fn annotation<'a>(
    name: &str,
    overriding: Option<&'a Sourced<ObjectMeta>>,
    own: Option<(&'a ObjectMeta, &'a Source)>,
) -> Option<(&'a str, &'a Source)> {
    let overriding = overriding.map(|sourced| (&sourced.object, &sourced.source));
    overriding.into_iter().chain(own).find_map(|(metadata, source)| {
        let value = metadata.annotations.as_ref()?.get(name)?;
        Some((value.trim(), source))
    })
}
