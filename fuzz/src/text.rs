//! Text that people write.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use garpike_controller_api::manifests::{OVERRIDES_FILE, STATUS_FILE, parse_documents};
use garpike_controller_api::{AddressRange, Objects, Scope, desired, legacy, validate};
use garpike_election::{Member, Members, NodeName, NodeState, Selection, ServiceIp, elect};

/// Reads manifests, a status file and a file of overrides, judges them and elects with the result.
///
/// # Panics
///
/// When a problem is not one plain line, or an address is desired that no pool has or no Service holds, moved without
/// being desired, or owned by a node that is excluded.
pub fn manifests(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut objects = Objects::default();
    let mut problems = Vec::new();
    for file in ["fuzz.yaml", STATUS_FILE, OVERRIDES_FILE] {
        let (found, complaints) = parse_documents(file, text);
        problems.extend(complaints);
        problems.extend(objects.merge(found));
    }
    let (config, complaints) = validate(&objects, &Scope::default());
    problems.extend(complaints);
    let (desired, moves, complaints) = desired(&config, SystemTime::UNIX_EPOCH);
    problems.extend(complaints);
    for problem in problems {
        let line = problem.to_string();
        assert!(!line.chars().any(char::is_control), "a problem is not one plain line: {line:?}");
    }
    for (ip, address) in &desired.addresses {
        assert!(config.pools.containing(*ip).is_some(), "{ip} is in no pool");
        assert!(!address.services.is_empty(), "no Service holds {ip}");
    }
    let moved: BTreeSet<ServiceIp> = moves.iter().flat_map(|moved| &moved.addresses).copied().collect();
    assert!(desired.moves.keys().eq(&moved), "{moves:?} move {:?}", desired.moves);
    assert!(moved.iter().all(|ip| desired.addresses.contains_key(ip)), "{moves:?} move what no Service holds");
    let assignment = elect(&desired, &members());
    for (ip, elected) in &assignment.addresses {
        assert_eq!(elected.owner().is_none(), elected.unowned.is_some(), "{ip} has {elected:?}");
        assert!(elected.ranked.iter().all(|node| !desired.excluded.contains(node)), "{ip} has {elected:?}");
    }
}

/// Converts a configuration of an old release and reads the result.
///
/// # Panics
///
/// When a problem is not one plain line, or a result cannot be written or read as manifests.
pub fn configmap(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (resources, mut problems) = legacy::convert("fuzz.yaml", text);
    let yaml = legacy::render(&resources).expect("what was read as YAML can be written as YAML");
    let (objects, complaints) = parse_documents("result.yaml", &yaml);
    problems.extend(complaints);
    problems.extend(validate(&objects, &Scope::default()).1);
    for problem in problems {
        let line = problem.to_string();
        assert!(!line.contains("is not YAML") || resources.is_empty(), "the result is not YAML: {line}");
        assert!(!line.chars().any(char::is_control), "a problem is not one plain line: {line:?}");
    }
}

/// Parses an address range and prints it.
///
/// # Panics
///
/// When the range does not hold its own ends or its middle, one of them cannot serve, or its text does not mean the
/// same range.
pub fn address_range(data: &[u8]) {
    let Some(range) = std::str::from_utf8(data).ok().and_then(|text| text.parse::<AddressRange>().ok()) else { return };
    for ip in [range.first(), middle(&range), range.last()] {
        assert!(range.contains(ip), "{range} does not hold {ip}");
        assert!(ServiceIp::new(ip).is_ok(), "{range} holds {ip}, which cannot serve");
    }
    assert_eq!(range.count() == 1, range.first() == range.last(), "{range} has {} addresses", range.count());
    assert_eq!(range.to_string().parse(), Ok(range), "{range} means something else when it is read again");
}

fn middle(range: &AddressRange) -> IpAddr {
    match (range.first(), range.last()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => Ipv4Addr::from_bits(first.to_bits().midpoint(last.to_bits())).into(),
        (IpAddr::V6(first), IpAddr::V6(last)) => Ipv6Addr::from_bits(first.to_bits().midpoint(last.to_bits())).into(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("{range} has two families"),
    }
}

/// Three nodes as the examples name them, all alive.
fn members() -> Members {
    let member = Member::new(NodeState::Ready, Selection::All);
    let names = ["n1", "n2", "n3"].map(|name| name.parse::<NodeName>().expect("is a node name"));
    let [local, ..] = names.clone();
    Members { local, nodes: names.into_iter().map(|name| (name, member.clone())).collect() }
}
