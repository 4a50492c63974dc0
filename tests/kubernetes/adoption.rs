//! What a controller finds when it starts.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::Check;
use crate::site::{Ground, Site, all_differ};

pub(crate) const CHECKS: &[Check] = &[
    Check("a_controller_that_restarts_adopts_what_is_assigned_and_writes_nothing", restarts),
    Check("a_controller_adopts_what_metallb_has_assigned", adopts_metallb),
    Check("who_has_an_address_keeps_it_before_anybody_who_waits_gets_one", assigned_first),
    Check("two_services_with_one_address_are_parted_and_the_older_one_keeps_it", doubly_assigned),
    Check("an_address_of_a_pool_that_is_gone_is_replaced", stale),
    Check("a_wrong_family_in_the_status_is_replaced", wrong_family),
    Check("an_address_that_somebody_else_wrote_is_left_alone", somebody_elses),
    Check("a_controller_ends_at_once_whenever_it_is_told_to", prompt_exit),
];

fn restarts(ground: &Ground<'_>) {
    ground.run(async |site| {
        let mut controller = site.controller().await;
        site.pool("pool", &[site.range(1, 10), site.range6(1, 10)]).await;
        let names: Vec<String> = (0..10).map(|number| format!("s{number}")).collect();
        for name in &names {
            site.service(name, json!({})).await;
        }
        let mut before = Vec::new();
        for name in &names {
            before.extend(site.gets(name, 1).await);
        }
        assert!(all_differ(&before), "{before:?}");
        for waiting in ["z-waits", "a-waits"] {
            site.service(waiting, json!({})).await;
            site.is_told(waiting, "AllocationFailed").await;
            // After a restart their age tells who waits longer, and an object's age is told in seconds.
            tokio::time::sleep(Duration::from_millis(1100)).await;
        }
        site.settle(0).await;
        for round in 1..5 {
            let writes: usize = names.iter().map(|name| site.status_writes(name)).sum();
            assert_eq!(writes, names.len(), "before restart {round}");
            if round % 2 == 0 {
                controller.kill();
            } else {
                controller.terminate(PROMPT).await.unwrap();
            }
            controller = site.controller().await;
            site.settle(round).await;
            let mut after = Vec::new();
            for name in &names {
                after.extend(site.ips(name).await);
            }
            assert_eq!(after, before, "after restart {round}");
        }
        let writes: usize = names.iter().map(|name| site.status_writes(name)).sum();
        assert_eq!(writes, names.len());
        site.delete("s3").await;
        site.has("z-waits", &[before[3].as_str()]).await;
    });
}

fn adopts_metallb(ground: &Ground<'_>) {
    ground.run(async |site| {
        site.pool("pool", &[site.range(1, 10)]).await;
        // As MetalLB leaves it, on an API server that fills `ipMode` in.
        site.service("new", annotated("metallb.io/ip-allocated-from-pool", "pool")).await;
        assign(site, "new", &site.v4(4)).await;
        site.service("web", json!({})).await;

        let _controller = site.controller().await;

        site.has("web", &[&site.v4(1)]).await;
        site.settle(0).await;
        assert_eq!(site.ips("new").await, [site.v4(4)]);
        assert_eq!(site.status_writes("new"), 0);
    });
}

fn assigned_first(ground: &Ground<'_>) {
    ground.run(async |site| {
        site.pool("single", &[site.range(1, 1)]).await;
        site.service("a-waits", json!({})).await;
        site.service("z-has", annotated("metallb.io/ip-allocated-from-pool", "single")).await;
        assign(site, "z-has", &site.v4(1)).await;

        let _controller = site.controller().await;

        site.is_told("a-waits", "AllocationFailed").await;
        site.settle(0).await;
        assert_eq!(site.ips("z-has").await, [site.v4(1)]);
        assert!(site.ips("a-waits").await.is_empty());
    });
}

fn doubly_assigned(ground: &Ground<'_>) {
    ground.run(async |site| {
        site.pool("pool", &[site.range(1, 9)]).await;
        site.service("z-older", json!({})).await;
        // The age of an object is told in seconds.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        site.service("a-younger", json!({})).await;
        for name in ["z-older", "a-younger"] {
            assign(site, name, &site.v4(5)).await;
        }

        let _controller = site.controller().await;

        site.has("a-younger", &[&site.v4(1)]).await;
        site.has("z-older", &[&site.v4(5)]).await;
    });
}

fn stale(ground: &Ground<'_>) {
    ground.run(async |site| {
        site.pool("pool", &[site.range(1, 9)]).await;
        site.service("web", annotated("metallb.io/ip-allocated-from-pool", "gone")).await;
        assign(site, "web", &site.v4(99)).await;

        let _controller = site.controller().await;

        site.has("web", &[&site.v4(1)]).await;
        site.is_told("web", "ClearAssignment").await;
    });
}

fn wrong_family(ground: &Ground<'_>) {
    ground.run(async |site| {
        site.pool("pool", &[site.range(1, 9), site.range6(1, 9)]).await;
        site.service("web", annotated("metallb.io/ip-allocated-from-pool", "pool")).await;
        assign(site, "web", &site.v6(4)).await;

        let _controller = site.controller().await;

        site.has("web", &[&site.v4(1)]).await;
    });
}

fn somebody_elses(ground: &Ground<'_>) {
    ground.run(async |site| {
        site.pool("pool", &[site.range(1, 9)]).await;
        site.service("web", json!({})).await;
        assign(site, "web", "192.0.2.9").await;

        let _controller = site.controller().await;

        site.settle(0).await;
        assert_eq!(site.ips("web").await, ["192.0.2.9"]);
        assert_eq!(site.status_writes("web"), 0);
    });
}

fn prompt_exit(ground: &Ground<'_>) {
    ground.run(async |site| {
        site.pool("pool", &[site.range(1, 100)]).await;
        for number in 0..30 {
            site.service(&format!("s{number}"), json!({})).await;
        }
        // What it does then differs: it starts, waits for the Lease, lists, writes.
        for after_ms in [0, 20, 50, 100, 200, 400, 800, 3000] {
            let controller = site.installation.start(&format!("after-{after_ms}"), &[]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            let (_, took) = controller.terminate(PROMPT).await.unwrap();
            assert!(took < PROMPT, "told after {after_ms} ms, ended {took:?} later");
        }
        let _controller = site.controller().await;
        site.settle(0).await;
        let mut ips = Vec::new();
        for number in 0..30 {
            ips.extend(site.gets(&format!("s{number}"), 1).await);
        }
        assert!(all_differ(&ips), "{ips:?}");
    });
}

/// Writes an address into the status of a Service, as another controller would.
async fn assign(site: &Site<'_>, name: &str, ip: &str) {
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": ip}]}}});
    site.services().patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

fn annotated(key: &str, value: &str) -> Value {
    json!({"metadata": {"annotations": {key: value}}})
}

/// Generous: it should be a second.
const PROMPT: Duration = Duration::from_secs(5);
