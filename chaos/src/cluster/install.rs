//! What people apply: the one file of Garpike, pools, and an application behind Services.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use garpike_election::NodeName;
use serde_json::Value;

use super::image::LAB;
use super::{Cluster, items};
use crate::lab::Links;

impl Cluster<'_> {
    /// Applies the one file and waits for all pods.
    pub(super) fn install(&mut self) -> Result<()> {
        self.apply(MANIFEST)?;
        self.wait_for_pods()
    }

    /// Waits until both programs are rolled out.
    pub(super) fn wait_for_pods(&mut self) -> Result<()> {
        for workload in ["deployment/controller", "daemonset/speaker"] {
            let rolled_out = self.kubectl(&["-n", NAMESPACE, "rollout", "status", workload, "--timeout=120s"]);
            if let Err(error) = rolled_out {
                let pods = self.kubectl(&["-n", NAMESPACE, "describe", "pods"]).unwrap_or_default();
                return Err(error.context(pods));
            }
        }
        Ok(())
    }

    /// Applies objects that the webhook judges; it may not be reached at the first attempt.
    pub(super) fn configure(&mut self, yaml: &str) -> Result<()> {
        self.wait_until("the configuration is accepted", CONFIGURED_WITHIN, |cluster| cluster.apply(yaml).map(Some))?;
        Ok(())
    }

    /// Makes pools, whose addresses are announced to clients alone.
    pub(super) fn configure_pools(&mut self) -> Result<()> {
        let interfaces = match self.links {
            Links::One => "",
            Links::Two => "  interfaces:\n  - eth0\n",
        };
        self.configure(&format!("{POOLS}{interfaces}"))
    }

    /// Starts what serves behind Services, on every node or on one, and waits for it.
    pub(super) fn serve(&mut self, name: &str, on: Option<&NodeName>) -> Result<()> {
        let selector = on.map_or_else(String::new, |node| format!("nodeSelector: {{kubernetes.io/hostname: {node}}}"));
        let yaml = format!(
            "apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  updateStrategy: {{rollingUpdate: {{maxUnavailable: 100%}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 0
      {selector}
      containers:
      - name: echo
        image: {LAB}
        args: [chaos, echo, '0.0.0.0:7', '[::]:7']
        # Without, it gets next to no processor while others want it, and what is judged is not ours.
        resources: {{requests: {{cpu: 200m}}}}
"
        );
        self.apply(&yaml)?;
        let workload = format!("daemonset/{name}");
        self.kubectl(&["rollout", "status", &workload, "--timeout=120s"]).map(drop)
    }

    /// Makes dual-stack Services `NAME-1`, ... before it, and waits for their addresses.
    pub(super) fn expose(&mut self, name: &str, count: usize) -> Result<Vec<Exposed>> {
        let mut yaml = String::new();
        for number in 1..=count {
            let _ = write!(
                yaml,
                "---
apiVersion: v1
kind: Service
metadata: {{name: {name}-{number}}}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  selector: {{app: {name}}}
  ports:
  - {{name: datagrams, port: 7, protocol: UDP}}
  - {{name: connections, port: 7, protocol: TCP}}
"
            );
        }
        self.apply(&yaml)?;
        self.wait_until("every Service has its addresses", CONFIGURED_WITHIN, |cluster| {
            let services = cluster.get("services", &[])?;
            let found: Vec<Exposed> = items(&services).filter_map(|service| exposed(service, name)).collect();
            Ok((found.len() == count).then_some(found))
        })
    }

    /// The addresses of a Service, when it has both.
    pub(super) fn addresses(&mut self, service: &str) -> Result<Option<Exposed>> {
        let object = self.get(&format!("service/{service}"), &[]).with_context(|| format!("Service {service}"))?;
        Ok(exposed(&object, service))
    }
}

/// A Service that has an address of either family.
#[derive(Clone, Debug)]
pub(super) struct Exposed {
    pub(super) service: String,
    pub(super) v4: std::net::IpAddr,
    pub(super) v6: std::net::IpAddr,
}

impl Exposed {
    pub(super) fn both(&self) -> [std::net::IpAddr; 2] {
        [self.v4, self.v6]
    }
}

fn exposed(service: &Value, prefix: &str) -> Option<Exposed> {
    let name = service.pointer("/metadata/name")?.as_str()?.to_owned();
    let ips = ingress(service);
    let v4 = ips.iter().copied().find(std::net::IpAddr::is_ipv4)?;
    let v6 = ips.iter().copied().find(std::net::IpAddr::is_ipv6)?;
    name.starts_with(prefix).then_some(Exposed { service: name, v4, v6 })
}

/// The addresses in a Service's status.
pub(super) fn ingress(service: &Value) -> Vec<std::net::IpAddr> {
    let ingress = service.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
    ingress.into_iter().flatten().filter_map(|one| one.get("ip")?.as_str()?.parse().ok()).collect()
}

/// What is installed.
pub(super) const MANIFEST: &str = include_str!("../../../deploy/manifests/garpike.yaml");
/// The image that it names.
pub(super) const IMAGE: &str = concat!("ghcr.io/garpike/garpike:v", env!("CARGO_PKG_VERSION"));
/// Where it is.
pub(super) const NAMESPACE: &str = "metallb-system";
/// As MetalLB's documentation has it, but for the IPv6 net: the first address of that one is the anycast address of all routers of
/// the segment (RFC 4291 section 2.6.1), so the kernel of every node answers for it.
const POOLS: &str = "apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata:
  name: first-pool
  namespace: metallb-system
spec:
  addresses:
  - 192.168.10.0/24
  - 192.168.9.1-192.168.9.5
  - fc00:f853:0ccd:e799::10/124
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata:
  name: example
  namespace: metallb-system
spec:
  ipAddressPools:
  - first-pool
";
/// Measured: some seconds; chosen with room.
const CONFIGURED_WITHIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_names_the_image_that_the_lab_packs() {
        assert_eq!(MANIFEST.matches("image: ").count(), MANIFEST.matches(&format!("image: {IMAGE}\n")).count());
        assert!(MANIFEST.contains(IMAGE));
    }
}
