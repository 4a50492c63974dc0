//! What was known of the cluster, on disk, for a start while the API server is away.
//!
//! One file, replaced whole. The time of its last change says when it was last known to be true: it is touched as long as
//! all watches are told what happens. Nothing secret is in it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use garpike_controller_api::{
    IPAddressPool, L2Advertisement, ObjectKey, Objects, ServingEndpoints, Source as Place, Sourced,
};
use k8s_openapi::api::core::v1::{Node, Service};
use kube::Resource;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{FRESH_FOR, age, now};

/// The directory of `--state-dir`.
#[derive(Debug)]
pub(crate) struct StateDir {
    file: PathBuf,
    temporary: PathBuf,
}

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    /// Files of other versions are not read.
    version: u32,
    services: Vec<Service>,
    nodes: Vec<Node>,
    pools: Vec<IPAddressPool>,
    advertisements: Vec<L2Advertisement>,
    endpoints: Vec<(String, String, ServingEndpoints)>,
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

    /// Writes `objects`.
    pub(crate) fn write(&self, objects: &Objects) -> io::Result<()> {
        if let Some(dir) = self.file.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut file = BufWriter::new(File::create(&self.temporary)?);
        serde_json::to_writer(&mut file, &Saved::of(objects))?;
        file.flush()?;
        file.get_ref().sync_data()?;
        fs::rename(&self.temporary, &self.file)
    }

    /// Notes that what was written is still true.
    pub(crate) fn touch(&self) -> io::Result<()> {
        File::options().append(true).open(&self.file)?.set_modified(now())
    }

    /// The objects, and when they were last known to be true.
    ///
    /// # Errors
    ///
    /// When there are none, or none that can be trusted at `now`.
    pub(crate) fn read(&self, now: SystemTime) -> Result<(Objects, SystemTime), ReadError> {
        let path = || self.file.display().to_string();
        let io = |source| ReadError::Io { path: path(), source };
        let file = File::open(&self.file).map_err(io)?;
        let at = file.metadata().and_then(|metadata| metadata.modified()).map_err(io)?;
        let age = age(at, now);
        if age > FRESH_FOR {
            return Err(ReadError::Old { path: path(), hours: age.as_secs() / 3600 });
        }
        let broken = |reason: String| ReadError::Broken { path: path(), reason };
        let saved: Saved = serde_json::from_reader(BufReader::new(file)).map_err(|error| broken(error.to_string()))?;
        if saved.version != VERSION {
            return Err(broken(format!("version {}, {VERSION} is read", saved.version)));
        }
        Ok((saved.into_objects(), at))
    }
}

impl Saved {
    fn of(objects: &Objects) -> Self {
        let endpoints = objects.endpoints.iter().flatten();
        // Those of Services that are not ours are many, and decide nothing.
        let endpoints = endpoints.filter(|(key, _)| objects.services.contains_key(key));
        Self {
            version: VERSION,
            services: all(&objects.services),
            nodes: all(&objects.nodes),
            pools: all(&objects.pools),
            advertisements: all(&objects.advertisements),
            endpoints: endpoints
                .map(|(key, serving)| (key.namespace.clone(), key.name.clone(), serving.clone()))
                .collect(),
        }
    }

    fn into_objects(self) -> Objects {
        let endpoints = self.endpoints.into_iter();
        let endpoints = endpoints.map(|(namespace, name, serving)| (ObjectKey { namespace, name }, serving));
        Objects {
            services: by_key(self.services),
            nodes: by_key(self.nodes),
            pools: by_key(self.pools),
            advertisements: by_key(self.advertisements),
            endpoints: Some(endpoints.collect()),
            ..Objects::default()
        }
    }
}

fn all<K: Clone>(objects: &BTreeMap<ObjectKey, Sourced<K>>) -> Vec<K> {
    objects.values().map(|sourced| sourced.object.clone()).collect()
}

fn by_key<K: Resource>(objects: Vec<K>) -> BTreeMap<ObjectKey, Sourced<K>> {
    let keyed = |object: K| (super::index::key_of(&object), Sourced { object, source: Place::default() });
    objects.into_iter().map(keyed).collect()
}

/// Of the file.
const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_written_is_read_again_until_it_is_too_old() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = StateDir::new(dir.path());
        assert!(matches!(state_dir.read(now()), Err(ReadError::Io { .. })));
        state_dir.write(&objects()).unwrap();

        let (read, at) = state_dir.read(now()).unwrap();

        assert_eq!(
            (&read.services, &read.nodes, &read.pools),
            (&objects().services, &objects().nodes, &objects().pools)
        );
        assert_eq!(read.endpoints.unwrap().len(), 1, "those of other Services decide nothing");
        let old = state_dir.read(at + FRESH_FOR + Duration::from_secs(1)).unwrap_err();
        assert!(old.to_string().contains("24 hours ago"), "{old}");
    }

    #[test]
    fn what_is_still_true_is_fresh_again() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = StateDir::new(dir.path());
        state_dir.write(&objects()).unwrap();
        let long_ago = now() - 2 * FRESH_FOR;
        File::options().append(true).open(&state_dir.file).unwrap().set_modified(long_ago).unwrap();
        assert!(matches!(state_dir.read(now()), Err(ReadError::Old { .. })));

        state_dir.touch().unwrap();

        assert!(state_dir.read(now()).is_ok());
    }

    #[test]
    fn a_broken_file_or_one_of_another_version_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = StateDir::new(dir.path());
        state_dir.write(&objects()).unwrap();
        let text = fs::read_to_string(&state_dir.file).unwrap();
        for wrong in [&text[..text.len() / 2], &text.replacen("\"version\":1", "\"version\":2", 1), "", "7"] {
            fs::write(&state_dir.file, wrong).unwrap();
            assert!(matches!(state_dir.read(now()), Err(ReadError::Broken { .. })), "{wrong}");
        }
    }

    fn objects() -> Objects {
        let named = |kind: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "a", "namespace": "b"}});
        let service: Service = serde_json::from_value(named("Service")).unwrap();
        let node: Node = serde_json::from_value(named("Node")).unwrap();
        let pool = json!({"metadata": {"name": "a", "namespace": "b"}, "spec": {"addresses": ["10.0.0.0/24"]},
            "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool"});
        let pool: IPAddressPool = serde_json::from_value(pool).unwrap();
        let key = |name: &str| ObjectKey { namespace: "b".to_owned(), name: name.to_owned() };
        let ready = || ServingEndpoints { ready: ["n1".parse().unwrap()].into(), ..ServingEndpoints::default() };
        Objects {
            services: by_key(vec![service]),
            nodes: by_key(vec![node]),
            pools: by_key(vec![pool]),
            endpoints: Some(BTreeMap::from([(key("a"), ready()), (key("other"), ready())])),
            ..Objects::default()
        }
    }
}
