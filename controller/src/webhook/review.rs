//! AdmissionReview v1: what the API server asks, and what it is told.

use serde::Deserialize;
use serde_json::{Value, json};

/// What is asked.
#[derive(Clone, Debug, Deserialize)]
struct Asked {
    request: Review,
}

/// One question of the API server.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Review {
    uid: String,
    #[serde(default)]
    pub(super) kind: GroupVersionKind,
    pub(super) operation: Operation,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) object: Value,
    #[serde(default)]
    pub(super) old_object: Value,
}

/// The kind of the object.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct GroupVersionKind {
    pub(super) kind: String,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may be stored; the texts are shown to whoever wrote it.
    Allowed(Vec<String>),
    /// It may not.
    Denied(String),
}

impl Review {
    pub(super) fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice::<Asked>(body).map(|asked| asked.request)
    }

    /// The name of the object; one that is being created may have it in itself only.
    pub(super) fn object_name(&self) -> &str {
        let inside = self.object.pointer("/metadata/name").and_then(Value::as_str);
        inside.filter(|_| self.name.is_empty()).unwrap_or(&self.name)
    }

    /// The object, for messages.
    pub(super) fn object_shown(&self) -> String {
        format!("{} {}/{}", self.kind.kind, self.namespace, self.object_name())
    }

    pub(super) fn answer(&self, verdict: &Verdict) -> Value {
        let response = match verdict {
            Verdict::Allowed(warnings) if warnings.is_empty() => json!({"uid": self.uid, "allowed": true}),
            Verdict::Allowed(warnings) => json!({"uid": self.uid, "allowed": true, "warnings": warnings}),
            Verdict::Denied(message) => {
                let status = json!({"code": FORBIDDEN, "reason": "Forbidden", "message": message});
                json!({"uid": self.uid, "allowed": false, "status": status})
            }
        };
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }
}

/// As the API server answers when a webhook gives no code.
const FORBIDDEN: u16 = 403;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_names_the_question() {
        let body = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u1", "operation": "CREATE", "namespace": "n", "object": {"metadata": {"name": "p"}},
                "kind": {"group": "metallb.io", "version": "v1beta1", "kind": "IPAddressPool"},
            },
        });
        let review = Review::read(body.to_string().as_bytes()).unwrap();

        assert_eq!(review.object_shown(), "IPAddressPool n/p");
        assert_eq!(review.answer(&Verdict::Allowed(vec![]))["response"], json!({"uid": "u1", "allowed": true}));
        let denied = review.answer(&Verdict::Denied("no".to_owned()));
        assert_eq!(denied["response"]["status"]["message"], "no");
        assert_eq!((&denied["kind"], &denied["response"]["uid"]), (&json!("AdmissionReview"), &json!("u1")));
        assert!(Review::read(b"{}").is_err());
    }
}
