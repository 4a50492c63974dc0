//! Pools, advertisements, Services and nodes with their meaning: typed, total, and free of contradictions.
//!
//! A [`Config`] is made by [`crate::validate`] alone; whoever has one need not check it again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use garpike_election::{Endpoints, InterfaceName, NodeName, Selection, ServiceIp, ServiceKey};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::objects::{Source, Sourced};
use crate::overrides::ChosenOwner;
use crate::problem::FieldPath;
use crate::sharing::Sharing;
use crate::{AddressRange, Family, Labels, Selector, ServingEndpoints};

/// Everything that people configured and that is right.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The pools.
    pub pools: Pools,
    /// The advertisements, in the order of their names.
    pub advertisements: Vec<Advertisement>,
    /// The Services of `type: LoadBalancer` that are ours.
    pub services: BTreeMap<ServiceKey, Service>,
    /// The nodes that are described; others may exist.
    pub nodes: BTreeMap<NodeName, Node>,
    /// The nodes that are to be emptied, described or not, each with the place that says so.
    pub drained: BTreeMap<NodeName, Source>,
    /// The addresses in the status file of Services that are not in `services`: they are gone, or broken.
    pub strays: BTreeMap<ServiceKey, Vec<ServiceIp>>,
}

impl Config {
    /// The Services, the oldest first; those of unknown age last and by name.
    pub fn services_by_age(&self) -> Vec<&Service> {
        let mut services: Vec<&Service> = self.services.values().collect();
        services.sort_by_key(|service| service.age());
        services
    }
}

/// The name of a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolName(pub String);

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Addresses that may be given to Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses, in the order they are written; no two overlap.
    pub ranges: Vec<AddressRange>,
    /// Whether a Service gets its addresses without asking for them.
    pub auto_assign: bool,
    /// Whether IPv4 addresses that end in .0 or .255 are left unused.
    pub avoid_buggy_ips: bool,
    /// For which Services it is kept; `None` for all.
    pub kept_for: Option<KeptFor>,
}

/// The Services for which a pool is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptFor {
    /// As written: the lowest positive number goes first, 0 last.
    pub priority: i64,
    /// The namespaces, those that the namespace selectors match included; an empty set holds no Service.
    pub namespaces: Option<BTreeSet<String>>,
    /// The labels of the Services, one of which must match; none means every Service.
    pub service_selectors: Vec<Selector>,
}

impl Pool {
    /// Whether `ip` is one of its addresses, whatever it may be used for.
    pub fn contains(&self, ip: ServiceIp) -> bool {
        self.ranges.iter().any(|range| range.contains(ip.addr()))
    }

    /// Whether it leaves `ip` unused because some clients take it for the address of a network.
    pub fn avoids(&self, ip: ServiceIp) -> bool {
        self.avoid_buggy_ips && matches!(ip.addr(), IpAddr::V4(ip) if matches!(ip.octets(), [.., 0 | 255]))
    }

    /// Whether Services like `service` may have its addresses.
    pub fn admits(&self, service: &Service) -> bool {
        let Some(kept_for) = &self.kept_for else { return true };
        let namespace = kept_for.namespaces.as_ref().is_none_or(|names| names.contains(&*service.key.namespace));
        let selectors = &kept_for.service_selectors;
        namespace && (selectors.is_empty() || service.labels.match_any(selectors))
    }
}

/// Pools of which no two hold one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pools {
    by_name: BTreeMap<PoolName, Pool>,
    /// The ranges of all pools by their first address.
    ranges: BTreeMap<IpAddr, (AddressRange, PoolName)>,
}

/// Two ranges that hold one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The place of the refused range in its pool.
    pub index: usize,
    /// The range that was there first.
    pub taken: AddressRange,
    /// The pool of that range.
    pub by: PoolName,
}

impl Pools {
    /// Takes in a pool, whole or not at all.
    ///
    /// # Errors
    ///
    /// When one of its ranges holds an address of another one, of this or another pool.
    pub fn insert(&mut self, pool: Pool) -> Result<(), Overlap> {
        for (index, range) in pool.ranges.iter().enumerate() {
            let earlier = pool.ranges.iter().take(index).find(|earlier| earlier.overlaps(range));
            let overlap = earlier.map(|earlier| (*earlier, &pool.name)).or_else(|| self.overlapping(range));
            if let Some((taken, by)) = overlap {
                return Err(Overlap { index, taken, by: by.clone() });
            }
        }
        self.ranges.extend(pool.ranges.iter().map(|range| (range.first(), (*range, pool.name.clone()))));
        self.by_name.insert(pool.name.clone(), pool);
        Ok(())
    }

    /// The pool of that name.
    pub fn named(&self, name: &PoolName) -> Option<&Pool> {
        self.by_name.get(name)
    }

    /// The pool that holds `ip`.
    pub fn containing(&self, ip: ServiceIp) -> Option<&Pool> {
        let (_, (range, name)) = self.ranges.range(..=ip.addr()).next_back()?;
        range.contains(ip.addr()).then(|| self.by_name.get(name))?
    }

    /// The pools in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.by_name.values()
    }

    fn overlapping(&self, range: &AddressRange) -> Option<(AddressRange, &PoolName)> {
        // Ranges that do not overlap sort alike by first and last address, so the nearest one below is enough.
        let (_, (taken, by)) = self.ranges.range(..=range.last()).next_back()?;
        taken.overlaps(range).then_some((*taken, by))
    }
}

/// The ranges in words, as messages name them.
impl fmt::Display for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (range, name)) in self.ranges.values().take(MAX_SHOWN_RANGES).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{range} of {name}")?;
        }
        match self.ranges.len().checked_sub(MAX_SHOWN_RANGES) {
            Some(more @ 1..) => write!(f, " and {more} more"),
            Some(0) | None if self.ranges.is_empty() => f.write_str("none"),
            Some(0) | None => Ok(()),
        }
    }
}

/// How many ranges one message names. Chosen: they fit on two lines.
const MAX_SHOWN_RANGES: usize = 8;

/// Which addresses are announced, and where.
#[derive(Clone, Debug)]
pub struct Advertisement {
    /// Its name.
    pub name: String,
    /// The pools it announces.
    pub pools: Selection<PoolName>,
    /// The nodes that may announce.
    pub nodes: Selection<NodeName>,
    /// The interfaces that announce.
    pub interfaces: Selection<InterfaceName>,
    /// The labels of the Services, one of which must match; none means every Service.
    pub service_selectors: Vec<Selector>,
}

impl Advertisement {
    /// Whether it announces the addresses of `service` that lie in `pool`.
    pub fn selects(&self, pool: &PoolName, service: &Service) -> bool {
        let selectors = &self.service_selectors;
        self.pools.contains(pool) && (selectors.is_empty() || service.labels.match_any(selectors))
    }
}

/// A Service of `type: LoadBalancer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its namespace and name.
    pub key: ServiceKey,
    /// Its labels.
    pub labels: Labels,
    /// When it was made, if that is known.
    pub created: Option<Time>,
    /// The addresses it has.
    pub held: Option<Held>,
    /// The addresses it asks for.
    pub request: Request,
    /// The pool it asks for.
    pub pool: Option<PoolName>,
    /// The families of addresses it is to have.
    pub families: Families,
    /// With whom it may share an address.
    pub sharing: Sharing,
    /// The node that was chosen as owner of its addresses, whether or not the time of the choice is over.
    pub chosen: Option<Box<Sourced<ChosenOwner>>>,
    /// Which endpoints serve what comes to a node.
    pub traffic_policy: TrafficPolicy,
    /// Where what comes to its addresses can be served.
    pub endpoints: Endpoints,
    /// Where it was read.
    pub source: Source,
}

impl Service {
    /// Whether it has addresses by that holder's word.
    pub fn is_held_by(&self, holder: Holder) -> bool {
        self.held.as_ref().is_some_and(|held| held.holder == holder)
    }

    /// Takes which endpoints can serve.
    pub fn serve_by(&mut self, serving: Option<&ServingEndpoints>) {
        self.endpoints = match (serving.filter(|serving| !serving.is_empty()), self.traffic_policy) {
            (None, _) => Endpoints::Nowhere,
            (Some(serving), TrafficPolicy::Local) => Endpoints::Local(Box::new(serving.local())),
            (Some(_), TrafficPolicy::Cluster) => Endpoints::Anywhere,
        };
    }

    /// What orders Services by age: by the time they were made, where that is known, then by name.
    pub fn age(&self) -> impl Ord + use<'_> {
        (self.created.is_none(), &self.created, &self.key)
    }
}

/// The `externalTrafficPolicy` of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// All of them.
    Cluster,
    /// Those on that node.
    Local,
}

/// Addresses that a Service has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The addresses in their order, each once; at least one.
    pub addresses: Box<[ServiceIp]>,
    /// Who says so.
    pub holder: Holder,
    /// Where it was read.
    pub source: Source,
}

/// Who says that a Service has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The `status` of the Service object.
    Object,
    /// The file that `garpike allocate` writes.
    StatusFile,
}

/// Addresses that a Service asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Any that fit.
    Any,
    /// These.
    Addresses {
        /// One, or one of each family, IPv4 first.
        ips: Vec<ServiceIp>,
        /// The field that asks.
        field: FieldPath,
    },
    /// Something that cannot be; a problem says what.
    Invalid,
}

/// The families of addresses that a Service is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// The Service does not say: what it requests, else IPv4.
    Unspecified,
    /// One address of this family.
    Single(Family),
    /// One of each, or else one of this family, or else one of the other.
    PreferDual(Family),
    /// One of each.
    RequireDual,
}

/// What is known of a node.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Its labels.
    pub labels: Labels,
    /// Why it must not own an address; `None` when it may.
    pub excluded: Option<Exclusion>,
}

/// Why a node must not own an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// The label `node.kubernetes.io/exclude-from-external-load-balancers`.
    Label,
    /// The condition `NetworkUnavailable`.
    NetworkUnavailable,
}
