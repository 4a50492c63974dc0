//! Who is to have which address, and what must be written for it: observed state in, writes out.
//!
//! The same core serves the Kubernetes shell and `garpike allocate`. Invariants: an address is kept for a Service before
//! it is written and until nobody can see it there any more, so no order of writes, losses and conflicts shows it twice;
//! a Service that has a valid address keeps it; nothing is written that is there already. What a status shows is taken
//! over, all of it, before the first address is given. Nothing here talks to Kubernetes or reads a clock.

mod event;
mod observe;
mod settle;
mod tenant;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use garpike_controller_api::IPAddressPoolStatus;
use garpike_controller_api::config::{PoolName, Pools};
use garpike_election::{ServiceIp, ServiceKey};

use crate::allocator::{Allocator, Refusal};

pub use event::{Event, EventType, Reason};
pub use observe::POOL_ANNOTATION;
pub use tenant::{Author, Failure, Observed, Wish, Write};
use tenant::{Standing, Tenant, Writing};

/// Plans the addresses of all Services, one change at a time.
#[derive(Debug)]
pub struct Planner {
    allocator: Allocator,
    completeness: Completeness,
    phase: Phase,
    tenants: BTreeMap<ServiceKey, Tenant>,
    /// The Services that lack something, the longest-waiting first.
    queue: BTreeMap<u64, ServiceKey>,
    next_turn: u64,
    /// The Services to which something may have to be written.
    dirty: BTreeSet<ServiceKey>,
    retries: BTreeSet<(Instant, ServiceKey)>,
    events: VecDeque<Event>,
    /// What the statuses of the pools show.
    pool_statuses: BTreeMap<PoolName, IPAddressPoolStatus>,
}

/// Whether the pools are all that people wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// They are: an address without a pool is an address to take back.
    Whole,
    /// Some pool is broken and missing: nobody loses an address for want of it.
    Partial,
}

/// How far the planner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It does not know all Services yet, and gives nothing away.
    Listening,
    /// It gives addresses.
    Serving,
}

impl Default for Planner {
    fn default() -> Self {
        Self {
            allocator: Allocator::new(&Pools::default()),
            completeness: Completeness::Partial,
            phase: Phase::Listening,
            tenants: BTreeMap::new(),
            queue: BTreeMap::new(),
            next_turn: 0,
            dirty: BTreeSet::new(),
            retries: BTreeSet::new(),
            events: VecDeque::new(),
            pool_statuses: BTreeMap::new(),
        }
    }
}

impl Planner {
    /// The pools are these. Nothing is looked at when they are what they were: a fight that was given up is not begun
    /// again because somebody has made a namespace.
    pub fn handle_pools(&mut self, pools: &Pools, completeness: Completeness) {
        if self.completeness == completeness && self.allocator.pools() == pools {
            return;
        }
        self.allocator = self.allocator.with_pools(pools);
        self.completeness = completeness;
        for tenant in self.tenants.values_mut() {
            tenant.overwrites = 0;
        }
        self.settle_all();
    }

    /// A Service is there, or has changed.
    pub fn handle_service(&mut self, key: &ServiceKey, observed: Observed) {
        let releases = self.allocator.releases();
        match self.tenants.get_mut(key) {
            Some(tenant) => tenant.observe(observed),
            None => drop(self.tenants.insert(key.clone(), Tenant::new(observed))),
        }
        self.reserve(key);
        if self.phase == Phase::Serving {
            self.settle(key);
            self.tell_what_is_shown(key);
            self.forget_if_done(key);
            self.wake(releases);
        }
    }

    /// A Service is gone, or is not ours.
    pub fn handle_gone(&mut self, key: &ServiceKey) {
        let releases = self.allocator.releases();
        self.forget(key);
        self.wake(releases);
    }

    /// All Services and pools that there are have been told. Only now addresses are given.
    pub fn handle_synced(&mut self) {
        self.phase = Phase::Serving;
        self.settle_all();
    }

    /// What is to be written next. The caller tells what came of it by one of the three `handle_` functions below, or by
    /// [`Self::handle_gone`].
    pub fn poll_write(&mut self) -> Option<Write> {
        if self.phase == Phase::Listening {
            return None;
        }
        while let Some(key) = self.dirty.pop_first() {
            let Some(write) = self.due(&key) else { continue };
            if let Some(tenant) = self.tenants.get_mut(&key) {
                tenant.writing = Writing::Begun(write.clone());
            }
            self.reserve(&key);
            return Some(write);
        }
        None
    }

    /// A write has succeeded and made this version.
    pub fn handle_written(&mut self, write: &Write, version: u64) {
        let releases = self.allocator.releases();
        let Some(tenant) = self.ended(write) else { return };
        tenant.writing = Writing::Idle;
        tenant.failures = 0;
        if version >= tenant.observed.version {
            tenant.uncertain = None;
            tenant.observed.version = version;
            tenant.observed.addresses.clone_from(&write.addresses);
            tenant.observed.from_pool.clone_from(&write.pool);
            tenant.observed.author = Author::Us;
        }
        self.reserve(&write.service);
        self.dirty.insert(write.service.clone());
        self.tell_what_is_shown(&write.service);
        self.forget_if_done(&write.service);
        self.wake(releases);
    }

    /// A write has not succeeded, as far as anybody knows.
    pub fn handle_failure(&mut self, write: &Write, failure: Failure, now: Instant) {
        let releases = self.allocator.releases();
        let Some(tenant) = self.ended(write) else { return };
        let is_newer = tenant.observed.version > write.version;
        tenant.writing = match failure {
            Failure::Conflict if is_newer => Writing::Idle,
            Failure::Conflict => Writing::Outdated,
            Failure::Refused | Failure::Throttled | Failure::Unknown => Writing::Paused,
        };
        if failure == Failure::Unknown && !is_newer {
            let (_, ips) = tenant.uncertain.get_or_insert_default();
            ips.extend(&write.addresses);
        }
        let pause = match tenant.writing {
            // Who throttles says how long by itself; and one of many Services is not to wait longer for having had bad luck.
            Writing::Paused if failure == Failure::Throttled => Some(FIRST_PAUSE),
            Writing::Paused => {
                let doublings = tenant.failures.min(MAX_DOUBLINGS);
                tenant.failures = tenant.failures.saturating_add(1);
                Some(FIRST_PAUSE.saturating_mul(1 << doublings))
            }
            // A newer version is told within milliseconds; but a webhook or a quota may say the same without one.
            Writing::Outdated => Some(NEWER_WITHIN),
            Writing::Idle | Writing::Begun(_) => None,
        };
        self.retries.extend(pause.map(|pause| (now + pause, write.service.clone())));
        self.reserve(&write.service);
        self.dirty.insert(write.service.clone());
        self.wake(releases);
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.retries.first().map(|(at, _)| *at)
    }

    /// Lets writes be tried again whose pause is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, key)) = self.retries.pop_first() {
            if at > now {
                self.retries.insert((at, key));
                return;
            }
            if let Some(tenant) = self.tenants.get_mut(&key).filter(|tenant| tenant.writing.waits()) {
                tenant.writing = Writing::Idle;
                self.dirty.insert(key);
            }
        }
    }

    /// What people are to be told next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What the status of a pool shows; `None`: nothing, or the pool is gone.
    pub fn handle_pool_status(&mut self, name: &PoolName, status: Option<IPAddressPoolStatus>) {
        match status {
            Some(status) => drop(self.pool_statuses.insert(name.clone(), status)),
            None => drop(self.pool_statuses.remove(name)),
        }
    }

    /// The pools whose status does not show what is so, with what is.
    pub fn pool_writes(&self) -> BTreeMap<PoolName, IPAddressPoolStatus> {
        let mut counts = self.counts();
        counts.retain(|name, status| self.pool_statuses.get(name) != Some(status));
        counts
    }

    /// How many addresses of each pool are held and free; nothing before all Services are known.
    pub fn counts(&self) -> BTreeMap<PoolName, IPAddressPoolStatus> {
        match self.phase {
            Phase::Listening => BTreeMap::new(),
            Phase::Serving => self.allocator.counts(),
        }
    }

    /// The pools.
    pub fn pools(&self) -> &Pools {
        self.allocator.pools()
    }

    /// Whether it has been told of a Service and not that it is gone.
    pub fn knows(&self, key: &ServiceKey) -> bool {
        self.tenants.contains_key(key)
    }

    /// The addresses that a Service has, or will have as soon as they are written.
    pub fn addresses(&self, key: &ServiceKey) -> &[ServiceIp] {
        let left_alone = self.tenants.get(key).filter(|tenant| tenant.standing == Standing::LeftAlone);
        left_alone.map_or_else(|| self.allocator.held(key), |tenant| &tenant.observed.addresses)
    }

    /// How many Services something may have to be written to, those included that wait for another try.
    pub fn writes_due(&self) -> usize {
        self.dirty.len() + self.retries.len()
    }

    /// Why a Service does not have what it asks for.
    pub fn refusal(&self, key: &ServiceKey) -> Option<&Refusal> {
        self.tenants.get(key)?.refusal.as_ref()
    }

    /// Whether a write to a Service is due or under way.
    pub fn is_writing(&self, key: &ServiceKey) -> bool {
        self.due(key).is_some() || self.tenants.get(key).is_some_and(|tenant| tenant.writing != Writing::Idle)
    }

    /// What is to be written to a Service, unless a write is under way or pauses.
    fn due(&self, key: &ServiceKey) -> Option<Write> {
        let tenant = self.tenants.get(key)?;
        let observed = &tenant.observed;
        let writable = match observed.wish {
            Wish::Addresses(_) => observed.author != Author::Manifest,
            Wish::Nothing => observed.author == Author::Us,
            Wish::Unknown => false,
        };
        if tenant.writing != Writing::Idle || tenant.standing == Standing::LeftAlone || !writable {
            return None;
        }
        let addresses = self.allocator.held(key);
        let pool = addresses.first().and_then(|ip| self.allocator.pools().containing(*ip)).map(|pool| &pool.name);
        if addresses == observed.addresses && (pool == observed.from_pool.as_ref() || is_orphan(addresses, pool)) {
            return None;
        }
        Some(Write {
            service: key.clone(),
            version: observed.version,
            addresses: addresses.to_vec(),
            pool: pool.cloned(),
        })
    }

    /// The tenant of a write that was under way.
    fn ended(&mut self, write: &Write) -> Option<&mut Tenant> {
        let tenant = self.tenants.get_mut(&write.service)?;
        match &tenant.writing {
            Writing::Begun(begun) if begun == write => Some(tenant),
            Writing::Begun(_) | Writing::Idle | Writing::Outdated | Writing::Paused => None,
        }
    }

    /// Keeps for a Service what its status shows or may show.
    fn reserve(&mut self, key: &ServiceKey) {
        if let Some(tenant) = self.tenants.get(key) {
            self.allocator.publish(key, tenant.visible());
        }
    }

    /// Forgets a Service that is to have nothing and shows nothing.
    fn forget_if_done(&mut self, key: &ServiceKey) {
        let is_done = self.tenants.get(key).is_some_and(|tenant| {
            matches!(tenant.observed.wish, Wish::Nothing)
                && tenant.writing == Writing::Idle
                && tenant.visible().is_empty()
                && tenant.observed.from_pool.is_none()
        });
        if is_done {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: &ServiceKey) {
        self.leave_queue(key);
        self.tenants.remove(key);
        self.dirty.remove(key);
        self.allocator.release(key);
    }

    /// Tells of addresses only when people can see them: a write may fail, and another decision may come before it.
    fn tell_what_is_shown(&mut self, key: &ServiceKey) {
        let held = self.allocator.held(key);
        let news = self.tenants.get_mut(key).and_then(|tenant| {
            let is_shown = |(ips, _): &mut (Vec<ServiceIp>, String)| ips == held && *ips == tenant.observed.addresses;
            tenant.news.take_if(is_shown)
        });
        if let Some((_, message)) = news {
            self.tell(key, Reason::IpAllocated, message);
        }
    }

    fn tell(&mut self, service: &ServiceKey, reason: Reason, message: String) {
        // Events are a courtesy; who does not take them loses the newest.
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(Event { service: service.clone(), reason, message });
        }
    }
}

/// Whether nobody can tell from which pool the addresses are, because that pool is broken.
fn is_orphan(addresses: &[ServiceIp], pool: Option<&PoolName>) -> bool {
    !addresses.is_empty() && pool.is_none()
}

/// The pause after a write that failed; each further failure doubles it. Chosen: the API server answers most 500 and 429
/// well when asked again at once.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// How long the version that a conflict speaks of is waited for. Chosen: long after a watch has told it.
const NEWER_WITHIN: Duration = Duration::from_secs(1);

/// How often the pause is doubled. Chosen: 100 ms become 25.6 s.
const MAX_DOUBLINGS: u32 = 8;

/// How many events wait at most. Chosen: two for each of 10 000 Services.
const MAX_EVENTS: usize = 20_000;

#[cfg(test)]
mod tests;
