use garpike_election::{NodeName, Selection};
use proptest::prelude::*;

use super::*;
use crate::manifests::{OVERRIDES_FILE, parse_documents};
use crate::{Scope, validate};

#[test]
fn an_address_goes_where_its_advertisements_say() {
    let (desired, said) = walk(&[
        pool("a", "10.0.0.0/24"),
        node("n1", "{rack: one}"),
        node("n2", "{rack: two}"),
        node("n3", "{rack: one, node.kubernetes.io/exclude-from-external-load-balancers: ''}"),
        advertisement("everywhere", "{interfaces: [eth0]}"),
        advertisement("rack", "{ipAddressPools: [a], nodeSelectors: [{matchLabels: {rack: one}}]}"),
        advertisement("same", "{ipAddressPools: [a], nodeSelectors: [{matchLabels: {rack: one}}]}"),
        advertisement("others", "{serviceSelectors: [{matchLabels: {app: other}}]}"),
        service("web", "", "10.0.0.7"),
    ]);

    assert_eq!(said, [""; 0]);
    let address = &desired.addresses[&ip("10.0.0.7")];
    assert_eq!(address.election_key, ip("10.0.0.7"));
    assert_eq!(address.services, [key("web")].into());
    let names = |names: &[&str]| names.iter().map(|name| name.parse::<NodeName>().unwrap()).collect::<BTreeSet<_>>();
    assert_eq!(
        address.placements,
        [
            Placement { nodes: Selection::All, interfaces: Selection::Only(["eth0".parse().unwrap()].into()) },
            Placement { nodes: Selection::Only(names(&["n1", "n3"])), interfaces: Selection::All },
        ]
    );
    assert_eq!(desired.excluded, names(&["n3"]));
}

#[test]
fn a_service_outside_its_pool_is_left_out_and_the_others_work() {
    let (desired, said) = walk(&[
        pool("a", "10.0.0.0/24"),
        advertisement("all", "{}"),
        service("bad", "", "10.1.0.1"),
        service("good", "", "10.0.0.1"),
        service("half", "", "10.0.0.2, 10.9.0.1"),
        asking("asks", "10.2.0.1"),
    ]);

    assert_eq!(addresses(&desired), ["10.0.0.1"]);
    assert_eq!(
        said,
        [
            "error: x.yaml:39: Service default/asks: metadata.annotations[metallb.io/loadBalancerIPs]: \"10.2.0.1\" lies in \
             no pool, so the Service is not announced; the pools hold 10.0.0.0-10.0.0.255 of a",
            "error: x.yaml:17: Service default/bad: status.loadBalancer.ingress: \"10.1.0.1\" lies in no pool, so the \
             Service is not announced; the pools hold 10.0.0.0-10.0.0.255 of a",
            "error: x.yaml:33: Service default/half: status.loadBalancer.ingress: \"10.9.0.1\" lies in no pool, so the \
             Service is not announced; the pools hold 10.0.0.0-10.0.0.255 of a",
        ]
    );
}

#[test]
fn an_address_comes_from_the_status_and_else_from_the_request_and_is_never_invented() {
    let (desired, said) = walk(&[
        pool("a", "10.0.0.0/24"),
        advertisement("all", "{}"),
        service("none", "", ""),
        asking("asks", "10.0.0.1"),
        service("moved", "metallb.io/loadBalancerIPs: 10.0.0.3", "10.0.0.2"),
    ]);

    assert_eq!(addresses(&desired), ["10.0.0.1", "10.0.0.2"]);
    let said: Vec<&str> = said.iter().map(|line| line.split_once("Service default/").unwrap().1).collect();
    assert_eq!(
        said,
        [
            "moved: metadata.annotations[metallb.io/loadBalancerIPs]: \"10.0.0.3\" is requested, the Service has 10.0.0.2; \
             remove status.loadBalancer from its manifest",
            "none: has no address yet; run: garpike allocate DIR",
        ]
    );
}

#[test]
fn the_older_of_two_services_that_cannot_share_keeps_the_address() {
    let share = |name: &str, port: u16| {
        service(name, "metallb.io/allow-shared-ip: k", "10.0.0.1").replace("port: 80", &format!("port: {port}"))
    };
    let old = share("z", 80).replace("name: z", "name: z\n  creationTimestamp: 2026-01-01T00:00:00Z");
    let (desired, said) = walk(&[
        pool("a", "10.0.0.0/24"),
        advertisement("all", "{}"),
        share("a", 80),
        share("b", 443),
        service("c", "", "10.0.0.1").replace("port: 80", "port: 25"),
        old,
    ]);

    assert_eq!(desired.addresses[&ip("10.0.0.1")].services, [key("b"), key("z")].into());
    let said: Vec<&str> = said.iter().map(|line| line.split_once("ingress: ").unwrap().1).collect();
    assert_eq!(
        said,
        [
            "\"10.0.0.1\" belongs to the older Service default/z, and both serve TCP/80; the Service is not announced",
            "\"10.0.0.1\" belongs to the older Service default/z, and the two have no equal metallb.io/allow-shared-ip; the \
             Service is not announced",
        ]
    );
}

#[test]
fn services_connected_by_shared_addresses_have_one_election_key_and_one_set_of_places() {
    let share = |name: &str, port: u16, ips: &str| {
        service(name, "metallb.io/allow-shared-ip: k", ips).replace("port: 80", &format!("port: {port}"))
    };
    let (desired, said) = walk(&[
        pool("a", "10.0.0.0/24, 'fc00::/120'"),
        advertisement("all", "{}"),
        advertisement("some", "{serviceSelectors: [{matchLabels: {app: only-some}}], interfaces: [eth9]}"),
        share("s1", 1, "10.0.0.9"),
        share("s2", 2, "'fc00::5'"),
        share("s3", 3, "10.0.0.9, 'fc00::5'"),
        share("s4", 4, "10.0.0.4"),
    ]);

    assert_eq!(said, [""; 0]);
    let keys: Vec<String> = desired.addresses.values().map(|address| address.election_key.to_string()).collect();
    assert_eq!(addresses(&desired), ["10.0.0.4", "10.0.0.9", "fc00::5"]);
    assert_eq!(keys, ["10.0.0.4", "10.0.0.9", "10.0.0.9"]);
    assert!(desired.addresses.values().all(|address| address.placements.len() == 1));
}

#[test]
fn says_when_nobody_would_announce() {
    let share = |name: &str, port: u16| {
        service(name, "metallb.io/allow-shared-ip: k", "10.0.0.1")
            .replace("port: 80", &format!("port: {port}"))
            .replace("metadata:", &format!("metadata:\n  labels: {{app: {name}}}"))
    };
    let (desired, said) = walk(&[
        pool("a", "10.0.0.0/24"),
        pool("b", "10.1.0.0/24"),
        advertisement("one", "{ipAddressPools: [a], serviceSelectors: [{matchLabels: {app: s1}}]}"),
        advertisement("two", "{ipAddressPools: [a], serviceSelectors: [{matchLabels: {app: s2}}]}"),
        share("s1", 1),
        share("s2", 2),
        service("lone", "", "10.1.0.1"),
    ]);

    assert!(desired.addresses.values().all(|address| address.placements.is_empty()));
    let said: Vec<&str> = said.iter().map(|line| line.split_once("Service default/").unwrap().1).collect();
    assert_eq!(
        said,
        [
            "lone: is announced by nobody: no L2Advertisement selects it; write an L2Advertisement for the pool b",
            "s2: is announced by nobody: no L2Advertisement selects it together with the Services that share its address; \
             write an L2Advertisement for the pool a",
        ]
    );
}

proptest! {
    /// Nodes may find the same documents in another order.
    #[test]
    fn the_order_of_documents_does_not_matter(order in Just((0..8).collect::<Vec<usize>>()).prop_shuffle()) {
        let documents = [
            pool("a", "10.0.0.0/24"),
            pool("b", "10.1.0.0/24"),
            advertisement("one", "{ipAddressPools: [a]}"),
            advertisement("two", "{}"),
            service("s1", "metallb.io/allow-shared-ip: k", "10.0.0.1, 10.1.0.1"),
            service("s2", "metallb.io/allow-shared-ip: k", "10.1.0.1").replace("port: 80", "port: 81"),
            service("s3", "", "10.0.0.1"),
            asking("s4", "10.1.0.7"),
        ];
        let shuffled: Vec<String> = order.iter().map(|at| documents[*at].clone()).collect();

        prop_assert_eq!(walk(&shuffled).0, walk(&documents).0);
    }

    /// A group is what a naive closure over shared addresses finds.
    #[test]
    fn groups_are_the_connected_ones(sets in prop::collection::vec(prop::collection::btree_set(0..12_u8, 1..3), 1..12)) {
        let documents = sets.iter().enumerate().map(|(at, hosts)| {
            let ips: Vec<String> = hosts.iter().map(|host| format!("10.0.0.{host}")).collect();
            service(&format!("s{at:02}"), "metallb.io/allow-shared-ip: k", &ips.join(", "))
                .replace("port: 80", &format!("port: {}", at + 1))
        });
        let documents: Vec<String> = [pool("a", "10.0.0.0/24"), advertisement("all", "{}")].into_iter().chain(documents).collect();
        let (desired, _) = walk(&documents);
        for (first, hosts) in sets.iter().enumerate() {
            let mut group = hosts.clone();
            for _ in 0..sets.len() {
                let joined: Vec<_> = sets.iter().filter(|other| !other.is_disjoint(&group)).flatten().copied().collect();
                group.extend(joined);
            }
            let oldest = sets.iter().position(|other| !other.is_disjoint(&group)).unwrap();
            prop_assert!(oldest <= first);
            let expected = ip(&format!("10.0.0.{}", sets[oldest].first().unwrap()));
            for host in hosts {
                prop_assert_eq!(desired.addresses[&ip(&format!("10.0.0.{host}"))].election_key, expected);
            }
        }
    }
}

#[test]
fn all_services_of_a_group_are_moved_until_the_time_of_the_choice() {
    let share = |name: &str, annotation: &str, ips: &str, port: u16| {
        let annotations = format!("metallb.io/allow-shared-ip: k{annotation}");
        service(name, &annotations, ips).replace("port: 80", &format!("port: {port}"))
    };
    let choice = ", garpike.io/owner: 'n2@2026-11-21T20:00:00Z'";
    let users = [
        pool("a", "10.0.0.0/24, 'fc00::/120'"),
        advertisement("all", "{}"),
        share("s1", "", "10.0.0.9", 1),
        share("s2", choice, "10.0.0.9, 'fc00::5'", 2),
        share("s3", "", "10.0.0.3", 3),
    ];

    let (desired, moves, said) = walk_at("2026-11-21T19:59:59Z", &users, "");
    assert_eq!(said, [""; 0]);
    let to: Vec<String> = desired.moves.iter().map(|(ip, node)| format!("{ip} {node}")).collect();
    assert_eq!(to, ["10.0.0.9 n2", "fc00::5 n2"]);
    assert_eq!(moves.len(), 1);
    assert_eq!((&moves[0].services[..], moves[0].addresses.len()), (&[key("s1"), key("s2")][..], 2));
    assert_eq!(moves[0].source.to_string(), "x.yaml:19");

    let (desired, moves, said) = walk_at("2026-11-21T20:00:00Z", &users, "");
    assert_eq!((desired.moves.len(), moves.len()), (0, 0));
    assert_eq!(
        said,
        [
            "note: x.yaml:23: Service default/s2: metadata.annotations[garpike.io/owner]: \"n2@2026-11-21T20:00:00Z\" is over \
          and has no effect; remove the annotation; \"garpike move\" does it"
        ]
    );
}

#[test]
fn the_choice_of_the_oldest_service_of_a_group_counts() {
    let share = |name: &str, node: &str, port: u16| {
        let choice = format!("metallb.io/allow-shared-ip: k, garpike.io/owner: {node}@2026-11-21T20:00:00Z");
        service(name, &choice, "10.0.0.9").replace("port: 80", &format!("port: {port}"))
    };
    let users = [
        pool("a", "10.0.0.0/24"),
        advertisement("all", "{}"),
        share("s1", "n2", 1),
        share("s2", "n3", 2),
        share("s3", "n2", 3),
    ];

    let (desired, _, said) = walk_at("2026-11-21T19:00:00Z", &users, "");

    assert_eq!(desired.moves[&ip("10.0.0.9")].as_str(), "n2");
    let said: Vec<&str> = said.iter().map(|line| line.split_once("Service default/").unwrap().1).collect();
    assert_eq!(
        said,
        [
            "s2: metadata.annotations[garpike.io/owner]: \"n3@2026-11-21T20:00:00Z\" has no effect: the addresses are shared \
          with Service default/s1, which is moved to n2; remove one of the two annotations"
        ]
    );
}

#[test]
fn the_file_of_overrides_goes_before_the_users_own_annotations() {
    let choice = |node: &str| format!("garpike.io/owner: {node}@2026-11-21T20:00:00Z");
    let users = [
        pool("a", "10.0.0.0/24"),
        advertisement("all", "{}"),
        service("moved", &choice("n1"), "10.0.0.1"),
        service("stays", &choice("n1"), "10.0.0.2"),
        service("users", &choice("n1"), "10.0.0.3"),
    ];
    let overrides = "\
{apiVersion: v1, kind: Service, metadata: {name: moved, annotations: {garpike.io/owner: 'n2@2026-11-21T20:00:00Z'}}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: default, name: stays, annotations: {garpike.io/owner: ''}}}
---
{apiVersion: v1, kind: Service, metadata: {name: users, annotations: {other: x}}}
---
{apiVersion: v1, kind: Service, metadata: {name: gone, annotations: {garpike.io/owner: 'n2@2026-11-21T20:00:00Z'}}}
";

    let (desired, moves, said) = walk_at("2026-11-21T19:00:00Z", &users, overrides);

    let to: Vec<String> = desired.moves.iter().map(|(ip, node)| format!("{ip} {node}")).collect();
    assert_eq!(to, ["10.0.0.1 n2", "10.0.0.3 n1"]);
    assert_eq!(moves[0].source.to_string(), "garpike-overrides.yaml:1");
    assert_eq!(desired.addresses.len(), 3, "an override is no Service");
    assert_eq!(
        said,
        [
            "note: garpike-overrides.yaml:7: Service default/gone: is written nowhere else, so this has no effect; the next \
          \"garpike move\" removes it"
        ]
    );
}

#[test]
fn a_choice_that_cannot_be_read_is_named_and_the_service_is_served() {
    let wrong = service("web", "garpike.io/owner: 'n1@tomorrow'", "10.0.0.1");

    let (desired, moves, said) = walk_at("2026-11-21T19:00:00Z", &[pool("a", "10.0.0.0/24"), wrong], "");

    assert_eq!((desired.addresses.len(), desired.moves.len(), moves.len()), (1, 0, 0));
    assert_eq!(
        said[0],
        "error: x.yaml:10: Service default/web: metadata.annotations[garpike.io/owner]: \"n1@tomorrow\" does not end with a \
         time as RFC 3339 has it: \"tomorrow\"; it has no effect; write NODE@TIME such as node-a@2030-12-31T23:59:59Z"
    );
}

fn walk(documents: &[String]) -> (Desired, Vec<String>) {
    let (desired, _, said) = walk_at("2026-11-21T00:00:00Z", documents, "");
    (desired, said)
}

/// Walks with a file of overrides beside the documents.
fn walk_at(now: &str, documents: &[String], overrides: &str) -> (Desired, Vec<Move>, Vec<String>) {
    let now = format!("any@{now}").parse::<ChosenOwner>().unwrap().until;
    let (mut objects, mut problems) = parse_documents("x.yaml", &documents.join("---\n"));
    let (overriding, complaints) = parse_documents(OVERRIDES_FILE, overrides);
    problems.extend(complaints);
    problems.extend(objects.merge(overriding));
    let (config, complaints) = validate(&objects, &Scope::default());
    problems.extend(complaints);
    let (desired, moves, complaints) = desired(&config, now);
    problems.extend(complaints);
    (desired, moves, problems.iter().map(|problem| format!("{}: {problem}", problem.severity.as_str())).collect())
}

fn addresses(desired: &Desired) -> Vec<String> {
    desired.addresses.keys().map(ToString::to_string).collect()
}

fn pool(name: &str, addresses: &str) -> String {
    format!(
        "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: {name}}}\nspec: {{addresses: [{addresses}]}}\n"
    )
}

fn advertisement(name: &str, spec: &str) -> String {
    format!("apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

fn node(name: &str, labels: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {labels}}}\n")
}

fn service(name: &str, annotation: &str, ips: &str) -> String {
    let ips: Vec<String> = ips.split(", ").filter(|ip| !ip.is_empty()).map(|ip| format!("{{ip: {ip}}}")).collect();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  annotations: {{{annotation}}}\n\
         spec: {{type: LoadBalancer, ports: [{{port: 80}}]}}\nstatus: {{loadBalancer: {{ingress: [{}]}}}}\n",
        ips.join(", ")
    )
}

fn asking(name: &str, ips: &str) -> String {
    service(name, &format!("metallb.io/loadBalancerIPs: '{ips}'"), "")
}

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

fn ip(text: &str) -> ServiceIp {
    text.parse().unwrap()
}
