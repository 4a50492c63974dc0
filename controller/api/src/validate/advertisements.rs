//! L2Advertisements.

use std::collections::{BTreeMap, BTreeSet};

use garpike_election::{InterfaceName, NodeName, Selection};

use super::{Complaints, Scope, Subject};
use crate::Selector;
use crate::config::{Advertisement, Node, PoolName, Pools};
use crate::objects::{ObjectKey, Objects, Sourced};
use crate::problem::{FieldPath, Problem};
use crate::{L2Advertisement, L2AdvertisementSpec};

/// The advertisements that are right.
pub(super) fn validate(
    objects: &Objects,
    scope: &Scope,
    pools: &Pools,
    nodes: &BTreeMap<NodeName, Node>,
    problems: &mut Vec<Problem>,
) -> Vec<Advertisement> {
    let mut advertisements = Vec::new();
    for (key, Sourced { object, source }) in &objects.advertisements {
        let mut complaints = Complaints::new(Subject { kind: "L2Advertisement", key }, source, problems);
        if !complaints.in_scope(scope) {
            continue;
        }
        let known = |name: &String| objects.pools.contains_key(&ObjectKey { name: name.clone(), ..key.clone() });
        let advertisement = read(key, object, pools, nodes, known, &mut complaints);
        if !complaints.any_error() {
            advertisements.push(advertisement);
        }
    }
    advertisements
}

fn read(
    key: &ObjectKey,
    object: &L2Advertisement,
    pools: &Pools,
    nodes: &BTreeMap<NodeName, Node>,
    is_pool: impl Fn(&String) -> bool,
    complaints: &mut Complaints<'_>,
) -> Advertisement {
    let spec = &object.spec;
    let field = |name: &str| FieldPath::of(["spec", name]);
    complaints.distinct(&field("ipAddressPools"), &spec.ip_address_pools);
    for (index, name) in spec.ip_address_pools.iter().enumerate().filter(|(_, name)| !is_pool(name)) {
        let problem = Problem::warning("is not the name of an IPAddressPool");
        complaints.add(problem.at(field("ipAddressPools").index(index)).value(name));
    }
    let pool_selectors = complaints.selectors(&field("ipAddressPoolSelectors"), &spec.ip_address_pool_selectors);
    let node_selectors = complaints.selectors(&field("nodeSelectors"), &spec.node_selectors);
    let service_selectors = complaints.selectors(&field("serviceSelectors"), &spec.service_selectors);
    let advertisement = Advertisement {
        name: key.name.clone(),
        pools: selected_pools(spec, &pool_selectors, pools),
        nodes: selected_nodes(&node_selectors, nodes),
        interfaces: interfaces(spec, complaints),
        service_selectors,
    };
    if advertisement.nodes == Selection::Only(BTreeSet::new()) {
        let problem = Problem::warning("match no Node object, so nobody announces by this advertisement");
        complaints.add(problem.at(field("nodeSelectors")).mend("add the Node objects with their labels"));
    }
    check_preferences(spec, &field("preferredNodeSelectors"), complaints);
    advertisement
}

fn selected_pools(spec: &L2AdvertisementSpec, selectors: &[Selector], pools: &Pools) -> Selection<PoolName> {
    if spec.ip_address_pools.is_empty() && spec.ip_address_pool_selectors.is_empty() {
        return Selection::All;
    }
    let named = spec.ip_address_pools.iter().cloned().map(PoolName);
    let matching = pools.iter().filter(|pool| pool.labels.match_any(selectors)).map(|pool| pool.name.clone());
    Selection::Only(named.chain(matching).collect())
}

fn selected_nodes(selectors: &[Selector], nodes: &BTreeMap<NodeName, Node>) -> Selection<NodeName> {
    if selectors.is_empty() {
        return Selection::All;
    }
    let matching = nodes.iter().filter(|(_, node)| node.labels.match_any(selectors));
    Selection::Only(matching.map(|(name, _)| name.clone()).collect())
}

fn interfaces(spec: &L2AdvertisementSpec, complaints: &mut Complaints<'_>) -> Selection<InterfaceName> {
    if spec.interfaces.is_empty() {
        return Selection::All;
    }
    let mut interfaces = BTreeSet::new();
    for (index, name) in spec.interfaces.iter().enumerate() {
        match InterfaceName::new(name) {
            Ok(name) => {
                interfaces.insert(name);
            }
            Err(error) => {
                let field = FieldPath::of(["spec", "interfaces"]).index(index);
                complaints.add(Problem::error(error.to_string()).at(field));
            }
        }
    }
    Selection::Only(interfaces)
}

fn check_preferences(spec: &L2AdvertisementSpec, field: &FieldPath, complaints: &mut Complaints<'_>) {
    for (index, preferred) in spec.preferred_node_selectors.iter().enumerate() {
        if !(1..=100).contains(&preferred.weight) {
            let problem = Problem::error("is not a weight").value(preferred.weight);
            complaints.add(problem.at(field.index(index).key("weight")).mend("write a number from 1 to 100"));
        }
        if let Err(error) = Selector::new(&preferred.preference) {
            complaints.add(Problem::error(error.to_string()).at(field.index(index).key("preference")));
        }
    }
    if !spec.preferred_node_selectors.is_empty() {
        let problem = Problem::warning("are accepted and do not change who announces");
        complaints.add(problem.at(field.clone()).mend("use nodeSelectors to restrict the nodes"));
    }
}
