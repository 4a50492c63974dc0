//! `garpike explain`: who owns an address, and why.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Result, bail};
use garpike_election::{NodeName, Presence, ServiceIp, Spread};
use garpike_speaker::Decision;
use serde_json::json;

use crate::state::{AddressSeen, Seen, Where};
use crate::status::{Output, handicap_text};

/// Says who owns an address, why, who would be next, and what happened to it before
///
/// Exit status 1 if it has no owner.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  garpike explain 192.168.10.0\n  garpike explain default/web")]
pub(crate) struct Args {
    /// The service IP, or a Service as NAMESPACE/NAME
    #[arg(value_name = "IP|SERVICE")]
    subject: String,
    #[command(flatten)]
    at: Where,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let seen = Seen::parse(&args.at.state()?)?;
    let subject = args.subject.as_str();
    let ip: Option<ServiceIp> = subject.parse().ok();
    let service = if subject.contains('/') { subject.to_owned() } else { format!("default/{subject}") };
    let is_meant = |(of, address): &(&ServiceIp, &AddressSeen)| match ip {
        Some(ip) => **of == ip,
        None => address.services.contains(&service),
    };
    let meant: Vec<(&ServiceIp, &AddressSeen)> = seen.addresses.iter().filter(is_meant).collect();
    if meant.is_empty() {
        let problem = seen.problems.iter().find(|problem| problem.contains(subject));
        match (problem, ip) {
            (Some(problem), _) => bail!("nobody answers for it: {problem}"),
            (None, Some(ip)) => bail!("no Service holds {ip}; \"garpike status\" lists the addresses"),
            (None, None) => bail!("Service {service} has no address; \"kubectl describe service\" says why"),
        }
    }
    let mut out = io::stdout().lock();
    match args.output {
        Output::Text => {
            for (ip, address) in &meant {
                tell(&mut out, &seen, **ip, address)?;
            }
        }
        Output::Json => {
            let parts = meant.iter().map(|(ip, address)| {
                json!({
                    "ip": ip, "services": address.services, "owner": seen.owners.get(ip), "candidates": address.candidates,
                    "stand_in": address.stand_in, "unowned": address.unowned, "mend": address.mend, "seen_by": seen.node,
                    "placement": seen.placement.as_str(),
                    "decisions": seen.decisions.iter().filter(|decision| decision.ip == **ip).collect::<Vec<_>>(),
                })
            });
            writeln!(out, "{}", serde_json::to_string_pretty(&parts.collect::<Vec<_>>())?)?;
        }
    }
    let is_owned = meant.iter().all(|(_, address)| address.unowned.is_none());
    Ok(if is_owned { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(out: &mut impl Write, seen: &Seen, ip: ServiceIp, address: &AddressSeen) -> io::Result<()> {
    writeln!(out, "{ip} belongs to Service {}", address.services.join(", "))?;
    if let Some(reason) = &address.unowned {
        writeln!(out, "  nobody owns it: {reason}; {}", address.mend.as_deref().unwrap_or_default())?;
    }
    for moved in seen.moves.iter().filter(|moved| moved.addresses.contains(&ip)) {
        writeln!(out, "  {} was chosen by {} until {}", moved.to, moved.by, moved.until)?;
    }
    for (rank, node) in address.candidates.iter().enumerate() {
        let part = if rank == 0 { "owns it".to_owned() } else { format!("heir {rank}") };
        writeln!(out, "  {node}: {part}{}", condition(seen, node))?;
    }
    if let Some(stand_in) = &address.stand_in {
        writeln!(out, "  {stand_in} answers meanwhile, with the owner's MAC")?;
    }
    let others = seen.members.iter().filter(|member| !address.candidates.contains(&member.name));
    for member in others {
        let state = condition(seen, &member.name);
        writeln!(out, "  {}: may not own it{state}", member.name)?;
    }
    let decisions: Vec<&Decision> = seen.decisions.iter().filter(|decision| decision.ip == ip).collect();
    for Decision { at, from, to, cause, .. } in decisions.iter().skip(decisions.len().saturating_sub(LAST)) {
        let name = |node: &Option<NodeName>| node.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
        writeln!(out, "  {at}  {} -> {}: {cause}", name(from), name(to))?;
    }
    let decides = match seen.placement {
        Spread::Hash => "placement hash: between nodes of one rank the hash of node and address decides",
        Spread::Balanced => "placement balanced: between nodes of one rank even numbers decide, then the hash",
    };
    writeln!(out, "  as seen by {}; {decides}", seen.node)
}

/// What keeps a node from the first rank, if anything does.
fn condition(seen: &Seen, node: &NodeName) -> String {
    let Some(member) = seen.members.iter().find(|member| member.name == *node) else { return String::new() };
    let mut text = format!(", {}", member.state.as_str());
    match member.presence {
        Presence::Here => {}
        Presence::Away => text.push_str(", its speaker is away"),
    }
    for handicap in &member.handicaps {
        text.push_str(", ");
        text.push_str(handicap_text(*handicap));
    }
    text
}

/// Chosen: a screen of lines.
const LAST: usize = 10;
