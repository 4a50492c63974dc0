//! `garpike owners`: prints the order of owners. Needs no cluster.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use garpike_election::{NodeName, ServiceIp, order};
use serde_json::json;

/// Prints, for each address, the nodes in the order in which they would own it
///
/// The order is MetalLB's: SHA-256 of NODE#IP, lowest first. For a Service with several addresses, and for
/// Services that share one, the order of the first address of the oldest Service counts.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  garpike owners --nodes node-a,node-b,node-c 192.168.10.0 fc00:f853:ccd:e799::")]
pub(crate) struct Args {
    /// Names of the nodes, comma-separated
    #[arg(long, value_name = "NAME", value_delimiter = ',', required = true)]
    nodes: Vec<NodeName>,
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
    let orders = args.ips.iter().map(|ip| {
        let order: Vec<&str> = order(&args.nodes, *ip).into_iter().map(NodeName::as_str).collect();
        (ip, order)
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
