//! What people get wrong when they install, and whether they are told where they look: by `kubectl describe`, in the log of a pod,
//! in an event.

use anyhow::{Context as _, Result};

use super::super::Cluster;
use super::super::install::{MANIFEST, NAMESPACE};
use super::{SERVED_WITHIN, count, step};
use crate::load::figures::{Bound, Figures};

pub(super) fn run(cluster: &mut Cluster<'_>, figures: &mut Figures) -> Result<()> {
    cluster.install()?;
    let cases = [
        Case("a namespace with restricted pod security", restricted),
        Case("two installations", twice),
        Case("no definition of ConfigurationState", older_definitions),
        Case("no Secret", no_secret),
        Case("a Secret with an empty key", empty_key),
    ];
    let all = cases.len();
    let mut told = 0;
    for Case(name, case) in cases {
        step(name);
        case(cluster).with_context(|| name.to_owned())?;
        figures.row(name.to_owned(), [("told", 1.0)]);
        told += 1;
    }
    figures.target("mistakes that are told".to_owned(), count(told), Bound::AtLeast, count(all));
    Ok(())
}

/// A mistake, and what makes it, looks for what is told, and mends it.
struct Case(&'static str, fn(&mut Cluster<'_>) -> Result<()>);

fn restricted(cluster: &mut Cluster<'_>) -> Result<()> {
    let enforce = |level| format!("pod-security.kubernetes.io/enforce={level}");
    cluster.kubectl(&["label", "namespace", NAMESPACE, &enforce("restricted"), "--overwrite"])?;
    delete_pods(cluster, "speaker")?;
    says(cluster, &["-n", NAMESPACE, "describe", "daemonset", "speaker"], &["PodSecurity", "hostNetwork"])?;
    cluster.kubectl(&["label", "namespace", NAMESPACE, &enforce("privileged"), "--overwrite"])?;
    // The DaemonSet controller tries again ever more slowly.
    cluster.kubectl(&["-n", NAMESPACE, "rollout", "restart", "daemonset/speaker"])?;
    cluster.wait_for_pods()
}

/// A second one in a namespace of its own: its speakers want the same ports of the same hosts.
fn twice(cluster: &mut Cluster<'_>) -> Result<()> {
    let namespaced = MANIFEST
        .replace("namespace: metallb-system", "namespace: second")
        .replace("name: metallb-system\n", "name: second\n");
    let parts: Vec<&str> = namespaced
        .split("---\n")
        .filter(|part| {
            let kind = part.lines().find_map(|line| line.strip_prefix("kind: ")).unwrap_or_default();
            matches!(kind, "Namespace" | "ServiceAccount" | "ConfigMap" | "DaemonSet" | "Secret")
        })
        .collect();
    cluster.apply(&parts.join("---\n"))?;
    cluster.kubectl(&[
        "-n",
        "second",
        "create",
        "secret",
        "generic",
        "memberlist",
        "--from-literal=secretkey=of-its-own",
    ])?;
    says(cluster, &["-n", "second", "describe", "pods"], &["FailedScheduling", "free ports"])?;
    cluster.kubectl(&["delete", "namespace", "second", "--timeout=60s"]).map(drop)
}

/// Releases before 0.16 do not define it.
fn older_definitions(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.kubectl(&["delete", "crd", "configurationstates.metallb.io"])?;
    cluster.kubectl(&["-n", NAMESPACE, "rollout", "restart", "deployment/controller", "daemonset/speaker"])?;
    cluster.wait_for_pods()?;
    says(cluster, &["-n", NAMESPACE, "logs", "-l", "component=speaker", "--tail=-1"], &["ConfigurationState"])?;
    cluster.apply(MANIFEST)?;
    cluster.configure_pools()
}

fn no_secret(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.kubectl(&["-n", NAMESPACE, "scale", "deployment/controller", "--replicas=0"])?;
    cluster.kubectl(&[
        "-n",
        NAMESPACE,
        "wait",
        "--for=delete",
        "pod",
        "-l",
        "component=controller",
        "--timeout=60s",
    ])?;
    cluster.kubectl(&["-n", NAMESPACE, "delete", "secret", "memberlist"])?;
    delete_pods(cluster, "speaker")?;
    says(
        cluster,
        &["-n", NAMESPACE, "describe", "pods", "-l", "component=speaker"],
        &["secret \"memberlist\" not found"],
    )
}

/// Follows the one before: no controller and no Secret is there.
fn empty_key(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.kubectl(&["-n", NAMESPACE, "create", "secret", "generic", "memberlist", "--from-literal=secretkey="])?;
    delete_pods(cluster, "speaker")?;
    says(cluster, &["-n", NAMESPACE, "logs", "-l", "component=speaker", "--tail=-1"], &["the secret is empty"])?;
    cluster.kubectl(&["-n", NAMESPACE, "scale", "deployment/controller", "--replicas=2"])?;
    says(cluster, &["-n", NAMESPACE, "get", "events"], &["secretkey is empty"])?;
    cluster.kubectl(&["-n", NAMESPACE, "delete", "secret", "memberlist"])?;
    cluster.wait_until("a good Secret is made", SERVED_WITHIN, |cluster| {
        Ok(cluster.get("secret/memberlist", &["-n", NAMESPACE]).ok().map(drop))
    })?;
    delete_pods(cluster, "speaker")?;
    cluster.wait_for_pods()
}

fn delete_pods(cluster: &mut Cluster<'_>, component: &str) -> Result<()> {
    let labels = format!("component={component}");
    cluster.kubectl(&["-n", NAMESPACE, "delete", "pods", "-l", &labels, "--wait=true", "--timeout=60s"]).map(drop)
}

/// Waits until kubectl shows all these words.
fn says(cluster: &mut Cluster<'_>, arguments: &[&str], words: &[&str]) -> Result<()> {
    let mut last = String::new();
    let what = format!("kubectl {} shows {words:?}", arguments.join(" "));
    let told = cluster.wait_until(&what, SERVED_WITHIN, |cluster| {
        last = cluster.kubectl(arguments)?;
        Ok(words.iter().all(|word| last.contains(word)).then_some(()))
    });
    told.with_context(|| format!("it shows:\n{last}"))
}
