//! The kinds that the controller follows.

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream, SelectAll};
use garpike_controller_api::{IPAddressPool, L2Advertisement};
use garpike_kubernetes::{Update, WithSpec, follow, follow_as};
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};

use crate::seen::{RawService, Seen};

/// What the API tells.
#[derive(Debug)]
pub(crate) enum Input {
    /// Of pools.
    Pools(Update<IPAddressPool>),
    /// Of advertisements.
    Advertisements(Update<L2Advertisement>),
    /// Of namespaces.
    Namespaces(Update<Namespace>),
    /// Of Services.
    Services(Update<Seen>),
}

/// Follows all kinds. Each list is asked of the database, not of a memory that may lag behind it.
pub(crate) struct Watches {
    small: SelectAll<BoxStream<'static, Input>>,
    services: BoxStream<'static, Input>,
}

impl Watches {
    pub(crate) fn new(client: &Client, namespace: &str) -> Self {
        let pools = follow(Api::namespaced(client.clone(), namespace), watcher::Config::default(), trim);
        let advertisements = Api::namespaced(client.clone(), namespace);
        let advertisements = follow_as(advertisements, watcher::Config::default(), |mut object: WithSpec<_>| {
            trim(&mut object);
            object.0
        });
        let namespaces = follow(Api::all(client.clone()), watcher::Config::default(), trim);
        let small = stream::select_all([
            pools.map(Input::Pools).boxed(),
            advertisements.map(Input::Advertisements).boxed(),
            namespaces.map(Input::Namespaces).boxed(),
        ]);
        Self { services: services(client), small }
    }

    /// What is told next. `None`: never, the watches go on for ever.
    pub(crate) async fn next(&mut self) -> Option<Input> {
        tokio::select! {
            // Pools first: a Service that is judged without them is judged twice.
            biased;
            input = self.small.next() => input,
            input = self.services.next() => input,
        }
    }
}

fn services(client: &Client) -> BoxStream<'static, Input> {
    let api: Api<RawService> = Api::all(client.clone());
    let config = watcher::Config::default().page_size(PAGE);
    follow_as(api, config, |raw| raw.seen).map(Input::Services).boxed()
}

/// Nobody reads who wrote which field.
fn trim<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// How many Services are held whole at once. Chosen: 2 MB of them; twice as many save 10 requests at 10 000.
const PAGE: u32 = 500;
