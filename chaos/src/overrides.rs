//! What an operator asks of the speakers in planned work, written where `garpike drain` and `garpike move` write it: a file,
//! or annotations of the objects.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use garpike_election::NodeName;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::api_host::ApiHost;
use crate::fleet::{Fleet, Wanted};
use crate::lab::now;
use crate::objects;

/// What is asked for; each takes the place of the one before.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish<'a> {
    /// This node should own nothing that another one can own.
    Drain(&'a NodeName),
    /// The probed Service should be at this node.
    Move(&'a NodeName),
    /// As the speakers choose.
    Nothing,
}

impl Fleet<'_> {
    /// Asks for it, and gives the instant just before.
    pub(crate) fn ask(&self, wish: Wish<'_>) -> Result<Instant> {
        let at = now();
        match &self.wanted {
            Wanted::Files { manifests } => in_file(&manifests.join("garpike-overrides.yaml"), wish)?,
            Wanted::Cluster { api, .. } => {
                let api = api.as_ref().context("the API server is dead: nobody can ask for anything")?;
                in_cluster(api, wish, self.nodes())?;
            }
        }
        Ok(at)
    }
}

fn in_file(file: &Path, wish: Wish<'_>) -> Result<()> {
    match wish {
        Wish::Drain(node) => replace(file, &drain(node)),
        Wish::Move(node) => replace(file, &move_to(node, expiry())),
        Wish::Nothing if file.exists() => {
            fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))
        }
        Wish::Nothing => Ok(()),
    }
}

fn in_cluster(api: &ApiHost, wish: Wish<'_>, nodes: Vec<NodeName>) -> Result<()> {
    let drained = match wish {
        Wish::Drain(node) => Some(node.clone()),
        Wish::Move(_) | Wish::Nothing => None,
    };
    let owner = match wish {
        Wish::Move(node) => Some(format!("{node}@{}", humantime::format_rfc3339_seconds(expiry()))),
        Wish::Drain(_) | Wish::Nothing => None,
    };
    api.run(async move |client| {
        // Null takes an annotation away that is there.
        let annotate =
            |key: &str, value: Option<String>| Patch::Merge(json!({"metadata": {"annotations": {key: value}}}));
        let services: Api<Service> = Api::namespaced(client.clone(), objects::NAMESPACE);
        services.patch("web", &PatchParams::default(), &annotate("garpike.io/owner", owner)).await?;
        let all: Api<Node> = Api::all(client);
        for node in &nodes {
            let value = (drained.as_ref() == Some(node)).then(|| "true".to_owned());
            all.patch(node.as_str(), &PatchParams::default(), &annotate("garpike.io/drain", value)).await?;
        }
        Ok(())
    })
}

/// Writes it beside and renames it, so that no speaker reads half of it.
fn replace(file: &Path, text: &str) -> Result<()> {
    let beside = file.with_extension("new");
    fs::write(&beside, text).with_context(|| format!("cannot write {}", beside.display()))?;
    fs::rename(&beside, file).with_context(|| format!("cannot write {}", file.display()))
}

fn drain(node: &NodeName) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata:\n  name: {node}\n  annotations:\n    garpike.io/drain: \"true\"\n")
}

fn move_to(node: &NodeName, expiry: SystemTime) -> String {
    let expiry = humantime::format_rfc3339_seconds(expiry);
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  annotations:\n    garpike.io/owner: \
         \"{node}@{expiry}\"\n"
    )
}

#[expect(clippy::disallowed_methods, reason = "the lab is a shell: an operator's wish has a time of day")]
fn expiry() -> SystemTime {
    SystemTime::now() + LASTS
}

/// Chosen: longer than any trial.
const LASTS: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_names_the_node_and_its_end() {
        let node = NodeName::new("n2").unwrap();

        let text = move_to(&node, SystemTime::UNIX_EPOCH + LASTS);

        assert!(text.contains("garpike.io/owner: \"n2@1970-01-01T01:00:00Z\""), "{text}");
    }
}
