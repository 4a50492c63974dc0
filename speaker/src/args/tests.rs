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
    let args = parse(&["--node-name=n1", "--manifests=m", "--insecure-plaintext", "--ml-secret-key-path=k"]).unwrap();

    assert!(args.insecure_plaintext && args.ml_secret_key_path.is_some());
}

#[test]
fn what_this_version_cannot_do_is_refused() {
    let flags = ["--profile=faster", "--placement=even", "--per-ip-metrics=some", "--metrics-auth=basic"];
    for flag in flags {
        let error = parse(&["--node-name=n1", "--manifests=m", "--insecure-plaintext", flag]).unwrap_err();
        assert!(error.contains("possible values"), "{error}");
    }
}

#[test]
fn times_are_read_and_bad_ones_are_named_with_their_flag() {
    let with = |flags: &[&str]| parse(&[&["--node-name=n1", "--manifests=m", "--insecure-plaintext"], flags].concat());
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
