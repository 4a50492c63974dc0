//! What is refused, what is not, and the words that MetalLB's own tests look for.

use serde_json::json;

use super::*;

#[test]
fn a_pool_that_overlaps_with_another_is_refused_and_named() {
    let live = live(&[pool("one", "10.0.0.0/24", 1)], &[]);

    let text = denied(judge(Subject::Pool, &create(&pool("two", "10.0.0.9-10.0.1.9", 2)), &live, NAMESPACE));

    assert!(text.contains("overlaps with already defined CIDR"), "{text}");
    assert!(text.starts_with("IPAddressPool metallb-system/two: spec.addresses[0]: \"10.0.0.9-10.0.1.9\""), "{text}");
}

#[test]
fn a_pool_that_grows_into_a_younger_one_is_refused() {
    let older = pool("older", "10.0.0.0/24", 1);
    let live = live(&[older.clone(), pool("younger", "10.0.1.0/24", 2)], &[]);

    let text = denied(judge(Subject::Pool, &update(&older, &pool("older", "10.0.0.0/23", 1)), &live, NAMESPACE));

    assert!(text.contains("overlaps with already defined CIDR"), "{text}");
}

#[test]
fn a_bad_object_that_is_there_stands_in_nobodys_way() {
    let bad = [pool("bad", "10.0.0.0/33", 1), pool("a", "10.1.0.0/24", 2), pool("b", "10.1.0.0/24", 3)];
    let live = live(&bad, &[]);

    assert_eq!(
        judge(Subject::Pool, &create(&pool("new", "10.2.0.0/24", 4)), &live, NAMESPACE),
        Verdict::Allowed(vec![])
    );
    // Nor in its own, while what is wrong stays as it is.
    let labelled = {
        let mut pool = pool("bad", "10.0.0.0/33", 1);
        pool["metadata"]["labels"] = json!({"a": "b"});
        pool
    };
    assert_eq!(judge(Subject::Pool, &update(&bad[0], &labelled), &live, NAMESPACE), Verdict::Allowed(vec![]));
    let mended = update(&bad[0], &pool("bad", "10.3.0.0/24", 1));
    assert_eq!(judge(Subject::Pool, &mended, &live, NAMESPACE), Verdict::Allowed(vec![]));
}

#[test]
fn every_kind_must_be_in_the_namespace_when_it_is_made() {
    for (subject, kind) in KINDS {
        let object = json!({"kind": kind, "metadata": {"name": "x", "namespace": "default"}, "spec": {}});
        let text = denied(judge(subject, &create(&object), &Live::default(), NAMESPACE));
        assert!(text.contains("resource must be created in metallb-system namespace"), "{kind}: {text}");
    }
}

#[test]
fn bad_fields_are_refused_with_field_value_and_rule() {
    let bad = |subject, kind: &str, spec: Value| {
        let object = json!({"kind": kind, "metadata": {"name": "x", "namespace": NAMESPACE}, "spec": spec});
        denied(judge(subject, &create(&object), &Live::default(), NAMESPACE))
    };
    let selector = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
    for (subject, kind, spec, named) in [
        (Subject::Pool, "IPAddressPool", json!({"addresses": []}), "spec.addresses: holds no address"),
        (Subject::Pool, "IPAddressPool", json!({"addresses": ["10.0.0.1"]}), "spec.addresses[0]: \"10.0.0.1\""),
        (Subject::Pool, "IPAddressPool", json!({"addresses": ["10.0.0.9-10.0.0.1"]}), "spec.addresses[0]"),
        (
            Subject::Pool,
            "IPAddressPool",
            json!({"addresses": ["10.0.0.0/24"], "serviceAllocation": {"namespaces": ["a", "a"]}}),
            "spec.serviceAllocation.namespaces[1]: \"a\" is there twice",
        ),
        (Subject::L2Advertisement, "L2Advertisement", json!({"nodeSelectors": [selector]}), "spec.nodeSelectors[0]"),
        (Subject::L2Advertisement, "L2Advertisement", json!({"ipAddressPools": ["p", "p"]}), "is there twice"),
        (
            Subject::Community,
            "Community",
            json!({"communities": [{"name": "a", "value": "1:99999"}]}),
            "invalid community value: invalid section",
        ),
        (
            Subject::BgpPeer,
            "BGPPeer",
            json!({"myASN": 1, "peerASN": 2, "peerAddress": "1.2.3.400"}),
            "invalid BGPPeer address \"1.2.3.400\"",
        ),
        (
            Subject::BgpAdvertisement,
            "BGPAdvertisement",
            json!({"aggregationLength": 33}),
            "invalid aggregation length 33",
        ),
        (
            Subject::BgpAdvertisement,
            "BGPAdvertisement",
            json!({"nodeSelectors": [{"matchLabels": {"a": "b"}}, {"matchLabels": {"a": "b"}}]}),
            "spec.nodeSelectors[1]: selects",
        ),
        (Subject::BgpPeer, "BGPPeer", peer(&json!({"holdTime": "2s"})), "spec.holdTime: invalid hold time 2s"),
        (
            Subject::BgpPeer,
            "BGPPeer",
            peer(&json!({"keepaliveTime": "0.5s", "holdTime": "x"})),
            "\"x\" is not a duration",
        ),
        (
            Subject::BgpPeer,
            "BGPPeer",
            peer(&json!({"holdTime": "9s", "keepaliveTime": "10s"})),
            "spec.keepaliveTime: is longer than the hold time 9s",
        ),
        (Subject::BgpPeer, "BGPPeer", peer(&json!({"myASN": 0})), "spec.myASN: is missing"),
        (Subject::BgpPeer, "BGPPeer", peer(&json!({"peerASN": 1, "ebgpMultiHop": true})), "spec.ebgpMultiHop: is set"),
        (
            Subject::BgpPeer,
            "BGPPeer",
            peer(&json!({"dynamicASN": "external"})),
            "spec.peerASN: is there beside dynamicASN",
        ),
        (Subject::BgpPeer, "BGPPeer", json!({"peerASN": "x"}), "cannot be read"),
    ] {
        let text = bad(subject, kind, spec);
        assert!(text.contains(named), "{text}");
        assert!(text.starts_with(&format!("{kind} metallb-system/x: ")), "{text}");
    }
}

#[test]
fn an_alias_is_defined_once_in_all_communities() {
    let community = |name: &str, alias: &str| {
        json!({
            "kind": "Community", "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"communities": [{"name": alias, "value": "1:1"}]},
        })
    };
    let live = Live { communities: vec![parse(community("one", "x")).unwrap()], ..Live::default() };

    let text = denied(judge(Subject::Community, &create(&community("two", "x")), &live, NAMESPACE));
    assert!(text.contains("duplicate definition of community \"x\""), "{text}");
    let same = update(&community("one", "y"), &community("one", "x"));
    assert_eq!(judge(Subject::Community, &same, &live, NAMESPACE), Verdict::Allowed(vec![]));
}

#[test]
fn a_profile_in_use_is_not_deleted() {
    let peer = json!({
        "kind": "BGPPeer", "metadata": {"name": "p", "namespace": NAMESPACE},
        "spec": {"myASN": 1, "peerASN": 2, "peerAddress": "10.0.0.1", "bfdProfile": "fast"},
    });
    let live = Live { peers: vec![parse(peer).unwrap()], ..Live::default() };
    let delete = |name: &str| {
        let asked = json!({"uid": "u", "operation": "DELETE", "namespace": NAMESPACE, "name": name, "kind": {"kind": "BFDProfile"}});
        judge(Subject::BfdProfile, &review(&asked), &live, NAMESPACE)
    };

    assert!(denied(delete("fast")).contains("failed to delete BFDProfile fast, used by BGPPeer p"));
    assert_eq!(delete("slow"), Verdict::Allowed(vec![]));
}

#[test]
fn an_aggregation_that_is_shorter_than_the_pools_is_refused() {
    let live = live(&[pool("p", "10.0.0.0/26", 1)], &[]);
    let object = json!({
        "kind": "BGPAdvertisement", "metadata": {"name": "x", "namespace": NAMESPACE}, "spec": {"aggregationLength": 24},
    });

    let text = denied(judge(Subject::BgpAdvertisement, &create(&object), &live, NAMESPACE));

    let sentence = "invalid aggregation length 24: prefix 26 in this pool is more specific than the aggregation length for \
                    addresses 10.0.0.0/26";
    assert!(text.contains(sentence), "{text}");
}

#[test]
fn two_advertisements_do_not_contradict_each_other() {
    let advertisement = |name: &str, spec: &Value| json!({"kind": "BGPAdvertisement", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec});
    let node = |name: &str, rack: &str| {
        serde_json::from_value(json!({"metadata": {"name": name, "labels": {"rack": rack}}})).unwrap()
    };
    let rack = |rack: &str| json!([{"matchLabels": {"rack": rack}}]);
    let there = json!({"localPref": 100, "peers": ["a", "b"], "nodeSelectors": rack("1")});
    let live = Live {
        bgp_advertisements: vec![parse(advertisement("there", &there)).unwrap()],
        nodes: Some(vec![node("n1", "1"), node("n2", "2")]),
        ..live(&[pool("p", "10.0.0.0/24", 1)], &[])
    };
    let judged =
        |spec: Value| judge(Subject::BgpAdvertisement, &create(&advertisement("new", &spec)), &live, NAMESPACE);

    assert!(denied(judged(there.clone())).contains("BGPAdvertisement there already exists"));
    assert!(denied(judged(json!({"localPref": 200}))).contains("spec.localPref: \"200\" contradicts"));
    for spec in [
        json!({"localPref": 100}),
        json!({"localPref": 200, "peers": ["c"]}),
        json!({"localPref": 200, "nodeSelectors": rack("2")}),
        json!({"localPref": 200, "aggregationLength": 26}),
        json!({"localPref": 200, "ipAddressPools": ["other"]}),
    ] {
        assert!(matches!(judged(spec.clone()), Verdict::Allowed(_)), "{spec}");
    }
}

#[test]
fn a_community_that_nobody_has_defined_is_told_and_not_refused() {
    let community = json!({
        "kind": "Community", "metadata": {"name": "c", "namespace": NAMESPACE},
        "spec": {"communities": [{"name": "known", "value": "1:1"}]},
    });
    let live = Live { communities: vec![parse(community).unwrap()], ..Live::default() };
    let object = json!({
        "kind": "BGPAdvertisement", "metadata": {"name": "x", "namespace": NAMESPACE},
        "spec": {"communities": ["known", "unknown"]},
    });

    let Verdict::Allowed(warnings) = judge(Subject::BgpAdvertisement, &create(&object), &live, NAMESPACE) else {
        panic!("denied");
    };
    assert!(warnings.join(" ").contains("\"unknown\" is not the name of a community"), "{warnings:?}");
    assert!(!warnings.join(" ").contains("\"known\""), "{warnings:?}");
}

#[test]
fn what_has_no_effect_is_told_and_not_refused() {
    let advertisement = |spec: Value| json!({"kind": "L2Advertisement", "metadata": {"name": "x", "namespace": NAMESPACE}, "spec": spec});
    let warned = |spec: Value, live: &Live| match judge(
        Subject::L2Advertisement,
        &create(&advertisement(spec)),
        live,
        NAMESPACE,
    ) {
        Verdict::Allowed(warnings) => warnings.join("\n"),
        Verdict::Denied(text) => panic!("denied: {text}"),
    };
    let nodes = json!({"nodeSelectors": [{"matchLabels": {"a": "b"}}]});
    let node = serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {"a": "c"}}})).unwrap();

    assert!(
        warned(json!({"ipAddressPools": ["gone"]}), &Live::default())
            .contains("\"gone\" is not the name of an IPAddressPool")
    );
    assert_eq!(warned(nodes.clone(), &Live::default()), "");
    assert!(warned(nodes, &Live { nodes: Some(vec![node]), ..Live::default() }).contains("match no Node object"));
    let peer = json!({
        "kind": "BGPPeer", "metadata": {"name": "p", "namespace": NAMESPACE}, "spec": {"myASN": 1, "disableMP": true},
    });
    let Verdict::Allowed(warnings) = judge(Subject::BgpPeer, &create(&peer), &Live::default(), NAMESPACE) else {
        panic!("denied");
    };
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

#[test]
fn an_advertisement_needs_no_spec() {
    let object = json!({"kind": "L2Advertisement", "metadata": {"name": "all", "namespace": NAMESPACE}});

    assert_eq!(
        judge(Subject::L2Advertisement, &create(&object), &Live::default(), NAMESPACE),
        Verdict::Allowed(vec![])
    );
}

fn denied(verdict: Verdict) -> String {
    match verdict {
        Verdict::Denied(text) => text,
        Verdict::Allowed(warnings) => panic!("allowed, with {warnings:?}"),
    }
}

/// A good peer with some fields in place of its own.
fn peer(more: &Value) -> Value {
    let mut spec = json!({"myASN": 1, "peerASN": 2, "peerAddress": "10.0.0.1"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

fn pool(name: &str, addresses: &str, second: u32) -> Value {
    json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": {
            "name": name, "namespace": NAMESPACE, "creationTimestamp": format!("2026-11-21T12:00:{second:02}Z"),
        },
        "spec": {"addresses": [addresses]},
    })
}

fn live(pools: &[Value], advertisements: &[Value]) -> Live {
    Live {
        pools: pools.iter().cloned().filter_map(parse).collect(),
        advertisements: advertisements.iter().cloned().filter_map(parse).collect(),
        ..Live::default()
    }
}

fn create(object: &Value) -> Review {
    let metadata = &object["metadata"];
    review(&json!({
        "uid": "u", "operation": "CREATE", "namespace": metadata["namespace"], "name": metadata["name"], "object": object,
        "kind": {"kind": object["kind"]},
    }))
}

fn update(before: &Value, after: &Value) -> Review {
    let metadata = &after["metadata"];
    review(&json!({
        "uid": "u", "operation": "UPDATE", "namespace": metadata["namespace"], "name": metadata["name"], "object": after,
        "oldObject": before, "kind": {"kind": after["kind"]},
    }))
}

fn review(request: &Value) -> Review {
    Review::read(json!({"request": request}).to_string().as_bytes()).unwrap()
}

const NAMESPACE: &str = "metallb-system";
const KINDS: [(Subject, &str); 6] = [
    (Subject::Pool, "IPAddressPool"),
    (Subject::L2Advertisement, "L2Advertisement"),
    (Subject::BgpAdvertisement, "BGPAdvertisement"),
    (Subject::Community, "Community"),
    (Subject::BfdProfile, "BFDProfile"),
    (Subject::BgpPeer, "BGPPeer"),
];
