//! A cgroup of each hierarchy for each node, so that its kubelet sees a root of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

use crate::lab::now;

/// The cgroups of one cluster. Dropping it removes them.
#[derive(Debug)]
pub(super) struct Cgroups {
    hierarchies: Vec<String>,
    prefix: String,
    nodes: Vec<String>,
}

impl Cgroups {
    /// Makes them, and removes what a cluster has left behind that was killed.
    pub(super) fn new<'n>(nodes: impl Iterator<Item = &'n str>) -> Result<Self> {
        let hierarchies = hierarchies().context("cannot read /proc/mounts")?;
        if !hierarchies.iter().any(|name| name == "memory") {
            bail!(
                "the cluster lab needs the version 1 hierarchies of cgroups (mounted below {ROOT}), and this system has none: \
                 boot it with systemd.unified_cgroup_hierarchy=0"
            );
        }
        let groups =
            Self { hierarchies, prefix: format!("{PREFIX}{}", unique()), nodes: nodes.map(str::to_owned).collect() };
        for hierarchy in &groups.hierarchies {
            sweep(&Path::new(ROOT).join(hierarchy));
        }
        for node in groups.nodes.clone() {
            groups.make(&node)?;
        }
        Ok(groups)
    }

    /// The hierarchies by name.
    pub(super) fn hierarchies(&self) -> &[String] {
        &self.hierarchies
    }

    /// What a node's cgroup is called in every hierarchy.
    pub(super) fn name(&self, node: &str) -> String {
        format!("{}-{node}", self.prefix)
    }

    /// Removes what a node has left in them, as a reboot does.
    pub(super) fn renew(&self, node: &str) -> Result<()> {
        self.remove(node);
        self.make(node)
    }

    fn paths(&self, node: &str) -> impl Iterator<Item = (&str, PathBuf)> {
        let name = self.name(node);
        self.hierarchies.iter().map(move |hierarchy| (hierarchy.as_str(), Path::new(ROOT).join(hierarchy).join(&name)))
    }

    fn make(&self, node: &str) -> Result<()> {
        for (hierarchy, path) in self.paths(node) {
            let made = fs::create_dir_all(&path).and_then(|()| {
                // cpuset(7): no process may enter before both are set.
                for file in ["cpuset.cpus", "cpuset.mems"].iter().filter(|_| hierarchy == "cpuset") {
                    fs::write(path.join(file), fs::read(Path::new(ROOT).join(hierarchy).join(file))?)?;
                }
                Ok(())
            });
            made.with_context(|| format!("cannot make {}", path.display()))?;
        }
        Ok(())
    }

    fn remove(&self, node: &str) {
        let deadline = now() + ENDS_WITHIN;
        for (_, path) in self.paths(node) {
            // Its processes have been killed and may not all have gone.
            while path.exists() && remove_tree(&path).is_err() && now() < deadline {
                thread::sleep(POLL);
            }
        }
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for node in &self.nodes {
            self.remove(node);
        }
    }
}

/// Removes the trees of clusters that are no more: in which no process is.
fn sweep(hierarchy: &Path) {
    let Ok(entries) = fs::read_dir(hierarchy) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        if is_empty(&entry.path()) {
            let _ = remove_tree(&entry.path());
        }
    }
}

fn is_empty(tree: &Path) -> bool {
    let here = fs::read_to_string(tree.join("cgroup.procs")).is_ok_and(|processes| processes.is_empty());
    here && directories(tree).iter().all(|child| is_empty(child))
}

fn remove_tree(tree: &Path) -> io::Result<()> {
    for child in directories(tree) {
        remove_tree(&child)?;
    }
    fs::remove_dir(tree)
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn hierarchies() -> io::Result<Vec<String>> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let of_version_1 = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        path.strip_prefix(ROOT)?.strip_prefix('/').filter(|_| kind == "cgroup").map(str::to_owned)
    });
    Ok(of_version_1.collect())
}

/// Two clusters may run side by side.
#[expect(clippy::disallowed_methods, reason = "a name is made of the time")]
fn unique() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}", since.as_micros() & 0xffff_ffff)
}

const ROOT: &str = "/sys/fs/cgroup";
const PREFIX: &str = "garpike-cluster-";
/// SIGKILL needs one scheduling of each process; chosen with room for a machine under load.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
