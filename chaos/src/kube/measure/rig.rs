//! An installation with many Services, and a bare client that writes what a controller would.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use tokio::task::JoinSet;

use super::ledger::{Ledger, Watched};
use crate::judged;
use crate::kube::{ApiServer, Controller, Installation, apply};
use crate::lab::now;

/// What is measured on.
pub(super) struct Rig<'a> {
    pub(super) server: &'a ApiServer,
    pub(super) installation: Installation<'a>,
    pub(super) watched: Watched,
    _watch: JoinSet<()>,
}

impl<'a> Rig<'a> {
    /// An installation with one pool, `10.0.0.0/8`, and nothing else.
    pub(super) async fn build(server: &'a ApiServer) -> Result<Self> {
        let program = judged::program().canonicalize().context("cannot find the program that is judged")?;
        let installation = Installation::install(server, &program, NAMESPACE, None).await?;
        let of_services = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OF_SERVICES}});
        apply(&server.client(), &of_services).await?;
        let pool = json!({
            "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
            "metadata": {"name": POOL, "namespace": NAMESPACE}, "spec": {"addresses": ["10.0.0.0/8"]},
        });
        apply(&server.client(), &pool).await?;
        let mut watch = JoinSet::new();
        let watched = Ledger::follow(services(server), &mut watch);
        Ok(Self { server, installation, watched, _watch: watch })
    }

    /// Makes Services that wait for an address.
    pub(super) async fn make(&self, names: impl IntoIterator<Item = String>) -> Result<()> {
        let api = services(self.server);
        let make = async |name: String| api.create(&PostParams::default(), &waiting(&name)).await.map(drop);
        stream::iter(names).map(make).buffer_unordered(IN_FLIGHT).try_collect::<()>().await?;
        Ok(())
    }

    /// Takes Services away.
    pub(super) async fn remove(&self, names: impl IntoIterator<Item = String>) -> Result<()> {
        let api = services(self.server);
        let remove = async |name: String| api.delete(&name, &DeleteParams::default()).await.map(drop);
        stream::iter(names).map(remove).buffer_unordered(IN_FLIGHT).try_collect::<()>().await?;
        Ok(())
    }

    /// Writes an address into the status of every Service, as a controller without thoughts would; how long that took.
    pub(super) async fn assign_all(&self) -> Result<Duration> {
        let mut service_ips = Vec::new();
        for (number, service) in (1_u32..).zip(self.list().await?) {
            service_ips.push((service, Some(Ipv4Addr::from_bits(FIRST.to_bits() + number))));
        }
        self.write_all(service_ips).await
    }

    /// Writes an address into the status of one Service, as a controller without thoughts would.
    pub(super) async fn assign(&self, name: &str, ip: Ipv4Addr) -> Result<()> {
        let service = services(self.server).get(name).await?;
        self.write_all(vec![(service, Some(ip))]).await?;
        Ok(())
    }

    /// Takes all of them away again.
    pub(super) async fn clear_all(&self) -> Result<()> {
        let services = self.list().await?.into_iter().map(|service| (service, None)).collect();
        self.write_all(services).await?;
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Service>> {
        Ok(services(self.server).list(&kube::api::ListParams::default()).await?.items)
    }

    async fn write_all(&self, services_and_ips: Vec<(Service, Option<Ipv4Addr>)>) -> Result<Duration> {
        let api = services(self.server);
        let write = async |(mut service, ip): (Service, Option<Ipv4Addr>)| {
            let ingress = ip.map(|ip| vec![LoadBalancerIngress { ip: Some(ip.to_string()), ..Default::default() }]);
            let status = service.status.get_or_insert_default();
            status.load_balancer = Some(LoadBalancerStatus { ingress });
            let annotations = service.metadata.annotations.get_or_insert_default();
            match ip {
                Some(_) => annotations.insert(ANNOTATION.to_owned(), POOL.to_owned()),
                None => annotations.remove(ANNOTATION),
            };
            service.metadata.managed_fields = None;
            let name = service.metadata.name.clone().unwrap_or_default();
            api.replace_status(&name, &PostParams::default(), &service).await.map(drop)
        };
        let begun = now();
        stream::iter(services_and_ips).map(write).buffer_unordered(IN_FLIGHT).try_collect::<()>().await?;
        Ok(begun.elapsed())
    }

    /// Waits until so many Services have an address.
    pub(super) async fn all_have(&self, count: usize) -> Result<Instant> {
        let mut assigned = self.watched.assigned();
        let reached = tokio::time::timeout(PATIENCE, assigned.wait_for(|assigned| *assigned >= count)).await;
        match reached {
            Ok(Ok(_)) => Ok(now()),
            Ok(Err(_)) => bail!("the watch ended"),
            Err(_) => bail!("{} of {count} Services have an address after {PATIENCE:?}", self.watched.count()),
        }
    }

    /// Waits until a controller is ready.
    pub(super) async fn ready(&self, controller: &mut Controller) -> Result<()> {
        let begun = now();
        while controller.readyz().await.is_none_or(|(code, _)| code != 200) {
            if let Some(status) = controller.ended() {
                bail!("the controller ended ({status}); it last said:\n{}", controller.last_words());
            }
            if begun.elapsed() > PATIENCE {
                bail!("the controller is not ready: {:?}", controller.readyz().await);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// How many statuses of Services controllers have written.
    pub(super) fn status_writes(&self) -> Result<usize> {
        let requests = self.server.audit().requests_of(NAMESPACE)?;
        let written = |request: &&crate::kube::Request| request.is_write() && request.resource == "services/status";
        Ok(requests.iter().filter(written).count())
    }
}

/// The names of so many Services.
pub(super) fn names(count: u32) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("service-{number:05}"))
}

/// In seconds.
pub(super) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// In milliseconds.
pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// In MB of 10^6 bytes.
#[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52 bytes")]
pub(super) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn services(server: &ApiServer) -> Api<Service> {
    Api::namespaced(server.client(), OF_SERVICES)
}

/// As large as people's are: a selector, two ports, some labels. Without node ports, of which there are 2768.
fn waiting(name: &str) -> Service {
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "lab"},
        },
        "spec": {
            "type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": false,
            "ipFamilyPolicy": "SingleStack",
            "selector": {"app.kubernetes.io/name": name},
            "ports": [
                {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080},
                {"name": "https", "port": 443, "protocol": "TCP", "targetPort": 8443},
            ],
        },
    });
    serde_json::from_value(service).expect("is a Service")
}

const NAMESPACE: &str = "metallb-system";
/// Where the Services are, and nothing else.
const OF_SERVICES: &str = "load";
const POOL: &str = "pool";
const ANNOTATION: &str = "metallb.io/ip-allocated-from-pool";
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);
/// Of the bare client that a controller is compared with.
const IN_FLIGHT: usize = 16;
/// Chosen: nothing here takes as long.
const PATIENCE: Duration = Duration::from_secs(120);
