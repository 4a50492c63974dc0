//! Garpike as it is installed in a cluster: definitions, rights, a namespace, controllers.
//!
//! Several installations live side by side in one API server, each in a namespace of its own and with a load balancer
//! class of its own. Their rights are those of `deploy/manifests/rbac.yaml`, in another namespace.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use garpike_controller_api::definitions;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};
use thiserror::Error;

use super::api_server::{ApiServer, ApiServerError, Server};
use super::controller::Controller;
use super::ports::free_address;

/// A namespace with the rights of a controller.
pub struct Installation<'a> {
    server: &'a ApiServer,
    program: PathBuf,
    namespace: String,
    class: Option<String>,
}

/// Writes the definitions of the custom resources, and waits until objects of them can be read.
///
/// # Errors
///
/// When the API server refuses one.
pub async fn define(server: &ApiServer) -> Result<(), InstallError> {
    let api: Api<CustomResourceDefinition> = Api::all(server.client());
    for (name, definition) in definitions() {
        api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&definition)).await?;
    }
    for (name, _) in definitions() {
        while !is_served(server.client(), &api.get(name).await?).await? {
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

impl<'a> Installation<'a> {
    /// Makes the namespace and gives the rights. `program` is the binary whose controllers run in it; they look after
    /// Services of this class, or of none.
    ///
    /// # Errors
    ///
    /// When the API server refuses an object.
    pub async fn install(
        server: &'a ApiServer,
        program: &Path,
        namespace: &str,
        class: Option<&str>,
    ) -> Result<Self, InstallError> {
        let client = server.client();
        let of_namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        apply(&client, &of_namespace).await?;
        for object in rights(RBAC, namespace)? {
            apply(&client, &object).await?;
        }
        let deployment = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "controller", "namespace": namespace},
            "spec": {
                "selector": {"matchLabels": labels()},
                "template": pod_template(IMAGE),
            },
        });
        apply(&client, &deployment).await?;
        Ok(Self {
            server,
            program: program.to_owned(),
            namespace: namespace.to_owned(),
            class: class.map(ToOwned::to_owned),
        })
    }

    /// Where it is.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Takes a right away from the controller: what names this resource, in all its roles.
    ///
    /// # Errors
    ///
    /// When the API server refuses the change.
    pub async fn without_right(&self, resource: &str) -> Result<(), InstallError> {
        for mut object in rights(RBAC, &self.namespace)? {
            // A role for the whole cluster is that of the other installations too.
            if kind_of(&object) != "Role" {
                continue;
            }
            let rules = object.pointer_mut("/rules").and_then(Value::as_array_mut).into_iter();
            for rules in rules {
                rules.retain_mut(|rule| {
                    let named = rule.pointer_mut("/resources").and_then(Value::as_array_mut);
                    named.is_none_or(|named| {
                        named.retain(|named| named != resource);
                        !named.is_empty()
                    })
                });
            }
            apply(&self.server.client(), &object).await?;
        }
        Ok(())
    }

    /// Gives the rights that `--dead-node-hint=on` needs beside.
    ///
    /// # Errors
    ///
    /// When the API server refuses an object.
    pub async fn allow_dead_node_hint(&self) -> Result<(), InstallError> {
        for object in rights(RBAC_OF_HINT, &self.namespace)? {
            apply(&self.server.client(), &object).await?;
        }
        Ok(())
    }

    /// Starts a controller, as the pod `name`. It serves no webhook, and metrics to everybody, unless the
    /// arguments say otherwise.
    ///
    /// # Errors
    ///
    /// When the pod cannot be written, or the program cannot be started.
    pub async fn start(&self, name: &str, arguments: &[&str]) -> Result<Controller, InstallError> {
        self.start_before(Server::Itself, name, arguments).await
    }

    /// Starts a controller that talks to `server`.
    ///
    /// # Errors
    ///
    /// When the pod cannot be written, or the program cannot be started.
    pub async fn start_before(
        &self,
        server: Server<'_>,
        name: &str,
        arguments: &[&str],
    ) -> Result<Controller, InstallError> {
        self.run_pod(name, &[("garpike.io/program", "controller")], IMAGE).await?;
        let kubeconfig = self.server.kubeconfig_of(&self.namespace, "controller", server).await?;
        let port = || free_address(Ipv4Addr::LOCALHOST).map(|address| address.port());
        let (health, metrics) = (port()?, port()?);
        let mut command = Command::new(&self.program);
        command.arg("controller").arg("--kubeconfig").arg(kubeconfig);
        command.args(["--namespace", &self.namespace, "--pod-name", name, "--deployment", "controller"]);
        command.args(["--ml-secret-name", "memberlist"]);
        // The webhook listens on a port that is the same for all.
        for default in [["--webhook-mode", "disabled"], ["--metrics-auth", "none"]] {
            if !arguments.contains(&default[0]) {
                command.args(default);
            }
        }
        command.args(["--health-probe-port", &health.to_string(), "--port", &metrics.to_string()]);
        if let Some(class) = &self.class {
            command.args(["--lb-class", class]);
        }
        command.args(arguments);
        let log = self.server.scratch().join(format!("{}-{name}.log", self.namespace));
        Ok(Controller::spawn(command, &log, health, metrics)?)
    }

    /// Writes a running pod with the labels of a controller, MetalLB's and `more`.
    ///
    /// # Errors
    ///
    /// When the API server refuses it.
    pub async fn run_pod(&self, name: &str, more: &[(&str, &str)], image: &str) -> Result<(), InstallError> {
        let api: Api<Pod> = Api::namespaced(self.server.client(), &self.namespace);
        let mut pod = pod_template(image);
        let fields = [("/apiVersion", "v1"), ("/kind", "Pod"), ("/metadata/name", name), ("/spec/nodeName", "n1")];
        for (pointer, value) in fields {
            put(&mut pod, pointer, json!(value));
        }
        for (key, value) in more {
            if let Some(labels) = pod.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
                labels.insert((*key).to_owned(), json!(value));
            }
        }
        let pod: Pod = serde_json::from_value(pod).map_err(InstallError::Manifest)?;
        match api.create(&PostParams::default(), &pod).await {
            Ok(_) => {}
            // A controller that is started again is the same pod.
            Err(kube::Error::Api(status)) if status.code == 409 => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let running = json!({"status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "controller", "image": image, "imageID": image, "ready": true, "restartCount": 0,
                "started": true, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            }],
        }});
        api.patch_status(name, &PatchParams::default(), &Patch::Strategic(running)).await?;
        Ok(())
    }
}

/// Why something is not installed.
#[derive(Debug, Error)]
pub enum InstallError {
    /// The API server said no.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// There is no token.
    #[error(transparent)]
    Server(#[from] ApiServerError),
    /// A manifest of ours is none.
    #[error("a manifest cannot be read")]
    Manifest(#[source] serde_json::Error),
    /// A file of rights is no YAML.
    #[error("the rights in deploy cannot be read: {0}")]
    Rights(String),
    /// The program could not be started.
    #[error("cannot start the controller")]
    Start(#[from] io::Error),
}

/// Writes an object, whatever there is.
///
/// # Errors
///
/// When the API server refuses it.
pub async fn apply(client: &Client, object: &Value) -> Result<DynamicObject, InstallError> {
    let (api, name) = api_of(client, object);
    Ok(api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await?)
}

/// Writes the status of an object that is there, as who runs it would.
///
/// # Errors
///
/// When the API server refuses it.
pub async fn apply_status(client: &Client, object: &Value) -> Result<(), InstallError> {
    let (api, name) = api_of(client, object);
    api.patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await?;
    Ok(())
}

/// The API of the object's kind and namespace, and its name.
fn api_of<'a>(client: &Client, object: &'a Value) -> (Api<DynamicObject>, &'a str) {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let api_version = text("/apiVersion");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("/kind")));
    let api = match text("/metadata/namespace") {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    };
    (api, text("/metadata/name"))
}

/// The objects of a file of rights for another namespace than `metallb-system`. The cluster roles are the same everywhere.
fn rights(file: &str, namespace: &str) -> Result<Vec<Value>, InstallError> {
    let mut objects = Vec::new();
    for document in file.split("\n---\n") {
        let mut object: Value =
            serde_saphyr::from_str(document).map_err(|error| InstallError::Rights(error.to_string()))?;
        for pointer in ["/metadata/namespace", "/subjects/0/namespace", "/subjects/1/namespace"] {
            if let Some(named) = object.pointer_mut(pointer) {
                *named = json!(namespace);
            }
        }
        if kind_of(&object) == "ClusterRoleBinding"
            && let Some(name) = object.pointer_mut("/metadata/name")
        {
            let of_namespace = name.as_str().unwrap_or_default().replacen("metallb-system", namespace, 1);
            *name = json!(of_namespace);
        }
        objects.push(object);
    }
    Ok(objects)
}

fn pod_template(image: &str) -> Value {
    json!({
        "metadata": {"labels": labels()},
        "spec": {"containers": [{"name": "controller", "image": image}]},
    })
}

fn kind_of(object: &Value) -> &str {
    object.get("kind").and_then(Value::as_str).unwrap_or_default()
}

/// Sets a field of an object, which need not be there yet.
fn put(object: &mut Value, pointer: &str, value: Value) {
    let (parent, field) = pointer.rsplit_once('/').expect("pointers begin with a slash");
    if let Some(parent) = object.pointer_mut(parent).and_then(Value::as_object_mut) {
        parent.insert(field.to_owned(), value);
    }
}

/// Those that MetalLB's manifests give the controller.
fn labels() -> Value {
    json!({"app": "metallb", "component": "controller"})
}

/// Whether objects of the kind can be listed: for a moment after it is established they cannot.
async fn is_served(client: Client, definition: &CustomResourceDefinition) -> Result<bool, InstallError> {
    let conditions = definition.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    if !conditions.into_iter().any(|condition| condition.type_ == "Established" && condition.status == "True") {
        return Ok(false);
    }
    let spec = &definition.spec;
    for version in spec.versions.iter().filter(|version| version.served) {
        let resource = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk(&spec.group, &version.name, &spec.names.kind),
            &spec.names.plural,
        );
        match Api::<DynamicObject>::all_with(client.clone(), &resource).list(&ListParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 429 | 503) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

const RBAC: &str = include_str!("../../../deploy/manifests/rbac.yaml");
const RBAC_OF_HINT: &str = include_str!("../../../deploy/overlays/dead-node-hint/rbac.yaml");
const IMAGE: &str = "garpike:lab";
const MANAGER: &str = "garpike-lab";
const POLL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rights_of_another_namespace_name_nothing_of_the_first() {
        let objects = [rights(RBAC, "some").unwrap(), rights(RBAC_OF_HINT, "some").unwrap()].concat();

        let kinds: Vec<&str> = objects.iter().filter_map(|object| object["kind"].as_str()).collect();
        assert_eq!(kinds.iter().filter(|kind| **kind == "ServiceAccount").count(), 2);
        for object in &objects {
            let mut object = object.clone();
            if object["kind"] == "ClusterRole" {
                continue;
            }
            object["roleRef"] = Value::Null;
            assert!(!object.to_string().contains("metallb-system"), "{object}");
        }
    }

    #[test]
    fn nobody_may_do_everything() {
        for object in [rights(RBAC, "some").unwrap(), rights(RBAC_OF_HINT, "some").unwrap()].concat() {
            for rule in object["rules"].as_array().into_iter().flatten() {
                assert!(!rule.to_string().contains("\"*\""), "{rule}");
            }
        }
    }
}
