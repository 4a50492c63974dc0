//! The objects of one file, one document after the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::kind::{Kind, Unread};
use super::{OVERRIDES_FILE, STATUS_FILE, SYSTEM_NAMESPACE};
use crate::objects::{self, ObjectKey, Objects, Source, Sourced};
use crate::problem::{FieldPath, Problem, Severity};
use crate::schema::{self, Schema};
use crate::tree::{self, Lines, Tree};

/// Collects the objects of one file.
pub(super) struct Reader {
    pub(super) file: Arc<str>,
    pub(super) objects: Objects,
    pub(super) problems: Vec<Problem>,
}

impl Reader {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.into(), objects: Objects::default(), problems: Vec::new() }
    }

    pub(super) fn document(&mut self, document: &str, lines_before: u32) {
        match tree::parse(document, lines_before) {
            Ok(Tree { value: Value::Null, .. }) => {}
            Ok(tree) => self.object(tree),
            Err(error) => {
                let problem = Problem::error(format!("is not YAML: {}", error.text));
                let problem = Problem { line: Some(error.line), ..problem };
                self.problems.push(problem.in_file(self.file.clone()));
            }
        }
    }

    fn object(&mut self, tree: Tree) {
        let text = |pointer: &str| tree.value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let (Some(version), Some(kind)) = (text("/apiVersion"), text("/kind")) else {
            let problem = Problem::error("is not a Kubernetes object: apiVersion or kind is missing");
            return self.complain(problem, &tree.lines);
        };
        let namespace = text("/metadata/namespace");
        let name = text("/metadata/name");
        match Kind::of(&version, &kind, namespace.as_deref(), name.as_deref()) {
            // Some kinds end in "List" and are none.
            Kind::List if kind != "List" && tree.value.get("items").is_none() => {
                let object = format!("{kind} {}", ObjectKey::shown(namespace, name));
                self.complain(Unread::Foreign.problem(&version).of(object), &tree.lines);
            }
            Kind::List => self.list(tree),
            Kind::Service if &*self.file == OVERRIDES_FILE => {
                let service = self.read(tree, &kind, Some("default"), &schema::SERVICE);
                let metadata = service.map(|(key, sourced)| (key, sourced.map(|service: Service| service.metadata)));
                self.insert(metadata, |objects| &mut objects.service_overrides, &kind);
            }
            Kind::Node if &*self.file == OVERRIDES_FILE => {
                let node = self.read(tree, &kind, None, &schema::NODE);
                let metadata = node.map(|(key, sourced)| (key, sourced.map(|node: Node| node.metadata)));
                self.insert(metadata, |objects| &mut objects.node_overrides, &kind);
            }
            Kind::Pool | Kind::Advertisement | Kind::Namespace | Kind::Unread(_) if &*self.file == OVERRIDES_FILE => {
                let problem =
                    Problem::warning("has no effect in this file, which is rewritten by garpike drain and move");
                let object = format!("{kind} {}", ObjectKey::shown(namespace, name));
                self.complain(problem.of(object).mend("move it to another file"), &tree.lines);
            }
            Kind::Pool => {
                let tree = without_status(tree);
                let sourced = self.read(tree, &kind, Some(SYSTEM_NAMESPACE), &schema::POOL);
                self.insert(sourced, |objects| &mut objects.pools, &kind);
            }
            Kind::Advertisement => {
                let tree = with_spec(without_status(tree));
                let sourced = self.read(tree, &kind, Some(SYSTEM_NAMESPACE), &schema::L2_ADVERTISEMENT);
                self.insert(sourced, |objects| &mut objects.advertisements, &kind);
            }
            Kind::Service if &*self.file == STATUS_FILE => self.status(tree),
            Kind::Service => {
                let sourced = self.read(tree, &kind, Some("default"), &schema::SERVICE);
                self.insert(sourced, |objects| &mut objects.services, &kind);
            }
            Kind::Node => {
                let sourced = self.read(tree, &kind, None, &schema::NODE);
                self.insert(sourced, |objects| &mut objects.nodes, &kind);
            }
            Kind::Namespace => {
                let sourced = self.read(tree, &kind, None, &schema::NAMESPACE);
                self.insert(sourced, |objects| &mut objects.namespaces, &kind);
            }
            Kind::Unread(unread) => {
                let object = format!("{kind} {}", ObjectKey::shown(namespace, name));
                self.complain(unread.problem(&version).of(object), &tree.lines);
            }
        }
    }

    fn list(&mut self, mut tree: Tree) {
        let items = tree.value.get_mut("items").map(Value::take);
        let Some(Value::Array(values)) = items else {
            let problem = Problem::error("is not a list; write \"items: []\" for an empty one");
            return self.complain(problem.at(FieldPath::of(["items"])), &tree.lines);
        };
        let lines = tree.lines.take("items").into_items();
        for (value, lines) in values.into_iter().zip(lines) {
            self.object(Tree { value, lines });
        }
    }

    fn status(&mut self, tree: Tree) {
        let service = self.read(tree, "Service", Some("default"), &schema::SERVICE);
        let status =
            service.map(|(key, sourced)| (key, sourced.map(|service: Service| service.status.unwrap_or_default())));
        self.insert(status, |objects| &mut objects.statuses, "Service");
    }

    /// Checks the shape of an object; `None` when it is wrong.
    fn read<T: DeserializeOwned>(
        &mut self,
        tree: Tree,
        kind: &str,
        default_namespace: Option<&str>,
        schema: &Schema,
    ) -> Option<(ObjectKey, Sourced<T>)> {
        let Tree { value, lines } = tree;
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let name = text("/metadata/name").filter(|name| !name.is_empty());
        let namespace =
            default_namespace.map(|default| text("/metadata/namespace").unwrap_or_else(|| default.to_owned()));
        let object = format!("{kind} {}", ObjectKey::shown(namespace.clone(), name.clone()));
        let mut findings = schema.check(&value);
        if name.is_none() && !findings.iter().any(|finding| finding.field == Some(FieldPath::of(["metadata", "name"])))
        {
            findings.push(Problem::error("is missing").at(FieldPath::of(["metadata", "name"])));
        }
        let broken = findings.iter().any(|finding| finding.severity == Severity::Error);
        for finding in findings {
            self.complain(finding.of(&object), &lines);
        }
        let key = ObjectKey { namespace: namespace.unwrap_or_default(), name: name.filter(|_| !broken)? };
        match serde_json::from_value(value) {
            Ok(parsed) => Some((key, Sourced { object: parsed, source: Source::new(self.file.clone(), lines) })),
            Err(error) => {
                self.complain(Problem::error(error.to_string()).of(&object), &lines);
                None
            }
        }
    }

    fn insert<T>(
        &mut self,
        sourced: Option<(ObjectKey, Sourced<T>)>,
        of_kind: impl FnOnce(&mut Objects) -> &mut BTreeMap<ObjectKey, Sourced<T>>,
        kind: &str,
    ) {
        let Some((key, sourced)) = sourced else { return };
        self.problems.extend(objects::insert(of_kind(&mut self.objects), key, sourced, kind));
    }

    fn complain(&mut self, problem: Problem, lines: &Lines) {
        self.problems.push(lines.locate(problem, self.file.clone()));
    }
}

/// What a controller once reported is not what somebody wrote, and may be of any shape.
fn without_status(mut tree: Tree) -> Tree {
    if let Value::Object(fields) = &mut tree.value {
        fields.remove("status");
    }
    tree
}

/// An advertisement without `spec` means the same as one with an empty one.
fn with_spec(mut tree: Tree) -> Tree {
    if let Value::Object(fields) = &mut tree.value {
        fields.entry("spec").or_insert_with(|| Value::Object(Map::new()));
    }
    tree
}
