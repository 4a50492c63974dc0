//! Keys that have left their source, on disk, so that a restarted process still understands those who hold no newer one.
//!
//! A file for each key, readable by its owner only. Its time of change says when a process last held the key: one that
//! nobody has held for long is void. Files of other names are left alone.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

use crate::{Key, KeyId, SecretKey};

/// A directory of retired keys.
#[derive(Debug)]
pub(super) struct KeyCache {
    directory: PathBuf,
    keys: BTreeMap<KeyId, Key>,
}

impl KeyCache {
    /// Reads the keys of the directory, which is made if it is missing; those that are too old are wiped.
    pub(super) fn open(directory: &Path, cluster: &str, now: SystemTime) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let mut cache = Self { directory: directory.to_owned(), keys: BTreeMap::new() };
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            // A time in the future: the clock was set back, and tells nothing.
            let modified = fs::metadata(&path)?.modified()?;
            let age = now.duration_since(modified).unwrap_or_default();
            let key = SecretKey::read(&path).ok().map(|secret| Key::derive(&secret, cluster));
            match key.filter(|key| age < LIFE && path == cache.path(key.id())) {
                Some(key) => drop(cache.keys.insert(key.id(), key)),
                None => wipe(&path)?,
            }
        }
        // What is left unwritten would be noticed when it is needed.
        NamedTempFile::new_in(directory)?.close()?;
        Ok(cache)
    }

    /// The keys that it holds.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.values()
    }

    /// Keeps a key that has left its source.
    pub(super) fn keep(&mut self, key: &Key, secret: &SecretKey) -> io::Result<()> {
        self.keys.insert(key.id(), key.clone());
        // Made with mode 0600.
        let mut file = NamedTempFile::new_in(&self.directory)?;
        file.write_all(secret.bytes())?;
        file.persist(self.path(key.id())).map(drop).map_err(|error| error.error)
    }

    /// Wipes the keys that are not `needed`, and notes of the others that they are held at this time.
    pub(super) fn review(&mut self, needed: impl Fn(KeyId) -> bool, now: SystemTime) -> io::Result<()> {
        let mut result = Ok(());
        for id in self.keys.keys().copied().collect::<Vec<_>>() {
            let path = self.path(id);
            let done = if needed(id) {
                File::options().write(true).open(path).and_then(|file| file.set_modified(now))
            } else {
                self.keys.remove(&id);
                wipe(&path)
            };
            result = result.and(done);
        }
        result
    }

    fn path(&self, id: KeyId) -> PathBuf {
        self.directory.join(format!("{id}.{EXTENSION}"))
    }
}

/// Overwrites and removes a file; where the disk keeps copies of its own, they are as old as the secret.
fn wipe(path: &Path) -> io::Result<()> {
    let len = usize::try_from(fs::metadata(path)?.len()).unwrap_or(usize::MAX).min(WIPE_MAX);
    let mut file = File::options().write(true).open(path)?;
    file.write_all(&vec![0; len])?;
    file.sync_all()?;
    fs::remove_file(path)
}

const EXTENSION: &str = "key";

/// Chosen: longer than a restart of the process or of its host takes.
const LIFE: Duration = Duration::from_secs(3600);

/// The longest secret.
const WIPE_MAX: usize = crate::secret::MAX_LEN;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_there_again_after_a_restart_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("cache");
        open(&directory, now()).keep(&key("a"), &secret("a")).unwrap();

        let cache = open(&directory, now());

        assert_eq!(cache.keys().collect::<Vec<_>>(), [&key("a")]);
        assert_eq!(fs::metadata(cache.path(key("a").id())).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_key_that_nobody_has_held_for_an_hour_is_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = open(dir.path(), now());
        cache.keep(&key("a"), &secret("a")).unwrap();
        let path = cache.path(key("a").id());
        cache.review(|_| true, now()).unwrap();

        assert_eq!(open(dir.path(), now() + LIFE / 2).keys().count(), 1);
        assert_eq!(open(dir.path(), now() - LIFE * 10).keys().count(), 1, "the clock was set back");
        assert_eq!(open(dir.path(), now() + LIFE).keys().count(), 0);
        assert!(!path.exists());
    }

    #[test]
    fn a_key_that_is_needed_no_longer_is_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = open(dir.path(), now());
        cache.keep(&key("a"), &secret("a")).unwrap();
        cache.keep(&key("b"), &secret("b")).unwrap();
        // Still readable through this name after the file is gone from the directory.
        let copy = dir.path().join("copy");
        fs::hard_link(cache.path(key("a").id()), &copy).unwrap();

        cache.review(|id| id == key("b").id(), now()).unwrap();

        assert_eq!(cache.keys().collect::<Vec<_>>(), [&key("b")]);
        assert_eq!(fs::read(copy).unwrap(), [0]);
        assert_eq!(open(dir.path(), now()).keys().collect::<Vec<_>>(), [&key("b")]);
    }

    #[test]
    fn what_is_not_a_cached_key_is_not_taken_for_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("notes.txt"), "keep me").unwrap();
        fs::write(dir.path().join("00000000.key"), "another cluster's").unwrap();
        fs::write(dir.path().join("11111111.key"), "").unwrap();

        assert_eq!(open(dir.path(), now()).keys().count(), 0);

        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["notes.txt"]);
    }

    fn open(directory: &Path, now: SystemTime) -> KeyCache {
        KeyCache::open(directory, "garpike", now).unwrap()
    }

    fn key(text: &str) -> Key {
        Key::derive(&secret(text), "garpike")
    }

    fn secret(text: &str) -> SecretKey {
        SecretKey::parse(text.as_bytes()).unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "the times of files are those of the system")]
    fn now() -> SystemTime {
        SystemTime::now()
    }
}
