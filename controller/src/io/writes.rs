//! Writes of statuses: one request each, bounded in time on both sides, and what came of it.

use std::time::Duration;

use garpike_controller_api::config::PoolName;
use garpike_controller_api::{IPAddressPool, IPAddressPoolStatus};
use garpike_election::ServiceKey;
use http_body_util::{BodyExt as _, Limited};
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::{Request, StatusCode};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Api, Client};
use tokio::time::timeout;

use crate::planner::Write;
use crate::registry::ConditionWrite;
use crate::seen::{FIELD_MANAGER, RawService, Seen};

/// What came of a write to a Service.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The object is this.
    Written(Box<Seen>),
    /// It has another version.
    Conflict,
    /// There is no such object.
    Gone,
    /// The API server did not take it, says why, and when it may be asked again.
    Refused {
        /// Why.
        text: String,
        /// Nothing should be asked before.
        after: Option<Duration>,
    },
    /// No answer came in time, or none that tells.
    Unknown {
        /// What came in its place.
        text: String,
    },
}

/// Puts `body` into the status of the Service.
pub(crate) async fn service(client: Client, write: Write, body: Vec<u8>) -> (Write, Outcome) {
    let outcome = match timeout(ANSWER_WITHIN, put(client, &write.service, body)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(text)) => Outcome::Unknown { text },
        Err(_) => Outcome::Unknown { text: format!("no answer within {} s", ANSWER_WITHIN.as_secs_f32()) },
    };
    (write, outcome)
}

async fn put(client: Client, service: &ServiceKey, body: Vec<u8>) -> Result<Outcome, String> {
    let (namespace, name) = (&service.namespace, &service.name);
    let seconds = REQUEST_WITHIN.as_secs();
    let path = format!(
        "/api/v1/namespaces/{namespace}/services/{name}/status?fieldManager={FIELD_MANAGER}&timeout={seconds}s"
    );
    let request = Request::put(path).header(CONTENT_TYPE, "application/json").body(Body::from(body));
    let response = client.send(request.map_err(|error| error.to_string())?).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let bytes = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
    let bytes = bytes.to_bytes();
    let text = || {
        let message = serde_json::from_slice::<Said>(&bytes).unwrap_or_default().message;
        format!("{message} ({status})")
    };
    Ok(match status {
        status if status.is_success() => match serde_json::from_slice::<RawService>(&bytes) {
            Ok(raw) => Outcome::Written(Box::new(raw.seen)),
            Err(error) => Outcome::Unknown { text: format!("an answer that is no Service: {error}") },
        },
        StatusCode::CONFLICT => Outcome::Conflict,
        StatusCode::NOT_FOUND => Outcome::Gone,
        status if status.is_client_error() => Outcome::Refused { text: text(), after: after.map(Duration::from_secs) },
        // An API server that gives up, or a proxy that answers for it: the write may have got through.
        _ => Outcome::Unknown { text: text() },
    })
}

/// What a refusal says.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Said {
    message: String,
}

/// What came of a write of a condition.
#[derive(Debug)]
pub(crate) enum ConditionOutcome {
    /// The object is this.
    Written(Box<Seen>),
    /// There is no such Service.
    Gone,
    /// The right is missing: as MetalLB's manifests have it, a controller may replace a status, and not patch it.
    Forbidden(String),
    /// It did not work.
    Failed(String),
}

/// Applies a condition to the status of a Service.
pub(crate) async fn condition(client: Client, write: ConditionWrite) -> (ServiceKey, ConditionOutcome) {
    let (namespace, name) = (&write.service.namespace, &write.service.name);
    let api: Api<RawService> = Api::namespaced(client, namespace);
    let parameters = PatchParams::apply(CONDITION_MANAGER).force();
    let patch = Patch::Apply(write.body(Timestamp::now()));
    let outcome = match timeout(ANSWER_WITHIN, api.patch_status(name, &parameters, &patch)).await {
        Ok(Ok(raw)) => ConditionOutcome::Written(Box::new(raw.seen)),
        Ok(Err(kube::Error::Api(status))) if status.code == StatusCode::NOT_FOUND => ConditionOutcome::Gone,
        Ok(Err(kube::Error::Api(status))) if status.code == StatusCode::FORBIDDEN => {
            ConditionOutcome::Forbidden(status.message.clone())
        }
        Ok(Err(error)) => ConditionOutcome::Failed(error.to_string()),
        Err(_) => ConditionOutcome::Failed(format!("no answer within {} s", ANSWER_WITHIN.as_secs_f32())),
    };
    (write.service, outcome)
}

/// What came of a write to a pool.
#[derive(Debug)]
pub(crate) struct PoolOutcome {
    pub(crate) name: PoolName,
    /// The status that is there.
    pub(crate) result: Result<Option<IPAddressPoolStatus>, String>,
}

/// Puts the statuses of pools, one after the other.
pub(crate) async fn pools(api: Api<IPAddressPool>, writes: Vec<(PoolName, IPAddressPool)>) -> Vec<PoolOutcome> {
    let mut outcomes = Vec::new();
    for (name, pool) in writes {
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let result = match timeout(ANSWER_WITHIN, api.replace_status(&name.0, &parameters, &pool)).await {
            Ok(Ok(pool)) => Ok(pool.status),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", ANSWER_WITHIN.as_secs_f32())),
        };
        outcomes.push(PoolOutcome { name, result });
    }
    outcomes
}

/// Who writes conditions in `metadata.managedFields`: another name than that of addresses, so that neither takes fields from
/// the other.
const CONDITION_MANAGER: &str = "garpike-controller-conditions";
/// How long the API server may work on a write. A new leader waits as long for those of the one before it.
pub(crate) const REQUEST_WITHIN: Duration = Duration::from_secs(1);
/// How long its answer is waited for. Chosen: the API server's own limit passes first, so that it can say so.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);
/// How large an answer may be. The limit of etcd for an object is 1.5 MiB.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests;
