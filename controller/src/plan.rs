//! Who gets which address: all Services of a configuration at once, where every write succeeds.
//!
//! A new Service never moves an old one, an address that somebody asks for is not given away in the same run, an address
//! that is given up goes to who waits for it, and a second run changes nothing.

use std::collections::BTreeMap;

use garpike_controller_api::config::{Config, Holder, Service};
use garpike_election::{ServiceIp, ServiceKey};

use crate::allocator::Refusal;
use crate::planner::{Author, Completeness, Observed, Planner, Wish};

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

/// Plans the addresses of all Services. Pure: equal configurations give equal plans.
pub fn plan(config: &Config, completeness: Completeness) -> Plan {
    let mut planner = Planner::default();
    planner.handle_pools(&config.pools, completeness);
    for (key, service) in &config.services {
        planner.handle_service(key, observed(config, service));
    }
    if completeness == Completeness::Partial {
        for (key, addresses) in &config.strays {
            let addresses = addresses.clone();
            let stray = Observed { version: 0, addresses, from_pool: None, author: Author::Us, wish: Wish::Unknown };
            planner.handle_service(key, stray);
        }
    }
    planner.handle_synced();
    while let Some(write) = planner.poll_write() {
        planner.handle_written(&write, write.version.saturating_add(1));
    }
    let outcome = |(key, service): (&ServiceKey, &Service)| {
        let before = service.held.as_ref().map(|held| held.addresses.to_vec()).unwrap_or_default();
        let (after, refusal) = (planner.addresses(key).to_vec(), planner.refusal(key).cloned());
        (key.clone(), Outcome { before, after, refusal })
    };
    Plan { services: config.services.iter().map(outcome).collect() }
}

fn observed(config: &Config, service: &Service) -> Observed {
    let addresses = service.held.as_ref().map(|held| held.addresses.to_vec()).unwrap_or_default();
    let pool = addresses.first().and_then(|ip| config.pools.containing(*ip));
    Observed {
        version: 0,
        from_pool: pool.map(|pool| pool.name.clone()),
        addresses,
        author: if service.is_held_by(Holder::Object) { Author::Manifest } else { Author::Us },
        wish: Wish::Addresses(Box::new(service.clone())),
    }
}

#[cfg(test)]
mod tests;
