//! What is linked into the program: the list of its crates for the SBOM, and the licence texts that must travel with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::root;

/// The crates that are linked into the image's program, in order of name and version.
pub(super) struct Crates(Vec<Linked>);

struct Linked {
    name: String,
    version: String,
    licence: String,
    directory: PathBuf,
    /// As in `Cargo.lock`; our own crates have none.
    sha256: Option<String>,
}

impl Crates {
    /// Asks cargo; build scripts, procedural macros and what only tests use are not linked.
    pub(super) fn linked(target: &str) -> Result<Self> {
        let tree = output(&[
            "tree",
            "--locked",
            "--package",
            "garpike",
            "--no-default-features",
            "--edges",
            "normal,no-proc-macro",
            "--target",
            target,
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])?;
        let names: BTreeSet<(&str, &str)> = tree.lines().filter_map(name_and_version).collect();
        let metadata = output(&["metadata", "--locked", "--format-version", "1"])?;
        let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata wrote no JSON")?;
        let lock = fs::read_to_string(root().join("Cargo.lock")).context("cannot read Cargo.lock")?;
        let checksums = checksums(&lock);

        let mut crates = Vec::new();
        let packages =
            metadata.get("packages").and_then(Value::as_array).context("cargo metadata names no packages")?;
        for package in packages {
            let text = |field: &str| package.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (name, version) = (text("name"), text("version"));
            if !names.contains(&(name.as_str(), version.as_str())) {
                continue;
            }
            let manifest = PathBuf::from(text("manifest_path"));
            let directory = manifest.parent().unwrap_or_else(|| Path::new("/")).to_owned();
            let sha256 = checksums.get(&(name.as_str(), version.as_str())).map(|sum| (*sum).to_owned());
            crates.push(Linked { name, version, licence: text("license").replace('/', " OR "), directory, sha256 });
        }
        if crates.len() != names.len() {
            bail!("cargo tree names {} crates, cargo metadata knows {} of them", names.len(), crates.len());
        }
        crates.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        Ok(Self(crates))
    }

    /// A list of them in the form of CycloneDX 1.5, without serial number and time: the same crates give the same bytes.
    pub(super) fn sbom(&self) -> Result<String> {
        let components: Vec<Value> = self.0.iter().filter(|linked| !linked.is_ours()).map(Linked::component).collect();
        let (name, version) = ("garpike", env!("CARGO_PKG_VERSION"));
        let sbom = json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": { "component": {
                "type": "application",
                "bom-ref": format!("pkg:cargo/{name}@{version}"),
                "name": name,
                "version": version,
                "purl": format!("pkg:cargo/{name}@{version}"),
                "licenses": [{ "expression": env!("CARGO_PKG_LICENSE") }],
            }},
            "components": components,
        });
        serde_json::to_string_pretty(&sbom).context("cannot write JSON")
    }

    /// Every distinct licence text once, below the names of the crates that it belongs to.
    pub(super) fn licences(&self) -> Result<String> {
        let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for linked in self.0.iter().filter(|linked| !linked.is_ours()) {
            for text in linked.texts()? {
                let name = format!("{} {} ({})", linked.name, linked.version, linked.licence);
                texts.entry(text).or_default().insert(name);
            }
        }
        for (name, text) in toolchain()? {
            texts.entry(text).or_default().insert(name);
        }
        let mut by_name: Vec<(BTreeSet<String>, String)> =
            texts.into_iter().map(|(text, names)| (names, text)).collect();
        by_name.sort();
        let mut all = String::from("What is linked into /garpike, and its licences. Sources: https://crates.io\n");
        for (names, text) in by_name {
            all.push_str(&format!("\n{}\n", "=".repeat(80)));
            for name in names {
                all.push_str(&format!("{name}\n"));
            }
            all.push_str(&format!("{}\n{}\n", "-".repeat(80), text.trim_end()));
        }
        Ok(all)
    }
}

impl Linked {
    fn is_ours(&self) -> bool {
        self.directory.starts_with(root())
    }

    fn component(&self) -> Value {
        let purl = format!("pkg:cargo/{}@{}", self.name, self.version);
        let hashes: Vec<Value> =
            self.sha256.iter().map(|sha256| json!({ "alg": "SHA-256", "content": sha256 })).collect();
        json!({
            "type": "library",
            "bom-ref": purl,
            "name": self.name,
            "version": self.version,
            "purl": purl,
            "licenses": [{ "expression": self.licence }],
            "hashes": hashes,
        })
    }

    /// The licence files of its package; where it ships none, the text of the licence that it names.
    fn texts(&self) -> Result<Vec<String>> {
        let entries =
            fs::read_dir(&self.directory).with_context(|| format!("cannot read {}", self.directory.display()))?;
        let mut paths = Vec::new();
        for entry in entries {
            let entry = entry.context("cannot read a directory")?;
            let name = entry.file_name().to_string_lossy().to_uppercase();
            let is_licence = LICENCE_FILES.iter().any(|start| name.starts_with(start));
            if is_licence && entry.path().is_file() {
                paths.push(entry.path());
            }
        }
        paths.sort();
        if paths.is_empty() {
            let licences = sysroot()?.join("share/doc/rust/licenses");
            let named = ["Apache-2.0", "MIT", "Unicode-3.0"].into_iter().find(|name| self.licence.contains(name));
            let Some(named) = named else {
                bail!("{} {} has no licence file, and {} is not at hand", self.name, self.version, self.licence);
            };
            paths.push(licences.join(format!("{named}.txt")));
        }
        paths.iter().map(|path| text(path)).collect()
    }
}

/// What the toolchain links in: the standard library and, where this system documents it, the C library.
fn toolchain() -> Result<Vec<(String, String)>> {
    let mut texts = vec![];
    for licence in ["Apache-2.0", "MIT"] {
        let path = sysroot()?.join(format!("share/doc/rust/licenses/{licence}.txt"));
        texts.push(("the Rust standard library (MIT OR Apache-2.0)".to_owned(), text(&path)?));
    }
    let glibc = Path::new("/usr/share/doc/libc6-dev/copyright");
    if glibc.is_file() {
        texts.push((
            "the GNU C library (LGPL-2.1-or-later), sources: https://sourceware.org/glibc".to_owned(),
            text(glibc)?,
        ));
    }
    Ok(texts)
}

fn sysroot() -> Result<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).current_dir(root()).output();
    let output = output.context("cannot run rustc")?;
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

fn text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).replace("\r\n", "\n"))
}

fn output(arguments: &[&str]) -> Result<String> {
    let output = Command::new("cargo").args(arguments).current_dir(root()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("cargo wrote no text")
}

/// Of a line such as `anyhow v1.0.100 (*)`.
fn name_and_version(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split(' ');
    words.next().zip(words.next()?.strip_prefix('v'))
}

/// The checksums in a lock file, by name and version.
fn checksums(lock: &str) -> BTreeMap<(&str, &str), &str> {
    let package = |block| {
        let value = |key: &str| -> Option<&str> {
            let line = str::lines(block).find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
            line.strip_suffix('"')
        };
        Some(((value("name")?, value("version")?), value("checksum")?))
    };
    lock.split("[[package]]").filter_map(package).collect()
}

/// How the names of files with a licence begin.
const LICENCE_FILES: [&str; 6] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_cargo_tree_are_read() {
        assert_eq!(name_and_version("anyhow v1.0.100 (*)"), Some(("anyhow", "1.0.100")));
        assert_eq!(name_and_version("garpike v0.1.0 (/somewhere)"), Some(("garpike", "0.1.0")));
        assert_eq!(name_and_version(""), None);
    }

    #[test]
    fn checksums_are_found_by_name_and_version() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"00ff\"\n\n\
                    [[package]]\nname = \"ours\"\nversion = \"0.1.0\"\n";

        assert_eq!(checksums(lock), BTreeMap::from([(("a", "1.0.0"), "00ff")]));
    }

    #[test]
    fn the_list_of_crates_names_what_is_linked_and_not_what_only_tests_use() {
        let crates = Crates::linked("x86_64-unknown-linux-gnu").unwrap();

        let sbom: Value = serde_json::from_str(&crates.sbom().unwrap()).unwrap();
        let names: BTreeSet<&str> =
            sbom["components"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
        assert!(names.contains("foca") && names.contains("tokio"), "{names:?}");
        assert!(!names.contains("proptest") && !names.contains("criterion") && !names.contains("serde_derive"));
        let licences = crates.licences().unwrap();
        assert!(licences.contains("foca 2.") && licences.contains("Mozilla Public License"));
    }
}
