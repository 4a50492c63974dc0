use garpike_election::{Selection, ServiceIp, ServiceKey};

use super::*;
use crate::Family;
use crate::config::{Families, Holder, PoolName, Request};
use crate::manifests::{OVERRIDES_FILE, parse_documents};

#[test]
fn of_two_pools_that_overlap_the_first_by_name_stays_and_both_are_named() {
    let (config, said) = judge(&[pool("b", "10.0.0.128/25"), pool("a", "10.0.0.0/24"), pool("c", "10.0.1.0/24")]);

    assert_eq!(names(&config), ["a", "c"]);
    assert_eq!(
        said,
        [
            "error: x.yaml:5: IPAddressPool metallb-system/b: spec.addresses[0]: \"10.0.0.128/25\" overlaps with already \
          defined CIDR or range 10.0.0.0-10.0.0.255 of a; give each address to one pool; this pool is left out whole"
        ]
    );
}

#[test]
fn the_older_of_two_pools_that_overlap_stays() {
    let old = pool("b", "10.0.0.0/24").replace("{name: b}", "{name: b, creationTimestamp: '2026-01-01T00:00:00Z'}");
    let new = pool("a", "10.0.0.0/24").replace("{name: a}", "{name: a, creationTimestamp: '2026-01-02T00:00:00Z'}");
    let (config, said) = judge(&[new, old]);

    assert_eq!((names(&config), said.len()), (vec!["b".to_owned()], 1));
}

#[test]
fn every_wrong_pool_gets_its_line_and_the_right_one_works() {
    let (config, said) = judge(&[
        pool("right", "10.0.0.0/24"),
        pool("bare", "10.1.0.1"),
        pool("text", "10.1.0.1-10.1.0.300"),
        pool("twice", "10.2.0.0/24, 10.2.0.9-10.2.0.10"),
        pool("empty", ""),
        pool("elsewhere", "10.3.0.0/24").replace("{name: elsewhere}", "{name: elsewhere, namespace: other}"),
        pool("dup", "10.4.0.0/24") + "  serviceAllocation: {namespaces: [a, a]}\n",
        pool("op", "10.5.0.0/24")
            + "  serviceAllocation: {serviceSelectors: [{matchExpressions: [{key: a, operator: Is}]}]}\n",
        pool("sel", "10.6.0.0/24")
            + "  serviceAllocation: {namespaceSelectors: [{matchLabels: {a: b}}, {matchLabels: {a: b}}]}\n",
    ]);

    assert_eq!(names(&config), ["right"]);
    let said: Vec<&str> = said.iter().map(|line| line.split("IPAddressPool ").nth(1).unwrap()).collect();
    assert_eq!(
        said,
        [
            "metallb-system/bare: spec.addresses[0]: \"10.1.0.1\" is one address and not a range; write 10.1.0.1/32",
            "metallb-system/dup: spec.serviceAllocation.namespaces[1]: \"a\" is there twice; remove one of the two",
            "metallb-system/empty: spec.addresses: holds no address; write CIDR such as 192.168.10.0/24 or START-END",
            "metallb-system/op: spec.serviceAllocation.serviceSelectors[0]: the operator \"Is\" of key \"a\" is not one of \
             In, NotIn, Exists, DoesNotExist",
            "metallb-system/sel: spec.serviceAllocation.namespaceSelectors[1]: selects \"a in (b)\" a second time; \
             remove one of the two",
            "metallb-system/text: spec.addresses[0]: \"10.1.0.1-10.1.0.300\" is not an address range; write CIDR such as \
             192.168.10.0/24 or START-END",
            "metallb-system/twice: spec.addresses[1]: \"10.2.0.9-10.2.0.10\" overlaps with already defined CIDR or range \
             10.2.0.0-10.2.0.255 of twice; give each address to one pool; this pool is left out whole",
            "other/elsewhere: metadata.namespace: \"other\" is not the namespace that counts; the object has no effect; \
             write metallb-system",
        ]
    );
}

#[test]
fn namespace_selectors_become_names_and_matching_nothing_means_nobody() {
    let (config, said) = judge(&[
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: prod, labels: {tier: gold}}\n".to_owned(),
        service("default", "web", "", ""),
        pool("a", "10.0.0.0/24")
            + "  serviceAllocation: {namespaces: [x], namespaceSelectors: [{matchLabels: {tier: gold}}]}\n",
        pool("b", "10.1.0.0/24") + "  serviceAllocation: {namespaceSelectors: [{matchLabels: {tier: tin}}]}\n",
        pool("c", "10.2.0.0/24")
            + "  serviceAllocation: {namespaceSelectors: [{matchLabels: {kubernetes.io/metadata.name: default}}]}\n",
        pool("d", "10.3.0.0/24") + "  serviceAllocation: {priority: 5}\n",
    ]);

    assert_eq!(said, [""; 0]);
    let kept = config.pools.iter().map(|pool| pool.kept_for.as_ref().unwrap().namespaces.clone());
    let kept: Vec<Option<Vec<String>>> = kept.map(|names| names.map(|names| names.into_iter().collect())).collect();
    assert_eq!(
        kept,
        [Some(vec!["prod".to_owned(), "x".to_owned()]), Some(vec![]), Some(vec!["default".to_owned()]), None]
    );
    let web = &config.services[&key("default", "web")];
    let admits: Vec<bool> = config.pools.iter().map(|pool| pool.admits(web)).collect();
    assert_eq!(admits, [false, false, true, true]);
}

#[test]
fn every_wrong_advertisement_gets_its_line_and_the_right_one_works() {
    let (config, said) = judge(&[
        pool("a", "10.0.0.0/24").replace("{name: a}", "{name: a, labels: {zone: one}}"),
        node("n1", "{rack: one}"),
        advertisement("right", "ipAddressPools: [a]"),
        advertisement(
            "labels",
            "{ipAddressPoolSelectors: [{matchLabels: {zone: one}}], nodeSelectors: [{matchLabels: {rack: one}}]}",
        ),
        advertisement("dup", "ipAddressPools: [a, a]"),
        advertisement("nil", "ipAddressPools: [b]"),
        advertisement("long", "interfaces: [eth0, sixteen-bytes-xx]"),
        advertisement("none", "interfaces: ['']"),
        advertisement("nodes", "nodeSelectors: [{matchLabels: {rack: nine}}]"),
        advertisement("sel", "serviceSelectors: [{matchExpressions: [{key: a, operator: In}]}]"),
        advertisement("pref", "preferredNodeSelectors: [{weight: 5, preference: {}}]"),
        "apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {name: bare}\n".to_owned(),
    ]);

    let ads: Vec<&str> = config.advertisements.iter().map(|ad| ad.name.as_str()).collect();
    assert_eq!(ads, ["bare", "labels", "nil", "nodes", "pref", "right"]);
    let labels = &config.advertisements[1];
    assert_eq!(labels.pools, Selection::Only([PoolName("a".to_owned())].into()));
    assert_eq!(labels.nodes, Selection::Only(["n1".parse().unwrap()].into()));
    assert_eq!((&config.advertisements[0].pools, &config.advertisements[0].nodes), (&Selection::All, &Selection::All));
    let said: Vec<String> = said.iter().map(|line| line.replace("L2Advertisement metallb-system/", "")).collect();
    let said: Vec<&str> =
        said.iter().map(|line| line.split_once(".yaml:").unwrap().1.split_once(' ').unwrap().1).collect();
    assert_eq!(
        said,
        [
            "dup: spec.ipAddressPools[1]: \"a\" is there twice; remove one of the two",
            "long: spec.interfaces[1]: \"sixteen-bytes-xx\" is not an interface name (1 to 15 bytes, no '/', ':' or white space)",
            "nil: spec.ipAddressPools[0]: \"b\" is not the name of an IPAddressPool",
            "nodes: spec.nodeSelectors: match no Node object, so nobody announces by this advertisement; add the Node \
             objects with their labels",
            "none: spec.interfaces[0]: \"\" is not an interface name (1 to 15 bytes, no '/', ':' or white space)",
            "pref: spec.preferredNodeSelectors: are accepted and do not change who announces; use nodeSelectors to \
             restrict the nodes",
            "sel: spec.serviceSelectors[0]: the operator In of key \"a\" needs at least one of values",
        ]
    );
}

#[test]
fn only_load_balancer_services_of_our_class_are_ours() {
    let documents = [
        service("default", "ours", "", ""),
        service("default", "classed", "", "loadBalancerClass: garpike.io/l2"),
        "apiVersion: v1\nkind: Service\nmetadata: {name: inner}\nspec: {type: ClusterIP}\n".to_owned(),
        "apiVersion: v1\nkind: Service\nmetadata: {name: bare}\n".to_owned(),
    ];
    let (objects, _) = parse_documents("x.yaml", &documents.join("---\n"));
    for (class, expected) in [(None, "ours"), (Some("garpike.io/l2"), "classed")] {
        let scope = Scope { load_balancer_class: class.map(str::to_owned), ..Scope::default() };
        let (config, _) = validate(&objects, &scope);
        assert_eq!(config.services.keys().map(|key| &*key.name).collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn families_follow_the_cluster_addresses_and_else_what_is_written() {
    for (spec, expected) in [
        ("", Some(Families::Unspecified)),
        ("ipFamilies: [IPv6]", Some(Families::Single(Family::V6))),
        ("ipFamilies: [IPv4, IPv6]", Some(Families::RequireDual)),
        ("ipFamilyPolicy: SingleStack", Some(Families::Unspecified)),
        ("{ipFamilyPolicy: PreferDualStack, ipFamilies: [IPv6]}", Some(Families::PreferDual(Family::V6))),
        ("ipFamilyPolicy: RequireDualStack", Some(Families::RequireDual)),
        ("clusterIP: None", Some(Families::Unspecified)),
        ("clusterIPs: ['fc00::1']", Some(Families::Single(Family::V6))),
        ("{clusterIPs: [10.0.0.1], ipFamilyPolicy: PreferDualStack}", Some(Families::Single(Family::V4))),
        (
            "{clusterIPs: [10.0.0.1, 'fc00::1'], ipFamilyPolicy: PreferDualStack}",
            Some(Families::PreferDual(Family::V4)),
        ),
        ("{clusterIPs: [10.0.0.1, 'fc00::1'], ipFamilyPolicy: RequireDualStack}", Some(Families::RequireDual)),
        ("{clusterIPs: [10.0.0.1], ipFamilyPolicy: RequireDualStack}", None),
        ("ipFamilies: [IPv5]", None),
        ("ipFamilyPolicy: Both", None),
    ] {
        let (config, said) = judge(&[service("default", "web", "", spec.trim_matches(['{', '}']))]);
        let families = config.services.values().next().map(|service| service.families);
        assert_eq!((families, said.is_empty()), (expected, expected.is_some()), "{spec}: {said:?}");
    }
}

#[test]
fn reads_what_services_ask_for_by_both_names() {
    for (annotations, spec, expected, complaint) in [
        ("", "", Some(vec![]), ""),
        ("metallb.io/loadBalancerIPs: 10.0.0.1", "", Some(vec!["10.0.0.1"]), ""),
        ("metallb.io/loadBalancerIPs: 'fc00::1, 10.0.0.1'", "", Some(vec!["10.0.0.1", "fc00::1"]), ""),
        ("metallb.universe.tf/loadBalancerIPs: 10.0.0.1", "", Some(vec!["10.0.0.1"]), "deprecated"),
        ("", "loadBalancerIP: 10.0.0.1", Some(vec!["10.0.0.1"]), ""),
        ("metallb.io/loadBalancerIPs: ''", "loadBalancerIP: ''", Some(vec![]), ""),
        ("metallb.io/loadBalancerIPs: '::ffff:10.0.0.1'", "", Some(vec!["10.0.0.1"]), ""),
        ("metallb.io/loadBalancerIPs: 10.0.0.1", "loadBalancerIP: 10.0.0.1", None, "is there beside the annotation"),
        ("metallb.io/loadBalancerIPs: 10.0.0", "", None, "\"10.0.0\" is not an IP address"),
        ("metallb.io/loadBalancerIPs: '10.0.0.1,10.0.0.2'", "", None, "write one address, or one IPv4 and one IPv6"),
        ("metallb.io/loadBalancerIPs: 127.0.0.1", "", None, "is a loopback address"),
        ("metallb.io/loadBalancerIPs: 'fc00::1'", "ipFamilies: [IPv4]", None, "write one IPv4 address"),
        (
            "",
            "loadBalancerIP: 10.0.0.1\n  ipFamilyPolicy: RequireDualStack",
            None,
            "write one IPv4 and one IPv6 address",
        ),
    ] {
        let (config, said) = judge(&[service("default", "web", annotations, spec)]);
        let request = config.services.values().next().unwrap().request.clone();
        let ips = match request {
            Request::Any => Some(vec![]),
            Request::Addresses { ips, .. } => Some(ips.iter().map(ServiceIp::to_string).collect()),
            Request::Invalid => None,
        };
        assert_eq!(ips, expected.map(|ips| ips.into_iter().map(str::to_owned).collect()), "{annotations} {spec}");
        assert_eq!(said.is_empty(), complaint.is_empty(), "{said:?}");
        assert!(said.iter().all(|line| line.contains(complaint)), "{said:?}");
    }
}

#[test]
fn a_port_has_a_number_and_a_protocol() {
    for (port, told) in [
        ("{port: 99999}", Some("spec.ports[0].port: \"99999\" is not a port; write a number from 1 to 65535")),
        (
            "{port: 80, protocol: tcp}",
            Some("spec.ports[0].protocol: \"tcp\" is not a protocol; write TCP, UDP or SCTP"),
        ),
        ("{port: 80}", None),
        ("{port: 80, protocol: SCTP}", None),
    ] {
        let (config, said) = judge(&[service("shop", "web", "", &format!("ports: [{port}]"))]);

        assert_eq!(said.iter().any(|line| line.contains(told.unwrap_or_default())), told.is_some(), "{port}: {said:?}");
        assert_eq!(config.services.is_empty(), told.is_some(), "{port}: {said:?}");
    }
}

#[test]
fn an_unknown_pool_is_an_error_at_the_annotation() {
    let (config, said) = judge(&[service("default", "web", "metallb.io/address-pool: nil", "")]);

    assert_eq!(
        said,
        [
            "error: x.yaml:5: Service default/web: metadata.annotations[metallb.io/address-pool]: \"nil\" is not the name of a \
          usable IPAddressPool"
        ]
    );
    assert_eq!(config.services[&key("default", "web")].pool, Some(PoolName("nil".to_owned())));
}

#[test]
fn the_addresses_of_a_service_are_its_own_and_else_those_of_the_status_file() {
    let with_status = |name: &str, ips: &str| {
        service("default", name, "", "") + &format!("status: {{loadBalancer: {{ingress: [{ips}]}}}}\n")
    };
    let (mut objects, _) = parse_documents(
        "x.yaml",
        &[
            with_status("own", "{ip: 10.0.0.1}, {hostname: x}, {ip: 10.0.0.1}"),
            with_status("file", ""),
            with_status("bad", "{ip: x}"),
        ]
        .join("---\n"),
    );
    let file = [
        with_status("own", "{ip: 10.0.0.9}"),
        with_status("file", "{ip: 10.0.0.2}"),
        with_status("gone", "{ip: 10.0.0.3}"),
    ];
    objects.merge(parse_documents(crate::manifests::STATUS_FILE, &file.join("---\n")).0);
    let (config, problems) = validate(&objects, &Scope::default());

    let held =
        |name: &str| config.services[&key("default", name)].held.clone().map(|held| (held.addresses, held.holder));
    assert_eq!(held("own"), Some((Box::from(["10.0.0.1".parse().unwrap()]), Holder::Object)));
    assert_eq!(held("file"), Some((Box::from(["10.0.0.2".parse().unwrap()]), Holder::StatusFile)));
    assert_eq!(held("bad"), None);
    assert_eq!(config.strays, [(key("default", "gone"), vec!["10.0.0.3".parse().unwrap()])].into());
    assert_eq!(
        problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["x.yaml:35: Service default/bad: status.loadBalancer.ingress[0].ip: \"x\" is not an IP address"]
    );
}

#[test]
fn nodes_are_excluded_by_label_or_condition() {
    let unavailable = "status: {conditions: [{type: NetworkUnavailable, status: 'True'}]}\n";
    let (config, said) = judge(&[
        node("good", "{a: b}") + "status: {conditions: [{type: NetworkUnavailable, status: 'False'}]}\n",
        node("label", "{node.kubernetes.io/exclude-from-external-load-balancers: ''}"),
        node("network", "{}") + unavailable,
        node("Bad", "{}"),
    ]);

    let excluded: Vec<_> = config.nodes.iter().map(|(name, node)| (name.as_str(), node.excluded)).collect();
    assert_eq!(
        excluded,
        [("good", None), ("label", Some(Exclusion::Label)), ("network", Some(Exclusion::NetworkUnavailable))]
    );
    assert_eq!(said.len(), 1);
}

#[test]
fn nodes_are_drained_by_annotation_whether_or_not_they_are_described() {
    let drained = |name: &str, value: &str| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, annotations: {{garpike.io/drain: '{value}'}}}}\n"
        )
    };
    let users =
        [drained("a", "true"), drained("b", "true"), drained("c", "false"), drained("d", "yes"), node("e", "{}")];
    let overrides = [drained("b", "false"), drained("c", "true"), drained("f", "true"), drained("G", "true")];
    let (mut objects, _) = parse_documents("x.yaml", &users.join("---\n"));
    objects.merge(parse_documents(OVERRIDES_FILE, &overrides.join("---\n")).0);

    let (config, problems) = validate(&objects, &Scope::default());

    let drained: Vec<String> = config.drained.iter().map(|(name, source)| format!("{name} {source}")).collect();
    assert_eq!(drained, ["a x.yaml:1", "c garpike-overrides.yaml:5", "f garpike-overrides.yaml:9"]);
    assert!(
        !config.nodes.keys().any(|name| name.as_str() == "f"),
        "a drain describes no node: selectors must not match it"
    );
    assert_eq!(
        problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "garpike-overrides.yaml:15: Node G: metadata.name: node name \"G\" is not made of lower case letters, digits, \
             '-' and '.' (RFC 1123 subdomain)",
            "x.yaml:15: Node d: metadata.annotations[garpike.io/drain]: \"yes\" is not a drain and has no effect; write \
             \"true\", or remove the annotation",
        ]
    );
}

fn judge(documents: &[String]) -> (Config, Vec<String>) {
    let (objects, mut problems) = parse_documents("x.yaml", &documents.join("---\n"));
    let (config, complaints) = validate(&objects, &Scope::default());
    problems.extend(complaints);
    (config, problems.iter().map(|problem| format!("{}: {problem}", problem.severity.as_str())).collect())
}

fn names(config: &Config) -> Vec<String> {
    config.pools.iter().map(|pool| pool.name.to_string()).collect()
}

fn pool(name: &str, addresses: &str) -> String {
    format!("apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: {name}}}\nspec: \n  addresses: [{addresses}]\n")
        .replace("spec: \n  addresses", "spec:\n  addresses")
}

fn advertisement(name: &str, spec: &str) -> String {
    format!("apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n")
}

fn node(name: &str, labels: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {labels}}}\n")
}

fn service(namespace: &str, name: &str, annotations: &str, spec: &str) -> String {
    let spec = spec.replace(", ipFamil", "\n  ipFamil");
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  annotations:\n    {annotations}\n  namespace: {namespace}\n  name: {name}\n\
         spec:\n  type: LoadBalancer\n  {spec}\n"
    )
}

fn key(namespace: &str, name: &str) -> ServiceKey {
    ServiceKey::new(namespace, name)
}
