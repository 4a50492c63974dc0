//! `cargo xtask manifests`: deploy/manifests/garpike.yaml, the one file that people apply.
//!
//! It is its parts one after another, in an order that a single `kubectl apply` can follow: the namespace first, what needs
//! something after what it needs.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::root;

/// Writes the file.
#[expect(clippy::print_stderr, reason = "it is a command line program")]
pub(crate) fn run() -> Result<()> {
    let path = root().join(ASSEMBLED);
    fs::write(&path, assemble()?).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("xtask: wrote {ASSEMBLED}");
    Ok(())
}

/// All parts, each an own document.
fn assemble() -> Result<String> {
    let mut all = String::from("# Written by \"cargo xtask manifests\" from the files beside it and deploy/crds.\n");
    for path in parts()? {
        let part = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let part = part.strip_prefix("# Written by \"cargo xtask crds\".\n").unwrap_or(&part);
        all.push_str("---\n");
        all.push_str(part.strip_prefix("---\n").unwrap_or(part));
    }
    Ok(all)
}

fn parts() -> Result<Vec<PathBuf>> {
    let directory = root().join("deploy/crds");
    let mut crds = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry.context("cannot read a directory")?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            crds.push(path);
        }
    }
    crds.sort();
    let part = |name: &&str| root().join("deploy/manifests").join(name);
    Ok(BEFORE_CRDS.iter().map(part).chain(crds).chain(AFTER_CRDS.iter().map(part)).collect())
}

const ASSEMBLED: &str = "deploy/manifests/garpike.yaml";
const BEFORE_CRDS: [&str; 1] = ["namespace.yaml"];
const AFTER_CRDS: [&str; 6] =
    ["rbac.yaml", "excludel2.yaml", "webhook.yaml", "networkpolicy.yaml", "controller.yaml", "speaker.yaml"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_people_apply_is_up_to_date() {
        let written = fs::read_to_string(root().join(ASSEMBLED)).unwrap();

        assert!(written == assemble().unwrap(), "run `cargo xtask manifests`");
    }

    #[test]
    fn every_part_is_in_it() {
        let mut found: Vec<String> = Vec::new();
        for entry in fs::read_dir(root().join("deploy/manifests")).unwrap() {
            found.push(entry.unwrap().file_name().into_string().unwrap());
        }
        found.sort();

        let mut expected: Vec<&str> = BEFORE_CRDS.into_iter().chain(AFTER_CRDS).collect();
        expected.extend(["garpike.yaml", "kustomization.yaml"]);
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn every_pod_runs_the_image_of_this_version() {
        let all = assemble().unwrap();

        let images: Vec<&str> = all.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();

        assert_eq!(images, [crate::IMAGE; 2]);
    }
}
