//! Pools and Services for the tests of this crate.

use std::collections::{BTreeMap, BTreeSet};

use garpike_controller_api::config::{
    Config, Families, Held, Holder, KeptFor, Pool, PoolName, Pools, Request, Service, TrafficPolicy,
};
use garpike_controller_api::{FieldPath, Labels, Port, Protocol, Sharing, SharingKey, Source};
use garpike_election::{Endpoints, ServiceIp, ServiceKey};

pub(crate) fn pool(name: &str, ranges: &[&str]) -> Pool {
    Pool {
        name: PoolName(name.to_owned()),
        labels: Labels::default(),
        ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
        auto_assign: true,
        avoid_buggy_ips: false,
        kept_for: None,
    }
}

pub(crate) fn kept(pool: Pool, priority: i64, namespaces: &[&str]) -> Pool {
    let names: BTreeSet<String> = namespaces.iter().map(|name| (*name).to_owned()).collect();
    let namespaces = (!names.is_empty()).then_some(names);
    Pool { kept_for: Some(KeptFor { priority, namespaces, service_selectors: Vec::new() }), ..pool }
}

pub(crate) fn pools(all: impl IntoIterator<Item = Pool>) -> Pools {
    let mut pools = Pools::default();
    for pool in all {
        pools.insert(pool).unwrap();
    }
    pools
}

pub(crate) fn service(name: &str) -> Service {
    Service {
        key: key(name),
        labels: Labels::default(),
        created: None,
        held: None,
        request: Request::Any,
        pool: None,
        families: Families::Unspecified,
        sharing: Sharing::default(),
        chosen: None,
        traffic_policy: TrafficPolicy::Cluster,
        endpoints: Endpoints::Anywhere,
        source: Source::default(),
    }
}

pub(crate) fn asking(service: Service, addresses: &[&str]) -> Service {
    Service { request: Request::Addresses { ips: ips(addresses), field: FieldPath::default() }, ..service }
}

pub(crate) fn sharing(service: Service, word: &str, ports: &[u16]) -> Service {
    let ports = ports.iter().map(|number| Port { protocol: Protocol::Tcp, number: *number }).collect();
    let key = SharingKey { word: word.to_owned(), backend: String::new() };
    Service { sharing: Sharing { key, ports }, ..service }
}

pub(crate) fn having(service: Service, addresses: &[&str], holder: Holder) -> Service {
    Service { held: Some(Held { addresses: ips(addresses).into(), holder, source: Source::default() }), ..service }
}

pub(crate) fn config(pools: Pools, services: impl IntoIterator<Item = Service>) -> Config {
    let services: BTreeMap<ServiceKey, Service> = services.into_iter().map(|s| (s.key.clone(), s)).collect();
    Config { pools, services, ..Config::default() }
}

pub(crate) fn key(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

pub(crate) fn ips(texts: &[&str]) -> Vec<ServiceIp> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(crate) fn texts(ips: &[ServiceIp]) -> Vec<String> {
    ips.iter().map(ToString::to_string).collect()
}
