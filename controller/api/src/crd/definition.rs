//! The definitions of the custom resources, as the API server is given them.
//!
//! The derived schemas say the same as MetalLB's in other words here and there (`nullable`, defaults of whole objects);
//! this brings them to the words of MetalLB's, so that a test can compare them one by one.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use kube::core::crd::merge_crds;
use schemars::Schema;
use serde_json::{Map, Value, json};

use super::{
    BFDProfile, BGPAdvertisement, BGPPeer, Community, ConfigurationState, IPAddressPool, L2Advertisement, OldBGPPeer,
    ServiceBGPStatus, ServiceL2Status,
};

/// The definitions by their names, in the order of these.
pub fn definitions() -> Vec<(&'static str, Value)> {
    vec![
        definition::<BFDProfile>(Spec::Optional),
        definition::<BGPAdvertisement>(Spec::Optional),
        peers(),
        definition::<Community>(Spec::Optional),
        definition::<ConfigurationState>(Spec::Optional),
        definition::<IPAddressPool>(Spec::Required),
        definition::<L2Advertisement>(Spec::Optional),
        definition::<ServiceBGPStatus>(Spec::Optional),
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
    (T::crd_name(), in_the_words_of_metallb(T::crd(), spec))
}

/// The one kind with two versions, which the webhook turns into each other.
fn peers() -> (&'static str, Value) {
    let versions = vec![OldBGPPeer::crd(), BGPPeer::crd()];
    let merged = merge_crds(versions, "v1beta2").expect("both are versions of one kind");
    let mut crd = in_the_words_of_metallb(merged, Spec::Optional);
    if let Some(versions) = crd.pointer_mut("/spec/versions").and_then(Value::as_array_mut) {
        versions.sort_by_key(|version| version.get("name").map(ToString::to_string));
    }
    if let Some(spec) = crd.get_mut("spec").and_then(Value::as_object_mut) {
        let service = json!({"name": "metallb-webhook-service", "namespace": "metallb-system", "path": "/convert"});
        let webhook = json!({
            "clientConfig": {"service": service},
            "conversionReviewVersions": ["v1beta1", "v1beta2"],
        });
        spec.insert("conversion".to_owned(), json!({"strategy": "Webhook", "webhook": webhook}));
    }
    (BGPPeer::crd_name(), crd)
}

fn in_the_words_of_metallb(crd: CustomResourceDefinition, spec: Spec) -> Value {
    let mut crd = serde_json::to_value(crd).expect("a definition is made of JSON values");
    if let Some(kind) = crd.pointer("/spec/names/kind").and_then(Value::as_str).map(str::to_owned)
        && let Some(names) = crd.pointer_mut("/spec/names").and_then(Value::as_object_mut)
    {
        names.insert("listKind".to_owned(), json!(format!("{kind}List")));
    }
    let versions = crd.pointer_mut("/spec/versions").and_then(Value::as_array_mut);
    for version in versions.into_iter().flatten() {
        let Some(root) = version.pointer_mut("/schema/openAPIV3Schema").and_then(Value::as_object_mut) else {
            continue;
        };
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
    crd
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

/// Whether it is Kubernetes' selector; that of an old BGPPeer wants values in each expression.
fn is_label_selector(schema: &Map<String, Value>) -> bool {
    let Some(properties) = schema.get("properties") else { return false };
    let has = |name: &str| properties.get(name).is_some();
    let old = properties.pointer("/matchExpressions/items/properties/values/minItems").is_some();
    has("matchExpressions") && has("matchLabels") && properties.as_object().is_some_and(|all| all.len() == 2) && !old
}

/// For what must not change once it is written.
pub(super) fn immutable(schema: &mut Schema) {
    let rule = json!([{ "message": "Value is immutable", "rule": "self == oldSelf" }]);
    schema.insert("x-kubernetes-validations".to_owned(), rule);
}

/// For numbers whose size MetalLB's schema leaves open.
pub(super) fn without_format(schema: &mut Schema) {
    schema.remove("format");
}
