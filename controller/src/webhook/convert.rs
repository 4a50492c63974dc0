//! BGPPeers of version v1beta1 as v1beta2 and the other way round, for the API server.
//!
//! As MetalLB converts: what only v1beta2 has is lost on the way to v1beta1.

use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    api_version: String,
    request: Request,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    #[serde(rename = "desiredAPIVersion")]
    desired_api_version: String,
    #[serde(default)]
    objects: Vec<Value>,
}

/// Answers a ConversionReview.
///
/// # Errors
///
/// When `body` is none.
pub(super) fn answer(body: &[u8]) -> Result<Value, serde_json::Error> {
    let Asked { api_version, request } = serde_json::from_slice(body)?;
    let version = &request.desired_api_version;
    let converted: Result<Vec<Value>, String> =
        request.objects.into_iter().map(|object| convert(object, version)).collect();
    let response = match converted {
        Ok(objects) => json!({"uid": request.uid, "result": {"status": "Success"}, "convertedObjects": objects}),
        Err(message) => json!({"uid": request.uid, "result": {"status": "Failure", "message": message}}),
    };
    // The version of the question: MetalLB's definition names none that the API server prefers, which then asks in v1beta1.
    Ok(json!({"apiVersion": api_version, "kind": "ConversionReview", "response": response}))
}

fn convert(mut object: Value, version: &str) -> Result<Value, String> {
    let from = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    if kind != "BGPPeer" {
        return Err(format!("\"{kind}\" is not converted; only BGPPeer has two versions"));
    }
    let spec = object.get_mut("spec").and_then(Value::as_object_mut);
    match (from.as_str(), version, spec) {
        ("metallb.io/v1beta1", "metallb.io/v1beta2", Some(spec)) => to_new(spec),
        ("metallb.io/v1beta2", "metallb.io/v1beta1", Some(spec)) => to_old(spec),
        ("metallb.io/v1beta1" | "metallb.io/v1beta2", "metallb.io/v1beta1" | "metallb.io/v1beta2", _) => {}
        _ => return Err(format!("\"{from}\" is not converted to \"{version}\"")),
    }
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), json!(version));
    }
    Ok(object)
}

fn to_new(spec: &mut Map<String, Value>) {
    // There, 0 stands for the usual port.
    if spec.get("peerPort") == Some(&json!(0)) {
        spec.remove("peerPort");
    }
}

fn to_old(spec: &mut Map<String, Value>) {
    spec.retain(|name, _| OLD_FIELDS.contains(&name.as_str()));
    // Required there.
    for (name, absent) in [("peerASN", json!(0)), ("peerAddress", json!(""))] {
        spec.entry(name).or_insert(absent);
    }
    let selectors = spec.get_mut("nodeSelectors").and_then(Value::as_array_mut);
    for selector in selectors.into_iter().flatten() {
        let expressions = selector.get_mut("matchExpressions").and_then(Value::as_array_mut);
        for expression in expressions.into_iter().flatten().filter_map(Value::as_object_mut) {
            expression.entry("values").or_insert_with(|| json!([]));
        }
    }
}

/// The fields of v1beta1.
const OLD_FIELDS: [&str; 12] = [
    "bfdProfile",
    "ebgpMultiHop",
    "holdTime",
    "keepaliveTime",
    "myASN",
    "nodeSelectors",
    "password",
    "peerASN",
    "peerAddress",
    "peerPort",
    "routerID",
    "sourceAddress",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_becomes_one_of_the_other_version_and_back() {
        let spec = json!({"myASN": 1, "peerASN": 2, "peerAddress": "10.0.0.1", "peerPort": 180});
        let old =
            json!({"apiVersion": "metallb.io/v1beta1", "kind": "BGPPeer", "metadata": {"name": "p"}, "spec": spec});
        let new = convert(old.clone(), "metallb.io/v1beta2").unwrap();

        assert_eq!(new["apiVersion"], "metallb.io/v1beta2");
        assert_eq!((&new["spec"], &new["metadata"]), (&spec, &old["metadata"]));
        assert_eq!(convert(new, "metallb.io/v1beta1").unwrap(), old);
    }

    #[test]
    fn what_only_the_new_version_has_is_lost() {
        let spec = json!({
            "myASN": 1, "dynamicASN": "internal", "interface": "eth0", "vrf": "red", "dualStackAddressFamily": false,
            "nodeSelectors": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}],
        });
        let new =
            json!({"apiVersion": "metallb.io/v1beta2", "kind": "BGPPeer", "metadata": {"name": "p"}, "spec": spec});
        let old = convert(new, "metallb.io/v1beta1").unwrap();

        let expressions = json!([{"key": "a", "operator": "Exists", "values": []}]);
        let spec =
            json!({"myASN": 1, "peerASN": 0, "peerAddress": "", "nodeSelectors": [{"matchExpressions": expressions}]});
        assert_eq!(old["spec"], spec);
    }

    #[test]
    fn the_answer_names_the_question_and_what_cannot_be_converted() {
        let ask = |kind: &str| {
            let object =
                json!({"apiVersion": "metallb.io/v1beta1", "kind": kind, "metadata": {}, "spec": {"peerPort": 0}});
            let request = json!({"uid": "u", "desiredAPIVersion": "metallb.io/v1beta2", "objects": [object]});
            let review =
                json!({"apiVersion": "apiextensions.k8s.io/v1beta1", "kind": "ConversionReview", "request": request});
            let answer = answer(review.to_string().as_bytes()).unwrap();
            assert_eq!(answer["apiVersion"], review["apiVersion"]);
            answer["response"].clone()
        };
        let done = ask("BGPPeer");

        assert_eq!((&done["uid"], &done["result"]["status"]), (&json!("u"), &json!("Success")));
        assert_eq!(done["convertedObjects"][0]["spec"], json!({}));
        assert_eq!(ask("Community")["result"]["status"], "Failure");
        assert!(answer(b"{}").is_err());
    }
}
