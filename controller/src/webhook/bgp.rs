//! The kinds that only BGP uses: accepted as data, with the checks that do not depend on a running router.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use garpike_controller_api::legacy::go_duration;
use garpike_controller_api::{
    AddressRange, BGPAdvertisement, BGPAdvertisementSpec, BGPPeer, BGPPeerSpec, DynamicAsn, Family, FieldPath,
    IPAddressPool, Labels, Problem, Selector, invalid_community,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;

use super::live::Live;

/// What everybody is told who writes such an object.
pub(super) fn inactive() -> Problem {
    Problem::warning("is accepted, BGP is not active")
}

/// What is wrong with an advertisement.
pub(super) fn advertisement(object: &BGPAdvertisement, live: &Live) -> Vec<Problem> {
    let (spec, pools) = (&object.spec, &live.pools);
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
    let known = |name: &String| {
        live.communities.iter().any(|object| object.spec.communities.iter().any(|alias| alias.name == *name))
    };
    for (index, value) in spec.communities.iter().enumerate() {
        let field = field("communities").index(index);
        if value.contains(':') {
            problems.extend(invalid_community(value).map(|problem| problem.at(field)));
        } else if !known(value) {
            // The name of a Community, which may come later.
            let problem = Problem::warning("is not the name of a community").at(field).value(value);
            problems.push(problem.mend("define it in a Community object"));
        }
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
    let others = live.bgp_advertisements.iter().filter(|other| other.name_any() != object.name_any());
    problems.extend(others.filter_map(|other| contradiction(object, other, live)));
    problems
}

/// Complains of an advertisement that says the same as this one, or another preference for the same routes.
fn contradiction(object: &BGPAdvertisement, other: &BGPAdvertisement, live: &Live) -> Option<Problem> {
    let (spec, theirs) = (&object.spec, &other.spec);
    if spec == theirs {
        return Some(Problem::error(format!(
            "BGPAdvertisement {} already exists, with the same spec",
            other.name_any()
        )));
    }
    let lengths = |spec: &BGPAdvertisementSpec| {
        (spec.aggregation_length.unwrap_or(32), spec.aggregation_length_v6.unwrap_or(128))
    };
    let same_peer =
        spec.peers.is_empty() || theirs.peers.is_empty() || spec.peers.iter().any(|peer| theirs.peers.contains(peer));
    let same_pool = live.pools.iter().any(|pool| selects(object, pool) && selects(other, pool));
    let differ = spec.local_pref.unwrap_or(0) != theirs.local_pref.unwrap_or(0);
    if !differ || lengths(spec) != lengths(theirs) || !same_peer || !same_pool || !share_a_node(spec, theirs, live) {
        return None;
    }
    let text = format!(
        "contradicts BGPAdvertisement {}, which sets {} for a pool, aggregation length, peer and node that both mean",
        other.name_any(),
        theirs.local_pref.unwrap_or(0)
    );
    let problem = Problem::error(text).at(FieldPath::of(["spec", "localPref"])).value(spec.local_pref.unwrap_or(0));
    Some(problem.mend("write the same localPref in both"))
}

/// Whether some node is meant by both. Where the nodes cannot be read, only equal words mean the same.
fn share_a_node(one: &BGPAdvertisementSpec, other: &BGPAdvertisementSpec, live: &Live) -> bool {
    if one.node_selectors.is_empty() || other.node_selectors.is_empty() {
        return true;
    }
    let Some(nodes) = &live.nodes else { return one.node_selectors == other.node_selectors };
    let read =
        |list: &[LabelSelector]| list.iter().filter_map(|selector| Selector::new(selector).ok()).collect::<Vec<_>>();
    let (one, other) = (read(&one.node_selectors), read(&other.node_selectors));
    nodes.iter().any(|node| {
        let labels: Labels = node.metadata.labels.clone().into();
        labels.match_any(&one) && labels.match_any(&other)
    })
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
    if spec.my_asn == 0 {
        problems
            .push(Problem::error("is missing").at(field("myASN")).mend("write the number of our autonomous system"));
    }
    let is_internal = spec.dynamic_asn == Some(DynamicAsn::Internal) || spec.peer_asn == Some(spec.my_asn);
    if spec.ebgp_multi_hop == Some(true) && is_internal {
        let problem = Problem::error("is set for a peer of our own autonomous system").at(field("ebgpMultiHop"));
        problems.push(problem.mend("leave it out"));
    }
    problems.extend(timers(spec));
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

/// What is wrong with the times of a peer. One that is missing follows from the other: three signs of life in a hold time.
fn timers(spec: &BGPPeerSpec) -> Vec<Problem> {
    let field = |name: &str| FieldPath::of(["spec", name]);
    let mut problems = Vec::new();
    let mut read = |name: &str, text: &Option<String>| {
        let time = text.as_deref().map(|text| go_duration(text).ok_or(text));
        match time {
            Some(Err(text)) => {
                let problem = Problem::error("is not a duration").at(field(name)).value(text);
                problems.push(problem.mend("write it as in 90s"));
                None
            }
            Some(Ok(time)) => Some(time),
            None => None,
        }
    };
    let (hold, keepalive) = (read("holdTime", &spec.hold_time), read("keepaliveTime", &spec.keepalive_time));
    let hold = hold.or_else(|| keepalive.map(|keepalive| keepalive.saturating_mul(3)));
    if let Some(hold) = hold.filter(|hold| !hold.is_zero() && *hold < SHORTEST_HOLD) {
        let problem = Problem::error(format!("invalid hold time {hold:?}")).at(field("holdTime"));
        problems.push(problem.mend("write 0s, or 3s at least"));
    }
    if let (Some(hold), Some(keepalive)) = (hold, keepalive)
        && keepalive > hold
    {
        let problem = Problem::error(format!("is longer than the hold time {hold:?}")).at(field("keepaliveTime"));
        problems.push(problem.mend("write a third of it"));
    }
    problems
}

fn selectors(list: &[LabelSelector], field: &FieldPath) -> Vec<Problem> {
    let mut read: Vec<Selector> = Vec::new();
    let mut problems = Vec::new();
    for (index, selector) in list.iter().enumerate() {
        match Selector::new(selector) {
            Ok(selector) if read.contains(&selector) => {
                let text = format!("selects \"{selector}\" a second time");
                problems.push(Problem::error(text).at(field.index(index)).mend("remove one of the two"));
            }
            Ok(selector) => read.push(selector),
            Err(error) => problems.push(Problem::error(error.to_string()).at(field.index(index))),
        }
    }
    problems
}

/// RFC 4271 section 4.2: the hold time must be zero or at least three seconds.
const SHORTEST_HOLD: Duration = Duration::from_secs(3);

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
}
