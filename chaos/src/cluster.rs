//! A whole Kubernetes cluster in one machine: the lab with a control plane, and a kubelet on every host.
//!
//! Nothing is faked: etcd, kube-apiserver, controller-manager, scheduler, kubelet, kube-proxy, containerd and CNI are the real
//! ones. A node is a host of the lab with mount, PID, UTS, IPC and cgroup namespaces besides; ending its first process is an
//! exact power cut. Needs root, and the version 1 hierarchies of cgroups. Everything ends with the lab, but for empty cgroups
//! after SIGKILL, which the next one removes.
//!
//! ```text
//!   n1, n2, n3: containerd, kubelet, kube-proxy, pods ──┐
//!   n4: etcd, kube-apiserver, ...                       ├─ bridge ── client
//! ```
//!
//! Of two links the first is for clients alone; hosts and pods reach each other by the second.

mod cgroups;
mod control;
mod image;
mod install;
mod kubectl;
mod node;
mod pki;
mod scenario;
mod site;

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use garpike_election::NodeName;
use nix::mount::{MsFlags, mount};

pub(crate) use scenario::run;
pub use scenario::{Args, Scenario, Source};

use crate::lab::{Init, Lab, LabConfig, Links, now};
use cgroups::Cgroups;
use image::Images;
use pki::Pki;

/// A running cluster. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Cluster<'init> {
    // The processes end before their cgroups go.
    pub(crate) lab: Lab<'init>,
    cgroups: Cgroups,
    nodes: Vec<NodeName>,
    links: Links,
    control: NodeName,
    directory: PathBuf,
}

impl<'init> Cluster<'init> {
    /// Starts one and waits until all nodes are ready; `images` are on every node.
    pub(crate) fn start(init: &'init mut Init, nodes: u8, links: Links, images: &Images<'_>) -> Result<Self> {
        if !is_root()? {
            bail!(
                "--source cluster needs root, not only in a user namespace: kubelet and containerd mount and set limits"
            );
        }
        let directory = state_directory(init)?;
        images.write(&directory.join("images")).context("cannot pack the images")?;
        let lab = Lab::build(init, LabConfig { nodes: usize::from(nodes) + 1, links })?;
        let mut names: Vec<NodeName> = lab.nodes().cloned().collect();
        names.sort_by_key(|name| (name.as_str().len(), name.clone()));
        let control = names.pop().context("a lab has a host")?;
        let cgroups = Cgroups::new(names.iter().map(NodeName::as_str))?;
        let mut cluster = Self { lab, cgroups, nodes: names, links, control, directory };
        let started = cluster.boot();
        cluster.explained(started)
    }

    /// Its nodes, in order; without the control plane.
    pub(crate) fn nodes(&self) -> &[NodeName] {
        &self.nodes
    }

    /// With the logs kept, and where they are, when something went wrong.
    pub(crate) fn explained<T>(mut self, result: Result<T>) -> Result<Self> {
        match result {
            Ok(_) => Ok(self),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// The error with what died meanwhile, and with the place where the logs are kept.
    pub(crate) fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        let error = self.lab.unexpected_exits().iter().fold(error, |error, exit| error.context(exit.to_string()));
        match self.lab.keep_logs() {
            Ok(path) => error.context(format!("the logs of the cluster are in {}", path.display())),
            Err(_) => error,
        }
    }

    fn boot(&mut self) -> Result<()> {
        let pki = Pki::new(&self.directory.join("pki"))?;
        self.lay_routes()?;
        self.start_control(&pki)?;
        for index in 0..self.nodes.len() {
            self.write_node(index, &pki)?;
            self.start_node(index)?;
        }
        self.wait_for_nodes()
    }

    /// Waits until every node is ready and pods can be made.
    pub(crate) fn wait_for_nodes(&mut self) -> Result<()> {
        let all = self.nodes.len();
        self.wait_until("all nodes are ready", READY_WITHIN, |cluster| {
            cluster.fail_if_something_ended()?;
            let nodes = cluster.get("nodes", &[])?;
            let ready = items(&nodes).filter(|node| is_true(node, "Ready")).count();
            Ok((ready == all).then_some(()))
        })?;
        // Pods are refused until the controller-manager has made it.
        self.wait_until("the default ServiceAccount is there", READY_WITHIN, |cluster| {
            Ok(cluster.get("serviceaccount/default", &[]).ok().map(drop))
        })
    }

    /// Asks until there is an answer. An error of `condition` is one of the moment, and told when time is up.
    pub(crate) fn wait_until<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut condition: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = now() + within;
        loop {
            let last = condition(self);
            match last {
                Ok(Some(found)) => return Ok(found),
                Ok(None) if now() >= deadline => bail!("after {within:?} it is not so that {what}"),
                Err(error) if now() >= deadline => {
                    return Err(error.context(format!("after {within:?} it is not so that {what}")));
                }
                Ok(None) | Err(_) => thread::sleep(POLL),
            }
        }
    }

    fn fail_if_something_ended(&mut self) -> Result<()> {
        match self.lab.unexpected_exits().first() {
            Some(exit) => bail!("{exit}"),
            None => Ok(()),
        }
    }

    /// Takes a node's power: it falls silent at once.
    pub(crate) fn power_off(&mut self, node: &NodeName) -> Result<Instant> {
        Ok(self.lab.power_off(node)?)
    }

    /// Gives it back: the node boots, with the disk that it had.
    pub(crate) fn power_on(&mut self, node: &NodeName) -> Result<Instant> {
        let index = self.nodes.iter().position(|name| name == node).context("it is no node of the cluster")?;
        self.cgroups.renew(node.as_str())?;
        self.forget_network(node)?;
        let begun = self.lab.power_on(node)?;
        self.start_node(index)?;
        Ok(begun)
    }

    fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.join(name)
    }
}

/// Whether this user is the root of the whole machine (user_namespaces(7): the first one maps all numbers to themselves).
fn is_root() -> Result<bool> {
    let map = fs::read_to_string("/proc/self/uid_map").context("cannot read /proc/self/uid_map")?;
    let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    Ok(whole && nix::unistd::geteuid().is_root())
}

/// A file system that goes with the lab. Not the scratch directory itself: that one ignores the capabilities of files.
fn state_directory(init: &Init) -> Result<PathBuf> {
    let directory = init.scratch().join("cluster");
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    mount(Some("garpike-cluster"), &directory, Some("tmpfs"), MsFlags::empty(), Some("mode=0755,size=90%"))
        .with_context(|| format!("cannot mount {}", directory.display()))?;
    Ok(directory)
}

/// The objects of a list.
fn items(list: &serde_json::Value) -> impl Iterator<Item = &serde_json::Value> {
    list.get("items").and_then(serde_json::Value::as_array).into_iter().flatten()
}

/// Whether an object's status has such a condition with the status True.
fn is_true(object: &serde_json::Value, condition: &str) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(serde_json::Value::as_array);
    conditions.into_iter().flatten().any(|found| {
        found.get("type").is_some_and(|kind| kind == condition)
            && found.get("status").is_some_and(|status| status == "True")
    })
}

/// Addresses in the plan of the cluster: those of hosts are the lab's.
const SERVICES_V4: &str = "10.96.0.0/16";
const SERVICES_V6: &str = "fd00:10:96::/112";
const PODS: &str = "10.244.0.0/16,fd00:10:244::/48";
/// The gateway of the hosts, which nobody has: a packet to a ClusterIP must have a route before kube-proxy may rewrite it.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 8, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfc00, 0xf853, 0x0ccd, 0xe799, 0, 0, 1, 1);
/// Measured: 5 s alone, 13 s under load; chosen with room.
const READY_WITHIN: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(200);
