//! IPAddressPools.

use std::collections::{BTreeMap, BTreeSet};

use super::{Complaints, Scope, Subject};
use crate::config::{KeptFor, Overlap, Pool, PoolName, Pools};
use crate::objects::{ObjectKey, Objects, Sourced};
use crate::problem::{FieldPath, Problem};
use crate::{AddressRange, IPAddressPool, Labels, ServiceAllocation};

/// The pools that are right. Of two that overlap, the one made first stays, and where that is not known the one whose
/// name comes first.
pub(super) fn validate(
    objects: &Objects,
    scope: &Scope,
    namespaces: &BTreeMap<String, Labels>,
    problems: &mut Vec<Problem>,
) -> Pools {
    let mut pools = Pools::default();
    let mut by_age: Vec<(&ObjectKey, &Sourced<IPAddressPool>)> = objects.pools.iter().collect();
    by_age.sort_by_key(|(key, sourced)| {
        let created = &sourced.object.metadata.creation_timestamp;
        (created.is_none(), created, *key)
    });
    for (key, Sourced { object, source }) in by_age {
        let mut complaints = Complaints::new(Subject { kind: "IPAddressPool", key }, source, problems);
        if !complaints.in_scope(scope) {
            continue;
        }
        let pool = read(key, object, namespaces, &mut complaints);
        if complaints.any_error() {
            continue;
        }
        let written = object.spec.addresses.clone();
        if let Err(Overlap { index, taken, by }) = pools.insert(pool) {
            let value = written.get(index).cloned().unwrap_or_default();
            let problem = Problem::error(format!("overlaps with already defined CIDR or range {taken} of {by}"));
            let problem = problem.at(addresses().index(index)).value(value);
            complaints.add(problem.mend("give each address to one pool; this pool is left out whole"));
        }
    }
    pools
}

fn read(
    key: &ObjectKey,
    object: &IPAddressPool,
    namespaces: &BTreeMap<String, Labels>,
    complaints: &mut Complaints<'_>,
) -> Pool {
    let spec = &object.spec;
    if spec.addresses.is_empty() {
        let problem = Problem::error("holds no address").at(addresses());
        complaints.add(problem.mend("write CIDR such as 192.168.10.0/24 or START-END"));
    }
    let mut ranges = Vec::new();
    for (index, text) in spec.addresses.iter().enumerate() {
        match text.parse::<AddressRange>() {
            Ok(range) => ranges.push(range),
            Err(error) => {
                complaints.add(Problem::error(error.to_string()).at(addresses().index(index)).value(text));
            }
        }
    }
    Pool {
        name: PoolName(key.name.clone()),
        labels: object.metadata.labels.clone().into(),
        ranges,
        auto_assign: spec.auto_assign.unwrap_or(true),
        avoid_buggy_ips: spec.avoid_buggy_ips.unwrap_or(false),
        kept_for: spec.service_allocation.as_ref().map(|allocation| kept_for(allocation, namespaces, complaints)),
    }
}

fn kept_for(
    allocation: &ServiceAllocation,
    known: &BTreeMap<String, Labels>,
    complaints: &mut Complaints<'_>,
) -> KeptFor {
    let field = FieldPath::of(["spec", "serviceAllocation"]);
    complaints.distinct(&field.key("namespaces"), &allocation.namespaces);
    let selectors = complaints.selectors(&field.key("namespaceSelectors"), &allocation.namespace_selectors);
    let service_selectors = complaints.selectors(&field.key("serviceSelectors"), &allocation.service_selectors);
    let restricted = !allocation.namespaces.is_empty() || !allocation.namespace_selectors.is_empty();
    let namespaces = restricted.then(|| {
        let matching = known.iter().filter(|(_, labels)| labels.match_any(&selectors)).map(|(name, _)| name);
        allocation.namespaces.iter().chain(matching).cloned().collect::<BTreeSet<String>>()
    });
    KeptFor { priority: allocation.priority.unwrap_or(0), namespaces, service_selectors }
}

fn addresses() -> FieldPath {
    FieldPath::of(["spec", "addresses"])
}
