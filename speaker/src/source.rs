//! What people want, from a directory of YAML files that is read again whenever it changes.
//!
//! A thread of its own reads and judges, so that a large directory never delays an answer to ARP. A file that gets an
//! error, by a slip or because an editor has written half of it, keeps its last good content in force until it is
//! mended; the problem is told at once. A choice of an owner that ends is a change as well, and is read at that time.
//!
//! Clocks of hosts differ by seconds. For that time two of them may disagree on whether a choice has ended: who answers
//! then, the chosen node or the one that follows it, serves the address in both cases.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use garpike_controller_api::config::Exclusion;
use garpike_controller_api::manifests::{self, ReadDirError};
use garpike_controller_api::{Move, Objects, Problem, Scope, Severity, Source as Place, desired, validate};
use garpike_election::{Desired, NodeName};
use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecursiveMode, Watcher as _};
use tokio::sync::watch;
use tracing::{error, info, warn};

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
}

/// How objects become [`Desired`].
#[derive(Clone, Debug)]
pub struct Rules {
    /// Which objects are ours.
    pub scope: Scope,
    /// What the label node.kubernetes.io/exclude-from-external-load-balancers does.
    pub exclude_label: ExcludeLabel,
}

/// What the exclude label of a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExcludeLabel {
    /// The node owns nothing.
    Excludes,
    /// Nothing (`--ignore-exclude-lb`).
    Ignored,
}

/// A directory and the last good content of its files.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    rules: Rules,
    /// By the name of the file, as problems name it.
    good: BTreeMap<Arc<str>, String>,
}

impl Snapshot {
    /// When the first choice of an owner ends.
    pub fn changes_at(&self) -> Option<SystemTime> {
        self.moves.iter().map(|moved| moved.chosen.until).min()
    }
}

impl Directory {
    /// A directory that was not read yet.
    pub fn new(path: PathBuf, rules: Rules) -> Self {
        Self { path, rules, good: BTreeMap::new() }
    }

    /// Reads everything again, as it is at `now`.
    ///
    /// # Errors
    ///
    /// When the directory itself cannot be listed; what was read before stays.
    pub fn read(&mut self, now: SystemTime) -> Result<Snapshot, ReadDirError> {
        // What is parsed takes fifty times the room of what comes of it. glibc gives that back only if nothing that lives
        // on lies beside it: so a thread of its own reads, and what is kept are copies.
        let read = thread::scope(|scope| {
            let reader = scope.spawn(|| self.read_apart(now));
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let (snapshot, good) = read?;
        self.good = good.iter().map(|(file, text)| (Arc::from(&**file), text.clone())).collect();
        let copy = Snapshot { desired: Arc::new(Desired::clone(&snapshot.desired)), ..snapshot.clone() };
        // And what was read ends with a thread: this one would keep some of the pieces for itself, to use them again, and
        // one of them is enough to keep everything before it.
        thread::scope(|scope| scope.spawn(move || drop((snapshot, good))).join()).unwrap_or_else(|panic| {
            std::panic::resume_unwind(panic);
        });
        Ok(copy)
    }

    /// What the directory says, and the good content of each file.
    fn read_apart(&self, now: SystemTime) -> Result<(Snapshot, BTreeMap<Arc<str>, String>), ReadDirError> {
        let mut texts: BTreeMap<Arc<str>, String> = BTreeMap::new();
        let mut files: BTreeMap<Arc<str>, Objects> = BTreeMap::new();
        let mut complaints = Vec::new();
        for path in manifests::files(&self.path)? {
            let name: Arc<str> = path.file_name().unwrap_or_default().to_string_lossy().into();
            match manifests::read_text(&path) {
                Ok(text) => {
                    let (objects, problems) = manifests::parse_documents(&name, &text);
                    complaints.extend(problems);
                    files.insert(name.clone(), objects);
                    texts.insert(name, text);
                }
                Err(problem) => {
                    complaints.push(*problem);
                    texts.insert(name, String::new());
                }
            }
        }
        let mut snapshot = self.judge(files.into_values(), now);
        let problems: Vec<Problem> = complaints.into_iter().chain(std::mem::take(&mut snapshot.problems)).collect();
        let broken = files_with_errors(&problems);
        let kept = self.keep(&texts, &broken, now);
        if !kept.is_empty() {
            snapshot = self.judge(self.objects(&texts, &kept), now);
        }
        let warnings = kept.into_iter().map(|file| {
            Problem::warning("has an error: its last good content stays in force until it is mended").in_file(file)
        });
        let before = self.good.iter().filter(|(file, _)| texts.contains_key(*file));
        let mut good: BTreeMap<_, _> = before.map(|(file, text)| (file.clone(), text.clone())).collect();
        good.extend(texts.into_iter().filter(|(file, _)| !broken.contains(file)));
        let problems = problems.into_iter().chain(warnings).collect();
        Ok((Snapshot { problems, ..snapshot }, good))
    }

    /// The `broken` files whose errors go away with their last good content.
    fn keep(
        &self,
        texts: &BTreeMap<Arc<str>, String>,
        broken: &BTreeSet<Arc<str>>,
        now: SystemTime,
    ) -> BTreeSet<Arc<str>> {
        let known: BTreeSet<Arc<str>> = broken.iter().filter(|file| self.good.contains_key(*file)).cloned().collect();
        if known.is_empty() {
            return known;
        }
        let still_broken = files_with_errors(&self.judge(self.objects(texts, &known), now).problems);
        known.difference(&still_broken).cloned().collect()
    }

    /// The objects of each file, those of the `kept` ones as their last good content has them.
    fn objects(&self, texts: &BTreeMap<Arc<str>, String>, kept: &BTreeSet<Arc<str>>) -> impl Iterator<Item = Objects> {
        texts.iter().map(|(file, text)| {
            let text = self.good.get(file).filter(|_| kept.contains(file)).unwrap_or(text);
            manifests::parse_documents(file, text).0
        })
    }

    /// What the files mean together.
    fn judge(&self, files: impl Iterator<Item = Objects>, now: SystemTime) -> Snapshot {
        let mut objects = Objects::default();
        let mut problems = Vec::new();
        for file in files {
            problems.extend(objects.merge(file));
        }
        let (mut config, complaints) = validate(&objects, &self.rules.scope);
        problems.extend(complaints);
        if self.rules.exclude_label == ExcludeLabel::Ignored {
            for node in config.nodes.values_mut() {
                node.excluded = node.excluded.filter(|exclusion| *exclusion != Exclusion::Label);
            }
        }
        let (desired, moves, complaints) = desired(&config, now);
        problems.extend(complaints);
        Snapshot { desired: Arc::new(desired), drained: config.drained, moves, problems }
    }
}

fn files_with_errors(problems: &[Problem]) -> BTreeSet<Arc<str>> {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    errors.filter_map(|problem| problem.file.clone()).collect()
}

/// Whether an event may have been caused by reading: taken for a change, it would cause the next reading.
fn is_own_reading(event: &Event) -> bool {
    let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
    event.kind.is_access() && event.kind != written
}

/// The thread that watches a directory. Dropping it ends the thread.
#[derive(Debug)]
pub struct Source {
    /// The latest content.
    pub snapshots: watch::Receiver<Snapshot>,
    stop: SyncSender<Wake>,
    thread: Option<JoinHandle<()>>,
}

enum Wake {
    Changed,
    Stop,
}

impl Source {
    /// Reads the directory once and watches it from then on.
    ///
    /// # Errors
    ///
    /// When the directory cannot be listed at the start; names `--manifests`.
    pub fn start(path: &Path, rules: Rules) -> Result<Self> {
        let mut directory = Directory::new(path.to_owned(), rules);
        let first =
            directory.read(now()).context("--manifests: give a directory of YAML files that this user may read")?;
        report(&Snapshot::default(), &first);
        let (sender, snapshots) = watch::channel(first);
        // One is enough: a change that comes while another waits is read with it.
        let (wake, wakes) = mpsc::sync_channel(1);
        let hints = wake.clone();
        let hint = move |event: notify::Result<Event>| {
            if event.as_ref().is_ok_and(is_own_reading) {
                return;
            }
            // Full: a change that waits already covers this one. Closed: the thread is ending.
            let _ = hints.try_send(Wake::Changed);
        };
        let mut watcher = notify::recommended_watcher(hint)
            .context("--manifests: cannot watch for changes; are inotify instances exhausted?")?;
        watcher
            .watch(path, RecursiveMode::NonRecursive)
            .with_context(|| format!("--manifests: cannot watch {} for changes", path.display()))?;
        let run = move || {
            // Lives as long as the thread; its end would close the stream of hints.
            let _watcher = watcher;
            loop {
                let next = sender.borrow().changes_at();
                match wakes.recv_timeout(patience(next, now())) {
                    Ok(Wake::Changed) => thread::sleep(SETTLE),
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                }
                publish(&mut directory, &sender);
            }
        };
        let thread = thread::Builder::new().name("manifests".to_owned()).spawn(run)?;
        Ok(Self { snapshots, stop: wake, thread: Some(thread) })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // Full: a change waits to be read, and the thread asks again after it.
        while self.stop.try_send(Wake::Stop).is_err_and(|error| matches!(error, mpsc::TrySendError::Full(_))) {
            thread::sleep(Duration::from_millis(1));
        }
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed by its own hook.
            let _ = thread.join();
        }
    }
}

fn publish(directory: &mut Directory, sender: &watch::Sender<Snapshot>) {
    match directory.read(now()) {
        Ok(next) => {
            sender.send_if_modified(|current| {
                let changed = *current != next;
                if changed {
                    report(current, &next);
                    *current = next;
                }
                changed
            });
        }
        Err(error) => error!(%error, cause = %error.source, "manifests stay as they were"),
    }
}

/// How long to wait for a change of the files when the next choice of an owner ends at `next`.
fn patience(next: Option<SystemTime>, now: SystemTime) -> Duration {
    let until = next.map(|next| next.duration_since(now).unwrap_or_default());
    // A clock that is set is noticed after the interval at the latest.
    until.map_or(REREAD_INTERVAL, |until| until.min(REREAD_INTERVAL))
}

#[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Logs what operators asked for, and the problems, that `last` did not have.
fn report(last: &Snapshot, next: &Snapshot) {
    info!(addresses = next.desired.addresses.len(), problems = next.problems.len(), "manifests read");
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

/// inotify tells of the first byte that an editor writes; chosen: a save is over after this.
const SETTLE: Duration = Duration::from_millis(50);
/// Some file systems (NFS) tell nothing. Chosen: an edit there is noticed while its author still waits.
const REREAD_INTERVAL: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_gets_an_error_keeps_its_last_good_content() {
        let half_written = &POOL[..POOL.len() / 2];
        let not_yaml = format!("{POOL}\n  bad: [");
        let wrong_value = POOL.replace("/24", "/240");
        for broken in [half_written, &not_yaml, &wrong_value] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("pool.yaml"), POOL).unwrap();
            fs::write(dir.path().join("web.yaml"), SERVICE).unwrap();
            let mut directory = directory(dir.path());
            let before = directory.read(now()).unwrap();
            assert_eq!(before.problems, []);

            for _ in 0..2 {
                fs::write(dir.path().join("pool.yaml"), broken).unwrap();
                let after = directory.read(now()).unwrap();
                assert_eq!(after.desired, before.desired, "{broken}: {:?}", after.problems);
                assert!(after.problems.iter().any(|problem| problem.severity == Severity::Error), "{broken}");
            }

            fs::write(dir.path().join("pool.yaml"), POOL).unwrap();
            assert_eq!(directory.read(now()).unwrap(), before);
        }
    }

    #[test]
    fn a_file_that_never_was_good_does_not_hide_its_good_objects() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pool.yaml"), POOL).unwrap();
        fs::write(dir.path().join("web.yaml"), format!("{SERVICE}---\nkind: [")).unwrap();
        let mut directory = directory(dir.path());
        assert_eq!(directory.read(now()).unwrap().desired.addresses.len(), 1);

        fs::write(dir.path().join("web.yaml"), "kind: [").unwrap();

        assert!(directory.read(now()).unwrap().desired.addresses.is_empty());
    }

    #[test]
    fn a_removed_pool_takes_its_addresses_along() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pool.yaml"), POOL).unwrap();
        fs::write(dir.path().join("web.yaml"), SERVICE).unwrap();
        let mut directory = directory(dir.path());
        directory.read(now()).unwrap();

        fs::remove_file(dir.path().join("pool.yaml")).unwrap();
        let after = directory.read(now()).unwrap();

        assert!(after.desired.addresses.is_empty());
        assert!(after.problems.iter().any(|problem| problem.to_string().contains("Service default/web")));
    }

    #[test]
    fn a_file_that_is_removed_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pool.yaml"), POOL).unwrap();
        fs::write(dir.path().join("web.yaml"), SERVICE).unwrap();
        let mut directory = directory(dir.path());
        directory.read(now()).unwrap();

        fs::remove_file(dir.path().join("web.yaml")).unwrap();

        assert!(directory.read(now()).unwrap().desired.addresses.is_empty());
    }

    #[test]
    fn a_choice_of_an_owner_ends_at_its_time() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pool.yaml"), POOL).unwrap();
        fs::write(dir.path().join("web.yaml"), SERVICE).unwrap();
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_300_496);
        let choice = "{apiVersion: v1, kind: Service, metadata: {name: web, annotations: {garpike.io/owner: \
                      'n2@2026-11-21T22:34:56Z'}}}";
        fs::write(dir.path().join("garpike-overrides.yaml"), choice).unwrap();
        let mut directory = directory(dir.path());

        let before = directory.read(until - Duration::from_secs(10)).unwrap();
        assert_eq!((before.moves.len(), before.desired.moves.len()), (1, 1));
        assert_eq!(patience(before.changes_at(), until - Duration::from_secs(10)), Duration::from_secs(10));
        assert_eq!(patience(before.changes_at(), until - Duration::from_secs(1000)), REREAD_INTERVAL);
        assert_eq!(patience(before.changes_at(), until + Duration::from_secs(1)), Duration::ZERO);

        let after = directory.read(until).unwrap();
        assert_eq!((after.moves.len(), after.desired.moves.len(), after.changes_at()), (0, 0, None));
        assert_eq!(after.desired.addresses, before.desired.addresses);
    }

    #[test]
    fn a_drain_that_is_half_written_stays_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let overrides = dir.path().join("garpike-overrides.yaml");
        fs::write(&overrides, DRAIN).unwrap();
        let mut directory = directory(dir.path());
        let drained = |snapshot: &Snapshot| snapshot.drained.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(drained(&directory.read(now()).unwrap()), ["n1"]);

        fs::write(&overrides, DRAIN.replace("'true'", "'tr")).unwrap();
        assert_eq!(drained(&directory.read(now()).unwrap()), ["n1"]);
        fs::write(&overrides, "").unwrap();
        assert_eq!(drained(&directory.read(now()).unwrap()), [""; 0]);
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pool.yaml"), POOL).unwrap();
        let rules = Rules { scope: Scope::default(), exclude_label: ExcludeLabel::Excludes };
        let mut source = Source::start(dir.path(), rules).unwrap();
        assert!(source.snapshots.borrow_and_update().desired.addresses.is_empty());

        fs::write(dir.path().join("web.yaml"), SERVICE).unwrap();

        let mut waited = Duration::ZERO;
        while !source.snapshots.has_changed().unwrap() && waited < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(10));
            waited += Duration::from_millis(10);
        }
        assert_eq!(source.snapshots.borrow().desired.addresses.len(), 1);
    }

    #[test]
    fn reading_is_not_taken_for_a_change() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pool.yaml"), POOL).unwrap();
        let (events, seen) = mpsc::sync_channel(1000);
        let mut watcher = notify::recommended_watcher(move |event| drop(events.try_send(event))).unwrap();
        watcher.watch(dir.path(), RecursiveMode::NonRecursive).unwrap();
        let mut directory = directory(dir.path());

        directory.read(now()).unwrap();
        fs::write(dir.path().join("end"), "").unwrap();

        let mut events = Vec::new();
        let is_end = |event: &Event| event.kind.is_create() && event.paths.iter().any(|path| path.ends_with("end"));
        loop {
            let event: Event = seen.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
            if is_end(&event) {
                break;
            }
            events.push(event);
        }
        assert!(!events.is_empty(), "the system tells of readers too");
        assert!(events.iter().all(is_own_reading), "{events:?}");
    }

    fn directory(path: &Path) -> Directory {
        let rules = Rules { scope: Scope::default(), exclude_label: ExcludeLabel::Excludes };
        Directory::new(path.to_owned(), rules)
    }

    const DRAIN: &str = "{apiVersion: v1, kind: Node, metadata: {name: n1, annotations: {garpike.io/drain: 'true'}}}";
    const POOL: &str = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata:
  name: first-pool
  namespace: metallb-system
spec:
  addresses:
  - 192.168.10.0/24
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata:
  name: all
  namespace: metallb-system
";
    const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: web
  annotations:
    metallb.io/loadBalancerIPs: 192.168.10.7
spec:
  type: LoadBalancer
  ports:
  - port: 80
";
}
