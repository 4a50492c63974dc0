//! The import of the ConfigMap by which MetalLB 0.12 and older was configured.
//!
//! What it says becomes custom resources, where these are absent: nothing that is there is changed. An annotation on the
//! ConfigMap says that it was done, so that an object which somebody deletes later does not come back. The ConfigMap stays.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use garpike_controller_api::{Problem, Severity as Badness, legacy};
use garpike_kubernetes::{Recorder, Regarding, Severity, Update, failure, follow};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// On the ConfigMap: when it was imported.
pub const IMPORTED_ANNOTATION: &str = "garpike.io/imported";

/// Imports the ConfigMap `config` of the namespace, whenever it is there and not imported, until `stop`: guides have it written
/// after the manifest that starts the controller.
pub async fn import(client: Client, namespace: String, events: Recorder, stop: CancellationToken) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let mut changes = pin!(follow(maps, watcher::Config::default().fields(FIELDS), |_| ()));
    loop {
        let update = tokio::select! {
            () = stop.cancelled() => return,
            update = changes.next() => update,
        };
        match update {
            Some(Update::All(maps)) if maps.is_empty() => {}
            Some(Update::All(_) | Update::Applied(_)) => until_it_is_done(&client, &namespace, &events, &stop).await,
            Some(Update::Gone(_)) => {}
            Some(Update::Trouble(trouble)) => warn!("ConfigMap config of an old MetalLB is not imported: {trouble}"),
            None => return,
        }
    }
}

/// Imports it; tries again while the API server refuses.
async fn until_it_is_done(client: &Client, namespace: &str, events: &Recorder, stop: &CancellationToken) {
    let mut complaint = None;
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match once(client, namespace, events).await {
            Ok(()) => return,
            Err(error) => error.to_string(),
        };
        if complaint.as_ref() != Some(&error) {
            warn!("the old configuration is not imported: {error}");
        }
        complaint = Some(error);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => pause = pause.saturating_mul(2).min(LONGEST_PAUSE),
        }
    }
}

async fn once(client: &Client, namespace: &str, events: &Recorder) -> Result<(), ImportError> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let failed = |verb| move |source| ImportError::map(verb, source);
    let Some(map) = maps.get_opt(NAME).await.map_err(failed("read"))? else { return Ok(()) };
    if map.annotations().contains_key(IMPORTED_ANNOTATION) {
        return Ok(());
    }
    let Some(text) = map.data.as_ref().and_then(|data| data.get(NAME)) else {
        // Of another program, then.
        return Ok(());
    };
    let (objects, problems) = legacy::convert("ConfigMap config", text);
    let mut trouble = None;
    for object in objects {
        // A definition may be missing that only BGP needs.
        if let Err(error) = create(client, namespace, object).await {
            trouble = Some(trouble.unwrap_or(error));
        }
    }
    if let Some(error) = trouble {
        return Err(error);
    }
    for problem in problems.iter().filter(|problem| problem.severity != Badness::Note) {
        report(&map, problem, events);
    }
    let patch = json!({"metadata": {"annotations": {IMPORTED_ANNOTATION: now()}}});
    maps.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(failed("annotate"))?;
    info!(not_carried = problems.len(), "the old configuration was imported from ConfigMap config");
    let text = "imported as custom resources; the ConfigMap has no effect any more and can be deleted".to_owned();
    events.tell(regarding(&map), Severity::Normal, "Imported", text);
    Ok(())
}

/// Creates an object unless there is one of that name.
async fn create(client: &Client, namespace: &str, mut object: Value) -> Result<(), ImportError> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
    let version = version.strip_prefix("metallb.io/").unwrap_or(&version);
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("metallb.io", version, &kind), plural(&kind));
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    let failed =
        |source: kube::Error| ImportError::Object { object: format!("{kind} {name}"), source: Box::new(source) };
    let object: DynamicObject =
        serde_json::from_value(object).map_err(|error| failed(kube::Error::SerdeError(error)))?;
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => {
            info!(kind, name, "made from the old configuration");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == CONFLICT => {
            info!(kind, name, "is there already and stays as it is");
            Ok(())
        }
        // One that nobody would accept does not hold up the others.
        Err(kube::Error::Api(status))
            if [BAD_REQUEST, FORBIDDEN, INVALID].contains(&status.code) && !is_right(&status.message) =>
        {
            warn!(kind, name, "was refused and is not imported: {}", status.message);
            Ok(())
        }
        Err(error) => Err(failed(error)),
    }
}

/// Whether a refusal is for want of a right, rather than for what the object says.
fn is_right(message: &str) -> bool {
    message.contains("cannot create resource")
}

/// The plural of a kind that the conversion makes.
fn plural(kind: &str) -> &'static str {
    match kind {
        "IPAddressPool" => "ipaddresspools",
        "L2Advertisement" => "l2advertisements",
        "BGPAdvertisement" => "bgpadvertisements",
        "BGPPeer" => "bgppeers",
        "BFDProfile" => "bfdprofiles",
        _ => "communities",
    }
}

fn report(map: &ConfigMap, problem: &Problem, events: &Recorder) {
    warn!("{problem}");
    events.tell(regarding(map), Severity::Warning, "NotImported", problem.to_string());
}

fn regarding(map: &ConfigMap) -> Regarding {
    Regarding::of("v1", "ConfigMap", &map.metadata)
}

/// Why the import is not complete.
#[derive(Debug, Error)]
enum ImportError {
    #[error("cannot {verb} ConfigMap config: {}", failure(source))]
    Map { verb: &'static str, source: Box<kube::Error> },
    #[error("cannot make {object}: {}", failure(source))]
    Object { object: String, source: Box<kube::Error> },
}

impl ImportError {
    fn map(verb: &'static str, source: kube::Error) -> Self {
        Self::Map { verb, source: Box::new(source) }
    }
}

fn now() -> String {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default().to_string()
}

/// Of the ConfigMap, and of its entry.
const NAME: &str = "config";
const FIELDS: &str = "metadata.name=config";
const BAD_REQUEST: u16 = 400;
const FORBIDDEN: u16 = 403;
const CONFLICT: u16 = 409;
const INVALID: u16 = 422;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Chosen: a right or a definition that is missing is given by a human.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use garpike_kubernetes::recorder;
    use hyper::Method;

    use super::*;
    use crate::stub_api::{StubApi, refusal};

    #[tokio::test]
    async fn what_is_absent_is_made_what_is_there_stays_and_it_is_done_once() {
        let api = StubApi::start(|method, path| match (method.as_str(), path) {
            ("GET", MAP) => (200, map(&json!({}))),
            ("POST", path) if path.ends_with("/ipaddresspools") => refusal(CONFLICT, "is there"),
            ("POST", _) => (201, json!({"metadata": {"name": "x"}})),
            _ => (200, map(&json!({}))),
        })
        .await;

        run(&api).await.unwrap();

        let writes = api.writes();
        let shown: Vec<(&str, &str)> =
            writes.iter().map(|(method, path, _)| (method.as_str(), path.rsplit('/').next().unwrap())).collect();
        assert_eq!(shown, [("POST", "ipaddresspools"), ("POST", "l2advertisements"), ("PATCH", "config")]);
        assert_eq!(writes[0].2["metadata"], json!({"name": "first", "namespace": "ours"}));
        assert!(writes[2].2["metadata"]["annotations"][IMPORTED_ANNOTATION].as_str().unwrap().starts_with("20"));
    }

    #[tokio::test]
    async fn a_map_that_was_imported_or_is_not_ours_is_left_alone() {
        let done = map(&json!({IMPORTED_ANNOTATION: "2026-11-21T12:00:00Z"}));
        let other = json!({"metadata": {"name": NAME}, "data": {"a.conf": "x"}});
        for answer in [(200, done), (200, other), refusal(404, "no map")] {
            let api = StubApi::start(move |_, _| answer.clone()).await;
            run(&api).await.unwrap();
            assert_eq!(api.writes(), []);
        }
    }

    #[tokio::test]
    async fn a_failure_is_tried_again_and_holds_up_only_itself() {
        let api = StubApi::start(|method, path| match (method, path) {
            (&Method::POST, path) if path.ends_with("/ipaddresspools") => refusal(500, "the webhook is not there yet"),
            (&Method::POST, _) => (201, json!({"metadata": {"name": "x"}})),
            _ => (200, map(&json!({}))),
        })
        .await;

        let error = run(&api).await.unwrap_err().to_string();

        assert_eq!(error, "cannot make IPAddressPool first: the webhook is not there yet (500)");
        assert_eq!(api.writes().len(), 2, "the advertisement is made, the map is not marked");
    }

    #[tokio::test]
    async fn an_object_that_nobody_would_take_is_not_tried_for_ever() {
        let api = StubApi::start(|method, path| match (method, path) {
            (&Method::POST, path) if path.ends_with("/ipaddresspools") => {
                refusal(FORBIDDEN, "admission webhook denied it")
            }
            (&Method::POST, _) => refusal(FORBIDDEN, "User \"x\" cannot create resource \"l2advertisements\""),
            _ => (200, map(&json!({}))),
        })
        .await;

        let error = run(&api).await.unwrap_err().to_string();

        assert!(error.starts_with("cannot make L2Advertisement l2advertisement1: User"), "{error}");
    }

    async fn run(api: &StubApi) -> Result<(), ImportError> {
        let (events, _) = recorder(api.client.clone(), "test", String::new());
        once(&api.client, "ours", &events).await
    }

    fn map(annotations: &Value) -> Value {
        let config = "address-pools: [{name: first, protocol: layer2, addresses: [10.0.0.0/24], colour: red}]";
        json!({"metadata": {"name": NAME, "uid": "u", "annotations": annotations}, "data": {NAME: config}})
    }

    const MAP: &str = "/api/v1/namespaces/ours/configmaps/config";
}
