//! What the hint asks of the API server. Of each object only what is needed is read.

use std::time::{Duration, Instant, SystemTime};

use garpike_election::NodeName;
use garpike_kubernetes::failure;
use hyper::Request;
use hyper::header::CONTENT_TYPE;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::dead_node::{Found, Marked, Metadata, Mode, PodOnNode, Unseen, mark as patch_of};

/// Sees what Kubernetes knows of a node.
pub(super) async fn look(client: &Client, node: &NodeName, mode: Mode) -> Result<Found, Unseen> {
    let of_node = format!("/api/v1/nodes/{node}");
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}");
    // From the API server's memory, which is milliseconds behind and costs the database nothing.
    let pods = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}&resourceVersion=0");
    let pods = async {
        match mode {
            Mode::On => get::<Pods>(client, &pods).await.map(|pods| pods.items),
            Mode::DryRun | Mode::Off => Ok(Vec::new()),
        }
    };
    let ask = async {
        let lease = async {
            match get::<Lease>(client, &lease).await {
                Err(Unseen::NoSuchNode) => Ok(None),
                found => found.map(|lease| lease.spec.renew_time),
            }
        };
        tokio::try_join!(get::<Node>(client, &of_node), lease, pods)
    };
    let (node, renewed, pods) =
        timeout(LOOK_WITHIN, ask).await.unwrap_or_else(|_| Err(Unseen::Failed("no answer in time".to_owned())))?;
    let noticed =
        node.status.conditions.iter().any(|condition| condition.r#type == "Ready" && condition.status != "True");
    Ok(Found { renewed: renewed.map(|MicroTime(at)| moment(at)), noticed, pods })
}

/// Marks a pod.
pub(super) async fn mark(client: &Client, pod: &Metadata, message: &str) -> Marked {
    let Metadata { namespace, name, uid } = pod;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/status?fieldManager={MARKER}&timeout=1s");
    let body = patch_of(uid, message, Time(Timestamp::now())).to_string();
    let request = Request::patch(path).header(CONTENT_TYPE, "application/strategic-merge-patch+json");
    // Its names come from the API server.
    let Ok(request) = request.body(body.into_bytes()) else { return Marked::Gone };
    match timeout(MARK_WITHIN, client.request::<serde::de::IgnoredAny>(request)).await {
        Ok(Ok(_)) => Marked::Done,
        Ok(Err(kube::Error::Api(status))) => match status.code {
            NOT_FOUND | CONFLICT => Marked::Gone,
            FORBIDDEN => Marked::Forbidden,
            _ => Marked::Failed,
        },
        Ok(Err(_)) | Err(_) => Marked::Failed,
    }
}

async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Result<T, Unseen> {
    let request = Request::get(path).body(Vec::new()).map_err(|error| Unseen::Failed(error.to_string()))?;
    client.request(request).await.map_err(|error| {
        if let kube::Error::Api(status) = &error {
            match status.code {
                NOT_FOUND => return Unseen::NoSuchNode,
                FORBIDDEN => return Unseen::Forbidden(status.message.clone()),
                _ => {}
            }
        }
        Unseen::Failed(failure(&error))
    })
}

/// A time of day on the clock by which time passes here.
#[expect(clippy::disallowed_methods, reason = "a shell reads the clocks")]
fn moment(at: Timestamp) -> Instant {
    let (now, today) = (Instant::now(), SystemTime::now());
    match today.duration_since(SystemTime::from(at)) {
        // Before this machine was started: long ago is all that matters.
        Ok(ago) => now.checked_sub(ago).or_else(|| now.checked_sub(LONG_AGO)).unwrap_or(now),
        Err(ahead) => now.checked_add(ahead.duration()).unwrap_or(now),
    }
}

#[derive(Deserialize)]
struct Node {
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeStatus {
    conditions: Vec<Condition>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
}

#[derive(Deserialize)]
struct Lease {
    #[serde(default)]
    spec: LeaseSpec,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct LeaseSpec {
    renew_time: Option<MicroTime>,
}

#[derive(Deserialize)]
struct Pods {
    items: Vec<PodOnNode>,
}

/// The field manager. What it owned is the kubelet's again as soon as that writes the condition.
const MARKER: &str = "garpike-dead-node-hint";
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;
const FORBIDDEN: u16 = 403;
/// Chosen: the pods of a full node are a megabyte.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// Chosen: the API server's own limit passes first, so that it can say so.
const MARK_WITHIN: Duration = Duration::from_millis(1500);
const LONG_AGO: Duration = Duration::from_secs(60);
