//! The control plane on a host of its own: etcd, kube-apiserver, controller-manager, scheduler.
//!
//! It runs no pods and no kube-proxy: the way to Services and pods (webhooks) leads over the nodes.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::pki::{Pki, Subject};
use super::{Cluster, READY_WITHIN, SERVICES_V4, SERVICES_V6};
use crate::lab::Role;
use crate::tools::Program;

impl Cluster<'_> {
    /// Where the API server listens.
    pub(super) fn server(&self) -> Result<String> {
        Ok(format!("https://{}:6443", self.lab.host_inside(&self.control)?.v4))
    }

    pub(super) fn start_control(&mut self, pki: &Pki) -> Result<()> {
        let host = self.lab.host_inside(&self.control)?;
        let names = [
            host.v4.to_string(),
            host.v6.to_string(),
            "127.0.0.1".to_owned(),
            "10.96.0.1".to_owned(),
            "fd00:10:96::1".to_owned(),
            "localhost".to_owned(),
            "kubernetes.default.svc".to_owned(),
        ];
        pki.server("apiserver", &names)?;
        pki.client("to-kubelets", Subject { organization: Some("system:masters"), name: "kube-apiserver" })?;
        let server = self.server()?;
        for (file, organization, name) in [
            ("admin", Some("system:masters"), "admin"),
            ("controller-manager", None, "system:kube-controller-manager"),
            ("scheduler", None, "system:kube-scheduler"),
            ("kube-proxy", None, "system:kube-proxy"),
        ] {
            pki.kubeconfig(file, Subject { organization, name }, &server)?;
        }
        let etcd = self.file("etcd").display().to_string();
        self.control_program(
            Program::Etcd,
            &[
                ("data-dir", etcd),
                ("listen-client-urls", ETCD.to_owned()),
                ("advertise-client-urls", ETCD.to_owned()),
                ("listen-peer-urls", ETCD_PEERS.to_owned()),
                ("initial-advertise-peer-urls", ETCD_PEERS.to_owned()),
                ("initial-cluster", format!("default={ETCD_PEERS}")),
                ("unsafe-no-fsync", "true".to_owned()),
                ("log-level", "warn".to_owned()),
            ],
        )?;
        self.control_program(
            Program::KubeApiserver,
            &[
                ("etcd-servers", ETCD.to_owned()),
                ("secure-port", "6443".to_owned()),
                ("bind-address", "::".to_owned()),
                ("advertise-address", host.v4.to_string()),
                ("service-cluster-ip-range", format!("{SERVICES_V4},{SERVICES_V6}")),
                ("authorization-mode", "Node,RBAC".to_owned()),
                ("enable-admission-plugins", "NodeRestriction".to_owned()),
                ("allow-privileged", "true".to_owned()),
                ("client-ca-file", pki.path("ca.crt")),
                ("tls-cert-file", pki.path("apiserver.crt")),
                ("tls-private-key-file", pki.path("apiserver.key")),
                ("kubelet-client-certificate", pki.path("to-kubelets.crt")),
                ("kubelet-client-key", pki.path("to-kubelets.key")),
                ("kubelet-preferred-address-types", "InternalIP".to_owned()),
                ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
                ("service-account-key-file", pki.path("accounts.pub")),
                ("service-account-signing-key-file", pki.path("accounts.key")),
                ("profiling", "false".to_owned()),
            ],
        )?;
        self.wait_until("the API server is ready", READY_WITHIN, |cluster| {
            cluster.fail_if_something_ended()?;
            Ok(cluster.kubectl(&["get", "--raw", "/readyz"]).ok())
        })?;
        self.control_program(
            Program::KubeControllerManager,
            &[
                ("kubeconfig", pki.path("controller-manager.kubeconfig")),
                ("leader-elect", "false".to_owned()),
                ("use-service-account-credentials", "true".to_owned()),
                ("service-account-private-key-file", pki.path("accounts.key")),
                ("root-ca-file", pki.path("ca.crt")),
                ("allocate-node-cidrs", "false".to_owned()),
                ("bind-address", "127.0.0.1".to_owned()),
                ("profiling", "false".to_owned()),
                // With less the first ServiceAccount, and with it the first pod, is 4 s later.
                ("kube-api-qps", "500".to_owned()),
                ("kube-api-burst", "1000".to_owned()),
            ],
        )?;
        self.control_program(
            Program::KubeScheduler,
            &[
                ("kubeconfig", pki.path("scheduler.kubeconfig")),
                ("leader-elect", "false".to_owned()),
                ("bind-address", "127.0.0.1".to_owned()),
                ("profiling", "false".to_owned()),
            ],
        )
    }

    fn control_program(&mut self, program: Program, arguments: &[(&str, String)]) -> Result<()> {
        let mut command = Command::new(program.path()?);
        command.args(arguments.iter().map(|(name, value)| format!("--{name}={value}")));
        let control = self.control.clone();
        self.lab
            .spawn(&control, Role::Other, command)
            .with_context(|| format!("the control plane has no {program}"))?;
        Ok(())
    }
}

const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEERS: &str = "http://127.0.0.1:2380";
