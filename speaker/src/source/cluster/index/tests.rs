use garpike_controller_api::{Scope, validate};
use garpike_election::Endpoints;
use serde_json::json;

use super::*;

#[test]
fn nothing_is_told_before_every_kind_is_known() {
    let mut index = Index::default();
    index.handle(Input::Service(Update::All(vec![])));
    index.handle(Input::Slice(Update::All(vec![])));
    index.handle(Input::Node(Update::All(vec![])));
    index.handle(Input::Pool(Update::All(vec![])));
    assert!(!index.is_synced());
    let forbidden = Trouble::Forbidden("cannot list resource".to_owned());
    index.handle(Input::Advertisement(Update::Trouble(forbidden.clone())));
    assert!(!index.is_synced());
    let watch = index.watches().remove(&Kind::Advertisements).unwrap();
    assert_eq!(watch, Watch { synced: false, trouble: Some(forbidden) });

    index.handle(Input::Advertisement(Update::All(vec![])));

    assert!(index.is_synced() && index.is_live());
}

#[test]
fn an_api_server_that_is_away_changes_nothing() {
    let mut index = known();
    let away = Trouble::Failed("connection refused".to_owned());
    assert_eq!(index.handle(Input::Service(Update::Trouble(away))), News::No);
    assert_eq!(config(&mut index).services.len(), 1);
    assert!(!index.is_live());

    assert_eq!(index.handle(Input::Service(Update::All(vec![service("web")]))), News::No, "the same as before");
    assert!(index.is_live());
    assert_eq!(index.handle(Input::Service(Update::All(vec![]))), News::Yes, "it was removed meanwhile");
}

#[test]
fn pods_that_come_and_go_beside_others_are_no_news() {
    let mut index = known();
    assert_eq!(index.handle(Input::Slice(Update::Applied(slice("web-1", "web", &["n1", "n2"])))), News::Yes);

    for round in 0..100 {
        let nodes: &[&str] = if round % 2 == 0 { &["n1", "n1", "n2"] } else { &["n2", "n1"] };
        assert_eq!(index.handle(Input::Slice(Update::Applied(slice("web-1", "web", nodes)))), News::No);
    }
    assert_eq!(index.handle(Input::Slice(Update::Applied(slice("web-2", "web", &["n2"])))), News::No);
    assert_eq!(index.handle(Input::Slice(Update::Applied(slice("web-1", "web", &["n1"])))), News::No, "n2 is in web-2");
    assert_eq!(index.handle(Input::Slice(Update::Gone(slice("web-2", "web", &[])))), News::Yes, "n2 is gone");
    let Endpoints::Local(local) = endpoints(&mut index, "web") else { panic!("its traffic policy is Local") };
    assert_eq!(local.ready.len(), 1);
}

#[test]
fn endpoints_of_services_of_other_types_are_no_news_but_known_when_they_become_ours() {
    let mut index = known();
    assert_eq!(index.handle(Input::Slice(Update::Applied(slice("db-1", "db", &["n1"])))), News::No);

    assert_eq!(index.handle(Input::Service(Update::Applied(service("db")))), News::Yes);

    assert!(matches!(endpoints(&mut index, "db"), Endpoints::Local(_)));
}

#[test]
fn a_slice_that_changes_its_service_leaves_the_other_one() {
    let mut index = known();
    index.handle(Input::Service(Update::Applied(service("api"))));
    index.handle(Input::Slice(Update::Applied(slice("x", "web", &["n1"]))));

    assert_eq!(index.handle(Input::Slice(Update::Applied(slice("x", "api", &["n1"])))), News::Yes);

    assert_eq!(endpoints(&mut index, "web"), Endpoints::Nowhere);
    assert!(matches!(endpoints(&mut index, "api"), Endpoints::Local(_)));
}

#[test]
fn a_pool_that_cannot_be_read_is_named_and_gone_until_it_can() {
    let mut index = known();
    let pool = |addresses: serde_json::Value| {
        let json = json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
            "metadata": {"name": "a", "namespace": "metallb-system"}, "spec": {"addresses": addresses}});
        Input::Pool(Update::Applied(serde_json::from_value(json).unwrap()))
    };
    assert_eq!(index.handle(pool(json!(["10.0.0.0/24"]))), News::Yes);
    assert_eq!(index.handle(pool(json!(7))), News::Yes);
    assert_eq!(config(&mut index).pools.iter().count(), 0);
    let told: Vec<String> = problems(&mut index).iter().map(ToString::to_string).collect();
    assert!(told[0].contains("ipaddresspools.metallb.io metallb-system/a: cannot be read"), "{told:?}");

    assert_eq!(index.handle(pool(json!(["10.0.0.0/24"]))), News::Yes);

    assert_eq!((config(&mut index).pools.iter().count(), problems(&mut index).len()), (1, 0));
}

#[test]
fn a_service_is_kept_as_long_as_it_has_addresses_that_are_ours() {
    let mut index = known();
    let without = |field: &str, value: serde_json::Value| {
        let mut object = object("web");
        *object.pointer_mut(field).unwrap() = value;
        Input::Service(Update::Applied(seen(object)))
    };
    let has = || Input::Service(Update::Applied(service("web")));
    for (field, value) in [
        ("/status", json!({})),
        ("/status/loadBalancer/ingress/0/ip", json!("127.0.0.1")),
        ("/spec/type", json!("ClusterIP")),
        ("/spec/loadBalancerClass", json!("another")),
    ] {
        assert_eq!(index.handle(without(field, value)), News::Yes, "{field}");
        assert_eq!((config(&mut index).services.len(), index.uids().len()), (0, 0), "{field}");
        assert_eq!(index.handle(has()), News::Yes, "{field}");
        assert_eq!(config(&mut index).services.len(), 1, "{field}");
    }
    assert_eq!(index.handle(without("/metadata/resourceVersion", json!("8"))), News::No);
    assert_eq!(index.handle(without("/metadata/uid", json!("another"))), News::Yes, "it was made anew");
}

#[test]
fn what_is_wrong_with_a_service_is_told_until_it_is_right() {
    let mut index = known();
    let mut wrong = object("web");
    wrong["status"]["loadBalancer"]["ingress"][0]["ip"] = json!("127.0.0.1");

    index.handle(Input::Service(Update::Applied(seen(wrong))));

    let told = problems(&mut index);
    assert!(matches!(&told[..], [problem] if problem.to_string().contains("Service default/web")), "{told:?}");
    index.handle(Input::Service(Update::Applied(service("web"))));
    assert_eq!(problems(&mut index), []);
}

#[test]
fn what_a_service_asks_for_counts_for_nothing() {
    let mut index = known();
    let mut asks = object("web");
    asks["metadata"]["annotations"] =
        json!({"metallb.io/address-pool": "gone", "metallb.io/loadBalancerIPs": "no address"});

    assert_eq!(index.handle(Input::Service(Update::Applied(seen(asks)))), News::No);

    assert_eq!(problems(&mut index), []);
}

/// An index that knows all kinds, and the Service web.
fn known() -> Index {
    let mut index = Index::default();
    index.handle(Input::Service(Update::All(vec![service("web")])));
    index.handle(Input::Slice(Update::All(vec![])));
    index.handle(Input::Node(Update::All(vec![])));
    index.handle(Input::Pool(Update::All(vec![])));
    index.handle(Input::Advertisement(Update::All(vec![])));
    index
}

fn service(name: &str) -> SeenService {
    seen(object(name))
}

fn object(name: &str) -> serde_json::Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "uid": "u", "resourceVersion": "7"},
        "spec": {"type": "LoadBalancer", "loadBalancerClass": null, "externalTrafficPolicy": "Local"},
        "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}},
    })
}

fn seen(object: serde_json::Value) -> SeenService {
    SeenService::new(serde_json::from_value(object).unwrap(), &Scope::default())
}

fn slice(name: &str, service: &str, nodes: &[&str]) -> SeenSlice {
    let endpoints: Vec<_> = nodes.iter().map(|node| json!({"addresses": ["10.0.0.1"], "nodeName": node})).collect();
    let labels = json!({"kubernetes.io/service-name": service});
    let json = json!({"metadata": {"name": name, "namespace": "default", "labels": labels}, "addressType": "IPv4",
        "endpoints": endpoints});
    SeenSlice::new(&serde_json::from_value(json).unwrap())
}

fn config(index: &mut Index) -> &Config {
    index.config(|objects| validate(objects, &Scope::default())).0
}

fn problems(index: &mut Index) -> Vec<Problem> {
    index.config(|objects| validate(objects, &Scope::default())).1
}

fn endpoints(index: &mut Index, service: &str) -> Endpoints {
    let key = ServiceKey::new("default", service);
    config(index).services[&key].endpoints.clone()
}
