//! The kinds that the controller follows.

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream, SelectAll};
use garpike_controller_api::{Community, IPAddressPool, L2Advertisement};
use garpike_kubernetes::{Lenient, Update, follow, follow_as};
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};

use crate::seen::{RawService, Seen};

/// What the API tells.
#[derive(Debug)]
pub(crate) enum Input {
    /// Of pools.
    Pools(Update<Lenient<IPAddressPool>>),
    /// Of advertisements.
    Advertisements(Update<Lenient<L2Advertisement>>),
    /// Of communities.
    Communities(Update<Lenient<Community>>),
    /// Of namespaces.
    Namespaces(Update<Lenient<Namespace>>),
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
        let any = watcher::Config::default;
        let pools = follow(Api::namespaced(client.clone(), namespace), any(), trim);
        let advertisements = follow(Api::namespaced(client.clone(), namespace), any(), trim);
        let communities = follow(Api::namespaced(client.clone(), namespace), any(), trim);
        let namespaces = follow(Api::all(client.clone()), any(), trim);
        let small = stream::select_all([
            pools.map(Input::Pools).boxed(),
            advertisements.map(Input::Advertisements).boxed(),
            communities.map(Input::Communities).boxed(),
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
fn trim<K: Resource>(lenient: &mut Lenient<K>) {
    lenient.metadata.managed_fields = None;
    if let Ok(object) = &mut lenient.object {
        object.meta_mut().managed_fields = None;
    }
}

/// How many Services are held whole at once. Chosen: 2 MB of them; twice as many save 10 requests at 10 000.
const PAGE: u32 = 500;
