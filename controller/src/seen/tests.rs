use serde_json::{Value, json};

use super::*;

#[test]
fn keeps_all_metadata_but_the_managed_fields() {
    let seen = seen();
    let kept = seen.service();

    assert_eq!((seen.key.to_string().as_str(), seen.version), ("default/web", 7));
    assert_eq!(kept.metadata.managed_fields, None);
    assert_eq!(kept.metadata.finalizers, Some(vec!["example.org/keep".to_owned()]));
    assert_eq!(kept.metadata.annotations.map(|annotations| annotations.len()), Some(2));
    assert_eq!(seen.status_manager.as_deref(), Some("kubectl-edit"));
}

#[test]
fn judges_see_what_decides_about_addresses_and_nothing_else() {
    let spec = seen().service().spec.unwrap();

    assert_eq!(spec.cluster_ips, Some(vec!["10.96.0.7".to_owned()]));
    assert_eq!((spec.external_traffic_policy.as_deref(), spec.selector.is_some()), (Some("Local"), true));
    assert_eq!(spec.ports.unwrap()[0].port, 80);
    assert_eq!(spec.session_affinity, None);
}

#[test]
fn a_write_carries_addresses_pool_version_and_everything_that_would_be_lost() {
    let seen = seen();
    let write = Write {
        service: seen.key.clone(),
        version: 7,
        addresses: vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()],
        pool: Some(PoolName("first".to_owned())),
    };

    let body: Value = serde_json::from_slice(&seen.body(&write)).unwrap();

    assert_eq!(
        body,
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7",
                "finalizers": ["example.org/keep"],
                "annotations": {"a": "b", "metallb.io/ip-allocated-from-pool": "first"},
            },
            "spec": {"type": "LoadBalancer"},
            "status": {
                "conditions": [{
                    "type": "Ready", "status": "True", "reason": "R", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }],
                "loadBalancer": {"ingress": [{"ip": "10.0.0.1", "ipMode": "Proxy"}, {"ip": "10.0.0.2"}]},
            },
        })
    );
}

#[test]
fn a_write_of_nothing_takes_address_and_pool_away() {
    let seen = seen();
    let write = Write { service: seen.key.clone(), version: 7, addresses: Vec::new(), pool: None };

    let body: Value = serde_json::from_slice(&seen.body(&write)).unwrap();

    assert_eq!(body["status"]["loadBalancer"], json!({}));
    assert_eq!(body["metadata"]["annotations"], json!({"a": "b"}));
}

fn seen() -> Seen {
    let raw: RawService = serde_json::from_value(json!({
        "metadata": {
            "name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7",
            "annotations": {"a": "b", "metallb.io/ip-allocated-from-pool": "old"},
            "finalizers": ["example.org/keep"],
            "managedFields": [
                {"manager": "kubectl", "fieldsV1": {"f:spec": {}}},
                {"manager": "kubectl-edit", "subresource": "status", "fieldsV1": {"f:status": {"f:loadBalancer": {}}}},
            ],
        },
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.7", "selector": {"app": "web"}, "sessionAffinity": "None",
            "externalTrafficPolicy": "Local", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30000}],
        },
        "status": {
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "R", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
            "loadBalancer": {"ingress": [{"hostname": "x.example.org"}, {"ip": "10.0.0.1", "ipMode": "Proxy"}]},
        },
    }))
    .unwrap();
    raw.seen
}
