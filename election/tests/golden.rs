//! The hash order against vectors that were computed by other programs.
//!
//! The rows of `reference` come from MetalLB's own unit tests and documents; those of `independent.txt` are made by
//! `tests/independent.py`, which knows nothing of this crate. CI runs that program and compares.

#![expect(clippy::unwrap_used, reason = "helpers of tests panic on bad fixtures")]

use garpike_election::{NodeName, ServiceIp, order, score};

#[test]
fn order_agrees_with_the_reference() {
    let reference = [
        ("node-a,node-b,node-c", "10.0.0.1", "node-b,node-a,node-c"),
        ("node-a,node-b,node-c", "10.0.0.2", "node-b,node-c,node-a"),
        ("node-a,node-b,node-c", "10.20.30.1", "node-b,node-c,node-a"),
        ("node-a,node-b,node-c", "192.168.1.240", "node-a,node-c,node-b"),
        ("node-a,node-b,node-c", "2001:db8::1", "node-b,node-a,node-c"),
        ("iris1,iris2", "10.20.30.1", "iris2,iris1"),
        ("iris1,iris2", "10.20.30.2", "iris1,iris2"),
        ("iris1,iris2", "10.20.30.3", "iris1,iris2"),
        ("kind-control-plane,kind-worker,kind-worker2", "192.168.1.240", "kind-control-plane,kind-worker2,kind-worker"),
    ];
    for (nodes, ip, expected) in reference {
        assert_eq!(ordered(nodes, ip), expected, "{nodes} {ip}");
    }
}

#[test]
fn order_agrees_with_an_independent_program() {
    let vectors = include_str!("independent.txt");
    let mut rows = 0;
    for line in vectors.lines().filter(|line| !line.starts_with('#')) {
        let mut fields = line.split(' ');
        let (nodes, ip, expected) = (fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap());
        assert_eq!(ordered(nodes, ip), expected, "{nodes} {ip}");
        rows += 1;
    }
    assert_eq!(rows, 200);
}

#[test]
fn score_is_the_sha256_of_the_text() {
    let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();

    assert_eq!(
        hex(score(&node("node-a"), ip("10.0.0.1"))),
        "dd41591fe8f31f9f38e297fe9892a8eff47892ea017c4167619a62f366fb8149"
    );
    assert_eq!(
        hex(score(&node("kind-worker"), ip("2001:db8::1"))),
        "69cb1ab6ea4554879409e059a5b151675b3a8b97cf06593a24fa60b5dcfb343d"
    );
}

fn ordered(nodes: &str, key: &str) -> String {
    let nodes: Vec<NodeName> = nodes.split(',').map(node).collect();
    let names: Vec<&str> = order(&nodes, ip(key)).into_iter().map(NodeName::as_str).collect();
    names.join(",")
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn ip(text: &str) -> ServiceIp {
    text.parse().unwrap()
}
