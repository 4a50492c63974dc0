//! The kinds that only BGP uses: accepted as data, with the checks that do not depend on a running router.

use std::net::{IpAddr, Ipv4Addr};

use garpike_controller_api::{
    AddressRange, BGPAdvertisement, BGPPeer, Community, Family, FieldPath, IPAddressPool, Labels, Problem, Selector,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;

/// What everybody is told who writes such an object.
pub(super) fn inactive() -> Problem {
    Problem::warning("is accepted, BGP is not active")
}

/// What is wrong with names of communities, each of which may be there once.
pub(super) fn community(object: &Community, all: &[Community]) -> Vec<Problem> {
    let others = all.iter().filter(|other| other.name_any() != object.name_any());
    let taken: Vec<&str> = others.flat_map(|other| &other.spec.communities).map(|alias| alias.name.as_str()).collect();
    let mut problems = Vec::new();
    let names: Vec<&str> = object.spec.communities.iter().map(|alias| alias.name.as_str()).collect();
    for (index, alias) in object.spec.communities.iter().enumerate() {
        let field = FieldPath::of(["spec", "communities"]).index(index);
        if taken.contains(&alias.name.as_str()) || names.iter().take(index).any(|name| *name == alias.name) {
            let text = format!("duplicate definition of community \"{}\"", alias.name);
            problems.push(Problem::error(text).at(field.key("name")).mend("give each name once"));
        }
        problems.extend(community_value(&alias.value).map(|problem| problem.at(field.key("value"))));
    }
    problems
}

/// What is wrong with a community: two numbers of 16 bits, or `large` and three of 32 bits.
fn community_value(value: &str) -> Option<Problem> {
    let parts: Vec<&str> = value.split(':').collect();
    let wrong = match parts.as_slice() {
        [high, low] => [high, low].into_iter().find(|part| part.parse::<u16>().is_err()),
        ["large", rest @ ..] if rest.len() == 3 => rest.iter().find(|part| part.parse::<u32>().is_err()),
        [_, _, _, _] => {
            let text = format!("invalid community value: \"{value}\"; expected community to be of format large:A:B:C");
            return Some(Problem::error(text));
        }
        _ => {
            let text = format!("invalid community format: \"{value}\"");
            return Some(Problem::error(text).mend("write A:B, or large:A:B:C"));
        }
    };
    let text = format!("invalid community value: invalid section \"{}\" of community \"{value}\"", wrong?);
    Some(Problem::error(text).mend("write numbers from 0 to 65535, after large: from 0 to 4294967295"))
}

/// What is wrong with an advertisement.
pub(super) fn advertisement(object: &BGPAdvertisement, pools: &[IPAddressPool]) -> Vec<Problem> {
    let spec = &object.spec;
    let field = |name: &str| FieldPath::of(["spec", name]);
    let mut problems = vec![inactive()];
    for (name, list) in
        [("ipAddressPools", &spec.ip_address_pools), ("communities", &spec.communities), ("peers", &spec.peers)]
    {
        for (index, item) in
            list.iter().enumerate().filter(|(index, item)| list.iter().take(*index).any(|one| one == *item))
        {
            problems.push(Problem::error("is there twice").at(field(name).index(index)).value(item));
        }
    }
    // A word without colon is the name of a Community, which may come later.
    for (index, value) in spec.communities.iter().enumerate().filter(|(_, value)| value.contains(':')) {
        problems.extend(community_value(value).map(|problem| problem.at(field("communities").index(index))));
    }
    for (name, list) in [
        ("ipAddressPoolSelectors", &spec.ip_address_pool_selectors),
        ("nodeSelectors", &spec.node_selectors),
        ("serviceSelectors", &spec.service_selectors),
    ] {
        problems.extend(selectors(list, &field(name)));
    }
    let lengths = [
        (Family::V4, spec.aggregation_length.unwrap_or(32), 32),
        (Family::V6, spec.aggregation_length_v6.unwrap_or(128), 128),
    ];
    for (family, length, most) in lengths {
        if length > most {
            let text = format!("invalid aggregation length {length} for {}", family.as_str());
            problems.push(Problem::error(text).mend(format!("write a number up to {most}")));
        }
        for pool in pools.iter().filter(|pool| selects(object, pool)) {
            problems.extend(too_specific(pool, family, length));
        }
    }
    problems
}

fn selects(object: &BGPAdvertisement, pool: &IPAddressPool) -> bool {
    let spec = &object.spec;
    let labels: Labels = pool.metadata.labels.clone().into();
    let selectors: Vec<Selector> =
        spec.ip_address_pool_selectors.iter().filter_map(|selector| Selector::new(selector).ok()).collect();
    (spec.ip_address_pools.is_empty() && spec.ip_address_pool_selectors.is_empty())
        || spec.ip_address_pools.contains(&pool.name_any())
        || (!selectors.is_empty() && labels.match_any(&selectors))
}

/// Complains where not even the widest block of a range fills a prefix of that length.
fn too_specific(pool: &IPAddressPool, family: Family, length: i32) -> Option<Problem> {
    pool.spec.addresses.iter().find_map(|text| {
        let range: AddressRange = text.parse().ok().filter(|range: &AddressRange| range.family() == family)?;
        let widest = widest_prefix(&range);
        (length < widest).then(|| {
            Problem::error(format!(
                "invalid aggregation length {length}: prefix {widest} in this pool is more specific than the aggregation \
                 length for addresses {text}"
            ))
        })
    })
}

/// The length of the shortest prefix that lies in the range.
fn widest_prefix(range: &AddressRange) -> i32 {
    let (first, last, bits) = match (range.first(), range.last()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (u128::from(first.to_bits()), u128::from(last.to_bits()), 32),
        (first, last) => (to_bits(first), to_bits(last), 128),
    };
    let fits = |length: &i32| {
        let Some(size) = 1_u128.checked_shl((bits - length).unsigned_abs()).filter(|_| bits - length < 128) else {
            return first == 0 && last == u128::MAX;
        };
        let aligned = first.checked_next_multiple_of(size);
        aligned.and_then(|start| start.checked_add(size - 1)).is_some_and(|end| end <= last)
    };
    (0..bits).find(fits).unwrap_or(bits)
}

fn to_bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// What is wrong with a peer.
pub(super) fn peer(object: &BGPPeer, all: &[BGPPeer]) -> Vec<Problem> {
    let spec = &object.spec;
    let field = |name: &str| FieldPath::of(["spec", name]);
    if spec.disable_mp == Some(true) {
        let problem = Problem::warning("is deprecated and has no effect").at(field("disableMP"));
        return vec![inactive(), problem.mend("leave it out")];
    }
    let mut problems = vec![inactive()];
    if spec.peer_asn.unwrap_or(0) == 0 && spec.dynamic_asn.is_none() {
        problems.push(Problem::error("is missing").at(field("peerASN")).mend("write peerASN or dynamicASN"));
    }
    if spec.peer_asn.unwrap_or(0) != 0 && spec.dynamic_asn.is_some() {
        problems.push(Problem::error("is there beside dynamicASN").at(field("peerASN")).mend("write one of the two"));
    }
    let address = spec.peer_address.as_deref().filter(|address| !address.is_empty());
    let interface = spec.interface.as_deref().filter(|interface| !interface.is_empty());
    match (address, interface) {
        (Some(address), None) if address.parse::<IpAddr>().is_err() => {
            let text = format!("invalid BGPPeer address \"{address}\"");
            problems.push(Problem::error(text).at(field("peerAddress")).mend("write an IPv4 or IPv6 address"));
        }
        (Some(_), None) | (None, Some(_)) => {}
        (Some(_), Some(_)) | (None, None) => {
            let problem = Problem::error("and spec.interface: exactly one of the two is needed");
            problems.push(problem.at(field("peerAddress")));
        }
    }
    if let Some(source) = spec.source_address.as_deref().filter(|source| source.parse::<IpAddr>().is_err()) {
        problems.push(Problem::error("is not an address").at(field("sourceAddress")).value(source));
    }
    if let Some(id) = spec.router_id.as_deref().filter(|id| id.parse::<Ipv4Addr>().is_err()) {
        problems.push(
            Problem::error("is not a router ID")
                .at(field("routerID"))
                .value(id)
                .mend("write four numbers, as in 10.0.0.1"),
        );
    }
    if spec.password.as_ref().is_some_and(|password| !password.is_empty()) && spec.password_secret.is_some() {
        problems
            .push(Problem::error("is there beside passwordSecret").at(field("password")).mend("write one of the two"));
    }
    problems.extend(selectors(&spec.node_selectors, &field("nodeSelectors")));
    let same = |other: &&BGPPeer| other.name_any() != object.name_any() && other.spec == *spec;
    if let Some(other) = all.iter().find(same) {
        problems.push(Problem::error(format!("peer {} already exists, with the same spec", other.name_any())));
    }
    problems
}

/// Refuses to delete a profile that a peer names.
pub(super) fn deletion(profile: &str, peers: &[BGPPeer]) -> Vec<Problem> {
    let user = peers.iter().find(|peer| peer.spec.bfd_profile.as_deref() == Some(profile));
    let problem = |peer: &BGPPeer| {
        Problem::error(format!("failed to delete BFDProfile {profile}, used by BGPPeer {}", peer.name_any()))
            .mend("take spec.bfdProfile out of the BGPPeer first")
    };
    user.map(problem).into_iter().collect()
}

fn selectors(list: &[LabelSelector], field: &FieldPath) -> Vec<Problem> {
    let problem = |(index, selector)| {
        let error = Selector::new(selector).err()?;
        Some(Problem::error(error.to_string()).at(field.index(index)))
    };
    list.iter().enumerate().filter_map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_block_of_a_range_is_found() {
        for (text, expected) in [
            ("10.0.0.0/24", 24),
            ("10.0.0.1-10.0.0.254", 26),
            ("10.0.0.1-10.0.0.1", 32),
            ("0.0.0.1-255.255.255.254", 2),
            ("fc00::/64", 64),
            ("fc00::1-fc00::8", 126),
        ] {
            if let Ok(range) = text.parse::<AddressRange>() {
                assert_eq!(widest_prefix(&range), expected, "{text}");
            } else {
                assert_eq!(text, "0.0.0.1-255.255.255.254", "only this one is no range of service IPs");
            }
        }
    }

    #[test]
    fn communities_are_two_or_three_numbers() {
        for (value, named) in [
            ("65535:65281", None),
            ("large:1:2:4294967295", None),
            ("65536:1", Some("invalid community value: invalid section \"65536\"")),
            ("large:1:2:x", Some("invalid community value: invalid section \"x\"")),
            ("lrge:1:2:3", Some("expected community to be of format large")),
            ("1:2:3", Some("invalid community format")),
            ("", Some("invalid community format")),
        ] {
            let text = community_value(value).map(|problem| problem.to_string());
            match (text, named) {
                (None, None) => {}
                (Some(text), Some(named)) => assert!(text.contains(named), "{text}"),
                (text, named) => panic!("{value}: {text:?}, expected {named:?}"),
            }
        }
    }
}
