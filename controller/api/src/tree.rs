//! YAML text as values, with the line of each.
//!
//! A document is parsed within a budget, so that no text, however nested or full of aliases, costs more than its
//! size allows. `null` counts as absent, as for the Kubernetes API.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::{Options, Spanned};

use crate::problem::{FieldPath, Problem, Step};

/// A value and where its parts stand.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) value: Value,
    pub(crate) lines: Lines,
}

/// The line of a value and of everything inside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    line: u32,
    inside: Inside,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Inside {
    #[default]
    Nothing,
    Sequence(Vec<Lines>),
    Mapping(BTreeMap<String, Lines>),
}

impl Lines {
    /// Names `file`, and in it the line of the field of `problem`.
    pub(crate) fn locate(&self, problem: Problem, file: Arc<str>) -> Problem {
        let line = problem.field.as_ref().map_or(self.line, |field| self.line_of(field));
        Problem { line: Some(line), ..problem.in_file(file) }
    }

    /// The line of `path`, or of the part of it that exists.
    pub(crate) fn line_of(&self, path: &FieldPath) -> u32 {
        let mut at = self;
        for step in path.steps() {
            match at.inside(step) {
                Some(inner) => at = inner,
                None => break,
            }
        }
        at.line
    }

    pub(crate) fn line(&self) -> u32 {
        self.line
    }

    /// The items of a sequence.
    pub(crate) fn into_items(self) -> Vec<Self> {
        match self.inside {
            Inside::Sequence(items) => items,
            Inside::Nothing | Inside::Mapping(_) => Vec::new(),
        }
    }

    /// Takes out what stands at `key`.
    pub(crate) fn take(&mut self, key: &str) -> Self {
        match &mut self.inside {
            Inside::Mapping(map) => map.remove(key).unwrap_or_default(),
            Inside::Nothing | Inside::Sequence(_) => Self::default(),
        }
    }

    fn inside(&self, step: &Step) -> Option<&Self> {
        match (&self.inside, step) {
            (Inside::Sequence(items), Step::Index(index)) => items.get(*index),
            (Inside::Mapping(map), Step::Key(key)) => map.get(key),
            (Inside::Nothing | Inside::Mapping(_), Step::Index(_))
            | (Inside::Nothing | Inside::Sequence(_), Step::Key(_)) => None,
        }
    }

    fn shift(&mut self, by: u32) {
        self.line = self.line.saturating_add(by);
        match &mut self.inside {
            Inside::Nothing => {}
            Inside::Sequence(items) => items.iter_mut().for_each(|item| item.shift(by)),
            Inside::Mapping(map) => map.values_mut().for_each(|item| item.shift(by)),
        }
    }
}

/// A document that is not YAML.
#[derive(Debug)]
pub(crate) struct NotYaml {
    pub(crate) line: u32,
    pub(crate) text: String,
}

/// Parses one document that begins after `lines_before` lines of its file.
pub(crate) fn parse(document: &str, lines_before: u32) -> Result<Tree, NotYaml> {
    let parsed: Result<Spanned<Node>, _> = serde_saphyr::from_str_with_options(document, options());
    match parsed {
        Ok(node) => {
            let mut tree = Node::tree(node);
            tree.lines.shift(lines_before);
            Ok(tree)
        }
        Err(error) => {
            let line = error.location().map_or(1, |location| line(location.line()));
            Err(NotYaml { line: lines_before.saturating_add(line), text: reason(&error) })
        }
    }
}

/// The first line of the parser's message, without its position and its advice to programmers.
fn reason(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let mut text = text.lines().next().unwrap_or_default();
    for end in [" at line ", ", set DuplicateKeyPolicy"] {
        text = text.split(end).next().unwrap_or(text);
    }
    text.to_owned()
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED,
        },
        with_snippet: false,
    }
}

fn line(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A value with the lines of its parts, as it comes from the parser.
struct Node {
    value: Value,
    inside: Inside,
}

impl Node {
    fn tree(spanned: Spanned<Self>) -> Tree {
        let Spanned { value: Self { value, inside }, referenced, .. } = spanned;
        Tree { value, lines: Lines { line: line(referenced.line()), inside } }
    }

    fn scalar(value: impl Into<Value>) -> Self {
        Self { value: value.into(), inside: Inside::Nothing }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::scalar(Value::Null))
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::scalar(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::scalar(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::scalar(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        Ok(Node::scalar(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::scalar(value))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Node, E> {
        Ok(Node::scalar(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let (mut values, mut lines) = (Vec::new(), Vec::new());
        while let Some(item) = access.next_element::<Spanned<Node>>()? {
            let tree = Node::tree(item);
            values.push(tree.value);
            lines.push(tree.lines);
        }
        Ok(Node { value: Value::Array(values), inside: Inside::Sequence(lines) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let (mut values, mut lines) = (Map::new(), BTreeMap::new());
        while let Some((key, item)) = access.next_entry::<String, Spanned<Node>>()? {
            let tree = Node::tree(item);
            if !tree.value.is_null() {
                values.insert(key.clone(), tree.value);
            }
            lines.insert(key, tree.lines);
        }
        Ok(Node { value: Value::Object(values), inside: Inside::Mapping(lines) })
    }
}

/// How deep a document may be nested. Chosen: Kubernetes objects are about ten levels deep.
const MAX_DEPTH: usize = 64;

/// How many values a document may hold. Chosen: a `List` of ten thousand Services has about half a million.
const MAX_NODES: usize = 1_000_000;

/// How many anchors and aliases a document may hold. Chosen: people write a handful.
const MAX_ALIASES: usize = 10_000;

/// How many parser events may come from aliases. Chosen: a tenth of [`MAX_NODES`], so that aliases of aliases stop early.
const MAX_REPLAYED: usize = 100_000;
