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
