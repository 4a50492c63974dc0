//! The flight recorder: the last changes of owners, each with its cause, in memory and on disk.
//!
//! Bounded by number in both places. The disk is written by a thread of its own, which may fall behind and then loses
//! some: an answer to ARP never waits for it. It decides nothing.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::SystemTime;

use garpike_election::{Change, Member, Members, NodeName, Presence, ServiceIp};
use serde::{Deserialize, Serialize};
use tracing::warn;

/// The owner of an address has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// When, as in RFC 3339, by the clock of this host.
    pub at: String,
    /// The address.
    pub ip: ServiceIp,
    /// Its owner before.
    pub from: Option<NodeName>,
    /// Its owner since.
    pub to: Option<NodeName>,
    /// Why.
    pub cause: String,
}

/// The last decisions of this node.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    last: VecDeque<Decision>,
    disk: Option<SyncSender<Vec<Decision>>>,
}

impl Decisions {
    /// Begins with what the directory holds of earlier runs, and goes on writing there.
    pub(crate) fn open(dir: Option<&Path>) -> Self {
        let Some(dir) = dir else { return Self::default() };
        let path = dir.join(FILE);
        let last = read(&path);
        let (disk, queue) = mpsc::sync_channel(QUEUE);
        let written = last.len();
        let write = move || {
            if let Err(error) = write(&path, written, &queue) {
                warn!(%error, file = %path.display(), "decisions are kept in memory only");
            }
        };
        let thread = thread::Builder::new().name("decisions".to_owned()).spawn(write);
        Self { last, disk: thread.is_ok().then_some(disk) }
    }

    /// Notes changes of owners.
    pub(crate) fn note(&mut self, changes: &[Change], cause: &str, at: SystemTime) {
        if changes.is_empty() {
            return;
        }
        let at = humantime::format_rfc3339_millis(at).to_string();
        // Of more than fit, the last ones.
        let changes = changes.get(changes.len().saturating_sub(KEPT)..).unwrap_or_default();
        let decisions: Vec<Decision> = changes
            .iter()
            .map(|Change { ip, from, to }| Decision {
                at: at.clone(),
                ip: *ip,
                from: from.clone(),
                to: to.clone(),
                cause: cause.to_owned(),
            })
            .collect();
        let room = KEPT.saturating_sub(decisions.len());
        self.last.drain(..self.last.len().saturating_sub(room));
        self.last.extend(decisions.iter().cloned());
        if let Some(disk) = &self.disk {
            // A full queue: the disk is too slow, and what is in memory must do.
            let _ = disk.try_send(decisions);
        }
    }

    /// The last ones, the oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Decision> {
        self.last.iter()
    }
}

/// What has changed among the members.
pub(crate) fn cause(before: Option<&Members>, after: &Members) -> String {
    let Some(before) = before else { return "the membership has started".to_owned() };
    let mut causes = Vec::new();
    for node in before.nodes.keys().filter(|node| !after.nodes.contains_key(*node)) {
        causes.push(format!("{node} is no member any more"));
    }
    for (node, member) in &after.nodes {
        match before.nodes.get(node) {
            None => causes.push(format!("{node} is a member")),
            Some(before) => causes.extend(difference(node, before, member)),
        }
    }
    let more = causes.len().saturating_sub(CAUSES);
    causes.truncate(CAUSES);
    let mut text = causes.join("; ");
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    if text.is_empty() { "the facts of members have changed".to_owned() } else { text }
}

fn difference(node: &NodeName, before: &Member, after: &Member) -> Vec<String> {
    let mut texts = Vec::new();
    if before.state != after.state {
        texts.push(format!("{node} is {}, was {}", after.state.as_str(), before.state.as_str()));
    }
    match (before.presence, after.presence) {
        (Presence::Here, Presence::Away) => texts.push(format!("the speaker of {node} is away")),
        (Presence::Away, Presence::Here) => texts.push(format!("the speaker of {node} is back")),
        (Presence::Here, Presence::Here) | (Presence::Away, Presence::Away) => {}
    }
    if before.handicaps != after.handicaps {
        texts.push(format!("the handicaps of {node} have changed"));
    }
    if before.interfaces != after.interfaces {
        texts.push(format!("the interfaces of {node} have changed"));
    }
    texts
}

/// What a file of earlier runs holds; lines that cannot be read are left out.
fn read(path: &Path) -> VecDeque<Decision> {
    let Ok(file) = File::open(path) else { return VecDeque::new() };
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    let mut last: VecDeque<Decision> = VecDeque::new();
    for decision in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
        if last.len() == KEPT {
            last.pop_front();
        }
        last.push_back(decision);
    }
    last
}

/// Appends until the queue ends; a file that has become too long makes room for a new one.
fn write(path: &PathBuf, mut written: usize, queue: &Receiver<Vec<Decision>>) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let open = || OpenOptions::new().append(true).create(true).open(path);
    let mut file = open()?;
    for decisions in queue {
        if written >= KEPT {
            fs::rename(path, path.with_extension("old"))?;
            file = open()?;
            written = 0;
        }
        let mut text = Vec::new();
        for decision in &decisions {
            serde_json::to_writer(&mut text, decision)?;
            text.push(b'\n');
        }
        file.write_all(&text)?;
        written += decisions.len();
    }
    Ok(())
}

const FILE: &str = "decisions.jsonl";
/// Chosen: the addresses of a large node once over, in a megabyte.
const KEPT: usize = 4096;
/// Batches that wait for the disk. Chosen: more than come in the second that a slow disk takes.
const QUEUE: usize = 64;
/// Chosen: what a line holds.
const CAUSES: usize = 4;

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use garpike_election::{NodeState, Selection};

    use super::*;

    #[test]
    fn the_last_decisions_are_kept_and_no_more() {
        let mut decisions = Decisions::default();
        let many: Vec<Change> = (0..KEPT + 10).map(change).collect();

        decisions.note(&many[..KEPT], "a", UNIX_EPOCH);
        decisions.note(&many[KEPT..], "b", UNIX_EPOCH);
        assert_eq!((decisions.iter().count(), decisions.iter().next().unwrap().ip), (KEPT, change(10).ip));
        decisions.note(&many, "c", UNIX_EPOCH);
        assert_eq!((decisions.iter().count(), decisions.iter().next().unwrap().ip), (KEPT, change(10).ip));
        assert_eq!(decisions.iter().last().unwrap().at, "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn what_was_written_is_read_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("state");
        let mut decisions = Decisions::open(Some(&dir));
        decisions.note(&[change(1)], "n2 is no member any more", UNIX_EPOCH + Duration::from_millis(1_500));
        decisions.note(&[change(2)], "n2 is a member", UNIX_EPOCH + Duration::from_secs(2));
        let expected: Vec<Decision> = decisions.iter().cloned().collect();
        let shown = || read(&dir.join(FILE)).into_iter().collect::<Vec<_>>();
        for _ in 0..2_000 {
            if shown().len() < 2 {
                thread::sleep(Duration::from_millis(5));
            }
        }

        let again = Decisions::open(Some(&dir));

        assert_eq!(again.iter().cloned().collect::<Vec<_>>(), expected);
        assert_eq!(expected[0].at, "1970-01-01T00:00:01.500Z");
    }

    #[test]
    fn a_cause_names_the_nodes_and_what_they_did() {
        let before = members(&[("a", NodeState::Ready), ("b", NodeState::Ready), ("c", NodeState::Restarting)]);
        let after = members(&[("a", NodeState::Draining), ("c", NodeState::Ready), ("d", NodeState::Ready)]);

        assert_eq!(
            cause(Some(&before), &after),
            "b is no member any more; a is draining, was ready; c is ready, was restarting; d is a member"
        );
        assert_eq!(cause(None, &after), "the membership has started");
        let none = members(&[]);
        assert!(cause(Some(&members(&[("a", NodeState::Ready); 1])), &none).starts_with("a is no member"));
    }

    fn change(n: usize) -> Change {
        let n = u16::try_from(n).unwrap();
        let [high, low] = n.to_be_bytes();
        let ip = ServiceIp::new([10, 0, high, low].into()).unwrap();
        Change { ip, from: None, to: Some("n1".parse().unwrap()) }
    }

    fn members(nodes: &[(&str, NodeState)]) -> Members {
        let member = |(name, state): &(&str, NodeState)| (name.parse().unwrap(), Member::new(*state, Selection::All));
        Members { local: "a".parse().unwrap(), nodes: nodes.iter().map(member).collect() }
    }
}
