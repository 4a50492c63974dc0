//! The condition of a Service that says why it has no address.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::Check;
use crate::site::{Ground, Site, within_reason};

pub(crate) const CHECKS: &[Check] = &[
    Check("a_service_says_why_it_waits_until_it_has_an_address", waits),
    Check("a_service_that_wants_no_address_any_more_says_nothing", wants_none),
    Check("the_conditions_of_others_stay_also_when_another_controller_takes_over", of_others),
];

fn waits(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("pool", &[site.range(1, 1)]).await;
        site.service("first", json!({})).await;
        site.has("first", &[&site.v4(1)]).await;
        site.service("second", json!({})).await;

        let condition = says(site, "second", "no free IPv4 address is left").await;
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "AllocationFailed"));
        assert!(ours(site, "first").await.is_none());

        site.delete("first").await;
        site.has("second", &[&site.v4(1)]).await;
        says_nothing(site, "second").await;
        assert_eq!(site.status_writes("second"), 2, "a condition, and an address that takes it away");
    });
}

fn wants_none(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.service("web", json!({})).await;
        says(site, "web", "no pool is open to it").await;

        site.patch("web", json!({"spec": {"type": "ClusterIP", "loadBalancerClass": null}})).await;

        says_nothing(site, "web").await;
    });
}

fn of_others(ground: &Ground<'_>) {
    ground.run(async |site| {
        site.service("web", json!({})).await;
        let others = json!({"status": {"conditions": [{
            "type": "example.com/Healthy", "status": "True", "reason": "Fine", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]}});
        site.services().patch_status("web", &PatchParams::default(), &Patch::Merge(others)).await.unwrap();
        let controller = site.controller().await;
        says(site, "web", "no pool is open to it").await;
        assert!(conditions(site, "web").await.iter().any(|condition| condition.type_ == "example.com/Healthy"));

        controller.kill();
        let _controller = site.controller().await;
        site.settle(0).await;
        says(site, "web", "no pool is open to it").await;
        assert!(conditions(site, "web").await.iter().any(|condition| condition.type_ == "example.com/Healthy"));

        site.pool("pool", &[site.range(1, 9)]).await;
        site.has("web", &[&site.v4(1)]).await;
        says_nothing(site, "web").await;
        assert!(conditions(site, "web").await.iter().any(|condition| condition.type_ == "example.com/Healthy"));
    });
}

/// Waits until the condition of a Service has this in its message.
async fn says(site: &Site<'_>, name: &str, message: &str) -> Condition {
    let found = within_reason(async || ours(site, name).await.filter(|condition| condition.message.contains(message)));
    let found = found.await;
    found.unwrap_or_else(|| panic!("{name}: no condition says \"{message}\""))
}

async fn says_nothing(site: &Site<'_>, name: &str) {
    let gone = within_reason(async || ours(site, name).await.is_none().then_some(()));
    assert!(gone.await.is_some(), "{name}: {:?}", ours(site, name).await);
}

async fn ours(site: &Site<'_>, name: &str) -> Option<Condition> {
    conditions(site, name).await.into_iter().find(|condition| condition.type_ == "garpike.io/AddressAllocated")
}

async fn conditions(site: &Site<'_>, name: &str) -> Vec<Condition> {
    let status = site.services().get(name).await.unwrap().status.unwrap_or_default();
    status.conditions.unwrap_or_default()
}
