//! What five guides tell their readers to do, step by step, with their own objects (`tests/walkthroughs`).
//!
//! The file that installs is ours instead of a URL, and the echo server serves instead of an image from a registry. Between two
//! guides everything is deleted as a user would delete it.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::IpNet;
use serde_json::Value;

use super::super::install::{MANIFEST, NAMESPACE, ingress};
use super::super::{Cluster, items};
use super::{SERVED_WITHIN, step};
use crate::lab::now;
use crate::load::figures::{Bound, Figures};

pub(super) fn run(cluster: &mut Cluster<'_>, figures: &mut Figures) -> Result<()> {
    // The guides' addresses are on the client's wire.
    cluster.shell_at_client(
        "for net in 192.168.178.0/24 10.10.1.0/24 192.168.2.0/24; do ip route replace $net dev eth0 || exit 1; done",
    )?;
    cluster.apply(APPLICATION)?;
    cluster.kubectl(&["rollout", "status", "deployment/frontend", "--timeout=120s"])?;
    let guides = [
        Guide("strict-arp", strict_arp),
        Guide("concepts", concepts),
        Guide("secret", secret),
        Guide("three-pools", three_pools),
        Guide("config-map", config_map),
    ];
    let all = guides.len();
    let mut followed = 0.0;
    for Guide(name, guide) in guides {
        step(&format!("walk-through {name}"));
        let begun = now();
        guide(cluster).with_context(|| format!("walk-through {name}"))?;
        figures.row(name.to_owned(), [("took_s", begun.elapsed().as_secs_f64())]);
        followed += 1.0;
        uninstall(cluster).with_context(|| format!("after walk-through {name}"))?;
    }
    figures.target("guides followed to their end".to_owned(), followed, Bound::AtLeast, super::count(all));
    Ok(())
}

/// A guide by the name of its folder, and its steps.
struct Guide(&'static str, fn(&mut Cluster<'_>) -> Result<()>);

/// Strict ARP, the manifest, a pool, then pool and advertisement in one file.
fn strict_arp(cluster: &mut Cluster<'_>) -> Result<()> {
    edit_kube_proxy(cluster, include_str!("../../../../tests/walkthroughs/strict-arp/kube-proxy.yaml"))?;
    install(cluster)?;
    cluster.configure(include_str!("../../../../tests/walkthroughs/strict-arp/pool.yaml"))?;
    let ip = address_of_new_service(cluster, "first", "", "192.168.178.240/28")?;
    expect_silence(cluster, ip)?;
    cluster.configure(include_str!("../../../../tests/walkthroughs/strict-arp/metallb-l2-range-allocation.yaml"))?;
    expect_service(cluster, ip)
}

/// A pool of both families; the guide ends before an advertisement.
fn concepts(cluster: &mut Cluster<'_>) -> Result<()> {
    install(cluster)?;
    for (kind, name) in [
        ("deployment", "controller"),
        ("daemonset", "speaker"),
        ("serviceaccount", "controller"),
        ("serviceaccount", "speaker"),
    ] {
        cluster.kubectl(&["-n", NAMESPACE, "get", kind, name])?;
    }
    cluster.configure(include_str!("../../../../tests/walkthroughs/concepts/pool.yaml"))?;
    let dual = "  ipFamilyPolicy: RequireDualStack\n";
    let ip = address_of_new_service(cluster, "first", dual, "192.168.8.0/22")?;
    let ips = addresses(cluster, "first")?;
    let [v4, v6] = ips.as_slice() else { bail!("the Service has {ips:?}, not an address of either family") };
    ensure!(v4.is_ipv4() && v6.is_ipv6(), "the Service has {v4} and {v6}");
    expect_silence(cluster, ip)?;
    cluster.configure(
        "apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {name: example, namespace: metallb-system}\n",
    )?;
    for ip in ips {
        expect_service(cluster, ip)?;
    }
    Ok(())
}

/// Namespace and manifest apart, the Secret by hand, pods that wait for a configuration.
fn secret(cluster: &mut Cluster<'_>) -> Result<()> {
    edit_kube_proxy(cluster, include_str!("../../../../tests/walkthroughs/secret/kube-proxy.yaml"))?;
    cluster.apply(include_str!("../../../../deploy/manifests/namespace.yaml"))?;
    cluster.apply(MANIFEST)?;
    let key = cluster.shell_at_client("openssl rand -base64 128")?;
    let literal = format!("--from-literal=secretkey={key}");
    match cluster.kubectl(&["create", "secret", "generic", "-n", NAMESPACE, "memberlist", &literal]) {
        Ok(said) => step(&format!("  {said}")),
        // A controller that was quicker has made one.
        Err(error) if error.to_string().contains("already exists") => step("  the controller has made the Secret"),
        Err(error) => return Err(error),
    }
    cluster.wait_for_pods()?;
    let pods = cluster.get("pods", &["-n", NAMESPACE])?;
    let running = items(&pods).filter(|pod| pod.pointer("/status/phase").is_some_and(|phase| phase == "Running"));
    let (running, wanted) = (running.count(), cluster.nodes().len() + CONTROLLERS);
    ensure!(running == wanted, "{running} of {wanted} pods are Running");
    Ok(())
}

/// Three pools; two of them are for one Service each.
fn three_pools(cluster: &mut Cluster<'_>) -> Result<()> {
    install(cluster)?;
    cluster.configure(include_str!("../../../../tests/walkthroughs/three-pools/config.yaml"))?;
    for (name, pool, within) in
        [("any", "default-pool", "10.10.1.32/27"), ("web", "web", "10.10.1.64/32"), ("dns", "dns", "10.10.1.65/32")]
    {
        let ip = service(cluster, name, &format!("  annotations: {{metallb.io/address-pool: {pool}}}\n"), "", within)?;
        expect_service(cluster, ip)?;
    }
    Ok(())
}

/// A Service that waits, then the manifest, then a ConfigMap.
fn config_map(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.apply(include_str!("../../../../tests/walkthroughs/config-map/kube-service-load-balancer.yaml"))?;
    let shown = cluster.kubectl(&["get", "service", "load-balancer-service", "-o", "wide"])?;
    ensure!(shown.contains("<pending>"), "{shown}");
    install(cluster)?;
    cluster.kubectl(&["get", "deploy", "-n", NAMESPACE, "-o", "wide"])?;
    cluster.apply(include_str!("../../../../tests/walkthroughs/config-map/metallb-config.yaml"))?;
    cluster.kubectl(&["get", "deploy", "controller", "-n", NAMESPACE, "-o", "wide"])?;
    let ip = address(cluster, "load-balancer-service", "192.168.2.10/32")?;
    let shown = cluster.kubectl(&["get", "service", "load-balancer-service", "-o", "wide"])?;
    ensure!(shown.contains("192.168.2.10"), "{shown}");
    expect_service(cluster, ip)
}

fn install(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.install()?;
    let pods = cluster.kubectl(&["-n", NAMESPACE, "get", "pods"])?;
    ensure!(!pods.contains("Error") && !pods.contains("CrashLoopBackOff"), "{pods}");
    Ok(())
}

/// As kubeadm keeps it, for `kubectl edit configmap -n kube-system kube-proxy`.
fn edit_kube_proxy(cluster: &mut Cluster<'_>, config: &str) -> Result<()> {
    let indented: String = config.lines().map(|line| format!("    {line}\n")).collect();
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kube-proxy, namespace: kube-system}\ndata:\n  config.conf: |\n";
    cluster.apply(&format!("{map}{indented}")).map(drop)
}

fn address_of_new_service(cluster: &mut Cluster<'_>, name: &str, spec: &str, within: &str) -> Result<IpAddr> {
    service(cluster, name, "", spec, within)
}

/// Makes a Service before the application and waits for its address.
fn service(cluster: &mut Cluster<'_>, name: &str, metadata: &str, spec: &str, within: &str) -> Result<IpAddr> {
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n{metadata}spec:\n{spec}  selector: {{app: guestbook, tier: frontend}}\n  \
         type: LoadBalancer\n  ports: [{{name: http, port: 80, protocol: TCP}}]\n"
    ))?;
    address(cluster, name, within)
}

fn address(cluster: &mut Cluster<'_>, service: &str, within: &str) -> Result<IpAddr> {
    let net: IpNet = within.parse().with_context(|| format!("{within} is no net"))?;
    let found = cluster.wait_until(&format!("Service {service} has an address"), SERVED_WITHIN, |cluster| {
        Ok(addresses(cluster, service)?.first().copied())
    });
    let ip = match found {
        Ok(ip) => ip,
        Err(error) => {
            let described = cluster.kubectl(&["describe", "service", service]).unwrap_or_default();
            return Err(error.context(described));
        }
    };
    ensure!(net.contains(&ip), "Service {service} has {ip}, which is not of {net}");
    Ok(ip)
}

fn addresses(cluster: &mut Cluster<'_>, service: &str) -> Result<Vec<IpAddr>> {
    let object: Value = cluster.get(&format!("service/{service}"), &[])?;
    Ok(ingress(&object))
}

/// The client gets a connection, and its byte back.
fn expect_service(cluster: &mut Cluster<'_>, ip: IpAddr) -> Result<()> {
    let target = SocketAddr::new(ip, HTTP);
    let connections = cluster.wait_until(&format!("{ip} is reached"), SERVED_WITHIN, |cluster| {
        Ok(Some(cluster.lab.connect(&[target], 1)?))
    })?;
    thread::sleep(USED_FOR);
    let kept = connections.stop().context("the connection could not be used")?;
    ensure!((kept.established, kept.resets, kept.stalls) == (1, 0, 0), "the connection to {target}: {kept:?}");
    step(&format!("  {ip} is reached"));
    Ok(())
}

/// Nobody answers for an address that no advertisement names.
fn expect_silence(cluster: &mut Cluster<'_>, ip: IpAddr) -> Result<()> {
    match cluster.owner_of(ip) {
        Ok(node) => bail!("{node} answers for {ip}, which nothing advertises"),
        Err(_) => Ok(()),
    }
}

/// As the documentation says; the pools go with their definitions.
fn uninstall(cluster: &mut Cluster<'_>) -> Result<()> {
    // All but that of the API itself.
    cluster.kubectl(&["delete", "services", "-l", "component!=apiserver", "--ignore-not-found"])?;
    let path = cluster.file("garpike.yaml");
    std::fs::write(&path, MANIFEST).with_context(|| format!("cannot write {}", path.display()))?;
    // Of a definition that is deleted soon after it was made the API server says "storage is (re)initializing", and tries again
    // after ever longer pauses: more than two minutes were seen.
    cluster.kubectl(&["delete", "-f", &path.to_string_lossy(), "--ignore-not-found", "--timeout=280s"])?;
    cluster.wait_until("the namespace is gone", SERVED_WITHIN, |cluster| {
        Ok(cluster.get(&format!("namespace/{NAMESPACE}"), &[]).is_err().then_some(()))
    })
}

/// What the guides have nginx or a guestbook for.
const APPLICATION: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: frontend}
spec:
  replicas: 3
  selector: {matchLabels: {app: guestbook, tier: frontend}}
  template:
    metadata: {labels: {app: guestbook, tier: frontend}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: frontend
        image: garpike.test/lab:1
        args: [chaos, echo, '0.0.0.0:80', '[::]:80']
";

const HTTP: u16 = 80;
const USED_FOR: Duration = Duration::from_millis(300);
/// As many as the manifest runs.
const CONTROLLERS: usize = 2;
