//! `cargo xtask manifests`: deploy/manifests/garpike.yaml, the one file that people apply, and what chart and overlays share
//! with it.
//!
//! The one file is its parts one after another, in an order that a single `kubectl apply` can follow: the namespace first,
//! what needs something after what it needs. A chart can only read files inside it, so it has copies.

use std::fs;

use anyhow::{Context as _, Result};

use crate::{root, values};

/// Writes the files.
#[expect(clippy::print_stderr, reason = "it is a command line program")]
pub(crate) fn run() -> Result<()> {
    for (path, content) in written()? {
        fs::write(root().join(&path), content).with_context(|| format!("cannot write {path}"))?;
        eprintln!("xtask: wrote {path}");
    }
    Ok(())
}

/// Every file that is written, with its content.
fn written() -> Result<Vec<(String, String)>> {
    let mut files = vec![
        ("deploy/manifests/garpike.yaml".to_owned(), assemble()?),
        ("deploy/overlays/prometheus/rules.yaml".to_owned(), prometheus_rule(&read("deploy/prometheus/rules.yaml")?)),
        (format!("{CHART}/rules.yaml"), read("deploy/prometheus/rules.yaml")?),
        (format!("{CHART}/rbac.yaml"), read("deploy/manifests/rbac.yaml")?),
        (format!("{CHART}/dead-node-hint.yaml"), read("deploy/overlays/dead-node-hint/rbac.yaml")?),
        ("docs/helm-values.md".to_owned(), values::reference(&read("deploy/helm/garpike/values.yaml")?)),
    ];
    for path in crds()? {
        let name = path.rsplit('/').next().unwrap_or_default();
        files.push((format!("{CHART}/crds/{name}"), read(&path)?));
    }
    Ok(files)
}

/// Rules as an object of the Prometheus operator.
fn prometheus_rule(rules: &str) -> String {
    let rules: String = rules
        .lines()
        .skip_while(|line| *line != "groups:")
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") })
        .collect();
    format!(
        "# Written by \"cargo xtask manifests\" from deploy/prometheus/rules.yaml.\n\
         apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: garpike\n  \
         namespace: metallb-system\n  labels: {{app: metallb}}\nspec:\n{rules}"
    )
}

/// All parts, each an own document.
fn assemble() -> Result<String> {
    let mut all = String::from("# Written by \"cargo xtask manifests\" from the files beside it and deploy/crds.\n");
    let part = |name: &&str| format!("deploy/manifests/{name}");
    for path in BEFORE_CRDS.iter().map(part).chain(crds()?).chain(AFTER_CRDS.iter().map(part)) {
        let part = read(&path)?;
        let part = part.strip_prefix("# Written by \"cargo xtask crds\".\n").unwrap_or(&part);
        all.push_str("---\n");
        all.push_str(part.strip_prefix("---\n").unwrap_or(part));
    }
    Ok(all)
}

fn crds() -> Result<Vec<String>> {
    let mut crds = Vec::new();
    for name in names("deploy/crds")? {
        if name.ends_with(".yaml") {
            crds.push(format!("deploy/crds/{name}"));
        }
    }
    Ok(crds)
}

/// What a directory holds, sorted.
fn names(directory: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join(directory)).with_context(|| format!("cannot read {directory}"))? {
        names.push(entry.context("cannot read a directory")?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| format!("cannot read {path}"))
}

/// What the chart shares with the manifests.
const CHART: &str = "deploy/helm/garpike/files";
const BEFORE_CRDS: [&str; 1] = ["namespace.yaml"];
const AFTER_CRDS: [&str; 6] =
    ["rbac.yaml", "excludel2.yaml", "webhook.yaml", "networkpolicy.yaml", "controller.yaml", "speaker.yaml"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_up_to_date() {
        for (path, content) in written().unwrap() {
            assert!(read(&path).unwrap() == content, "{path}: run `cargo xtask manifests`");
        }
    }

    #[test]
    fn every_part_is_in_the_one_file() {
        let mut expected: Vec<&str> = BEFORE_CRDS.into_iter().chain(AFTER_CRDS).collect();
        expected.extend(["garpike.yaml", "kustomization.yaml"]);
        expected.sort_unstable();

        assert_eq!(names("deploy/manifests").unwrap(), expected);
    }

    #[test]
    fn the_chart_has_no_definition_that_is_gone() {
        assert_eq!(names("deploy/helm/garpike/files/crds").unwrap(), names("deploy/crds").unwrap());
    }

    #[test]
    fn every_pod_runs_the_image_of_this_version() {
        let all = assemble().unwrap();

        let images: Vec<&str> = all.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();

        assert_eq!(images, [crate::IMAGE; 2]);
    }
}
