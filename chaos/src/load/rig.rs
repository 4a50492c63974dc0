//! A lab with speakers that own many addresses, for loads.
//!
//! The addresses are in the manifests' status, so nothing is allocated; the kernels do not hold them
//! (`--bind-service-ips none`), as in a cluster.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use garpike_election::{NodeName, ServiceIp, order};
use nix::unistd::Pid;

use crate::judged;
use crate::lab::load::Protocol;
use crate::lab::{Init, Lab, LabConfig, Links, Role, now};

/// A lab whose first nodes run speakers.
pub(super) struct Rig<'init> {
    pub(super) lab: Lab<'init>,
    pub(super) ips: Vec<ServiceIp>,
    speakers: BTreeMap<NodeName, Pid>,
}

/// Who shall own the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owners {
    /// Whom the election names.
    All,
    /// The first node, by the choice of the addresses.
    First,
}

impl<'init> Rig<'init> {
    /// Builds a lab of `nodes`, of which the first `speakers` run one, with `addresses` service IPs, half of them of
    /// either family.
    pub(super) fn build(
        init: &'init mut Init,
        nodes: usize,
        speakers: usize,
        addresses: usize,
        owners: Owners,
    ) -> Result<Self> {
        let lab = Lab::build(init, LabConfig { nodes, links: Links::One }).context("cannot build the lab")?;
        let names: Vec<NodeName> = lab.nodes().take(speakers).cloned().collect();
        let pairs = pairs(&names, addresses / 2, owners);
        let manifests = lab.scratch().join("manifests");
        fs::create_dir_all(&manifests).context("cannot create the directory of the manifests")?;
        fs::write(manifests.join("pool.yaml"), POOL)?;
        fs::write(manifests.join("services.yaml"), services(&pairs))?;
        fs::write(lab.scratch().join("secretkey"), "a lab that nobody else reaches needs no secret of its own\n")?;
        let ips = pairs.into_iter().flat_map(|(v4, v6)| [v4, v6]).collect();
        let mut rig = Self { lab, ips, speakers: BTreeMap::new() };
        for name in &names {
            rig.start_speaker(name, &names)?;
        }
        Ok(rig)
    }

    /// The service IPs of a protocol.
    pub(super) fn ips_of(&self, protocol: Protocol) -> Vec<IpAddr> {
        self.ips.iter().filter(|ip| protocol.speaks_of(**ip)).map(|ip| ip.addr()).collect()
    }

    /// So many IPv4 addresses that no Service has, one between any two that some Service has.
    pub(super) fn gaps(count: u32) -> Vec<IpAddr> {
        let bits = |number| u32::from(FIRST_V4).wrapping_add(number * STRIDE + 1);
        (1..=count).map(|number| Ipv4Addr::from_bits(bits(number)).into()).collect()
    }

    /// The process of a speaker.
    pub(super) fn speaker(&self, node: &NodeName) -> Result<Pid> {
        self.speakers.get(node).copied().with_context(|| format!("no speaker runs on {node}"))
    }

    /// Waits until every speaker knows the others, and together they own every address.
    pub(super) fn wait_until_whole(&mut self) -> Result<()> {
        let begun = now();
        loop {
            if let Some(exit) = self.lab.unexpected_exits().first() {
                bail!("{exit}");
            }
            let of_all =
                |name| self.speakers.keys().map(|node| self.metric(node, name).ok()).collect::<Option<Vec<_>>>();
            let owned: Option<f64> = of_all(OWNED).map(|owned| owned.iter().sum());
            let members = of_all(MEMBERS);
            #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
            let (addresses, speakers) = (self.ips.len() as f64, self.speakers.len() as f64);
            if owned == Some(addresses)
                && members.is_some_and(|members| members.iter().all(|count| count.max(1.0) == speakers))
            {
                // Announcements, groups and what else a change brings are over then.
                thread::sleep(SETTLES_WITHIN);
                return Ok(());
            }
            if now() - begun > LONGEST_START {
                bail!("after {LONGEST_START:?} the speakers own {owned:?} of {addresses} addresses");
            }
            thread::sleep(POLL);
        }
    }

    /// The sum of all series of a metric of a speaker; for waiting and for what only it knows.
    pub(super) fn metric(&self, node: &NodeName, name: &str) -> Result<f64> {
        let text = self.metrics(node)?;
        let value = |line: &str| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        };
        Ok(text.lines().filter_map(value).sum())
    }

    /// What `/metrics` of a speaker shows.
    pub(super) fn metrics(&self, node: &NodeName) -> Result<String> {
        Ok(self.lab.http_get(node, METRICS_PORT, "/metrics")?)
    }

    fn start_speaker(&mut self, node: &NodeName, all: &[NodeName]) -> Result<()> {
        let scratch = self.lab.scratch();
        let mut command = Command::new(judged::program());
        command.arg("speaker").arg("--node-name").arg(node.as_str());
        command.arg("--manifests").arg(scratch.join("manifests"));
        command.arg("--ml-secret-key-path").arg(scratch.join("secretkey"));
        command.arg("--ml-bindaddr").arg(self.lab.host(node)?.v4.to_string());
        command.args(["--bind-service-ips", "none", "--failback", "never"]);
        let mut peers = Vec::new();
        for peer in all.iter().filter(|peer| *peer != node) {
            peers.push(self.lab.host(peer)?.v4.to_string());
        }
        if !peers.is_empty() {
            command.arg("--join").arg(peers.join(","));
        }
        let pid = self.lab.spawn(node, Role::Speaker, command)?;
        self.speakers.insert(node.clone(), pid);
        Ok(())
    }
}

/// What a process has used, as the kernel accounts for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    /// Processor time since its start.
    pub(super) cpu: Duration,
    /// Resident memory.
    pub(super) rss_bytes: u64,
}

impl Spent {
    pub(super) fn of(pid: Pid) -> Result<Self> {
        // The first figure is the time on a processor in nanoseconds (Documentation/scheduler/sched-stats.rst).
        let path = format!("/proc/{pid}/schedstat");
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let cpu = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        let kib: u64 = kib.context("no VmRSS")?;
        Ok(Self { cpu: Duration::from_nanos(cpu.with_context(|| format!("{path} is empty"))?), rss_bytes: kib * 1024 })
    }
}

/// So many addresses of either family, each pair for one Service.
fn pairs(nodes: &[NodeName], count: usize, owners: Owners) -> Vec<(ServiceIp, ServiceIp)> {
    // Other bits than the lowest ones change too, so that no few prefixes cover exactly these addresses.
    let candidates = (1_u32..).map(|number| {
        let v4 = Ipv4Addr::from_bits(u32::from(FIRST_V4).wrapping_add(number * STRIDE));
        let v6 = Ipv6Addr::from_bits(u128::from(FIRST_V6) + u128::from(number * STRIDE));
        [v4.into(), v6.into()].map(|ip: IpAddr| ServiceIp::new(ip).expect("is the address of a host"))
    });
    let first = nodes.first();
    let wanted = |[v4, _]: &[ServiceIp; 2]| match owners {
        Owners::All => true,
        // The election key of a Service is its first address.
        Owners::First => order(nodes, *v4).first().copied() == first,
    };
    candidates.filter(wanted).take(count.max(1)).map(|[v4, v6]| (v4, v6)).collect()
}

fn services(pairs: &[(ServiceIp, ServiceIp)]) -> String {
    let mut text = String::new();
    for (number, (v4, v6)) in pairs.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: web-{number}\nspec:\n  type: LoadBalancer\n  \
             ipFamilyPolicy: RequireDualStack\n  ipFamilies: [IPv4, IPv6]\n  ports:\n  - port: 80\nstatus:\n  \
             loadBalancer:\n    ingress:\n    - ip: {v4}\n    - ip: \"{v6}\"\n"
        );
    }
    text
}

const FIRST_V4: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);
const FIRST_V6: Ipv6Addr = Ipv6Addr::new(0xfd64, 0, 0, 0, 0, 0, 0, 0);
/// Chosen: coprime to powers of two, so that lost addresses lie between owned ones.
const STRIDE: u32 = 3;

const POOL: &str = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata:
  name: many
  namespace: metallb-system
spec:
  addresses:
  - 10.64.0.0/12
  - fd64::/96
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata:
  name: many
  namespace: metallb-system
spec:
  ipAddressPools:
  - many
";
const OWNED: &str = "garpike_announcer_owned_addresses";
const MEMBERS: &str = "garpike_membership_members";
/// The default of `--port`.
const METRICS_PORT: u16 = 9120;
/// Chosen: many times what a start with 10 000 addresses takes.
const LONGEST_START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);
/// The last announcement of a gained address leaves after 3 s.
const SETTLES_WITHIN: Duration = Duration::from_secs(4);
