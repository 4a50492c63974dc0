//! The dead-node hint: real speakers on loopback, a real controller and API server; the kubelets are played by the check.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use garpike_chaos::kube::{Answers, Controller, Faults, Proxy, Server, Speakers, Which, apply};
use garpike_election::NodeName;
use hyper::StatusCode;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::site::{Ground, Site, within_reason};
use crate::{Check, now};

pub(crate) const CHECKS: &[Check] = &[
    Check("ready_pods_of_a_dead_node_are_marked_once_by_each_controller", marked),
    Check("a_false_mark_heals_and_leaves_nothing_of_ours", healed),
    Check("a_killed_speaker_and_two_halves_mark_nothing", left_alone),
    Check("a_kubelet_that_renews_its_lease_keeps_its_pods", kubelet_lives),
    Check("to_see_what_it_would_do_the_controller_needs_no_right_on_pods", dry_run),
    Check("a_missing_right_to_mark_is_told_and_addresses_are_given_all_the_same", forbidden),
    Check("a_missing_right_to_list_pods_is_counted", forbidden_to_list),
    Check("a_dead_node_that_the_api_does_not_know_is_counted", unknown_node),
    Check("an_api_server_that_is_slow_or_fails_gets_the_marks_in_the_end", slow),
    Check("without_a_hint_nobody_listens_to_speakers", off),
];

fn marked(ground: &Ground<'_>) {
    ground.run(async |site| {
        let mut cluster = Cluster::of(site, 4).await;
        let pods = cluster.pods(4, 110).await;
        let others = cluster.pods(3, 1).await;
        cluster.bare_pod(4).await;
        let controllers =
            [cluster.controller("controller-one", "on").await, cluster.controller("controller-two", "on").await];

        let begun = now();
        cluster.die(4);
        cluster.are_ready(&pods, "False").await;
        let took = begun.elapsed();

        // A second for the relaxed speakers, and hardly more; a busy machine must not fail a test.
        assert!(took < Duration::from_secs(10), "{took:?}");
        let ready = cluster.condition(&pods[0]).await.unwrap();
        assert_eq!((&ready["reason"], &ready["status"]), (&json!("NodeNotReady"), &json!("False")));
        let message = ready["message"].as_str().unwrap();
        assert!(message.contains("Garpike") && message.contains("3 of 4 speakers"), "{message}");
        cluster.are_ready(&others, "True").await;
        let told = cluster.is_told(4, "DeadNodeHint").await;
        assert!(told.contains("Ready pods were marked"), "{told}");
        for controller in &controllers {
            counts(controller, "garpike_controller_dead_node_hints_total{mode=\"on\"} 1").await;
            counts(controller, "garpike_controller_dead_node_hint_seconds_count 1").await;
            let took = metric(controller, "garpike_controller_dead_node_hint_seconds_sum").await.unwrap();
            println!("{} pods were marked {took} s after the last heartbeat", pods.len());
            // No verdict comes sooner, so the silence before it counts.
            assert!(took.parse::<f64>().unwrap() > 0.1, "{took} s");
        }
        // Long enough for it to be done again, if it were.
        tokio::time::sleep(Duration::from_secs(2)).await;
        for pod in &pods {
            let writes = cluster.writes(pod);
            assert!((1..=2).contains(&writes), "{pod}: {writes} writes by two controllers");
        }
        assert_eq!(
            cluster.site.requests().iter().filter(|request| request.resource == "pods/status").count(),
            pods.iter().map(|pod| cluster.writes(pod)).sum::<usize>(),
            "no other pod was written"
        );
    });
}

fn healed(ground: &Ground<'_>) {
    ground.run(async |site| {
        let mut cluster = Cluster::of(site, 4).await;
        let pods = cluster.pods(4, 3).await;
        let controller = cluster.controller("controller-0", "on").await;
        cluster.die(4);
        cluster.are_ready(&pods, "False").await;
        assert!(cluster.managers(&pods[0]).await.contains(&"garpike-dead-node-hint".to_owned()));

        cluster.speakers.reconnect(&cluster.name(4));
        cluster.renew_lease(4).await;
        for pod in &pods {
            cluster.kubelet_reconciles(pod).await;
        }

        cluster.are_ready(&pods, "True").await;
        counts(&controller, "garpike_controller_dead_node_hints_false_total{mode=\"on\"} 1").await;
        for pod in &pods {
            let managers = cluster.managers(pod).await;
            assert!(managers.iter().all(|manager| !manager.contains("garpike")), "{managers:?}");
            let ready = cluster.condition(pod).await.unwrap();
            assert!(ready.get("reason").is_none() && ready.get("message").is_none(), "{ready}");
        }
        // It is not hinted again for what is over.
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.are_ready(&pods, "True").await;
    });
}

fn left_alone(ground: &Ground<'_>) {
    ground.run(async |site| {
        let mut cluster = Cluster::of(site, 4).await;
        let pods = [cluster.pods(3, 2).await, cluster.pods(4, 2).await].concat();
        let controller = cluster.controller("controller-0", "on").await;

        cluster.speakers.kill_speaker(&cluster.name(4));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(metric(&controller, "garpike_controller_dead_node_verdicts_total").await.as_deref(), Some("0"));

        // One killed, of whom the others do not know how many would agree, and now one more of the three that are left: the two
        // that remain are two of four.
        cluster.die(3);
        counts(&controller, "garpike_controller_dead_node_hints_refused_total{guard=\"minority\"} 1").await;
        cluster.are_ready(&pods, "True").await;
        assert!(site.requests().iter().all(|request| request.resource != "pods/status"));
    });
}

fn kubelet_lives(ground: &Ground<'_>) {
    ground.run(async |site| {
        let mut cluster = Cluster::of(site, 4).await;
        let pods = cluster.pods(4, 2).await;
        let controller = cluster.controller("controller-0", "on").await;
        // As if it were renewed all the time.
        cluster.lease(4, "2099-01-01T00:00:00.000000Z").await;
        cluster.die(4);

        counts(&controller, "garpike_controller_dead_node_hints_refused_total{guard=\"lease\"} 1").await;
        cluster.are_ready(&pods, "True").await;
    });
}

fn dry_run(ground: &Ground<'_>) {
    ground.run(async |site| {
        let mut cluster = Cluster::of(site, 4).await;
        let pods = cluster.pods(4, 2).await;
        let controller = cluster.controller("controller-0", "dry-run").await;
        cluster.die(4);
        counts(&controller, "garpike_controller_dead_node_hints_total{mode=\"dry_run\"} 1").await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        cluster.node_is(4, "Unknown").await;

        let told = cluster.is_told(4, "DeadNodeHintDryRun").await;
        let seconds = told.split_whitespace().filter_map(|word| word.parse::<f64>().ok()).next().unwrap();
        assert!(told.contains("--dead-node-hint=on") && (2.0..20.0).contains(&seconds), "{told}");
        cluster.are_ready(&pods, "True").await;
        assert!(
            site.requests()
                .iter()
                .all(|request| !(request.resource.starts_with("pods") && request.namespace.is_empty()))
        );
    });
}

fn forbidden(ground: &Ground<'_>) {
    // Pods may be listed and not be marked.
    ground.run_without_right("nothing", async |site| {
        let mut cluster = Cluster::with_rights(site, 4, Rights::List).await;
        let pods = cluster.pods(4, 2).await;
        let controller = cluster.controller("controller-0", "on").await;
        cluster.die(4);

        let told = cluster.is_told(4, "DeadNodeHint").await;
        assert!(told.contains("2 could not") && told.contains("pods/status"), "{told}");
        counts(&controller, "garpike_controller_dead_node_pods_total{outcome=\"forbidden\"} 2").await;
        cluster.are_ready(&pods, "True").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let tried = site.requests().iter().filter(|request| request.resource == "pods/status").count();
        assert_eq!(tried, 2, "each once");
        site.pool("pool", &[site.range(1, 9)]).await;
        site.service("web", json!({})).await;
        site.has("web", &[&site.v4(1)]).await;
    });
}

fn forbidden_to_list(ground: &Ground<'_>) {
    ground.run_without_right("nothing", async |site| {
        let mut cluster = Cluster::with_rights(site, 4, Rights::Base).await;
        let pods = cluster.pods(4, 2).await;
        let controller = cluster.controller("controller-0", "on").await;
        cluster.die(4);

        counts(&controller, "garpike_controller_dead_node_hints_refused_total{guard=\"unreadable\"} 1").await;
        cluster.are_ready(&pods, "True").await;
    });
}

fn unknown_node(ground: &Ground<'_>) {
    ground.run(async |site| {
        let mut cluster = Cluster::of(site, 4).await;
        let pods = cluster.pods(4, 1).await;
        let controller = cluster.controller("controller-0", "on").await;
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(site.client());
        nodes.delete(cluster.name(4).as_str(), &DeleteParams::default()).await.unwrap();
        cluster.die(4);

        counts(&controller, "garpike_controller_dead_node_hints_refused_total{guard=\"no_such_node\"} 1").await;
        cluster.are_ready(&pods, "True").await;
    });
}

fn slow(ground: &Ground<'_>) {
    ground.run(async |site| {
        let proxy = Proxy::start(site.server).await.unwrap();
        let mut cluster = Cluster::of(site, 4).await;
        let pods = cluster.pods(4, 20).await;
        let _controller = cluster.controller_before(Server::Proxy(&proxy.url()), "controller-0", "on").await;
        let answers = Answers::Status { one_in: 3, code: StatusCode::INTERNAL_SERVER_ERROR, retry_after: None };
        proxy.set(Faults { latency: Duration::from_millis(300), answers: vec![(Which::Path("/pods/"), answers)] });
        cluster.die(4);

        cluster.are_ready(&pods, "False").await;
        assert!(proxy.struck() > 0);
        for pod in &pods {
            assert_eq!(cluster.writes(pod), 1, "{pod}");
        }
        site.pool("pool", &[site.range(1, 9)]).await;
        site.service("web", json!({})).await;
        site.has("web", &[&site.v4(1)]).await;
    });
}

fn off(ground: &Ground<'_>) {
    ground.run(async |site| {
        let mut cluster = Cluster::of(site, 4).await;
        let pods = cluster.pods(4, 1).await;
        let controller = cluster.controller_that_is_deaf("controller-0").await;
        cluster.die(4);
        site.pool("pool", &[site.range(1, 9)]).await;
        site.service("web", json!({})).await;
        site.has("web", &[&site.v4(1)]).await;

        assert_eq!(metric(&controller, "garpike_controller_observed_speakers").await, None);
        cluster.are_ready(&pods, "True").await;
    });
}

/// Nodes with speakers, and what Kubernetes would know of them.
struct Cluster<'a> {
    site: &'a Site<'a>,
    speakers: Speakers,
    nodes: u8,
}

/// What the controller may do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rights {
    /// All that it needs to mark.
    Mark,
    /// That of the base, and to list pods.
    List,
    /// That of the base.
    Base,
}

impl<'a> Cluster<'a> {
    async fn of(site: &'a Site<'a>, nodes: u8) -> Self {
        Self::with_rights(site, nodes, Rights::Mark).await
    }

    async fn with_rights(site: &'a Site<'a>, nodes: u8, rights: Rights) -> Self {
        match rights {
            Rights::Mark => site.installation.allow_dead_node_hint().await.unwrap(),
            Rights::List => list_pods(site).await,
            Rights::Base => {}
        }
        let secret = json!({"type": "Opaque", "stringData": {"secretkey": SECRET}});
        site.object("v1", "Secret", "memberlist", secret).await;
        let addresses: BTreeMap<NodeName, SocketAddr> =
            (1..=nodes).map(|node| (name(site, node), SocketAddr::new(ip(site, node), PORT))).collect();
        let mut speakers = Speakers::start(&addresses, SECRET).unwrap();
        speakers.meet().await;
        let cluster = Self { site, speakers, nodes };
        for node in 1..=nodes {
            let of_node =
                json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": cluster.name(node).as_str()}});
            apply(&site.client(), &of_node).await.unwrap();
            cluster.node_is(node, "True").await;
            cluster.renew_lease(node).await;
            let labels = json!({"app": "metallb", "component": "speaker"});
            let speaker = cluster.pod(node, &format!("speaker-{node}"), labels).await;
            let ip = ip(site, node).to_string();
            cluster.status(&speaker, json!({"podIP": ip, "podIPs": [{"ip": ip}]})).await;
        }
        cluster
    }

    fn name(&self, node: u8) -> NodeName {
        name(self.site, node)
    }

    /// A controller that listens to three speakers, with this `--dead-node-hint`.
    async fn controller(&self, pod: &str, hint: &str) -> Controller {
        self.controller_before(Server::Itself, pod, hint).await
    }

    async fn controller_before(&self, server: Server<'_>, pod: &str, hint: &str) -> Controller {
        let port = PORT.to_string();
        let arguments = ["--dead-node-hint", hint, "--ml-bindport", &port];
        let controller = self.site.installation.start_before(server, pod, &arguments).await.unwrap();
        counts(&controller, &format!("garpike_controller_observed_speakers {}", self.nodes.min(3))).await;
        controller
    }

    async fn controller_that_is_deaf(&self, pod: &str) -> Controller {
        self.site.installation.start(pod, &["--dead-node-hint", "off"]).await.unwrap()
    }

    /// The host of the node dies.
    fn die(&mut self, node: u8) {
        let name = self.name(node);
        self.speakers.cut_off(&name).unwrap();
    }

    /// So many Ready pods on the node.
    async fn pods(&self, node: u8, count: u8) -> Vec<String> {
        let mut pods = Vec::new();
        for number in 0..count {
            let name = self.pod(node, &format!("web-{node}-{number}"), json!({"app": "web"})).await;
            self.kubelet_reconciles(&name).await;
            pods.push(name);
        }
        pods
    }

    /// One of which no kubelet has said anything yet.
    async fn bare_pod(&self, node: u8) {
        self.pod(node, &format!("bare-{node}"), json!({"app": "web"})).await;
    }

    async fn pod(&self, node: u8, name: &str, labels: Value) -> String {
        let pod = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"nodeName": self.name(node).as_str(), "containers": [{"name": "c", "image": "web"}]},
        });
        self.api().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        name.to_owned()
    }

    /// Writes the status as a kubelet does for a pod that is well: what it does not know is removed.
    async fn kubelet_reconciles(&self, pod: &str) {
        // When it became ready: the kubelet remembers that.
        let at = "2026-01-01T00:00:00Z";
        let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": null, "message": null, "lastTransitionTime": at});
        let conditions = ["Ready", "ContainersReady", "Initialized", "PodScheduled"].map(condition);
        self.status(pod, json!({"phase": "Running", "conditions": conditions})).await;
    }

    async fn status(&self, pod: &str, status: Value) {
        let kubelet = PatchParams { field_manager: Some("kubelet".to_owned()), ..PatchParams::default() };
        let patch = Patch::Strategic(json!({ "status": status }));
        self.api().patch_status(pod, &kubelet, &patch).await.unwrap();
    }

    async fn node_is(&self, node: u8, ready: &str) {
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(self.site.client());
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let name = self.name(node);
        nodes.patch_status(name.as_str(), &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
    }

    async fn renew_lease(&self, node: u8) {
        let at = k8s_openapi::jiff::Timestamp::now();
        self.lease(node, &format!("{at:.6}")).await;
    }

    async fn lease(&self, node: u8, renewed: &str) {
        let name = self.name(node);
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name.as_str(), "namespace": "kube-node-lease"},
            "spec": {"holderIdentity": name.as_str(), "leaseDurationSeconds": 40, "renewTime": renewed},
        });
        apply(&self.site.client(), &lease).await.unwrap();
    }

    /// Waits until condition Ready of all of them is this.
    async fn are_ready(&self, pods: &[String], wanted: &str) {
        let mut seen = BTreeMap::new();
        let all = within_reason(async || {
            for pod in pods {
                seen.insert(pod.clone(), self.condition(pod).await.map(|ready| ready["status"].clone()));
            }
            seen.values().all(|status| status.as_ref().is_some_and(|status| status == wanted)).then_some(())
        });
        assert!(all.await.is_some(), "not {wanted}: {seen:?}");
    }

    async fn condition(&self, pod: &str) -> Option<Value> {
        let pod = serde_json::to_value(self.api().get(pod).await.unwrap()).unwrap();
        let conditions = pod["status"]["conditions"].as_array()?;
        conditions.iter().find(|condition| condition["type"] == "Ready").cloned()
    }

    /// Who owns fields of the pod.
    async fn managers(&self, pod: &str) -> Vec<String> {
        let pod = self.api().get(pod).await.unwrap();
        pod.metadata.managed_fields.into_iter().flatten().filter_map(|entry| entry.manager).collect()
    }

    /// How often the controllers wrote the pod.
    fn writes(&self, pod: &str) -> usize {
        let requests = self.site.requests();
        requests
            .iter()
            .filter(|request| request.is_write() && request.resource == "pods/status" && request.name == pod)
            .count()
    }

    async fn is_told(&self, node: u8, reason: &str) -> String {
        let events: Api<Event> = Api::namespaced(self.site.client(), "default");
        let of_node = ListParams::default().fields(&format!("involvedObject.name={}", self.name(node)));
        let found = within_reason(async || {
            let events = events.list(&of_node).await.unwrap().items;
            events.into_iter().find(|event| event.reason.as_deref() == Some(reason)).and_then(|event| event.message)
        });
        found.await.unwrap_or_else(|| panic!("no event {reason}"))
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.site.client(), &self.site.namespace)
    }
}

/// Nodes have no namespace: their names are the site's own.
fn name(site: &Site<'_>, node: u8) -> NodeName {
    NodeName::new(&format!("{}-n{node}", site.namespace)).unwrap()
}

fn ip(site: &Site<'_>, node: u8) -> IpAddr {
    let number = site.namespace.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap();
    Ipv4Addr::new(127, 77, number, node).into()
}

async fn list_pods(site: &Site<'_>) {
    let name = format!("{}-pods", site.namespace);
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "controller", "namespace": site.namespace}],
    });
    for object in [role, binding] {
        apply(&site.client(), &object).await.unwrap();
    }
}

/// Waits until the metrics of the controller have this line.
async fn counts(controller: &Controller, line: &str) {
    let found = within_reason(async || controller.metrics().await.lines().any(|found| found == line).then_some(()));
    let name = line.split(['{', ' ']).next().unwrap_or_default();
    if found.await.is_none() {
        let seen = controller.metrics().await;
        let seen: Vec<&str> = seen.lines().filter(|line| line.contains("dead_node") || line.contains(name)).collect();
        panic!("no \"{line}\" but {seen:#?}\n{}", controller.last_words());
    }
}

/// The value of a metric without labels.
async fn metric(controller: &Controller, name: &str) -> Option<String> {
    let metrics = controller.metrics().await;
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned))
}

const SECRET: &str = "the secret of the speakers";
/// Not the one of a real speaker on this host.
const PORT: u16 = 17946;
