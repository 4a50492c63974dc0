//! The secret in a file, as an operator makes it or Kubernetes mounts it.

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
    /// The directory holds no entry of the expected name.
    #[error(
        "the directory {} has no entry \"{ENTRY}\" (it has: {}); mount the Secret \"memberlist\" there, or make one with: \
         openssl rand -base64 128 > {}/{ENTRY}",
        .path.display(), listed(.entries), .path.display()
    )]
    NoEntry {
        /// The directory.
        path: PathBuf,
        /// The names of its entries, those that begin with a dot left out.
        entries: Vec<String>,
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

impl SecretKey {
    /// Reads the secret from a file, or from the entry `secretkey` of a directory, as the Secret `memberlist` is mounted.
    ///
    /// # Errors
    ///
    /// When it is missing, unreadable, empty or too long.
    pub fn read(path: &Path) -> Result<Self, SecretFileError> {
        let path = if path.is_dir() { entry_of(path)? } else { path.to_owned() };
        let unreadable = |source| SecretFileError::Unreadable { path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SecretFileError::Missing { path }),
            Err(source) => return Err(unreadable(source)),
        };
        // One byte more than is allowed tells that there is too much; the buffer never moves, so no copy is left behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_LEN + 1));
        file.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        Self::parse(&bytes).map_err(|source| SecretFileError::Invalid { path, source })
    }
}

fn entry_of(directory: &Path) -> Result<PathBuf, SecretFileError> {
    let path = directory.join(ENTRY);
    if path.exists() {
        return Ok(path);
    }
    let unreadable = |source| SecretFileError::Unreadable { path: directory.to_owned(), source };
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
        // Kubernetes keeps `..data` and dated directories beside the entries.
        if !name.starts_with('.') {
            entries.push(name);
        }
    }
    entries.sort();
    Err(SecretFileError::NoEntry { path: directory.to_owned(), entries })
}

fn listed(entries: &[String]) -> String {
    if entries.is_empty() { "nothing".to_owned() } else { entries.join(", ") }
}

/// The entry of MetalLB's Secret.
const ENTRY: &str = "secretkey";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

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
        fs::write(dir.path().join("..2026_11_21/secretkey"), "abc\n").unwrap();
        symlink("..2026_11_21", dir.path().join("..data")).unwrap();
        symlink("..data/secretkey", dir.path().join("secretkey")).unwrap();

        assert_eq!(SecretKey::read(dir.path()).unwrap().bytes(), b"abc");
    }

    #[test]
    fn each_mistake_is_named_with_its_mend() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, content).unwrap();
            path
        };
        let shown = |path: &Path| format!("{}", SecretKey::read(path).unwrap_err());

        let missing = dir.path().join("missing");
        assert!(shown(&missing).ends_with(&format!("make one with: openssl rand -base64 128 > {}", missing.display())));
        let empty = SecretKey::read(&file("empty", b" \n")).unwrap_err();
        assert!(matches!(empty, SecretFileError::Invalid { source: InvalidSecret::Empty, .. }));
        let long = SecretKey::read(&file("long", &vec![b'a'; MAX_LEN + 9])).unwrap_err();
        assert!(matches!(long, SecretFileError::Invalid { source: InvalidSecret::TooLong { .. }, .. }));
        let entry = shown(dir.path());
        assert!(entry.contains("no entry \"secretkey\" (it has: empty, long)"), "{entry}");
        // A file in the place of a directory: neither missing nor readable.
        let unreadable = SecretKey::read(&file("file", b"abc").join("below")).unwrap_err();
        assert!(matches!(unreadable, SecretFileError::Unreadable { .. }), "{unreadable}");
    }
}
