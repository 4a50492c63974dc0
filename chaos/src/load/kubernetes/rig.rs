//! A lab whose speakers take thousands of Services from an API server.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use garpike_election::{NodeName, ServiceIp};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::api_host::{Addresses, ApiHost, NAMESPACE, speaker_arguments};
use crate::fleet::Usage;
use crate::kube::Request;
use crate::lab::{Init, Lab, LabConfig, Links, Role, Tapped, now};
use crate::objects::{self, Endpoint, TrafficPolicy};

/// A lab with an API server.
pub(super) struct Rig<'init> {
    pub(super) lab: Lab<'init>,
    pub(super) api: ApiHost,
    speakers: BTreeMap<NodeName, Pid>,
    /// The value of `--bind-service-ips`.
    bind: &'static str,
}

/// A Service to be made.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) name: String,
    /// The address in its status, if it has one.
    pub(super) ip: Option<ServiceIp>,
    pub(super) policy: TrafficPolicy,
    pub(super) endpoints: Vec<Endpoint>,
}

impl<'init> Rig<'init> {
    /// Builds a lab with an API server, a pool and an advertisement. No speaker runs yet.
    pub(super) fn build(init: &'init mut Init, nodes: usize) -> Result<Self> {
        let mut lab = Lab::build(init, LabConfig { nodes, links: Links::One }).context("cannot build the lab")?;
        fs::write(lab.scratch().join(KEY), "a lab that nobody else reaches needs no secret of its own\n")?;
        let api = ApiHost::start(&mut lab, Addresses::ByHand)?;
        let pool = |kind: &str, spec: Value| {
            json!({
                "apiVersion": "metallb.io/v1beta1", "kind": kind,
                "metadata": {"name": "many", "namespace": NAMESPACE}, "spec": spec,
            })
        };
        api.write(vec![
            pool("IPAddressPool", json!({"addresses": POOL})),
            pool("L2Advertisement", json!({"ipAddressPools": ["many"]})),
        ])?;
        Ok(Self { lab, api, speakers: BTreeMap::new(), bind: "lo" })
    }

    /// No host holds the service IPs, as in a cluster: they are announced, and nobody is reached at them.
    pub(super) fn with_unbound_ips(self) -> Self {
        Self { bind: "none", ..self }
    }

    /// The names of the nodes.
    pub(super) fn nodes(&self) -> Vec<NodeName> {
        self.lab.nodes().cloned().collect()
    }

    /// A Service with a pod on every node.
    pub(super) fn everywhere(&self, name: String, ip: Option<ServiceIp>) -> Wanted {
        let endpoints = self.lab.nodes().map(Endpoint::ready).collect();
        Wanted { name, ip, policy: TrafficPolicy::Cluster, endpoints }
    }

    /// Makes Services with their endpoints and statuses, many at a time.
    pub(super) fn make(&self, services: Vec<Wanted>) -> Result<()> {
        self.api.run(async move |client| {
            let make = |wanted: Wanted| make(client.clone(), wanted);
            stream::iter(services).map(make).buffer_unordered(IN_FLIGHT).try_collect::<()>().await
        })
    }

    /// Starts a speaker on every node.
    pub(super) fn start_speakers(&mut self) -> Result<()> {
        for node in self.nodes() {
            self.start_speaker(&node)?;
        }
        Ok(())
    }

    /// Starts the speaker of a node.
    pub(super) fn start_speaker(&mut self, node: &NodeName) -> Result<()> {
        let mut command = speaker_arguments(&self.lab, node, self.api.kubeconfig())?;
        command.arg("--ml-secret-key-path").arg(self.lab.scratch().join(KEY));
        command.args(["--failback", "never", "--bind-service-ips", self.bind]);
        let pid = self.lab.spawn(node, Role::Speaker, command)?;
        self.speakers.insert(node.clone(), pid);
        Ok(())
    }

    /// Waits until every speaker knows the others, and together they own so many addresses.
    pub(super) fn wait_until_owned(&mut self, addresses: usize) -> Result<()> {
        let begun = now();
        loop {
            if let Some(exit) = self.lab.unexpected_exits().first() {
                bail!("{exit}");
            }
            let of_all =
                |name| self.speakers.keys().map(|node| self.metric(node, name).ok()).collect::<Option<Vec<f64>>>();
            let (owned, members) = (of_all(OWNED).map(|owned| owned.iter().sum::<f64>()), of_all(MEMBERS));
            #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
            let (wanted, speakers) = (addresses as f64, self.speakers.len() as f64);
            if owned == Some(wanted) && members.as_ref().is_some_and(|all| all.iter().all(|count| *count == speakers)) {
                return Ok(());
            }
            if begun.elapsed() > LONGEST_START {
                bail!(
                    "after {LONGEST_START:?} the speakers own {owned:?} of {addresses} addresses, members {members:?}"
                );
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until the speakers have written nothing for some seconds.
    pub(super) fn wait_until_quiet(&self, patience: Duration) -> Result<()> {
        let begun = now();
        let (mut count, mut since) = (0, now());
        loop {
            let writes = self.writes()?.len();
            if writes != count {
                (count, since) = (writes, now());
            }
            if since.elapsed() >= QUIET {
                return Ok(());
            }
            if begun.elapsed() > patience {
                bail!("after {patience:?} and {count} writes the speakers still write to the API");
            }
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// What the speakers have written so far, as the API server has noted it.
    pub(super) fn writes(&self) -> Result<Vec<Request>> {
        let speaker = format!("system:serviceaccount:{NAMESPACE}:speaker");
        let all = self.api.audit().requests_of(NAMESPACE)?.into_iter();
        Ok(all.filter(|request| request.is_write() && request.user == speaker && is_report(request)).collect())
    }

    /// The sum of all series of a metric of a speaker; for waiting and for what only it knows.
    pub(super) fn metric(&self, node: &NodeName, name: &str) -> Result<f64> {
        let text = self.lab.http_get(node, METRICS_PORT, "/metrics")?;
        let value = |line: &str| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        };
        Ok(text.lines().filter_map(value).sum())
    }

    /// The same of all speakers.
    pub(super) fn metric_of_all(&self, name: &str) -> Result<f64> {
        self.speakers.keys().map(|node| self.metric(node, name)).sum()
    }

    /// What each speaker has used so far.
    pub(super) fn usage(&self) -> Result<BTreeMap<NodeName, Usage>> {
        self.speakers.iter().map(|(node, pid)| Ok((node.clone(), Usage::of(*pid)?))).collect()
    }

    /// The greatest share of a core, in percent, and the greatest memory, in MB, that a speaker used since `before`.
    pub(super) fn used_since(&self, before: &BTreeMap<NodeName, Usage>, begun: Instant) -> Result<(f64, f64)> {
        let passed = begun.elapsed().as_secs_f64();
        let (mut cpu, mut rss) = (0.0_f64, 0.0_f64);
        for (node, after) in self.usage()? {
            let Some(before) = before.get(&node) else { continue };
            cpu = cpu.max(after.cpu.saturating_sub(before.cpu).as_secs_f64() / passed * 100.0);
            #[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52 bytes")]
            {
                rss = rss.max(after.rss_bytes as f64 / 1e6);
            }
        }
        Ok((cpu, rss))
    }
}

/// A review of a scraper's token is none of it.
fn is_report(request: &Request) -> bool {
    !matches!(request.resource.as_str(), "tokenreviews" | "subjectaccessreviews")
}

async fn make(client: Client, wanted: Wanted) -> Result<()> {
    let Wanted { name, ip, policy, endpoints } = wanted;
    let services: Api<Service> = Api::namespaced(client.clone(), objects::NAMESPACE);
    let service = serde_json::from_value(objects::service(&name, &["IPv4"], policy))?;
    services.create(&PostParams::default(), &service).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), objects::NAMESPACE);
    let slice = serde_json::from_value(objects::slice(&name, "IPv4", &endpoints))?;
    slices.create(&PostParams::default(), &slice).await?;
    match ip {
        Some(ip) => give(client, &name, ip).await,
        None => Ok(()),
    }
}

/// Writes the address of a Service into its status.
pub(super) async fn give(client: Client, name: &str, ip: ServiceIp) -> Result<()> {
    let services: Api<Service> = Api::namespaced(client, objects::NAMESPACE);
    let patch = Patch::Merge(json!({"status": objects::ingress(&[ip])}));
    services.patch_status(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Writes where the pods of a Service are.
pub(super) async fn place(client: Client, name: &str, endpoints: &[Endpoint]) -> Result<()> {
    let slices: Api<EndpointSlice> = Api::namespaced(client, objects::NAMESPACE);
    let slice = objects::slice(name, "IPv4", endpoints);
    let name = slice.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let patch = Patch::Merge(json!({"endpoints": slice.get("endpoints")}));
    slices.patch(&name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// The addresses of the pool, in their order.
pub(super) fn addresses() -> impl Iterator<Item = ServiceIp> {
    let ip = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(FIRST.to_bits() + number));
    (1_u32..).filter_map(move |number| ServiceIp::new(ip(number)).ok())
}

/// So many Services, each with an address of the pool.
pub(super) fn numbered(count: u32) -> impl Iterator<Item = (String, ServiceIp)> {
    (0..count).map(|number| format!("service-{number:05}")).zip(addresses())
}

/// When the frames of a tap and the lines of an audit log came, on one clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    instant: Instant,
    wall: SystemTime,
}

impl Clocks {
    #[expect(clippy::disallowed_methods, reason = "the audit log tells the time of day")]
    pub(super) fn read() -> Self {
        Self { instant: now(), wall: SystemTime::now() }
    }

    pub(super) fn wall(&self, at: Instant) -> SystemTime {
        self.wall + at.saturating_duration_since(self.instant)
    }
}

/// Fails when a tap has lost frames: its word is worth nothing then.
pub(super) fn whole(seen: &Tapped) -> Result<()> {
    let lost = u64::from(seen.missed) + seen.forgotten;
    if lost > 0 {
        bail!("the tap lost {lost} frames: run it again on a calmer machine");
    }
    Ok(())
}

const KEY: &str = "secretkey";
/// The second one is within the clients' net.
const POOL: [&str; 2] = ["10.64.0.0/12", "192.168.10.0/24"];
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);
const OWNED: &str = "garpike_announcer_owned_addresses";
const MEMBERS: &str = "garpike_membership_members";
/// The default of `--port`.
const METRICS_PORT: u16 = 9120;
const IN_FLIGHT: usize = 16;
/// Chosen: many times what a start with 10 000 addresses takes.
const LONGEST_START: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(200);
/// Chosen: longer than the pauses between two attempts to write.
const QUIET: Duration = Duration::from_secs(5);
