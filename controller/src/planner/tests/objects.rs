//! One Service object in, one status out: the cases of MetalLB's table of controller mutations.
//!
//! Where the outcome differs, MetalLB takes an address away that works, or one that it did not write.

use garpike_controller_api::{Scope, Sourced};
use k8s_openapi::api::core::v1::Service as ServiceObject;

use super::*;
use crate::fixtures::kept;

#[test]
fn every_object_gets_the_status_that_it_should() {
    const DUAL: &str = "clusterIPs: [9.9.9.9, 'd::1'], ipFamilyPolicy: RequireDualStack";
    const PREFER: &str = "clusterIPs: [9.9.9.9, 'd::1'], ipFamilyPolicy: PreferDualStack";
    let ask = |ips: &str| format!("metallb.io/loadBalancerIPs: '{ips}'");
    let from = |pool: &str| format!("metallb.io/address-pool: {pool}");
    let v4 = "clusterIPs: [9.9.9.9]";
    for (case, metadata, spec, has, expected) in [
        ("simple", "", v4, "", "1.2.3.0"),
        ("certain address by field", "", "clusterIPs: [9.9.9.9], loadBalancerIP: 1.2.3.1", "", "1.2.3.1"),
        ("by annotation", &ask("1.2.3.1"), v4, "", "1.2.3.1"),
        ("by the old annotation", "metallb.universe.tf/loadBalancerIPs: 1.2.3.1", v4, "", "1.2.3.1"),
        ("by both", &ask("1.2.3.1"), "clusterIPs: [9.9.9.9], loadBalancerIP: 1.2.3.1", "", "!"),
        ("no address", "", "clusterIPs: [9.9.9.9], loadBalancerIP: please", "", "!"),
        ("no address by annotation", &ask("please"), v4, "", "!"),
        ("not in its pool", &format!("{}, {}", ask("1.2.3.1"), from("asked")), v4, "", "!"),
        ("two of one family", &ask("1.2.3.0,1.2.3.1"), v4, "", "!"),
        ("in no pool, and it has one", "", "clusterIPs: [9.9.9.9], loadBalancerIP: 1.2.3.9", "1.2.3.1", "1.2.3.1!"),
        ("of a pool", &from("a4"), v4, "", "1.2.3.0"),
        ("of another pool", &from("asked"), v4, "1.2.3.0", "3.4.5.6"),
        ("of an unknown pool", &from("nil"), v4, "", "!"),
        ("of an unknown pool, and it has one", &from("nil"), v4, "1.2.3.0", "1.2.3.0!"),
        ("its address lies in no pool", "", v4, "2.3.4.5", "1.2.3.0"),
        ("of a pool that gives nothing unasked", "", "clusterIPs: [9.9.9.9], loadBalancerIP: 3.4.5.6", "", "3.4.5.6"),
        (
            "with the policy Local",
            "",
            "clusterIPs: [9.9.9.9], loadBalancerIP: 3.4.5.6, externalTrafficPolicy: Local",
            "",
            "3.4.5.6",
        ),
        ("v4 for v6", "", "clusterIPs: ['d::1'], loadBalancerIP: 1.2.3.1", "", "!"),
        ("v4 for v6 by annotation", &ask("1.2.3.1"), "clusterIPs: ['d::1']", "", "!"),
        ("v6 for v4", "", "clusterIPs: [9.9.9.9], loadBalancerIP: '1000::'", "", "!"),
        ("v6 for v4 by annotation", &ask("1000::"), v4, "", "!"),
        ("has v6, should have v4", "", v4, "1000::", "1.2.3.0"),
        ("has v4, should have v6", "", "clusterIPs: ['d::1']", "1.2.3.0", "1000::"),
        ("dual", "", DUAL, "", "5.5.5.0 2000::"),
        ("dual of a pool", &from("dual"), DUAL, "", "5.5.5.0 2000::"),
        ("dual of a pool without v6", &from("a4"), DUAL, "", "!"),
        ("prefers dual", "", PREFER, "", "5.5.5.0 2000::"),
        ("prefers dual, of a pool", &from("dual"), PREFER, "", "5.5.5.0 2000::"),
        ("prefers dual, of a v4 pool", &from("a4"), PREFER, "", "1.2.3.0"),
        ("prefers dual, of a v6 pool", &from("a6"), PREFER, "", "1000::"),
        ("prefers dual in a v4 cluster", "", "clusterIPs: [9.9.9.9], ipFamilyPolicy: PreferDualStack", "", "1.2.3.0"),
        (
            "prefers dual in a v4 cluster, of a dual pool",
            &from("dual"),
            "clusterIPs: [9.9.9.9], ipFamilyPolicy: PreferDualStack",
            "",
            "5.5.5.0",
        ),
        (
            "prefers dual in a v6 cluster, of a v6 pool",
            &from("a6"),
            "clusterIPs: ['d::1'], ipFamilyPolicy: PreferDualStack",
            "",
            "1000::",
        ),
        ("needs dual in a v4 cluster", "", "clusterIPs: [9.9.9.9], ipFamilyPolicy: RequireDualStack", "", "?"),
        ("one address for dual by field", "", &format!("{DUAL}, loadBalancerIP: 5.5.5.1"), "", "!"),
        ("one address for dual", &ask("5.5.5.1"), DUAL, "", "!"),
        ("two addresses for dual", &ask("5.5.5.1,2000::1"), DUAL, "", "5.5.5.1 2000::1"),
        ("two addresses for dual, v6 first", &ask("2000::1, 5.5.5.1"), DUAL, "", "5.5.5.1 2000::1"),
        (
            "the same, and it has them that way round",
            &ask("5.5.5.1,2000::1"),
            DUAL,
            "2000::1 5.5.5.1",
            "2000::1 5.5.5.1",
        ),
        ("two addresses of two pools", &ask("1.2.3.0,1000::"), DUAL, "", "!"),
        ("two addresses for v4", &ask("5.5.5.0,2000::"), "clusterIP: 9.9.9.9", "", "!"),
        ("has one of two", "", DUAL, "2000::1", "5.5.5.0 2000::1"),
        ("of a pool for its namespace", "namespace: one", v4, "", "7.8.9.0"),
        ("of a pool without priority for its namespace", "namespace: two", v4, "", "16.17.18.0"),
        ("of a pool for another namespace", &format!("namespace: two, {}", ask("7.8.9.0")), v4, "", "!"),
        ("has one of a pool for another namespace", "namespace: three", v4, "7.8.9.0", "1.2.3.0"),
        ("has three", "", v4, "1.2.3.0 1.2.3.1 3.4.5.6", "1.2.3.0"),
        (
            "an empty annotation hides the old one",
            &format!("{}, metallb.universe.tf/loadBalancerIPs: 3.4.5.6", ask("")),
            v4,
            "",
            "1.2.3.0",
        ),
    ] {
        let object = object(metadata, spec, has);
        let mut planner = planner();
        let key = key_of(&object.object);
        planner.handle_object(&key, &object, &Scope::default());
        planner.handle_synced();
        run(&mut planner);

        let mut outcome = texts(planner.addresses(&key)).join(" ");
        if planner.refusal(&key).is_some() {
            outcome.push('!');
        } else if outcome.is_empty() {
            outcome.push('?');
        }
        assert_eq!(outcome, expected, "{case}: {metadata} {spec} {has}");
        assert_eq!(run(&mut planner), [""; 0], "{case}: a second look writes nothing");
    }
}

#[test]
fn another_type_gives_everything_back_and_another_class_is_not_ours() {
    let (key, mut planner) = (key("web"), planner());
    planner.handle_synced();
    let scope = Scope { load_balancer_class: Some("garpike.io/l2".to_owned()), ..Scope::default() };
    planner.handle_object(&key, &object("", "clusterIPs: [9.9.9.9]", ""), &scope);
    assert_eq!(run(&mut planner), [""; 0]);
    planner.handle_object(&key, &object("", "clusterIPs: [9.9.9.9], loadBalancerClass: garpike.io/l2", ""), &scope);
    assert_eq!(run(&mut planner), ["web = 1.2.3.0 a4"]);

    // The API server takes the class away with the type.
    let mut retyped = object("", "clusterIPs: [9.9.9.9]", "1.2.3.0");
    retyped.object.spec.as_mut().unwrap().type_ = Some("NodePort".to_owned());
    retyped.object.metadata.resource_version = Some("100".to_owned());
    planner.handle_object(&key, &retyped, &scope);
    assert_eq!(run(&mut planner), ["web ="]);
    assert!(!planner.knows(&key));
    let status = planner.counts();
    assert!(status.values().all(|status| status.assigned_ipv4 == 0));
}

#[test]
fn host_names_and_addresses_of_others_are_left_alone() {
    let mut planner = planner();
    let mut theirs = object("", "clusterIPs: [9.9.9.9]", "10.10.10.10");
    theirs.object.metadata.annotations = None;
    planner.handle_object(&key("web"), &theirs, &Scope::default());
    planner.handle_synced();

    assert_eq!(run(&mut planner), [""; 0]);
    assert!(matches!(planner.refusal(&key("web")), Some(Refusal::Foreign { .. })));
}

fn planner() -> Planner {
    let mut planner = Planner::default();
    let all = [
        pool("a4", &["1.2.3.0/31"]),
        Pool { auto_assign: false, ..pool("asked", &["3.4.5.6/32"]) },
        pool("a6", &["1000::/127"]),
        pool("dual", &["5.5.5.0/31", "2000::/127"]),
        kept(pool("one-late", &["10.11.12.0/31"]), 20, &["one"]),
        kept(pool("one-early", &["7.8.9.0/31"]), 10, &["one"]),
        kept(pool("two-any", &["13.14.15.0/31"]), 0, &["two"]),
        kept(pool("two-first", &["16.17.18.0/31"]), 30, &["two"]),
    ];
    planner.handle_pools(&pools(all), Completeness::Whole);
    planner
}

fn object(metadata: &str, spec: &str, has: &str) -> Sourced<ServiceObject> {
    let (namespace, annotations) = match metadata.strip_prefix("namespace: ") {
        Some(rest) => rest.split_once(", ").unwrap_or((rest, "")),
        None => ("default", metadata),
    };
    let marked = if has.is_empty() { "" } else { "metallb.io/ip-allocated-from-pool: a4" };
    let annotations = [annotations, marked].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ");
    let ingress: Vec<String> = has.split_whitespace().map(|ip| format!("{{ip: '{ip}'}}")).collect();
    let yaml = format!(
        "metadata: {{name: web, namespace: {namespace}, resourceVersion: '1', annotations: {{{annotations}}}}}\n\
         spec: {{type: LoadBalancer, {spec}}}\n\
         status: {{loadBalancer: {{ingress: [{}]}}}}\n",
        ingress.join(", ")
    );
    let yaml = format!("apiVersion: v1\nkind: Service\n{yaml}");
    Sourced {
        object: serde_saphyr::from_str(&yaml).unwrap_or_else(|error| panic!("{yaml}: {error}")),
        source: Default::default(),
    }
}

fn key_of(object: &ServiceObject) -> ServiceKey {
    ServiceKey::new(object.metadata.namespace.clone().unwrap(), object.metadata.name.clone().unwrap())
}
