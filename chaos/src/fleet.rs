//! A lab with the shipped speaker on every node, a few Services, and a client that can tell who answers.
//!
//! The manifests are those of the users' own documents: `first-pool`, an advertisement for it, and Services that
//! `garpike allocate` gives addresses. What the speakers say of themselves is used for one thing only: to wait until
//! they are ready before a trial begins. Who answers is read off the client's cable.
//!
//! Where the speakers take their objects from a Kubernetes API, the same objects are written there, and the shipped
//! controller gives the addresses.

mod source;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use garpike_election::{MacAddr, NodeName, ServiceIp};
use garpike_speaker::Profile;
use nix::unistd::Pid;
use rand::RngExt as _;
use serde_json::Value;

pub(crate) use self::source::Wanted;
use crate::lab::{Init, Lab, LabConfig, Links, Role, Tapped, echo, now};

/// The address families that are probed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4 only
    V4,
    /// IPv6 only
    V6,
    /// IPv4 and IPv6
    Both,
}

/// What to start.
#[derive(Clone, Copy, Debug)]
pub struct FleetConfig {
    /// How many nodes.
    pub nodes: usize,
    /// How they are connected.
    pub links: Links,
    /// How many dual-stack Services.
    pub services: usize,
    /// How fast and how careful the speakers detect failures.
    pub profile: Profile,
    /// Where the speakers take their objects from.
    pub source: Source,
}

/// Where the speakers take their objects from.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Files
    Manifests,
    /// A Kubernetes API server on a host of the lab, with the shipped controller beside it
    Kubernetes,
}

/// A running lab.
pub struct Fleet<'init> {
    /// The segment and its hosts.
    pub lab: Lab<'init>,
    profile: Profile,
    pub(crate) wanted: Wanted,
    key: PathBuf,
    ips: Vec<ServiceIp>,
    speakers: BTreeMap<NodeName, Pid>,
}

impl<'init> Fleet<'init> {
    /// Builds the lab, writes manifests and key, allocates addresses for its Services and starts everything.
    ///
    /// # Errors
    ///
    /// When the lab cannot be built, or an address cannot be allocated.
    pub fn start(init: &'init mut Init, config: FleetConfig) -> Result<Self> {
        let FleetConfig { nodes, links, services, profile, source } = config;
        let mut lab = Lab::build(init, LabConfig { nodes, links }).context("cannot build the lab")?;
        let key = lab.scratch().join("secretkey");
        let interfaces = match links {
            Links::One => "",
            Links::Two => ON_THE_FIRST_LINK,
        };
        let pools = format!("{FIRST_POOL}{interfaces}");
        fs::write(&key, secret())?;
        let (wanted, ips) = match source {
            Source::Manifests => Wanted::in_files(&lab, &pools, services)?,
            Source::Kubernetes => Wanted::in_cluster(&mut lab, &pools, services)?,
        };
        let mut fleet = Self { lab, profile, wanted, key, ips, speakers: BTreeMap::new() };
        for node in fleet.nodes() {
            fleet.start_node(&node)?;
        }
        Ok(fleet)
    }

    /// The names of the nodes.
    pub fn nodes(&self) -> Vec<NodeName> {
        self.lab.nodes().cloned().collect()
    }

    /// Every service IP, those of one Service next to each other.
    pub fn ips(&self) -> &[ServiceIp] {
        &self.ips
    }

    /// The first service IP of each family that is wanted: they belong to one Service, so they have one owner.
    pub fn probed(&self, families: Families) -> Vec<ServiceIp> {
        let v4 = self.ips.iter().find(|ip| ip.v4().is_some() && families != Families::V6);
        let v6 = self.ips.iter().find(|ip| ip.v6().is_some() && families != Families::V4);
        v4.into_iter().chain(v6).copied().collect()
    }

    /// Where the echo server of a service IP listens.
    pub fn target(ip: ServiceIp) -> SocketAddr {
        SocketAddr::new(ip.addr(), ECHO_PORT)
    }

    /// Starts the processes of a node: what serves, and the speaker.
    ///
    /// # Errors
    ///
    /// When a program cannot be started.
    pub fn start_node(&mut self, node: &NodeName) -> Result<()> {
        let targets: Vec<SocketAddr> = self.ips.iter().map(|ip| Self::target(*ip)).collect();
        self.lab.spawn(node, Role::Echo, echo::command(&targets))?;
        self.start_speaker(node)
    }

    /// Starts the speaker of a node.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn start_speaker(&mut self, node: &NodeName) -> Result<()> {
        let mut command = self.wanted.speaker(&self.lab, node)?;
        command.arg("--ml-secret-key-path").arg(&self.key);
        let profile = self.profile.to_possible_value().context("every profile has a name")?;
        command.arg("--profile").arg(profile.get_name());
        // A node that gets its addresses back some time later would disturb a trial that is not its own.
        command.args(["--failback", "never"]);
        let pid = self.lab.spawn(node, Role::Speaker, command)?;
        self.speakers.insert(node.clone(), pid);
        Ok(())
    }

    /// Starts the speaker of a node again, once the one before has ended.
    ///
    /// # Errors
    ///
    /// When it does not end, or the program cannot be started.
    pub fn restart_speaker(&mut self, node: &NodeName) -> Result<()> {
        self.lab.wait_for_end(node, ENDS_WITHIN)?;
        self.start_speaker(node)
    }

    /// Waits until the speaker of a node says that it is ready, as a roll-out does before it goes on.
    ///
    /// # Errors
    ///
    /// When that takes too long.
    pub fn wait_until_ready(&self, node: &NodeName) -> Result<()> {
        let start = now();
        while let Err(error) = self.lab.http_get(node, STATE_PORT, "/readyz") {
            if now() - start > LONGEST_START {
                return Err(error).with_context(|| format!("{node} is not ready after {LONGEST_START:?}"));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Kills the API server, and the controller with it, once every speaker had the time to keep what it knows.
    pub(crate) fn kill_api_server(&mut self) {
        thread::sleep(KEPT_WITHIN);
        self.wanted.kill_api_server();
    }

    /// What each running speaker has used since its start, as the kernel accounts for it.
    pub fn usage(&self) -> BTreeMap<NodeName, Usage> {
        let usage = |(node, pid): (&NodeName, &Pid)| Some((node.clone(), Usage::of(*pid).ok()?));
        self.speakers.iter().filter_map(usage).collect()
    }

    /// What the speaker of `node` says of itself.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn state(&self, node: &NodeName) -> Result<Value> {
        let text = self.lab.http_get(node, STATE_PORT, "/state.json")?;
        serde_json::from_str(&text).with_context(|| format!("/state.json of {node} is not JSON"))
    }

    /// Waits until every speaker serves, knows that every other one does, and all agree who owns what.
    ///
    /// # Errors
    ///
    /// When that takes too long, or a process ended; names what is missing.
    pub fn wait_until_whole(&mut self) -> Result<Duration> {
        let start = now();
        loop {
            if let Some(exit) = self.lab.unexpected_exits().first() {
                bail!("{exit}");
            }
            let Some(missing) = self.what_is_missing() else { return Ok(now() - start) };
            if now() - start > LONGEST_START {
                bail!("the speakers are not ready after {LONGEST_START:?}: {missing}");
            }
            thread::sleep(POLL);
        }
    }

    fn what_is_missing(&self) -> Option<String> {
        let nodes = self.nodes();
        let mut owners: Option<Value> = None;
        for node in &nodes {
            let state = match self.state(node) {
                Ok(state) => state,
                Err(error) => return Some(format!("{node}: {error:#}")),
            };
            let members = state.get("members").and_then(Value::as_array);
            let serving = members.map_or(0, |members| members.iter().filter(|member| serves(member)).count());
            if serving != nodes.len() {
                return Some(format!("{node} knows {serving} of {} nodes as serving", nodes.len()));
            }
            let view = state.get("owners").cloned().unwrap_or_default();
            if owners.as_ref().is_some_and(|owners| *owners != view) {
                return Some(format!("{node} sees other owners than {nodes:?}"));
            }
            owners = Some(view);
        }
        None
    }

    /// Asks for every service IP from the client and gives the node whose network card answered for each.
    ///
    /// # Errors
    ///
    /// When the client or its tap fails.
    pub fn resolve(&self) -> Result<BTreeMap<ServiceIp, NodeName>> {
        let tap = self.lab.tap()?;
        let start = now();
        for ip in &self.ips {
            let probe = self.lab.probe(Self::target(*ip), RESOLVE_INTERVAL)?;
            probe.wait_for_answer(RESOLVE_TIMEOUT);
        }
        let seen = tap.stop()?;
        let end = now();
        let owner = |ip: &ServiceIp| self.node_of(*seen.answering(ip.addr(), start..=end).first()?);
        Ok(self.ips.iter().filter_map(|ip| Some((*ip, owner(ip)?))).collect())
    }

    /// The node with this network card.
    pub fn node_of(&self, mac: MacAddr) -> Option<NodeName> {
        self.lab.nodes().find(|node| self.lab.host(node).is_ok_and(|host| host.mac == mac)).cloned()
    }

    /// The node that answered the client's probes of `ip` last, up to `at`.
    pub fn answered_by(&self, seen: &Tapped, ip: IpAddr, at: Instant) -> Option<NodeName> {
        let answers = seen.answers.iter().rev();
        let last = answers.filter(|answer| answer.ip == ip).find(|answer| answer.at <= at)?;
        self.node_of(last.mac)
    }
}

/// Whether a member of `/state.json` answers for what it owns. One that came back from the dead does, and is held down; a carrier
/// that was lost more than once is not believed for some seconds.
fn serves(member: &Value) -> bool {
    let text = |field: &str| member.get(field).and_then(Value::as_str);
    let interfaces = member.get("interfaces").and_then(Value::as_array);
    let announces = interfaces.is_none_or(|interfaces| interfaces.iter().any(|name| name == CLIENT_CARD));
    matches!(text("state"), Some("ready" | "held-down")) && text("presence") == Some("here") && announces
}

/// What a process uses.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Which process.
    pub pid: Pid,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Processor time since its start, user and system.
    pub cpu: Duration,
}

impl Usage {
    pub(crate) fn of(pid: Pid) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // proc(5): the name in parentheses may hold anything; utime and stime are the 12th and 13th field after it.
        let (_, fields) = stat.rsplit_once(')').context("stat has no name")?;
        let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<u64>);
        let (user, system) = (ticks.next().context("no utime")??, ticks.next().context("no stime")??);
        let rss: u64 = kib.context("no VmRSS")?;
        Ok(Self { pid, rss_bytes: rss * 1024, cpu: Duration::from_millis((user + system) * MILLIS_PER_TICK) })
    }
}

/// A secret as people make it: three lines of base64.
fn secret() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    #[expect(clippy::disallowed_methods, reason = "a secret is drawn from the system")]
    let mut rng = rand::rng();
    let mut line = |len: usize| -> String {
        (0..len).map(|_| char::from(ALPHABET.get(rng.random_range(0..64_usize)).copied().unwrap_or(b'A'))).collect()
    };
    format!("{}\n{}\n{}\n", line(64), line(64), line(44))
}

/// The pool of MetalLB's own documentation, and an advertisement for it.
const FIRST_POOL: &str = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata:
  name: first-pool
  namespace: metallb-system
spec:
  addresses:
  - 192.168.10.0/24
  - 192.168.9.1-192.168.9.5
  - fc00:f853:0ccd:e799::/124
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata:
  name: first-advertisement
  namespace: metallb-system
spec:
  ipAddressPools:
  - first-pool
";
/// The second link is the nodes' own.
const ON_THE_FIRST_LINK: &str = "  interfaces:\n  - eth0\n";
/// MetalLB's manifest grants a speaker 2 s between SIGTERM and SIGKILL; chosen: with room for a machine under load.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// A speaker keeps what it knows every five seconds.
const KEPT_WITHIN: Duration = Duration::from_secs(6);
/// The kernel accounts in hundredths of a second for user space, whatever its own tick (`USER_HZ`).
const MILLIS_PER_TICK: u64 = 10;
/// The echo service of RFC 862.
const ECHO_PORT: u16 = 7;
/// The default of `--health-probe-port`.
const STATE_PORT: u16 = 17472;
/// Chosen: many times what a start takes.
const LONGEST_START: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// The card of each node towards the clients.
const CLIENT_CARD: &str = "eth0";
const RESOLVE_INTERVAL: Duration = Duration::from_millis(10);
/// A Linux client asks three times, a second apart, before it gives up.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
