//! Where a check happens: a namespace with a controller, pools and Services, and what the API server knows of them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use garpike_chaos::kube::{ApiServer, Controller, Installation, Request, apply};
use k8s_openapi::api::core::v1::{Event, Service};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::now;

/// What checks share.
pub(crate) struct Ground<'a> {
    pub(crate) server: &'a ApiServer,
    pub(crate) runtime: &'a Handle,
    /// The binary under test.
    pub(crate) program: PathBuf,
    /// Of the check, from 0.
    pub(crate) number: usize,
}

/// A namespace of its own, a class and addresses of its own. Services live in the same namespace.
pub(crate) struct Site<'a> {
    pub(crate) installation: Installation<'a>,
    pub(crate) server: &'a ApiServer,
    pub(crate) namespace: String,
    class: Option<String>,
    number: usize,
}

impl Ground<'_> {
    /// Runs a check in a site of its own. Its controllers must not have missed a right.
    pub(crate) fn run(&self, check: impl AsyncFnOnce(&Site<'_>)) {
        self.runtime.block_on(async {
            let site = self.site(self.server).await;
            check(&site).await;
            let forbidden: Vec<Request> = site.requests().into_iter().filter(Request::is_forbidden).collect();
            assert!(forbidden.is_empty(), "rights are missing: {forbidden:?}");
        });
    }

    /// A site whose controllers lack a right.
    pub(crate) fn run_without_right(&self, resource: &str, check: impl AsyncFnOnce(&Site<'_>)) {
        self.runtime.block_on(async {
            let site = self.site(self.server).await;
            site.installation.without_right(resource).await.unwrap();
            check(&site).await;
        });
    }

    /// A site in another API server.
    pub(crate) async fn site<'s>(&self, server: &'s ApiServer) -> Site<'s> {
        let namespace = format!("check-{}", self.number);
        let class = format!("lab.garpike.io/{namespace}");
        let installation = Installation::install(server, &self.program, &namespace, Some(&class)).await.unwrap();
        Site { installation, server, namespace, class: Some(class), number: self.number }
    }

    /// A site whose controllers look after Services without a class. One check alone may have it.
    pub(crate) fn run_without_class(&self, check: impl AsyncFnOnce(&Site<'_>)) {
        self.runtime.block_on(async {
            let namespace = format!("check-{}", self.number);
            let installation = Installation::install(self.server, &self.program, &namespace, None).await.unwrap();
            check(&Site { installation, server: self.server, namespace, class: None, number: self.number }).await;
        });
    }
}

impl Site<'_> {
    pub(crate) fn client(&self) -> Client {
        self.server.client()
    }

    /// Starts a controller that is a single one.
    pub(crate) async fn controller(&self) -> Controller {
        self.installation.start("controller-0", &[]).await.unwrap()
    }

    /// An address of the site's own.
    pub(crate) fn v4(&self, last: u8) -> String {
        format!("10.200.{}.{last}", self.number)
    }

    /// The same of IPv6.
    pub(crate) fn v6(&self, last: u8) -> String {
        format!("fc00:f853:ccd:{:x}::{last:x}", self.number + 1)
    }

    /// A range of the site's own addresses.
    pub(crate) fn range(&self, first: u8, last: u8) -> String {
        format!("{}-{}", self.v4(first), self.v4(last))
    }

    /// A range of the site's own IPv6 addresses.
    pub(crate) fn range6(&self, first: u8, last: u8) -> String {
        format!("{}-{}", self.v6(first), self.v6(last))
    }

    /// Writes a pool of these ranges.
    pub(crate) async fn pool(&self, name: &str, addresses: &[String]) {
        self.pool_with(name, addresses, json!({})).await;
    }

    /// Writes a pool of these ranges with more in its `spec`.
    pub(crate) async fn pool_with(&self, name: &str, addresses: &[String], more: Value) {
        let mut spec = json!({ "addresses": addresses });
        merge(&mut spec, more);
        self.object("metallb.io/v1beta1", "IPAddressPool", name, json!({ "spec": spec })).await;
    }

    /// Writes an object of the site's namespace.
    pub(crate) async fn object(&self, api_version: &str, kind: &str, name: &str, body: Value) {
        let mut object = json!({
            "apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": self.namespace},
        });
        merge(&mut object, body);
        apply(&self.client(), &object).await.unwrap();
    }

    /// Objects of group `metallb.io` in the site's namespace.
    pub(crate) fn of_metallb(&self, kind: &str) -> Api<DynamicObject> {
        self.of_metallb_by(self.client(), kind)
    }

    /// The same with the rights of another client.
    pub(crate) fn of_metallb_by(&self, client: Client, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("metallb.io", "v1beta1", kind));
        Api::namespaced_with(client, &self.namespace, &resource)
    }

    /// An object of group `metallb.io`, if there is one.
    pub(crate) async fn read(&self, kind: &str, name: &str) -> Option<Value> {
        let object = self.of_metallb(kind).get_opt(name).await.unwrap()?;
        Some(serde_json::to_value(object).unwrap())
    }

    pub(crate) async fn remove_pool(&self, name: &str) {
        self.of_metallb("IPAddressPool").delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub(crate) fn services(&self) -> Api<Service> {
        Api::namespaced(self.client(), &self.namespace)
    }

    /// Makes a Service with port 80 of TCP; `more` is merged into the object.
    pub(crate) async fn service(&self, name: &str, more: Value) {
        self.service_in(&self.namespace, name, more).await;
    }

    /// The same in another namespace.
    pub(crate) async fn service_in(&self, namespace: &str, name: &str, more: Value) {
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "type": "LoadBalancer",
                "selector": {"app": name},
                "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
            },
        });
        if let Some(class) = &self.class {
            service["spec"]["loadBalancerClass"] = json!(class);
        }
        merge(&mut service, more);
        apply(&self.client(), &service).await.unwrap();
    }

    /// Changes a Service: a merge patch.
    pub(crate) async fn patch(&self, name: &str, patch: Value) {
        self.services().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Sets annotations of a Service; null removes one.
    pub(crate) async fn annotate(&self, name: &str, annotations: Value) {
        self.patch(name, json!({"metadata": {"annotations": annotations}})).await;
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.services().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// The addresses that a Service has.
    pub(crate) async fn ips(&self, name: &str) -> Vec<String> {
        ips_of(&self.services().get(name).await.unwrap())
    }

    /// Waits until a Service has exactly these addresses.
    pub(crate) async fn has(&self, name: &str, wanted: &[&str]) {
        let mut seen = Vec::new();
        let has = within_reason(async || {
            seen = self.ips(name).await;
            (seen == wanted).then_some(())
        });
        assert!(has.await.is_some(), "{name} has {seen:?}, not {wanted:?}\n{}", self.told_of(name).await);
    }

    /// Waits until a Service has so many addresses, and gives them.
    pub(crate) async fn gets(&self, name: &str, count: usize) -> Vec<String> {
        let mut seen = Vec::new();
        let has = within_reason(async || {
            seen = self.ips(name).await;
            (seen.len() == count).then_some(())
        });
        assert!(has.await.is_some(), "{name} has {seen:?}, not {count}\n{}", self.told_of(name).await);
        seen
    }

    /// Waits until an event with this reason tells of a Service, and gives its message.
    pub(crate) async fn is_told(&self, name: &str, reason: &str) -> String {
        let found = within_reason(async || {
            let events = self.events(name).await;
            events.into_iter().find(|event| event.reason.as_deref() == Some(reason)).map(|event| event.message)
        });
        let Some(message) = found.await else {
            panic!("{name}: no event {reason}, but:\n{}", self.told_of(name).await);
        };
        message.unwrap_or_default()
    }

    async fn told_of(&self, name: &str) -> String {
        let events = self.events(name).await;
        let line = |event: Event| format!("{} {}", event.reason.unwrap_or_default(), event.message.unwrap_or_default());
        events.into_iter().map(line).collect::<Vec<_>>().join("\n")
    }

    pub(crate) async fn events(&self, name: &str) -> Vec<Event> {
        let api: Api<Event> = Api::namespaced(self.client(), &self.namespace);
        let of = ListParams::default().fields(&format!("involvedObject.name={name}"));
        api.list(&of).await.unwrap().items
    }

    /// What the site's ServiceAccounts have asked for.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.server.audit().requests_of(&self.namespace).unwrap()
    }

    /// How often the status of a Service was written.
    pub(crate) fn status_writes(&self, name: &str) -> usize {
        let of_service = |request: &&Request| request.resource == "services/status" && request.name == name;
        self.requests().iter().filter(|request| request.is_write()).filter(of_service).count()
    }

    /// Proof that the controller has seen everything up to now and acted on it: it has served a Service that came later.
    /// Its pool is its own.
    pub(crate) async fn settle(&self, round: u8) {
        let name = format!("later-{round}");
        let ip = self.v4(200 + round);
        self.pool_with(&name, &[format!("{ip}/32")], json!({"autoAssign": false})).await;
        self.service(&name, json!({"metadata": {"annotations": {"metallb.io/address-pool": name}}})).await;
        self.has(&name, &[&ip]).await;
    }
}

/// The addresses in a Service's status.
pub(crate) fn ips_of(service: &Service) -> Vec<String> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
    ingress.filter_map(|ingress| ingress.ip.clone()).collect()
}

/// Tries until there is something; none after a generous time.
pub(crate) async fn within_reason<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = now() + REASON;
    loop {
        if let Some(found) = attempt().await {
            return Some(found);
        }
        if now() >= deadline {
            return None;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether no two are equal.
pub(crate) fn all_differ(ips: &[String]) -> bool {
    ips.iter().collect::<BTreeSet<_>>().len() == ips.len()
}

/// Objects are merged; anything else is replaced.
pub(crate) fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

/// Chosen: far more than anything here takes.
const REASON: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(40);
