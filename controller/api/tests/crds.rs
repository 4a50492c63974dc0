//! The definitions of the custom resources: those that are committed are those of the types, and they say what MetalLB's
//! say.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use garpike_controller_api::{
    Community, ConfigurationState, IPAddressPool, IPAddressPoolStatus, L2Advertisement, ServiceL2Status, definitions,
};
use serde_json::{Value, json};

#[test]
fn the_committed_definitions_are_those_of_the_types() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    for (name, definition) in definitions() {
        let path = dir.join(format!("{name}.yaml"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let committed: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(committed, definition, "{name}: run: cargo xtask crds");
    }
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), definitions().len());
}

/// The facts are written by `cargo xtask crd-facts` from MetalLB's Go module.
#[test]
fn the_definitions_say_what_those_of_metallb_0_16_1_say() {
    let facts: Value = serde_json::from_str(include_str!("metallb-0.16.1-crds.json")).unwrap();
    assert_eq!(definitions().len(), facts.as_object().unwrap().len());
    for (name, mut ours) in definitions() {
        if name == "l2advertisements.metallb.io" {
            // A field of MetalLB's main branch.
            let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
            let field =
                ours.pointer_mut(spec).unwrap().as_object_mut().unwrap().remove("preferredNodeSelectors").unwrap();
            assert_eq!(field["items"]["required"], json!(["preference", "weight"]));
            let weight = json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 100});
            let mut differences = Vec::new();
            compare(&weight, &field["items"]["properties"]["weight"], String::new(), &mut differences);
            assert_eq!(differences, [""; 0]);
            assert_eq!(field["items"]["properties"]["preference"]["x-kubernetes-map-type"], json!("atomic"));
        }
        if name == "bgppeers.metallb.io" {
            // A patch of MetalLB's, outside of its module's definitions.
            let conversion = ours["spec"].as_object_mut().unwrap().remove("conversion").unwrap();
            assert_eq!(conversion["webhook"]["clientConfig"]["service"]["path"], "/convert");
        }
        let mut differences = Vec::new();
        compare(&facts[name], &ours, name.to_owned(), &mut differences);
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}

#[test]
fn objects_read_and_write_as_metallb_has_them() {
    let pool: IPAddressPool = read(json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": {"name": "p"},
        "spec": {"addresses": ["10.0.0.0/24"], "avoidBuggyIPs": true},
        "status": {"assignedIPv4": 1, "assignedIPv6": 0, "availableIPv4": 253, "availableIPv6": 0},
    }));
    let status = IPAddressPoolStatus { assigned_ipv4: 1, assigned_ipv6: 0, available_ipv4: 253, available_ipv6: 0 };
    assert_eq!((pool.spec.avoid_buggy_ips, pool.status), (Some(true), Some(status)));
    let status = read::<ServiceL2Status>(json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "ServiceL2Status", "metadata": {"generateName": "l2-"}, "spec": {},
        "status": {"node": "n", "serviceName": "s", "serviceNamespace": "d", "interfaces": [{"name": "eth0"}]},
    }));
    assert_eq!(status.status.unwrap().interfaces[0].name, "eth0");
    let state: ConfigurationState = read(json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "ConfigurationState", "metadata": {"name": "controller"},
        "status": {"result": "Valid", "conditions": [{
            "type": "poolReconcilerValid", "status": "True", "reason": "Reconciled", "message": "",
            "lastTransitionTime": "2026-11-21T12:00:00Z",
        }]},
    }));
    assert_eq!(state.status.unwrap().conditions.len(), 1);
    read::<L2Advertisement>(json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement", "metadata": {"name": "all"}, "spec": {},
    }));
    read::<Community>(json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "Community", "metadata": {"name": "c"},
        "spec": {"communities": [{"name": "no-export", "value": "65535:65281"}]},
    }));
}

/// Reads an object and checks that it is written as it was.
fn read<T: serde::Serialize + serde::de::DeserializeOwned>(value: Value) -> T {
    let object: T = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(serde_json::to_value(&object).unwrap(), value);
    object
}

fn compare(theirs: &Value, ours: &Value, at: String, differences: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            let names: std::collections::BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
            // Texts are ours; a field of that name is not a text.
            let is_text = |name: &str| ["description", "annotations"].contains(&name) && !at.ends_with(".properties");
            for name in names.into_iter().filter(|name| !is_text(name)) {
                let of = |fields: &serde_json::Map<String, Value>| fields.get(name).cloned().unwrap_or_default();
                compare(&of(theirs), &of(ours), format!("{at}.{name}"), differences);
            }
        }
        (Value::Number(theirs), Value::Number(ours)) if theirs.as_f64() == ours.as_f64() => {}
        (Value::Array(theirs), Value::Array(ours)) if theirs.len() == ours.len() && !is_set(&at) => {
            for (index, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
                compare(theirs, ours, format!("{at}[{index}]"), differences);
            }
        }
        (Value::Array(theirs), Value::Array(ours)) if is_set(&at) && sorted(theirs) == sorted(ours) => {}
        (theirs, ours) if theirs == ours => {}
        (theirs, ours) => differences.push(format!("{at}: theirs {theirs}, ours {ours}")),
    }
}

fn is_set(at: &str) -> bool {
    at.ends_with(".required") || at.ends_with(".enum")
}

fn sorted(values: &[Value]) -> Vec<String> {
    let mut values: Vec<String> = values.iter().map(ToString::to_string).collect();
    values.sort();
    values
}
