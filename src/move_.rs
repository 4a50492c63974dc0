//! `garpike move`: chooses the owner of an address for a while.

use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use garpike_controller::overrides::Request;
use garpike_controller_api::ChosenOwner;
use garpike_election::{NodeName, ServiceIp};

use crate::overrides::{Target, duration, now};

/// Moves an address, and all that share Services with it, to a node for a while
///
/// The address stays there until the time is over, the node dies, or it is drained. Without Kubernetes: writes
/// DIR/garpike-overrides.yaml; the files that people wrote are never changed. Exit status 1, and nothing written, if the
/// node cannot answer for the address. Some switches freeze an address that moves five times within three minutes.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  garpike move 192.168.10.0 node-b --for 2h\n  garpike move 192.168.10.0 node-b --manifests /etc/garpike --for 2h --wait 10s\n  \
                        garpike move 192.168.10.0 --end --manifests /etc/garpike"
)]
pub(crate) struct Args {
    /// The service IP
    #[arg(value_name = "IP")]
    ip: ServiceIp,
    /// The node that is to own it
    #[arg(value_name = "NODE", required_unless_present = "end", conflicts_with = "end")]
    node: Option<NodeName>,
    /// How long
    #[arg(long = "for", value_name = "DURATION", default_value = "1h", value_parser = lifetime)]
    lifetime: Duration,
    /// End the move: the address goes back to where it would be
    #[arg(long)]
    end: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let request = match &args.node {
        None => Request::EndMove(args.ip),
        Some(node) => {
            let since = now().duration_since(UNIX_EPOCH).context("the clock of this host is before 1970")?;
            // Whole seconds: people read it in the file.
            let until = UNIX_EPOCH + Duration::from_secs((since + args.lifetime).as_secs());
            Request::Move { ip: args.ip, chosen: ChosenOwner { node: node.clone(), until } }
        }
    };
    args.target.carry_out(&request)
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = duration(text)?;
    if !(SHORTEST..=LONGEST).contains(&lifetime) {
        return Err(format!(
            "\"{text}\" is not between 10 s and 30 days; let spec.nodeSelectors of an L2Advertisement select the node for longer"
        ));
    }
    Ok(lifetime)
}

/// Chosen: clocks of hosts differ by seconds.
const SHORTEST: Duration = Duration::from_secs(10);
/// Chosen: what lasts longer is no measure of an operator.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);
