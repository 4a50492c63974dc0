//! The flags of `garpike speaker`.
//!
//! A superset of MetalLB 0.16's speaker flags, so that its manifests' arguments work. A value comes from the flag, else
//! from the `GARPIKE_*` variable, else from MetalLB's variable. What this version cannot do yet is not among the
//! possible values: nothing is accepted and then ignored.

mod values;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;
use garpike_election::NodeName;
use hyper::Uri;

use crate::timing::{self, Failback, Profile};
pub use values::{BindServiceIps, DataPlaneHealth, JoinPeer, MetricsAuth, NdpUnicast, PerIpMetrics, Placement};

/// `garpike speaker`: answers ARP and NDP for the service IPs that this node owns.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Name of this node; the same as metadata.name of its Node object
    #[arg(long, env = "GARPIKE_NODE_NAME", value_name = "NAME")]
    pub node_name: NodeName,

    /// Directory of YAML files with IPAddressPool, L2Advertisement, Service and Node objects; re-read on change
    /// [default: the objects of the Kubernetes cluster]
    #[arg(long, env = "GARPIKE_MANIFESTS", value_name = "DIR")]
    pub manifests: Option<PathBuf>,

    /// File with the address of the Kubernetes API and the right to use it [default: the ServiceAccount of the pod]
    #[arg(long, env = "GARPIKE_KUBECONFIG", value_name = "FILE", conflicts_with = "manifests")]
    pub kubeconfig: Option<PathBuf>,

    /// Namespace of pools, advertisements and speakers
    #[arg(long, env = "GARPIKE_NAMESPACE", value_name = "NAME", default_value = "metallb-system")]
    pub namespace: String,

    /// Labels of the speakers' pods, by which they find each other
    #[arg(long, env = "GARPIKE_ML_LABELS", value_name = "SELECTOR", default_value = "")]
    pub ml_labels: String,

    /// Name of the pod of this speaker
    #[arg(long, env = "GARPIKE_POD_NAME", value_name = "NAME", default_value = "")]
    pub pod_name: String,

    /// Address of this host, for gossip where --ml-bindaddr is not given
    #[arg(long, env = "GARPIKE_HOST", value_name = "IP")]
    pub host: Option<IpAddr>,

    /// Directory that keeps what is known of the cluster, for a start while the Kubernetes API is away; such as an emptyDir
    #[arg(long, env = "GARPIKE_STATE_DIR", value_name = "DIR", conflicts_with = "manifests")]
    pub state_dir: Option<PathBuf>,

    /// File with the cluster's secret, or a directory of them, such as the mount of the Secret `memberlist`; re-read on
    /// change
    #[arg(long, env = "GARPIKE_ML_SECRET_KEY_PATH", value_name = "PATH")]
    #[arg(required_unless_present = "insecure_plaintext")]
    pub ml_secret_key_path: Option<PathBuf>,

    /// Do not encrypt gossip: whoever reaches the gossip port can move every address. Together with
    /// --ml-secret-key-path: encrypt towards nodes that hold a key, and accept both, to roll out encryption
    #[arg(long, env = "GARPIKE_INSECURE_PLAINTEXT")]
    pub insecure_plaintext: bool,

    /// Directory in which replaced keys survive a restart of the speaker until no node needs them; such as an emptyDir
    #[arg(long, env = "GARPIKE_KEY_CACHE", value_name = "DIR")]
    pub key_cache: Option<PathBuf>,

    /// Address for gossip between nodes [default: --host, else the one of the pod, else the one that routes to the first
    /// --join peer]
    #[arg(long, env = "GARPIKE_ML_BINDADDR", value_name = "IP")]
    pub ml_bindaddr: Option<IpAddr>,

    /// Port for gossip between nodes
    #[arg(long, env = "GARPIKE_ML_BINDPORT", value_name = "PORT", default_value = "7946")]
    pub ml_bindport: u16,

    /// Peers to meet at start, comma-separated; without a port, --ml-bindport is meant
    #[arg(long, env = "GARPIKE_JOIN", value_name = "ADDR[:PORT]", value_delimiter = ',')]
    pub join: Vec<JoinPeer>,

    /// How fast and how careful failures are detected
    #[arg(long, env = "GARPIKE_PROFILE", default_value = "default")]
    pub profile: Profile,

    /// Name that separates clusters which share a secret and a network
    #[arg(long, env = "GARPIKE_CLUSTER_NAME", value_name = "NAME", default_value = "garpike")]
    pub cluster_name: String,

    /// Port of /metrics on all addresses; 0 turns it off
    #[arg(long, env = "GARPIKE_PORT", value_name = "PORT", default_value = "9120")]
    pub port: u16,

    /// Who may scrape /metrics [default: token-review in a cluster, none with --manifests]
    #[arg(long, env = "GARPIKE_METRICS_AUTH")]
    pub metrics_auth: Option<MetricsAuth>,

    /// Directory with tls.crt and tls.key for /metrics over HTTPS [default: a certificate that nobody can verify]
    #[arg(long, env = "GARPIKE_METRICS_CERT_DIR", value_name = "DIR")]
    pub metrics_cert_dir: Option<PathBuf>,

    /// Oldest version of TLS for /metrics: VersionTLS12 or VersionTLS13
    #[arg(long, env = "GARPIKE_TLS_MIN_VERSION", value_name = "VERSION", default_value = "")]
    pub tls_min_version: String,

    /// Cipher suites of TLS 1.2 for /metrics, comma-separated [default: the library's]
    #[arg(long, env = "GARPIKE_TLS_CIPHER_SUITES", value_name = "NAMES", value_delimiter = ',')]
    pub tls_cipher_suites: Vec<String>,

    /// Numbers of the curves for /metrics over TLS, comma-separated [default: the library's]
    #[arg(long, env = "GARPIKE_TLS_CURVE_PREFERENCES", value_name = "NUMBERS", value_delimiter = ',')]
    pub tls_curve_preferences: Vec<u16>,

    /// Take over from a MetalLB that announces by BGP, though nothing is announced by BGP afterwards
    #[arg(long, env = "GARPIKE_IGNORE_BGP", num_args = 0..=1, require_equals = true)]
    #[arg(default_value_t = false, default_missing_value = "true")]
    pub ignore_bgp: bool,

    /// Port of /healthz, /readyz and /state.json on 127.0.0.1
    #[arg(long, env = "GARPIKE_HEALTH_PROBE_PORT", value_name = "PORT", default_value = "17472")]
    pub health_probe_port: u16,

    /// Makes every service IP local to this host, so that its kernel accepts packets the moment it becomes the owner
    /// [default: lo with --manifests; none in a cluster, where kube-proxy does it]
    #[arg(long, env = "GARPIKE_BIND_SERVICE_IPS")]
    pub bind_service_ips: Option<BindServiceIps>,

    /// Where kube-proxy says whether it forwards; a node where it does not ranks behind those where it does [default:
    /// http://127.0.0.1:10256/healthz in a cluster, none with --manifests]
    #[arg(long, env = "GARPIKE_DATAPLANE_HEALTH", value_name = "URL|none")]
    pub dataplane_health: Option<DataPlaneHealth>,

    /// File that says which interfaces never announce, in the form of MetalLB's excludel2.yaml [default:
    /// /etc/metallb/excludel2.yaml, or where that is missing the list that MetalLB ships]
    #[arg(long, env = "GARPIKE_EXCLUDED_INTERFACES", value_name = "FILE")]
    pub excluded_interfaces: Option<PathBuf>,

    /// How owners are placed on nodes
    #[arg(long, env = "GARPIKE_PLACEMENT", default_value = "hash")]
    pub placement: Placement,

    /// When a node that returned from the dead gets its addresses back
    #[arg(long, env = "GARPIKE_FAILBACK", value_name = "after=DURATION|never", default_value = "after=30s")]
    pub failback: Failback,

    /// How long the addresses of a speaker that is gone wait for it while its host lives
    #[arg(long, env = "GARPIKE_RESTART_GRACE", value_name = "DURATION", default_value = "60s")]
    #[arg(value_parser = timing::duration)]
    pub restart_grace: Duration,

    /// Announcements per second and interface at most, when many addresses move at once
    #[arg(long, env = "GARPIKE_ANNOUNCE_RATE", value_name = "FRAMES", default_value = "10000")]
    pub announce_rate: NonZeroU32,

    /// Whether solicitations that are sent to a service IP itself are answered; off spares a node that forwards IPv6 a filter
    /// that each packet meets
    #[arg(long, env = "GARPIKE_NDP_UNICAST", default_value = "on")]
    pub ndp_unicast: NdpUnicast,

    /// Whether /metrics has series for each service IP of this node [default: true in a cluster, false with --manifests]
    #[arg(long, env = "GARPIKE_PER_IP_METRICS", value_name = "BOOL", action = clap::ArgAction::Set)]
    pub per_ip_metrics: Option<bool>,

    /// Handle only Services of this loadBalancerClass [default: those without a class]
    #[arg(long, env = "GARPIKE_LB_CLASS", value_name = "CLASS", default_value = "")]
    pub lb_class: String,

    /// Let nodes with the label node.kubernetes.io/exclude-from-external-load-balancers own addresses all the same
    #[arg(long, env = "GARPIKE_IGNORE_EXCLUDE_LB")]
    pub ignore_exclude_lb: bool,

    /// Most detailed level that is logged
    #[arg(long, env = "GARPIKE_LOG_LEVEL", default_value = "info")]
    #[arg(value_parser = ["all", "debug", "info", "warn", "error", "none"])]
    pub log_level: String,

    /// How lines are logged: json as MetalLB does, or text [default: text at a terminal and with --manifests, else json]
    #[arg(long, env = "GARPIKE_LOG_FORMAT", value_name = "json|text", value_parser = ["json", "text"])]
    pub log_format: Option<String>,

    /// MetalLB's flags that have no meaning here.
    #[command(flatten)]
    pub metallb: MetalLbOnly,
}

/// Flags of MetalLB's speaker that have no meaning here; accepted so that its arguments can stay.
#[derive(ClapArgs, Clone, Debug)]
#[allow(missing_docs, reason = "each is MetalLB's flag of the same name")]
pub struct MetalLbOnly {
    #[arg(long, hide = true)]
    pub ml_wan_config: Option<Option<String>>,
    #[arg(long, hide = true)]
    pub pprof_bind_address: Option<String>,
}

impl Args {
    /// The addresses to meet, with their ports.
    pub fn seeds(&self) -> Vec<SocketAddr> {
        self.join.iter().map(|peer| SocketAddr::new(peer.ip, peer.port.unwrap_or(self.ml_bindport))).collect()
    }

    /// Whether the service IPs are made local to this host.
    pub fn bind_service_ips(&self) -> BindServiceIps {
        let default = if self.manifests.is_some() { BindServiceIps::Lo } else { BindServiceIps::None };
        self.bind_service_ips.unwrap_or(default)
    }

    /// Who may scrape /metrics.
    pub fn metrics_auth(&self) -> MetricsAuth {
        let default = if self.manifests.is_some() { MetricsAuth::None } else { MetricsAuth::TokenReview };
        self.metrics_auth.unwrap_or(default)
    }

    /// Whether /metrics has series for each service IP of this node.
    pub fn per_ip_metrics(&self) -> PerIpMetrics {
        match self.per_ip_metrics.unwrap_or_else(|| self.manifests.is_none()) {
            true => PerIpMetrics::Shown,
            false => PerIpMetrics::Hidden,
        }
    }

    /// Where the data plane is asked how it does, if anywhere.
    pub fn dataplane_health(&self) -> Option<Uri> {
        match &self.dataplane_health {
            Some(DataPlaneHealth::At(url)) => Some(url.clone()),
            Some(DataPlaneHealth::None) => None,
            None if self.manifests.is_some() => None,
            None => Some(Uri::from_static(KUBE_PROXY)),
        }
    }

    /// The address under which the other nodes reach this one. `pod` has the addresses of the pod of this speaker.
    ///
    /// # Errors
    ///
    /// When there is no route to the first peer, or the address given is one that nobody can send to.
    pub fn gossip_address(&self, pod: &[IpAddr]) -> Result<SocketAddr> {
        let known = self.ml_bindaddr.or(self.host).or_else(|| pod.first().copied());
        let ip = match (known, self.seeds().first()) {
            (Some(ip), _) => ip,
            (None, Some(peer)) => source_address(*peer)
                .with_context(|| format!("--ml-bindaddr is not given and nothing routes to --join {peer}"))?,
            (None, None) if self.manifests.is_none() => {
                bail!("--ml-bindaddr: the other nodes must know where this one is; give the address of this host")
            }
            (None, None) => IpAddr::from([127, 0, 0, 1]),
        };
        if ip.is_unspecified() || ip.is_multicast() {
            bail!("--ml-bindaddr {ip}: peers must be able to send to it; give an address of this node");
        }
        Ok(SocketAddr::new(ip, self.ml_bindport))
    }
}

/// Where kube-proxy listens unless it is told otherwise (`healthzBindAddress`).
const KUBE_PROXY: &str = "http://127.0.0.1:10256/healthz";

/// The address that the kernel would use towards `peer`. Sends nothing.
fn source_address(peer: SocketAddr) -> Result<IpAddr> {
    let any = if peer.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(peer)?;
    Ok(socket.local_addr()?.ip())
}

/// Argument and the variable of MetalLB 0.16's speaker that sets it.
pub const METALLB_VARIABLES: [(&str, &str); 8] = [
    ("host", "METALLB_HOST"),
    ("node_name", "METALLB_NODE_NAME"),
    ("ml_bindaddr", "METALLB_ML_BIND_ADDR"),
    ("ml_bindport", "METALLB_ML_BIND_PORT"),
    ("ml_secret_key_path", "METALLB_ML_SECRET_KEY_PATH"),
    ("ml_labels", "METALLB_ML_LABELS"),
    ("namespace", "METALLB_NAMESPACE"),
    ("pod_name", "METALLB_POD_NAME"),
];

#[cfg(test)]
mod tests;
