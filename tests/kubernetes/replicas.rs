//! Several controllers, ours and others.

use std::time::Duration;

use garpike_chaos::kube::Controller;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;

use crate::site::{Ground, Site, all_differ, within_reason};
use crate::{Check, now};

pub(crate) const CHECKS: &[Check] = &[
    Check("two_controllers_give_no_address_twice", two),
    Check("the_lease_of_a_killed_controller_is_taken_over", killed),
    Check("the_lease_of_a_controller_that_ends_is_taken_over_at_once", ended),
    Check("nothing_is_written_while_metallbs_controller_is_alive", foreign),
    Check("a_controller_that_stands_by_is_ready", stands_by),
];

fn two(ground: &Ground<'_>) {
    ground.run(async |site| {
        site.pool("pool", &[site.range(1, 100)]).await;
        let _both = both(site).await;
        let names: Vec<String> = (0..60).map(|number| format!("s{number}")).collect();
        for name in &names {
            site.service(name, json!({})).await;
        }
        let mut ips = Vec::new();
        for name in &names {
            ips.extend(site.gets(name, 1).await);
        }
        assert!(all_differ(&ips), "{ips:?}");
        site.settle(0).await;
        let writes: usize = names.iter().map(|name| site.status_writes(name)).sum();
        assert_eq!(writes, names.len(), "each address was written once");
    });
}

fn killed(ground: &Ground<'_>) {
    ground.run(async |site| {
        site.pool("pool", &[site.range(1, 100)]).await;
        let mut controllers = both(site).await;
        site.service("before", json!({})).await;
        site.has("before", &[&site.v4(1)]).await;
        let leader = leader_of(site, &controllers).await;

        controllers.remove(leader).1.kill();
        let begun = now();
        site.service("after", json!({})).await;

        site.has("after", &[&site.v4(2)]).await;
        // Five seconds are the target; a busy machine must not fail a test.
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        assert_eq!(site.ips("before").await, [site.v4(1)]);
        assert_eq!(site.status_writes("before"), 1);
    });
}

fn ended(ground: &Ground<'_>) {
    ground.run(async |site| {
        site.pool("pool", &[site.range(1, 100)]).await;
        let mut controllers = both(site).await;
        site.service("before", json!({})).await;
        site.has("before", &[&site.v4(1)]).await;
        let leader = leader_of(site, &controllers).await;

        let (status, _) = controllers.remove(leader).1.terminate(Duration::from_secs(5)).await.unwrap();
        let lease = lease(site).await.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
        site.service("after", json!({})).await;

        assert!(status.success(), "{status}");
        let (survivor, _) = &controllers[0];
        assert!(lease.is_empty() || lease.contains(survivor), "the Lease was given up: {lease}");
        site.has("after", &[&site.v4(2)]).await;
        assert_eq!(site.status_writes("before"), 1);
    });
}

fn foreign(ground: &Ground<'_>) {
    ground.run(async |site| {
        site.pool("pool", &[site.range(1, 100)]).await;
        site.installation.run_pod("metallb-controller", &[], "quay.io/metallb/controller:v0.16.1").await.unwrap();
        site.service("web", json!({})).await;
        let controller = site.controller().await;
        let said = within_reason(async || {
            let (_, text) = controller.readyz().await?;
            text.contains("metallb-controller").then_some(())
        });
        assert!(said.await.is_some(), "{:?}", controller.readyz().await);
        assert!(site.ips("web").await.is_empty());
        assert_eq!(site.status_writes("web"), 0);

        let pods: Api<Pod> = Api::namespaced(site.client(), &site.namespace);
        pods.delete("metallb-controller", &DeleteParams::default().grace_period(0)).await.unwrap();

        site.has("web", &[&site.v4(1)]).await;
    });
}

fn stands_by(ground: &Ground<'_>) {
    ground.run(async |site| {
        let controllers = both(site).await;
        for (name, controller) in &controllers {
            let ready = within_reason(async || (controller.readyz().await?.0 == 200).then_some(()));
            assert!(ready.await.is_some(), "{name}: {:?}\n{}", controller.readyz().await, controller.last_words());
        }
    });
}

async fn both(site: &Site<'_>) -> Vec<(&'static str, Controller)> {
    let mut controllers = Vec::new();
    for name in ["controller-one", "controller-two"] {
        controllers.push((name, site.installation.start(name, &[]).await.unwrap()));
    }
    controllers
}

/// Which of them holds the Lease.
async fn leader_of(site: &Site<'_>, controllers: &[(&'static str, Controller)]) -> usize {
    let holder = lease(site).await.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
    let leader = controllers.iter().position(|(name, _)| holder.contains(name));
    leader.unwrap_or_else(|| panic!("nobody holds the Lease but \"{holder}\""))
}

async fn lease(site: &Site<'_>) -> Option<Lease> {
    let api: Api<Lease> = Api::namespaced(site.client(), &site.namespace);
    api.get_opt("garpike-controller").await.unwrap()
}
