//! The one-time import of the ConfigMap by which MetalLB 0.12 and older was configured.
//!
//! What it says becomes custom resources, where these are absent: nothing that is there is changed. An annotation on the
//! ConfigMap says that it was done, so that an object which somebody deletes later does not come back. The ConfigMap stays.

use std::time::Duration;

use garpike_controller_api::{Problem, Severity as Badness, legacy};
use garpike_kubernetes::{Recorder, Regarding, Severity, failure};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// On the ConfigMap: when it was imported.
pub const IMPORTED_ANNOTATION: &str = "garpike.io/imported";

/// Imports the ConfigMap `config` of the namespace, if there is one, and ends; tries again while the API server refuses, until
/// `stop`.
pub async fn import(client: Client, namespace: String, events: Recorder, stop: CancellationToken) {
    let mut complaint = None;
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match once(&client, &namespace, &events).await {
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
        report(&map, namespace, problem, events);
    }
    let patch = json!({"metadata": {"annotations": {IMPORTED_ANNOTATION: now()}}});
    maps.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(failed("annotate"))?;
    info!(not_carried = problems.len(), "the old configuration was imported from ConfigMap config");
    let text = "imported as custom resources; the ConfigMap has no effect any more and can be deleted".to_owned();
    events.tell(regarding(&map, namespace), Severity::Normal, "Imported", text);
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

fn report(map: &ConfigMap, namespace: &str, problem: &Problem, events: &Recorder) {
    warn!("{problem}");
    events.tell(regarding(map, namespace), Severity::Warning, "NotImported", problem.to_string());
}

fn regarding(map: &ConfigMap, namespace: &str) -> Regarding {
    Regarding {
        api_version: "v1",
        kind: "ConfigMap",
        namespace: namespace.to_owned(),
        name: NAME.to_owned(),
        uid: map.uid().unwrap_or_default(),
    }
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
const BAD_REQUEST: u16 = 400;
const FORBIDDEN: u16 = 403;
const CONFLICT: u16 = 409;
const INVALID: u16 = 422;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Chosen: a right or a definition that is missing is given by a human.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
