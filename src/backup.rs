//! `garpike backup`: everything of metallb.io that people wrote, as YAML.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use garpike_controller_api::legacy::render;
use kube::api::{DynamicObject, ListParams};
use kube::discovery::{Scope, verbs};
use kube::{Api, Discovery};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::state::Where;

/// Prints every object of metallb.io in the cluster as YAML that `kubectl apply` takes
///
/// Pools, advertisements, peers and all other kinds, of every namespace; not what programs write themselves (status,
/// ServiceL2Status, ServiceBGPStatus, ConfigurationState). Deleting the CRDs deletes these objects: keep a copy.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  garpike backup > metallb-objects.yaml")]
pub(crate) struct Args {
    #[command(flatten)]
    at: Where,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let objects = args.at.in_cluster(async |cluster| read(cluster).await)?;
    let text = render(&objects).context("the objects cannot be written as YAML")?;
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

async fn read(cluster: &Cluster) -> Result<Vec<Value>> {
    let discovery = Discovery::new(cluster.client.clone()).filter(&[GROUP]).run().await;
    let discovery = discovery.context("cannot ask the cluster for its kinds")?;
    let mut objects = Vec::new();
    for (resource, capabilities) in discovery.groups().flat_map(|group| group.recommended_resources()) {
        if capabilities.scope != Scope::Namespaced
            || !capabilities.supports_operation(verbs::LIST)
            || WRITTEN_BY_PROGRAMS.contains(&resource.kind.as_str())
        {
            continue;
        }
        let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
        let listed = api.list(&ListParams::default()).await;
        let listed = listed.with_context(|| format!("cannot list {} objects", resource.kind))?;
        for mut object in listed.items {
            let metadata = &mut object.metadata;
            metadata.managed_fields = None;
            metadata.uid = None;
            metadata.resource_version = None;
            metadata.creation_timestamp = None;
            metadata.generation = None;
            metadata.owner_references = None;
            if let Some(annotations) = &mut metadata.annotations {
                annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
            }
            let mut value = serde_json::to_value(&object)?;
            if let Value::Object(fields) = &mut value {
                fields.remove("status");
                // A list leaves them out of its items.
                fields.insert("apiVersion".to_owned(), resource.api_version.clone().into());
                fields.insert("kind".to_owned(), resource.kind.clone().into());
            }
            objects.push(value);
        }
    }
    Ok(objects)
}

const GROUP: &str = "metallb.io";
const WRITTEN_BY_PROGRAMS: [&str; 3] = ["ServiceL2Status", "ServiceBGPStatus", "ConfigurationState"];
