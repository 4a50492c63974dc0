//! What an operator asks of the speakers in planned work, written where `garpike drain` and `garpike move` write it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use garpike_election::NodeName;

use crate::fleet::Fleet;
use crate::lab::now;

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
        let file = self.manifests().join("garpike-overrides.yaml");
        let at = now();
        match wish {
            Wish::Drain(node) => replace(&file, &drain(node))?,
            Wish::Move(node) => replace(&file, &move_to(node, expiry()))?,
            Wish::Nothing if file.exists() => {
                fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
            }
            Wish::Nothing => {}
        }
        Ok(at)
    }
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
