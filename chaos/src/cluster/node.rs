//! A node: a host of the lab whose first process is a shell that starts containerd, kubelet and kube-proxy.
//!
//! It has a mount namespace with its own `/run`, `/var/lib`, `/var/log`, `/sys` and cgroups, so that all programs use their
//! usual paths; a PID namespace, so that killing the first process ends all others; and a UTS namespace with its name.
//! `/var/lib` and `/var/log` survive a power cut.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use garpike_election::NodeName;
use serde_json::json;

use super::image::{NEXT, PAUSE};
use super::install::IMAGE;
use super::pki::{Pki, Subject};
use super::{Cluster, GATEWAY_V4, GATEWAY_V6, PODS, SERVICES_V4, SERVICES_V6};
use crate::lab::Role;
use crate::tools::Program;

impl Cluster<'_> {
    /// The ways between hosts, pods and Services: static, no daemon.
    pub(super) fn lay_routes(&mut self) -> Result<()> {
        let mut pods = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let (host, number) = (self.lab.host_inside(node)?, index + 1);
            pods.push((
                node.clone(),
                format!("ip route replace 10.244.{number}.0/24 via {} && ", host.v4)
                    + &format!("ip -6 route replace fd00:10:244:{number}::/64 via {} && ", host.v6),
            ));
        }
        let hosts: Vec<NodeName> = self.nodes.iter().chain([&self.control]).cloned().collect();
        for host in &hosts {
            let others = pods.iter().filter(|(node, _)| node != host).map(|(_, routes)| routes.as_str());
            let mut line: String = others.collect();
            let _ = write!(
                line,
                "ip route replace default via {GATEWAY_V4} && ip -6 route replace default via {GATEWAY_V6} && \
                 echo 1 > /proc/sys/net/ipv4/ip_forward && echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"
            );
            self.shell(host, &line)?;
        }
        let first = self.lab.host_inside(self.nodes.first().context("a cluster has a node")?)?;
        let control = self.control.clone();
        let line =
            format!("ip route add {SERVICES_V4} via {} && ip -6 route add {SERVICES_V6} via {}", first.v4, first.v6);
        self.shell(&control, &line).map(drop)
    }

    /// What a reboot takes away and a network namespace keeps: kube-proxy's rules, the connections that they knew, and the cables to
    /// pods that are no more, whose addresses the next pods get.
    pub(super) fn forget_network(&mut self, node: &NodeName) -> Result<()> {
        let line = "nft flush ruleset; conntrack -F 2>/dev/null; \
                    ip -o link | sed -n 's/^[0-9]*: \\(veth[0-9a-f]*\\)@.*/\\1/p' | xargs -r -n 1 ip link del; true";
        self.shell(node, line).map(drop)
    }

    /// Writes what a node's programs read.
    pub(super) fn write_node(&self, index: usize, pki: &Pki) -> Result<()> {
        let node = self.nodes.get(index).context("it is no node of the cluster")?;
        let (name, number) = (node.as_str(), index + 1);
        let subject = format!("system:node:{name}");
        pki.kubeconfig(name, Subject { organization: Some("system:nodes"), name: &subject }, &self.server()?)?;
        let directory = self.file(name);
        for inner in ["lib/kubelet", "lib/containerd", "lib/cni", "log/pods", "log/containers", "cni"] {
            let path = directory.join(inner);
            fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        let write = |file: &str, text: String| {
            let path = directory.join(file);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        let cni = directory.join("cni").display().to_string();
        write("resolv.conf", "nameserver 10.96.0.10\n".to_owned())?;
        write("machine-id", format!("{number:032x}\n"))?;
        write("cni/10-lab.conflist", cni_config(number))?;
        write("containerd.toml", containerd_config(&cni))?;
        write(
            "kubelet.json",
            kubelet_config(&pki.path("ca.crt"), &directory.join("resolv.conf").display().to_string()),
        )?;
        write("kube-proxy.json", proxy_config(name, &pki.path("kube-proxy.kubeconfig")))?;
        write("boot.sh", self.boot_script(node, pki)?)
    }

    /// Boots it.
    pub(super) fn start_node(&mut self, index: usize) -> Result<()> {
        let node = self.nodes.get(index).context("it is no node of the cluster")?.clone();
        let mut command = Command::new("sh");
        let join = "for h in $HIERARCHIES; do echo 0 > /sys/fs/cgroup/$h/$GROUP/cgroup.procs || exit 1; done; \
                    exec unshare --mount --pid --uts --ipc --cgroup --fork --kill-child bash \"$0\"";
        command.args(["-c", join]).arg(self.file(node.as_str()).join("boot.sh"));
        command.env("HIERARCHIES", self.cgroups.hierarchies().join(" ")).env("GROUP", self.cgroups.name(node.as_str()));
        self.lab.spawn(&node, Role::Other, command)?;
        Ok(())
    }

    fn boot_script(&self, node: &NodeName, pki: &Pki) -> Result<String> {
        let (name, host) = (node.as_str(), self.lab.host_inside(node)?);
        let state = self.file(name).display().to_string();
        let logs = self.lab.logs().display().to_string();
        let images = self.file("images").display().to_string();
        let hierarchies = self.cgroups.hierarchies().join(" ");
        let (kubelet, proxy) = (Program::Kubelet.path()?, Program::KubeProxy.path()?);
        let (kubelet, proxy, kubeconfig) =
            (kubelet.display(), proxy.display(), pki.path(&format!("{name}.kubeconfig")));
        Ok(format!(
            r#"#!/bin/bash
set -e
mount --make-rprivate /
# A copied mount namespace pins the network namespaces of others, and shows the outer cgroups.
umount -l -R /run/netns 2>/dev/null || true
umount -l -R /sys
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
for h in {hierarchies}; do
  mkdir /sys/fs/cgroup/$h
  case $h in systemd) o=none,name=systemd;; *) o=$h;; esac
  mount -t cgroup -o $o cgroup /sys/fs/cgroup/$h
done
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/lock /run/containerd
mount --bind {state}/lib /var/lib
mount --bind {state}/log /var/log
[ -e /etc/machine-id ] && mount --bind {state}/machine-id /etc/machine-id
# A kubelet insists on these and would write them for the whole machine: it is shown files that hold them already.
for kv in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
          kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  f=/run/sysctl-${{kv//[\/=]/_}}; echo ${{kv#*=}} > $f; mount --bind $f /proc/sys/${{kv%=*}}
done
mount --make-rshared /
hostname {name}
containerd -c {state}/containerd.toml >>{logs}/{name}-containerd.log 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.1; done
for image in {images}/*.tar; do
  mark=/var/lib/imported-$(basename $image)
  [ -e $mark ] || {{ ctr -n k8s.io images import $image >/dev/null && touch $mark; }}
done
ctr -n k8s.io images tag --force {IMAGE} {NEXT} >/dev/null
{kubelet} --config={state}/kubelet.json --kubeconfig={kubeconfig} --hostname-override={name} --node-ip={v4},{v6} \
  >>{logs}/{name}-kubelet.log 2>&1 &
{proxy} --config={state}/kube-proxy.json >>{logs}/{name}-kube-proxy.log 2>&1 &
wait -n
echo "containerd, kubelet or kube-proxy has ended; see {logs}"
"#,
            v4 = host.v4,
            v6 = host.v6,
        ))
    }
}

/// Routed, not bridged, so that nothing depends on how bridges meet packet filters.
fn cni_config(number: usize) -> String {
    let ranges = [format!("10.244.{number}.0/24"), format!("fd00:10:244:{number}::/64")];
    json!({"cniVersion": "0.4.0", "name": "lab", "plugins": [{
        "type": "ptp", "ipMasq": false, "mtu": 1500,
        "ipam": {
            "type": "host-local",
            // On what a reboot empties.
            "dataDir": "/run/cni-ipam",
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            "ranges": ranges.map(|subnet| [json!({"subnet": subnet})]),
        },
    }, {"type": "portmap", "capabilities": {"portMappings": true}}]})
    .to_string()
}

fn containerd_config(cni: &str) -> String {
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#
    )
}

fn kubelet_config(authority: &str, resolver: &str) -> String {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": true}, "x509": {"clientCAFile": authority},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "failSwapOn": false,
        // Without CAP_SYS_RESOURCE, which root in a container may lack, neither can be raised.
        "oomScoreAdj": 0,
        "maxOpenFiles": 20000,
        "resolvConf": resolver,
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        "volumePluginDir": "/var/lib/kubelet/plugins-flex",
        // Images cannot be pulled again, whatever the disk says.
        "evictionHard": {
            "memory.available": "1Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "makeIPTablesUtilChains": false,
        "enableProfilingHandler": false,
        "localStorageCapacityIsolation": false,
    })
    .to_string()
}

fn proxy_config(node: &str, kubeconfig: &str) -> String {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": node,
        "clientConnection": {"kubeconfig": kubeconfig},
        "clusterCIDR": PODS,
        "oomScoreAdj": 0,
        // Read-only outside of the first network namespace.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
    .to_string()
}
