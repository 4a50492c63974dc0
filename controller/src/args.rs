//! The flags of `garpike controller`.
//!
//! A superset of MetalLB 0.16's controller flags, so that its manifests' arguments work. A value comes from the flag, else
//! from the `GARPIKE_*` variable, else from MetalLB's variable.

use std::fs;
use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use crate::dead_node::{Mode as DeadNodeHintMode, Share};

/// `garpike controller`: gives addresses to Services of a Kubernetes cluster.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n  garpike controller --kubeconfig ~/.kube/config --metrics-auth none\n  \
                        garpike controller --lb-class=garpike.io/l2\n\nExit status: 0 ended by a signal, 1 something is \
                        missing, 2 wrong use.")]
pub struct Args {
    /// Credentials for the Kubernetes API [default: those of the pod]
    #[arg(long, env = "GARPIKE_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Namespace of the custom resources [default: that of the pod, else metallb-system]
    #[arg(long, env = "GARPIKE_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,

    /// Name of this pod; a restart in the same pod takes over at once
    #[arg(long, env = "GARPIKE_POD_NAME", value_name = "NAME", default_value = "")]
    pub pod_name: String,

    /// Name of the Deployment that owns the Secret of the speakers
    #[arg(long, env = "GARPIKE_DEPLOYMENT", value_name = "NAME", default_value = "")]
    pub deployment: String,

    /// Name of the Secret of the speakers, which is made when it is missing [default: none is made]
    #[arg(long, env = "GARPIKE_ML_SECRET_NAME", value_name = "NAME", default_value = "")]
    pub ml_secret_name: String,

    /// Handle only Services of this loadBalancerClass [default: those without a class]
    #[arg(long, env = "GARPIKE_LB_CLASS", value_name = "CLASS", default_value = "")]
    pub lb_class: String,

    /// Port of /metrics on all addresses; 0 turns it off
    #[arg(long, env = "GARPIKE_PORT", value_name = "PORT", default_value = "9120")]
    pub port: u16,

    /// Who may scrape /metrics
    #[arg(long, env = "GARPIKE_METRICS_AUTH", default_value = "token-review")]
    pub metrics_auth: MetricsAuth,

    /// Directory with tls.crt and tls.key for /metrics [default: a certificate made at the start]
    #[arg(long, env = "GARPIKE_METRICS_CERT_DIR", value_name = "DIR")]
    pub metrics_cert_dir: Option<PathBuf>,

    /// Port of /healthz and /readyz on all addresses
    #[arg(long, env = "GARPIKE_HEALTH_PROBE_PORT", value_name = "PORT", default_value = "17472")]
    pub health_probe_port: u16,

    /// Whether objects are checked as they are written
    #[arg(long, env = "GARPIKE_WEBHOOK_MODE", default_value = "enabled")]
    pub webhook_mode: WebhookMode,

    /// Directory with tls.crt and tls.key for the webhook [default: k8s-webhook-server/serving-certs in the directory for
    /// temporary files]
    #[arg(long, env = "GARPIKE_CERT_DIR", value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,

    /// Name of the Service in front of the webhook, for which its certificate is made
    #[arg(long, env = "GARPIKE_CERT_SERVICE_NAME", value_name = "NAME", default_value = "metallb-webhook-service")]
    pub cert_service_name: String,

    /// Name of the Secret that holds the certificate of the webhook
    #[arg(long, env = "GARPIKE_WEBHOOK_SECRET", value_name = "NAME", default_value = "metallb-webhook-cert")]
    pub webhook_secret: String,

    /// Do not make and renew the certificate of the webhook
    #[arg(long, env = "GARPIKE_DISABLE_CERT_ROTATION", num_args = 0..=1, require_equals = true)]
    #[arg(default_value_t = false, default_missing_value = "true")]
    pub disable_cert_rotation: bool,

    /// Whether the pods of a node whose host is dead by the verdict of the speakers are marked not ready
    #[arg(long, env = "GARPIKE_DEAD_NODE_HINT", default_value = "dry-run")]
    pub dead_node_hint: DeadNodeHintMode,

    /// Share of the nodes whose pods are marked within a minute; of however few, one node
    #[arg(long, env = "GARPIKE_DEAD_NODE_HINT_SHARE", value_name = "SHARE", default_value = "1/3")]
    pub dead_node_hint_share: Share,

    /// Labels of the speakers' pods, to which the dead-node hint listens
    #[arg(long, env = "GARPIKE_ML_LABELS", value_name = "SELECTOR", default_value = "app=metallb,component=speaker")]
    pub ml_labels: String,

    /// Port of the speakers' gossip
    #[arg(long, env = "GARPIKE_ML_BINDPORT", value_name = "PORT", default_value = "7946")]
    pub ml_bindport: u16,

    /// The --cluster-name of the speakers
    #[arg(long, env = "GARPIKE_CLUSTER_NAME", value_name = "NAME", default_value = "garpike")]
    pub cluster_name: String,

    /// Take over from a MetalLB that announces by BGP, though nothing is announced by BGP afterwards
    #[arg(long, env = "GARPIKE_IGNORE_BGP", num_args = 0..=1, require_equals = true)]
    #[arg(default_value_t = false, default_missing_value = "true")]
    pub ignore_bgp: bool,

    /// Lowest version of TLS that is served
    #[arg(long, env = "GARPIKE_TLS_MIN_VERSION", value_name = "VERSION", default_value = "VersionTLS13")]
    pub tls_min_version: String,

    /// Cipher suites that are served with TLS 1.2, comma-separated [default: those of rustls]
    #[arg(long, env = "GARPIKE_TLS_CIPHER_SUITES", value_name = "NAMES", value_delimiter = ',')]
    pub tls_cipher_suites: Vec<String>,

    /// Curves that are served, comma-separated [default: those of rustls]
    #[arg(long, env = "GARPIKE_TLS_CURVE_PREFERENCES", value_name = "NUMBERS", value_delimiter = ',')]
    pub tls_curve_preferences: Vec<String>,

    /// Most detailed level that is logged
    #[arg(long, env = "GARPIKE_LOG_LEVEL", default_value = "info")]
    #[arg(value_parser = ["all", "debug", "info", "warn", "error", "none"])]
    pub log_level: String,

    /// How lines are logged: json as MetalLB does, or text [default: text at a terminal, else json]
    #[arg(long, env = "GARPIKE_LOG_FORMAT", value_name = "json|text", value_parser = ["json", "text"])]
    pub log_format: Option<String>,

    /// MetalLB's flags that mean nothing here.
    #[command(flatten)]
    pub metallb: MetalLbOnly,
}

/// Flags of MetalLB's controller without a meaning here; accepted so that its arguments can stay.
#[derive(ClapArgs, Clone, Debug)]
#[allow(missing_docs, reason = "each is MetalLB's flag of the same name")]
pub struct MetalLbOnly {
    #[arg(long, hide = true)]
    pub pprof_bind_address: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub webhook_http2: Option<bool>,
}

/// `--metrics-auth`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsAuth {
    /// Who has a token with the right to get /metrics; HTTPS
    TokenReview,
    /// Everybody who reaches the port; plain HTTP
    None,
}

/// `--webhook-mode`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookMode {
    /// Checks objects and gives addresses
    Enabled,
    /// Gives addresses
    Disabled,
    /// Checks objects
    #[value(name = "onlywebhook")]
    OnlyWebhook,
}

impl Args {
    /// The namespace of the custom resources.
    pub fn namespace(&self) -> String {
        let of_the_pod = || fs::read_to_string(POD_NAMESPACE).ok().map(|text| text.trim().to_owned());
        let given = self.namespace.clone().filter(|name| !name.is_empty());
        given.or_else(of_the_pod).unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())
    }

    /// The class of the Services that are ours; `None`: those without one.
    pub fn load_balancer_class(&self) -> Option<String> {
        Some(self.lb_class.clone()).filter(|class| !class.is_empty())
    }
}

/// Argument and the variable of MetalLB 0.16's controller that sets it.
pub const METALLB_VARIABLES: [(&str, &str); 6] = [
    ("namespace", "METALLB_NAMESPACE"),
    ("pod_name", "METALLB_POD_NAME"),
    ("deployment", "METALLB_DEPLOYMENT"),
    ("ml_secret_name", "METALLB_ML_SECRET_NAME"),
    ("ml_labels", "METALLB_ML_LABELS"),
    ("ml_bindport", "METALLB_ML_BIND_PORT"),
];

/// Where Kubernetes tells a pod its namespace.
const POD_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// Where MetalLB is installed.
const DEFAULT_NAMESPACE: &str = "metallb-system";

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command};

    use super::*;

    #[test]
    fn the_arguments_of_metallbs_deployment_are_accepted() {
        let args = parse(&[
            "--port=9120",
            "--log-level=info",
            "--webhook-mode=onlywebhook",
            "--disable-cert-rotation=true",
            "--webhook-http2",
            "--tls-min-version=VersionTLS12",
            "--tls-cipher-suites=A,B",
            "--lb-class=",
        ])
        .unwrap();

        assert_eq!((args.port, args.health_probe_port), (9120, 17472));
        assert_eq!((args.webhook_mode, args.disable_cert_rotation), (WebhookMode::OnlyWebhook, true));
        assert_eq!((args.tls_cipher_suites.len(), args.load_balancer_class()), (2, None));
    }

    #[test]
    fn the_class_of_services_is_taken() {
        let args = parse(&["--lb-class=garpike.io/l2", "--namespace=lb"]).unwrap();

        assert_eq!(args.load_balancer_class().as_deref(), Some("garpike.io/l2"));
        assert_eq!(args.namespace(), "lb");
    }

    #[test]
    fn flags_that_have_no_value_there_are_refused_by_name() {
        let error = parse(&["--webhook-mode=sometimes"]).unwrap_err();

        assert!(error.contains("--webhook-mode") && error.contains("onlywebhook"), "{error}");
    }

    fn parse(arguments: &[&str]) -> Result<Args, String> {
        use clap::FromArgMatches as _;

        let command = Args::augment_args(Command::new("controller").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments).map_err(|error| error.to_string())?;
        Args::from_arg_matches(&matches).map_err(|error| error.to_string())
    }
}
