//! What `kubectl apply` is given: our programs know their arguments, and MetalLB's objects can be replaced by it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests panic on bad fixtures")]

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

#[test]
fn our_programs_take_the_arguments_that_they_are_given() {
    for workload in [CONTROLLER, SPEAKER] {
        let args = container(workload)["args"].as_array().unwrap().clone();
        let args: Vec<&str> = args.iter().map(|arg| arg.as_str().unwrap()).collect();

        // What comes before --help is judged first.
        let output = Command::new(env!("CARGO_BIN_EXE_garpike")).args(&args).arg("--help").output().unwrap();

        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {stderr}");
    }
}

#[test]
fn selectors_are_those_of_metallb_because_they_cannot_be_changed() {
    for (workload, component) in [(CONTROLLER, "controller"), (SPEAKER, "speaker")] {
        let workload = &documents(workload)[0];

        let selector = &workload["spec"]["selector"]["matchLabels"];
        let labels = workload["spec"]["template"]["metadata"]["labels"].as_object().unwrap().clone();

        assert_eq!(workload["metadata"]["name"], component);
        assert_eq!(*selector, json!({ "app": "metallb", "component": component }));
        for (name, value) in selector.as_object().unwrap() {
            assert_eq!(labels.get(name), Some(value));
        }
        assert_eq!(labels.get("garpike.io/program"), Some(&json!(component)));
    }
}

#[test]
fn pods_have_no_right_that_they_do_not_use() {
    for (workload, added) in [(CONTROLLER, json!(null)), (SPEAKER, json!(["NET_RAW"]))] {
        let container = container(workload);
        let pod = documents(workload)[0]["spec"]["template"]["spec"].clone();

        assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
        assert_eq!(container["securityContext"]["capabilities"]["add"], added);
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
        assert_eq!(pod["securityContext"]["runAsUser"], 65532);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    }
}

#[test]
fn no_object_is_there_twice_and_every_account_exists() {
    let all = documents(include_str!("../deploy/manifests/garpike.yaml"));

    let name = |object: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&object["kind"]), text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
    };
    let names: BTreeSet<_> = all.iter().map(name).collect();

    assert_eq!(names.len(), all.len());
    for account in ["controller", "speaker"] {
        let account = ("ServiceAccount".to_owned(), "metallb-system".to_owned(), account.to_owned());
        assert!(names.contains(&account), "{account:?}");
    }
}

fn container(workload: &str) -> Value {
    documents(workload)[0]["spec"]["template"]["spec"]["containers"][0].clone()
}

fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap()
}

const CONTROLLER: &str = include_str!("../deploy/manifests/controller.yaml");
const SPEAKER: &str = include_str!("../deploy/manifests/speaker.yaml");
