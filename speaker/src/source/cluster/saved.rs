//! What the objects of the cluster meant, on disk, for a start while the API server is away.
//!
//! One file, replaced whole. The time of its last change says when it was last known to be true: it is touched as long as
//! all watches are told what happens. Nothing secret is in it.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use garpike_controller_api::{Move, Source as Place};
use garpike_election::{Desired, NodeName};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{FRESH_FOR, Origin, Rules, Snapshot, age, now};

/// The directory of `--state-dir`.
#[derive(Debug)]
pub(crate) struct StateDir {
    file: PathBuf,
    temporary: PathBuf,
}

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct Saved<'a> {
    /// Files of other versions are not read.
    version: u32,
    /// How the rest was judged. What was judged otherwise is not read.
    rules: Cow<'a, Rules>,
    desired: Cow<'a, Desired>,
    drained: Vec<NodeName>,
    moves: Cow<'a, [Move]>,
}

/// Why there is nothing to start from.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// It is not what this version writes.
    #[error("{path} is broken or of another version: {reason}")]
    Broken {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// It was judged by other flags.
    #[error("{path} was written with another --lb-class, --namespace or --ignore-exclude-lb")]
    OtherFlags {
        /// The file.
        path: String,
    },
    /// It is too old.
    #[error("{path} was last true {hours} hours ago, which is too long")]
    Old {
        /// The file.
        path: String,
        /// Its age.
        hours: u64,
    },
}

impl StateDir {
    /// The directory at `path`.
    pub(crate) fn new(path: &Path) -> Self {
        let (file, temporary) = (path.join("cluster.json"), path.join("cluster.json.new"));
        Self { file, temporary }
    }

    /// Writes what was judged by `rules`.
    pub(crate) fn write(&self, rules: &Rules, snapshot: &Snapshot) -> io::Result<()> {
        if let Some(dir) = self.file.parent() {
            fs::create_dir_all(dir)?;
        }
        let saved = Saved {
            version: VERSION,
            rules: Cow::Borrowed(rules),
            desired: Cow::Borrowed(&snapshot.desired),
            drained: snapshot.drained.keys().cloned().collect(),
            moves: Cow::Borrowed(&snapshot.moves),
        };
        let mut file = BufWriter::new(File::create(&self.temporary)?);
        serde_json::to_writer(&mut file, &saved)?;
        file.flush()?;
        file.get_ref().sync_data()?;
        fs::rename(&self.temporary, &self.file)
    }

    /// Notes that what was written is still true.
    pub(crate) fn touch(&self) -> io::Result<()> {
        File::options().append(true).open(&self.file)?.set_modified(now())
    }

    /// What was written, and when it was last known to be true.
    ///
    /// # Errors
    ///
    /// When there is nothing, or nothing that can be trusted at `now` and goes by the same `rules`.
    pub(crate) fn read(&self, rules: &Rules, now: SystemTime) -> Result<(Snapshot, SystemTime), ReadError> {
        let path = || self.file.display().to_string();
        let io = |source| ReadError::Io { path: path(), source };
        let file = File::open(&self.file).map_err(io)?;
        let at = file.metadata().and_then(|metadata| metadata.modified()).map_err(io)?;
        let age = age(at, now);
        if age > FRESH_FOR {
            return Err(ReadError::Old { path: path(), hours: age.as_secs() / 3600 });
        }
        let broken = |reason: String| ReadError::Broken { path: path(), reason };
        let saved: Saved<'_> =
            serde_json::from_reader(BufReader::new(file)).map_err(|error| broken(error.to_string()))?;
        if saved.version != VERSION {
            return Err(broken(format!("version {}, {VERSION} is read", saved.version)));
        }
        if *saved.rules != *rules {
            return Err(ReadError::OtherFlags { path: path() });
        }
        Ok((saved.into_snapshot(at, now), at))
    }
}

impl Saved<'_> {
    fn into_snapshot(self, at: SystemTime, now: SystemTime) -> Snapshot {
        let (mut desired, mut moves) = (self.desired.into_owned(), self.moves.into_owned());
        moves.retain(|moved| {
            let lasts = moved.chosen.until > now;
            if !lasts {
                desired.moves.retain(|ip, _| !moved.addresses.contains(ip));
            }
            lasts
        });
        let drained = self.drained.into_iter().map(|node| (node, Place::default())).collect();
        Snapshot { desired: Arc::new(desired), drained, moves, problems: Vec::new(), origin: Origin::Saved { at } }
    }
}

/// Of the file.
const VERSION: u32 = 2;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use garpike_controller_api::{ChosenOwner, Scope};
    use garpike_election::{Address, Endpoints, LocalEndpoints, Placement, Selection, ServiceIp, ServiceKey};

    use super::super::super::ExcludeLabel;
    use super::*;

    #[test]
    fn what_was_written_is_read_again_until_it_is_too_old() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = StateDir::new(dir.path());
        assert!(matches!(state_dir.read(&rules(), now()), Err(ReadError::Io { .. })));
        let written = snapshot();
        state_dir.write(&rules(), &written).unwrap();

        let (read, at) = state_dir.read(&rules(), now()).unwrap();

        assert_eq!(read, Snapshot { origin: Origin::Saved { at }, ..written });
        let old = state_dir.read(&rules(), at + FRESH_FOR + Duration::from_secs(1)).unwrap_err();
        assert!(old.to_string().contains("24 hours ago"), "{old}");
    }

    #[test]
    fn a_choice_that_ended_meanwhile_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = StateDir::new(dir.path());
        let written = snapshot();
        state_dir.write(&rules(), &written).unwrap();

        let (read, _) = state_dir.read(&rules(), written.moves[0].chosen.until).unwrap();

        assert_eq!((read.moves, &read.desired.moves), (vec![], &BTreeMap::new()));
        assert_eq!(read.desired.addresses, written.desired.addresses);
    }

    #[test]
    fn what_is_still_true_is_fresh_again() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = StateDir::new(dir.path());
        state_dir.write(&rules(), &snapshot()).unwrap();
        let long_ago = now() - 2 * FRESH_FOR;
        File::options().append(true).open(&state_dir.file).unwrap().set_modified(long_ago).unwrap();
        assert!(matches!(state_dir.read(&rules(), now()), Err(ReadError::Old { .. })));

        state_dir.touch().unwrap();

        assert!(state_dir.read(&rules(), now()).is_ok());
    }

    #[test]
    fn a_broken_file_or_one_of_another_version_or_of_other_flags_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = StateDir::new(dir.path());
        state_dir.write(&rules(), &snapshot()).unwrap();
        let other = Rules { exclude_label: ExcludeLabel::Ignored, ..rules() };
        let refused = state_dir.read(&other, now()).unwrap_err();
        assert!(refused.to_string().contains("--ignore-exclude-lb"), "{refused}");
        let text = fs::read_to_string(&state_dir.file).unwrap();
        for wrong in [&text[..text.len() / 2], &text.replacen("\"version\":2", "\"version\":1", 1), "", "7"] {
            fs::write(&state_dir.file, wrong).unwrap();
            assert!(matches!(state_dir.read(&rules(), now()), Err(ReadError::Broken { .. })), "{wrong}");
        }
    }

    fn rules() -> Rules {
        Rules { scope: Scope::default(), exclude_label: ExcludeLabel::Excludes }
    }

    /// Two addresses, one of them moved, and a node that is drained.
    fn snapshot() -> Snapshot {
        let ips: [ServiceIp; 2] = ["10.0.0.1", "fc00::1"].map(|ip| ip.parse().unwrap());
        let [n1, n2] = ["n1", "n2"].map(|name| name.parse::<NodeName>().unwrap());
        let service = ServiceKey::new("default", "web");
        let interfaces = Selection::Only(BTreeSet::from(["eth0".parse().unwrap()]));
        let local = LocalEndpoints { ready: BTreeSet::from([n1.clone()]), terminating: BTreeSet::new() };
        let endpoints = [Endpoints::Anywhere, Endpoints::Local(Box::new(local))];
        let addresses = ips.into_iter().zip(endpoints).map(|(ip, endpoints)| {
            let placements = vec![Placement { nodes: Selection::All, interfaces: interfaces.clone() }];
            (ip, Address { election_key: ip, services: Box::new([service.clone()]), placements, endpoints })
        });
        let desired = Desired {
            addresses: addresses.collect(),
            excluded: BTreeSet::from([n2.clone()]),
            moves: BTreeMap::from([(ips[0], n1.clone())]),
            roster: BTreeSet::from([n1.clone(), n2.clone()]),
        };
        let until = now() + Duration::from_secs(3600);
        let chosen = ChosenOwner { node: n1, until };
        let addresses = BTreeSet::from([ips[0]]);
        let moves = vec![Move { services: vec![service], addresses, chosen, source: Place::default() }];
        let drained = BTreeMap::from([(n2, Place::default())]);
        Snapshot { desired: Arc::new(desired), drained, moves, problems: Vec::new(), origin: Origin::Live }
    }
}
