//! What people want, judged: from a directory of YAML files, or from the Kubernetes API.
//!
//! Either source has a thread of its own, which publishes a [`Snapshot`] whenever the meaning has changed. Nothing of it
//! waits on the thread that answers ARP.

pub mod cluster;
pub mod directory;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use garpike_controller_api::config::{Config, Exclusion};
use garpike_controller_api::{Move, Objects, Problem, Scope, Severity, Source as Place, desired, validate};
use garpike_election::{Desired, NodeName};
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use cluster::Index;

/// What was read, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What is to be answered.
    pub desired: Arc<Desired>,
    /// The nodes that are to be emptied, each with the place that says so.
    pub drained: BTreeMap<NodeName, Place>,
    /// The choices of owners that are in force.
    pub moves: Vec<Move>,
    /// What is wrong, in the order of the files.
    pub problems: Vec<Problem>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a snapshot comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nothing is known yet: there is nothing to own, and nothing is owned.
    #[default]
    Nothing,
    /// What was known when the speaker ran last; the source does not answer.
    Saved {
        /// When it was known.
        at: SystemTime,
    },
    /// The source itself.
    Live,
}

/// How objects become [`Desired`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Which objects are ours.
    pub scope: Scope,
    /// What the label node.kubernetes.io/exclude-from-external-load-balancers does.
    pub exclude_label: ExcludeLabel,
}

/// What the exclude label of a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExcludeLabel {
    /// The node owns nothing.
    Excludes,
    /// Nothing (`--ignore-exclude-lb`).
    Ignored,
}

impl Snapshot {
    /// When the first choice of an owner ends.
    pub fn changes_at(&self) -> Option<SystemTime> {
        self.moves.iter().map(|moved| moved.chosen.until).min()
    }
}

impl Rules {
    /// What the objects of a directory mean at `now`.
    fn judge(&self, objects: &Objects, now: SystemTime) -> Snapshot {
        let (config, problems) = self.validate(objects);
        snapshot(&config, problems, now)
    }

    /// What the objects of a cluster mean at `now`. An address is the controller's to give, so what Services ask for
    /// counts for nothing here, and those without an address are not wanted yet.
    fn judge_cluster(&self, index: &mut Index, now: SystemTime) -> Snapshot {
        let (config, problems) = index.config(|objects| self.validate(objects));
        snapshot(config, problems, now)
    }

    fn validate(&self, objects: &Objects) -> (Config, Vec<Problem>) {
        let (mut config, problems) = validate(objects, &self.scope);
        if self.exclude_label == ExcludeLabel::Ignored {
            for node in config.nodes.values_mut() {
                node.excluded = node.excluded.filter(|exclusion| *exclusion != Exclusion::Label);
            }
        }
        (config, problems)
    }
}

fn snapshot(config: &Config, mut problems: Vec<Problem>, now: SystemTime) -> Snapshot {
    let (desired, moves, complaints) = desired(config, now);
    problems.extend(complaints);
    Snapshot { desired: Arc::new(desired), drained: config.drained.clone(), moves, problems, origin: Origin::Live }
}

/// Logs what operators asked for, and the problems, that `last` did not have.
pub(crate) fn report(last: &Snapshot, next: &Snapshot) {
    info!(addresses = next.desired.addresses.len(), problems = next.problems.len(), "what is wanted has changed");
    for (node, place) in next.drained.iter().filter(|(node, _)| !last.drained.contains_key(*node)) {
        info!(%node, by = %place, "the node is to be emptied");
    }
    for node in last.drained.keys().filter(|node| !next.drained.contains_key(*node)) {
        info!(%node, "the node is no longer to be emptied");
    }
    let has = |snapshot: &Snapshot, moved: &Move| {
        snapshot.moves.iter().any(|other| (&other.addresses, &other.chosen) == (&moved.addresses, &moved.chosen))
    };
    for Move { addresses, chosen, source, .. } in next.moves.iter().filter(|moved| !has(last, moved)) {
        info!(?addresses, node = %chosen.node, until = chosen.time(), by = %source, "an owner was chosen");
    }
    for Move { addresses, chosen, .. } in last.moves.iter().filter(|moved| !has(next, moved)) {
        info!(?addresses, node = %chosen.node, until = chosen.time(), "the choice of an owner is over");
    }
    for problem in next.problems.iter().filter(|problem| !last.problems.contains(problem)) {
        match problem.severity {
            Severity::Error => error!("{problem}"),
            Severity::Warning => warn!("{problem}"),
            Severity::Note => info!("{problem}"),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}
