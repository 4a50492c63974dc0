//! `garpike owners`: prints the order of owners. Needs no cluster.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use garpike_election::{NodeName, ServiceIp, balanced_orders, order};
use garpike_speaker::Placement;
use serde_json::json;

/// Prints, for each address, the nodes in the order in which they would own it
///
/// The order is MetalLB's: SHA-256 of NODE#IP, lowest first. For a Service with several addresses, and for
/// Services that share one, the order of the first address of the oldest Service counts. With --placement balanced the
/// addresses given are taken for all that there are.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  garpike owners --nodes node-a,node-b,node-c 192.168.10.0 fc00:f853:ccd:e799::")]
pub(crate) struct Args {
    /// Names of the nodes, comma-separated
    #[arg(long, value_name = "NAME", value_delimiter = ',', required = true)]
    nodes: Vec<NodeName>,
    /// How owners are placed on nodes, as in "garpike speaker"
    #[arg(long, value_enum, default_value_t = Placement::Hash)]
    placement: Placement,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Service IPs
    #[arg(value_name = "IP", required = true)]
    ips: Vec<ServiceIp>,
}

#[derive(ValueEnum, Clone, Copy)]
enum Output {
    /// "IP first second ..." on a line each
    Text,
    /// [{"ip": IP, "order": [NAME, ...]}]
    Json,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let balanced = match args.placement {
        Placement::Hash => None,
        Placement::Balanced => Some(balanced_orders(&args.nodes, &args.ips)),
    };
    let orders = args.ips.iter().map(|ip| {
        let nodes: Vec<&NodeName> = match &balanced {
            None => order(&args.nodes, *ip),
            Some(orders) => orders.get(ip).into_iter().flatten().collect(),
        };
        (ip, nodes.into_iter().map(NodeName::as_str).collect::<Vec<_>>())
    });
    let mut out = std::io::stdout().lock();
    match args.output {
        Output::Text => {
            for (ip, order) in orders {
                writeln!(out, "{ip} {}", order.join(" "))?;
            }
        }
        Output::Json => {
            let orders: Vec<_> = orders.map(|(ip, order)| json!({ "ip": ip, "order": order })).collect();
            writeln!(out, "{}", serde_json::to_string_pretty(&orders)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
