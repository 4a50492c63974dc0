//! Services of two address families.

use garpike_chaos::kube::{ApiServer, Stack, define};
use serde_json::{Value, json};

use crate::Check;
use crate::site::Ground;

pub(crate) const CHECKS: &[Check] = &[
    Check("a_service_that_requires_both_families_gets_both_from_one_pool", require),
    Check("a_service_that_prefers_both_families_takes_a_pool_that_has_both", prefers_dual_pool),
    Check("a_service_that_prefers_both_families_makes_do_with_its_first_one", prefers_first_family),
    Check("a_pool_that_grows_by_a_family_gives_it_to_who_prefers_both", pool_grows),
    Check("a_service_changes_between_preferring_and_requiring_both", policy_changes),
    Check("both_addresses_are_asked_for_at_once", both_requested),
    Check("in_a_cluster_of_one_family_a_service_that_prefers_both_keeps_its_one_address", no_flap),
];

fn require(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("a-v4", &[site.range(1, 9)]).await;
        site.pool("b-v6", &[site.range6(1, 9)]).await;
        site.service("web", families("RequireDualStack", &["IPv4", "IPv6"])).await;
        site.is_told("web", "AllocationFailed").await;
        assert!(site.ips("web").await.is_empty(), "two pools of one family each are no pool of both");

        site.pool("c-both", &[site.range(50, 59), site.range6(0x50, 0x59)]).await;

        site.has("web", &[&site.v4(50), &site.v6(0x50)]).await;
    });
}

fn prefers_dual_pool(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("a-v4", &[site.range(1, 9)]).await;
        site.pool("b-both", &[site.range(50, 59), site.range6(0x50, 0x59)]).await;
        site.service("web", families("PreferDualStack", &["IPv4", "IPv6"])).await;
        site.has("web", &[&site.v4(50), &site.v6(0x50)]).await;
    });
}

fn prefers_first_family(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("a-v4", &[site.range(1, 9)]).await;
        site.pool("b-v6", &[site.range6(1, 9)]).await;
        site.service("four", families("PreferDualStack", &["IPv4", "IPv6"])).await;
        site.service("six", families("PreferDualStack", &["IPv6", "IPv4"])).await;
        site.has("four", &[&site.v4(1)]).await;
        site.has("six", &[&site.v6(1)]).await;
        // A pool of both that comes later does not make them move.
        site.pool("c-both", &[site.range(50, 59), site.range6(0x50, 0x59)]).await;
        site.settle(0).await;
        assert_eq!(site.ips("four").await, [site.v4(1)]);
        assert_eq!(site.ips("six").await, [site.v6(1)]);
    });
}

fn pool_grows(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("pool", &[site.range(1, 9)]).await;
        site.service("web", families("PreferDualStack", &["IPv4", "IPv6"])).await;
        site.has("web", &[&site.v4(1)]).await;

        site.pool("pool", &[site.range(1, 9), site.range6(1, 9)]).await;

        site.has("web", &[&site.v4(1), &site.v6(1)]).await;
        site.settle(0).await;
        assert_eq!(site.status_writes("web"), 2);
    });
}

fn policy_changes(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("both", &[site.range(1, 9), site.range6(1, 9)]).await;
        site.service("web", families("RequireDualStack", &["IPv4", "IPv6"])).await;
        let both = [&*site.v4(1), &*site.v6(1)];
        site.has("web", &both).await;
        site.patch("web", json!({"spec": {"ipFamilyPolicy": "PreferDualStack"}})).await;
        site.settle(0).await;
        assert_eq!(site.ips("web").await, both);
        site.patch("web", json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}})).await;
        site.settle(1).await;
        assert_eq!(site.ips("web").await, both);
        assert_eq!(site.status_writes("web"), 1);
        // One family is given up.
        let single = json!({"spec": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"], "clusterIPs": null}});
        site.patch("web", single).await;
        site.has("web", &[&site.v4(1)]).await;
    });
}

fn both_requested(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("both", &[site.range(1, 9), site.range6(1, 9)]).await;
        let mut service = families("RequireDualStack", &["IPv4", "IPv6"]);
        let asked = format!("{},{}", site.v4(7), site.v6(3));
        service["metadata"]["annotations"]["metallb.io/loadBalancerIPs"] = json!(asked);
        site.service("web", service).await;
        let both = site.gets("web", 2).await;
        assert!(both.contains(&site.v4(7)) && both.contains(&site.v6(3)), "{both:?}");
        site.settle(0).await;
        assert_eq!((site.ips("web").await, site.status_writes("web")), (both, 1), "neither order nor anything changes");
    });
}

fn no_flap(ground: &Ground<'_>) {
    ground.runtime.block_on(async {
        let server = ApiServer::start(Stack::V4).await.unwrap();
        define(&server).await.unwrap();
        let site = ground.site(&server).await;
        let _controller = site.controller().await;
        site.pool("both", &[site.range(1, 9), site.range6(1, 9)]).await;
        site.service("web", json!({"spec": {"ipFamilyPolicy": "PreferDualStack"}})).await;
        site.has("web", &[&site.v4(1)]).await;
        for round in 0..4 {
            // Each change is a reason to look again.
            site.annotate("web", json!({"round": round.to_string()})).await;
            site.settle(round).await;
        }
        assert_eq!(site.ips("web").await, [site.v4(1)]);
        assert_eq!(site.status_writes("web"), 1);
    });
}

fn families(policy: &str, families: &[&str]) -> Value {
    json!({"spec": {"ipFamilyPolicy": policy, "ipFamilies": families}})
}
