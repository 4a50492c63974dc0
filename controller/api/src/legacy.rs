//! The configuration of MetalLB 0.12 and older, a ConfigMap, as the custom resources that say the same.
//!
//! The result is that of MetalLB's own converter, object by object and name by name. What cannot be carried over is an
//! error that names its line, and does not stop the rest; MetalLB's converter is silent about it.

mod duration;
mod fields;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::manifests::SYSTEM_NAMESPACE;
use crate::problem::{FieldPath, Problem};
use crate::schema::closest;
use crate::tree::{self, Lines, Tree};
pub use duration::go_duration;
use fields::{ADVERTISEMENT, BFD_PROFILE, Kept, PEER, POOL, ROOT, SELECTOR, Table};

/// The custom resources that say what a ConfigMap says, in the order in which MetalLB's converter writes them. `file` is
/// named in problems. The text is a ConfigMap, or what its key `config` holds.
pub fn convert(file: &str, text: &str) -> (Vec<Value>, Vec<Problem>) {
    let mut converter =
        Converter { file, namespace: SYSTEM_NAMESPACE.to_owned(), lines: Lines::default(), problems: vec![] };
    let objects = converter.text(text);
    (objects, converter.problems)
}

/// The objects as one YAML stream.
///
/// # Errors
///
/// When a text cannot be written as YAML.
pub fn render(objects: &[Value]) -> Result<String, serde_saphyr::ser::Error> {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        text.push_str(serde_saphyr::to_string(object)?.trim_end());
        text.push('\n');
    }
    Ok(text)
}

struct Converter<'a> {
    file: &'a str,
    namespace: String,
    /// The lines of the configuration.
    lines: Lines,
    problems: Vec<Problem>,
}

impl Converter<'_> {
    fn text(&mut self, text: &str) -> Vec<Value> {
        let Some(tree) = self.parse(text, 0) else { return vec![] };
        let kind = tree.value.get("kind").and_then(Value::as_str);
        let config = match kind {
            None => Some(tree),
            Some("ConfigMap") => self.config_of(&tree),
            Some(kind) => {
                let problem = Problem::error("is not a ConfigMap").at(FieldPath::of(["kind"])).value(kind);
                self.lines = tree.lines;
                self.complain(problem.mend("name the file that holds the ConfigMap config of metallb-system"));
                None
            }
        };
        let Some(Tree { value: Value::Object(config), lines }) = config else { return vec![] };
        self.lines = lines;
        self.config(&config)
    }

    /// The configuration inside a ConfigMap, with its lines in the file.
    fn config_of(&mut self, tree: &Tree) -> Option<Tree> {
        if let Some(namespace) = tree.value.pointer("/metadata/namespace").and_then(Value::as_str) {
            namespace.clone_into(&mut self.namespace);
        }
        self.lines.clone_from(&tree.lines);
        let field = FieldPath::of(["data", "config"]);
        let Some(text) = tree.value.pointer("/data/config").and_then(Value::as_str) else {
            self.complain(Problem::error("is missing; the ConfigMap holds no configuration").at(field));
            return None;
        };
        // The line of a text is that of its first character, also where it is a block.
        self.parse(text, tree.lines.line_of(&field).saturating_sub(1))
    }

    fn parse(&mut self, text: &str, lines_before: u32) -> Option<Tree> {
        match tree::parse(text, lines_before) {
            Ok(tree) => Some(tree),
            Err(error) => {
                let problem = Problem::error(format!("is not YAML: {}", error.text));
                self.problems.push(Problem { line: Some(error.line), ..problem.in_file(self.file.into()) });
                None
            }
        }
    }

    fn config(&mut self, config: &Map<String, Value>) -> Vec<Value> {
        // Nothing of the root is carried over as it is; this finds what nobody knows.
        drop(self.fields(config, &FieldPath::default(), ROOT));
        let peers = self.each(config, "peers", Self::peer);
        let pools = self.each(config, "address-pools", Self::pool);
        let bfd = self.each(config, "bfd-profiles", Self::bfd_profile);
        let (pools, announced): (Vec<Value>, Vec<Announced>) = pools.into_iter().flatten().unzip();
        let mut objects: Vec<Value> = Vec::new();
        for (peer, number) in peers.into_iter().zip(1..) {
            objects.push(self.object("v1beta2", "BGPPeer", &format!("peer{number}"), peer));
        }
        objects.extend(pools);
        let by_bgp = announced.iter().flat_map(|pool| pool.by_bgp.iter().map(|spec| (&pool.name, spec.clone())));
        for ((pool, mut spec), number) in by_bgp.zip(1..) {
            spec.insert("ipAddressPools".to_owned(), json!([pool]));
            objects.push(self.object("v1beta1", "BGPAdvertisement", &format!("bgpadvertisement{number}"), spec));
        }
        for (pool, number) in announced.iter().filter(|pool| pool.by_layer2).zip(1..) {
            let spec = Map::from_iter([("ipAddressPools".to_owned(), json!([pool.name]))]);
            objects.push(self.object("v1beta1", "L2Advertisement", &format!("l2advertisement{number}"), spec));
        }
        objects.extend(bfd.into_iter().flatten());
        objects.extend(self.communities(config));
        self.distinct(&objects);
        objects
    }

    fn pool(&mut self, pool: &Map<String, Value>, at: &FieldPath) -> Option<(Value, Announced)> {
        let mut spec = self.fields(pool, at, POOL);
        let name = self.name(pool, at)?;
        let advertisements = self.each_of(pool, at, "bgp-advertisements", |converter, advertisement, at| {
            converter.fields(advertisement, at, ADVERTISEMENT)
        });
        let mut announced = Announced { name: name.clone(), by_bgp: advertisements, by_layer2: false };
        match pool.get("protocol").and_then(Value::as_str) {
            Some("layer2") => announced.by_layer2 = true,
            Some("bgp") if announced.by_bgp.is_empty() => announced.by_bgp.push(Map::new()),
            Some("bgp") => {}
            other => {
                let problem = Problem::error("is not a protocol, so the pool is announced by nobody");
                let problem = problem.at(at.key("protocol")).value(other.unwrap_or_default());
                self.complain(problem.mend("write layer2 or bgp, or an L2Advertisement for the pool"));
            }
        }
        if spec.get("avoidBuggyIPs") == Some(&Value::Bool(false)) {
            spec.remove("avoidBuggyIPs");
        }
        Some((self.object("v1beta1", "IPAddressPool", &name, spec), announced))
    }

    fn peer(&mut self, peer: &Map<String, Value>, at: &FieldPath) -> Map<String, Value> {
        let mut spec = self.fields(peer, at, PEER);
        // What MetalLB took when nothing was written.
        spec.entry("holdTime").or_insert_with(|| json!("90s"));
        for name in ["holdTime", "keepaliveTime"] {
            let Some(text) = spec.get(name).and_then(Value::as_str).map(str::to_owned) else { continue };
            match duration::whole_seconds(&text) {
                Ok(canonical) => drop(spec.insert(name.to_owned(), json!(canonical))),
                Err(error) => {
                    spec.remove(name);
                    let old = if name == "holdTime" { "hold-time" } else { "keepalive-time" };
                    self.complain(Problem::error(error.to_string()).at(at.key(old)).value(text));
                }
            }
        }
        let profile = spec.get("bfdProfile").and_then(Value::as_str).and_then(kubernetes_name);
        if let Some(profile) = profile {
            spec.insert("bfdProfile".to_owned(), json!(profile));
        }
        let selectors = self
            .each_of(peer, at, "node-selectors", |converter, selector, at| converter.fields(selector, at, SELECTOR));
        if !selectors.is_empty() {
            spec.insert("nodeSelectors".to_owned(), json!(selectors));
        }
        spec.retain(|name, value| name != "ebgpMultiHop" || *value == Value::Bool(true));
        spec
    }

    fn bfd_profile(&mut self, profile: &Map<String, Value>, at: &FieldPath) -> Option<Value> {
        let mut spec = self.fields(profile, at, BFD_PROFILE);
        let name = self.name(profile, at)?;
        for mode in ["echoMode", "passiveMode"] {
            spec.entry(mode).or_insert(Value::Bool(false));
        }
        Some(self.object("v1beta1", "BFDProfile", &name, spec))
    }

    fn communities(&self, config: &Map<String, Value>) -> Option<Value> {
        let aliases = config.get("bgp-communities")?.as_object().filter(|all| !all.is_empty())?;
        let sorted: BTreeMap<&String, &Value> = aliases.iter().collect();
        let aliases: Vec<Value> = sorted.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let spec = Map::from_iter([("communities".to_owned(), json!(aliases))]);
        Some(self.object("v1beta1", "Community", "communities", spec))
    }

    fn object(&self, version: &str, kind: &str, name: &str, spec: Map<String, Value>) -> Value {
        json!({
            "apiVersion": format!("metallb.io/{version}"),
            "kind": kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        })
    }

    /// The name that Kubernetes takes for the object at `at`.
    fn name(&mut self, of: &Map<String, Value>, at: &FieldPath) -> Option<String> {
        let written = of.get("name").and_then(Value::as_str).unwrap_or_default();
        let Some(name) = kubernetes_name(written) else {
            let problem = Problem::error("is no name and cannot be made one; the object is left out");
            self.complain(problem.at(at.key("name")).value(written).mend("write a name with a letter in it"));
            return None;
        };
        if name != written {
            let problem = Problem::note(format!("is called {name} from here on")).at(at.key("name")).value(written);
            self.complain(problem.mend("write that name into the annotations that name it"));
        }
        Some(name)
    }

    /// The fields of `value` under their names of today. Those that nobody knows are reported.
    fn fields(&mut self, value: &Map<String, Value>, at: &FieldPath, table: Table) -> Map<String, Value> {
        let mut carried = Map::new();
        for (name, value) in value {
            let Some((_, kept)) = table.0.iter().find(|(old, _)| old == name) else {
                let problem = Problem::error("is not a field of the old configuration and is not carried over");
                let problem = problem.at(at.key(name));
                let known = table.0.iter().map(|(old, _)| *old);
                self.complain(match closest(name, known) {
                    Some(meant) => problem.mend(format!("did you mean {meant}?")),
                    None => problem,
                });
                continue;
            };
            match kept {
                Kept::Elsewhere => {}
                Kept::As(name, shape) if shape.fits(value) => drop(carried.insert((*name).to_owned(), value.clone())),
                Kept::As(_, shape) => {
                    let problem = Problem::error(format!("is not {shape} and is not carried over"));
                    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    self.complain(problem.at(at.key(name)).value(shown));
                }
            }
        }
        carried
    }

    fn each<T>(
        &mut self,
        of: &Map<String, Value>,
        name: &str,
        read: impl FnMut(&mut Self, &Map<String, Value>, &FieldPath) -> T,
    ) -> Vec<T> {
        self.each_of(of, &FieldPath::default(), name, read)
    }

    /// Reads every item of a list of mappings.
    fn each_of<T>(
        &mut self,
        of: &Map<String, Value>,
        at: &FieldPath,
        name: &str,
        mut read: impl FnMut(&mut Self, &Map<String, Value>, &FieldPath) -> T,
    ) -> Vec<T> {
        let at = at.key(name);
        let Some(list) = of.get(name) else { return vec![] };
        let Some(items) = list.as_array() else {
            self.complain(Problem::error("is not a list and is not carried over").at(at));
            return vec![];
        };
        let mut all = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let at = at.index(index);
            match item.as_object() {
                Some(item) => all.push(read(self, item, &at)),
                None => self.complain(Problem::error("is not a mapping and is not carried over").at(at)),
            }
        }
        all
    }

    /// Complains of names that have become equal.
    fn distinct(&mut self, objects: &[Value]) {
        let name = |object: &Value| (object.get("kind").cloned(), object.pointer("/metadata/name").cloned());
        for (at, object) in objects.iter().enumerate() {
            if objects.iter().take(at).any(|earlier| name(earlier) == name(object)) {
                let (kind, name) = name(object);
                let word = |value: Option<Value>| value.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
                let problem = Problem::error("is there twice").of(format!("{} {}", word(kind), word(name)));
                self.complain(problem.mend("give one of the two another name"));
            }
        }
    }

    fn complain(&mut self, problem: Problem) {
        self.problems.push(self.lines.locate(problem, self.file.into()));
    }
}

/// How a pool is announced.
struct Announced {
    name: String,
    by_bgp: Vec<Map<String, Value>>,
    by_layer2: bool,
}

/// The name that MetalLB's converter makes of an old one: at most 63 bytes, lower case, with dashes, from the first
/// letter on. `None` when there is no letter.
fn kubernetes_name(written: &str) -> Option<String> {
    let cut: String = written
        .chars()
        .scan(0, |len, c| {
            *len += c.len_utf8();
            (*len <= MAX_NAME_BYTES).then_some(c)
        })
        .collect();
    let name = cut.to_lowercase().replace('_', "-");
    let first = name.find(|c: char| c.is_ascii_lowercase())?;
    name.get(first..).map(str::to_owned)
}

/// RFC 1123, section 2.1, as Kubernetes has it for most names.
const MAX_NAME_BYTES: usize = 63;

#[cfg(test)]
mod tests;
