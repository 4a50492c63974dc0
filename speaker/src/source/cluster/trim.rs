//! What is kept of each object: what decides who owns an address, and no more.
//!
//! Objects are trimmed as they come, so that thousands of them take little room, and so that a change of anything else
//! (a heartbeat, a condition, a field of another component) leaves them equal.

use garpike_controller_api::{IPAddressPool, L2Advertisement};
use garpike_kubernetes::Lenient;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Keeps what the speaker reads of a Node.
pub(super) fn node(node: &mut Node) {
    metadata(&mut node.metadata);
    node.spec = None;
    let condition = |condition: NodeCondition| {
        let ours = condition.type_ == "NetworkUnavailable" && condition.status == "True";
        let NodeCondition { type_, status, .. } = condition;
        ours.then(|| NodeCondition { type_, status, ..NodeCondition::default() })
    };
    let conditions = node.status.take().and_then(|status| status.conditions).unwrap_or_default();
    let conditions: Vec<NodeCondition> = conditions.into_iter().filter_map(condition).collect();
    node.status =
        (!conditions.is_empty()).then(|| NodeStatus { conditions: Some(conditions), ..NodeStatus::default() });
}

/// Keeps what the speaker reads of an IPAddressPool.
pub(super) fn pool(pool: &mut Lenient<IPAddressPool>) {
    metadata(&mut pool.metadata);
    if let Ok(object) = &mut pool.object {
        metadata(&mut object.metadata);
        object.status = None;
    }
}

/// Keeps what the speaker reads of an L2Advertisement.
pub(super) fn advertisement(advertisement: &mut Lenient<L2Advertisement>) {
    metadata(&mut advertisement.metadata);
    if let Ok(object) = &mut advertisement.object {
        metadata(&mut object.metadata);
    }
}

fn metadata(metadata: &mut ObjectMeta) {
    let ObjectMeta { name, namespace, uid, labels, annotations, creation_timestamp, .. } = std::mem::take(metadata);
    let ours = |key: &str| OUR_ANNOTATIONS.iter().any(|prefix| key.starts_with(prefix));
    let annotations = annotations.map(|all| all.into_iter().filter(|(key, _)| ours(key)).collect());
    *metadata = ObjectMeta { name, namespace, uid, labels, annotations, creation_timestamp, ..ObjectMeta::default() };
}

const OUR_ANNOTATIONS: [&str; 3] = ["metallb.io/", "metallb.universe.tf/", "garpike.io/"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_leaves_a_node_equal_and_a_lost_network_does_not() {
        let at = |time: &str, unavailable: &str| {
            let json = serde_json::json!({
                "metadata": {"name": "n1", "labels": {"rack": "1"}, "resourceVersion": time,
                    "annotations": {"garpike.io/drain": "true", "flannel.io/x": time}},
                "spec": {"unschedulable": time.ends_with('2')},
                "status": {"conditions": [
                    {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-11-21T00:00:00Z"},
                    {"type": "NetworkUnavailable", "status": unavailable, "reason": time},
                ]},
            });
            let mut read: Node = serde_json::from_value(json).unwrap();
            node(&mut read);
            read
        };

        assert_eq!(at("1", "False"), at("2", "False"));
        assert_eq!(at("1", "True"), at("2", "True"));
        assert_ne!(at("1", "True"), at("1", "False"));
        assert_eq!(at("1", "False").metadata.annotations.unwrap().len(), 1);
    }
}
