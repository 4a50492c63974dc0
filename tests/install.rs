//! What is installed, as the programs see it that install it: Helm renders the chart, kubectl the overlays, promtool judges the
//! alerts.
//!
//! Run by name, by `cargo xtask test`. A program that is missing fails its tests with the command that brings it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests panic on bad fixtures")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use garpike_chaos::tools::Program;
use serde_json::{Value, json};

#[test]
fn helm_finds_nothing_wrong_with_the_chart() {
    let output = run(Program::Helm, &["lint", "--strict", CHART, "--kube-version", KUBERNETES]);

    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn the_chart_runs_what_the_manifests_run() {
    let chart = render(&[]);
    let manifests = documents(include_str!("../deploy/manifests/garpike.yaml"));
    for (kind, program) in [("Deployment", "controller"), ("DaemonSet", "speaker")] {
        let theirs = named(&chart, kind, &format!("garpike-{program}"));
        let ours = named(&manifests, kind, program);

        let pod = |workload: &Value| workload["spec"]["template"]["spec"].clone();
        let (theirs, ours) = (pod(theirs), pod(ours));
        for field in
            ["hostNetwork", "priorityClassName", "terminationGracePeriodSeconds", "securityContext", "tolerations"]
        {
            assert_eq!(theirs[field], ours[field], "{program}: {field}");
        }
        let (theirs, ours) = (&theirs["containers"][0], &ours["containers"][0]);
        for field in ["image", "imagePullPolicy", "securityContext", "resources", "volumeMounts"] {
            assert_eq!(theirs[field], ours[field], "{program}: {field}");
        }
        let args = |container: &Value| -> BTreeSet<String> { strings(&container["args"]).into_iter().collect() };
        assert!(args(theirs).is_superset(&args(ours)), "{program}: {theirs} {ours}");
    }
}

#[test]
fn the_chart_grants_the_rights_of_the_manifests_and_no_others() {
    let manifests = documents(include_str!("../deploy/manifests/garpike.yaml"));

    let renamed = |rules: &[Value]| -> Vec<Value> {
        let text = json!(rules).to_string();
        let text = text
            .replace("\"garpike-memberlist\"", "\"memberlist\"")
            .replace("\"garpike-controller\"", "\"controller\"");
        let mut rules: Vec<Value> = serde_json::from_str(&text).unwrap();
        for rule in &mut rules {
            for field in ["resourceNames", "resources", "verbs"] {
                if let Some(values) = rule[field].as_array_mut() {
                    values.sort_by_key(ToString::to_string);
                }
            }
        }
        rules
    };
    let all = |objects: &[Value]| -> BTreeMap<String, Vec<Value>> {
        let roles = objects.iter().filter(|object| matches!(object["kind"].as_str(), Some("Role" | "ClusterRole")));
        let named = roles.map(|role| {
            let name = role["metadata"]["name"].as_str().unwrap();
            let name = name.trim_start_matches("garpike-").replace("metallb-system:", "garpike:");
            (format!("{} {name}", role["kind"]), renamed(role["rules"].as_array().unwrap()))
        });
        named.collect()
    };

    assert_eq!(all(&render(&[])), all(&manifests));
}

#[test]
fn every_binding_of_the_chart_names_accounts_and_roles_that_it_renders() {
    let chart = render(&["--set", "controller.serviceAccount.name=mine"]);
    let has = |kind: &str, name: &Value| {
        chart.iter().any(|object| object["kind"] == kind && object["metadata"]["name"] == *name)
    };

    let bindings = chart.iter().filter(|object| object["roleRef"].is_object());
    let mut count = 0;
    for binding in bindings {
        count += 1;
        assert!(has(binding["roleRef"]["kind"].as_str().unwrap(), &binding["roleRef"]["name"]), "{binding}");
        for subject in binding["subjects"].as_array().unwrap() {
            assert!(has("ServiceAccount", &subject["name"]), "{binding}");
        }
    }
    assert!(count >= 4, "{count}");
}

#[test]
fn the_values_for_each_kind_of_cluster_are_rendered() {
    for name in ["kubeadm", "k3s", "talos", "openshift", "cilium"] {
        let path = root().join(format!("deploy/helm/values/{name}.yaml"));

        let objects = render(&["--values", &path.to_string_lossy()]);

        named(&objects, "DaemonSet", "garpike-speaker");
    }
    let scc = render(&["--values", "deploy/helm/values/openshift.yaml"]);
    let scc = named(&scc, "SecurityContextConstraints", "garpike-speaker");
    assert_eq!(scc["users"], json!(["system:serviceaccount:metallb-system:garpike-speaker"]));
}

#[test]
fn a_release_of_metallb_is_taken_over_under_its_names() {
    let objects = helm(&["template", "metallb", CHART, "--set", "nameOverride=metallb"]);

    let speaker = named(&objects, "DaemonSet", "metallb-speaker");

    let labels = json!({
        "app.kubernetes.io/name": "metallb",
        "app.kubernetes.io/instance": "metallb",
        "app.kubernetes.io/component": "speaker",
    });
    assert_eq!(speaker["spec"]["selector"]["matchLabels"], labels);
    let volumes = speaker["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    assert!(volumes.iter().any(|volume| volume["secret"]["secretName"] == "metallb-memberlist"), "{volumes:?}");
}

#[test]
fn wrong_values_are_refused_with_their_names() {
    let wrong = [
        ("controller.replicas=two", "/controller/replicas"),
        ("speaker.logLevel=loud", "/speaker/logLevel"),
        ("speeker.enabled=true", "speeker"),
        ("crds.validationFailurePolicy=Maybe", "/crds/validationFailurePolicy"),
        ("controller.deadNodeHint=sometimes", "/controller/deadNodeHint"),
        ("controller.deadNodeHintShare=most", "/controller/deadNodeHintShare"),
        ("speaker.memberlist.mlBindPort=70000", "/speaker/memberlist/mlBindPort"),
        ("frrk8s.enabled=true", "does not speak BGP"),
        ("speaker.frr.enabled=true", "does not speak BGP"),
        ("speaker.memberlist.enabled=false", "speaker.memberlist.enabled"),
        ("speaker.image.repository=quay.io/metallb/speaker", "MetalLB's image"),
        ("prometheus.podMonitor.enabled=true", "prometheus.serviceAccount"),
    ];
    for (value, named) in wrong {
        let output = run(Program::Helm, &template(&["template", "garpike", CHART, "--set", value]));

        assert!(!output.status.success(), "{value}");
        assert!(text(&output.stderr).contains(named), "{value}: {}", text(&output.stderr));
    }
}

#[test]
fn pools_outlive_the_release() {
    let keep = |objects: &[Value]| {
        let crds = objects.iter().filter(|object| object["kind"] == "CustomResourceDefinition");
        let policies: Vec<Value> =
            crds.map(|crd| crd["metadata"]["annotations"]["helm.sh/resource-policy"].clone()).collect();
        assert!(policies.len() >= 5, "{policies:?}");
        policies
    };

    assert!(keep(&render(&[])).iter().all(|policy| policy == "keep"));
    assert!(keep(&render(&["--set", "crds.keep=false"])).iter().all(Value::is_null));
}

#[test]
fn kubectl_renders_every_overlay() {
    let kustomize = |directory: &str| {
        let output = run(Program::Kubectl, &["kustomize", directory]);
        assert!(output.status.success(), "{directory}: {}", text(&output.stderr));
        documents(&text(&output.stdout))
    };
    let base = kustomize("deploy/manifests");
    assert_eq!(base.len(), documents(include_str!("../deploy/manifests/garpike.yaml")).len());

    let without = kustomize("deploy/overlays/no-webhook");
    assert_eq!(without.len(), base.len() - 3);
    let args = |objects: &[Value], kind, name| {
        strings(&named(objects, kind, name)["spec"]["template"]["spec"]["containers"][0]["args"])
    };
    assert!(args(&without, "Deployment", "controller").contains(&"--webhook-mode=disabled".to_owned()));
    let fast = kustomize("deploy/overlays/fast");
    assert!(args(&fast, "DaemonSet", "speaker").contains(&"--profile=fast".to_owned()));
    assert_eq!(added_capabilities(&fast, "speaker"), ["NET_RAW", "SYS_NICE"]);
    let plaintext = kustomize("deploy/overlays/plaintext-rollout");
    assert!(args(&plaintext, "DaemonSet", "speaker").contains(&"--insecure-plaintext".to_owned()));
    let hint = kustomize("deploy/overlays/dead-node-hint");
    assert!(args(&hint, "Deployment", "controller").contains(&"--dead-node-hint=on".to_owned()));
    named(&hint, "ClusterRole", "metallb-system:dead-node-hint");
    let prometheus = kustomize("deploy/overlays/prometheus");
    assert_eq!(prometheus.iter().filter(|object| object["kind"] == "ServiceMonitor").count(), 2);
    let rules = named(&prometheus, "PrometheusRule", "garpike");
    let chart = render(&["--set", "prometheus.prometheusRule.enabled=true"]);
    assert_eq!(alerts(rules), alerts(named(&chart, "PrometheusRule", "garpike")));
}

#[test]
fn the_right_to_mark_pods_comes_with_the_dead_node_hint_alone() {
    let manifests = documents(include_str!("../deploy/manifests/garpike.yaml"));
    let overlay = documents(include_str!("../deploy/overlays/dead-node-hint/rbac.yaml"));
    // Without quotes YAML takes `on` for true.
    for (value, word) in [("dry-run", "dry-run"), ("off", "off"), ("false", "off"), ("on", "on"), ("true", "on")] {
        let chart = render(&["--set", &format!("controller.deadNodeHint={value}")]);

        let args = strings(
            &named(&chart, "Deployment", "garpike-controller")["spec"]["template"]["spec"]["containers"][0]["args"],
        );
        assert!(args.contains(&format!("--dead-node-hint={word}")), "{value}: {args:?}");
        let role = chart
            .iter()
            .find(|object| object["metadata"]["name"] == "garpike:dead-node-hint" && object["kind"] == "ClusterRole");
        assert_eq!(role.map(|role| &role["rules"]), (word == "on").then(|| &overlay[0]["rules"]), "{value}");
        let bound = chart.iter().any(|object| object["roleRef"]["name"] == "garpike:dead-node-hint");
        assert_eq!(bound, word == "on", "{value}");
    }
    let marks = |object: &Value| object["rules"].to_string().contains("pods/status");
    assert!(!manifests.iter().any(marks) && overlay.iter().any(marks));
}

#[test]
fn no_network_policy_keeps_the_controller_from_the_speakers() {
    let chart = render(&["--set", "networkpolicies.enabled=true", "--set", "speaker.memberlist.mlBindPort=7999"]);
    let egress = &named(&chart, "NetworkPolicy", "garpike-controller")["spec"]["egress"][0]["ports"];
    assert!(egress.as_array().unwrap().contains(&json!({"port": 7999, "protocol": "TCP"})), "{egress}");
    let env = &named(&chart, "Deployment", "garpike-controller")["spec"]["template"]["spec"]["containers"][0]["env"];
    let port = json!({"name": "METALLB_ML_BIND_PORT", "value": "7999"});
    assert!(env.as_array().unwrap().contains(&port), "{env}");

    let manifests = documents(include_str!("../deploy/manifests/garpike.yaml"));
    assert_eq!(named(&manifests, "NetworkPolicy", "controller")["spec"]["policyTypes"], json!(["Ingress"]));
}

#[test]
fn every_alert_fires_and_does_not_fire_when_it_should() {
    let promtool = |arguments: &[&str]| {
        let output = Command::new("promtool").args(arguments).current_dir(root().join("deploy/prometheus")).output();
        let output = output.unwrap_or_else(|error| panic!("promtool: {error}; `cargo xtask setup lab` installs it"));
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    };
    promtool(&["check", "rules", "rules.yaml"]);
    promtool(&["test", "rules", "rules_test.yaml"]);

    let tests = include_str!("../deploy/prometheus/rules_test.yaml");
    let rules: Value = serde_saphyr::from_str(include_str!("../deploy/prometheus/rules.yaml")).unwrap();
    for alert in alerts(&json!({ "spec": rules })) {
        assert!(tests.contains(&format!("name: {alert} fires")), "{alert}");
        assert!(tests.contains(&format!("name: {alert} does not fire")), "{alert}");
    }
}

#[test]
fn every_metric_of_rules_and_dashboards_exists() {
    let documented = include_str!("../docs/metrics.md");
    let mut used = metrics(include_str!("../deploy/prometheus/rules.yaml"));
    for entry in std::fs::read_dir(root().join("deploy/grafana")).unwrap() {
        used.extend(metrics(&std::fs::read_to_string(entry.unwrap().path()).unwrap()));
    }

    let unknown: Vec<&String> = used.iter().filter(|name| !documented.contains(&format!("`{name}`"))).collect();

    assert!(used.len() > 20, "{used:?}");
    assert_eq!(unknown, [] as [&String; 0]);
}

/// The metrics that a text names; the suffixes that Prometheus gives to histograms taken off.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let metrics = words.filter(|word| ["garpike_", "metallb_"].iter().any(|start| word.starts_with(start)));
    let bare =
        |name: &str| ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).map(str::to_owned);
    metrics.map(|name| bare(name).unwrap_or_else(|| name.to_owned())).collect()
}

fn alerts(rule: &Value) -> BTreeSet<String> {
    let groups = rule["spec"]["groups"].as_array().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    rules.filter_map(|rule| Some(rule["alert"].as_str()?.to_owned())).collect()
}

fn render(options: &[&str]) -> Vec<Value> {
    helm(&[&["template", "garpike", CHART][..], options].concat())
}

fn helm(arguments: &[&str]) -> Vec<Value> {
    let output = run(Program::Helm, &template(arguments));
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    documents(&text(&output.stdout))
}

fn template<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--namespace", "metallb-system", "--kube-version", KUBERNETES]].concat()
}

fn run(program: Program, arguments: &[&str]) -> Output {
    let path = program.path().unwrap_or_else(|error| panic!("{error}"));
    Command::new(path).args(arguments).current_dir(root()).output().unwrap()
}

fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn documents(yaml: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

fn added_capabilities(objects: &[Value], speaker: &str) -> Vec<String> {
    let pod = &named(objects, "DaemonSet", speaker)["spec"]["template"]["spec"];
    strings(&pod["containers"][0]["securityContext"]["capabilities"]["add"])
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

const CHART: &str = "deploy/helm/garpike";
/// Which Kubernetes is rendered for: that of tools/kubernetes.
const KUBERNETES: &str = "1.34.4";
