use serde_json::json;

use super::*;

#[test]
fn nothing_is_told_before_every_kind_is_known() {
    let mut index = Index::default();
    index.handle(Input::Service(Update::All(vec![])));
    index.handle(Input::Slice(Update::All(vec![])));
    index.handle(Input::Node(Update::All(vec![])));
    index.handle(Input::Pool(Update::All(vec![])));
    assert!(index.objects().is_none());
    let forbidden = Trouble::Forbidden("cannot list resource".to_owned());
    index.handle(Input::Advertisement(Update::Trouble(forbidden.clone())));
    assert!(index.objects().is_none());
    let watch = index.watches().remove(&Kind::Advertisements).unwrap();
    assert_eq!(watch, Watch { synced: false, trouble: Some(forbidden) });

    index.handle(Input::Advertisement(Update::All(vec![])));

    assert!(index.objects().is_some() && index.is_live());
}

#[test]
fn an_api_server_that_is_away_changes_nothing() {
    let mut index = known();
    let away = Trouble::Failed("connection refused".to_owned());
    assert_eq!(index.handle(Input::Service(Update::Trouble(away))), News::No);
    assert_eq!(index.objects().unwrap().services.len(), 1);
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
    assert_eq!(index.objects().unwrap().endpoints.as_ref().unwrap()[&key("default", "web")].ready.len(), 1);
}

#[test]
fn endpoints_of_services_of_other_types_are_no_news_but_known_when_they_become_ours() {
    let mut index = known();
    assert_eq!(index.handle(Input::Slice(Update::Applied(slice("db-1", "db", &["n1"])))), News::No);

    assert_eq!(index.handle(Input::Service(Update::Applied(service("db")))), News::Yes);

    assert!(index.objects().unwrap().endpoints.as_ref().unwrap().contains_key(&key("default", "db")));
}

#[test]
fn a_slice_that_changes_its_service_leaves_the_other_one() {
    let mut index = known();
    index.handle(Input::Service(Update::Applied(service("api"))));
    index.handle(Input::Slice(Update::Applied(slice("x", "web", &["n1"]))));

    assert_eq!(index.handle(Input::Slice(Update::Applied(slice("x", "api", &["n1"])))), News::Yes);

    let endpoints = index.objects().unwrap().endpoints.clone().unwrap();
    assert_eq!(endpoints.keys().collect::<Vec<_>>(), [&key("default", "api")]);
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
    assert_eq!(index.objects().unwrap().pools.len(), 0);
    let problems: Vec<String> = index.problems().map(|problem| problem.to_string()).collect();
    assert!(problems[0].contains("ipaddresspools.metallb.io metallb-system/a: cannot be read"), "{problems:?}");

    assert_eq!(index.handle(pool(json!(["10.0.0.0/24"]))), News::Yes);

    assert_eq!((index.objects().unwrap().pools.len(), index.problems().count()), (1, 0));
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

fn service(name: &str) -> Service {
    serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default"}})).unwrap()
}

fn slice(name: &str, service: &str, nodes: &[&str]) -> EndpointSlice {
    let endpoints: Vec<_> = nodes.iter().map(|node| json!({"addresses": ["10.0.0.1"], "nodeName": node})).collect();
    let labels = json!({"kubernetes.io/service-name": service});
    let json = json!({"metadata": {"name": name, "namespace": "default", "labels": labels}, "addressType": "IPv4",
        "endpoints": endpoints});
    serde_json::from_value(json).unwrap()
}

fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey { namespace: namespace.to_owned(), name: name.to_owned() }
}
