//! A pod on the dead node, and how it is marked.
//!
//! The mark is the one that the node lifecycle controller of Kubernetes makes later: condition `Ready` becomes `False`. Nothing
//! else of the pod is touched, and the kubelet takes a mark back that is wrong: it owns the condition, and writes it whole.

use garpike_election::NodeName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde_json::{Value, json};

/// What is read of a pod.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct PodOnNode {
    pub(crate) metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

/// Which pod it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Metadata {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Option<Vec<Condition>>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
}

impl PodOnNode {
    /// Whether it is on that node and serves, as far as Kubernetes knows. One without conditions does not.
    pub(crate) fn is_ready_on(&self, node: &NodeName) -> bool {
        let conditions = self.status.conditions.iter().flatten();
        let ready =
            conditions.filter(|condition| condition.r#type == "Ready").any(|condition| condition.status == "True");
        ready && self.spec.node_name.as_deref() == Some(node.as_str())
    }
}

/// The strategic merge patch of its status. Conditions are merged by their type; another pod of the same name has another
/// uid, and refuses it.
pub(crate) fn mark(uid: &str, message: &str, at: Time) -> Value {
    let ready = json!({
        "type": "Ready", "status": "False", "reason": REASON, "message": message, "lastTransitionTime": at,
    });
    json!({"metadata": {"uid": uid}, "status": {"conditions": [ready]}})
}

/// The word of Kubernetes for it.
const REASON: &str = "NodeNotReady";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_pods_of_the_node_count_and_no_others() {
        let ready = json!([{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}]);
        let pods = [
            (json!({"nodeName": "n1"}), json!({"conditions": ready}), true),
            (json!({"nodeName": "n2"}), json!({"conditions": ready}), false),
            (json!({}), json!({"conditions": ready}), false),
            (json!({"nodeName": "n1"}), json!({"conditions": [{"type": "Ready", "status": "False"}]}), false),
            (json!({"nodeName": "n1"}), json!({"conditions": [{"type": "Ready"}]}), false),
            (json!({"nodeName": "n1"}), json!({"conditions": []}), false),
            (json!({"nodeName": "n1"}), json!({"conditions": null}), false),
            (json!({"nodeName": "n1"}), json!({}), false),
        ];
        let node = NodeName::new("n1").unwrap();
        for (spec, status, ready) in pods {
            let pod = json!({"metadata": {"namespace": "a", "name": "b", "uid": "c"}, "spec": spec, "status": status});
            let read: PodOnNode = serde_json::from_value(pod.clone()).unwrap();

            assert_eq!(read.is_ready_on(&node), ready, "{pod}");
        }
    }

    #[test]
    fn golden_mark() {
        let at = Time("2026-01-02T03:04:05Z".parse().unwrap());

        let mark = mark("u1", "why", at).to_string();

        assert_eq!(
            mark,
            r#"{"metadata":{"uid":"u1"},"status":{"conditions":[{"lastTransitionTime":"2026-01-02T03:04:05Z","message":"why","reason":"NodeNotReady","status":"False","type":"Ready"}]}}"#
        );
    }
}
