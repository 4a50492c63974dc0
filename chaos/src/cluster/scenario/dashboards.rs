//! What the dashboards show: a real Prometheus reads a cluster in which nodes lose their power, and is asked what each panel
//! asks it.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::install::NAMESPACE;
use super::super::{Cluster, items};
use super::power::{self, Seen};
use super::{SERVED_WITHIN, count, dead_node, reached_services, restarts, step, wait_for_restart};
use crate::lab::Role;
use crate::load::figures::{Bound, Figures, median};

pub(super) fn run(cluster: &mut Cluster<'_>, trials: u32, figures: &mut Figures) -> Result<()> {
    let server = cluster.nodes().first().context("a cluster has a node")?.clone();
    cluster.serve("echo", Some(&server))?;
    cluster.install()?;
    dead_node::switch_on(cluster)?;
    start_prometheus(cluster)?;
    let exposed = reached_services(cluster, power::SERVICES)?;

    step("a speaker is restarted");
    let restarted = cluster.nodes().last().context("a cluster has a node")?.clone();
    let before = restarts(cluster, &restarted)?;
    dead_node::signal(cluster, &restarted, "garpike", "KILL")?;
    wait_for_restart(cluster, &restarted, before)?;
    let mut outages = Vec::new();
    for trial in 1..=trials {
        let (victim, service) = power::victim(cluster, &exposed, &server)?;
        let seen = power::one(cluster, &victim, &service).with_context(|| format!("trial {trial}"))?;
        let Seen { cut: (v4_ms, v6_ms), .. } = seen;
        step(&format!("{victim} loses its power: IPv4 {v4_ms:.0} ms, IPv6 {v6_ms:.0} ms"));
        figures.row(format!("{victim} {trial}"), [("outage_v4_ms", v4_ms), ("outage_v6_ms", v6_ms)]);
        outages.extend([v4_ms, v6_ms]);
        // A controller that was on the node may be on another one now.
        tell_targets(cluster)?;
    }
    thread::sleep(SCRAPED_WITHIN);

    let (mut asked, mut silent) = (0_usize, 0_usize);
    for (dashboard, text) in DASHBOARDS {
        for panel in panels(text).with_context(|| dashboard.to_owned())? {
            asked += 1;
            let found = ask(cluster, &panel.query).with_context(|| format!("{dashboard}: {}", panel.title))?;
            if found.iter().all(|value| value.is_nan()) {
                silent += 1;
                step(&format!("{dashboard}: \"{}\" shows nothing: {}", panel.title, panel.query));
            }
        }
    }
    figures.row("panels".to_owned(), [("queries", count(asked)), ("without_data", count(silent))]);
    figures.target("queries of panels without data".to_owned(), count(silent), Bound::AtMost, 0.0);

    let worst = outages.iter().copied().fold(0.0, f64::max);
    for (rank, measured) in [("0.5", median(outages.iter().copied())), ("0.99", worst)] {
        let query = format!(
            "histogram_quantile({rank}, sum by (le) (rate(garpike_speaker_failover_seconds_bucket{{cause=\"crash\",\
             phase=\"total\"}}[{RANGE}])))"
        );
        let shown_ms = ask(cluster, &query)?.first().copied().unwrap_or(f64::NAN) * 1000.0;
        let name = format!("failover, quantile {rank}");
        figures.row(name.clone(), [("shown_ms", shown_ms), ("measured_ms", measured)]);
        let differ = (shown_ms - measured).abs();
        let allowed = (measured * AGREE_SHARE).max(AGREE_MS);
        // A figure that is not there agrees with nothing.
        let differ = if differ.is_nan() { f64::INFINITY } else { differ };
        figures.target(format!("{name}: shown and measured differ by ms"), differ, Bound::AtMost, allowed);
    }
    Ok(())
}

/// Starts a Prometheus beside the control plane, with the rights that the overlay gives it and no others.
fn start_prometheus(cluster: &mut Cluster<'_>) -> Result<()> {
    // There is no operator that would know the kind.
    let rights = MONITORS.split("\n---\n").filter(|object| !object.contains("kind: ServiceMonitor"));
    let rights: Vec<&str> = [ACCOUNT].into_iter().chain(rights).collect();
    cluster.apply(&rights.join("\n---\n"))?;
    let token = cluster.kubectl(&["-n", "monitoring", "create", "token", "prometheus-k8s", "--duration=2h"])?;
    let directory = cluster.file("prometheus");
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    for (file, text) in [("prometheus.yml", CONFIG), ("token", &token), ("rules.yaml", RULES)] {
        let path = directory.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    tell_targets(cluster)?;
    let mut command = Command::new("prometheus");
    command.arg("--config.file=prometheus.yml").arg("--storage.tsdb.path=data").current_dir(&directory);
    command.arg(format!("--web.listen-address=127.0.0.1:{PORT}"));
    let control = cluster.control.clone();
    cluster.lab.spawn(&control, Role::Other, command).context("prometheus; `cargo xtask setup lab` installs it")?;
    let all = cluster.nodes().len();
    cluster.wait_until("Prometheus reads every pod", SERVED_WITHIN, |cluster| {
        cluster.fail_if_something_ended()?;
        let up = |job| format!("sum(up{{job=\"{job}\"}})");
        let speakers = ask(cluster, &up("speaker"))?;
        let controllers = ask(cluster, &up("controller"))?;
        Ok((speakers == [count(all)] && controllers == [CONTROLLERS]).then_some(()))
    })
}

/// Tells Prometheus where the pods are, with the labels that the operator would give them: Debian's build cannot ask Kubernetes.
fn tell_targets(cluster: &mut Cluster<'_>) -> Result<()> {
    let pods = cluster.get("pods", &["-n", NAMESPACE, "-l", "app=metallb"])?;
    let text = |pod: &Value, path: &str| Some(pod.pointer(path)?.as_str()?.to_owned());
    let targets: Vec<Value> = items(&pods)
        .filter_map(|pod| {
            let ip: IpAddr = text(pod, "/status/podIP")?.parse().ok()?;
            let labels = json!({
                "job": text(pod, "/metadata/labels/component")?,
                "namespace": NAMESPACE,
                "pod": text(pod, "/metadata/name")?,
                "node": text(pod, "/spec/nodeName")?,
            });
            Some(json!({"targets": [SocketAddr::new(ip, METRICS).to_string()], "labels": labels}))
        })
        .collect();
    let path = cluster.file("prometheus/targets.json");
    // As a whole: it is read whenever it changes.
    let new = path.with_extension("new");
    fs::write(&new, Value::from(targets).to_string()).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, &path).with_context(|| format!("cannot write {}", path.display()))
}

/// One thing that a panel asks.
#[derive(Debug, PartialEq, Eq)]
struct Panel {
    title: String,
    query: String,
}

/// The queries of a dashboard, for all nodes of the namespace over the whole run.
fn panels(dashboard: &str) -> Result<Vec<Panel>> {
    #[derive(Deserialize)]
    struct Dashboard {
        panels: Vec<Shown>,
    }
    #[derive(Deserialize)]
    struct Shown {
        title: String,
        #[serde(default)]
        targets: Vec<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        expr: String,
    }
    let dashboard: Dashboard = serde_json::from_str(dashboard).context("it is no dashboard")?;
    let filled = |expr: &str| {
        [("$namespace", NAMESPACE), ("$node", ".*"), ("$__rate_interval", RANGE)]
            .iter()
            .fold(expr.to_owned(), |query, (variable, value)| query.replace(variable, value))
    };
    let queries = dashboard.panels.iter().flat_map(|panel| {
        panel.targets.iter().map(|target| Panel { title: panel.title.clone(), query: filled(&target.expr) })
    });
    Ok(queries.collect())
}

/// The values that Prometheus has for a query at this moment.
fn ask(cluster: &mut Cluster<'_>, query: &str) -> Result<Vec<f64>> {
    let path = format!("/api/v1/query?query={}", percent_encoded(query));
    let answer = cluster.lab.http_get(&cluster.control, PORT, &path)?;
    let answer: Value = serde_json::from_str(&answer).context("Prometheus answers without JSON")?;
    let Some(series) = answer.pointer("/data/result").and_then(Value::as_array) else { bail!("{query}: {answer}") };
    // [time, "value"]
    let value = |series: &Value| series.pointer("/value/1")?.as_str()?.parse().ok();
    Ok(series.iter().filter_map(value).collect())
}

/// As RFC 3986 section 2.1 has it, all but letters and digits.
fn percent_encoded(text: &str) -> String {
    let encoded = |byte: u8| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}

const DASHBOARDS: [(&str, &str); 2] = [
    ("Failover", include_str!("../../../../deploy/grafana/failover.json")),
    ("Cluster", include_str!("../../../../deploy/grafana/cluster.json")),
];
const MONITORS: &str = include_str!("../../../../deploy/overlays/prometheus/monitors.yaml");
const RULES: &str = include_str!("../../../../deploy/prometheus/rules.yaml");
/// Whom the overlay gives its rights.
const ACCOUNT: &str = "apiVersion: v1
kind: Namespace
metadata: {name: monitoring}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: prometheus-k8s, namespace: monitoring}";
const CONTROLLERS: f64 = 2.0;
const PORT: u16 = 9090;
/// Where pods tell what they measure.
const METRICS: u16 = 9120;
const CONFIG: &str = "global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [rules.yaml]
scrape_configs:
- job_name: garpike
  honor_labels: true
  scheme: https
  tls_config: {insecure_skip_verify: true}
  authorization: {credentials_file: token}
  file_sd_configs:
  - files: [targets.json]
    refresh_interval: 1s
";
/// Chosen: longer than a run.
const RANGE: &str = "1h";
/// Chosen: some scrapes.
const SCRAPED_WITHIN: Duration = Duration::from_secs(5);
/// The figure of a dashboard agrees with the client's within the greater of both.
const AGREE_MS: f64 = 10.0;
const AGREE_SHARE: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_variable_of_a_dashboard_is_left_in_a_query() {
        for (dashboard, text) in DASHBOARDS {
            let panels = panels(text).unwrap();

            assert!(panels.len() > 20, "{dashboard}");
            let left: Vec<_> = panels.iter().filter(|panel| panel.query.contains('$')).collect();
            assert_eq!(left, [] as [&Panel; 0], "{dashboard}");
        }
    }

    #[test]
    fn a_query_is_a_part_of_an_address() {
        assert_eq!(percent_encoded("sum(up{job=\"a b\"})"), "sum%28up%7Bjob%3D%22a%20b%22%7D%29");
    }
}
