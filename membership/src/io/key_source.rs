//! The files of the keys, read again whenever they change.
//!
//! A thread of its own watches them: it reads a few small files, and a slow disk must not hold up the membership. Invariant:
//! once there was a key, there is one. A file that is emptied, removed, unreadable or too long keeps the last key that it
//! held and is complained of until it is mended. inotify tells of most changes at once; all is read every 30 s besides.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecursiveMode, Watcher as _};
use thiserror::Error;
use tokio::sync::watch;
use tracing::{info, warn};

use super::SecretFileError;
use super::key_cache::KeyCache;
use super::secret_file::entries;
use crate::{Key, KeyId, Keyring, SecretKey, SourcedKeys};

/// The thread that watches the files of the keys. Dropping it ends the thread.
#[derive(Debug)]
pub struct KeySource {
    /// What the files hold.
    pub keys: watch::Receiver<SourcedKeys>,
    held: watch::Sender<BTreeSet<KeyId>>,
    stop: SyncSender<Wake>,
    thread: Option<JoinHandle<()>>,
}

/// Why the keys cannot be used at the start.
#[derive(Debug, Error)]
pub enum KeySourceError {
    /// There is no usable key.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// Retired keys cannot be kept.
    #[error("the directory {} for retired keys cannot be used; the speaker's user needs to write there", .path.display())]
    Cache {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The system gives no thread.
    #[error("the thread that watches the keys cannot be started; is the limit of processes reached?")]
    Thread(#[source] io::Error),
}

enum Wake {
    Changed,
    Stop,
}

impl KeySource {
    /// Reads the keys at `path`, a file or a directory, and watches them from then on. Keys that leave the source are kept
    /// in the directory `cache` for as long as they are needed.
    ///
    /// Gives the keys to begin with, those of the cache included.
    ///
    /// # Errors
    ///
    /// When there is no usable key, or the cache cannot be used.
    #[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
    pub fn start(path: &Path, cluster: &str, cache: Option<&Path>) -> Result<(Self, Keyring), KeySourceError> {
        let failed = |path: &Path, source| KeySourceError::Cache { path: path.to_owned(), source };
        let open = |directory: &Path| {
            if path.canonicalize().is_ok_and(|path| directory.canonicalize().is_ok_and(|directory| path == directory)) {
                // What is retired would come back into force.
                let same = io::Error::new(io::ErrorKind::InvalidInput, "it is the directory of the keys themselves");
                return Err(failed(directory, same));
            }
            KeyCache::open(directory, cluster, SystemTime::now()).map_err(|source| failed(directory, source))
        };
        let mut files = KeyFiles::new(path, cluster, cache.map(open).transpose()?)?;
        let first = files.sourced.clone();
        let retired = files.cache.as_ref().map(|cache| cache.keys().cloned().collect()).unwrap_or_default();
        let keyring = Keyring::new(first.keys.clone(), retired).expect("the files hold a usable key");
        let (held, held_by_node) = watch::channel(keyring.iter().map(|(id, _)| id).collect());
        let (sender, keys) = watch::channel(first);
        // One is enough: a change that comes while another waits is read with it.
        let (wake, wakes) = mpsc::sync_channel(1);
        let mut eyes = Eyes::new(path, wake.clone());
        let mut log = Log::default();
        log.tell(&[], &sender.borrow().complaints, Instant::now());
        let run = move || {
            loop {
                match wakes.recv_timeout(REREAD_INTERVAL) {
                    Ok(Wake::Changed) => std::thread::sleep(SETTLE),
                    Err(RecvTimeoutError::Timeout) => eyes.open(),
                    Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                }
                files.forget_all_but(&held_by_node.borrow(), SystemTime::now());
                files.read();
                log.tell(&sender.borrow().complaints, &files.sourced.complaints, Instant::now());
                sender.send_if_modified(|current| {
                    let changed = *current != files.sourced;
                    current.clone_from(&files.sourced);
                    changed
                });
            }
        };
        let thread = std::thread::Builder::new().name("keys".to_owned()).spawn(run).map_err(KeySourceError::Thread)?;
        Ok((Self { keys, held, stop: wake, thread: Some(thread) }, keyring))
    }

    /// Tells which keys the node holds: the others are wiped from the cache.
    pub fn set_held(&self, held: impl IntoIterator<Item = KeyId>) {
        let held: BTreeSet<KeyId> = held.into_iter().collect();
        self.held.send_if_modified(|current| {
            let changed = *current != held;
            *current = held;
            changed
        });
    }
}

impl Drop for KeySource {
    fn drop(&mut self) {
        // Full: a change waits to be read, and the thread asks again after it.
        while self.stop.try_send(Wake::Stop).is_err_and(|error| matches!(error, mpsc::TrySendError::Full(_))) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed by its own hook.
            let _ = thread.join();
        }
    }
}

/// The files, and the last good key of each.
#[derive(Debug)]
struct KeyFiles {
    path: PathBuf,
    cluster: String,
    good: BTreeMap<OsString, GoodKey>,
    /// The keys in force, in the order in which they were seen first.
    order: Vec<KeyId>,
    cache: Option<KeyCache>,
    sourced: SourcedKeys,
}

#[derive(Clone, Debug)]
struct GoodKey {
    key: Key,
    secret: SecretKey,
}

impl KeyFiles {
    fn new(path: &Path, cluster: &str, cache: Option<KeyCache>) -> Result<Self, SecretFileError> {
        let mut files = Self {
            path: path.to_owned(),
            cluster: cluster.to_owned(),
            good: BTreeMap::new(),
            order: Vec::new(),
            cache,
            sourced: SourcedKeys::default(),
        };
        let mut errors = Vec::new();
        files.take(entries(path)?, &mut errors);
        if files.order.is_empty() {
            return Err(errors.pop().unwrap_or_else(|| SecretFileError::NoEntry { path: path.to_owned() }));
        }
        files.publish(&errors);
        Ok(files)
    }

    /// Reads everything again.
    fn read(&mut self) {
        let mut errors = Vec::new();
        match entries(&self.path) {
            Ok(entries) => self.take(entries, &mut errors),
            Err(error) => errors.push(error),
        }
        self.publish(&errors);
    }

    /// Takes the entries, oldest first, unless none of them has a key.
    fn take(&mut self, entries: Vec<super::secret_file::Entry>, errors: &mut Vec<SecretFileError>) {
        let mut good = BTreeMap::new();
        let mut seen = Vec::new();
        for entry in entries {
            let key = match entry.secret {
                Ok(secret) => Some(GoodKey { key: Key::derive(&secret, &self.cluster), secret }),
                Err(error) => {
                    errors.push(error);
                    self.good.get(&entry.name).cloned()
                }
            };
            if let Some(key) = key {
                seen.push(key.key.id());
                good.insert(entry.name, key);
            }
        }
        if good.is_empty() {
            return;
        }
        let before = std::mem::replace(&mut self.good, good);
        self.order.retain(|id| seen.contains(id));
        for id in seen {
            if !self.order.contains(&id) {
                self.order.push(id);
            }
        }
        self.retire(before);
    }

    /// Keeps what has left the source.
    fn retire(&mut self, before: BTreeMap<OsString, GoodKey>) {
        let Some(cache) = &mut self.cache else { return };
        for GoodKey { key, secret } in before.into_values().filter(|good| !self.order.contains(&good.key.id())) {
            if let Err(error) = cache.keep(&key, &secret) {
                warn!(%error, key = %key.id(), "a retired key is not kept: a restart before all nodes hold the new one \
                      forgets it; mend --key-cache");
            }
        }
    }

    fn publish(&mut self, errors: &[SecretFileError]) {
        let mut complaints: Vec<String> = errors
            .iter()
            .map(|error| {
                let kept = "the last key that was good stays in force";
                format!("{}; {kept}", error.line())
            })
            .collect();
        complaints.truncate(COMPLAINTS_MAX);
        let (used, unused) = self.order.split_at(self.order.len().min(Keyring::IN_FORCE_MAX));
        if !unused.is_empty() {
            let named = self.good.iter().filter(|(_, good)| unused.contains(&good.key.id()));
            let names: Vec<_> = named.map(|(name, _)| name.to_string_lossy()).take(COMPLAINTS_MAX).collect();
            complaints.push(format!(
                "the directory {} holds {} keys and at most {} are used: not used are {}; remove those that no node needs",
                self.path.display(),
                self.order.len(),
                Keyring::IN_FORCE_MAX,
                names.join(", ")
            ));
        }
        let key = |id: &KeyId| self.good.values().find(|good| good.key.id() == *id).map(|good| good.key.clone());
        self.sourced = SourcedKeys { keys: used.iter().rev().filter_map(key).collect(), complaints };
    }

    /// Wipes the retired keys that the node holds no longer.
    fn forget_all_but(&mut self, held: &BTreeSet<KeyId>, now: SystemTime) {
        let Some(cache) = &mut self.cache else { return };
        // What is in the source again needs no copy.
        if let Err(error) = cache.review(|id| held.contains(&id) && !self.order.contains(&id), now) {
            warn!(%error, "the cache of retired keys cannot be written; mend --key-cache");
        }
    }
}

/// inotify on the directory that holds the files.
struct Eyes {
    directory: PathBuf,
    watcher: Option<notify::RecommendedWatcher>,
}

impl Eyes {
    fn new(path: &Path, hints: SyncSender<Wake>) -> Self {
        // Whoever replaces a file renames another one to its name: only the directory tells of that.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let (directory, only) = match path.file_name() {
            Some(name) if !path.is_dir() => (parent, Some(name.to_owned())),
            Some(_) | None => (path, None),
        };
        let hint = move |event: notify::Result<Event>| {
            if event.as_ref().is_ok_and(|event| is_own_reading(event) || is_of_another_file(event, only.as_ref())) {
                return;
            }
            // Full: a change that waits already covers this one. Closed: the thread is ending.
            let _ = hints.try_send(Wake::Changed);
        };
        let watcher = notify::recommended_watcher(hint);
        if let Err(error) = &watcher {
            warn!(%error, "cannot watch the keys for changes, they are read every 30 s; are inotify instances exhausted?");
        }
        let mut eyes = Self { directory: directory.to_owned(), watcher: watcher.ok() };
        eyes.open();
        eyes
    }

    /// Watches; also a directory that was made anew since.
    fn open(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        if let Err(error) = watcher.watch(&self.directory, RecursiveMode::NonRecursive) {
            // Whatever is wrong with it is complained of by the next reading.
            tracing::debug!(%error, directory = %self.directory.display(), "cannot watch for changes");
        }
    }
}

/// Whether an event may have been caused by reading: taken for a change, it would cause the next reading.
fn is_own_reading(event: &Event) -> bool {
    let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
    event.kind.is_access() && event.kind != written
}

/// Whether an event in the directory of a single file concerns neither that file nor the link by which the kubelet
/// exchanges all files of a mount.
fn is_of_another_file(event: &Event, only: Option<&OsString>) -> bool {
    let Some(only) = only else { return false };
    let concerns =
        |path: &PathBuf| path.file_name().is_none_or(|name| name == only || name.as_encoded_bytes().starts_with(b".."));
    !event.paths.is_empty() && !event.paths.iter().any(concerns)
}

/// What the log was told.
#[derive(Debug, Default)]
struct Log(BTreeMap<String, Instant>);

impl Log {
    /// Tells the log of complaints, each when it comes and then seldom, and of those that are mended.
    fn tell(&mut self, before: &[String], complaints: &[String], now: Instant) {
        for complaint in self.due(complaints, now) {
            warn!("{complaint}");
        }
        for mended in before.iter().filter(|complaint| !complaints.contains(complaint)) {
            info!(mended, "the keys are mended");
        }
    }

    fn due<'a>(&mut self, complaints: &'a [String], now: Instant) -> Vec<&'a String> {
        self.0.retain(|_, at| now.saturating_duration_since(*at) < LOG_EVERY);
        let due: Vec<_> = complaints.iter().filter(|complaint| !self.0.contains_key(*complaint)).collect();
        self.0.extend(due.iter().map(|complaint| ((*complaint).clone(), now)));
        due
    }
}

/// inotify tells of the first byte that an editor writes; chosen: a save is over after this.
const SETTLE: Duration = Duration::from_millis(50);

/// Some file systems tell nothing. Chosen: well within the 90 s in which kubelets refresh a Secret anyway.
const REREAD_INTERVAL: Duration = Duration::from_secs(30);

/// Chosen: often enough to be seen by whoever looks for it, seldom enough not to hide other lines.
const LOG_EVERY: Duration = Duration::from_secs(600);

/// Chosen: a directory of a thousand broken files is one mistake.
const COMPLAINTS_MAX: usize = 8;

#[cfg(test)]
mod tests;
