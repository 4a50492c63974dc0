//! Who has which address, as a watch shows it, and whether an address was ever given twice, lost or changed.
//!
//! A watch shows every state of every object in the order in which the API server has stored them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::StreamExt as _;
use garpike_kubernetes::{Update, follow};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::runtime::watcher;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::lab::now;

/// What is known of the Services.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The addresses of each Service, and since when it has any.
    services: BTreeMap<String, (Vec<String>, Option<Instant>)>,
    violations: Vec<String>,
    judges: bool,
}

/// A ledger that a task keeps.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    ledger: Arc<Mutex<Ledger>>,
    assigned: watch::Sender<usize>,
}

impl Ledger {
    /// Keeps a ledger in a task of `tasks`.
    pub(super) fn follow(services: Api<Service>, tasks: &mut JoinSet<()>) -> Watched {
        let watched = Watched { ledger: Arc::default(), assigned: watch::Sender::default() };
        let keep = watched.clone();
        tasks.spawn(async move {
            let updates = follow(services, watcher::Config::default(), |service: &mut Service| {
                service.metadata.managed_fields = None;
            });
            let mut updates = std::pin::pin!(updates);
            while let Some(update) = updates.next().await {
                keep.take(update);
            }
        });
        watched
    }

    fn take(&mut self, update: Update<Service>, at: Instant) {
        match update {
            Update::All(services) => {
                let names: BTreeSet<String> = services.iter().map(name_of).collect();
                self.services.retain(|name, _| names.contains(name));
                for service in services {
                    self.see(&service, at);
                }
            }
            Update::Applied(service) => self.see(&service, at),
            Update::Gone(service) => {
                self.services.remove(&name_of(&service));
            }
            // It is listed again afterwards.
            Update::Trouble(_) => {}
        }
    }

    fn see(&mut self, service: &Service, at: Instant) {
        let (name, ips) = (name_of(service), ips_of(service));
        let (had, since) = self.services.get(&name).cloned().unwrap_or_default();
        if self.judges && !had.is_empty() && had != ips {
            self.violations.push(format!("{name} had {had:?} and then {ips:?}"));
        }
        if self.judges && had != ips {
            let holders = self
                .services
                .iter()
                .filter(|(other, (held, _))| **other != name && held.iter().any(|ip| ips.contains(ip)));
            let also: Vec<String> = holders.map(|(other, _)| format!("{name} and {other} both have {ips:?}")).collect();
            self.violations.extend(also);
        }
        let since = since.or_else(|| (!ips.is_empty()).then_some(at));
        self.services.insert(name, (ips, since));
    }

    fn assigned(&self) -> usize {
        self.services.values().filter(|(ips, _)| !ips.is_empty()).count()
    }
}

impl Watched {
    /// How many Services have an address.
    pub(super) fn assigned(&self) -> watch::Receiver<usize> {
        self.assigned.subscribe()
    }

    /// The same, now.
    pub(super) fn count(&self) -> usize {
        *self.assigned.borrow()
    }

    /// From now on whatever becomes of an address is judged.
    pub(super) fn judge(&self) {
        self.ledger().judges = true;
    }

    /// What should not have been, so far.
    pub(super) fn violations(&self) -> Vec<String> {
        self.ledger().violations.clone()
    }

    /// The addresses of all Services.
    pub(super) fn addresses(&self) -> BTreeMap<String, Vec<String>> {
        self.ledger().services.iter().map(|(name, (ips, _))| (name.clone(), ips.clone())).collect()
    }

    /// When a Service got its address.
    pub(super) fn since(&self, name: &str) -> Option<Instant> {
        self.ledger().services.get(name)?.1
    }

    fn take(&self, update: Update<Service>) {
        let assigned = {
            let mut ledger = self.ledger();
            ledger.take(update, now());
            ledger.assigned()
        };
        self.assigned.send_replace(assigned);
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name_of(service: &Service) -> String {
    service.metadata.name.clone().unwrap_or_default()
}

fn ips_of(service: &Service) -> Vec<String> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
    ingress.filter_map(|ingress| ingress.ip.clone()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_that_is_given_twice_changed_or_lost_is_seen() {
        let mut ledger = Ledger { judges: true, ..Ledger::default() };
        ledger.take(Update::All(vec![service("a", &["10.0.0.1"]), service("b", &[])]), now());
        assert!(ledger.violations.is_empty());

        ledger.take(Update::Applied(service("b", &["10.0.0.1"])), now());
        assert_eq!(ledger.violations.len(), 1, "twice: {:?}", ledger.violations);
        ledger.take(Update::Applied(service("b", &["10.0.0.2"])), now());
        assert_eq!(ledger.violations.len(), 2, "changed: {:?}", ledger.violations);
        ledger.take(Update::Applied(service("b", &[])), now());
        assert_eq!(ledger.violations.len(), 3, "lost: {:?}", ledger.violations);
    }

    #[test]
    fn an_address_is_free_when_its_service_is_gone() {
        let mut ledger = Ledger { judges: true, ..Ledger::default() };
        ledger.take(Update::Applied(service("a", &["10.0.0.1"])), now());
        ledger.take(Update::Gone(service("a", &["10.0.0.1"])), now());
        ledger.take(Update::Applied(service("b", &["10.0.0.1"])), now());
        // As after a watch that was away.
        ledger.take(Update::All(vec![service("c", &["10.0.0.1"])]), now());

        assert_eq!(ledger.violations, [] as [String; 0]);
        assert_eq!(ledger.assigned(), 1);
    }

    fn service(name: &str, ips: &[&str]) -> Service {
        let ingress: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        let service = json!({"metadata": {"name": name}, "status": {"loadBalancer": {"ingress": ingress}}});
        serde_json::from_value(service).unwrap()
    }
}
