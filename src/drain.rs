//! `garpike drain` and `garpike undrain`: takes the addresses of a node elsewhere, and gives them back.

use std::process::ExitCode;

use anyhow::Result;
use garpike_controller::overrides::Request;
use garpike_election::NodeName;

use crate::overrides::Target;

/// Moves all addresses of a node to other nodes, and keeps them there until `undrain`
///
/// In a cluster: annotates the Node. Without Kubernetes (--manifests): writes DIR/garpike-overrides.yaml; the files
/// that people wrote are never changed. The new owners
/// announce first, the node serves on until then: no connection is lost. Exit status 1, and nothing written, if an
/// address would be left without a node that answers for it.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  garpike drain node-a --wait 10s\n  garpike drain node-a --manifests /etc/garpike --wait 10s\n  \
                        garpike drain node-a --manifests /etc/garpike -o json"
)]
pub(crate) struct Drain {
    /// The node
    #[arg(value_name = "NODE")]
    node: NodeName,
    #[command(flatten)]
    target: Target,
}

/// Ends the drain of a node: the addresses that are its own by the hash come back at once
#[derive(clap::Args)]
#[command(after_help = "Example:\n  garpike undrain node-a --manifests /etc/garpike --wait 10s")]
pub(crate) struct Undrain {
    /// The node
    #[arg(value_name = "NODE")]
    node: NodeName,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn drain(args: &Drain) -> Result<ExitCode> {
    args.target.carry_out(&Request::Drain(args.node.clone()))
}

pub(crate) fn undrain(args: &Undrain) -> Result<ExitCode> {
    args.target.carry_out(&Request::Undrain(args.node.clone()))
}
