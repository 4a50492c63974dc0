//! Writes the definitions of the custom resources as YAML, or the facts of MetalLB's for the test that compares the two.
//!
//! `crds write DIR` writes one file for each definition. `crds facts DIR FILE` reads the definitions in DIR (MetalLB's
//! `config/crd/bases`) and writes them to FILE as JSON, without their texts.

use std::error::Error;
use std::path::Path;

use garpike_controller_api::definitions;
use serde_json::{Map, Value};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["write", dir] => write(Path::new(dir)),
        ["facts", dir, file] => facts(Path::new(dir), Path::new(file)),
        _ => Err("usage: crds write DIR | crds facts DIR FILE".into()),
    }
}

fn write(dir: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(dir)?;
    for (name, definition) in definitions() {
        let text =
            format!("# Written by \"cargo xtask crds\".\n---\n{}\n", serde_saphyr::to_string(&definition)?.trim_end());
        std::fs::write(dir.join(format!("{name}.yaml")), text)?;
    }
    Ok(())
}

fn facts(dir: &Path, file: &Path) -> Result<(), Box<dyn Error>> {
    let mut all = Map::new();
    for entry in std::fs::read_dir(dir)? {
        let text = std::fs::read_to_string(entry?.path())?;
        let mut crd: Value = serde_saphyr::from_str(&text)?;
        let name = crd.pointer("/metadata/name").and_then(Value::as_str).ok_or("a definition has no name")?.to_owned();
        without_texts(&mut crd, "");
        all.insert(name, crd);
    }
    std::fs::write(file, format!("{}\n", serde_json::to_string_pretty(&all)?))?;
    Ok(())
}

/// Takes the descriptions out of schemas; a field of that name stays.
fn without_texts(value: &mut Value, inside: &str) {
    match value {
        Value::Object(fields) => {
            if inside != "properties" {
                fields.remove("description");
                fields.remove("annotations");
            }
            fields.iter_mut().for_each(|(name, value)| without_texts(value, name));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| without_texts(item, "")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
