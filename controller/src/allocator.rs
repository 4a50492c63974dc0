//! Which Service holds which address: the core that gives addresses and takes them back.
//!
//! Invariants: an address is held by several Services only when none of them clashes with another; every held address
//! lies in a pool; what a Service has is never lost by asking for something else. Equal calls in equal order give
//! equal results; no call walks a range.

use std::collections::{BTreeMap, BTreeSet};

use garpike_controller_api::config::{Families, Pool, PoolName, Pools, Request, Service};
use garpike_controller_api::{Clash, Family, Sharing, SharingKey};
use garpike_election::{ServiceIp, ServiceKey};
use thiserror::Error;

use crate::free::{FreeAddresses, Slot};

/// Gives the addresses of pools to Services.
#[derive(Clone, Debug)]
pub struct Allocator {
    pools: Pools,
    /// The free addresses of each pool.
    free: BTreeMap<(PoolName, Family), FreeAddresses>,
    /// Who holds each address that is not free.
    holders: BTreeMap<ServiceIp, BTreeMap<ServiceKey, Sharing>>,
    /// What each Service holds, in the order in which its status lists it.
    held: BTreeMap<ServiceKey, Vec<ServiceIp>>,
    /// The addresses that Services with this key hold, by pool, family and slot.
    shared: BTreeMap<SharingKey, BTreeSet<(PoolName, Family, Slot)>>,
}

/// Why a Service does not get the address that it asks for.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// The request contradicts itself.
    #[error("what it asks for cannot be; mend its request")]
    InvalidRequest,
    /// The address lies in no pool.
    #[error("{ip} lies in no pool; the pools hold {pools}")]
    OutsidePools {
        /// The address.
        ip: ServiceIp,
        /// The ranges of the pools, in words.
        pools: String,
    },
    /// The addresses of one Service lie in two pools, or not in the pool that it asks for.
    #[error("{ip} lies in the pool {of} and not in {wanted}")]
    OtherPool {
        /// The address.
        ip: ServiceIp,
        /// The pool that holds it.
        of: PoolName,
        /// The pool that should.
        wanted: PoolName,
    },
    /// There is no such pool.
    #[error("there is no usable pool {pool}; correct the annotation metallb.io/address-pool or the pool")]
    UnknownPool {
        /// The name.
        pool: PoolName,
    },
    /// The pool is kept for other Services.
    #[error("the pool {pool} is kept for other Services by its spec.serviceAllocation")]
    NotAdmitted {
        /// The pool.
        pool: PoolName,
    },
    /// The pool leaves the address unused.
    #[error("the pool {pool} leaves {ip} unused by its spec.avoidBuggyIPs")]
    Avoided {
        /// The address.
        ip: ServiceIp,
        /// The pool.
        pool: PoolName,
    },
    /// Another Service has the address and cannot share it.
    #[error("{ip} is held by Service {by}, and {clash}")]
    Taken {
        /// The address.
        ip: ServiceIp,
        /// Who holds it.
        by: ServiceKey,
        /// Why the two cannot share.
        clash: Clash,
    },
    /// The addresses are not of the families that it is to have.
    #[error("its addresses are of other families than its spec.ipFamilies and clusterIPs say")]
    WrongFamilies,
    /// No pool gives addresses to this Service without being asked.
    #[error("no pool is open to it; add an IPAddressPool, or name one in the annotation metallb.io/address-pool")]
    NoPool,
    /// No pool holds addresses of the families that it is to have.
    #[error(
        "no {wanted} address is in {pools}; add a range to spec.addresses of one, or set spec.ipFamilies of the Service"
    )]
    NoneOfFamily {
        /// The families, in words.
        wanted: &'static str,
        /// The pools that were tried, in words.
        pools: String,
    },
    /// All addresses of these pools are held.
    #[error("no free {wanted} address is left in {pools}; add a range to spec.addresses of one")]
    Exhausted {
        /// The families, in words.
        wanted: &'static str,
        /// The pools that were tried, in words.
        pools: String,
    },
}

impl Allocator {
    /// All addresses of these pools are free.
    pub fn new(pools: &Pools) -> Self {
        let spaces = pools.iter().flat_map(|pool| {
            [Family::V4, Family::V6].map(|family| ((pool.name.clone(), family), FreeAddresses::new(family, pool)))
        });
        Self {
            pools: pools.clone(),
            free: spaces.collect(),
            holders: BTreeMap::new(),
            held: BTreeMap::new(),
            shared: BTreeMap::new(),
        }
    }

    /// The pools.
    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// What a Service holds.
    pub fn held(&self, key: &ServiceKey) -> &[ServiceIp] {
        self.held.get(key).map_or(&[], Vec::as_slice)
    }

    /// Lets a Service keep the addresses that it has, if pools and families allow them.
    ///
    /// # Errors
    ///
    /// When they do not. The Service then holds what it held before the call.
    pub fn keep(&mut self, service: &Service, ips: &[ServiceIp]) -> Result<(), Refusal> {
        self.replace(service, |allocator| allocator.check_all(service, ips).map(|()| ips.to_vec())).map(drop)
    }

    /// Lets a Service hold addresses that its own manifest gives it: they need only lie in pools and be free.
    ///
    /// # Errors
    ///
    /// When one is not. The Service then holds what it held before the call.
    pub fn adopt(&mut self, service: &Service, ips: &[ServiceIp]) -> Result<(), Refusal> {
        let adopted = self.replace(service, |allocator| {
            for ip in ips {
                allocator.pool_of(*ip)?;
                allocator.check_free(*ip, &service.sharing)?;
            }
            Ok(ips.to_vec())
        });
        adopted.map(drop)
    }

    /// Gives a Service what it asks for: its addresses, or some of its pool, or some of the pools that are open to it.
    ///
    /// # Errors
    ///
    /// When that is not possible. The Service then holds what it held before the call.
    pub fn assign(&mut self, service: &Service) -> Result<Vec<ServiceIp>, Refusal> {
        self.replace(service, |allocator| match &service.request {
            Request::Invalid => Err(Refusal::InvalidRequest),
            Request::Addresses { ips, .. } => {
                allocator.check_pool(service, ips)?;
                allocator.check_all(service, ips)?;
                Ok(ips.clone())
            }
            Request::Any => match &service.pool {
                Some(name) => allocator.choose_from(service, allocator.named(name)?),
                None => allocator.choose_freely(service),
            },
        })
    }

    /// Gives a Service that prefers both families and has one the other one too, from the same pool. Says whether
    /// there was one.
    pub fn complete(&mut self, service: &Service) -> bool {
        let &[ip] = self.held(&service.key) else { return false };
        let Families::PreferDual(_) = service.families else { return false };
        let completed = self.replace(service, |allocator| {
            let pool = allocator.pool_of(ip)?;
            let other = allocator.lowest(service, pool, Family::of(ip).other());
            let other = other.ok_or_else(|| exhausted(service.families, &[pool]))?;
            let mut both = vec![ip, other];
            both.sort_unstable();
            Ok(both)
        });
        completed.is_ok()
    }

    /// Keeps addresses for a Service of which nothing else is known; those that others hold are left out.
    pub fn set_aside(&mut self, key: &ServiceKey, ips: &[ServiceIp]) {
        let free: Vec<ServiceIp> = ips.iter().filter(|ip| !self.holders.contains_key(ip)).copied().collect();
        self.hold(key, &Sharing::default(), &free);
    }

    /// Takes back what a Service holds.
    pub fn release(&mut self, key: &ServiceKey) -> Vec<ServiceIp> {
        let ips = self.held.remove(key).unwrap_or_default();
        for ip in &ips {
            self.drop_holder(*ip, key);
        }
        ips
    }

    /// Lets `choose` choose as if the Service held nothing; puts things back when it fails.
    fn replace(
        &mut self,
        service: &Service,
        choose: impl FnOnce(&Self) -> Result<Vec<ServiceIp>, Refusal>,
    ) -> Result<Vec<ServiceIp>, Refusal> {
        let sharing = self.sharing_of(&service.key);
        let before = self.release(&service.key);
        match choose(self) {
            Ok(ips) => {
                self.hold(&service.key, &service.sharing, &ips);
                Ok(ips)
            }
            Err(refusal) => {
                self.hold(&service.key, &sharing, &before);
                Err(refusal)
            }
        }
    }

    fn sharing_of(&self, key: &ServiceKey) -> Sharing {
        let first = self.held(key).first().and_then(|ip| self.holders.get(ip));
        first.and_then(|holders| holders.get(key)).cloned().unwrap_or_default()
    }

    fn hold(&mut self, key: &ServiceKey, sharing: &Sharing, ips: &[ServiceIp]) {
        for ip in ips {
            self.holders.entry(*ip).or_default().insert(key.clone(), sharing.clone());
            let Some((pool, slot)) = self.place(*ip) else { continue };
            let family = Family::of(*ip);
            if let Some(free) = self.free.get_mut(&(pool.clone(), family)) {
                free.take(slot);
            }
            if sharing.key.shares() {
                self.shared.entry(sharing.key.clone()).or_default().insert((pool, family, slot));
            }
        }
        if !ips.is_empty() {
            self.held.insert(key.clone(), ips.to_vec());
        }
    }

    fn drop_holder(&mut self, ip: ServiceIp, key: &ServiceKey) {
        let Some(holders) = self.holders.get_mut(&ip) else { return };
        let Some(sharing) = holders.remove(key) else { return };
        let is_last = holders.is_empty();
        let is_last_of_key = !holders.values().any(|other| other.key == sharing.key);
        if is_last {
            self.holders.remove(&ip);
        }
        let Some((pool, slot)) = self.place(ip) else { return };
        let family = Family::of(ip);
        if is_last && let Some(free) = self.free.get_mut(&(pool.clone(), family)) {
            free.put_back(slot);
        }
        if is_last_of_key && let Some(places) = self.shared.get_mut(&sharing.key) {
            places.remove(&(pool, family, slot));
            if places.is_empty() {
                self.shared.remove(&sharing.key);
            }
        }
    }

    fn place(&self, ip: ServiceIp) -> Option<(PoolName, Slot)> {
        let pool = self.pools.containing(ip)?;
        let slot = self.free.get(&(pool.name.clone(), Family::of(ip)))?.slot(ip)?;
        Some((pool.name.clone(), slot))
    }

    fn named(&self, name: &PoolName) -> Result<&Pool, Refusal> {
        self.pools.named(name).ok_or_else(|| Refusal::UnknownPool { pool: name.clone() })
    }

    fn pool_of(&self, ip: ServiceIp) -> Result<&Pool, Refusal> {
        self.pools.containing(ip).ok_or_else(|| Refusal::OutsidePools { ip, pools: self.pools.to_string() })
    }

    /// Whether a Service may hold these addresses together.
    fn check_all(&self, service: &Service, ips: &[ServiceIp]) -> Result<(), Refusal> {
        if !fit(service.families, ips) {
            return Err(Refusal::WrongFamilies);
        }
        let mut common: Option<&Pool> = None;
        for ip in ips {
            let pool = self.pool_of(*ip)?;
            let wanted = common.get_or_insert(pool);
            if wanted.name != pool.name {
                return Err(Refusal::OtherPool { ip: *ip, of: pool.name.clone(), wanted: wanted.name.clone() });
            }
            if !pool.admits(service) {
                return Err(Refusal::NotAdmitted { pool: pool.name.clone() });
            }
            if pool.avoids(*ip) {
                return Err(Refusal::Avoided { ip: *ip, pool: pool.name.clone() });
            }
            self.check_free(*ip, &service.sharing)?;
        }
        Ok(())
    }

    /// Whether the addresses lie in the pool that the Service asks for.
    fn check_pool(&self, service: &Service, ips: &[ServiceIp]) -> Result<(), Refusal> {
        let Some(wanted) = &service.pool else { return Ok(()) };
        let wanted = self.named(wanted)?;
        for ip in ips {
            let of = self.pool_of(*ip)?;
            if of.name != wanted.name {
                return Err(Refusal::OtherPool { ip: *ip, of: of.name.clone(), wanted: wanted.name.clone() });
            }
        }
        Ok(())
    }

    fn check_free(&self, ip: ServiceIp, sharing: &Sharing) -> Result<(), Refusal> {
        let clashes = self.holders.get(&ip).into_iter().flatten();
        match clashes.filter_map(|(by, other)| sharing.clash(other).map(|clash| (by, clash))).next() {
            Some((by, clash)) => Err(Refusal::Taken { ip, by: by.clone(), clash }),
            None => Ok(()),
        }
    }

    /// Chooses from the pool that a Service asks for.
    fn choose_from(&self, service: &Service, pool: &Pool) -> Result<Vec<ServiceIp>, Refusal> {
        if !pool.admits(service) {
            return Err(Refusal::NotAdmitted { pool: pool.name.clone() });
        }
        self.choose(service, &[pool]).ok_or_else(|| exhausted(service.families, &[pool]))
    }

    /// Chooses from the pools that a Service need not ask for: first those that are kept for some Services, by
    /// priority; then the others. Names decide where nothing else does.
    fn choose_freely(&self, service: &Service) -> Result<Vec<ServiceIp>, Refusal> {
        let open = self.pools.iter().filter(|pool| pool.auto_assign && pool.admits(service));
        let (mut kept, general): (Vec<&Pool>, Vec<&Pool>) = open.partition(|pool| pool.kept_for.is_some());
        kept.sort_by_key(|pool| pool.kept_for.as_ref().map(|kept| (kept.priority == 0, kept.priority)));
        let chosen = self.choose(service, &kept).or_else(|| self.choose(service, &general));
        chosen.ok_or_else(|| {
            let all = [kept, general].concat();
            if all.is_empty() { Refusal::NoPool } else { exhausted(service.families, &all) }
        })
    }

    /// Chooses the addresses from the first pool that has what the Service prefers most.
    fn choose(&self, service: &Service, pools: &[&Pool]) -> Option<Vec<ServiceIp>> {
        let preferences: &[&[Family]] = match service.families {
            Families::Unspecified | Families::Single(Family::V4) => &[&[Family::V4]],
            Families::Single(Family::V6) => &[&[Family::V6]],
            Families::RequireDual => &[&[Family::V4, Family::V6]],
            Families::PreferDual(Family::V4) => &[&[Family::V4, Family::V6], &[Family::V4], &[Family::V6]],
            Families::PreferDual(Family::V6) => &[&[Family::V4, Family::V6], &[Family::V6], &[Family::V4]],
        };
        let from = |pool: &Pool, families: &[Family]| {
            families.iter().map(|family| self.lowest(service, pool, *family)).collect::<Option<Vec<ServiceIp>>>()
        };
        preferences.iter().find_map(|families| pools.iter().find_map(|pool| from(pool, families)))
    }

    /// The first address of the pool that the Service may have: a free one, or one that it may share.
    fn lowest(&self, service: &Service, pool: &Pool, family: Family) -> Option<ServiceIp> {
        let free = self.free.get(&(pool.name.clone(), family))?;
        let lowest = free.lowest();
        let shared = self.shared.get(&service.sharing.key).into_iter().flat_map(|places| {
            let from = (pool.name.clone(), family, Slot::FIRST);
            places.range(from..).take_while(|(name, of, _)| *name == pool.name && *of == family)
        });
        let before = shared.map(|(_, _, slot)| *slot).take_while(|slot| lowest.is_none_or(|lowest| *slot < lowest));
        let shareable = before
            .filter_map(|slot| free.ip(slot))
            .find(|ip| !pool.avoids(*ip) && self.check_free(*ip, &service.sharing).is_ok());
        shareable.or_else(|| free.ip(lowest?))
    }
}

/// Whether the addresses are of the families, one of each at most.
fn fit(families: Families, ips: &[ServiceIp]) -> bool {
    let present: Vec<Family> = ips.iter().map(|ip| Family::of(*ip)).collect();
    let distinct: BTreeSet<Family> = present.iter().copied().collect();
    match families {
        Families::Unspecified | Families::PreferDual(_) => !ips.is_empty() && distinct.len() == present.len(),
        Families::Single(family) => present == [family],
        Families::RequireDual => present.len() == 2 && distinct.len() == 2,
    }
}

/// The refusal when no pool of `pools` has what is needed.
fn exhausted(families: Families, pools: &[&Pool]) -> Refusal {
    let (needed, wanted): (&[Family], _) = match families {
        Families::Unspecified | Families::Single(Family::V4) => (&[Family::V4], "IPv4"),
        Families::Single(Family::V6) => (&[Family::V6], "IPv6"),
        Families::PreferDual(_) => (&[], "IPv4 or IPv6"),
        Families::RequireDual => (&[Family::V4, Family::V6], "IPv4 and IPv6"),
    };
    let holds = |pool: &Pool, family: &Family| pool.ranges.iter().any(|range| range.family() == *family);
    let some_pool_could = pools.iter().any(|pool| needed.iter().all(|family| holds(pool, family)));
    let names: Vec<&str> = pools.iter().map(|pool| pool.name.0.as_str()).collect();
    let word = if names.len() == 1 { "pool" } else { "pools" };
    let pools = format!("the {word} {}", names.join(", "));
    if some_pool_could { Refusal::Exhausted { wanted, pools } } else { Refusal::NoneOfFamily { wanted, pools } }
}

#[cfg(test)]
mod tests;
