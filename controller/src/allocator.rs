//! Which Service gets which address: the core that gives addresses and takes them back.
//!
//! Invariants: an address is held by several Services only when none of them clashes with another; every address that is
//! given lies in a pool that admits the Service; what a Service has is never lost by asking for something else. Equal
//! calls in equal order give equal results. No call walks a range, or the addresses that others hold.

mod refusal;

use std::collections::{BTreeMap, BTreeSet};

use garpike_controller_api::config::{Families, Pool, PoolName, Pools, Request, Service};
use garpike_controller_api::{Family, IPAddressPoolStatus, Sharing};
use garpike_election::{ServiceIp, ServiceKey};

pub use refusal::Refusal;

use crate::ledger::{Ledger, Space, Tenancy};

/// Gives the addresses of pools to Services.
#[derive(Clone, Debug)]
pub struct Allocator {
    pools: Pools,
    ledger: Ledger,
    /// The pools that give addresses unasked and are kept for some Services, in the order in which they are tried.
    kept: Vec<usize>,
    /// The other pools that give addresses unasked.
    general: Vec<usize>,
}

impl Allocator {
    /// All addresses of these pools are free.
    pub fn new(pools: &Pools) -> Self {
        Self::over(pools, Ledger::new(pools))
    }

    /// Every Service holds what it held, over other pools. Whether these allow it, [`Self::keep`] says.
    #[must_use]
    pub fn with_pools(&self, pools: &Pools) -> Self {
        Self::over(pools, self.ledger.with_pools(pools))
    }

    fn over(pools: &Pools, ledger: Ledger) -> Self {
        let open = pools.iter().enumerate().filter(|(_, pool)| pool.auto_assign);
        let (mut kept, general): (Vec<_>, Vec<_>) = open.partition(|(_, pool)| pool.kept_for.is_some());
        // The lowest positive number goes first, 0 last; names decide where priorities tie.
        kept.sort_by_key(|(_, pool)| pool.kept_for.as_ref().map(|kept| (kept.priority == 0, kept.priority)));
        let places = |pools: Vec<(usize, &Pool)>| pools.into_iter().map(|(at, _)| at).collect();
        Self { pools: pools.clone(), ledger, kept: places(kept), general: places(general) }
    }

    /// The pools.
    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// What a Service is to have.
    pub fn held(&self, key: &ServiceKey) -> &[ServiceIp] {
        self.ledger.tenancy(key).map_or(&[], |tenancy| &tenancy.ips)
    }

    /// How many addresses of each pool are held, and how many are free. Numbers that a status cannot hold are cut.
    pub fn counts(&self) -> BTreeMap<PoolName, IPAddressPoolStatus> {
        let counts = |space: &Space| {
            let free = |family| i64::try_from(space.free(family).count()).unwrap_or(i64::MAX);
            let used = |family| i64::try_from(space.used(family)).unwrap_or(i64::MAX);
            IPAddressPoolStatus {
                assigned_ipv4: used(Family::V4),
                assigned_ipv6: used(Family::V6),
                available_ipv4: free(Family::V4),
                available_ipv6: free(Family::V6),
            }
        };
        self.ledger.spaces().iter().map(|space| (space.pool.name.clone(), counts(space))).collect()
    }

    /// Lets a Service keep the addresses that it has, if pools and families allow them.
    ///
    /// # Errors
    ///
    /// When they do not. The Service then holds what it held before the call.
    pub fn keep(&mut self, service: &Service, ips: &[ServiceIp]) -> Result<(), Refusal> {
        self.check_all(service, ips)?;
        self.give(service, ips.to_vec());
        Ok(())
    }

    /// Lets a Service hold addresses that its own manifest gives it: they need only lie in pools and be free.
    ///
    /// # Errors
    ///
    /// When one is not. The Service then holds what it held before the call.
    pub fn adopt(&mut self, service: &Service, ips: &[ServiceIp]) -> Result<(), Refusal> {
        for ip in ips {
            self.space_of(*ip)?;
            self.check_free(*ip, &service.key, &service.sharing)?;
        }
        self.give(service, ips.to_vec());
        Ok(())
    }

    /// Gives a Service what it asks for: its addresses, or some of its pool, or some of the pools that are open to it.
    /// What it holds it keeps, as far as that is what it asks for.
    ///
    /// # Errors
    ///
    /// When that is not possible. The Service then holds what it held before the call.
    pub fn assign(&mut self, service: &Service) -> Result<Vec<ServiceIp>, Refusal> {
        let Some(own) = self.ledger.tenancy(&service.key) else {
            let ips = self.choose(service, &[])?;
            self.enter(service, ips.clone(), Box::default());
            return Ok(ips);
        };
        let held = own.ips.clone();
        self.reclaim(service, &held)
    }

    /// Like [`Self::assign`] for a Service that has these addresses by its status, whether it holds them here or not.
    ///
    /// # Errors
    ///
    /// As [`Self::assign`].
    pub fn reclaim(&mut self, service: &Service, has: &[ServiceIp]) -> Result<Vec<ServiceIp>, Refusal> {
        let ips = self.choose(service, has)?;
        self.give(service, ips.clone());
        Ok(ips)
    }

    /// Gives a Service that prefers both families and has one the other one too, from the same pool. Says whether
    /// there was one.
    pub fn complete(&mut self, service: &Service) -> bool {
        let &[ip] = self.held(&service.key) else { return false };
        let Families::PreferDual(_) = service.families else { return false };
        let both = self.ledger.containing(ip).and_then(|space| self.both(service, space, ip));
        both.map(|both| self.give(service, both)).is_some()
    }

    /// Notes what the status of a Service shows, or may show. Whatever of it the Service is not to have is kept from the
    /// others all the same, until this is called again without it.
    pub fn publish(&mut self, key: &ServiceKey, published: BTreeSet<ServiceIp>) {
        let own = self.ledger.tenancy(key);
        if own.map_or(published.is_empty(), |own| own.published.iter().eq(&published)) {
            return;
        }
        let (sharing, ips) = own.map(|own| (own.sharing.clone(), own.ips.clone())).unwrap_or_default();
        self.ledger.set(Tenancy { key: key.clone(), sharing, ips, published: published.into_iter().collect() });
    }

    /// Takes back what a Service holds.
    pub fn release(&mut self, key: &ServiceKey) -> Vec<ServiceIp> {
        self.ledger.strike(key).map(|tenancy| tenancy.ips.clone()).unwrap_or_default()
    }

    /// Takes away what a Service is to have. What its status shows of it stays with it, see [`Self::publish`].
    pub fn withdraw(&mut self, key: &ServiceKey) {
        let Some(own) = self.ledger.tenancy(key) else { return };
        if own.ips.is_empty() {
            return;
        }
        self.ledger.set(Tenancy { ips: Vec::new(), ..own.clone() });
    }

    /// How often a Service gave up an address, or its part of one. When it has grown, another one may have better luck.
    pub(crate) fn releases(&self) -> u64 {
        self.ledger.releases()
    }

    fn give(&mut self, service: &Service, ips: Vec<ServiceIp>) {
        let own = self.ledger.tenancy(&service.key);
        let same_sharing = |own: &Tenancy| own.sharing == service.sharing || !shares(&own.sharing, &service.sharing);
        if own.is_some_and(|own| own.ips == ips && same_sharing(own)) {
            return;
        }
        let published = own.map(|own| own.published.clone()).unwrap_or_default();
        self.enter(service, ips, published);
    }

    fn enter(&mut self, service: &Service, ips: Vec<ServiceIp>, published: Box<[ServiceIp]>) {
        // The ports of a Service that shares with nobody do not matter.
        let sharing = if service.sharing.key.shares() { service.sharing.clone() } else { Sharing::default() };
        self.ledger.set(Tenancy { key: service.key.clone(), sharing, ips, published });
    }

    fn choose(&self, service: &Service, has: &[ServiceIp]) -> Result<Vec<ServiceIp>, Refusal> {
        match &service.request {
            Request::Invalid => Err(Refusal::InvalidRequest),
            Request::Addresses { ips, .. } => {
                self.check_pool(service, ips)?;
                self.check_all(service, ips)?;
                let same = has.len() == ips.len() && ips.iter().all(|ip| has.contains(ip));
                // The first address decides who announces, so their order stays.
                Ok(if same { has.to_vec() } else { ips.clone() })
            }
            Request::Any => {
                if let Some(ips) = self.salvage(service, has) {
                    return Ok(ips);
                }
                match &service.pool {
                    Some(name) => self.choose_from(service, name),
                    None => self.choose_freely(service),
                }
            }
        }
    }

    /// What a Service has, as far as it may keep it, with what it lacks from the same pool.
    fn salvage(&self, service: &Service, has: &[ServiceIp]) -> Option<Vec<ServiceIp>> {
        if has.is_empty() {
            return None;
        }
        if self.check_pool(service, has).is_ok() && self.check_all(service, has).is_ok() {
            return Some(has.to_vec());
        }
        has.iter().find_map(|ip| {
            self.check_pool(service, &[*ip]).ok()?;
            let space = self.usable_space(service, *ip).ok()?;
            match service.families {
                Families::Single(family) => (Family::of(*ip) == family).then(|| vec![*ip]),
                Families::RequireDual => self.both(service, space, *ip),
                Families::PreferDual(_) => self.both(service, space, *ip).or_else(|| Some(vec![*ip])),
                Families::Unspecified => Some(vec![*ip]),
            }
        })
    }

    /// `ip` and an address of the other family from the same pool.
    fn both(&self, service: &Service, space: &Space, ip: ServiceIp) -> Option<Vec<ServiceIp>> {
        let place = self.ledger.named(&space.pool.name)?;
        let other = self.lowest(service, place, Family::of(ip).other())?;
        let mut both = vec![ip, other];
        both.sort_unstable();
        Some(both)
    }

    fn space_of(&self, ip: ServiceIp) -> Result<&Space, Refusal> {
        self.ledger.containing(ip).ok_or_else(|| Refusal::OutsidePools { ip, pools: self.pools.to_string() })
    }

    /// The pool that gives `ip` to a Service like this one, if it is free for it.
    fn usable_space(&self, service: &Service, ip: ServiceIp) -> Result<&Space, Refusal> {
        let space = self.space_of(ip)?;
        let pool = &space.pool;
        if !pool.admits(service) {
            return Err(Refusal::NotAdmitted { pool: pool.name.clone() });
        }
        if pool.avoids(ip) {
            return Err(Refusal::Avoided { ip, pool: pool.name.clone() });
        }
        self.check_free(ip, &service.key, &service.sharing)?;
        Ok(space)
    }

    /// Whether a Service may hold these addresses together.
    fn check_all(&self, service: &Service, ips: &[ServiceIp]) -> Result<(), Refusal> {
        if !fit(service.families, ips) {
            return Err(Refusal::WrongFamilies);
        }
        let mut common: Option<&PoolName> = None;
        for ip in ips {
            let of = &self.space_of(*ip)?.pool.name;
            let wanted = *common.get_or_insert(of);
            if wanted != of {
                return Err(Refusal::OtherPool { ip: *ip, of: of.clone(), wanted: wanted.clone() });
            }
            self.usable_space(service, *ip)?;
        }
        Ok(())
    }

    /// Whether the addresses lie in the pool that the Service asks for.
    fn check_pool(&self, service: &Service, ips: &[ServiceIp]) -> Result<(), Refusal> {
        let Some(wanted) = &service.pool else { return Ok(()) };
        if self.ledger.named(wanted).is_none() {
            return Err(Refusal::UnknownPool { pool: wanted.clone() });
        }
        for ip in ips {
            let of = &self.space_of(*ip)?.pool.name;
            if of != wanted {
                return Err(Refusal::OtherPool { ip: *ip, of: of.clone(), wanted: wanted.clone() });
            }
        }
        Ok(())
    }

    fn check_free(&self, ip: ServiceIp, key: &ServiceKey, sharing: &Sharing) -> Result<(), Refusal> {
        let others = self.ledger.holders(ip).filter(|holder| holder.key != *key);
        // Who is seen with it already does not wait until others are not.
        let is_seen_with_it = || self.ledger.tenancy(key).is_some_and(|own| own.published.contains(&ip));
        let mut refusals = others.filter_map(|other| {
            if other.shares(ip) {
                let clash = sharing.clash(&other.sharing)?;
                Some(Refusal::Taken { ip, by: other.key.clone(), clash })
            } else {
                (!is_seen_with_it()).then(|| Refusal::Leaving { ip, by: other.key.clone() })
            }
        });
        refusals.next().map_or(Ok(()), Err)
    }

    /// Chooses from the pool that a Service asks for.
    fn choose_from(&self, service: &Service, name: &PoolName) -> Result<Vec<ServiceIp>, Refusal> {
        let place = self.ledger.named(name).ok_or_else(|| Refusal::UnknownPool { pool: name.clone() })?;
        if !self.ledger.spaces().get(place).is_some_and(|space| space.pool.admits(service)) {
            return Err(Refusal::NotAdmitted { pool: name.clone() });
        }
        self.first_choice(service, &[place]).ok_or_else(|| self.exhausted(service.families, &[place]))
    }

    /// Chooses from the pools that a Service need not ask for: first those that are kept for some Services, by
    /// priority; then the others. Names decide where nothing else does.
    fn choose_freely(&self, service: &Service) -> Result<Vec<ServiceIp>, Refusal> {
        let admits = |at: &&usize| self.ledger.spaces().get(**at).is_some_and(|space| space.pool.admits(service));
        let kept: Vec<usize> = self.kept.iter().filter(admits).copied().collect();
        let chosen = self.first_choice(service, &kept).or_else(|| self.first_choice(service, &self.general));
        chosen.ok_or_else(|| {
            let all = [kept, self.general.clone()].concat();
            if all.is_empty() { Refusal::NoPool } else { self.exhausted(service.families, &all) }
        })
    }

    /// Chooses the addresses from the first pool that has what the Service prefers most.
    fn first_choice(&self, service: &Service, places: &[usize]) -> Option<Vec<ServiceIp>> {
        let preferences: &[&[Family]] = match service.families {
            Families::Unspecified | Families::Single(Family::V4) => &[&[Family::V4]],
            Families::Single(Family::V6) => &[&[Family::V6]],
            Families::RequireDual => &[&[Family::V4, Family::V6]],
            Families::PreferDual(Family::V4) => &[&[Family::V4, Family::V6], &[Family::V4], &[Family::V6]],
            Families::PreferDual(Family::V6) => &[&[Family::V4, Family::V6], &[Family::V6], &[Family::V4]],
        };
        let from = |place: usize, families: &[Family]| {
            families.iter().map(|family| self.lowest(service, place, *family)).collect::<Option<Vec<ServiceIp>>>()
        };
        preferences.iter().find_map(|families| places.iter().find_map(|place| from(*place, families)))
    }

    /// The first address of the pool that the Service may have: a free one, or one that it may share.
    fn lowest(&self, service: &Service, place: usize, family: Family) -> Option<ServiceIp> {
        let space = self.ledger.spaces().get(place)?;
        let free = space.free(family);
        let lowest = free.lowest();
        if service.sharing.key.shares() {
            let shared = self.ledger.shared(&service.sharing, place, family);
            let before = shared.take_while(|slot| lowest.is_none_or(|lowest| *slot < lowest));
            let mut addresses = before.filter_map(|slot| free.ip(slot));
            let shareable = |ip: &ServiceIp| {
                !space.pool.avoids(*ip) && self.check_free(*ip, &service.key, &service.sharing).is_ok()
            };
            if let Some(ip) = addresses.find(shareable) {
                return Some(ip);
            }
        }
        free.ip(lowest?)
    }

    /// The refusal when no pool of `places` has what is needed.
    fn exhausted(&self, families: Families, places: &[usize]) -> Refusal {
        let (needed, wanted): (&[Family], _) = match families {
            Families::Unspecified | Families::Single(Family::V4) => (&[Family::V4], "IPv4"),
            Families::Single(Family::V6) => (&[Family::V6], "IPv6"),
            Families::PreferDual(_) => (&[], "IPv4 or IPv6"),
            Families::RequireDual => (&[Family::V4, Family::V6], "IPv4 and IPv6"),
        };
        let pools: Vec<&Pool> =
            places.iter().filter_map(|at| self.ledger.spaces().get(*at)).map(|space| &space.pool).collect();
        let holds = |pool: &Pool, family: &Family| pool.ranges.iter().any(|range| range.family() == *family);
        let some_pool_could = pools.iter().any(|pool| needed.iter().all(|family| holds(pool, family)));
        let names: Vec<&str> = pools.iter().map(|pool| pool.name.0.as_str()).collect();
        let word = if names.len() == 1 { "pool" } else { "pools" };
        let pools = format!("the {word} {}", names.join(", "));
        if some_pool_could { Refusal::Exhausted { wanted, pools } } else { Refusal::NoneOfFamily { wanted, pools } }
    }
}

/// Whether one of the two shares at all.
fn shares(one: &Sharing, other: &Sharing) -> bool {
    one.key.shares() || other.key.shares()
}

/// Whether the addresses are of the families, one of each at most.
fn fit(families: Families, ips: &[ServiceIp]) -> bool {
    let one_of_each = match ips {
        [_] => true,
        [one, other] => Family::of(*one) != Family::of(*other),
        _ => false,
    };
    match families {
        Families::Unspecified | Families::PreferDual(_) => one_of_each,
        Families::Single(family) => matches!(ips, [ip] if Family::of(*ip) == family),
        Families::RequireDual => one_of_each && ips.len() == 2,
    }
}

#[cfg(test)]
mod replay;
#[cfg(test)]
mod tests;
