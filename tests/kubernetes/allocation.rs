//! Which address a Service gets, and what becomes of it.

use serde_json::json;

use crate::Check;
use crate::site::{Ground, within_reason};

pub(crate) const CHECKS: &[Check] = &[
    Check("a_service_gets_the_lowest_free_address_and_says_from_which_pool", first_fit),
    Check("a_pool_is_asked_for_by_either_annotation", pool_annotation),
    Check("an_address_is_asked_for_by_field_and_by_either_annotation", requested),
    Check("a_request_that_cannot_be_met_is_told_and_met_later", impossible_request),
    Check("a_service_that_is_no_load_balancer_any_more_gives_its_address_up", type_change),
    Check("a_local_traffic_policy_and_a_change_to_node_port_are_as_any_other", local_and_node_port),
    Check("a_freed_address_goes_to_the_service_that_waits_longest", longest_waiting),
    Check("an_address_given_up_for_another_one_goes_to_who_waits", freed_by_request),
    Check("a_pool_that_shrinks_or_goes_takes_its_addresses_along", pool_shrinks),
    Check("a_pool_that_is_split_keeps_the_addresses_that_stay_inside", pool_split),
    Check("addresses_that_end_in_0_and_255_are_avoided_where_the_pool_says_so", buggy),
    Check("services_of_another_class_are_left_alone", foreign_class),
    Check("services_without_a_class_are_served_by_a_controller_without_one", no_class),
    Check("the_status_of_a_pool_counts_its_addresses", pool_status),
];

fn first_fit(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("first-pool", &[site.range(0, 9)]).await;
        site.service("a", json!({})).await;
        site.has("a", &[&site.v4(0)]).await;
        site.service("b", json!({})).await;
        site.has("b", &[&site.v4(1)]).await;

        let service = site.services().get("b").await.unwrap();
        let annotations = service.metadata.annotations.unwrap_or_default();
        assert_eq!(annotations.get("metallb.io/ip-allocated-from-pool").map(String::as_str), Some("first-pool"));
        assert!(site.is_told("a", "IPAllocated").await.contains(&site.v4(0)));
        site.settle(0).await;
        assert_eq!(site.status_writes("a"), 1, "one write for one address");
    });
}

fn pool_annotation(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("a-pool", &[site.range(0, 9)]).await;
        site.pool_with("z-pool", &[site.range(50, 59)], json!({"autoAssign": false})).await;
        let asks = |key: &str, pool: &str| json!({"metadata": {"annotations": {key: pool}}});
        site.service("by-new", asks("metallb.io/address-pool", "z-pool")).await;
        site.has("by-new", &[&site.v4(50)]).await;
        site.service("by-old", asks("metallb.universe.tf/address-pool", "z-pool")).await;
        site.has("by-old", &[&site.v4(51)]).await;
        site.is_told("by-old", "deprecatedAnnotation").await;
        site.service("unasked", json!({})).await;
        site.has("unasked", &[&site.v4(0)]).await;

        site.annotate("unasked", json!({"metallb.io/address-pool": "z-pool"})).await;
        site.has("unasked", &[&site.v4(52)]).await;
        // There is no such pool: what it has stays.
        site.annotate("unasked", json!({"metallb.io/address-pool": "no-such-pool"})).await;
        assert!(site.is_told("unasked", "LoadBalancerFailed").await.contains("no-such-pool"));
        assert_eq!(site.ips("unasked").await, [site.v4(52)]);
    });
}

fn requested(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool_with("kept", &[site.range(0, 20)], json!({"autoAssign": false})).await;
        let ips = |key: &str, ip: String| json!({"metadata": {"annotations": {key: ip}}});
        site.service("by-new", ips("metallb.io/loadBalancerIPs", site.v4(7))).await;
        site.service("by-old", ips("metallb.universe.tf/loadBalancerIPs", format!(" {} ", site.v4(8)))).await;
        site.service("by-field", json!({"spec": {"loadBalancerIP": site.v4(9)}})).await;
        site.has("by-new", &[&site.v4(7)]).await;
        site.has("by-old", &[&site.v4(8)]).await;
        site.has("by-field", &[&site.v4(9)]).await;

        // Another one is asked for; then none: the address stays.
        site.annotate("by-new", json!({"metallb.io/loadBalancerIPs": site.v4(10)})).await;
        site.has("by-new", &[&site.v4(10)]).await;
        site.annotate("by-new", json!({"metallb.io/loadBalancerIPs": null})).await;
        site.settle(0).await;
        assert_eq!(site.ips("by-new").await, [site.v4(10)]);
        // Both forms at once are a contradiction: what it has stays.
        site.annotate("by-field", json!({"metallb.io/loadBalancerIPs": site.v4(11)})).await;
        site.is_told("by-field", "LoadBalancerFailed").await;
        assert_eq!(site.ips("by-field").await, [site.v4(9)]);
    });
}

fn impossible_request(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("pool", &[site.range(0, 9)]).await;
        site.service("wants", json!({"metadata": {"annotations": {"metallb.io/loadBalancerIPs": site.v4(99)}}})).await;
        let told = site.is_told("wants", "AllocationFailed").await;
        assert!(told.contains(&site.v4(99)), "{told}");
        site.service("garbage", json!({"metadata": {"annotations": {"metallb.io/loadBalancerIPs": "one"}}})).await;
        let told = site.is_told("garbage", "AllocationFailed").await;
        assert!(told.contains("\"one\"") && told.contains("loadBalancerIPs"), "names neither value nor field: {told}");

        site.pool("later", &[site.range(90, 99)]).await;

        site.has("wants", &[&site.v4(99)]).await;
        assert!(site.ips("garbage").await.is_empty());
        let events = site.events("garbage").await;
        assert_eq!(events.len(), 1, "one mistake is told once: {events:?}");
    });
}

fn type_change(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("single", &[site.range(1, 1)]).await;
        site.service("first", json!({})).await;
        site.has("first", &[&site.v4(1)]).await;
        site.service("waits", json!({})).await;
        site.is_told("waits", "AllocationFailed").await;

        // The API server wants the class gone with the type.
        site.patch("first", json!({"spec": {"type": "ClusterIP", "loadBalancerClass": null}})).await;

        site.has("waits", &[&site.v4(1)]).await;
        site.has("first", &[]).await;
        let first = site.services().get("first").await.unwrap();
        let annotations = first.metadata.annotations.unwrap_or_default();
        assert!(!annotations.contains_key("metallb.io/ip-allocated-from-pool"), "{annotations:?}");
    });
}

fn local_and_node_port(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("pool", &[site.range(1, 9)]).await;
        site.service("web", json!({"spec": {"externalTrafficPolicy": "Local"}})).await;
        site.has("web", &[&site.v4(1)]).await;
        site.patch("web", json!({"spec": {"type": "NodePort", "loadBalancerClass": null}})).await;
        site.has("web", &[]).await;
        site.service("next", json!({})).await;
        site.has("next", &[&site.v4(1)]).await;
    });
}

fn longest_waiting(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("single", &[site.range(1, 1)]).await;
        site.service("has", json!({})).await;
        site.has("has", &[&site.v4(1)]).await;
        // Not in the order of their names.
        site.service("z-first", json!({})).await;
        site.is_told("z-first", "AllocationFailed").await;
        site.service("a-second", json!({})).await;
        site.is_told("a-second", "AllocationFailed").await;

        site.delete("has").await;

        site.has("z-first", &[&site.v4(1)]).await;
        assert!(site.ips("a-second").await.is_empty());
        site.delete("z-first").await;
        site.has("a-second", &[&site.v4(1)]).await;
    });
}

fn freed_by_request(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("single", &[site.range(1, 1)]).await;
        site.pool_with("other", &[site.range(50, 50)], json!({"autoAssign": false})).await;
        site.service("has", json!({})).await;
        site.has("has", &[&site.v4(1)]).await;
        site.service("waits", json!({})).await;
        site.is_told("waits", "AllocationFailed").await;

        site.annotate("has", json!({"metallb.io/loadBalancerIPs": site.v4(50)})).await;

        site.has("has", &[&site.v4(50)]).await;
        site.has("waits", &[&site.v4(1)]).await;
    });
}

fn pool_shrinks(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("pool", &[site.range(1, 2)]).await;
        site.service("a", json!({})).await;
        site.has("a", &[&site.v4(1)]).await;
        site.service("b", json!({})).await;
        site.has("b", &[&site.v4(2)]).await;

        // The pool moves away below one of them.
        site.pool("pool", &[site.range(2, 3)]).await;
        site.has("a", &[&site.v4(3)]).await;
        site.is_told("a", "ClearAssignment").await;
        assert_eq!(site.ips("b").await, [site.v4(2)]);

        site.pool("spare", &[site.range(80, 89)]).await;
        site.remove_pool("pool").await;
        site.has("a", &[&site.v4(80)]).await;
        site.has("b", &[&site.v4(81)]).await;
        // None left: nobody keeps anything.
        site.remove_pool("spare").await;
        site.has("a", &[]).await;
        site.has("b", &[]).await;
    });
}

fn pool_split(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("pool", &[site.range(1, 6)]).await;
        for (name, last) in [("a", 1), ("b", 2)] {
            site.service(name, json!({})).await;
            site.has(name, &[&site.v4(last)]).await;
        }

        site.pool("pool", &[site.range(1, 2)]).await;
        site.pool("rest", &[site.range(3, 6)]).await;

        site.service("c", json!({})).await;
        site.has("c", &[&site.v4(3)]).await;
        site.settle(0).await;
        assert_eq!([site.ips("a").await, site.ips("b").await], [[site.v4(1)], [site.v4(2)]]);
        assert_eq!([site.status_writes("a"), site.status_writes("b")], [1, 1]);
    });
}

fn buggy(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("pool", &[site.range(0, 1)]).await;
        site.service("a", json!({})).await;
        site.has("a", &[&site.v4(0)]).await;

        site.pool_with("pool", &[site.range(0, 1)], json!({"avoidBuggyIPs": true})).await;

        site.has("a", &[&site.v4(1)]).await;
        site.service("b", json!({})).await;
        site.is_told("b", "AllocationFailed").await;
        assert!(site.ips("b").await.is_empty());
    });
}

fn foreign_class(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("pool", &[site.range(0, 9)]).await;
        site.service("foreign", json!({"spec": {"loadBalancerClass": "example.com/other"}})).await;
        site.settle(0).await;
        assert!(site.ips("foreign").await.is_empty());
        assert_eq!(site.status_writes("foreign"), 0);
        assert!(site.events("foreign").await.is_empty());
    });
}

fn no_class(ground: &Ground<'_>) {
    ground.run_without_class(async |site| {
        let _controller = site.controller().await;
        site.pool("pool", &[site.range(0, 9)]).await;
        site.service("plain", json!({})).await;
        site.has("plain", &[&site.v4(0)]).await;
        site.service("classed", json!({"spec": {"loadBalancerClass": "example.com/other"}})).await;
        site.settle(0).await;
        assert!(site.ips("classed").await.is_empty());
    });
}

fn pool_status(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("pool", &[site.range(0, 9), site.range6(0, 3)]).await;
        site.service("a", json!({})).await;
        site.gets("a", 1).await;

        let wanted = json!({"assignedIPv4": 1, "availableIPv4": 9, "assignedIPv6": 0, "availableIPv6": 4});
        let mut seen = json!(null);
        let counted = within_reason(async || {
            seen = site.read("IPAddressPool", "pool").await.unwrap()["status"].clone();
            (seen == wanted).then_some(())
        });
        assert!(counted.await.is_some(), "{seen}");
        site.delete("a").await;
        let wanted = json!({"assignedIPv4": 0, "availableIPv4": 10, "assignedIPv6": 0, "availableIPv6": 4});
        let counted = within_reason(async || {
            seen = site.read("IPAddressPool", "pool").await.unwrap()["status"].clone();
            (seen == wanted).then_some(())
        });
        assert!(counted.await.is_some(), "{seen}");
    });
}
