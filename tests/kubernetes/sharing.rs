//! Services that share an address.

use serde_json::{Value, json};

use crate::Check;
use crate::site::Ground;

pub(crate) const CHECKS: &[Check] = &[
    Check("services_with_one_key_and_other_ports_share_an_address", share),
    Check("services_that_share_must_agree_on_key_ports_and_backends", clashes),
    Check("sharing_is_judged_again_when_policy_or_selector_change", judged_again),
];

fn share(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("single", &[site.range(1, 1)]).await;
        site.service("web", shared("metallb.io/allow-shared-ip", "key", 80, "TCP")).await;
        site.has("web", &[&site.v4(1)]).await;
        site.service("dns-tcp", shared("metallb.universe.tf/allow-shared-ip", "key", 53, "TCP")).await;
        site.service("dns-udp", shared("metallb.io/allow-shared-ip", "key", 53, "UDP")).await;
        site.has("dns-tcp", &[&site.v4(1)]).await;
        site.has("dns-udp", &[&site.v4(1)]).await;
        // One of them goes: the address is still in use.
        site.delete("web").await;
        site.service("alone", json!({})).await;
        site.is_told("alone", "AllocationFailed").await;
        site.delete("dns-tcp").await;
        site.delete("dns-udp").await;
        site.has("alone", &[&site.v4(1)]).await;
    });
}

fn clashes(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("single", &[site.range(1, 1)]).await;
        site.service("first", shared("metallb.io/allow-shared-ip", "key", 80, "TCP")).await;
        site.has("first", &[&site.v4(1)]).await;
        site.service("same-port", shared("metallb.io/allow-shared-ip", "key", 80, "TCP")).await;
        site.service("other-key", shared("metallb.io/allow-shared-ip", "other", 81, "TCP")).await;
        site.service("no-key", json!({})).await;
        for name in ["same-port", "other-key", "no-key"] {
            site.is_told(name, "AllocationFailed").await;
            assert!(site.ips(name).await.is_empty(), "{name}");
        }
        // The port becomes free, and who wanted it gets in.
        site.patch("first", json!({"spec": {"ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}})).await;
        site.has("same-port", &[&site.v4(1)]).await;
        assert_eq!(site.ips("first").await, [site.v4(1)]);
    });
}

fn judged_again(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("pool", &[site.range(1, 2)]).await;
        let wants = |port: u16| {
            let mut service = shared("metallb.io/allow-shared-ip", "key", port, "TCP");
            service["spec"]["selector"] = json!({"app": "one"});
            service["metadata"]["annotations"]["metallb.io/loadBalancerIPs"] = json!(site.v4(1));
            service
        };
        site.service("a", wants(80)).await;
        site.service("b", wants(81)).await;
        site.has("a", &[&site.v4(1)]).await;
        site.has("b", &[&site.v4(1)]).await;

        // Local with the same backends would do, but only for both; one alone cannot stay.
        site.patch("b", json!({"spec": {"externalTrafficPolicy": "Local"}})).await;
        site.has("b", &[]).await;
        assert_eq!(site.ips("a").await, [site.v4(1)]);
        site.patch("a", json!({"spec": {"externalTrafficPolicy": "Local"}})).await;
        site.has("b", &[&site.v4(1)]).await;
        assert_eq!(site.ips("a").await, [site.v4(1)]);
        // Other backends, under Local, cannot share.
        site.patch("b", json!({"spec": {"selector": {"app": "two"}}})).await;
        site.has("b", &[]).await;
    });
}

fn shared(annotation: &str, key: &str, port: u16, protocol: &str) -> Value {
    json!({
        "metadata": {"annotations": {annotation: key}},
        "spec": {"ports": [{"name": "port", "port": port, "protocol": protocol}]},
    })
}
