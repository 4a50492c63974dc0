//! Keeps the certificate of the webhook: in its Secret, in the server, and in what the API server trusts.
//!
//! Every replica does so; of two that write at once the API server refuses one, which then takes what the other wrote.

use std::time::{Duration, SystemTime};

use garpike_kubernetes::{InvalidCertificate, ServedCertificate, failure};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::health::{Health, Webhook};

use super::certificates::{CA, CERTIFICATE, Decision, Entries, KEY, decide, make};

/// Keeps the certificate of one webhook.
pub(super) struct Rotation {
    client: Client,
    secrets: Api<Secret>,
    secret: String,
    /// By which the API server calls us.
    host: String,
}

impl Rotation {
    pub(super) fn new(client: Client, namespace: &str, secret: String, service: &str) -> Self {
        let secrets = Api::namespaced(client.clone(), namespace);
        Self { client, secrets, secret, host: format!("{service}.{namespace}.svc") }
    }

    /// Goes on until `stop`. The webhook is awaited until everything is done for the first time.
    pub(super) async fn run(self, served: ServedCertificate, health: watch::Sender<Health>, stop: CancellationToken) {
        let mut complaint = None;
        let mut trusted = None;
        let mut settled = false;
        loop {
            let kept = self.keep(&served, &mut trusted).await;
            settled |= kept.is_ok();
            if settled {
                health.send_if_modified(|health| health.set_webhook(Webhook::Settled));
            } else if let Err(error) = &kept {
                health.send_if_modified(|health| health.set_webhook(Webhook::Awaited(error.to_string())));
            }
            let pause = if kept.is_ok() { LOOK_EVERY } else { TRY_AGAIN };
            let text = kept.err().map(|error| error.to_string());
            if let Some(text) = &text
                && complaint.as_ref() != Some(text)
            {
                warn!(secret = self.secret, "{text}");
            }
            complaint = text;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Looks once. `trusted` is what was served last.
    async fn keep(&self, served: &ServedCertificate, trusted: &mut Option<Entries>) -> Result<(), RotationError> {
        let entries = self.entries(trusted.as_ref()).await?;
        if trusted.as_ref() != Some(&entries) {
            let entry = |name| entries.entry(name).unwrap_or_default();
            served.replace(entry(CERTIFICATE), entry(KEY))?;
            info!(secret = self.secret, host = self.host, "the webhook serves the certificate of its Secret");
            *trusted = Some(entries.clone());
        }
        let bundle = json!(ByteString(entries.entry(CA).unwrap_or_default().to_vec()));
        self.inject::<ValidatingWebhookConfiguration>(WEBHOOKS, |object| webhooks_trusting(object, &bundle)).await?;
        self.inject::<CustomResourceDefinition>(PEERS, |object| conversion_trusting(object, &bundle)).await
    }

    /// The entries of the Secret, made or renewed where that is due. Those that were served come back when somebody has
    /// deleted them: the other replicas still serve them too.
    async fn entries(&self, served: Option<&Entries>) -> Result<Entries, RotationError> {
        let good = served.filter(|served| decide(served, &self.host, now()) == Decision::Keep);
        for _ in 0..MAX_RACES {
            let present = self.secrets.get_opt(&self.secret).await.map_err(|error| self.failed("read", error))?;
            let held = Entries(present.as_ref().and_then(|secret| secret.data.clone()).unwrap_or_default());
            let Decision::Replace(why) = decide(&held, &self.host, now()) else { return Ok(held) };
            let made = good.map_or_else(|| make(&self.host, &held, now()), |good| Ok(good.clone()))?;
            let written = match present {
                None => {
                    let name = Some(self.secret.clone());
                    let secret = Secret {
                        metadata: ObjectMeta { name, ..ObjectMeta::default() },
                        data: Some(made.0.clone()),
                        type_: Some("Opaque".to_owned()),
                        ..Secret::default()
                    };
                    self.secrets.create(&PostParams::default(), &secret).await
                }
                Some(present) => {
                    let version = present.metadata.resource_version;
                    let patch = json!({"metadata": {"resourceVersion": version}, "data": made.0});
                    self.secrets.patch(&self.secret, &PatchParams::default(), &Patch::Merge(patch)).await
                }
            };
            match written {
                Ok(_) => {
                    info!(secret = self.secret, %why, "the certificate of the webhook was written anew");
                    return Ok(made);
                }
                // Somebody was faster.
                Err(kube::Error::Api(status)) if status.code == CONFLICT => {}
                Err(error) => return Err(self.failed("write", error)),
            }
        }
        Err(RotationError::Races(self.secret.clone()))
    }

    fn failed(&self, verb: &'static str, source: kube::Error) -> RotationError {
        RotationError::Object { verb, object: format!("Secret {}", self.secret), source: Box::new(source) }
    }

    /// Has one object trust us, where there is such an object.
    async fn inject<K: kube::Resource<DynamicType = ()>>(
        &self,
        name: &str,
        trusting: impl Fn(&Value) -> Option<Value> + Send,
    ) -> Result<(), RotationError> {
        let resource = ApiResource::erase::<K>(&());
        // By name and as it is, so that nothing of a newer Kubernetes is lost.
        let objects: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let failed = |verb: &'static str| {
            let object = format!("{} {name}", resource.kind);
            move |source| RotationError::Object { verb, object, source: Box::new(source) }
        };
        for _ in 0..MAX_RACES {
            let Some(object) = objects.get_opt(name).await.map_err(failed("read"))? else { return Ok(()) };
            let Some(mut patch) = trusting(&object.data) else { return Ok(()) };
            if let Some(patch) = patch.as_object_mut() {
                patch.insert("metadata".to_owned(), json!({"resourceVersion": object.metadata.resource_version}));
            }
            match objects.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => {
                    info!(kind = resource.kind, name, "the API server was told whom to trust");
                    return Ok(());
                }
                Err(kube::Error::Api(status)) if status.code == CONFLICT => {}
                Err(error) => return Err(failed("write")(error)),
            }
        }
        Err(RotationError::Races(name.to_owned()))
    }
}

/// The webhooks with our authority; `None` when all have it.
fn webhooks_trusting(object: &Value, bundle: &Value) -> Option<Value> {
    let before = object.get("webhooks")?;
    let mut webhooks = before.clone();
    for webhook in webhooks.as_array_mut()? {
        if let Some(config) = webhook.get_mut("clientConfig").and_then(Value::as_object_mut) {
            config.insert("caBundle".to_owned(), bundle.clone());
        }
    }
    (webhooks != *before).then(|| json!({"webhooks": webhooks}))
}

/// The conversion with our authority; `None` when it has it, or there is no webhook in it.
fn conversion_trusting(object: &Value, bundle: &Value) -> Option<Value> {
    let config = object.pointer("/spec/conversion/webhook/clientConfig")?;
    let webhook = json!({"clientConfig": {"caBundle": bundle}});
    (config.get("caBundle") != Some(bundle)).then(|| json!({"spec": {"conversion": {"webhook": webhook}}}))
}

/// Why the certificate is not kept.
#[derive(Debug, Error)]
enum RotationError {
    #[error("the webhook: cannot {verb} {object}: {}", failure(source))]
    Object { verb: &'static str, object: String, source: Box<kube::Error> },
    #[error("the webhook: others write {0} again and again")]
    Races(String),
    #[error("the webhook: {0}")]
    Certificate(#[from] InvalidCertificate),
    #[error("the webhook: no certificate can be made: {0}")]
    Make(#[from] rcgen::Error),
}

#[expect(clippy::disallowed_methods, reason = "certificates end by the clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

const CONFLICT: u16 = 409;
/// MetalLB's names.
const WEBHOOKS: &str = "metallb-webhook-configuration";
const PEERS: &str = "bgppeers.metallb.io";
/// Chosen: three small reads; a Secret or webhook configuration that somebody has replaced is mended by then.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// Chosen: two replicas collide once.
const MAX_RACES: usize = 5;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::stub_api::{StubApi, refusal};

    #[tokio::test]
    async fn of_two_replicas_that_make_a_certificate_the_second_takes_that_of_the_first() {
        let theirs = make(HOST, &Entries::default(), now()).unwrap();
        let secret = json!({"metadata": {"name": "s", "resourceVersion": "2"}, "data": theirs.0});
        let there = Arc::new(AtomicBool::new(false));
        let api = StubApi::start(move |method, _| match method.as_str() {
            "GET" if there.load(Ordering::Relaxed) => (200, secret.clone()),
            "GET" => refusal(404, "no Secret"),
            _ => {
                there.store(true, Ordering::Relaxed);
                refusal(CONFLICT, "is there")
            }
        })
        .await;

        assert_eq!(rotation(&api).entries(None).await.unwrap(), theirs);
        assert_eq!(api.writes().len(), 1);
    }

    #[tokio::test]
    async fn a_deleted_secret_gets_the_certificate_that_is_served() {
        let served = make(HOST, &Entries::default(), now()).unwrap();
        let api = StubApi::start(|method, _| match method.as_str() {
            "GET" => refusal(404, "no Secret"),
            _ => (201, json!({"metadata": {"name": "s"}})),
        })
        .await;

        assert_eq!(rotation(&api).entries(Some(&served)).await.unwrap(), served);
        assert_eq!(api.writes()[0].2["data"], json!(served.0));
    }

    #[tokio::test]
    async fn an_old_certificate_is_renewed_in_its_place() {
        let old = make(HOST, &Entries::default(), now() - Duration::from_secs(300 * 24 * 60 * 60)).unwrap();
        let secret = json!({"metadata": {"name": "s", "resourceVersion": "7"}, "data": old.0});
        let api = StubApi::start(move |_, _| (200, secret.clone())).await;

        let renewed = rotation(&api).entries(Some(&old)).await.unwrap();

        assert_eq!(decide(&renewed, HOST, now()), Decision::Keep);
        let writes = api.writes();
        assert_eq!((writes.len(), &writes[0].2["metadata"]["resourceVersion"]), (1, &json!("7")));
    }

    fn rotation(api: &StubApi) -> Rotation {
        Rotation::new(api.client.clone(), "ours", "s".to_owned(), "webhook")
    }

    const HOST: &str = "webhook.ours.svc";

    #[test]
    fn only_what_does_not_trust_us_is_written() {
        let object = json!({"webhooks": [
            {"name": "a", "clientConfig": {"service": {"name": "s"}, "caBundle": "old"}},
            {"name": "b", "clientConfig": {"service": {"name": "s"}}, "failurePolicy": "Fail"},
        ]});
        let patch = webhooks_trusting(&object, &json!("new")).unwrap();

        assert_eq!(patch["webhooks"][0]["clientConfig"], json!({"service": {"name": "s"}, "caBundle": "new"}));
        assert_eq!(patch["webhooks"][1]["failurePolicy"], "Fail");
        assert_eq!(webhooks_trusting(&patch, &json!("new")), None);

        let object = json!({"spec": {"conversion": {"webhook": {"clientConfig": {"service": {}}}}}});
        let patch = conversion_trusting(&object, &json!("new")).unwrap();
        assert_eq!(conversion_trusting(&patch, &json!("new")), None);
        assert_eq!(conversion_trusting(&json!({"spec": {"conversion": {"strategy": "None"}}}), &json!("new")), None);
    }
}
