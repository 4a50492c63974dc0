//! From what people wrote to what it means: the one place that judges pools, advertisements, Services and nodes.
//!
//! An object with an error is left out whole and changes nothing for the others. The rules are those of MetalLB, with
//! the mixed-family range and the namespace selector that matches nothing (which opened a pool to everybody) mended.

mod advertisements;
mod communities;
mod overrides;
mod pools;
mod services;

use std::collections::BTreeMap;
use std::fmt;

use garpike_election::NodeName;
use k8s_openapi::api::core::v1::Node as NodeObject;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};

use crate::config::{Config, Exclusion, Node};
use crate::manifests::SYSTEM_NAMESPACE;
use crate::objects::{ObjectKey, Objects, Source, Sourced};
use crate::problem::{FieldPath, Problem, Severity};
use crate::{Labels, Selector};

pub use communities::{invalid_community, judge_community};
pub use services::{Claim, judge_held, judge_service};

/// Which objects are ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// The namespace whose pools and advertisements count.
    pub namespace: String,
    /// The `spec.loadBalancerClass` of our Services; `None`: those without one.
    pub load_balancer_class: Option<String>,
}

impl Default for Scope {
    fn default() -> Self {
        Self { namespace: SYSTEM_NAMESPACE.to_owned(), load_balancer_class: None }
    }
}

/// Judges all objects. Total and pure: equal objects give equal results.
pub fn validate(objects: &Objects, scope: &Scope) -> (Config, Vec<Problem>) {
    let mut problems = Vec::new();
    let namespaces = namespaces(objects);
    let pools = pools::validate(objects, scope, &namespaces, &mut problems);
    let nodes = nodes(objects, &mut problems);
    let advertisements = advertisements::validate(objects, scope, &pools, &nodes, &mut problems);
    communities::validate(objects, scope, &mut problems);
    let services = services::validate(objects, scope, &pools, &mut problems);
    let strays = services::strays(objects, &services, &mut problems);
    let drained = overrides::drained(objects, &mut problems);
    overrides::without_a_service(objects, &mut problems);
    (Config { pools, advertisements, services, nodes, drained, strays }, problems)
}

/// The labels of every namespace that is described or has a Service.
fn namespaces(objects: &Objects) -> BTreeMap<String, Labels> {
    let mut namespaces: BTreeMap<String, Labels> = BTreeMap::new();
    for (key, sourced) in &objects.namespaces {
        namespaces.insert(key.name.clone(), sourced.object.metadata.labels.clone().into());
    }
    for key in objects.services.keys() {
        namespaces.entry(key.namespace.clone()).or_default();
    }
    // The API server sets this label on every namespace.
    for (name, labels) in &mut namespaces {
        labels.0.insert("kubernetes.io/metadata.name".to_owned(), name.clone());
    }
    namespaces
}

fn nodes(objects: &Objects, problems: &mut Vec<Problem>) -> BTreeMap<NodeName, Node> {
    let mut nodes = BTreeMap::new();
    for (key, Sourced { object, source }) in &objects.nodes {
        let mut complaints = Complaints::new(Subject { kind: "Node", key }, source, problems);
        match NodeName::new(&key.name) {
            Ok(name) => {
                let labels = object.metadata.labels.clone().into();
                nodes.insert(name, Node { excluded: exclusion(object, &labels), labels });
            }
            Err(error) => complaints.add(Problem::error(error.to_string()).at(FieldPath::of(["metadata", "name"]))),
        }
    }
    nodes
}

fn exclusion(node: &NodeObject, labels: &Labels) -> Option<Exclusion> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    // The condition first: the label can be told to count for nothing.
    if conditions.iter().any(|condition| condition.type_ == "NetworkUnavailable" && condition.status == "True") {
        Some(Exclusion::NetworkUnavailable)
    } else if labels.value("node.kubernetes.io/exclude-from-external-load-balancers").is_some() {
        Some(Exclusion::Label)
    } else {
        None
    }
}

/// Kind and key of the object that is judged.
#[derive(Clone, Copy, Debug)]
struct Subject<'a> {
    kind: &'static str,
    key: &'a ObjectKey,
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.key)
    }
}

/// Collects the problems of one object.
struct Complaints<'a> {
    subject: Subject<'a>,
    source: &'a Source,
    problems: &'a mut Vec<Problem>,
    worst: Option<Severity>,
}

impl<'a> Complaints<'a> {
    fn new(subject: Subject<'a>, source: &'a Source, problems: &'a mut Vec<Problem>) -> Self {
        Self { subject, source, problems, worst: None }
    }

    fn add(&mut self, problem: Problem) {
        self.worst = self.worst.max(Some(problem.severity));
        self.problems.push(self.source.locate(problem).of(self.subject));
    }

    /// Whether the object must be left out.
    fn any_error(&self) -> bool {
        self.worst == Some(Severity::Error)
    }

    /// Reads selectors; each must be right and there once.
    fn selectors(&mut self, field: &FieldPath, selectors: &[LabelSelector]) -> Vec<Selector> {
        let mut read: Vec<Selector> = Vec::new();
        for (index, selector) in selectors.iter().enumerate() {
            match Selector::new(selector) {
                Ok(selector) if read.contains(&selector) => {
                    let text = format!("selects \"{selector}\" a second time");
                    self.add(Problem::error(text).at(field.index(index)).mend("remove one of the two"));
                }
                Ok(selector) => read.push(selector),
                Err(error) => self.add(Problem::error(error.to_string()).at(field.index(index))),
            }
        }
        read
    }

    /// Checks that no name is there twice.
    fn distinct(&mut self, field: &FieldPath, names: &[String]) {
        for (index, name) in names.iter().enumerate() {
            if names.iter().take(index).any(|earlier| earlier == name) {
                let problem = Problem::error("is there twice").at(field.index(index)).value(name);
                self.add(problem.mend("remove one of the two"));
            }
        }
    }

    /// Whether the object is in the namespace that counts.
    fn in_scope(&mut self, scope: &Scope) -> bool {
        let ours = self.subject.key.namespace == scope.namespace;
        if !ours {
            let field = FieldPath::of(["metadata", "namespace"]);
            let problem = Problem::warning("is not the namespace that counts; the object has no effect");
            let problem = problem.at(field).value(&self.subject.key.namespace);
            self.add(problem.mend(format!("write {}", scope.namespace)));
        }
        ours
    }
}

#[cfg(test)]
mod tests;
