//! Who holds which address, and which addresses nobody holds.
//!
//! Invariants: an address is free exactly when no Service holds it; every index agrees with the tenancies. Which
//! Service may have which address is not judged here.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use garpike_controller_api::config::{Pool, PoolName, Pools};
use garpike_controller_api::{Family, Sharing, SharingKey};
use garpike_election::{ServiceIp, ServiceKey};

use crate::free::{FreeAddresses, Slot};
use crate::shares::Shares;

/// All tenancies, by Service, by address and by sharing key.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    /// The pools in the order of their names.
    spaces: Vec<Space>,
    places: BTreeMap<PoolName, usize>,
    /// First address of every range of every pool, with the last one and the place of the pool.
    ranges: BTreeMap<IpAddr, (IpAddr, usize)>,
    tenancies: BTreeSet<ByKey>,
    holders: BTreeMap<ServiceIp, Vec<Arc<Tenancy>>>,
    /// By pool and family: the addresses that Services with a key share, or would.
    shares: BTreeMap<(usize, Family), BTreeMap<SharingKey, Shares>>,
    releases: u64,
}

/// One pool and what of it nobody holds.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    pub(crate) pool: Pool,
    v4: Stock,
    v6: Stock,
}

/// The addresses of one family of one pool.
#[derive(Clone, Debug)]
struct Stock {
    free: FreeAddresses,
    /// How many somebody holds.
    used: u64,
}

/// What one Service holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tenancy {
    pub(crate) key: ServiceKey,
    pub(crate) sharing: Sharing,
    /// What it is to have, in the order in which its status lists it.
    pub(crate) ips: Vec<ServiceIp>,
    /// What its status shows, or may show: nobody else may have it before that has ended.
    pub(crate) published: Box<[ServiceIp]>,
}

impl Tenancy {
    /// Whether it shares `ip` with those who may. What it is not to have it shares with nobody.
    pub(crate) fn shares(&self, ip: ServiceIp) -> bool {
        self.ips.contains(&ip)
    }

    fn all(&self) -> impl Iterator<Item = ServiceIp> + '_ {
        let leaving = self.published.iter().filter(|ip| !self.ips.contains(ip));
        self.ips.iter().chain(leaving).copied()
    }
}

/// A tenancy where its Service orders it.
#[derive(Clone, Debug)]
struct ByKey(Arc<Tenancy>);

impl Borrow<ServiceKey> for ByKey {
    fn borrow(&self) -> &ServiceKey {
        &self.0.key
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key.cmp(&other.0.key)
    }
}

/// An address by its pool, family and slot.
#[derive(Clone, Copy, Debug)]
struct Place {
    space: usize,
    family: Family,
    slot: Slot,
}

impl Space {
    fn new(pool: &Pool) -> Self {
        let stock = |family| Stock { free: FreeAddresses::new(family, pool), used: 0 };
        Self { pool: pool.clone(), v4: stock(Family::V4), v6: stock(Family::V6) }
    }

    /// Its addresses of one family that nobody holds.
    pub(crate) fn free(&self, family: Family) -> &FreeAddresses {
        &self.stock(family).free
    }

    /// How many of its addresses of one family somebody holds.
    pub(crate) fn used(&self, family: Family) -> u64 {
        self.stock(family).used
    }

    fn stock(&self, family: Family) -> &Stock {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn stock_mut(&mut self, family: Family) -> &mut Stock {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

impl Ledger {
    /// Nobody holds anything.
    pub(crate) fn new(pools: &Pools) -> Self {
        let spaces: Vec<Space> = pools.iter().map(Space::new).collect();
        let named = spaces.iter().enumerate();
        let places = named.clone().map(|(at, space)| (space.pool.name.clone(), at)).collect();
        let ranges = named
            .flat_map(|(at, space)| space.pool.ranges.iter().map(move |range| (range.first(), (range.last(), at))));
        let ranges = ranges.collect();
        Self {
            places,
            ranges,
            spaces,
            tenancies: BTreeSet::new(),
            holders: BTreeMap::new(),
            shares: BTreeMap::new(),
            releases: 0,
        }
    }

    /// The same tenancies over other pools.
    pub(crate) fn with_pools(&self, pools: &Pools) -> Self {
        let mut ledger = Self::new(pools);
        for ByKey(tenancy) in &self.tenancies {
            ledger.tenancies.insert(ByKey(tenancy.clone()));
            ledger.enter(tenancy);
        }
        ledger
    }

    /// The pools in the order of their names.
    pub(crate) fn spaces(&self) -> &[Space] {
        &self.spaces
    }

    /// The place of the pool of that name.
    pub(crate) fn named(&self, name: &PoolName) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// The pool that holds `ip`.
    pub(crate) fn containing(&self, ip: ServiceIp) -> Option<&Space> {
        self.spaces.get(self.place_of_pool(ip)?)
    }

    /// How often a Service gave something up.
    pub(crate) fn releases(&self) -> u64 {
        self.releases
    }

    /// What a Service holds.
    pub(crate) fn tenancy(&self, key: &ServiceKey) -> Option<&Tenancy> {
        self.tenancies.get(key).map(|ByKey(tenancy)| tenancy.as_ref())
    }

    /// Everybody who holds `ip`.
    pub(crate) fn holders(&self, ip: ServiceIp) -> impl Iterator<Item = &Tenancy> {
        self.holders.get(&ip).into_iter().flatten().map(Arc::as_ref)
    }

    /// The held addresses of one pool and family that a Service may share, as far as keys and ports decide, in the order in
    /// which they are given.
    pub(crate) fn shared<'a>(
        &'a self,
        sharing: &'a Sharing,
        space: usize,
        family: Family,
    ) -> impl Iterator<Item = Slot> + 'a {
        let shares = self.shares.get(&(space, family)).and_then(|keys| keys.get(&sharing.key));
        shares.into_iter().flat_map(|shares| shares.open_to(&sharing.ports))
    }

    /// Writes down what a Service holds; whatever it held before is free unless another one holds it.
    pub(crate) fn set(&mut self, tenancy: Tenancy) {
        let tenancy = Arc::new(tenancy);
        let is_empty = tenancy.all().next().is_none();
        let before =
            if is_empty { self.tenancies.take(&tenancy.key) } else { self.tenancies.replace(ByKey(tenancy.clone())) };
        if let Some(ByKey(before)) = before {
            let gives_up = |ip| before.sharing != tenancy.sharing || !tenancy.all().any(|kept| kept == ip);
            // What lies in no pool helps nobody who waits.
            if before.all().any(|ip| gives_up(ip) && self.containing(ip).is_some()) {
                self.releases += 1;
            }
            self.leave(&before);
        }
        self.enter(&tenancy);
    }

    /// Strikes out what a Service holds.
    pub(crate) fn strike(&mut self, key: &ServiceKey) -> Option<Arc<Tenancy>> {
        let ByKey(tenancy) = self.tenancies.take(key)?;
        if tenancy.all().any(|ip| self.containing(ip).is_some()) {
            self.releases += 1;
        }
        self.leave(&tenancy);
        Some(tenancy)
    }

    fn enter(&mut self, tenancy: &Arc<Tenancy>) {
        for ip in tenancy.all() {
            let holders = self.holders.entry(ip).or_insert_with(|| Vec::with_capacity(1));
            let was_free = holders.is_empty();
            holders.push(tenancy.clone());
            let Some(Place { space, family, slot }) = self.place(ip) else { continue };
            if was_free && let Some(space) = self.spaces.get_mut(space) {
                let stock = space.stock_mut(family);
                stock.free.take(slot);
                stock.used += 1;
            }
            if tenancy.sharing.key.shares() && tenancy.shares(ip) {
                let keys = self.shares.entry((space, family)).or_default();
                keys.entry(tenancy.sharing.key.clone()).or_default().enter(slot, &tenancy.sharing.ports);
            }
        }
    }

    fn leave(&mut self, tenancy: &Tenancy) {
        for ip in tenancy.all() {
            let Some(holders) = self.holders.get_mut(&ip) else { continue };
            holders.retain(|holder| holder.key != tenancy.key);
            let is_free = holders.is_empty();
            if is_free {
                self.holders.remove(&ip);
            }
            let Some(Place { space, family, slot }) = self.place(ip) else { continue };
            if is_free && let Some(space) = self.spaces.get_mut(space) {
                let stock = space.stock_mut(family);
                stock.free.put_back(slot);
                stock.used -= 1;
            }
            if tenancy.sharing.key.shares()
                && tenancy.shares(ip)
                && let Some(keys) = self.shares.get_mut(&(space, family))
                && let Some(shares) = keys.get_mut(&tenancy.sharing.key)
            {
                shares.leave(slot, &tenancy.sharing.ports);
                if shares.is_empty() {
                    keys.remove(&tenancy.sharing.key);
                }
            }
        }
    }

    fn place(&self, ip: ServiceIp) -> Option<Place> {
        let (space, family) = (self.place_of_pool(ip)?, Family::of(ip));
        let slot = self.spaces.get(space)?.free(family).slot(ip)?;
        Some(Place { space, family, slot })
    }

    fn place_of_pool(&self, ip: ServiceIp) -> Option<usize> {
        let (_, (last, space)) = self.ranges.range(..=ip.addr()).next_back()?;
        (ip.addr() <= *last).then_some(*space)
    }
}
