//! What the controller keeps beside addresses: the Secret of the speakers, the old ConfigMap, its ConfigurationState.

use std::path::Path;

use garpike_chaos::kube::Server;
use hyper::Request;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::DeleteParams;
use kube::config::Kubeconfig;
use kube::{Api, Client, Config};
use serde_json::{Value, json};

use crate::Check;
use crate::site::{Ground, Site, within_reason};

pub(crate) const CHECKS: &[Check] = &[
    Check("the_secret_of_the_speakers_is_made_when_it_is_absent_and_stays", secret),
    Check("an_old_configmap_is_imported_once", import),
    Check("an_old_configmap_that_comes_after_the_controller_is_imported_too", import_later),
    Check("the_configuration_state_has_metallbs_names_and_comes_back", configuration_state),
    Check("metrics_are_for_whom_the_cluster_says", metrics),
    Check("only_the_controller_that_leads_writes_the_configuration_state", one_reporter),
];

fn secret(ground: &Ground<'_>) {
    ground.run(async |site| {
        let controller = site.controller().await;
        let made = secret_of(site).await;
        let owner = &made.metadata.owner_references.unwrap_or_default()[0];
        assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Deployment", "controller"));
        assert_eq!(made.type_.as_deref(), Some("Opaque"));
        assert!(made.data.as_ref().unwrap()["secretkey"].0.len() >= 32);

        controller.kill();
        let _controller = site.controller().await;
        site.settle(0).await;

        assert_eq!(secret_of(site).await.data, made.data);
    });
}

fn import_later(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.service("web", json!({})).await;
        site.settle(0).await;
        let config = format!("address-pools:\n- name: late\n  protocol: layer2\n  addresses: [{}]\n", site.range(1, 9));
        site.object("v1", "ConfigMap", "config", json!({"data": {"config": config}})).await;

        site.has("web", &[&site.v4(1)]).await;
    });
}

fn import(ground: &Ground<'_>) {
    ground.run(async |site| {
        let config = format!(
            "address-pools:\n- name: old\n  protocol: layer2\n  addresses: [{}]\n- name: spare\n  protocol: layer2\n  \
             addresses: [{}]\n",
            site.range(1, 9),
            site.range(20, 29)
        );
        site.object("v1", "ConfigMap", "config", json!({"data": {"config": config}})).await;
        site.service("web", json!({})).await;
        let controller = site.controller().await;

        site.has("web", &[&site.v4(1)]).await;
        let advertised = within_reason(async || {
            let list = site.of_metallb("L2Advertisement").list(&Default::default()).await.unwrap();
            let pools = list.items.iter().filter_map(|object| object.data["spec"]["ipAddressPools"].as_array());
            (pools.flatten().filter(|pool| *pool == "old" || *pool == "spare").count() == 2).then_some(())
        });
        assert!(advertised.await.is_some());
        let noted = within_reason(async || {
            let maps: Api<ConfigMap> = Api::namespaced(site.client(), &site.namespace);
            let annotations = maps.get("config").await.unwrap().metadata.annotations?;
            annotations.contains_key("garpike.io/imported").then_some(())
        });
        assert!(noted.await.is_some());

        // What somebody deletes does not come back.
        site.remove_pool("spare").await;
        controller.kill();
        let _controller = site.controller().await;
        site.settle(0).await;
        assert_eq!(site.read("IPAddressPool", "spare").await, None);
        assert_eq!(site.ips("web").await, [site.v4(1)]);
    });
}

fn configuration_state(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        let state = judged(site).await;
        assert_eq!(state["metadata"]["labels"]["metallb.io/component-type"], "controller");
        let owner = &state["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["kind"], &owner["name"]), (&json!("Pod"), &json!("controller-0")));
        let condition = &state["status"]["conditions"][0];
        let shown = ["type", "status", "reason", "message"].map(|field| condition[field].as_str().unwrap());
        assert_eq!(shown, ["poolReconcilerValid", "True", "Reconciled", ""]);
        let managers = state["metadata"]["managedFields"].as_array().unwrap();
        let of_status: Vec<&Value> = managers.iter().filter(|entry| entry["subresource"] == "status").collect();
        assert_eq!(of_status.len(), 1, "{managers:?}");
        assert_eq!((&of_status[0]["manager"], &of_status[0]["operation"]), (&json!("poolReconciler"), &json!("Apply")));

        site.of_metallb("ConfigurationState").delete("controller", &DeleteParams::default()).await.unwrap();

        let again = within_reason(async || {
            let again = site.read("ConfigurationState", "controller").await?;
            (again["metadata"]["uid"] != state["metadata"]["uid"] && again["status"]["result"] == "Valid").then_some(())
        });
        assert!(again.await.is_some(), "{:?}", site.read("ConfigurationState", "controller").await);
    });
}

fn metrics(ground: &Ground<'_>) {
    ground.run(async |site| {
        let arguments = ["--metrics-auth", "token-review"];
        let controller = site.installation.start("controller-0", &arguments).await.unwrap();
        let speaker = site.server.kubeconfig_of(&site.namespace, "speaker", Server::Itself).await.unwrap();
        let asked = async |kubeconfig: &Path| {
            let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
            let mut config = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
            config.cluster_url = format!("https://127.0.0.1:{}", controller.metrics_port()).parse().unwrap();
            config.root_cert = None;
            config.accept_invalid_certs = true;
            let request = Request::get("/metrics").body(Vec::new()).unwrap();
            Client::try_from(config).unwrap().request_text(request).await
        };
        let text = within_reason(async || asked(&site.server.kubeconfig()).await.ok()).await;
        assert!(text.is_some_and(|text| text.contains("garpike_controller_")), "{}", controller.last_words());
        let refused = asked(&speaker).await.unwrap_err().to_string();
        assert!(refused.contains("403") || refused.contains("Forbidden"), "{refused}");
    });
}

fn one_reporter(ground: &Ground<'_>) {
    ground.run(async |site| {
        site.pool("pool", &[site.range(1, 9)]).await;
        let leader = site.installation.start("controller-one", &[]).await.unwrap();
        let state = judged(site).await;
        assert_eq!(state["metadata"]["ownerReferences"][0]["name"], "controller-one");
        let other = site.installation.start("controller-two", &[]).await.unwrap();
        let stands_by = within_reason(async || other.readyz().await?.1.contains("standing by").then_some(()));
        assert!(stands_by.await.is_some(), "{:?}", other.readyz().await);
        site.settle(0).await;
        site.settle(1).await;
        assert_eq!(reports(site), ["create configurationstates", "patch configurationstates/status"]);

        leader.kill();

        let taken_over = within_reason(async || {
            let state = site.read("ConfigurationState", "controller").await?;
            (state["metadata"]["ownerReferences"][0]["name"] == "controller-two").then_some(state)
        });
        let state = taken_over.await.expect("the new leader reports");
        site.settle(2).await;
        assert_eq!(state["status"]["result"], "Valid");
        assert_eq!(reports(site)[2..], ["patch configurationstates"], "it says the same as the one before");
    });
}

/// The ConfigurationState, once the controller has looked at pools.
async fn judged(site: &Site<'_>) -> Value {
    let state = within_reason(async || {
        let state = site.read("ConfigurationState", "controller").await?;
        (state["status"]["result"] == "Valid").then_some(state)
    });
    state.await.expect("a ConfigurationState")
}

/// Which of its writes concern the ConfigurationState. What was said while nobody had looked is left out.
fn reports(site: &Site<'_>) -> Vec<String> {
    let requests = site.requests().into_iter();
    let writes = requests.filter(|request| request.is_write() && request.resource.starts_with("configurationstates"));
    let mut all: Vec<String> = writes.map(|request| format!("{} {}", request.verb, request.resource)).collect();
    if all.get(1..3).is_some_and(|two| two[0] == two[1]) {
        all.remove(1);
    }
    all
}

async fn secret_of(site: &Site<'_>) -> Secret {
    let secrets: Api<Secret> = Api::namespaced(site.client(), &site.namespace);
    let made = within_reason(async || secrets.get_opt("memberlist").await.unwrap());
    made.await.expect("a Secret")
}
