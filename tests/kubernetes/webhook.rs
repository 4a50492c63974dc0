//! The webhook, asked by the API server as the shipped `deploy/manifests/webhook.yaml` has it.
//!
//! It listens on one port of the machine, and its configuration is one for the whole API server: these checks go one after
//! the other. The configuration is limited to the namespaces of the check.

use std::sync::{Mutex, PoisonError};

use garpike_chaos::kube::{Answers, Controller, Faults, InstallError, Proxy, Server, Which, apply};
use hyper::StatusCode;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use crate::Check;
use crate::site::{Ground, Site, merge, within_reason};

pub(crate) const CHECKS: &[Check] = &[
    Check("what_is_wrong_is_refused_in_metallbs_words", refused),
    Check("an_object_that_was_bad_before_stands_in_nobodys_way", bad_before),
    Check("a_peer_of_the_old_version_is_converted_on_its_way", converted),
    Check("a_controller_is_ready_when_the_api_server_trusts_its_webhook", ready),
    Check("a_controller_that_only_judges_takes_no_lease_from_one_that_gives_addresses", only_judges),
    Check("a_webhook_that_nobody_asks_is_not_waited_for", not_configured),
];

fn refused(ground: &Ground<'_>) {
    alone(ground, async |site| {
        configure(site).await;
        let _controller = judged(site).await;
        site.pool("first", &[site.range(10, 19)]).await;
        let community = |name: &str, value: &str| json!({"communities": [{"name": name, "value": value}]});
        write(site, "v1beta1", "Community", "first", community("alias", "1:2")).await.unwrap();
        let profile = json!({"bfdProfile": "fast", "myASN": 1, "peerASN": 2, "peerAddress": "192.0.2.1"});
        write(site, "v1beta1", "BFDProfile", "fast", json!({})).await.unwrap();
        write(site, "v1beta2", "BGPPeer", "first", profile.clone()).await.unwrap();
        let peer = |address: &str| json!({"myASN": 1, "peerASN": 2, "peerAddress": address});
        for (version, kind, spec, words) in [
            (
                "v1beta1",
                "IPAddressPool",
                json!({"addresses": [site.range(5, 12)]}),
                ["overlaps with already defined CIDR", "of first"],
            ),
            ("v1beta1", "IPAddressPool", json!({"addresses": ["10.0.0.1"]}), ["spec.addresses[0]", "10.0.0.1"]),
            (
                "v1beta1",
                "L2Advertisement",
                json!({"nodeSelectors": [{"matchExpressions": [{"key": "a", "operator": "Near"}]}]}),
                ["spec.nodeSelectors[0]", "Near"],
            ),
            ("v1beta1", "Community", community("alias", "1:2"), ["duplicate definition of community", "alias"]),
            ("v1beta1", "Community", community("b", "1:99999"), ["invalid community value: invalid section", "99999"]),
            (
                "v1beta1",
                "Community",
                community("c", "small:1:2:3"),
                ["expected community to be of format large", "small:1:2:3"],
            ),
            ("v1beta2", "BGPPeer", peer("192.0.2.300"), ["invalid BGPPeer address", "192.0.2.300"]),
            ("v1beta2", "BGPPeer", profile, ["already exists", "first"]),
        ] {
            let text = denied(write(site, version, kind, "wrong", spec).await);
            let named = text.contains(&format!("{kind} {}/wrong", site.namespace));
            assert!(named && words.iter().all(|word| text.contains(word)), "{kind}: {text}");
            assert!(text.contains("webhook.metallb.io\" denied the request"), "{text}");
        }
        let profiles = site.of_metallb("BFDProfile");
        let text = denied(profiles.delete("fast", &DeleteParams::default()).await.map_err(InstallError::Api));
        assert!(text.contains("failed to delete BFDProfile"), "{text}");

        let elsewhere = other_namespace(site);
        for kind in ["IPAddressPool", "L2Advertisement", "Community", "BFDProfile", "BGPAdvertisement"] {
            let spec = if kind == "IPAddressPool" { json!({"addresses": [site.range(50, 59)]}) } else { json!({}) };
            let mut object = object("v1beta1", kind, "stray", spec);
            merge(&mut object, json!({"metadata": {"namespace": elsewhere}}));
            let text = denied(apply(&site.client(), &object).await);
            let rule = format!("resource must be created in {} namespace", site.namespace);
            assert!(text.contains(&rule), "{kind}: {text}");
        }
    });
}

fn bad_before(ground: &Ground<'_>) {
    alone(ground, async |site| {
        site.pool("a", &[site.range(1, 9)]).await;
        site.pool("overlaps-a", &[site.range(5, 15)]).await;
        configure(site).await;
        let _controller = judged(site).await;

        site.pool("c", &[site.range(20, 29)]).await;
        site.service("web", json!({})).await;
        site.has("web", &[&site.v4(1)]).await;
        // A label is no new mistake; a range that grows into another one is.
        let labelled = json!({"metadata": {"labels": {"team": "red"}}, "spec": {"addresses": [site.range(5, 15)]}});
        site.object("metallb.io/v1beta1", "IPAddressPool", "overlaps-a", labelled).await;
        let grown = json!({"addresses": [site.range(9, 29)]});
        let text = denied(write(site, "v1beta1", "IPAddressPool", "c", grown).await);
        assert!(text.contains("overlaps with already defined CIDR"), "{text}");
        site.remove_pool("overlaps-a").await;
    });
}

fn converted(ground: &Ground<'_>) {
    alone(ground, async |site| {
        configure(site).await;
        let definitions: Api<CustomResourceDefinition> = Api::all(site.client());
        let service = json!({"namespace": site.namespace, "port": PORT});
        let here = json!({"spec": {"conversion": {"webhook": {"clientConfig": {"service": service}}}}});
        definitions.patch("bgppeers.metallb.io", &PatchParams::default(), &Patch::Merge(here)).await.unwrap();
        let _controller = judged(site).await;
        let old = json!({"myASN": 1, "peerASN": 2, "peerAddress": "192.0.2.1", "peerPort": 1179});
        // The definition is served anew with its new authority.
        let stored = within_reason(async || write(site, "v1beta1", "BGPPeer", "old", old.clone()).await.ok());
        assert!(stored.await.is_some(), "{:?}", write(site, "v1beta1", "BGPPeer", "old", old.clone()).await);

        for version in ["v1beta1", "v1beta2"] {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("metallb.io", version, "BGPPeer"));
            let peers: Api<DynamicObject> = Api::namespaced_with(site.client(), &site.namespace, &resource);
            let peer = peers.get("old").await.unwrap();
            assert_eq!(peer.data["spec"]["peerPort"], 1179, "{version}");
            assert_eq!(peer.types.unwrap().api_version, format!("metallb.io/{version}"));
        }
    });
}

fn ready(ground: &Ground<'_>) {
    alone(ground, async |site| {
        configure(site).await;
        let proxy = Proxy::start(site.server).await.unwrap();
        let refused = Answers::Status { one_in: 1, code: StatusCode::INTERNAL_SERVER_ERROR, retry_after: None };
        proxy.set(Faults {
            answers: vec![(Which::Path("validatingwebhookconfigurations"), refused)],
            ..Faults::default()
        });
        let server = Server::Proxy(&proxy.url());
        let controller = site.installation.start_before(server, "controller-0", ENABLED).await.unwrap();
        let waits = within_reason(async || {
            let (code, text) = controller.readyz().await?;
            (code == 503 && text.contains("webhook") && text.contains("500")).then_some(())
        });
        assert!(waits.await.is_some(), "{:?}\n{}", controller.readyz().await, controller.last_words());
        assert!(!is_trusted(site).await);

        proxy.set(Faults::default());

        is_ready(&controller).await;
        assert!(is_trusted(site).await, "ready, and the API server does not know whom to trust");
    });
}

fn not_configured(ground: &Ground<'_>) {
    alone(ground, async |site| {
        let controller = site.installation.start("controller-0", ENABLED).await.unwrap();
        is_ready(&controller).await;
        site.pool("pool", &[site.range(1, 9)]).await;
        site.service("web", json!({})).await;
        site.has("web", &[&site.v4(1)]).await;
    });
}

fn only_judges(ground: &Ground<'_>) {
    alone(ground, async |site| {
        let judge = site.installation.start("controller-judge", &["--webhook-mode", "onlywebhook"]).await.unwrap();
        is_ready(&judge).await;
        let _controller = site.controller().await;
        site.pool("pool", &[site.range(1, 9)]).await;
        site.service("web", json!({})).await;
        site.has("web", &[&site.v4(1)]).await;
        let (_, said) = judge.readyz().await.unwrap();
        assert!(said.contains("the webhook alone"), "{said}");
    });
}

/// A check that has the port and the configuration for itself. There is no configuration at first.
fn alone(ground: &Ground<'_>, check: impl AsyncFnOnce(&Site<'_>)) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    ground.run(async |site| {
        let removed = configurations(site).delete(CONFIGURATION, &DeleteParams::default()).await;
        assert!(matches!(&removed, Ok(_) | Err(kube::Error::Api(_))), "{removed:?}");
        check(site).await;
    });
}

/// Writes what the manifests have, for this site. Without a kube-proxy, the Service has the port of the process.
async fn configure(site: &Site<'_>) {
    let other = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other_namespace(site)}});
    apply(&site.client(), &other).await.unwrap();
    let namespaces = [site.namespace.clone(), other_namespace(site)];
    for document in MANIFESTS.split("\n---\n") {
        let mut object: Value = serde_saphyr::from_str(document).unwrap();
        if let Some(namespace) = object.pointer_mut("/metadata/namespace") {
            *namespace = json!(site.namespace);
        }
        if let Some(port) = object.pointer_mut("/spec/ports/0/port") {
            *port = json!(PORT);
        }
        for webhook in object.pointer_mut("/webhooks").and_then(Value::as_array_mut).into_iter().flatten() {
            let here = json!({
                "clientConfig": {"service": {"namespace": site.namespace, "port": PORT}},
                "namespaceSelector": {"matchExpressions": [
                    {"key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces},
                ]},
            });
            merge(webhook, here);
        }
        apply(&site.client(), &object).await.unwrap();
    }
}

/// A controller whose webhook the API server asks.
async fn judged(site: &Site<'_>) -> Controller {
    let controller = site.installation.start("controller-0", ENABLED).await.unwrap();
    is_ready(&controller).await;
    // The API server takes a moment to notice its own configuration.
    let mut answer = None;
    let asked = within_reason(async || {
        let wrong = json!({"communities": [{"name": "a", "value": "wrong"}]});
        let written = write(site, "v1beta1", "Community", "probe", wrong).await;
        let refused = matches!(&written, Err(error) if error.to_string().contains("denied the request"));
        answer = Some(written);
        refused.then_some(())
    });
    assert!(asked.await.is_some(), "{answer:?}\n{}", controller.last_words());
    controller
}

async fn is_ready(controller: &Controller) {
    let ready = within_reason(async || (controller.readyz().await?.0 == 200).then_some(()));
    assert!(ready.await.is_some(), "{:?}\n{}", controller.readyz().await, controller.last_words());
}

/// Whether all webhooks of the configuration have an authority.
async fn is_trusted(site: &Site<'_>) -> bool {
    let configuration = configurations(site).get(CONFIGURATION).await.unwrap();
    configuration.webhooks.unwrap_or_default().iter().all(|webhook| webhook.client_config.ca_bundle.is_some())
}

fn configurations(site: &Site<'_>) -> Api<ValidatingWebhookConfiguration> {
    Api::all(site.client())
}

async fn write(site: &Site<'_>, version: &str, kind: &str, name: &str, spec: Value) -> Result<(), InstallError> {
    let mut object = object(version, kind, name, spec);
    merge(&mut object, json!({"metadata": {"namespace": site.namespace}}));
    apply(&site.client(), &object).await.map(drop)
}

fn object(version: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("metallb.io/{version}"), "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn denied<T>(written: Result<T, InstallError>) -> String {
    match written {
        Ok(_) => panic!("it is stored"),
        Err(error) => error.to_string(),
    }
}

fn other_namespace(site: &Site<'_>) -> String {
    format!("{}-other", site.namespace)
}

const MANIFESTS: &str = include_str!("../../deploy/manifests/webhook.yaml");
const CONFIGURATION: &str = "metallb-webhook-configuration";
const ENABLED: &[&str] = &["--webhook-mode", "enabled"];
const PORT: u16 = 9443;
