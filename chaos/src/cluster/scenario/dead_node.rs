//! A node dies with an endpoint of every Service: for how long new connections are sent to it, and what takes nobody's endpoints.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use garpike_election::NodeName;
use serde_json::Value;

use super::super::install::{Exposed, NAMESPACE, ingress};
use super::super::site::ECHO;
use super::super::{Cluster, is_true, items};
use super::{SERVED_WITHIN, count, reached_services, restarts, step, wait_for_restart};
use crate::lab::{Dialed, Dialer, Links, now};
use crate::load::figures::{Bound, Figures, median};

pub(super) fn run(cluster: &mut Cluster<'_>, trials: u32, figures: &mut Figures) -> Result<()> {
    cluster.serve("echo", None)?;
    cluster.install()?;
    switch_on(cluster)?;
    let exposed = reached_services(cluster, 1)?.pop().context("a Service was made")?;
    thread::sleep(WITNESSED);

    nobody_is_dead(cluster, figures)?;
    cut_off(cluster, figures)?;

    let (mut gaps, mut allocated) = (Vec::new(), Vec::new());
    for trial in 1..=trials {
        let seen = power_cut(cluster, trial, &exposed).with_context(|| format!("trial {trial}"))?;
        let Seen { victim, owned, led, v4_ms, v6_ms, allocated_s, marked } = &seen;
        step(&format!(
            "{victim} loses its power: IPv4 {v4_ms:.0} ms, IPv6 {v6_ms:.0} ms; an address after {allocated_s:.1} s"
        ));
        figures.row(
            format!("{victim} {trial}"),
            [
                ("v4_ms", *v4_ms),
                ("v6_ms", *v6_ms),
                ("owned", f64::from(u8::from(*owned))),
                ("led", f64::from(u8::from(*led))),
                ("allocated_s", *allocated_s),
                ("marked", count(*marked)),
            ],
        );
        gaps.extend([*v4_ms, *v6_ms]);
        allocated.push(*allocated_s);
    }
    let longest = |all: &[f64]| all.iter().copied().fold(0.0, f64::max);
    let last = "the last connection that failed, ms after the fault,";
    figures.target(format!("{last} median"), median(gaps.iter().copied()), Bound::AtMost, MEDIAN_MS);
    figures.target(format!("{last} longest"), longest(&gaps), Bound::AtMost, LONGEST_MS);
    let measure = "a Service gets an address after the fault, longest, s".to_owned();
    figures.target(measure, longest(&allocated), Bound::AtMost, ALLOCATED_S);
    Ok(())
}

/// What the overlay `dead-node-hint` adds.
pub(super) fn switch_on(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.apply(RIGHTS)?;
    let patch = r#"[{"op":"add","path":"/spec/template/spec/containers/0/args/-","value":"--dead-node-hint=on"}]"#;
    cluster.kubectl(&["-n", NAMESPACE, "patch", "deployment", "controller", "--type=json", "-p", patch])?;
    cluster.wait_for_pods()
}

/// Faults that leave every host alive.
fn nobody_is_dead(cluster: &mut Cluster<'_>, figures: &mut Figures) -> Result<()> {
    let mut touched = 0;
    let everywhere = [
        Living("speaker killed", killed),
        Living("speaker frozen", frozen),
        Living("port 7946 blocked", blocked),
        Living("API server frozen", api_frozen),
        Living("two halves", halves),
    ];
    let link = (cluster.links == Links::Two).then_some(Living("client link pulled", link_pulled));
    for Living(name, fault) in everywhere.into_iter().chain(link) {
        step(name);
        let before = marks(cluster)?;
        fault(cluster).with_context(|| name.to_owned())?;
        cluster.wait_for_nodes()?;
        cluster.wait_for_pods()?;
        let marked = marks(cluster)? - before;
        figures.row(name.to_owned(), [("hints", count(marked))]);
        touched += marked;
        // A speaker that was away is witnessed anew.
        thread::sleep(WITNESSED);
    }
    figures.target("hints for hosts that live".to_owned(), count(touched), Bound::AtMost, 0.0);
    Ok(())
}

/// A fault, which this makes and mends.
struct Living(&'static str, fn(&mut Cluster<'_>) -> Result<()>);

fn killed(cluster: &mut Cluster<'_>) -> Result<()> {
    let node = last(cluster)?;
    let before = restarts(cluster, &node)?;
    signal(cluster, &node, "garpike", "KILL")?;
    wait_for_restart(cluster, &node, before)
}

fn frozen(cluster: &mut Cluster<'_>) -> Result<()> {
    let node = last(cluster)?;
    signal(cluster, &node, "garpike", "STOP")?;
    thread::sleep(FROZEN);
    // The kubelet may have ended it, and begun another one.
    signal(cluster, &node, "garpike", "CONT")
}

fn blocked(cluster: &mut Cluster<'_>) -> Result<()> {
    let node = last(cluster)?;
    let gossip = || "meta l4proto { tcp, udp } th dport 7946".to_owned();
    drop_packets(cluster, &node, "inet", &[("input".to_owned(), gossip()), ("output".to_owned(), gossip())])?;
    thread::sleep(FAULT);
    drop_none(cluster, &node, "inet")
}

fn api_frozen(cluster: &mut Cluster<'_>) -> Result<()> {
    let control = cluster.control.clone();
    signal(cluster, &control, "kube-apiserver", "STOP")?;
    thread::sleep(FAULT);
    signal(cluster, &control, "kube-apiserver", "CONT")
}

fn link_pulled(cluster: &mut Cluster<'_>) -> Result<()> {
    let node = last(cluster)?;
    cluster.lab.link_down(&node)?;
    thread::sleep(FAULT);
    cluster.lab.link_up(&node)?;
    Ok(())
}

fn halves(cluster: &mut Cluster<'_>) -> Result<()> {
    let aside: Vec<NodeName> = cluster.nodes().iter().skip(cluster.nodes().len() / 2).cloned().collect();
    cluster.lab.partition(&aside)?;
    thread::sleep(FAULT);
    cluster.lab.heal()?;
    Ok(())
}

/// One living node is cut off from all but the API server: the others must take it for dead, and its kubelet takes the marks back.
fn cut_off(cluster: &mut Cluster<'_>, figures: &mut Figures) -> Result<()> {
    step("a node that is cut off from the others");
    let (node, before) = (last(cluster)?, marks(cluster)?);
    let told = events(cluster, "FalseDeadNodeHint")?;
    let server = cluster.lab.host_inside(&cluster.control)?.mac;
    let cards: &[&str] = match cluster.links {
        Links::One => &["eth0"],
        Links::Two => &["eth0", "eth1"],
    };
    let others = |card: &&str| {
        [
            (format!("ingress device {card}"), format!("ether saddr != {server}")),
            (format!("egress device {card}"), format!("ether daddr != {server}")),
        ]
    };
    drop_packets(cluster, &node, "netdev", &cards.iter().flat_map(others).collect::<Vec<_>>())?;
    cluster.wait_until("a pod of the node is marked", MARKED_WITHIN, |cluster| {
        Ok((!is_behind(cluster, &node)?).then_some(()))
    })?;
    let marked = now();
    cluster
        .wait_until("its endpoints are back", SERVED_WITHIN, |cluster| Ok(is_behind(cluster, &node)?.then_some(())))?;
    let back_s = marked.elapsed().as_secs_f64();
    drop_none(cluster, &node, "netdev")?;
    cluster.wait_until("the false hint is told", SERVED_WITHIN, |cluster| {
        Ok((events(cluster, "FalseDeadNodeHint")? > told).then_some(()))
    })?;
    if marks(cluster)? == before {
        bail!("{node} lost its endpoints, and no controller says so");
    }
    figures.row("cut off".to_owned(), [("endpoints_back_s", back_s)]);
    figures.target("endpoints back after a false hint, s".to_owned(), back_s, Bound::AtMost, BACK_S);
    Ok(())
}

/// Has a node drop the packets that match, at each hook.
fn drop_packets(cluster: &mut Cluster<'_>, node: &NodeName, family: &str, rules: &[(String, String)]) -> Result<()> {
    let chains = rules.iter().enumerate().map(|(number, (hook, matching))| {
        format!("chain lab{number} {{ type filter hook {hook} priority 0; {matching} drop; }}\n")
    });
    let chains: String = chains.collect();
    cluster.shell(node, &format!("nft -f - <<'END'\ntable {family} lab {{\n{chains}}}\nEND")).map(drop)
}

/// Undoes [`drop_packets`].
fn drop_none(cluster: &mut Cluster<'_>, node: &NodeName, family: &str) -> Result<()> {
    cluster.shell(node, &format!("nft delete table {family} lab")).map(drop)
}

struct Seen {
    victim: NodeName,
    /// Whether it owned the IPv4 address.
    owned: bool,
    /// Whether the controller that led ran there.
    led: bool,
    /// From the fault to the start of the last connection that failed.
    v4_ms: f64,
    v6_ms: f64,
    /// From the fault until a new Service had an address.
    allocated_s: f64,
    /// The pods of the victim that were marked.
    marked: usize,
}

fn power_cut(cluster: &mut Cluster<'_>, trial: u32, exposed: &Exposed) -> Result<Seen> {
    // Controllers that remember nothing: otherwise a node must not be hinted again for ever longer, nor another one for a minute.
    cluster.kubectl(&["-n", NAMESPACE, "rollout", "restart", "deployment/controller"])?;
    cluster.wait_for_pods()?;
    thread::sleep(WITNESSED);

    // The owner and another node in turn, that of the controller that leads if it is another one.
    let (owner, leader) = (cluster.owner_of(exposed.v4)?, leader(cluster)?);
    let owned = !trial.is_multiple_of(2);
    let others = || cluster.nodes().iter().filter(|node| **node != owner);
    let other =
        others().find(|node| **node == leader).or_else(|| others().next()).context("a cluster has two nodes")?;
    let victim = if owned { owner.clone() } else { other.clone() };
    let before = restarts(cluster, &victim)?;

    let dial = |cluster: &Cluster<'_>, ip| cluster.lab.dial(SocketAddr::new(ip, ECHO), EACH);
    let (v4, v6) = (dial(cluster, exposed.v4)?, dial(cluster, exposed.v6)?);
    thread::sleep(Duration::from_secs(1));
    let cut = cluster.power_off(&victim)?;
    // After the endpoints: kube-proxy takes changes of a second together, and the new Service is one.
    thread::sleep(ENDPOINTS_GONE);
    let late = format!("late-{trial}");
    cluster.kubectl(&["create", "service", "loadbalancer", &late, "--tcp=7:7"])?;
    cluster.wait_until("the new Service has an address", SERVED_WITHIN, |cluster| {
        let service = cluster.get(&format!("service/{late}"), &[])?;
        Ok((!ingress(&service).is_empty()).then_some(()))
    })?;
    let allocated_s = cut.elapsed().as_secs_f64();
    thread::sleep((cut + WATCHED).saturating_duration_since(now()));
    let marked = marked_pods(cluster, &victim)?;
    let (v4_ms, v6_ms) = (last_failure_ms(v4, cut)?, last_failure_ms(v6, cut)?);

    cluster.power_on(&victim)?;
    cluster.kubectl(&["delete", "service", &late])?;
    wait_for_restart(cluster, &victim, before)?;
    cluster.wait_until("its endpoints are back, and nothing of the marks stays", SERVED_WITHIN, |cluster| {
        Ok((is_behind(cluster, &victim)? && managed_by_hint(cluster, &victim)? == 0).then_some(()))
    })?;
    Ok(Seen { led: victim == leader, victim, owned, v4_ms, v6_ms, allocated_s, marked })
}

/// How long after the fault the last connection was begun that was not established in time.
fn last_failure_ms(dialer: Dialer, fault: Instant) -> Result<f64> {
    let all = dialer.stop().context("no connections could be opened")?;
    if !all.iter().any(|dialed| dialed.established && dialed.begun < fault) {
        bail!("no connection was established before the fault");
    }
    let failed = all.iter().filter(|dialed| !dialed.established).map(|Dialed { begun, .. }| *begun);
    Ok(failed.max().map_or(0.0, |last| last.saturating_duration_since(fault).as_secs_f64() * 1000.0))
}

/// The node on which the controller runs that leads.
fn leader(cluster: &mut Cluster<'_>) -> Result<NodeName> {
    cluster.wait_until("a controller leads", SERVED_WITHIN, |cluster| {
        let lease = cluster.get("lease/garpike-controller", &["-n", NAMESPACE])?;
        let holder = lease.pointer("/spec/holderIdentity").and_then(Value::as_str).unwrap_or_default().to_owned();
        let pods = cluster.get("pods", &["-n", NAMESPACE, "-l", "component=controller"])?;
        let node = items(&pods).find_map(|pod| {
            let name = pod.pointer("/metadata/name")?.as_str()?;
            holder.contains(name).then(|| pod.pointer("/spec/nodeName")?.as_str()).flatten()
        });
        Ok(cluster.nodes().iter().find(|known| node == Some(known.as_str())).cloned())
    })
}

/// How many hints were given: each replica that marked a pod has written an event.
fn marks(cluster: &mut Cluster<'_>) -> Result<usize> {
    events(cluster, "DeadNodeHint")
}

/// How many events have this reason.
fn events(cluster: &mut Cluster<'_>, reason: &str) -> Result<usize> {
    let events = cluster.get("events", &["--all-namespaces", &format!("--field-selector=reason={reason}")])?;
    let times = |event: &Value| event.get("count").and_then(Value::as_u64).unwrap_or(1);
    Ok(usize::try_from(items(&events).map(times).sum::<u64>())?)
}

/// Whether every slice of every Service has the endpoint on this node, ready.
fn is_behind(cluster: &mut Cluster<'_>, node: &NodeName) -> Result<bool> {
    let slices = cluster.get("endpointslices", &["-l", "kubernetes.io/service-name"])?;
    let echoes = items(&slices).filter(|slice| {
        let service = slice.pointer("/metadata/labels/kubernetes.io~1service-name").and_then(Value::as_str);
        service.is_some_and(|service| service.starts_with("echo-"))
    });
    Ok(echoes.into_iter().all(|slice| {
        let endpoints = slice.get("endpoints").and_then(Value::as_array).into_iter().flatten();
        endpoints.into_iter().any(|endpoint| {
            endpoint.get("nodeName").is_some_and(|name| name == node.as_str())
                && endpoint.pointer("/conditions/ready").is_some_and(|ready| ready == true)
        })
    }))
}

/// The pods on a node that are not ready.
fn marked_pods(cluster: &mut Cluster<'_>, node: &NodeName) -> Result<usize> {
    let pods = pods_of(cluster, node)?;
    Ok(items(&pods).filter(|pod| !is_true(pod, "Ready")).count())
}

/// The pods on a node of which a field is ours.
fn managed_by_hint(cluster: &mut Cluster<'_>, node: &NodeName) -> Result<usize> {
    let pods = pods_of(cluster, node)?;
    let is_ours = |pod: &&Value| {
        let managers = pod.pointer("/metadata/managedFields").and_then(Value::as_array).into_iter().flatten();
        managers
            .into_iter()
            .any(|field| field.get("manager").is_some_and(|manager| manager == "garpike-dead-node-hint"))
    };
    Ok(items(&pods).filter(is_ours).count())
}

fn pods_of(cluster: &mut Cluster<'_>, node: &NodeName) -> Result<Value> {
    let on = format!("--field-selector=spec.nodeName={node}");
    cluster.get("pods", &["--all-namespaces", "--show-managed-fields", &on])
}

/// Sends a signal to the processes of that name on a node's own network: its speaker is there, and no other pod.
pub(super) fn signal(cluster: &mut Cluster<'_>, node: &NodeName, name: &str, signal: &str) -> Result<()> {
    let line = format!(
        "own=$(readlink /proc/self/ns/net); found=; for p in /proc/[0-9]*; do \
         [ \"$(cat $p/comm 2>/dev/null)\" = {name} ] && [ \"$(readlink $p/ns/net)\" = \"$own\" ] && \
         kill -{signal} ${{p#/proc/}} && found=1; done; [ -n \"$found\" ] || {{ echo no {name} runs here >&2; exit 1; }}"
    );
    cluster.shell(node, &line).map(drop)
}

fn last(cluster: &Cluster<'_>) -> Result<NodeName> {
    cluster.nodes().last().cloned().context("a cluster has a node")
}

/// What the overlay `dead-node-hint` allows.
const RIGHTS: &str = include_str!("../../../../deploy/overlays/dead-node-hint/rbac.yaml");
const EACH: Duration = Duration::from_millis(20);
/// Controllers look for speakers every few seconds, and take what they say of a death for good once they were told of a life.
const WITNESSED: Duration = Duration::from_secs(12);
/// Chosen: long after the API server would have been told.
const WATCHED: Duration = Duration::from_secs(8);
const ENDPOINTS_GONE: Duration = Duration::from_millis(1500);
const FROZEN: Duration = Duration::from_secs(30);
/// Chosen: less than the 40 s after which Kubernetes takes a node for dead.
const FAULT: Duration = Duration::from_secs(15);
const MARKED_WITHIN: Duration = Duration::from_secs(10);
const MEDIAN_MS: f64 = 400.0;
const LONGEST_MS: f64 = 800.0;
const ALLOCATED_S: f64 = 6.0;
const BACK_S: f64 = 10.0;
