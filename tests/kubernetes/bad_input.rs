//! Objects that are wrong, rights that are missing, an API server that is slow, broken or away.

use std::time::Duration;

use garpike_chaos::kube::{Answers, Controller, Faults, Proxy, Server, Which};
use hyper::StatusCode;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::Check;
use crate::site::{Ground, Site, all_differ, within_reason};

pub(crate) const CHECKS: &[Check] = &[
    Check("a_bad_pool_is_reported_and_the_others_serve", bad_pool),
    Check("a_bad_community_is_reported_and_the_pools_serve", bad_community),
    Check("pools_that_overlap_are_reported_and_the_first_one_serves", overlap),
    Check("a_status_that_another_allocator_overwrites_is_not_fought_for", overwritten),
    Check("an_api_server_that_takes_half_a_second_is_worked_with", slow),
    Check("an_api_server_that_takes_ten_seconds_is_survived", very_slow),
    Check("an_api_server_that_fails_half_of_all_requests_is_survived", failing),
    Check("an_api_server_that_throttles_is_survived", throttling),
    Check("conflicts_with_another_writer_are_survived", another_writer),
    Check("conflicts_that_no_change_explains_are_survived", conflicts),
    Check("lost_answers_give_no_address_twice", lost_answers),
    Check("watches_that_are_cut_or_expired_miss_nothing", cut_watches),
    Check("an_api_server_that_is_silent_for_a_while_is_survived", silent),
    Check("an_api_server_that_is_away_at_the_start_is_waited_for", away_at_the_start),
    Check("a_definition_that_is_missing_at_the_start_is_reported_and_waited_for", no_definition),
    Check("a_right_that_is_missing_for_one_kind_is_reported_and_the_others_go_on", no_right),
    Check("nothing_is_taken_over_from_a_metallb_that_announces_by_bgp", bgp_in_use),
    Check("objects_that_are_deleted_under_the_controller_leave_nothing_behind", deleted_under_us),
];

fn bad_pool(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("good", &[site.range(1, 9)]).await;
        site.pool("bad", &["192.168.9.300-192.168.9.400".to_owned()]).await;
        site.service("web", json!({})).await;
        site.has("web", &[&site.v4(1)]).await;
        is_reported(site, &["bad", "192.168.9.300"]).await;
        site.remove_pool("bad").await;
        is_well(site).await;
    });
}

fn bgp_in_use(ground: &Ground<'_>) {
    ground.run(async |site| {
        site.pool("pool", &[site.range(1, 9)]).await;
        let peer = json!({"spec": {"myASN": 64512, "peerASN": 64512, "peerAddress": "192.0.2.1"}});
        site.object("metallb.io/v1beta2", "BGPPeer", "upstream", peer).await;
        let metallb = json!({
            "metadata": {"labels": {"app": "metallb", "component": "speaker"}},
            "spec": {"containers": [{"name": "speaker", "image": "quay.io/metallb/speaker:v0.16.1"}]},
        });
        site.object("v1", "Pod", "speaker-of-metallb", metallb).await;
        site.service("web", json!({})).await;

        let refuses = site.controller().await;

        is_reported(site, &["BGPPeer", "upstream", "--ignore-bgp"]).await;
        let told = within_reason(async || {
            let events = site.events("upstream").await;
            events.into_iter().find(|event| event.reason.as_deref() == Some("BgpInUse"))
        });
        assert!(told.await.is_some_and(|event| event.message.is_some_and(|text| text.contains("--ignore-bgp"))));
        assert!(refuses.last_words().contains("BGPPeer"), "{}", refuses.last_words());
        assert_eq!((site.ips("web").await.len(), site.status_writes("web")), (0, 0));
        refuses.kill();

        let _told_to = site.installation.start("controller-1", &["--ignore-bgp"]).await.unwrap();

        site.gets("web", 1).await;
    });
}

fn bad_community(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("pool", &[site.range(1, 9)]).await;
        let community = |value: &str| json!({"spec": {"communities": [{"name": "x", "value": value}]}});
        site.object("metallb.io/v1beta1", "Community", "bad", community("1:99999")).await;
        is_reported(site, &["Community", "bad", "99999"]).await;
        site.service("web", json!({})).await;
        site.has("web", &[&site.v4(1)]).await;

        site.object("metallb.io/v1beta1", "Community", "bad", community("1:2")).await;
        is_well(site).await;
    });
}

fn overlap(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("a-pool", &[site.range(1, 9)]).await;
        site.service("web", json!({})).await;
        site.has("web", &[&site.v4(1)]).await;
        site.pool("b-pool", &[site.range(5, 20)]).await;
        is_reported(site, &["a-pool", "b-pool"]).await;
        site.settle(0).await;
        assert_eq!(site.ips("web").await, [site.v4(1)]);
    });
}

fn overwritten(ground: &Ground<'_>) {
    ground.run(async |site| {
        let _controller = site.controller().await;
        site.pool("pool", &[site.range(1, 9)]).await;
        site.service("web", json!({})).await;
        site.has("web", &[&site.v4(1)]).await;
        // Ten rounds would be a fight; the controller is to stop after three.
        let mut overwrites = 0;
        while overwrites < 10 {
            let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.77"}]}}});
            let other = PatchParams { field_manager: Some("servicelb".to_owned()), ..PatchParams::default() };
            site.services().patch_status("web", &other, &Patch::Merge(status)).await.unwrap();
            overwrites += 1;
            let told = within_reason(async || {
                let events = site.events("web").await;
                let named = events
                    .iter()
                    .any(|event| event.message.as_deref().is_some_and(|message| message.contains("servicelb")));
                (named || site.ips("web").await == [site.v4(1)]).then_some(named)
            });
            match told.await {
                Some(true) => break,
                Some(false) => {}
                None => panic!("neither written again nor told"),
            }
        }
        assert!((1..=4).contains(&overwrites), "{overwrites} rounds");
        site.settle(0).await;
        assert!(site.status_writes("web") <= 4, "{}", site.status_writes("web"));
        // It is the Service that is left alone, not the others.
        site.service("more", json!({})).await;
        site.gets("more", 1).await;
    });
}

fn slow(ground: &Ground<'_>) {
    faulty(ground, async |site, proxy, _| {
        proxy.set(Faults { latency: Duration::from_millis(500), ..Faults::default() });
        serves(site, 10).await;
    });
}

fn very_slow(ground: &Ground<'_>) {
    faulty(ground, async |site, proxy, mut controller| {
        // Longer than the Lease lasts: nobody may write.
        proxy.set(Faults { latency: Duration::from_secs(10), ..Faults::default() });
        site.service("meanwhile", json!({})).await;
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert!(controller.ended().is_none(), "{}", controller.last_words());
        proxy.set(Faults::default());
        site.gets("meanwhile", 1).await;
        serves(site, 5).await;
    });
}

fn failing(ground: &Ground<'_>) {
    faulty(ground, async |site, proxy, _| {
        proxy.set(status(Which::All, 2, StatusCode::INTERNAL_SERVER_ERROR, None));
        serves(site, 10).await;
        assert!(proxy.struck() > 0);
    });
}

fn throttling(ground: &Ground<'_>) {
    faulty(ground, async |site, proxy, _| {
        proxy.set(status(Which::Writes, 2, StatusCode::TOO_MANY_REQUESTS, Some(1)));
        serves(site, 10).await;
        assert!(proxy.struck() > 0);
    });
}

fn another_writer(ground: &Ground<'_>) {
    faulty(ground, async |site, proxy, _| {
        // Long enough for the Services to change between the look at them and the write.
        proxy.set(Faults { latency: Duration::from_millis(200), ..Faults::default() });
        for number in 0..5 {
            site.service(&format!("s{number}"), json!({})).await;
        }
        for round in 0..10 {
            for number in 0..5 {
                site.annotate(&format!("s{number}"), json!({"round": round.to_string()})).await;
            }
        }
        serves(site, 5).await;
        let services = site.services().list(&ListParams::default()).await.unwrap();
        let rounds = services.items.iter().filter_map(|service| service.metadata.annotations.as_ref()?.get("round"));
        assert_eq!(rounds.filter(|round| *round == "9").count(), 5, "no annotation of another writer is undone");
    });
}

/// As webhooks and quotas may answer.
fn conflicts(ground: &Ground<'_>) {
    faulty(ground, async |site, proxy, _| {
        proxy.set(status(Which::Path("/status"), 2, StatusCode::CONFLICT, None));
        serves(site, 10).await;
        assert!(proxy.struck() > 0);
    });
}

fn lost_answers(ground: &Ground<'_>) {
    faulty(ground, async |site, proxy, _| {
        proxy.set(Faults { answers: vec![(Which::Path("/status"), Answers::Lost { one_in: 2 })], ..Faults::default() });
        serves(site, 20).await;
        assert!(proxy.struck() > 0);
    });
}

fn cut_watches(ground: &Ground<'_>) {
    faulty(ground, async |site, proxy, _| {
        serves(site, 2).await;
        proxy.cut_watches();
        site.service("after-cut", json!({})).await;
        site.gets("after-cut", 1).await;
        // What was deleted while nobody watched is free.
        proxy.set(status(Which::Watches, 1, StatusCode::GONE, None));
        proxy.cut_watches();
        let freed = site.ips("after-cut").await;
        site.delete("after-cut").await;
        proxy.set(Faults::default());
        let wants = json!({"metadata": {"annotations": {"metallb.io/loadBalancerIPs": freed[0]}}});
        site.service("after-gone", wants).await;
        site.has("after-gone", &[freed[0].as_str()]).await;
    });
}

fn silent(ground: &Ground<'_>) {
    faulty(ground, async |site, proxy, controller| {
        proxy.set(Faults { answers: vec![(Which::All, Answers::Never)], ..Faults::default() });
        site.service("meanwhile", json!({})).await;
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert!(site.ips("meanwhile").await.is_empty());
        proxy.set(Faults::default());
        site.gets("meanwhile", 1).await;
        // And it ends at once when nobody answers it.
        proxy.set(Faults { answers: vec![(Which::All, Answers::Never)], ..Faults::default() });
        controller.terminate(Duration::from_secs(5)).await.unwrap();
    });
}

fn away_at_the_start(ground: &Ground<'_>) {
    ground.run(async |site| {
        site.pool("pool", &[site.range(1, 100)]).await;
        let proxy = Proxy::start(site.server).await.unwrap();
        proxy.set(status(Which::All, 1, StatusCode::SERVICE_UNAVAILABLE, None));
        let mut controller = started_before(site, &proxy).await;
        let waits = within_reason(async || (proxy.struck() > 3).then_some(()));
        assert!(waits.await.is_some(), "{}", controller.last_words());
        assert!(controller.ended().is_none(), "{}", controller.last_words());
        assert!(controller.readyz().await.is_none_or(|(code, _)| code != 200));
        proxy.set(Faults::default());
        serves(site, 3).await;
    });
}

fn no_definition(ground: &Ground<'_>) {
    ground.run(async |site| {
        site.pool("pool", &[site.range(1, 100)]).await;
        let proxy = Proxy::start(site.server).await.unwrap();
        proxy.set(status(Which::Path("ipaddresspools"), 1, StatusCode::NOT_FOUND, None));
        let controller = started_before(site, &proxy).await;
        says(&controller, "ipaddresspool").await;
        proxy.set(Faults::default());
        serves(site, 3).await;
    });
}

fn no_right(ground: &Ground<'_>) {
    ground.run_without_right("l2advertisements", async |site| {
        site.pool("pool", &[site.range(1, 100)]).await;
        let controller = site.controller().await;
        serves(site, 3).await;
        says(&controller, "l2advertisements").await;
    });
}

fn deleted_under_us(ground: &Ground<'_>) {
    faulty(ground, async |site, proxy, _| {
        proxy.set(Faults { latency: Duration::from_millis(100), ..Faults::default() });
        for number in 0..20 {
            let name = format!("short-{number}");
            site.service(&name, json!({})).await;
            site.delete(&name).await;
        }
        proxy.set(Faults::default());
        // Every address of the pool is free again.
        serves(site, 100).await;
    });
}

/// A check with a controller behind a proxy and a pool of a hundred addresses.
fn faulty(ground: &Ground<'_>, check: impl AsyncFnOnce(&Site<'_>, &Proxy, Controller)) {
    ground.run(async |site| {
        site.pool("pool", &[site.range(1, 100)]).await;
        let proxy = Proxy::start(site.server).await.unwrap();
        let controller = started_before(site, &proxy).await;
        site.service("first", json!({})).await;
        site.has("first", &[&site.v4(1)]).await;
        site.delete("first").await;
        check(site, &proxy, controller).await;
    });
}

async fn started_before(site: &Site<'_>, proxy: &Proxy) -> Controller {
    site.installation.start_before(Server::Proxy(&proxy.url()), "controller-0", &[]).await.unwrap()
}

/// So many Services get an address each, and none is given twice.
async fn serves(site: &Site<'_>, count: usize) {
    let names: Vec<String> = (0..count).map(|number| format!("s{number}")).collect();
    for name in &names {
        site.service(name, json!({})).await;
    }
    let mut ips = Vec::new();
    for name in &names {
        ips.extend(site.gets(name, 1).await);
    }
    assert!(all_differ(&ips), "{ips:?}");
}

/// Waits until `/readyz` names something, in whatever case.
async fn says(controller: &Controller, wanted: &str) {
    let said = within_reason(async || {
        let ready = controller.readyz().await.map(|(_, text)| text).unwrap_or_default();
        ready.to_lowercase().contains(wanted).then_some(())
    });
    assert!(said.await.is_some(), "{:?}\n{}", controller.readyz().await, controller.last_words());
}

/// Waits until the controller's ConfigurationState names all of these.
async fn is_reported(site: &Site<'_>, words: &[&str]) {
    let mut seen = json!(null);
    let reported = within_reason(async || {
        seen = site.read("ConfigurationState", "controller").await?["status"].clone();
        let summary = seen["errorSummary"].as_str().unwrap_or_default();
        (seen["result"] == "Invalid" && words.iter().all(|word| summary.contains(word))).then_some(())
    });
    assert!(reported.await.is_some(), "{seen}");
}

/// Waits until it says that all is well.
async fn is_well(site: &Site<'_>) {
    let mut seen = json!(null);
    let well = within_reason(async || {
        seen = site.read("ConfigurationState", "controller").await?["status"].clone();
        (seen["result"] == "Valid").then_some(())
    });
    assert!(well.await.is_some(), "{seen}");
}

fn status(which: Which, one_in: u64, code: StatusCode, retry_after: Option<u32>) -> Faults {
    Faults { answers: vec![(which, Answers::Status { one_in, code, retry_after })], ..Faults::default() }
}
