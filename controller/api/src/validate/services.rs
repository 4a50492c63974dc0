//! Services of `type: LoadBalancer`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use garpike_election::{Endpoints, InvalidServiceIp, ServiceIp, ServiceKey};
use k8s_openapi::api::core::v1::{Service as ServiceObject, ServiceSpec, ServiceStatus};

use super::{Complaints, Scope, Subject, overrides};
use crate::Family;
use crate::config::{Families, Held, Holder, PoolName, Pools, Request, Service, TrafficPolicy};
use crate::objects::{ObjectKey, Objects, Source, Sourced};
use crate::problem::{FieldPath, Problem};
use crate::sharing::{Port, Sharing, SharingKey};

/// What a Service is to us.
#[derive(Clone, Debug)]
pub enum Claim {
    /// It is to have addresses from us.
    Ours(Box<Service>),
    /// It is of another type than LoadBalancer, so it is to have none.
    OtherType,
    /// It is for another load balancer, by its `spec.loadBalancerClass`.
    OtherClass,
    /// It is ours and broken, so nobody can tell what it is to have.
    Broken,
}

/// What one Service is to us, judged by itself.
pub fn judge_service(
    key: &ObjectKey,
    sourced: &Sourced<ServiceObject>,
    scope: &Scope,
    pools: &Pools,
) -> (Claim, Vec<Problem>) {
    let mut problems = Vec::new();
    let spec = sourced.object.spec.clone().unwrap_or_default();
    if spec.type_.as_deref() != Some("LoadBalancer") {
        return (Claim::OtherType, problems);
    }
    if spec.load_balancer_class != scope.load_balancer_class {
        return (Claim::OtherClass, problems);
    }
    let held = held(key, sourced, None, &mut problems);
    let mut complaints = Complaints::new(Subject { kind: "Service", key }, &sourced.source, &mut problems);
    let claim = match read(key, sourced, &spec, held, &mut complaints) {
        Some(service) => Claim::Ours(Box::new(asked(service, &sourced.object, &spec, pools, &mut complaints))),
        None => Claim::Broken,
    };
    (claim, problems)
}

/// What one Service is to who announces the addresses that it has: what it asks for counts for nothing. `None`: it has none
/// from us.
pub fn judge_held(key: &ObjectKey, sourced: &Sourced<ServiceObject>, scope: &Scope) -> (Option<Service>, Vec<Problem>) {
    let mut problems = Vec::new();
    let Some(spec) = ours(&sourced.object, scope) else { return (None, problems) };
    let Some(held) = held(key, sourced, None, &mut problems) else { return (None, problems) };
    let Sourced { object, source } = sourced;
    let chosen = overrides::chosen_owner(key, &object.metadata, source, None, &mut problems);
    let mut complaints = Complaints::new(Subject { kind: "Service", key }, source, &mut problems);
    let service = read(key, sourced, &spec, Some(held), &mut complaints);
    (service.map(|service| Service { chosen, ..service }), problems)
}

/// The `spec` of a Service that is to have addresses from us.
fn ours(object: &ServiceObject, scope: &Scope) -> Option<ServiceSpec> {
    let spec = object.spec.clone().unwrap_or_default();
    let ours = spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class == scope.load_balancer_class;
    ours.then_some(spec)
}

/// The Services that are ours and right.
pub(super) fn validate(
    objects: &Objects,
    scope: &Scope,
    pools: &Pools,
    problems: &mut Vec<Problem>,
) -> BTreeMap<ServiceKey, Service> {
    let mut services = BTreeMap::new();
    for (key, sourced) in &objects.services {
        let Some(spec) = ours(&sourced.object, scope) else { continue };
        let held = held(key, sourced, objects.statuses.get(key), problems);
        let Sourced { object, source } = sourced;
        let overriding = objects.service_overrides.get(key);
        let chosen = overrides::chosen_owner(key, &object.metadata, source, overriding, problems);
        let mut complaints = Complaints::new(Subject { kind: "Service", key }, source, problems);
        if let Some(service) = read(key, sourced, &spec, held, &mut complaints) {
            let mut service = asked(service, object, &spec, pools, &mut complaints);
            service.chosen = chosen;
            if let Some(known) = &objects.endpoints {
                service.serve_by(known.get(key));
            }
            services.insert(service.key.clone(), service);
        }
    }
    services
}

/// The addresses in the status file that belong to none of `services`.
pub(super) fn strays(
    objects: &Objects,
    services: &BTreeMap<ServiceKey, Service>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<ServiceKey, Vec<ServiceIp>> {
    let mut strays = BTreeMap::new();
    for (key, Sourced { object, source }) in &objects.statuses {
        let service = ServiceKey::from(key);
        if services.contains_key(&service) {
            continue;
        }
        let mut complaints = Complaints::new(Subject { kind: "Service", key }, source, problems);
        let addresses = ingress(object, &mut complaints);
        if !addresses.is_empty() {
            strays.insert(service, addresses);
        }
    }
    strays
}

/// A Service with what it has and is.
fn read(
    key: &ObjectKey,
    Sourced { object, source }: &Sourced<ServiceObject>,
    spec: &ServiceSpec,
    held: Option<Held>,
    complaints: &mut Complaints<'_>,
) -> Option<Service> {
    let families = families(spec, complaints)?;
    let ports = ports(spec, complaints)?;
    let word = annotation(object, "allow-shared-ip", complaints).map(|(_, word)| word).unwrap_or_default();
    Some(Service {
        key: key.into(),
        labels: object.metadata.labels.clone().into(),
        created: object.metadata.creation_timestamp.clone(),
        held,
        request: Request::Any,
        pool: None,
        families,
        sharing: Sharing { key: SharingKey { word, backend: backend(spec) }, ports },
        chosen: None,
        traffic_policy: match spec.external_traffic_policy.as_deref() {
            Some("Local") => TrafficPolicy::Local,
            Some(_) | None => TrafficPolicy::Cluster,
        },
        endpoints: Endpoints::Anywhere,
        source: source.clone(),
    })
}

/// The Service with what it asks for.
fn asked(
    service: Service,
    object: &ServiceObject,
    spec: &ServiceSpec,
    pools: &Pools,
    complaints: &mut Complaints<'_>,
) -> Service {
    let pool = annotation(object, "address-pool", complaints).map(|(field, name)| {
        let name = PoolName(name);
        if pools.named(&name).is_none() {
            complaints.add(Problem::error("is not the name of a usable IPAddressPool").at(field).value(&name));
        }
        name
    });
    let request = request(object, spec, service.families, complaints);
    Service { pool, request, ..service }
}

/// The addresses that the Service has, by its own status, else by the status file.
fn held(
    key: &ObjectKey,
    service: &Sourced<ServiceObject>,
    file: Option<&Sourced<ServiceStatus>>,
    problems: &mut Vec<Problem>,
) -> Option<Held> {
    let own = service.object.status.as_ref().map(|status| (status, Holder::Object, &service.source));
    let file = file.map(|sourced| (&sourced.object, Holder::StatusFile, &sourced.source));
    own.into_iter().chain(file).find_map(|(status, holder, source)| {
        let mut complaints = Complaints::new(Subject { kind: "Service", key }, source, problems);
        let addresses = ingress(status, &mut complaints);
        let source: Source = source.clone();
        (!addresses.is_empty()).then_some(Held { addresses: addresses.into(), holder, source })
    })
}

fn ingress(status: &ServiceStatus, complaints: &mut Complaints<'_>) -> Vec<ServiceIp> {
    let mut addresses = Vec::new();
    let entries = status.load_balancer.as_ref().and_then(|status| status.ingress.as_deref()).unwrap_or_default();
    for (index, entry) in entries.iter().enumerate() {
        // An entry with a host name and no address is another implementation's.
        let Some(text) = &entry.ip else { continue };
        match service_ip(text) {
            Ok(ip) if addresses.contains(&ip) => {}
            Ok(ip) => addresses.push(ip),
            Err(error) => {
                let field = FieldPath::of(["status", "loadBalancer", "ingress"]).index(index).key("ip");
                complaints.add(Problem::error(error.to_string()).at(field));
            }
        }
    }
    addresses
}

/// The addresses that the Service asks for, by annotation or by field.
fn request(object: &ServiceObject, spec: &ServiceSpec, families: Families, complaints: &mut Complaints<'_>) -> Request {
    let annotation = annotation(object, "loadBalancerIPs", complaints);
    let field = spec.load_balancer_ip.clone().filter(|text| !text.is_empty());
    let field = field.map(|text| (FieldPath::of(["spec", "loadBalancerIP"]), text));
    let (at, text) = match (annotation, field) {
        (None, None) => return Request::Any,
        (Some(request), None) | (None, Some(request)) => request,
        (Some((at, _)), Some((_, text))) => {
            let problem = Problem::error("is there beside the annotation loadBalancerIPs").value(text);
            complaints.add(problem.at(FieldPath::of(["spec", "loadBalancerIP"])).mend(format!("keep {at} only")));
            return Request::Invalid;
        }
    };
    match requested(&text, families) {
        Ok(ips) => Request::Addresses { ips, field: at },
        Err(problem) => {
            complaints.add(problem.at(at));
            Request::Invalid
        }
    }
}

fn requested(text: &str, families: Families) -> Result<Vec<ServiceIp>, Box<Problem>> {
    let mut addresses = Vec::new();
    for part in text.split(',').map(str::trim) {
        addresses.push(service_ip(part).map_err(|error| Box::new(Problem::error(error.to_string())))?);
    }
    // IPv4 first: the first address decides who announces, so its place must not depend on how the request is written.
    addresses.sort_unstable();
    let present: Vec<Family> = addresses.iter().map(|ip| Family::of(*ip)).collect();
    let fits = match families {
        Families::Unspecified => matches!(present.as_slice(), [_] | [Family::V4, Family::V6]),
        Families::Single(family) => present == [family],
        Families::PreferDual(_) | Families::RequireDual => present == [Family::V4, Family::V6],
    };
    if fits {
        return Ok(addresses);
    }
    let mend = match families {
        Families::Unspecified => "write one address, or one IPv4 and one IPv6 address".to_owned(),
        Families::Single(family) => format!("write one {family} address, as spec.ipFamilies and clusterIPs say"),
        Families::PreferDual(_) | Families::RequireDual => {
            "write one IPv4 and one IPv6 address, as spec.ipFamilyPolicy says".to_owned()
        }
    };
    Err(Box::new(Problem::error("does not fit the families of the Service").value(text).mend(mend)))
}

/// The families by the cluster IPs, as MetalLB has it; where there are none, by what the user wrote.
fn families(spec: &ServiceSpec, complaints: &mut Complaints<'_>) -> Option<Families> {
    let policy = spec.ip_family_policy.as_deref().unwrap_or("SingleStack");
    let written = spec.ip_families.as_deref().unwrap_or_default();
    let primary = match written.first().map(String::as_str) {
        Some("IPv6") => Family::V6,
        Some("IPv4") | None => Family::V4,
        Some(other) => {
            let problem = Problem::error("is not a family").value(other);
            complaints.add(problem.at(FieldPath::of(["spec", "ipFamilies"]).index(0)).mend("write IPv4 or IPv6"));
            return None;
        }
    };
    if !["SingleStack", "PreferDualStack", "RequireDualStack"].contains(&policy) {
        let problem = Problem::error("is not a policy").at(FieldPath::of(["spec", "ipFamilyPolicy"])).value(policy);
        complaints.add(problem.mend("write SingleStack, PreferDualStack or RequireDualStack"));
        return None;
    }
    match cluster_families(spec).as_slice() {
        // With one cluster IP there is no way into the Service by the other family.
        [_] if policy == "RequireDualStack" => {
            let problem = Problem::error("holds one address and spec.ipFamilyPolicy is RequireDualStack");
            complaints.add(problem.at(FieldPath::of(["spec", "clusterIPs"])));
            None
        }
        [family] => Some(Families::Single(*family)),
        [_, _] if policy == "PreferDualStack" => Some(Families::PreferDual(primary)),
        [_, _, ..] => Some(Families::RequireDual),
        [] => Some(match policy {
            "PreferDualStack" => Families::PreferDual(primary),
            "RequireDualStack" => Families::RequireDual,
            _ if written.len() > 1 => Families::RequireDual,
            _ if written.is_empty() => Families::Unspecified,
            _ => Families::Single(primary),
        }),
    }
}

fn cluster_families(spec: &ServiceSpec) -> Vec<Family> {
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    // A headless Service has the word "None" there.
    let addresses = all.filter_map(|text| text.parse::<IpAddr>().ok());
    let families: BTreeSet<Family> = addresses.map(|ip| if ip.is_ipv4() { Family::V4 } else { Family::V6 }).collect();
    families.into_iter().collect()
}

fn ports(spec: &ServiceSpec, complaints: &mut Complaints<'_>) -> Option<BTreeSet<Port>> {
    let mut ports = BTreeSet::new();
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        let Ok(number) = u16::try_from(port.port) else {
            let problem = Problem::error("is not a port").value(port.port).mend("write a number from 1 to 65535");
            complaints.add(problem.at(FieldPath::of(["spec", "ports"]).index(index).key("port")));
            return None;
        };
        let word = port.protocol.as_deref().unwrap_or("TCP");
        let Ok(protocol) = word.parse() else {
            let problem = Problem::error("is not a protocol").value(word).mend("write TCP, UDP or SCTP");
            complaints.add(problem.at(FieldPath::of(["spec", "ports"]).index(index).key("protocol")));
            return None;
        };
        ports.insert(Port { protocol, number });
    }
    Some(ports)
}

/// Which pods serve, where that decides who may own the address.
fn backend(spec: &ServiceSpec) -> String {
    if spec.external_traffic_policy.as_deref() != Some("Local") {
        return String::new();
    }
    let pairs = spec.selector.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(",")
}

/// The value of an annotation by its name of today, else by that of MetalLB 0.12.
fn annotation(object: &ServiceObject, name: &str, complaints: &mut Complaints<'_>) -> Option<(FieldPath, String)> {
    let annotations = object.metadata.annotations.as_ref()?;
    let current = format!("metallb.io/{name}");
    let deprecated = format!("metallb.universe.tf/{name}");
    if let Some(value) = annotations.get(&current) {
        return Some((FieldPath::annotation(&current), value.clone())).filter(|(_, value)| !value.trim().is_empty());
    }
    let value = annotations.get(&deprecated)?;
    let field = FieldPath::annotation(&deprecated);
    complaints.add(Problem::note("is the deprecated name").at(field.clone()).mend(format!("write {current}")));
    Some((field, value.clone())).filter(|(_, value)| !value.trim().is_empty())
}

fn service_ip(text: &str) -> Result<ServiceIp, InvalidServiceIp> {
    let ip: IpAddr = text.parse().map_err(|_| InvalidServiceIp::NotAnAddress { text: text.to_owned() })?;
    ServiceIp::new(ip.to_canonical())
}
