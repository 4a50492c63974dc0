//! New keys, and their way into files.
//!
//! Invariant: whenever it is interrupted, every file holds a whole key, and in a directory the key that was there before is
//! never missing. It does not reach other hosts.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rand::TryRng;
use rand::rngs::SysRng;
use thiserror::Error;
use zeroize::Zeroizing;

use super::SecretFileError;
use super::secret_file::{ENTRY, entries, is_secret_mount};
use crate::{Keyring, SecretKey};

/// What a rotation did.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// The file that holds the new secret.
    pub written: PathBuf,
    /// The new secret.
    pub new: SecretKey,
    /// The secret that was there, unless it was unusable.
    pub old: Option<SecretKey>,
    /// The file in which the old one stays in force; `None` where a single file is all there is.
    pub kept: Option<PathBuf>,
}

/// Why a secret was not rotated. Nothing has changed then, but for a second copy of the old one in the worst case.
#[derive(Debug, Error)]
pub enum RotateKeyError {
    /// The path cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// The kubelet would write over it.
    #[error("{} is the mount of a Kubernetes Secret: change the Secret, \"garpike keys rotate --kubernetes\" tells how", .path.display())]
    SecretMount {
        /// The directory.
        path: PathBuf,
    },
    /// The directory is full.
    #[error(
        "the directory {} holds {count} keys and at most {} are used: remove the oldest that no node needs any more, \
         \"garpike keys status\" tells",
        .path.display(), Keyring::IN_FORCE_MAX
    )]
    TooMany {
        /// The directory.
        path: PathBuf,
        /// How many keys it holds.
        count: usize,
    },
    /// The name for the old key is taken.
    #[error("{} exists already: wait a second and try again", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("{} cannot be written; this user needs to write to its directory", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// A new secret: 128 random bytes as `openssl rand -base64 128` writes them.
///
/// # Panics
///
/// When the operating system has no random numbers.
pub fn generate_secret() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; SECRET_LEN]);
    SysRng.try_fill_bytes(&mut *bytes).expect("the operating system gives random numbers");
    base64_lines(&*bytes)
}

/// Puts a new secret at `path`.
///
/// In a directory it becomes the entry `secretkey`, and the old one stays beside it as `old-<time>`, so that a speaker that
/// restarts before the other hosts have the new one still understands them. A single file is replaced.
///
/// # Errors
///
/// When there is no secret at `path`, no room for another one, or no right to write.
pub fn rotate_key(path: &Path, now: SystemTime) -> Result<Rotated, RotateKeyError> {
    let directory = if path.is_dir() { Some(path) } else { path.parent() };
    if directory.is_some_and(is_secret_mount) {
        return Err(RotateKeyError::SecretMount { path: path.to_owned() });
    }
    let found = entries(path)?;
    let text = generate_secret();
    let new = SecretKey::parse(text.as_bytes()).expect("base64 is a secret");
    let (target, kept) = if path.is_dir() {
        (path.join(ENTRY), Some(path.join(format!("old-{}", stamp(now)))))
    } else {
        (path.to_owned(), None)
    };
    // A link stays a link.
    let target = fs::canonicalize(&target).unwrap_or(target);
    let old = SecretKey::read(&target).ok();
    let kept = kept.filter(|_| old.is_some());
    if path.is_dir() && found.len() >= Keyring::IN_FORCE_MAX {
        return Err(RotateKeyError::TooMany { path: path.to_owned(), count: found.len() });
    }
    if let (Some(kept), Some(old)) = (&kept, &old) {
        if kept.exists() {
            return Err(RotateKeyError::Exists { path: kept.clone() });
        }
        write(kept, old.bytes(), &target)
            .map_err(|source| RotateKeyError::Unwritable { path: kept.clone(), source })?;
        // Its age is that of the key: at the next start it is the older one.
        let modified = fs::metadata(&target).and_then(|metadata| metadata.modified());
        let aged = modified.and_then(|modified| File::options().write(true).open(kept)?.set_modified(modified));
        aged.map_err(|source| RotateKeyError::Unwritable { path: kept.clone(), source })?;
    }
    let written = target.clone();
    write(&target, text.as_bytes(), &target).map_err(|source| RotateKeyError::Unwritable { path: target, source })?;
    Ok(Rotated { written, new, old, kept })
}

/// Writes a file at once or not at all, with mode 0600 and the owner of the file `like`.
fn write(path: &Path, bytes: &[u8], like: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    // A name that no reader of keys looks at.
    let mut file = tempfile::Builder::new().prefix(".garpike-").tempfile_in(directory)?;
    file.write_all(bytes)?;
    if let Ok(owner) = fs::metadata(like) {
        let own = file.as_file().metadata()?;
        if (own.uid(), own.gid()) != (owner.uid(), owner.gid()) {
            fchown(file.as_file(), Some(owner.uid()), Some(owner.gid()))?;
        }
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

/// The time in UTC, such that names sort by it: `20261121T101500Z`.
fn stamp(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March end with the day that some of them lack; 719 468 days lie between 0000-03-01 and 1970.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// RFC 4648 section 4, in lines of 64 characters as of RFC 7468 section 2.
fn base64_lines(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 2));
    for (index, chunk) in bytes.chunks(3).enumerate() {
        if index > 0 && index % (LINE_LEN / 4) == 0 {
            text.push('\n');
        }
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let group = (at(0) << 16) | (at(1) << 8) | at(2);
        for digit in 0..4_u32 {
            let value = usize::try_from(group >> (18 - 6 * digit) & 0x3f).expect("six bits");
            let padding = usize::try_from(digit).is_ok_and(|digit| digit > chunk.len());
            let character = ALPHABET.get(value).filter(|_| !padding).copied().unwrap_or(b'=');
            text.push(char::from(character));
        }
    }
    text.push('\n');
    text
}

/// As long as what people make with openssl: more than the 32 bytes of any key derived from it.
const SECRET_LEN: usize = 128;

const LINE_LEN: usize = 64;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::time::Duration;

    use super::*;
    use crate::secret::MAX_LEN;

    #[test]
    fn base64_is_that_of_openssl() {
        // The vectors of RFC 4648 section 10; the last line by `openssl base64`.
        let cases: [(&[u8], &str); 8] = [
            (b"f", "Zg==\n"),
            (b"fo", "Zm8=\n"),
            (b"foo", "Zm9v\n"),
            (b"foob", "Zm9vYg==\n"),
            (b"fooba", "Zm9vYmE=\n"),
            (b"foobar", "Zm9vYmFy\n"),
            (&[0xfb; 3], "+/v7\n"),
            (&[0xff; 49], "////////////////////////////////////////////////////////////////\n/w==\n"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(*base64_lines(bytes), expected);
        }
    }

    #[test]
    fn a_generated_secret_is_three_lines_and_never_the_same() {
        let (a, b) = (generate_secret(), generate_secret());

        assert_eq!(a.lines().map(str::len).collect::<Vec<_>>(), [64, 64, 44]);
        assert_ne!(a, b);
    }

    #[test]
    fn a_rotation_of_a_directory_keeps_the_old_key_beside_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secretkey");
        fs::write(&path, "A\n").unwrap();
        let hour_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(3600);
        File::options().write(true).open(&path).unwrap().set_modified(hour_ago).unwrap();

        let rotated = rotate_key(dir.path(), at(TIME)).unwrap();

        assert_eq!(rotated.kept, Some(dir.path().join("old-20261121T101500Z")));
        assert_eq!(rotated.old.unwrap().bytes(), b"A");
        let found: Vec<Vec<u8>> =
            entries(dir.path()).unwrap().into_iter().map(|entry| entry.secret.unwrap().bytes().to_vec()).collect();
        assert_eq!(found, [b"A".to_vec(), rotated.new.bytes().to_vec()], "the older one first");
        assert_eq!(SecretKey::read(&path).unwrap().bytes(), rotated.new.bytes());
        for entry in ["secretkey", "old-20261121T101500Z"] {
            assert_eq!(fs::metadata(dir.path().join(entry)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left behind");
    }

    #[test]
    fn a_rotation_of_a_file_replaces_it_and_a_link_to_it_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("key"), dir.path().join("link"));
        fs::write(&path, "A").unwrap();
        symlink("key", &link).unwrap();

        let rotated = rotate_key(&link, at(TIME)).unwrap();

        assert_eq!(rotated.kept, None);
        assert!(link.is_symlink());
        assert_eq!(SecretKey::read(&path).unwrap().bytes(), rotated.new.bytes());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn an_unusable_key_is_replaced_and_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secretkey"), "").unwrap();

        let rotated = rotate_key(dir.path(), at(TIME)).unwrap();

        assert!(rotated.old.is_none() && rotated.kept.is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_rotated_is_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let text = |path: &Path| rotate_key(path, at(TIME)).unwrap_err().to_string();
        let missing = dir.path().join("missing");
        assert!(text(&missing).contains("there is no secret at"), "{}", text(&missing));
        assert!(!missing.exists());

        for index in 0..Keyring::IN_FORCE_MAX {
            fs::write(dir.path().join(format!("key-{index}")), index.to_string()).unwrap();
        }
        assert!(text(dir.path()).contains("holds 8 keys"), "{}", text(dir.path()));
        fs::remove_file(dir.path().join("key-0")).unwrap();
        fs::write(dir.path().join("secretkey"), "A").unwrap();
        fs::remove_file(dir.path().join("key-1")).unwrap();
        fs::write(dir.path().join("old-20261121T101500Z"), "taken").unwrap();
        fs::remove_file(dir.path().join("key-2")).unwrap();
        assert!(text(dir.path()).contains("old-20261121T101500Z exists"), "{}", text(dir.path()));
        assert_eq!(fs::read_to_string(dir.path().join("secretkey")).unwrap(), "A");

        let mount = tempfile::tempdir().unwrap();
        fs::create_dir(mount.path().join("..version")).unwrap();
        symlink("..version", mount.path().join("..data")).unwrap();
        fs::write(mount.path().join("secretkey"), "A").unwrap();
        for path in [mount.path().to_owned(), mount.path().join("secretkey")] {
            assert!(text(&path).contains("garpike keys rotate --kubernetes"), "{}", text(&path));
        }
    }

    #[test]
    fn a_stamp_is_the_time_in_utc() {
        // `date -u -d @N +%Y%m%dT%H%M%SZ`
        let cases = [
            (0, "19700101T000000Z"),
            (951_782_400, "20000229T000000Z"),
            (1_709_251_199, "20240229T235959Z"),
            (1_735_689_599, "20241231T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
            (TIME, "20261121T101500Z"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(stamp(at(seconds)), expected);
        }
    }

    #[test]
    fn what_is_generated_is_accepted() {
        assert!(SecretKey::parse(generate_secret().as_bytes()).is_ok());
        assert!(generate_secret().len() < MAX_LEN);
    }

    const TIME: u64 = 1_795_256_100;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }
}
