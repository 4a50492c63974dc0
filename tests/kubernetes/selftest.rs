//! Whether the harness does what the other checks rely on: rights, the audit log, the faults of the proxy.

use std::time::Duration;

use futures_util::StreamExt as _;
use garpike_chaos::kube::{Answers, Faults, Proxy, Server, Which};
use hyper::StatusCode;
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::{DeleteParams, ListParams, PostParams, WatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::site::{Ground, Site};
use crate::{Check, now};

pub(crate) const CHECKS: &[Check] = &[
    Check("a_right_that_is_missing_is_in_the_audit_log", missing_right),
    Check("the_proxy_answers_half_of_the_requests_with_a_fault", a_half),
    Check("the_proxy_loses_answers_but_not_requests", lost),
    Check("the_proxy_is_slow_and_silent", slow_and_silent),
    Check("the_proxy_cuts_watches", cuts),
];

fn missing_right(ground: &Ground<'_>) {
    ground.runtime.block_on(async {
        let site = ground.site(ground.server).await;
        let client = as_controller(&site, None).await;
        let services: Api<Service> = Api::namespaced(client.clone(), &site.namespace);
        let pools = site.of_metallb_by(client, "IPAddressPool");

        pools.list(&ListParams::default()).await.unwrap();
        let refused = services.delete("none", &DeleteParams::default()).await;

        assert!(is_status(&refused, 403), "{refused:?}");
        let requests = site.requests();
        let forbidden: Vec<_> = requests.iter().filter(|request| request.is_forbidden()).collect();
        assert_eq!(forbidden.len(), 1, "{requests:?}");
        assert_eq!((&*forbidden[0].verb, &*forbidden[0].resource), ("delete", "services"));
        assert!(requests.iter().any(|request| request.resource == "ipaddresspools" && request.code == 200));
    });
}

fn a_half(ground: &Ground<'_>) {
    proxied(ground, async |site, proxy, services| {
        let answers = Answers::Status { one_in: 2, code: StatusCode::CONFLICT, retry_after: None };
        proxy.set(Faults { answers: vec![(Which::All, answers)], ..Faults::default() });
        site.service("one", json!({})).await;
        let mut refused = 0;
        for _ in 0..40 {
            let answer = services.get("one").await;
            assert!(answer.is_ok() || is_status(&answer, 409), "{answer:?}");
            refused += u64::from(answer.is_err());
        }
        assert!((10..=30).contains(&refused), "{refused} of 40");
        assert_eq!(proxy.struck(), refused);
        proxy.set(Faults::default());
        services.get("one").await.unwrap();
    });
}

fn lost(ground: &Ground<'_>) {
    proxied(ground, async |site, proxy, _| {
        proxy.set(Faults { answers: vec![(Which::Writes, Answers::Lost { one_in: 1 })], ..Faults::default() });
        let client = as_controller(site, Some(proxy)).await;
        let secrets: Api<Secret> = Api::namespaced(client, &site.namespace);
        let secret = serde_json::from_value(json!({"metadata": {"name": "memberlist"}})).unwrap();

        let made = secrets.create(&PostParams::default(), &secret).await;

        assert!(made.is_err());
        secrets.get("memberlist").await.unwrap();
    });
}

fn slow_and_silent(ground: &Ground<'_>) {
    proxied(ground, async |site, proxy, services| {
        site.service("one", json!({})).await;
        proxy.set(Faults { latency: Duration::from_millis(300), ..Faults::default() });
        let begun = now();
        services.get("one").await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(300));

        proxy.set(Faults { answers: vec![(Which::All, Answers::Never)], ..Faults::default() });
        let asked = tokio::time::timeout(Duration::from_millis(500), services.get("one")).await;
        assert!(asked.is_err(), "{asked:?}");
        proxy.set(Faults::default());
        services.get("one").await.unwrap();
    });
}

fn cuts(ground: &Ground<'_>) {
    proxied(ground, async |site, proxy, services| {
        let watch = services.watch(&WatchParams::default().timeout(60), "0").await.unwrap();
        let mut watch = std::pin::pin!(watch);
        site.service("one", json!({})).await;
        watch.next().await.unwrap().unwrap();
        proxy.cut_watches();
        let rest = async { while let Some(Ok(_)) = watch.next().await {} };
        // By itself it would end after a minute.
        tokio::time::timeout(Duration::from_secs(20), rest).await.unwrap();
    });
}

fn proxied(ground: &Ground<'_>, check: impl AsyncFnOnce(&Site<'_>, &Proxy, Api<Service>)) {
    ground.runtime.block_on(async {
        let site = ground.site(ground.server).await;
        let proxy = Proxy::start(ground.server).await.unwrap();
        let client = as_controller(&site, Some(&proxy)).await;
        check(&site, &proxy, Api::namespaced(client, &site.namespace)).await;
    });
}

/// A client with the controller's rights and no second attempts.
async fn as_controller(site: &Site<'_>, proxy: Option<&Proxy>) -> Client {
    let url = proxy.map(Proxy::url).unwrap_or_default();
    let server = if proxy.is_some() { Server::Proxy(&url) } else { Server::Itself };
    let kubeconfig = site.server.kubeconfig_of(&site.namespace, "controller", server).await.unwrap();
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

fn is_status<T>(result: &kube::Result<T>, code: u16) -> bool {
    matches!(result, Err(kube::Error::Api(status)) if status.code == code)
}
