//! The Secret by which the speakers seal what they tell each other: made when it is absent, never changed.
//!
//! The name and the key are MetalLB's (`memberlist`, `secretkey`), so its Secret goes on to serve and ours serves it. Keys are
//! rotated by `garpike keys rotate`, not here.

use std::time::Duration;

use garpike_kubernetes::{Recorder, Regarding, Severity, failure};
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PostParams;
use kube::{Api, Client};
use rand::TryRng as _;
use rand::rngs::SysRng;
use serde_json::json;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Keeps the Secret of the speakers.
pub struct GossipSecret {
    secrets: Api<Secret>,
    deployments: Api<Deployment>,
    events: Recorder,
    namespace: String,
    name: String,
    deployment: Option<String>,
}

impl GossipSecret {
    /// For the Secret `name`; the Deployment becomes its owner, nobody does without.
    pub fn new(client: Client, namespace: &str, name: String, deployment: Option<String>, events: Recorder) -> Self {
        let secrets = Api::namespaced(client.clone(), namespace);
        let deployments = Api::namespaced(client, namespace);
        Self { secrets, deployments, events, namespace: namespace.to_owned(), name, deployment }
    }

    /// Makes the Secret whenever it is absent, until `stop`: new speakers cannot start without.
    pub async fn run(self, stop: CancellationToken) {
        let mut told: Option<String> = None;
        loop {
            let (pause, trouble) = match self.ensure().await {
                Ok(Found::Usable | Found::Made) => (LOOK_EVERY, None),
                Ok(Found::Useless { text, uid }) => {
                    if told.as_ref() != Some(&text) {
                        self.tell(&text, uid);
                    }
                    (LOOK_EVERY, Some(text))
                }
                Err(error) => (TRY_AGAIN, Some(error.to_string())),
            };
            if let Some(text) = &trouble
                && told.as_ref() != Some(text)
            {
                warn!("{text}");
            }
            told = trouble;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn ensure(&self) -> Result<Found, GossipSecretError> {
        let failed = |verb| move |source| GossipSecretError { verb, name: self.name.clone(), source: Box::new(source) };
        if let Some(secret) = self.secrets.get_opt(&self.name).await.map_err(failed("read"))? {
            return Ok(match useless(&secret) {
                None => Found::Usable,
                Some(why) => {
                    let text = format!(
                        "Secret {}/{}: {why}; the speakers cannot start by it. Delete the Secret and a good one is made",
                        self.namespace, self.name
                    );
                    Found::Useless { text, uid: secret.metadata.uid.unwrap_or_default() }
                }
            });
        }
        let owner = self.owner().await.map_err(failed("find the owner of"))?;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                owner_references: owner.map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            data: Some([(KEY.to_owned(), ByteString(new_key().into_bytes()))].into()),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        match self.secrets.create(&PostParams::default(), &secret).await {
            Ok(_) => {
                info!(name = self.name, "the Secret of the speakers was made");
                Ok(Found::Made)
            }
            // Another replica was faster, and its key counts.
            Err(kube::Error::Api(status)) if status.code == CONFLICT => Ok(Found::Usable),
            Err(error) => Err(failed("make")(error)),
        }
    }

    async fn owner(&self) -> Result<Option<OwnerReference>, kube::Error> {
        let Some(name) = &self.deployment else { return Ok(None) };
        let deployment = self.deployments.get_opt(name).await?;
        Ok(deployment.and_then(|deployment| deployment.metadata.uid).map(|uid| OwnerReference {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            name: name.clone(),
            uid,
            ..OwnerReference::default()
        }))
    }

    fn tell(&self, text: &str, uid: String) {
        let regarding = Regarding {
            api_version: "v1",
            kind: "Secret",
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid,
        };
        self.events.tell(regarding, Severity::Warning, "UnusableSecret", text.to_owned());
    }
}

/// What there is of the Secret.
enum Found {
    /// It is good, or somebody else has just made it.
    Usable,
    /// It was made.
    Made,
    /// Nobody can seal by it.
    Useless { text: String, uid: String },
}

/// Why the speakers have no key in it. Each entry is a key; one that is good is enough.
fn useless(secret: &Secret) -> Option<String> {
    let good = |key: &ByteString| !key.0.trim_ascii_end().is_empty() && key.0.len() <= MAX_KEY_BYTES;
    if secret.data.iter().flatten().any(|(_, key)| good(key)) {
        return None;
    }
    Some(match secret.data.as_ref().and_then(|data| data.get(KEY)) {
        None => format!("data.{KEY} is missing"),
        Some(key) if key.0.len() > MAX_KEY_BYTES => format!("data.{KEY} has more than {MAX_KEY_BYTES} bytes"),
        Some(_) => format!("data.{KEY} is empty"),
    })
}

/// As MetalLB writes it: base64 in one line, without padding.
fn new_key() -> String {
    let mut bytes = vec![0_u8; KEY_BYTES];
    SysRng.try_fill_bytes(&mut bytes).expect("the system gives random bytes");
    // The API writes bytes so.
    let encoded = json!(ByteString(bytes));
    let text = encoded.as_str().expect("bytes are written as a text");
    text.trim_end_matches('=').to_owned()
}

/// Why the Secret is not there.
#[derive(Debug, Error)]
#[error("cannot {verb} the Secret {name} of the speakers: {}", failure(source))]
struct GossipSecretError {
    verb: &'static str,
    name: String,
    source: Box<kube::Error>,
}

/// MetalLB's name of the entry.
const KEY: &str = "secretkey";
/// The length of the keys that are derived from it (XChaCha20-Poly1305): more adds nothing. MetalLB takes 16.
const KEY_BYTES: usize = 32;
/// As the speakers refuse longer ones.
const MAX_KEY_BYTES: usize = 64 * 1024;
const CONFLICT: u16 = 409;
/// Chosen: a Secret is deleted by mistake, and rarely.
const LOOK_EVERY: Duration = Duration::from_secs(60);
const TRY_AGAIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use garpike_kubernetes::recorder;

    use super::*;
    use crate::stub_api::{StubApi, refusal};

    #[tokio::test]
    async fn an_absent_secret_is_made_with_its_owner_and_one_that_is_there_is_never_written() {
        let absent = StubApi::start(|method, path| match (method.as_str(), path) {
            ("GET", "/apis/apps/v1/namespaces/ours/deployments/controller") => {
                (200, json!({"metadata": {"name": "controller", "uid": "d1"}}))
            }
            ("GET", _) => refusal(404, "no Secret"),
            _ => (201, json!({"metadata": {"name": "memberlist"}})),
        })
        .await;
        assert!(matches!(keeper(&absent).ensure().await, Ok(Found::Made)));
        let writes = absent.writes();
        assert_eq!(writes.len(), 1);
        assert_eq!(writes[0].2["metadata"]["ownerReferences"][0]["uid"], "d1");
        assert_eq!(writes[0].2["type"], "Opaque");

        let present =
            StubApi::start(|_, _| (200, json!({"metadata": {"name": "memberlist"}, "data": {KEY: "eA=="}}))).await;
        assert!(matches!(keeper(&present).ensure().await, Ok(Found::Usable)));
        let empty = StubApi::start(|_, _| (200, json!({"metadata": {"name": "memberlist"}, "data": {KEY: ""}}))).await;
        assert!(
            matches!(keeper(&empty).ensure().await, Ok(Found::Useless { text, .. }) if text.contains("data.secretkey is empty"))
        );
        assert_eq!([present.writes().len(), empty.writes().len()], [0, 0]);
    }

    #[tokio::test]
    async fn of_two_replicas_the_first_key_counts() {
        let api = StubApi::start(|method, _| match method.as_str() {
            "GET" => refusal(404, "no Secret"),
            _ => refusal(CONFLICT, "is there"),
        })
        .await;

        assert!(matches!(keeper(&api).ensure().await, Ok(Found::Usable)));
    }

    fn keeper(api: &StubApi) -> GossipSecret {
        let (events, _) = recorder(api.client.clone(), "test", String::new());
        GossipSecret::new(api.client.clone(), "ours", "memberlist".to_owned(), Some("controller".to_owned()), events)
    }

    #[test]
    fn a_new_key_is_one_line_of_base64_and_never_the_same() {
        let [one, other] = [new_key(), new_key()];

        assert_ne!(one, other);
        assert_eq!(one.len(), 43);
        assert!(one.chars().all(|c| c.is_ascii_alphanumeric() || "+/".contains(c)), "{one}");
    }

    #[test]
    fn what_people_have_stays_valid_and_an_empty_key_is_named() {
        let secret = |data: serde_json::Value| serde_json::from_value::<Secret>(json!({"data": data})).unwrap();

        // Three lines, as `openssl rand -base64 128` writes them, and a short word.
        for text in [[b"a".repeat(64), b"b".repeat(64), b"c".repeat(44)].join(&b'\n'), b"secret\n".to_vec()] {
            assert_eq!(useless(&secret(json!({KEY: ByteString(text)}))), None);
        }
        assert_eq!(useless(&secret(json!({KEY: ByteString(b" \n".to_vec())}))).unwrap(), "data.secretkey is empty");
        assert_eq!(useless(&secret(json!({}))).unwrap(), "data.secretkey is missing");
        assert_eq!(useless(&secret(json!({"newer": ByteString(b"x".to_vec()), KEY: ""}))), None);
        let long = ByteString(vec![b'x'; MAX_KEY_BYTES + 1]);
        assert_eq!(useless(&secret(json!({KEY: long}))).unwrap(), "data.secretkey has more than 65536 bytes");
    }
}
