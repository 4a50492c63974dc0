//! MetalLB's own controller: it knows of no lease, so nothing is written while it is there.

use garpike_kubernetes::{Regarding, is_alive};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use tokio::time::{Duration, sleep, timeout};
use tracing::debug;

/// A controller of MetalLB in the namespace, if there is one; `Err`: nobody can tell.
pub(crate) async fn find(pods: &Api<Pod>) -> Result<Option<Regarding>, String> {
    for labels in LABELS {
        // From the API server's memory: a pod that came a moment ago is seen the next time.
        let parameters = ListParams::default().labels(labels).match_any();
        let list = timeout(WITHIN, pods.list(&parameters)).await.map_err(|_| "no answer in time".to_owned())?;
        let list = list.map_err(|error| error.to_string())?;
        if let Some(pod) = list.items.into_iter().find(is_foreign) {
            return Ok(Some(Regarding::of("v1", "Pod", &pod.metadata)));
        }
    }
    Ok(None)
}

/// Ends when there is one.
pub(crate) async fn appears(pods: &Api<Pod>) {
    loop {
        sleep(LOOK_EACH).await;
        match find(pods).await {
            Ok(Some(_)) => return,
            Ok(None) => {}
            // Whoever began the term has told it.
            Err(error) => debug!(error, "cannot see whether a controller of MetalLB runs beside this one"),
        }
    }
}

fn is_foreign(pod: &Pod) -> bool {
    let ours = pod.metadata.labels.iter().flatten().any(|(key, value)| (key.as_str(), value.as_str()) == OURS);
    !ours && is_alive(pod)
}

/// How the manifests and the chart of MetalLB label their controller.
const LABELS: [&str; 2] =
    ["app=metallb,component=controller", "app.kubernetes.io/name=metallb,app.kubernetes.io/component=controller"];
/// The label of our own controllers, beside MetalLB's.
const OURS: (&str, &str) = ("garpike.io/program", "controller");
/// Chosen: a list from memory is cheap, and a controller needs seconds to start.
const LOOK_EACH: Duration = Duration::from_secs(5);
const WITHIN: Duration = Duration::from_secs(5);
