//! From a Service object of the API to what the planner is told of it.

use garpike_controller_api::config::{PoolName, Pools};
use garpike_controller_api::{Claim, ObjectKey, Problem, Scope, Sourced, judge_service};
use garpike_election::{ServiceIp, ServiceKey};
use k8s_openapi::api::core::v1::Service;

use super::{Author, Observed, Planner, Wish};

/// The annotation that names the pool of the addresses in the status; MetalLB writes it too.
pub const POOL_ANNOTATION: &str = "metallb.io/ip-allocated-from-pool";

impl Planner {
    /// A Service object is there, or has changed. Says what is wrong with it.
    ///
    /// A Service of another class is none of our business. One of another type is, when we have given it something: the
    /// API server takes its class away together with its type.
    pub fn handle_object(&mut self, key: &ServiceKey, object: &Sourced<Service>, scope: &Scope) -> Vec<Problem> {
        let (claim, problems) = judge_service(&ObjectKey::from(key), object, scope, self.pools());
        let marked = from_pool(&object.object).is_some();
        let wish = match claim {
            Claim::Ours(service) => Wish::Addresses(service),
            Claim::Broken => Wish::Unknown,
            Claim::OtherType if marked || self.knows(key) => Wish::Nothing,
            Claim::OtherType | Claim::OtherClass => {
                self.handle_gone(key);
                return problems;
            }
        };
        self.handle_service(key, Observed::new(&object.object, wish, self.pools()));
        problems
    }
}

impl Observed {
    fn new(object: &Service, wish: Wish, pools: &Pools) -> Self {
        let addresses = shown(object);
        let from_pool = from_pool(object);
        // A status that lies in our pools is one of ours, whoever wrote it: that is how a cluster comes over from MetalLB
        // or back from a backup.
        let ours = from_pool.is_some() || addresses.iter().all(|ip| pools.containing(*ip).is_some());
        Self {
            version: object.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default(),
            addresses,
            from_pool,
            author: if ours { Author::Us } else { Author::Another },
            wish,
        }
    }
}

/// The addresses in the status, each once. What is no address of a Service is somebody else's affair.
fn shown(object: &Service) -> Vec<ServiceIp> {
    let status = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let entries = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
    let mut addresses = Vec::new();
    for ip in entries.iter().filter_map(|entry| entry.ip.as_deref()?.parse().ok()) {
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    addresses
}

fn from_pool(object: &Service) -> Option<PoolName> {
    let annotations = object.metadata.annotations.as_ref()?;
    annotations.get(POOL_ANNOTATION).map(|name| PoolName(name.clone()))
}
