use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use garpike_controller_api::manifests::STATUS_FILE;
use garpike_election::{Member, Presence, Selection};

use super::*;

#[test]
fn a_drain_is_written_beside_the_users_files_and_says_what_moves() {
    let dir = directory(&[("users.yaml", USERS)]);
    let before = fs::read_to_string(dir.path().join("users.yaml")).unwrap();

    let report = ask(&dir, &drain("n1"), Some(&members(&["n1", "n2", "n3"]))).unwrap();

    assert_eq!(refused(&report), [""; 0]);
    assert_eq!(report.written, Written::Changed);
    let moved: Vec<String> = report.changes.unwrap().iter().map(shown).collect();
    assert_eq!(moved, ["10.0.0.3 n1 n2", "10.0.0.5 n1 n2"], "these are n1's by the hash");
    assert_eq!(
        text(&dir),
        "# Written by \"garpike drain\", \"undrain\" and \"move\"; edits are overwritten.\n\
         # Its annotations go before those in the other files of this directory. Copy it to the other hosts together with \
         them.\n---\napiVersion: v1\nkind: Node\nmetadata:\n  name: n1\n  annotations:\n    garpike.io/drain: \"true\"\n"
    );
    assert_eq!(fs::read_to_string(dir.path().join("users.yaml")).unwrap(), before);
    assert_eq!(ask(&dir, &drain("n1"), None).unwrap().written, Written::Unchanged);

    let report = ask(&dir, &undrain("n1"), Some(&with("n1", NodeState::Draining, Presence::Here))).unwrap();
    assert_eq!(report.written, Written::Changed);
    let back: Vec<String> = report.changes.unwrap().iter().map(shown).collect();
    assert_eq!(back, ["10.0.0.3 n2 n1", "10.0.0.5 n2 n1"]);
    assert!(!text(&dir).contains("n1"), "{}", text(&dir));
}

#[test]
fn a_drain_that_would_orphan_an_address_is_refused_with_the_reason() {
    let dir = directory(&[("users.yaml", USERS)]);
    let refusal = |request: &Request, members: &Members| {
        let report = ask(&dir, request, Some(members)).unwrap();
        assert_eq!(report.written, Written::Unchanged);
        assert!(!dir.path().join(OVERRIDES_FILE).exists());
        refused(&report)
    };

    assert_eq!(
        refusal(&drain("n1"), &members(&["n1"])),
        [
            "10.0.0.3 (Service default/a): n1 must keep it: n1 is the last living node; start the speaker of another node",
            "10.0.0.5 (Service default/b): n1 must keep it: n1 is the last living node; start the speaker of another node",
        ]
    );
    assert_eq!(
        refusal(&drain("n9"), &members(&["n1", "n2"])),
        ["n9 is no living member of the cluster; the members are n1, n2"]
    );
    assert_eq!(
        refusal(&drain("n3"), &members(&["n1", "n2", "n3", "n4"])),
        [
            "10.0.1.1 (Service default/racked): n3 must keep it: no other node may own it: every selected node is excluded from \
          load balancing; remove the label node.kubernetes.io/exclude-from-external-load-balancers from a node, or see why \
          its network is unavailable"
        ],
        "the rack holds n3 and n4, which is excluded"
    );
    let drained = with("n2", NodeState::Draining, Presence::Here);
    let two = Members { nodes: drained.nodes.into_iter().take(2).collect(), ..drained };
    assert!(
        refusal(&drain("n1"), &two)[0].ends_with("n2, which would get it, is drained as well; run: garpike undrain n2"),
        "{:?}",
        refusal(&drain("n1"), &two)
    );
    let away = with("n2", NodeState::Ready, Presence::Away);
    assert!(
        refusal(&drain("n1"), &away)[0].contains("n2, which would get it, cannot announce it: its speaker is away")
    );
}

#[test]
fn without_a_speaker_the_manifests_alone_judge() {
    let dir = directory(&[("users.yaml", USERS)]);

    assert_eq!(refused(&ask(&dir, &drain("n1"), None).unwrap()), [""; 0]);
    assert_eq!(ask(&dir, &drain("n1"), None).unwrap().changes, None);
    let refusals = refused(&ask(&dir, &drain("n3"), None).unwrap());
    assert_eq!(refusals.len(), 1);
    assert!(
        refusals[0].starts_with("10.0.1.1 (Service default/racked): n3 must keep it: no other node"),
        "{refusals:?}"
    );
    assert_eq!(refused(&ask(&dir, &to("10.0.0.3", "n3"), None).unwrap()), [""; 0]);
    assert_eq!(
        refused(&ask(&dir, &to("10.0.0.3", "n1"), None).unwrap()),
        ["10.0.0.3 (Service default/a): n1 is drained; run: garpike undrain n1"]
    );
}

#[test]
fn a_move_takes_all_that_shares_the_address_along_and_ends() {
    let shared = "\
{apiVersion: v1, kind: Service, metadata: {name: c, annotations: {metallb.io/allow-shared-ip: k}}, spec: {type: LoadBalancer,
  ports: [{port: 1}]}, status: {loadBalancer: {ingress: [{ip: 10.0.0.11}]}}}
---
{apiVersion: v1, kind: Service, metadata: {name: d, annotations: {metallb.io/allow-shared-ip: k}}, spec: {type: LoadBalancer,
  ports: [{port: 2}]}, status: {loadBalancer: {ingress: [{ip: 10.0.0.11}, {ip: 10.0.0.12}]}}}
";
    let dir = directory(&[("shared.yaml", shared), ("users.yaml", USERS)]);
    let all = members(&["n1", "n2", "n3"]);
    let owner = ask(&dir, &Request::EndMove(ip("10.0.0.12")), Some(&all)).unwrap();
    assert_eq!((owner.written, owner.changes.unwrap().len()), (Written::Unchanged, 0), "there is nothing to end");

    let report = ask(&dir, &to("10.0.0.12", "n3"), Some(&all)).unwrap();

    assert_eq!(refused(&report), [""; 0]);
    let names: Vec<String> = report.services.iter().map(ToString::to_string).collect();
    assert_eq!((names, report.addresses.len()), (vec!["default/c".to_owned(), "default/d".to_owned()], 2));
    let moved: Vec<String> = report.changes.unwrap().iter().map(shown).collect();
    assert!(moved.len() == 2 && moved.iter().all(|change| change.ends_with("n3")), "{moved:?}");
    assert!(
        text(&dir).contains("  name: c\n  annotations:\n    garpike.io/owner: n3@1970-01-12T13:46:40Z\n"),
        "{}",
        text(&dir)
    );

    ask(&dir, &to("10.0.0.11", "n2"), Some(&all)).unwrap();
    assert!(text(&dir).contains("n2@") && !text(&dir).contains("n3@"), "{}", text(&dir));
    let report = ask(&dir, &Request::EndMove(ip("10.0.0.12")), Some(&all)).unwrap();
    assert_eq!(report.written, Written::Changed);
    assert!(!text(&dir).contains("Service\n"), "{}", text(&dir));
}

#[test]
fn a_move_that_cannot_reach_its_node_is_refused_with_the_reason() {
    let dir = directory(&[("users.yaml", USERS)]);
    let mut all = members(&["n1", "n2", "n3", "n4"]);
    all.nodes.get_mut(&node("n2")).unwrap().interfaces = Selection::Only(["eth9".parse().unwrap()].into());
    let refusal =
        |request: &Request, members: &Members| refused(&ask(&dir, request, Some(members)).unwrap()).join("\n");

    assert_eq!(
        refusal(&to("10.0.0.99", "n1"), &all),
        "10.0.0.99: no Service holds it; name an address that a Service in the manifests has"
    );
    assert_eq!(
        refusal(&to("10.0.0.3", "n9"), &all),
        "n9 is no living member of the cluster; the members are n1, n2, n3, n4"
    );
    assert_eq!(
        refusal(&to("10.0.1.1", "n1"), &all),
        "10.0.1.1 (Service default/racked): no L2Advertisement of it selects n1; let spec.nodeSelectors of the \
         L2Advertisement match the labels of n1"
    );
    assert_eq!(
        refusal(&to("10.0.1.1", "n4"), &all),
        "10.0.1.1 (Service default/racked): n4 is excluded from load balancing; remove the label \
         node.kubernetes.io/exclude-from-external-load-balancers from Node n4"
    );
    assert_eq!(
        refusal(&to("10.0.0.3", "n2"), &all),
        "10.0.0.3 (Service default/a): no interface of n2 may announce it: it has eth9; spec.interfaces of the \
         L2Advertisement names eth0"
    );
    for (state, presence, reason) in [
        (NodeState::Draining, Presence::Here, "n3 is drained; run: garpike undrain n3"),
        (NodeState::HeldDown, Presence::Here, "n3 is held-down; wait until it is ready"),
        (NodeState::Ready, Presence::Away, "the speaker of n3 is away; start the speaker of n3"),
    ] {
        let refusal = refusal(&to("10.0.0.3", "n3"), &with("n3", state, presence));
        assert_eq!(refusal, format!("10.0.0.3 (Service default/a): {reason}"));
    }
    assert!(!dir.path().join(OVERRIDES_FILE).exists());
}

#[test]
fn what_the_users_own_manifests_ask_for_is_ended_by_an_override_and_never_rewritten() {
    let chosen = "\
{apiVersion: v1, kind: Service, metadata: {name: a, annotations: {garpike.io/owner: 'n3@1970-01-12T13:46:40Z'}},
  spec: {type: LoadBalancer}, status: {loadBalancer: {ingress: [{ip: 10.0.0.3}]}}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1, annotations: {garpike.io/drain: 'true'}}}
";
    let users =
        USERS.split("---\n").filter(|document| !document.contains("{name: a}")).collect::<Vec<_>>().join("---\n");
    let dir = directory(&[("chosen.yaml", chosen), ("users.yaml", &users)]);

    ask(&dir, &undrain("n1"), None).unwrap();
    ask(&dir, &Request::EndMove(ip("10.0.0.3")), None).unwrap();

    assert!(text(&dir).contains("name: n1\n  annotations:\n    garpike.io/drain: \"false\"\n"), "{}", text(&dir));
    assert!(text(&dir).contains("garpike.io/owner: \"\"\n"), "{}", text(&dir));
    assert_eq!(fs::read_to_string(dir.path().join("chosen.yaml")).unwrap(), chosen);

    fs::remove_file(dir.path().join("chosen.yaml")).unwrap();
    ask(&dir, &drain("n2"), None).unwrap();
    assert!(
        !text(&dir).contains("n1") && !text(&dir).contains("owner"),
        "what has no effect is forgotten: {}",
        text(&dir)
    );
}

#[test]
fn a_file_of_overrides_that_cannot_be_understood_is_not_overwritten() {
    let broken = "{apiVersion: v1, kind: Node, metadata: {name: n1, annotations: {garpike.io/drain: 'maybe'}}}\n";
    let dir = directory(&[("users.yaml", USERS), (OVERRIDES_FILE, broken)]);

    let error = ask(&dir, &drain("n2"), None).unwrap_err().to_string();

    assert!(error.contains("garpike-overrides.yaml:1: Node n1") && error.contains("\"maybe\""), "{error}");
    assert_eq!(text(&dir), broken);
    let nowhere = carry_out(Path::new("/nonexistent"), &drain("n1"), facts(&Scope::default(), None)).unwrap_err();
    assert!(nowhere.to_string().contains("/nonexistent"), "{nowhere}");
}

fn ask(dir: &tempfile::TempDir, request: &Request, members: Option<&Members>) -> Result<Report, CarryOutError> {
    carry_out(dir.path(), request, facts(&Scope::default(), members))
}

fn facts<'a>(scope: &'a Scope, members: Option<&'a Members>) -> Facts<'a> {
    Facts { scope, members, now: UNIX_EPOCH + Duration::from_secs(996_400) }
}

fn drain(name: &str) -> Request {
    Request::Drain(node(name))
}

fn undrain(name: &str) -> Request {
    Request::Undrain(node(name))
}

/// A move for an hour.
fn to(address: &str, name: &str) -> Request {
    let until = UNIX_EPOCH + Duration::from_secs(1_000_000);
    Request::Move { ip: ip(address), chosen: ChosenOwner { node: node(name), until } }
}

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    assert!(!dir.path().join(STATUS_FILE).exists());
    dir
}

fn text(dir: &tempfile::TempDir) -> String {
    fs::read_to_string(dir.path().join(OVERRIDES_FILE)).unwrap()
}

fn refused(report: &Report) -> Vec<String> {
    report.refusals.iter().map(ToString::to_string).collect()
}

fn shown(change: &Change) -> String {
    let name = |node: &Option<NodeName>| node.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    format!("{} {} {}", change.ip, name(&change.from), name(&change.to))
}

fn members(names: &[&str]) -> Members {
    let eth0 = Selection::Only(["eth0".parse().unwrap()].into());
    let nodes = names.iter().map(|name| (node(name), Member::new(NodeState::Ready, eth0.clone()))).collect();
    Members { local: node("n1"), nodes }
}

/// Three nodes, one of which is not like the others.
fn with(name: &str, state: NodeState, presence: Presence) -> Members {
    let mut members = members(&["n1", "n2", "n3"]);
    let member = members.nodes.get_mut(&node(name)).unwrap();
    (member.state, member.presence) = (state, presence);
    members
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn ip(text: &str) -> ServiceIp {
    text.parse().unwrap()
}

/// Two Services for all nodes, and one for the nodes of a rack, of which one is excluded.
const USERS: &str = "\
{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: all}, spec: {addresses: [10.0.0.0/24]}}
---
{apiVersion: metallb.io/v1beta1, kind: IPAddressPool, metadata: {name: racked}, spec: {addresses: [10.0.1.0/24]}}
---
{apiVersion: metallb.io/v1beta1, kind: L2Advertisement, metadata: {name: all}, spec: {ipAddressPools: [all], interfaces: [eth0]}}
---
{apiVersion: metallb.io/v1beta1, kind: L2Advertisement, metadata: {name: racked}, spec: {ipAddressPools: [racked],
  nodeSelectors: [{matchLabels: {rack: one}}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n3, labels: {rack: one}}}
---
{apiVersion: v1, kind: Node, metadata: {name: n4, labels: {rack: one, node.kubernetes.io/exclude-from-external-load-balancers: ''}}}
---
{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {type: LoadBalancer}, status: {loadBalancer: {ingress: [{ip: 10.0.0.3}]}}}
---
{apiVersion: v1, kind: Service, metadata: {name: b}, spec: {type: LoadBalancer}, status: {loadBalancer: {ingress: [{ip: 10.0.0.5}]}}}
---
{apiVersion: v1, kind: Service, metadata: {name: racked}, spec: {type: LoadBalancer}, status: {loadBalancer: {ingress: [{ip: 10.0.1.1}]}}}
";
