//! The flags of `garpike speaker`.
//!
//! A superset of MetalLB 0.16's speaker flags, so that its manifests' arguments work. A value comes from the flag, else
//! from the `GARPIKE_*` variable, else from MetalLB's variable. What this version cannot do yet is not among the
//! possible values: nothing is accepted and then ignored.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args as ClapArgs, Command, ValueEnum};
use garpike_election::NodeName;
use hyper::Uri;

use crate::timing::{self, Failback, Profile};

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

/// `--bind-service-ips`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindServiceIps {
    /// As /32 and /128 on the loopback interface; needs CAP_NET_ADMIN
    Lo,
    /// Something else makes them local
    None,
}

/// `--metrics-auth`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsAuth {
    /// Whom the cluster grants the verb get on the path /metrics; HTTPS with a bearer token
    TokenReview,
    /// Everybody who reaches the port; plain HTTP
    None,
}

/// `--per-ip-metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerIpMetrics {
    /// There are series for each service IP of this node.
    Shown,
    /// There are none.
    Hidden,
}

/// `--placement`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// By MetalLB's hash, each address on its own
    Hash,
}

/// `--dataplane-health`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataPlaneHealth {
    /// Nobody is asked.
    None,
    /// Whoever answers there, by plain HTTP.
    At(Uri),
}

impl std::str::FromStr for DataPlaneHealth {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s == "none" {
            return Ok(Self::None);
        }
        let url: Option<Uri> = s.parse().ok();
        let url = url.filter(|url| url.scheme_str() == Some("http") && url.authority().is_some());
        url.map(Self::At)
            .ok_or_else(|| format!("\"{s}\" is neither \"none\" nor an http URL; write http://127.0.0.1:10256/healthz"))
    }
}

/// A peer as `--join` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinPeer {
    ip: IpAddr,
    port: Option<u16>,
}

impl std::str::FromStr for JoinPeer {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if let Ok(ip) = s.parse() {
            return Ok(Self { ip, port: None });
        }
        let address: SocketAddr = s.parse().map_err(|_| {
            format!("\"{s}\" is not an address; write 192.168.8.11, 192.168.8.11:7946, fd00::11 or [fd00::11]:7946")
        })?;
        Ok(Self { ip: address.ip(), port: Some(address.port()) })
    }
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

/// Makes MetalLB's environment variables the defaults of their flags: below flag and `GARPIKE_*`.
pub fn accept_metallb_environment(mut command: Command) -> Command {
    for (argument, variable) in METALLB_VARIABLES {
        let Some(value) = std::env::var_os(variable).filter(|value| !value.is_empty()) else { continue };
        command = command.mut_arg(argument, |argument| argument.default_value(value).required(false));
    }
    command
}

/// Argument and the variable of MetalLB 0.16's speaker that sets it.
const METALLB_VARIABLES: [(&str, &str); 8] = [
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
mod tests {
    use clap::{Args as _, Command};

    use super::*;

    #[test]
    fn the_arguments_of_metallbs_daemonset_are_accepted() {
        let args = parse(&[
            "--node-name=n1",
            "--manifests=/etc/garpike",
            "--port=9120",
            "--log-level=info",
            "--ml-secret-key-path=/etc/ml_secret_key",
            "--ml-labels=app=metallb,component=speaker",
            "--ml-wan-config",
            "--lb-class=",
        ])
        .unwrap();

        assert_eq!(args.node_name.as_str(), "n1");
        assert_eq!((args.port, args.ml_bindport, args.health_probe_port), (9120, 7946, 17472));
    }

    #[test]
    fn a_secret_or_the_wish_for_plaintext_is_required() {
        let error = parse(&["--node-name=n1", "--manifests=m"]).unwrap_err();

        assert!(error.contains("--ml-secret-key-path"), "{error}");
        assert!(parse(&["--node-name=n1", "--manifests=m", "--insecure-plaintext"]).is_ok());
    }

    #[test]
    fn a_secret_and_the_wish_for_plaintext_together_roll_encryption_out() {
        let args =
            parse(&["--node-name=n1", "--manifests=m", "--insecure-plaintext", "--ml-secret-key-path=k"]).unwrap();

        assert!(args.insecure_plaintext && args.ml_secret_key_path.is_some());
    }

    #[test]
    fn what_this_version_cannot_do_is_refused() {
        let flags = ["--profile=faster", "--placement=balanced", "--per-ip-metrics=some", "--metrics-auth=basic"];
        for flag in flags {
            let error = parse(&["--node-name=n1", "--manifests=m", "--insecure-plaintext", flag]).unwrap_err();
            assert!(error.contains("possible values"), "{error}");
        }
    }

    #[test]
    fn times_are_read_and_bad_ones_are_named_with_their_flag() {
        let with =
            |flags: &[&str]| parse(&[&["--node-name=n1", "--manifests=m", "--insecure-plaintext"], flags].concat());
        let args = with(&[]).unwrap();
        let defaults = (Profile::Default, Duration::from_secs(60), Failback::After(Duration::from_secs(30)));
        assert_eq!((args.profile, args.restart_grace, args.failback), defaults);

        let args = with(&["--profile=relaxed", "--restart-grace=500ms", "--failback=never"]).unwrap();
        let given = (Profile::Relaxed, Duration::from_millis(500), Failback::Never);
        assert_eq!((args.profile, args.restart_grace, args.failback), given);

        for flag in ["--restart-grace=60", "--failback=30s", "--failback=after=soon"] {
            let error = with(&[flag]).unwrap_err();
            let (name, value) = flag.split_once('=').unwrap();
            assert!(error.contains(name) && error.contains(value) && error.contains("write"), "{error}");
        }
    }

    #[test]
    fn without_manifests_the_kubernetes_api_is_the_source_and_kube_proxy_is_asked() {
        let args = parse(&["--node-name=n1", "--insecure-plaintext", "--ml-bindaddr=10.0.0.1"]).unwrap();
        assert_eq!((args.manifests.clone(), args.bind_service_ips()), (None, BindServiceIps::None));
        assert_eq!(args.dataplane_health().unwrap().to_string(), "http://127.0.0.1:10256/healthz");
        let args = parse(&["--node-name=n1", "--insecure-plaintext", "--manifests=m"]).unwrap();
        assert_eq!((args.bind_service_ips(), args.dataplane_health()), (BindServiceIps::Lo, None));

        let args = parse(&["--node-name=n1", "--insecure-plaintext", "--dataplane-health=none"]).unwrap();
        assert_eq!(args.dataplane_health(), None);
        for wrong in ["off", "https://127.0.0.1/healthz", "127.0.0.1:10256", ""] {
            let error = parse(&["--node-name=n1", "--insecure-plaintext", &format!("--dataplane-health={wrong}")]);
            assert!(error.unwrap_err().contains("write http://127.0.0.1:10256/healthz"), "{wrong}");
        }
        assert!(parse(&["--node-name=n1", "--insecure-plaintext", "--manifests=m", "--kubeconfig=k"]).is_err());
    }

    #[test]
    fn the_gossip_address_is_the_flag_else_the_host_else_the_pod() {
        let pod: IpAddr = "10.0.0.3".parse().unwrap();
        let with = |flags: &[&str]| {
            let args = parse(&[&["--node-name=n1", "--insecure-plaintext"], flags].concat()).unwrap();
            args.gossip_address(&[pod]).unwrap().to_string()
        };
        assert_eq!(with(&["--ml-bindaddr=10.0.0.1", "--host=10.0.0.2"]), "10.0.0.1:7946");
        assert_eq!(with(&["--host=fd00::2"]), "[fd00::2]:7946");
        assert_eq!(with(&[]), "10.0.0.3:7946");
        let unknown = parse(&["--node-name=n1", "--insecure-plaintext"]).unwrap().gossip_address(&[]).unwrap_err();
        assert!(unknown.to_string().contains("--ml-bindaddr"), "{unknown}");
    }

    #[test]
    fn announcements_have_a_rate_and_never_none() {
        let with = |flag| parse(&["--node-name=n1", "--manifests=m", "--insecure-plaintext", flag]);
        assert_eq!(with("--port=0").unwrap().announce_rate.get(), 10_000);
        assert_eq!(with("--announce-rate=500").unwrap().announce_rate.get(), 500);
        let error = with("--announce-rate=0").unwrap_err();
        assert!(error.contains("--announce-rate"), "{error}");
    }

    #[test]
    fn peers_have_the_port_of_this_node_unless_they_name_one() {
        let args = parse(&[
            "--node-name=n1",
            "--manifests=m",
            "--insecure-plaintext",
            "--ml-bindport=7000",
            "--join=192.168.8.12,192.168.8.13:7001,fd00::14,[fd00::15]:7002",
        ])
        .unwrap();

        let seeds: Vec<String> = args.seeds().iter().map(ToString::to_string).collect();
        assert_eq!(seeds, ["192.168.8.12:7000", "192.168.8.13:7001", "[fd00::14]:7000", "[fd00::15]:7002"]);
    }

    #[test]
    fn a_bad_peer_is_named() {
        let error = parse(&["--node-name=n1", "--manifests=m", "--insecure-plaintext", "--join=node-b"]).unwrap_err();

        assert!(error.contains("node-b") && error.contains("192.168.8.11:7946"), "{error}");
    }

    fn parse(arguments: &[&str]) -> Result<Args, String> {
        use clap::FromArgMatches as _;

        let command = Args::augment_args(Command::new("speaker").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments).map_err(|error| error.to_string())?;
        Args::from_arg_matches(&matches).map_err(|error| error.to_string())
    }
}
