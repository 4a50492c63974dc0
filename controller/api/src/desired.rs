//! From the configuration to what the election needs.
//!
//! Speakers never invent an address: a Service without one is not announced. Nodes that read the same objects get the
//! same [`Desired`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use garpike_election::{Address, Desired, Endpoints, Placement, ServiceIp, ServiceKey};
use serde::{Deserialize, Serialize};

use crate::config::{Advertisement, Config, Holder, Pool, Request, Service};
use crate::objects::{Source, Sourced};
use crate::overrides::{ChosenOwner, OWNER_ANNOTATION};
use crate::problem::{FieldPath, Problem};

/// A choice of an owner that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The Services that it moves, the oldest first: all that are connected by shared addresses.
    pub services: Vec<ServiceKey>,
    /// Their addresses.
    pub addresses: BTreeSet<ServiceIp>,
    /// Where to, and until when.
    pub chosen: ChosenOwner,
    /// Where that is written.
    #[serde(skip)]
    pub source: Source,
}

/// Which addresses are to be answered at `now`, and where; and the choices of owners that are in force.
pub fn desired(config: &Config, now: SystemTime) -> (Desired, Vec<Move>, Vec<Problem>) {
    let mut problems = Vec::new();
    let bindings = bindings(config, &mut problems);
    let excluded = config.nodes.iter().filter(|(_, node)| node.excluded.is_some()).map(|(name, _)| name.clone());
    let mut addresses: BTreeMap<ServiceIp, (Address, BTreeSet<&ServiceKey>)> = BTreeMap::new();
    let mut moves = Vec::new();
    let mut choices = BTreeMap::new();
    for group in groups(&bindings) {
        let Some((election_key, _)) = group.first().and_then(|oldest| oldest.addresses.first()) else { continue };
        let placements = placements(config, &group, &mut problems);
        let endpoints = group.iter().map(|binding| binding.service.endpoints.clone());
        let endpoints = endpoints.reduce(Endpoints::of_both).unwrap_or(Endpoints::Nowhere);
        for binding in &group {
            for (ip, _) in &binding.addresses {
                let (_, services) = addresses.entry(*ip).or_insert_with(|| {
                    let (placements, endpoints) = (placements.clone(), endpoints.clone());
                    let services = Box::default();
                    (Address { election_key: *election_key, services, placements, endpoints }, BTreeSet::new())
                });
                services.insert(&binding.service.key);
            }
        }
        if let Some(Sourced { object: chosen, source }) = chosen(&group, now, &mut problems) {
            let addresses = group.iter().flat_map(|binding| &binding.addresses).map(|(ip, _)| *ip);
            let addresses: BTreeSet<ServiceIp> = addresses.collect();
            choices.extend(addresses.iter().map(|ip| (*ip, chosen.node.clone())));
            let services = group.iter().map(|binding| binding.service.key.clone()).collect();
            moves.push(Move { services, addresses, chosen: chosen.clone(), source: source.clone() });
        }
    }
    let addresses = addresses.into_iter().map(|(ip, (address, services))| {
        (ip, Address { services: services.into_iter().cloned().collect(), ..address })
    });
    let desired = Desired {
        addresses: addresses.collect(),
        excluded: excluded.collect(),
        moves: choices,
        roster: config.nodes.keys().cloned().collect(),
    };
    (desired, moves, problems)
}

/// A Service with its addresses and the pools that hold them.
struct Binding<'a> {
    service: &'a Service,
    addresses: Vec<(ServiceIp, &'a Pool)>,
}

/// The Services whose addresses are right, the oldest first.
fn bindings<'a>(config: &'a Config, problems: &mut Vec<Problem>) -> Vec<Binding<'a>> {
    let mut holders: BTreeMap<ServiceIp, Vec<&Service>> = BTreeMap::new();
    let mut bindings = Vec::new();
    for service in config.services_by_age() {
        match bind(config, service, &holders) {
            Ok(binding) => {
                for (ip, _) in &binding.addresses {
                    holders.entry(*ip).or_default().push(service);
                }
                problems.extend(stale_request(service));
                bindings.push(binding);
            }
            Err(problem) => problems.push(*problem),
        }
    }
    bindings
}

fn bind<'a>(
    config: &'a Config,
    service: &'a Service,
    holders: &BTreeMap<ServiceIp, Vec<&Service>>,
) -> Result<Binding<'a>, Box<Problem>> {
    let Some((given, source, field)) = given(service) else {
        let problem = Problem::note("has no address yet").mend("run: garpike allocate DIR");
        return Err(Box::new(service.source.locate(problem).of(subject(&service.key))));
    };
    let complaint = |problem: Problem| Box::new(source.locate(problem.at(field.clone())).of(subject(&service.key)));
    let mut addresses = Vec::new();
    for ip in given {
        let Some(pool) = config.pools.containing(*ip) else {
            let problem = Problem::error("lies in no pool, so the Service is not announced").value(ip);
            return Err(complaint(problem.mend(format!("the pools hold {}", config.pools))));
        };
        for other in holders.get(ip).into_iter().flatten() {
            if let Some(clash) = service.sharing.clash(&other.sharing) {
                let text = format!("belongs to the older Service {}, and {clash}", other.key);
                return Err(complaint(Problem::error(text).value(ip).mend("the Service is not announced")));
            }
        }
        addresses.push((*ip, pool));
    }
    Ok(Binding { service, addresses })
}

/// The addresses of a Service: those it has, else those it asks for; and where that is written.
fn given(service: &Service) -> Option<(&[ServiceIp], &Source, FieldPath)> {
    match (&service.held, &service.request) {
        (Some(held), _) => Some((&held.addresses, &held.source, FieldPath::of(["status", "loadBalancer", "ingress"]))),
        (None, Request::Addresses { ips, field }) => Some((ips, &service.source, field.clone())),
        (None, Request::Any | Request::Invalid) => None,
    }
}

/// A request that the addresses in the status file do not answer.
fn stale_request(service: &Service) -> Option<Problem> {
    let held = service.held.as_ref()?;
    let Request::Addresses { ips: requested, field } = &service.request else { return None };
    let distinct = |ips: &[ServiceIp]| ips.iter().copied().collect::<BTreeSet<_>>();
    if distinct(requested) == distinct(&held.addresses) {
        return None;
    }
    let list = |ips: &[ServiceIp]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let problem = Problem::warning(format!("is requested, the Service has {}", list(&held.addresses)));
    let problem = problem.at(field.clone()).value(list(requested));
    let problem = match held.holder {
        Holder::StatusFile => problem.mend("run: garpike allocate DIR"),
        Holder::Object => problem.mend("remove status.loadBalancer from its manifest"),
    };
    Some(service.source.locate(problem).of(subject(&service.key)))
}

/// Services connected by shared addresses, the oldest first in each group.
fn groups<'a>(bindings: &'a [Binding<'a>]) -> Vec<Vec<&'a Binding<'a>>> {
    let mut of_address: BTreeMap<ServiceIp, usize> = BTreeMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (at, binding) in bindings.iter().enumerate() {
        let ips = || binding.addresses.iter().map(|(ip, _)| *ip);
        let joined: BTreeSet<usize> = ips().filter_map(|ip| of_address.get(&ip).copied()).collect();
        let mut members = vec![at];
        for group in &joined {
            members.append(groups.get_mut(*group).unwrap_or(&mut Vec::new()));
        }
        members.sort_unstable();
        let merged = groups.len();
        for member in members.iter().filter_map(|member| bindings.get(*member)) {
            of_address.extend(member.addresses.iter().map(|(ip, _)| (*ip, merged)));
        }
        groups.push(members);
    }
    groups.retain(|members| !members.is_empty());
    groups.iter().map(|members| members.iter().filter_map(|at| bindings.get(*at)).collect()).collect()
}

/// Where the addresses of a group may be announced: by the advertisements that select every Service of it. With one
/// that selects only some, the addresses of one Service could get two owners.
fn placements(config: &Config, group: &[&Binding<'_>], problems: &mut Vec<Problem>) -> Vec<Placement> {
    let selected_by = |binding: &Binding<'_>| -> BTreeSet<usize> {
        let selects = |advertisement: &Advertisement| {
            binding.addresses.iter().all(|(_, pool)| advertisement.selects(&pool.name, binding.service))
        };
        config.advertisements.iter().enumerate().filter(|(_, ad)| selects(ad)).map(|(at, _)| at).collect()
    };
    let mut common: Option<BTreeSet<usize>> = None;
    for binding in group {
        let own = selected_by(binding);
        if own.is_empty() {
            problems.push(unannounced(binding, "no L2Advertisement selects it".to_owned()));
        }
        common = Some(match common {
            None => own,
            Some(common) => {
                let both: BTreeSet<usize> = common.intersection(&own).copied().collect();
                if both.is_empty() && !own.is_empty() && !common.is_empty() {
                    let text = "no L2Advertisement selects it together with the Services that share its address";
                    problems.push(unannounced(binding, text.to_owned()));
                }
                both
            }
        });
    }
    let common = common.unwrap_or_default();
    let advertisements = config.advertisements.iter().enumerate().filter(|(at, _)| common.contains(at));
    let placements: BTreeSet<Placement> = advertisements
        .map(|(_, ad)| Placement { nodes: ad.nodes.clone(), interfaces: ad.interfaces.clone() })
        .collect();
    placements.into_iter().collect()
}

/// The owner that was chosen for a group and still is: by the oldest Service of it that has such a choice.
fn chosen<'a>(
    group: &[&Binding<'a>],
    now: SystemTime,
    problems: &mut Vec<Problem>,
) -> Option<&'a Sourced<ChosenOwner>> {
    let mut first: Option<(&ServiceKey, &Sourced<ChosenOwner>)> = None;
    for Service { key, chosen, .. } in group.iter().map(|binding| binding.service) {
        let Some(sourced @ Sourced { object: chosen, source }) = chosen.as_deref() else { continue };
        let mut tell = |problem: Problem| {
            let problem = problem.at(FieldPath::annotation(OWNER_ANNOTATION)).value(chosen);
            problems.push(source.locate(problem).of(subject(key)));
        };
        match first {
            _ if chosen.until <= now => {
                tell(
                    Problem::note("is over and has no effect").mend("remove the annotation; \"garpike move\" does it"),
                );
            }
            None => first = Some((key, sourced)),
            Some((older, decides)) if decides.object.node != chosen.node => {
                let text = format!(
                    "has no effect: the addresses are shared with Service {older}, which is moved to {}",
                    decides.object.node
                );
                tell(Problem::warning(text).mend("remove one of the two annotations"));
            }
            Some(_) => {}
        }
    }
    first.map(|(_, chosen)| chosen)
}

fn unannounced(binding: &Binding<'_>, reason: String) -> Problem {
    let pools: BTreeSet<&str> = binding.addresses.iter().map(|(_, pool)| pool.name.0.as_str()).collect();
    let pools: Vec<&str> = pools.into_iter().collect();
    let problem = Problem::warning(format!("is announced by nobody: {reason}"));
    let problem = problem.mend(format!("write an L2Advertisement for the pool {}", pools.join(", ")));
    binding.service.source.locate(problem).of(subject(&binding.service.key))
}

fn subject(key: &ServiceKey) -> String {
    format!("Service {key}")
}

#[cfg(test)]
mod tests;
