//! Where the speakers of a lab take their objects from, and what an operator changes there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use garpike_election::{NodeName, ServiceIp};
use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::Value;

use super::ECHO_PORT;
use crate::api_host::{Addresses, ApiHost, speaker_arguments};
use crate::judged;
use crate::lab::{Lab, now};
use crate::objects::{self, Endpoint, TrafficPolicy};

/// What the speakers are to know.
pub(crate) enum Wanted {
    /// In a directory.
    Files {
        /// The directory.
        manifests: PathBuf,
    },
    /// In a cluster.
    Cluster {
        /// The API server, while it runs.
        api: Option<Box<ApiHost>>,
        /// With the rights of a speaker.
        kubeconfig: PathBuf,
    },
}

impl Wanted {
    /// Writes manifests, and gives the addresses that `garpike allocate` gives the Services.
    pub(super) fn in_files(lab: &Lab<'_>, pools: &str, services: usize) -> Result<(Self, Vec<ServiceIp>)> {
        let manifests = lab.scratch().join("manifests");
        fs::create_dir_all(&manifests).context("cannot create the directory of the manifests")?;
        fs::write(manifests.join("first-pool.yaml"), pools)?;
        fs::write(manifests.join("services.yaml"), names(services).map(|name| manifest(&name)).collect::<String>())?;
        let ips = allocate(&manifests)?;
        Ok((Self::Files { manifests }, ips))
    }

    /// Starts an API server and a controller, writes the same objects, and gives the addresses that the controller gives the
    /// Services. Each has a pod on every node.
    pub(super) fn in_cluster(lab: &mut Lab<'_>, pools: &str, services: usize) -> Result<(Self, Vec<ServiceIp>)> {
        let api = ApiHost::start(lab, Addresses::ByController).context("cannot start the Kubernetes API")?;
        let mut wanted = Vec::new();
        for document in pools.split("---\n") {
            wanted.push(serde_saphyr::from_str::<Value>(document).context("the lab's own manifests")?);
        }
        let endpoints: Vec<Endpoint> = lab.nodes().map(Endpoint::ready).collect();
        let all: Vec<String> = names(services).collect();
        for name in &all {
            wanted.push(objects::service(name, &FAMILIES, TrafficPolicy::Cluster));
            wanted.extend(FAMILIES.iter().map(|family| objects::slice(name, family, &endpoints)));
        }
        api.write(wanted)?;
        let ips = api.run(async move |client| addresses(client, &all).await)?;
        let kubeconfig = api.kubeconfig().to_owned();
        Ok((Self::Cluster { api: Some(Box::new(api)), kubeconfig }, ips))
    }

    /// The speaker of a node with the arguments that say where its objects and its peers are.
    pub(super) fn speaker(&self, lab: &Lab<'_>, node: &NodeName) -> Result<Command> {
        match self {
            Self::Files { manifests } => {
                let mut command = Command::new(judged::program());
                command.args(["speaker", "--node-name", node.as_str()]).arg("--manifests").arg(manifests);
                command.arg("--ml-bindaddr").arg(lab.host_inside(node)?.v4.to_string());
                let mut peers = Vec::new();
                for peer in lab.nodes().filter(|peer| *peer != node) {
                    peers.push(lab.host_inside(peer)?.v4.to_string());
                }
                if !peers.is_empty() {
                    command.arg("--join").arg(peers.join(","));
                }
                Ok(command)
            }
            Self::Cluster { kubeconfig, .. } => {
                let mut command = speaker_arguments(lab, node, kubeconfig)?;
                // There is no kube-proxy.
                command.args(["--bind-service-ips", "lo"]);
                Ok(command)
            }
        }
    }

    /// Kills the API server, if there is one.
    pub(super) fn kill_api_server(&mut self) {
        match self {
            Self::Files { .. } => {}
            Self::Cluster { api, .. } => drop(api.take()),
        }
    }
}

/// Waits until the controller has given every Service its addresses.
async fn addresses(client: Client, names: &[String]) -> Result<Vec<ServiceIp>> {
    let services: Api<Service> = Api::namespaced(client, objects::NAMESPACE);
    let begun = now();
    loop {
        let found = services.list(&ListParams::default()).await?.items;
        let held: BTreeMap<String, Vec<ServiceIp>> =
            found.iter().filter_map(|service| Some((service.metadata.name.clone()?, held(service)))).collect();
        let all: Vec<&Vec<ServiceIp>> = names.iter().filter_map(|name| held.get(name)).collect();
        if all.len() == names.len() && all.iter().all(|ips| ips.len() == FAMILIES.len()) {
            return Ok(all.into_iter().flatten().copied().collect());
        }
        if begun.elapsed() > ALLOCATED_WITHIN {
            bail!("the controller has not given every Service its addresses after {ALLOCATED_WITHIN:?}: {held:?}");
        }
        tokio::time::sleep(POLL).await;
    }
}

fn held(service: &Service) -> Vec<ServiceIp> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
    ingress.filter_map(|entry| ServiceIp::new(entry.ip.as_ref()?.parse().ok()?).ok()).collect()
}

/// Gives the Services addresses, as `garpike allocate DIR` does, and returns them.
fn allocate(manifests: &Path) -> Result<Vec<ServiceIp>> {
    let report = garpike_controller::allocate::allocate(manifests)?;
    if let Some(problem) = report.problems.first() {
        bail!("the lab's own manifests: {problem}");
    }
    if let Some(failed) = report.failed.first() {
        bail!("the lab's own manifests: Service {}: {}", failed.service, failed.refusal);
    }
    Ok(report.allocated.into_iter().flat_map(|allocated| allocated.addresses).collect())
}

/// The names of so many Services. The first one is probed.
fn names(services: usize) -> impl Iterator<Item = String> {
    (0..services).map(|index| if index == 0 { "web".to_owned() } else { format!("web-{index}") })
}

fn manifest(name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  type: LoadBalancer\n  \
         ipFamilyPolicy: RequireDualStack\n  ipFamilies: [IPv4, IPv6]\n  ports:\n  - port: {ECHO_PORT}\n    \
         protocol: UDP\n"
    )
}

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
/// Chosen: many times what a start of the controller takes.
const ALLOCATED_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
