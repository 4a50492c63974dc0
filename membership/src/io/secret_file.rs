//! Secrets in files, as an operator makes them or Kubernetes mounts them.
//!
//! One file is one key. Of a directory, every entry that a Secret could have is one. Nothing is remembered here.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::secret::MAX_LEN;
use crate::{InvalidSecret, SecretKey};

/// Why a secret cannot be read. Each names the path and what to do.
#[derive(Debug, Error)]
pub enum SecretFileError {
    /// There is no such file.
    #[error("there is no secret at {}; make one with: openssl rand -base64 128 > {}", .path.display(), .path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// The directory holds no file that could be a key.
    #[error(
        "the directory {} holds no key; mount the Secret \"memberlist\" there, or make a key with: \
         openssl rand -base64 128 > {}/{ENTRY}",
        .path.display(), .path.display()
    )]
    NoEntry {
        /// The directory.
        path: PathBuf,
    },
    /// The file may not or cannot be read.
    #[error("the secret at {} cannot be read; the speaker's user needs read access to it", .path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file holds no secret.
    #[error("the secret at {} cannot be used; make one with: openssl rand -base64 128 > {}", .path.display(), .path.display())]
    Invalid {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: InvalidSecret,
    },
}

impl SecretFileError {
    /// The error and what caused it, on one line.
    pub(super) fn line(&self) -> String {
        match self {
            Self::Missing { .. } | Self::NoEntry { .. } => self.to_string(),
            Self::Unreadable { source, .. } => format!("{self}: {source}"),
            Self::Invalid { source, .. } => format!("{self}: {source}"),
        }
    }
}

impl SecretKey {
    /// Reads the secret from a file.
    ///
    /// # Errors
    ///
    /// When it is missing, unreadable, no regular file, empty or too long.
    pub fn read(path: &Path) -> Result<Self, SecretFileError> {
        let path = path.to_owned();
        let failed = |source: io::Error| {
            if source.kind() == io::ErrorKind::NotFound {
                SecretFileError::Missing { path: path.clone() }
            } else {
                SecretFileError::Unreadable { path: path.clone(), source }
            }
        };
        // Opening a pipe would wait for whoever writes into it.
        if !fs::metadata(&path).map_err(failed)?.is_file() {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
        }
        let file = File::open(&path).map_err(failed)?;
        // One byte more than is allowed tells that there is too much; the buffer never moves, so no copy is left behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_LEN + 1));
        file.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        Self::parse(&bytes).map_err(|source| SecretFileError::Invalid { path, source })
    }
}

/// A file that may be a key.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: OsString,
    pub(super) secret: Result<SecretKey, SecretFileError>,
}

/// The files of the keys at `path`, oldest first: the file itself, or those of the directory.
///
/// Age is the time of the last change, then the name. In a mounted Secret it is the name alone: all entries are written
/// together, whenever one of them changes.
pub(super) fn entries(path: &Path) -> Result<Vec<Entry>, SecretFileError> {
    if !path.is_dir() {
        let name = path.file_name().unwrap_or_default().to_owned();
        // Of a single file, absence is an error like any other.
        return match SecretKey::read(path) {
            Err(error @ SecretFileError::Missing { .. }) => Err(error),
            secret => Ok(vec![Entry { name, secret }]),
        };
    }
    let mut entries = Vec::new();
    let mounted = is_secret_mount(path);
    for name in names(path).map_err(|source| SecretFileError::Unreadable { path: path.to_owned(), source })? {
        let path = path.join(&name);
        let secret = match SecretKey::read(&path) {
            // Removed since the directory was listed, or a link that is about to be removed.
            Err(SecretFileError::Missing { .. }) => continue,
            secret => secret,
        };
        let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok().filter(|_| !mounted);
        entries.push((modified, Entry { name, secret }));
    }
    if entries.is_empty() {
        return Err(SecretFileError::NoEntry { path: path.to_owned() });
    }
    entries.sort_by(|(a, x), (b, y)| (a, &x.name).cmp(&(b, &y.name)));
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

/// Whether the kubelet has made the directory, and will make it again.
pub(super) fn is_secret_mount(directory: &Path) -> bool {
    directory.join("..data").symlink_metadata().is_ok()
}

/// The names in a directory that can be entries of a Secret, directories left out.
fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if is_entry_name(&name) && !directory.join(&name).is_dir() {
            names.push(name);
        }
    }
    names.sort();
    names.truncate(ENTRIES_MAX);
    Ok(names)
}

/// The characters that Kubernetes allows. Neither its own `..data` nor what editors leave behind are entries.
fn is_entry_name(name: &OsStr) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let bytes = name.as_encoded_bytes();
    bytes.first() != Some(&b'.') && bytes.iter().all(allowed)
}

/// Chosen: far above the number of keys that are used; a directory of something else is not read whole.
const ENTRIES_MAX: usize = 64;

/// The entry of MetalLB's Secret.
pub(super) const ENTRY: &str = "secretkey";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn reads_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "abc\n").unwrap();

        assert_eq!(SecretKey::read(&path).unwrap().bytes(), b"abc");
    }

    #[test]
    fn reads_a_directory_as_kubernetes_mounts_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("..2026_11_21")).unwrap();
        symlink("..2026_11_21", dir.path().join("..data")).unwrap();
        // Written in the order of their age reversed: only the name counts.
        for entry in ["secretkey", "old-2026"] {
            fs::write(dir.path().join("..2026_11_21").join(entry), format!("{entry}\n")).unwrap();
            symlink(Path::new("..data").join(entry), dir.path().join(entry)).unwrap();
        }

        assert_eq!(read(dir.path()), [("old-2026", "old-2026"), ("secretkey", "secretkey")].map(owned));
    }

    #[test]
    fn reads_a_directory_in_the_order_of_age_and_skips_what_is_no_entry() {
        let dir = tempfile::tempdir().unwrap();
        let hour = |hour: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(3600 * hour);
        for (name, modified) in [("a", 3), ("b", 1), ("c", 2), ("d", 2), (".hidden", 1), ("a~", 1), ("#a#", 1)] {
            fs::write(dir.path().join(name), name).unwrap();
            File::options().write(true).open(dir.path().join(name)).unwrap().set_modified(hour(modified)).unwrap();
        }
        fs::create_dir(dir.path().join("sub")).unwrap();
        symlink("nowhere", dir.path().join("dangling")).unwrap();

        assert_eq!(read(dir.path()), [("b", "b"), ("c", "c"), ("d", "d"), ("a", "a")].map(owned));
    }

    #[test]
    fn each_mistake_is_named_with_its_mend() {
        let dir = tempfile::tempdir().unwrap();
        let shown = |path: &Path| entries(path).unwrap_err().line();
        let only = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, content).unwrap();
            entries(&path).unwrap().remove(0).secret.unwrap_err()
        };

        let missing = dir.path().join("missing");
        assert!(shown(&missing).ends_with(&format!("make one with: openssl rand -base64 128 > {}", missing.display())));
        assert!(shown(dir.path()).ends_with(&format!("openssl rand -base64 128 > {}/secretkey", dir.path().display())));
        let empty = only("empty", b" \n");
        assert!(matches!(empty, SecretFileError::Invalid { source: InvalidSecret::Empty, .. }));
        assert!(empty.line().ends_with(": the secret is empty"), "{}", empty.line());
        let long = only("long", &vec![b'a'; MAX_LEN + 9]);
        assert!(matches!(long, SecretFileError::Invalid { source: InvalidSecret::TooLong { .. }, .. }));
        // A file in the place of a directory: neither missing nor readable.
        fs::write(dir.path().join("file"), "abc").unwrap();
        let unreadable = SecretKey::read(&dir.path().join("file/below")).unwrap_err();
        assert!(matches!(unreadable, SecretFileError::Unreadable { .. }), "{unreadable}");
        let device = SecretKey::read(Path::new("/dev/null")).unwrap_err();
        assert!(device.line().ends_with("it is no regular file"), "{device}");
    }

    fn read(path: &Path) -> Vec<(String, String)> {
        let text = |entry: Entry| {
            let secret = entry.secret.unwrap();
            (entry.name.into_string().unwrap(), String::from_utf8(secret.bytes().to_vec()).unwrap())
        };
        entries(path).unwrap().into_iter().map(text).collect()
    }

    fn owned((name, content): (&str, &str)) -> (String, String) {
        (name.to_owned(), content.to_owned())
    }
}
