//! The objects that are there when one more is judged, read from the API server itself.

use std::time::Duration;

use garpike_controller_api::{BGPAdvertisement, BGPPeer, Community, IPAddressPool, L2Advertisement};
use k8s_openapi::api::core::v1::Node;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::debug;

use super::admit::Subject;

/// What the judgement of an object looks at beside it.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    pub(super) pools: Vec<IPAddressPool>,
    pub(super) advertisements: Vec<L2Advertisement>,
    pub(super) bgp_advertisements: Vec<BGPAdvertisement>,
    pub(super) communities: Vec<Community>,
    pub(super) peers: Vec<BGPPeer>,
    /// `None`: they cannot be read, or nothing depends on them.
    pub(super) nodes: Option<Vec<Node>>,
}

impl Live {
    /// Reads what the judgement of a `subject` needs.
    ///
    /// # Errors
    ///
    /// When the API server does not give it. One that is busy is asked again and again: the caller bounds the time.
    pub(super) async fn read(client: &Client, namespace: &str, subject: Subject) -> Result<Self, kube::Error> {
        let mut live = Self::default();
        match subject {
            Subject::Pool => live.pools = all(client, namespace).await?,
            Subject::L2Advertisement => {
                live.pools = all(client, namespace).await?;
                live.advertisements = all(client, namespace).await?;
                live.nodes = nodes(client).await;
            }
            Subject::BgpAdvertisement => {
                live.pools = all(client, namespace).await?;
                live.bgp_advertisements = all(client, namespace).await?;
                live.communities = all(client, namespace).await?;
                live.nodes = nodes(client).await;
            }
            Subject::Community => live.communities = all(client, namespace).await?,
            Subject::BgpPeer | Subject::BfdProfile => live.peers = all(client, namespace).await?,
        }
        Ok(live)
    }
}

/// All objects of a kind. One that cannot be read is left out, as everywhere; a kind without definition has none.
async fn all<K>(client: &Client, namespace: &str) -> Result<Vec<K>, kube::Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    loop {
        return match api.list(&ListParams::default()).await {
            Ok(list) => {
                Ok(list.items.iter().filter_map(|object| serde_json::to_value(object).ok()).filter_map(parse).collect())
            }
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => Ok(Vec::new()),
            // For a moment after a definition was changed, by the certificate of this webhook for one.
            Err(kube::Error::Api(status)) if status.code == TOO_MANY_REQUESTS => {
                tokio::time::sleep(ASK_AGAIN).await;
                continue;
            }
            Err(error) => Err(error),
        };
    }
}

/// An object of any kind of ours; most may be written without `spec`.
pub(super) fn parse<K: DeserializeOwned>(mut object: Value) -> Option<K> {
    if let Value::Object(fields) = &mut object {
        fields.entry("spec").or_insert_with(|| json!({}));
        // What was once reported may be of any shape, and decides nothing.
        fields.remove("status");
    }
    serde_json::from_value(object).inspect_err(|error| debug!(%error, "an object cannot be read")).ok()
}

/// The nodes with their labels. They only matter for a warning.
async fn nodes(client: &Client) -> Option<Vec<Node>> {
    let list = Api::<Node>::all(client.clone()).list_metadata(&ListParams::default()).await;
    let list = list.inspect_err(|error| debug!(%error, "the nodes cannot be read")).ok()?;
    Some(list.items.into_iter().map(|node| Node { metadata: node.metadata, ..Node::default() }).collect())
}

const NOT_FOUND: u16 = 404;
const TOO_MANY_REQUESTS: u16 = 429;
/// Chosen: a definition is served again within a second.
const ASK_AGAIN: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::stub_api::{StubApi, refusal};

    #[tokio::test]
    async fn an_api_server_that_loads_a_definition_is_asked_again() {
        let asked = Arc::new(AtomicU32::new(0));
        let api = StubApi::start(move |_, _| match asked.fetch_add(1, Ordering::Relaxed) {
            0 => refusal(TOO_MANY_REQUESTS, "storage is (re)initializing"),
            _ => (200, json!({"metadata": {}, "items": []})),
        })
        .await;

        assert!(Live::read(&api.client, "ours", Subject::BgpPeer).await.unwrap().peers.is_empty());
    }
}
