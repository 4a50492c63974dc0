//! Who gets which address: all Services of a configuration at once.
//!
//! Three passes, the oldest Service first in each: who has a valid address keeps it; who asks for certain addresses, or
//! must move to another pool, gets them; the others get what is left. So a new Service never moves an old one, an address that
//! somebody asks for is not given away in the same run, and a second run changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use garpike_controller_api::config::{Config, Families, Held, Holder, Request, Service};
use garpike_election::{ServiceIp, ServiceKey};

use crate::allocator::{Allocator, Refusal};

/// What becomes of every Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// One entry for each Service of the configuration.
    pub services: BTreeMap<ServiceKey, Outcome>,
}

/// What becomes of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The addresses that it had.
    pub before: Vec<ServiceIp>,
    /// The addresses that it has.
    pub after: Vec<ServiceIp>,
    /// Why it does not have what it asks for.
    pub refusal: Option<Refusal>,
}

/// Whether the configuration is all that people wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// It is: an address without a pool or a Service is an address to take back.
    Whole,
    /// Some object is broken and missing: nobody loses an address for want of it.
    Partial,
}

/// Plans the addresses of all Services. Pure: equal configurations give equal plans.
pub fn plan(config: &Config, completeness: Completeness) -> Plan {
    let mut planner = Planner {
        allocator: Allocator::new(&config.pools),
        refusals: BTreeMap::new(),
        fixed: BTreeSet::new(),
        completeness,
    };
    let by_age = config.services_by_age();
    let (mut seekers, mut others) = (Vec::new(), Vec::new());
    // What a manifest says cannot be changed here, so it goes before what the status file says.
    let (by_manifest, by_file): (Vec<&Service>, Vec<&Service>) =
        by_age.iter().partition(|service| service.is_held_by(Holder::Object));
    for service in by_manifest.into_iter().chain(by_file) {
        match planner.start(service) {
            Need::Nothing => {}
            Need::Certain => seekers.push(service),
            Need::Any => others.push(service),
        }
    }
    if completeness == Completeness::Partial {
        for (key, ips) in &config.strays {
            planner.allocator.linger(key, ips.iter().copied().collect());
        }
    }
    planner.serve_seekers(seekers.clone());
    others.extend(seekers);
    others.sort_by_key(|service| service.age());
    for service in others {
        planner.serve(service);
    }
    let outcome = |service: &&Service| (service.key.clone(), planner.outcome(service));
    Plan { services: by_age.iter().map(outcome).collect() }
}

/// The allocator and what it refused.
struct Planner {
    allocator: Allocator,
    refusals: BTreeMap<ServiceKey, Refusal>,
    /// Services with addresses that are not valid, and that stay theirs.
    fixed: BTreeSet<ServiceKey>,
    completeness: Completeness,
}

/// What a Service still needs after it was asked what it has.
enum Need {
    Nothing,
    /// The addresses that it asks for, or an address of another pool than that of the one it has.
    Certain,
    /// Any address that is open to it, or one of the other family beside the one it has.
    Any,
}

impl Planner {
    /// Lets a Service keep what it has, where that is possible.
    fn start(&mut self, service: &Service) -> Need {
        let Some(held) = &service.held else { return need_of_a_new_one(service) };
        let Err(refusal) = self.keep(service, held) else {
            return match held.holder {
                Holder::Object => Need::Nothing,
                Holder::StatusFile => self.need(service, &held.addresses),
            };
        };
        let replaceable = match (held.holder, self.completeness) {
            (Holder::Object, _) => false,
            (Holder::StatusFile, Completeness::Whole) => true,
            // What is broken cannot be the reason for two Services with one address.
            (Holder::StatusFile, Completeness::Partial) => matches!(refusal, Refusal::Taken { .. }),
        };
        if replaceable {
            return need_of_a_new_one(service);
        }
        self.allocator.linger(&service.key, held.addresses.iter().copied().collect());
        self.refusals.insert(service.key.clone(), refusal);
        self.fixed.insert(service.key.clone());
        Need::Nothing
    }

    fn keep(&mut self, service: &Service, held: &Held) -> Result<(), Refusal> {
        match held.holder {
            Holder::Object => self.allocator.adopt(service, &held.addresses),
            Holder::StatusFile => self.allocator.keep(service, &held.addresses),
        }
    }

    /// What a Service needs that has these addresses by the status file.
    fn need(&self, service: &Service, has: &[ServiceIp]) -> Need {
        let satisfied = match &service.request {
            Request::Addresses { ips, .. } => ips.len() == has.len() && ips.iter().all(|ip| has.contains(ip)),
            Request::Any | Request::Invalid => true,
        };
        let in_pool = service.pool.as_ref().is_none_or(|pool| {
            self.allocator.pools().named(pool).is_some_and(|pool| has.iter().all(|ip| pool.contains(*ip)))
        });
        let lacks_family =
            matches!((&service.request, service.families, has), (Request::Any, Families::PreferDual(_), [_]));
        if !satisfied || !in_pool || service.request == Request::Invalid {
            Need::Certain
        } else if lacks_family {
            Need::Any
        } else {
            Need::Nothing
        }
    }

    /// Serves those who ask for something certain. One of them may give up what another one waits for, so they are
    /// asked until nobody gives up anything.
    fn serve_seekers(&mut self, mut seekers: Vec<&Service>) {
        loop {
            let mut given_up = false;
            seekers.retain(|service| {
                let had_some = !self.allocator.held(&service.key).is_empty();
                let served = self.assign(service);
                given_up |= served && had_some;
                !served
            });
            if !given_up {
                return;
            }
        }
    }

    /// Gives a Service that may have any address its first, or its second.
    fn serve(&mut self, service: &Service) {
        if service.request != Request::Any || self.refusals.contains_key(&service.key) {
            return;
        }
        if self.allocator.held(&service.key).is_empty() {
            self.assign(service);
        } else {
            // Without a second one it is content.
            self.allocator.complete(service);
        }
    }

    /// Gives a Service what it asks for; says whether that was possible.
    fn assign(&mut self, service: &Service) -> bool {
        match self.allocator.assign(service) {
            Ok(_) => {
                self.refusals.remove(&service.key);
                true
            }
            Err(refusal) => {
                self.refusals.insert(service.key.clone(), refusal);
                false
            }
        }
    }

    fn outcome(&self, service: &Service) -> Outcome {
        let before = service.held.as_ref().map(|held| held.addresses.clone()).unwrap_or_default();
        let refusal = self.refusals.get(&service.key).cloned();
        let held = self.allocator.held(&service.key);
        let after = if self.fixed.contains(&service.key) { before.clone() } else { held.to_vec() };
        Outcome { before, after, refusal }
    }
}

/// What a Service needs that has nothing.
fn need_of_a_new_one(service: &Service) -> Need {
    match &service.request {
        Request::Any => Need::Any,
        Request::Addresses { .. } | Request::Invalid => Need::Certain,
    }
}

#[cfg(test)]
mod tests;
