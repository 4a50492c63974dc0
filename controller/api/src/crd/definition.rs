//! The definitions of the custom resources, as the API server is given them.
//!
//! The derived schemas say the same as MetalLB's in other words here and there (`nullable`, defaults of whole objects);
//! this brings them to the words of MetalLB's, so that a test can compare them one by one.

use kube::CustomResourceExt;
use schemars::Schema;
use serde_json::{Map, Value, json};

use super::{Community, ConfigurationState, IPAddressPool, L2Advertisement, ServiceL2Status};

/// The definitions by their names, in the order of these.
pub fn definitions() -> Vec<(&'static str, Value)> {
    vec![
        definition::<Community>(Spec::Optional),
        definition::<ConfigurationState>(Spec::Optional),
        definition::<IPAddressPool>(Spec::Required),
        definition::<L2Advertisement>(Spec::Optional),
        definition::<ServiceL2Status>(Spec::Optional),
    ]
}

/// Whether an object may be written without `spec`. The derived types want one, whoever reads objects adds it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spec {
    Required,
    Optional,
}

fn definition<T: CustomResourceExt>(spec: Spec) -> (&'static str, Value) {
    let mut crd = serde_json::to_value(T::crd()).expect("a definition is made of JSON values");
    if let Some(kind) = crd.pointer("/spec/names/kind").and_then(Value::as_str).map(str::to_owned)
        && let Some(names) = crd.pointer_mut("/spec/names").and_then(Value::as_object_mut)
    {
        names.insert("listKind".to_owned(), json!(format!("{kind}List")));
    }
    if let Some(root) = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema").and_then(Value::as_object_mut) {
        root.remove("title");
        if spec == Spec::Optional {
            root.remove("required");
        }
        if let Some(properties) = root.get_mut("properties").and_then(Value::as_object_mut) {
            // The API server knows these; editors and `kubectl explain` want to see them.
            for (name, of) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
                properties.insert(name.to_owned(), json!({ "type": of }));
            }
        }
        tidy(root);
    }
    (T::crd_name(), crd)
}

/// Leaves out what MetalLB's schemas do not say, in `schema` and all that are in it.
fn tidy(schema: &mut Map<String, Value>) {
    schema.remove("nullable");
    if is_label_selector(schema) {
        schema.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
        for list in ["/matchExpressions", "/matchExpressions/items/properties/values"] {
            let list = schema.get_mut("properties").and_then(|properties| properties.pointer_mut(list));
            if let Some(list) = list.and_then(Value::as_object_mut) {
                list.insert("x-kubernetes-list-type".to_owned(), json!("atomic"));
            }
        }
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().filter_map(Value::as_object_mut).for_each(tidy);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(inner).and_then(Value::as_object_mut) {
            tidy(inner);
        }
    }
}

fn is_label_selector(schema: &Map<String, Value>) -> bool {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties
        .is_some_and(|all| all.len() == 2 && all.contains_key("matchExpressions") && all.contains_key("matchLabels"))
}

/// For numbers whose size MetalLB's schema leaves open.
pub(super) fn without_format(schema: &mut Schema) {
    schema.remove("format");
}
