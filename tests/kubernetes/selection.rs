//! Pools that are kept for some namespaces and Services.

use serde_json::json;

use crate::Check;
use crate::site::{Ground, Site};

pub(crate) const CHECKS: &[Check] = &[
    Check("a_pool_for_a_namespace_serves_it_and_no_other", namespaces),
    Check("the_pool_with_the_lowest_priority_number_is_tried_first", priority),
    Check("a_relabelled_namespace_is_served_by_other_pools", namespace_relabelled),
    Check("a_relabelled_service_is_served_by_other_pools", service_relabelled),
    Check("a_pool_whose_namespace_selector_matches_nothing_serves_nobody", matches_nothing),
];

fn namespaces(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        let other = other_namespace(site, json!({})).await;
        let only = json!({"serviceAllocation": {"namespaces": [site.namespace]}});
        site.pool_with("kept", &[site.range(1, 9)], only).await;
        site.pool("general", &[site.range(50, 59)]).await;
        site.service("inside", json!({})).await;
        site.has("inside", &[&site.v4(1)]).await;
        site.service_in(&other, "outside", json!({})).await;
        has_in(site, &other, "outside", &[site.v4(50)]).await;
        // Asking does not help.
        let asks = json!({"metadata": {"annotations": {"metallb.io/address-pool": "kept"}}});
        site.service_in(&other, "asks", asks).await;
        site.settle(0).await;
        assert!(ips_in(site, &other, "asks").await.is_empty());
    });
}

fn priority(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        let pools = [("a-last", 0, 10), ("b-second", 20, 30), ("c-first", 10, 50)];
        for (name, priority, first) in pools {
            let pinned = json!({"serviceAllocation": {"priority": priority, "namespaces": [site.namespace]}});
            site.pool_with(name, &[site.range(first, first)], pinned).await;
        }
        for (name, last) in [("one", 50), ("two", 30), ("three", 10)] {
            site.service(name, json!({})).await;
            site.has(name, &[&site.v4(last)]).await;
        }
    });
}

fn namespace_relabelled(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        let other = other_namespace(site, json!({"team": "red"})).await;
        let team = |team: &str| {
            json!({"serviceAllocation": {"namespaceSelectors": [{"matchLabels": {"team": format!("{team}-{}", site.namespace)}}]}})
        };
        site.pool_with("red", &[site.range(1, 9)], team("red")).await;
        site.pool_with("blue", &[site.range(50, 59)], team("blue")).await;
        label_namespace(site, &other, &format!("red-{}", site.namespace)).await;
        site.service_in(&other, "web", json!({})).await;
        has_in(site, &other, "web", &[site.v4(1)]).await;

        label_namespace(site, &other, &format!("blue-{}", site.namespace)).await;

        has_in(site, &other, "web", &[site.v4(50)]).await;
        label_namespace(site, &other, "none").await;
        has_in(site, &other, "web", &[]).await;
    });
}

fn service_relabelled(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        let labelled =
            |tier: &str| json!({"serviceAllocation": {"serviceSelectors": [{"matchLabels": {"tier": tier}}]}});
        site.pool_with("front", &[site.range(1, 9)], labelled("front")).await;
        site.pool_with("back", &[site.range(50, 59)], labelled("back")).await;
        site.service("web", json!({"metadata": {"labels": {"tier": "front"}}})).await;
        site.has("web", &[&site.v4(1)]).await;

        site.patch("web", json!({"metadata": {"labels": {"tier": "back"}}})).await;

        site.has("web", &[&site.v4(50)]).await;
    });
}

fn matches_nothing(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        let nobody = json!({"serviceAllocation": {"namespaceSelectors": [{"matchLabels": {"no": "such"}}]}});
        site.pool_with("kept", &[site.range(1, 9)], nobody).await;
        site.service("by-pool", json!({"metadata": {"annotations": {"metallb.io/address-pool": "kept"}}})).await;
        site.service("by-ip", json!({"metadata": {"annotations": {"metallb.io/loadBalancerIPs": site.v4(3)}}})).await;
        site.is_told("by-pool", "AllocationFailed").await;
        site.is_told("by-ip", "AllocationFailed").await;
        assert!(site.ips("by-pool").await.is_empty() && site.ips("by-ip").await.is_empty());
    });
}

async fn other_namespace(site: &Site<'_>, labels: serde_json::Value) -> String {
    let name = format!("{}-other", site.namespace);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    garpike_chaos::kube::apply(&site.client(), &namespace).await.unwrap();
    name
}

async fn label_namespace(site: &Site<'_>, namespace: &str, team: &str) {
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {"team": team}}});
    garpike_chaos::kube::apply(&site.client(), &namespace).await.unwrap();
}

async fn ips_in(site: &Site<'_>, namespace: &str, name: &str) -> Vec<String> {
    let api: kube::Api<k8s_openapi::api::core::v1::Service> = kube::Api::namespaced(site.client(), namespace);
    crate::site::ips_of(&api.get(name).await.unwrap())
}

async fn has_in(site: &Site<'_>, namespace: &str, name: &str, wanted: &[String]) {
    let mut seen = Vec::new();
    let has = crate::site::within_reason(async || {
        seen = ips_in(site, namespace, name).await;
        (seen == wanted).then_some(())
    });
    assert!(has.await.is_some(), "{namespace}/{name} has {seen:?}, not {wanted:?}");
}
