use garpike_controller_api::IPAddressPoolSpec;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::*;

#[test]
fn gives_nothing_before_pools_namespaces_and_services_are_known() {
    let mut registry = registry();
    registry.handle_services(Update::All(vec![seen("a", 1)]), now());
    registry.judge_pools();
    assert!(registry.poll_write().is_none());

    assert_eq!(registry.handle_pools(Update::All(vec![pool("first", "10.0.0.1/32").into()])), Change::Pools);
    registry.judge_pools();
    assert!(!registry.is_configured());

    assert_eq!(registry.handle_namespaces(Update::All(Vec::new())), Change::Pools);
    registry.judge_pools();

    assert!(registry.is_serving());
    assert_eq!(addresses(registry.poll_write()), ["10.0.0.1"]);
    assert!(registry.poll_write().is_none());
}

#[test]
fn a_kind_that_may_not_be_read_stops_nothing_and_is_named() {
    let mut registry = registry();
    registry.handle_services(Update::All(vec![seen("a", 1)]), now());
    registry.handle_pools(Update::All(vec![pool("first", "10.0.0.1/32").into()]));

    let change = registry.handle_namespaces(Update::Trouble(Trouble::Forbidden("namespaces".to_owned())));
    assert_eq!(change, Change::Pools);
    registry.judge_pools();

    assert_eq!(addresses(registry.poll_write()), ["10.0.0.1"]);
    assert_eq!(registry.troubles().into_keys().collect::<Vec<_>>(), [Kind::Namespaces]);
    registry.handle_namespaces(Update::All(Vec::new()));
    assert!(registry.troubles().is_empty());
}

#[test]
fn a_missing_definition_of_pools_takes_nothing_from_anybody() {
    let mut registry = registry();
    registry.handle_services(Update::All(vec![assigned("a", 1, "10.0.0.1")]), now());
    registry.handle_namespaces(Update::All(Vec::new()));

    registry.handle_pools(Update::Trouble(Trouble::Unknown("ipaddresspools".to_owned())));
    registry.judge_pools();

    assert!(!registry.is_serving() && registry.poll_write().is_none());
}

#[test]
fn a_restart_writes_nothing_that_is_there() {
    let mut registry = serving([assigned("a", 1, "10.0.0.1"), assigned("b", 2, "10.0.0.2")]);

    assert!(registry.poll_write().is_none());
    assert_eq!(registry.counts().values().next().map(|counts| counts.assigned_ipv4), Some(2));
}

#[test]
fn a_list_tells_who_is_gone_and_his_address_is_free() {
    let mut registry = serving([assigned("a", 1, "10.0.0.0"), seen("b", 2)]);
    assert_eq!(addresses(registry.poll_write()), ["10.0.0.1"]);

    registry.handle_services(Update::All(vec![seen("b", 2), seen("c", 3)]), now());

    assert_eq!(addresses(registry.poll_write()), ["10.0.0.0"]);
}

#[test]
fn what_was_written_is_published_and_not_written_again() {
    let mut registry = serving([seen("a", 1)]);
    let (write, body) = registry.poll_write().unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["metadata"]["annotations"]["metallb.io/ip-allocated-from-pool"], "first");

    let since = registry.handle_written(&write, Written::Done(Box::new(assigned("a", 2, "10.0.0.0"))), now());

    assert!(since.is_some());
    registry.handle_services(Update::Applied(assigned("a", 2, "10.0.0.0")), now());
    assert!(registry.poll_write().is_none());
    let reasons: Vec<String> = registry.take_notices(10).into_iter().map(|notice| notice.reason).collect();
    assert_eq!(reasons, ["IPAllocated"]);
}

#[test]
fn the_status_of_a_pool_is_written_once_and_does_not_count_as_a_change() {
    let mut registry = serving([assigned("a", 1, "10.0.0.1")]);
    let writes = registry.pool_writes();
    let [(name, written)] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!(written.status.map(|status| status.assigned_ipv4), Some(1));

    registry.handle_pool_written(name, written.status);
    assert!(registry.pool_writes().is_empty());
    assert_eq!(registry.handle_pools(Update::Applied(written.clone().into())), Change::Other);
    assert!(registry.pool_writes().is_empty());
}

#[test]
fn deprecated_annotations_are_told_when_the_service_is_written() {
    let mut registry = serving([with(1, json!({"annotations": {"metallb.universe.tf/address-pool": "first"}}))]);
    assert_eq!(reasons(&mut registry, "deprecatedAnnotation"), [] as [&str; 0]);

    registry.poll_write().unwrap();

    let told = reasons(&mut registry, "deprecatedAnnotation");
    assert!(matches!(told.as_slice(), [text] if text.contains("write metallb.io/address-pool")), "{told:?}");
}

#[test]
fn a_broken_service_is_told_once_with_its_field_and_keeps_its_address() {
    let broken = |version| {
        let mut service = assigned("a", version, "10.0.0.1").service();
        let spec = service.spec.as_mut().unwrap();
        spec.ip_family_policy = Some("RequireDualStack".to_owned());
        Seen::new(service, None)
    };
    let mut registry = serving([broken(1)]);
    registry.handle_services(Update::Applied(broken(2)), now());

    let told = reasons(&mut registry, "not enough clusterips");

    assert!(matches!(told.as_slice(), [text] if text.contains("spec.clusterIPs")), "{told:?}");
    assert!(registry.poll_write().is_none());
}

#[test]
fn one_bad_pool_is_reported_and_the_others_serve() {
    let mut registry = serving([seen("a", 1)]);

    registry.handle_pools(Update::Applied(pool("second", "10.0.0.300-10.0.0.4").into()));
    registry.judge_pools();

    assert!(matches!(registry.problems(), [problem] if problem.to_string().contains("10.0.0.300")));
    assert_eq!(addresses(registry.poll_write()), ["10.0.0.0"]);
}

#[test]
fn a_pool_that_cannot_be_read_is_reported_until_it_can_and_takes_no_address() {
    let mut registry = serving([assigned("a", 1, "10.0.0.1"), seen("b", 2)]);
    assert_eq!(addresses(registry.poll_write()), ["10.0.0.0"]);
    let mut unreadable = Lenient::from(pool("first", "10.0.0.0/28"));
    unreadable.object = Err("invalid type: string \"10.0.0.0/28\", expected a sequence".to_owned());

    assert_eq!(registry.handle_pools(Update::Applied(unreadable)), Change::Pools);
    registry.judge_pools();

    let [problem] = registry.problems() else { panic!("{:?}", registry.problems()) };
    let text = problem.to_string();
    assert!(text.contains("IPAddressPool metallb-system/first") && text.contains("expected a sequence"), "{text}");
    assert!(registry.poll_write().is_none());

    assert_eq!(registry.handle_pools(Update::Applied(pool("first", "10.0.0.0/28").into())), Change::Pools);
    registry.judge_pools();
    assert!(registry.problems().is_empty());
}

/// A registry that knows of a pool 10.0.0.0/28 and these Services.
fn serving(services: impl IntoIterator<Item = Seen>) -> Registry {
    let mut registry = registry();
    registry.handle_pools(Update::All(vec![pool("first", "10.0.0.0/28").into()]));
    registry.handle_namespaces(Update::All(Vec::new()));
    registry.handle_services(Update::All(services.into_iter().collect()), now());
    registry.judge_pools();
    registry
}

fn registry() -> Registry {
    Registry::new(Scope::default())
}

fn addresses(write: Option<(Write, Vec<u8>)>) -> Vec<String> {
    write.unwrap().0.addresses.iter().map(ToString::to_string).collect()
}

fn reasons(registry: &mut Registry, reason: &str) -> Vec<String> {
    let notices = registry.take_notices(10).into_iter().filter(|notice| notice.reason == reason);
    notices.map(|notice| notice.message).collect()
}

fn pool(name: &str, range: &str) -> IPAddressPool {
    let spec = IPAddressPoolSpec { addresses: vec![range.to_owned()], ..IPAddressPoolSpec::default() };
    let mut pool = IPAddressPool::new(name, spec);
    pool.metadata.namespace = Some("metallb-system".to_owned());
    pool
}

fn seen(name: &str, version: u64) -> Seen {
    object(name, version, &json!({}), &json!({}))
}

fn with(version: u64, metadata: Value) -> Seen {
    object("a", version, &metadata, &json!({}))
}

fn assigned(name: &str, version: u64, address: &str) -> Seen {
    let metadata = json!({"annotations": {"metallb.io/ip-allocated-from-pool": "first"}});
    object(name, version, &metadata, &json!({"loadBalancer": {"ingress": [{"ip": address}]}}))
}

fn object(name: &str, version: u64, metadata: &Value, status: &Value) -> Seen {
    let mut service: Service = serde_json::from_value(json!({
        "metadata": metadata, "status": status,
        "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.7"], "ports": [{"port": 80}]},
    }))
    .unwrap();
    service.metadata.name = Some(name.to_owned());
    service.metadata.namespace = Some("default".to_owned());
    service.metadata.resource_version = Some(version.to_string());
    Seen::new(service, None)
}

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
fn now() -> Instant {
    Instant::now()
}
