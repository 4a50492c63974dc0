//! Whether a value has the shape of its kind, by the schema that is derived from the Rust types.
//!
//! Serde stops at the first wrong value and does not say where it is; this finds all of them, and unknown fields.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::problem::{FieldPath, Problem};
use crate::{IPAddressPool, L2Advertisement};

/// The schema of one kind.
pub(crate) struct Schema {
    root: Value,
    definitions: Map<String, Value>,
    unknown: UnknownFields,
}

/// What a field that is not in the schema means.
#[derive(Clone, Copy, Debug)]
enum UnknownFields {
    /// A slip of the pen.
    Warn,
    /// A field of a newer Kubernetes.
    Ignore,
}

pub(crate) static POOL: LazyLock<Schema> = LazyLock::new(|| Schema::new::<IPAddressPool>(UnknownFields::Warn));
pub(crate) static L2_ADVERTISEMENT: LazyLock<Schema> =
    LazyLock::new(|| Schema::new::<L2Advertisement>(UnknownFields::Warn));
pub(crate) static SERVICE: LazyLock<Schema> = LazyLock::new(|| Schema::new::<Service>(UnknownFields::Ignore));
pub(crate) static NODE: LazyLock<Schema> = LazyLock::new(|| Schema::new::<Node>(UnknownFields::Ignore));
pub(crate) static NAMESPACE: LazyLock<Schema> = LazyLock::new(|| Schema::new::<Namespace>(UnknownFields::Ignore));

impl Schema {
    fn new<T: JsonSchema>(unknown: UnknownFields) -> Self {
        let mut generator = SchemaGenerator::default();
        let root = generator.subschema_for::<T>().to_value();
        let metadata = generator.subschema_for::<ObjectMeta>().to_value();
        let definitions = generator.take_definitions(true);
        let mut schema = Self { root, definitions, unknown };
        // A derived custom resource leaves out what all objects have.
        let mut root = schema.resolve(&schema.root).clone();
        if let Some(properties) = root.get_mut("properties").and_then(Value::as_object_mut) {
            properties.insert("apiVersion".to_owned(), json!({"type": "string"}));
            properties.insert("kind".to_owned(), json!({"type": "string"}));
            properties.insert("metadata".to_owned(), metadata);
            properties.entry("status").or_insert_with(|| json!({}));
        }
        schema.root = root;
        schema
    }

    /// What is wrong with the shape of `value`; errors first to last as they stand in the schema's order of fields.
    pub(crate) fn check(&self, value: &Value) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.walk(&self.root, value, &FieldPath::default(), &mut problems);
        problems
    }

    fn walk(&self, schema: &Value, value: &Value, path: &FieldPath, problems: &mut Vec<Problem>) {
        let schema = self.resolve(schema);
        if let Some(types) = types(schema)
            && !types.iter().any(|name| has_type(value, name))
        {
            problems.push(wrong_type(&types, value).at(path.clone()));
            return;
        }
        if let Some(problem) = out_of_range(schema, value) {
            problems.push(problem.at(path.clone()));
        }
        match value {
            Value::Object(fields) => self.walk_object(schema, fields, path, problems),
            Value::Array(items) => {
                let Some(of) = schema.get("items") else { return };
                for (index, item) in items.iter().enumerate() {
                    self.walk(of, item, &path.index(index), problems);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn walk_object(&self, schema: &Value, fields: &Map<String, Value>, path: &FieldPath, problems: &mut Vec<Problem>) {
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                problems.push(Problem::error("is missing").at(path.key(name)));
            }
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        let additional = schema.get("additionalProperties").filter(|schema| schema.is_object());
        for (name, value) in fields {
            let path = path.key(name);
            if let Some(property) = properties.and_then(|properties| properties.get(name)) {
                self.walk(property, value, &path, problems);
            } else if let Some(additional) = additional {
                self.walk(additional, value, &path, problems);
            } else if let (Some(properties), UnknownFields::Warn) = (properties, self.unknown) {
                problems.push(unknown_field(name, properties.keys()).at(path));
            }
        }
    }

    /// Follows a reference, and the one alternative that is not `null`.
    fn resolve<'a>(&'a self, mut schema: &'a Value) -> &'a Value {
        for _ in 0..MAX_REFERENCES {
            let reference = schema.get("$ref").and_then(Value::as_str).and_then(|text| text.rsplit('/').next());
            let alternatives = schema.get("anyOf").and_then(Value::as_array);
            let next = match (reference, alternatives) {
                (Some(name), _) => self.definitions.get(name),
                (None, Some(any)) => any.iter().find(|schema| types(schema) != Some(BTreeSet::from(["null"]))),
                (None, None) => None,
            };
            match next {
                Some(next) => schema = next,
                None => break,
            }
        }
        schema
    }
}

/// The names of the types that `schema` allows; `None` when it allows all.
fn types(schema: &Value) -> Option<BTreeSet<&str>> {
    match schema.get("type")? {
        Value::String(name) => Some(BTreeSet::from([name.as_str()])),
        Value::Array(names) => Some(names.iter().filter_map(Value::as_str).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        // A type that JSON Schema does not know restricts nothing.
        _ => true,
    }
}

fn wrong_type(types: &BTreeSet<&str>, value: &Value) -> Problem {
    let name = types.iter().find(|name| **name != "null").copied().unwrap_or("null");
    let (text, mend) = match name {
        "object" => ("is not a mapping", "write fields of the form \"name: value\" below it"),
        "array" => ("is not a list", "write one \"- item\" line for each item below it"),
        "string" => ("is not a text", "put it in quotes"),
        "boolean" => ("is not true or false", "write true or false without quotes"),
        "integer" => ("is not a whole number", "write a number without quotes"),
        _ => ("has the wrong type", "see the reference of the kind"),
    };
    let problem = Problem::error(text).value(shown(value));
    match (name, value) {
        ("string", Value::Object(_) | Value::Array(_)) => problem.mend("write one text"),
        _ => problem.mend(mend),
    }
}

/// The value as people wrote it, structures cut short.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(_) => "{...}".to_owned(),
        Value::Array(_) => "[...]".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn out_of_range(schema: &Value, value: &Value) -> Option<Problem> {
    let number = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))?;
    let bound = |name: &str| schema.get(name).and_then(Value::as_i64).map(i128::from);
    let (lowest, highest) = match schema.get("format").and_then(Value::as_str) {
        Some("int32") => (i128::from(i32::MIN), i128::from(i32::MAX)),
        Some(_) | None => (i128::from(i64::MIN), i128::from(i64::MAX)),
    };
    let (lowest, highest) = (bound("minimum").unwrap_or(lowest), bound("maximum").unwrap_or(highest));
    if (lowest..=highest).contains(&number) {
        return None;
    }
    Some(Problem::error("is out of range").value(number).mend(format!("write a number from {lowest} to {highest}")))
}

fn unknown_field<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Problem {
    let problem = Problem::warning("is not a field of this kind and has no effect");
    match closest(name, known.map(String::as_str)) {
        Some(meant) => problem.mend(format!("did you mean {meant}?")),
        None => problem,
    }
}

/// The candidate that `text` is probably meant to be.
pub(crate) fn closest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > MAX_COMPARED_LEN {
        return None;
    }
    let text = text.to_lowercase();
    candidates
        .map(|candidate| (distance(&text, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= MAX_SLIPS.min(candidate.len() / 3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// The Levenshtein distance: how many characters must be put in, left out or changed.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, a) in a.chars().enumerate() {
        let mut left = at + 1;
        let mut next = vec![left];
        for ((b, diagonal), above) in b.iter().zip(&row).zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(a != *b)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// How many references are followed. Chosen: the schemas hold a reference to a definition at most.
const MAX_REFERENCES: usize = 8;

/// The longest word that is compared with the known ones. Chosen: no field's name is half as long.
const MAX_COMPARED_LEN: usize = 64;

/// How many slips of the pen a word may hold. Chosen: more makes the guess worse than none.
const MAX_SLIPS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_wrong_value_with_its_path() {
        let value = json!({
            "metadata": {"name": 1, "labels": {"a": true}},
            "spec": {
                "addresses": ["10.0.0.0/24", 5, {"from": "x"}],
                "autoAssign": "perhaps",
                "serviceAllocation": {"priority": "high", "serviceSelectors": [{"matchExpressions": [{"key": "a"}]}]},
            },
        });

        assert_eq!(
            lines(&POOL, &value),
            [
                "metadata.labels.a: \"true\" is not a text; put it in quotes",
                "metadata.name: \"1\" is not a text; put it in quotes",
                "spec.addresses[1]: \"5\" is not a text; put it in quotes",
                "spec.addresses[2]: \"{...}\" is not a text; write one text",
                "spec.autoAssign: \"perhaps\" is not true or false; write true or false without quotes",
                "spec.serviceAllocation.priority: \"high\" is not a whole number; write a number without quotes",
                "spec.serviceAllocation.serviceSelectors[0].matchExpressions[0].operator: is missing",
            ]
        );
    }

    #[test]
    fn guesses_what_an_unknown_field_was_meant_to_be() {
        let value = json!({"metadata": {}, "spec": {"addresses": [], "autoasign": true, "color": "red"}});

        assert_eq!(
            lines(&POOL, &value),
            [
                "spec.autoasign: is not a field of this kind and has no effect; did you mean autoAssign?",
                "spec.color: is not a field of this kind and has no effect",
            ]
        );
    }

    #[test]
    fn lets_services_have_fields_of_newer_kubernetes() {
        assert!(lines(&SERVICE, &json!({"metadata": {}, "spec": {"shinyNewField": 1}})).is_empty());
        assert_eq!(
            lines(&SERVICE, &json!({"metadata": {}, "spec": {"ports": [{"port": "http", "targetPort": "http"}]}})),
            ["spec.ports[0].port: \"http\" is not a whole number; write a number without quotes"]
        );
    }

    #[test]
    fn bounds_numbers() {
        let value = json!({"metadata": {}, "spec": {"preferredNodeSelectors": [{"weight": 101, "preference": {}}]}});

        assert_eq!(
            lines(&L2_ADVERTISEMENT, &value),
            ["spec.preferredNodeSelectors[0].weight: \"101\" is out of range; write a number from 1 to 100"]
        );
    }

    #[test]
    fn distances_are_those_of_levenshtein() {
        for (a, b, expected) in [("", "", 0), ("a", "", 1), ("kitten", "sitting", 3), ("abc", "abc", 0), ("", "ab", 2)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    fn lines(schema: &Schema, value: &Value) -> Vec<String> {
        schema.check(value).iter().map(ToString::to_string).collect()
    }
}
