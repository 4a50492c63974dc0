//! Whether a MetalLB that speaks BGP is at work: what would be silent if Garpike took its place.
//!
//! Garpike accepts the kinds of BGP and announces nothing by it. Who takes over from a MetalLB that does must refuse while a pod of
//! it lives and a BGPPeer or BGPAdvertisement says what for. Where no pod of MetalLB lives, nothing is taken over.

use std::fmt;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client};
use tokio::time::{Duration, sleep, timeout};
use tracing::warn;

use crate::{Recorder, Regarding, Severity};

/// What is announced by BGP, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpInUse {
    /// The first object that says so.
    pub object: Regarding,
    /// A pod of MetalLB.
    pub pod: Regarding,
}

impl fmt::Display for BgpInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, pod } = self;
        write!(
            f,
            "{} {}/{}: MetalLB ({}) announces by BGP, which Garpike does not speak: taking nothing over; keep MetalLB, or \
             delete the BGPPeers and BGPAdvertisements, or set --ignore-bgp",
            object.kind, object.namespace, object.name, pod.name
        )
    }
}

/// Looks once.
///
/// # Errors
///
/// When the API server does not answer, or refuses: then nobody can tell.
pub async fn bgp_in_use(client: &Client, namespace: &str) -> Result<Option<BgpInUse>, String> {
    let look = async {
        let Some(pod) = pod_of_metallb(client, namespace).await? else { return Ok(None) };
        let object = object_of_bgp(client, namespace).await?;
        Ok(object.map(|object| BgpInUse { object, pod }))
    };
    timeout(WITHIN, look).await.map_err(|_| "no answer in time".to_owned())?
}

/// Waits until nothing is announced by BGP any more; `first` was found. Logs what is announced, writes an event on it and tells it,
/// and again when something else is.
pub async fn wait_for_bgp_to_end(
    client: &Client,
    namespace: &str,
    first: BgpInUse,
    recorder: &Recorder,
    mut tell: impl FnMut(String),
) {
    let mut told = None;
    let mut found = Some(first);
    while let Some(bgp) = found {
        if told.as_ref() != Some(&bgp) {
            let message = bgp.to_string();
            warn!("{message}");
            recorder.tell(bgp.object.clone(), Severity::Warning, "BgpInUse", message.clone());
            tell(message);
            told = Some(bgp.clone());
        }
        sleep(LOOK_EACH).await;
        // Who cannot be asked has not changed.
        found = bgp_in_use(client, namespace).await.unwrap_or(Some(bgp));
    }
}

async fn pod_of_metallb(client: &Client, namespace: &str) -> Result<Option<Regarding>, String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    for labels in LABELS {
        let list = pods.list(&ListParams::default().labels(labels)).await.map_err(|error| error.to_string())?;
        if let Some(pod) = list.items.into_iter().find(is_alive) {
            return Ok(Some(Regarding::of("v1", "Pod", &pod.metadata)));
        }
    }
    Ok(None)
}

/// Whether a pod works or may do so: one that has not begun may begin at any moment, one that has ended does not return.
pub fn is_alive(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Running");
    matches!(phase, "Running" | "Pending")
}

async fn object_of_bgp(client: &Client, namespace: &str) -> Result<Option<Regarding>, String> {
    for (version, api_version, kind, plural) in KINDS {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("metallb.io", version, kind), plural);
        let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        match objects.list_metadata(&ListParams::default().limit(1)).await {
            Ok(list) => {
                if let Some(object) = list.items.into_iter().next() {
                    return Ok(Some(Regarding::of(api_version, kind, &object.metadata)));
                }
            }
            // Not defined: there is none.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(None)
}

/// How the manifests and the chart of MetalLB label their pods, and ours do not.
const LABELS: [&str; 2] = ["app=metallb,!garpike.io/program", "app.kubernetes.io/name=metallb,!garpike.io/program"];
const KINDS: [(&str, &str, &str, &str); 2] = [
    ("v1beta2", "metallb.io/v1beta2", "BGPPeer", "bgppeers"),
    ("v1beta1", "metallb.io/v1beta1", "BGPAdvertisement", "bgpadvertisements"),
];
/// Chosen: an API server that does not answer must not hold up a speaker.
const WITHIN: Duration = Duration::from_secs(2);
/// Chosen: somebody has deleted what was in the way, and waits.
const LOOK_EACH: Duration = Duration::from_secs(2);
