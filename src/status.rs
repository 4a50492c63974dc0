//! `garpike status`: who lives, who owns what, and what is wrong.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use garpike_election::{Handicap, NodeName, Presence};
use garpike_speaker::FindingState;

use crate::state::{Seen, Where};

/// Shows the nodes, the addresses and their owners, and what is wrong, as one speaker sees it
///
/// Exit status 1 if an address has no owner, or something that people wrote is wrong.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  garpike status\n  garpike status --kubeconfig admin.conf -o json")]
pub(crate) struct Args {
    #[command(flatten)]
    at: Where,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(ValueEnum, Clone, Copy)]
pub(crate) enum Output {
    /// Lines for people
    Text,
    /// The whole state of the speaker
    Json,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let state = args.at.state()?;
    let seen = Seen::parse(&state)?;
    let mut out = io::stdout().lock();
    match args.output {
        Output::Text => tell(&mut out, &seen)?,
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&state)?)?,
    }
    let is_well = seen.problems.is_empty() && seen.addresses.values().all(|address| address.unowned.is_none());
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(out: &mut impl Write, seen: &Seen) -> io::Result<()> {
    let mut owned: BTreeMap<&NodeName, usize> = BTreeMap::new();
    for owner in seen.owners.values().flatten() {
        *owned.entry(owner).or_default() += 1;
    }
    let mut members = vec![["NODE", "STATE", "SPEAKER", "OWNS", "HANDICAPS"].map(str::to_owned)];
    for member in &seen.members {
        let speaker = match member.presence {
            Presence::Here => "here",
            Presence::Away => "away",
        };
        let handicaps: Vec<String> =
            member.handicaps.iter().map(|handicap| handicap_text(*handicap).to_owned()).collect();
        members.push([
            member.name.to_string(),
            member.state.as_str().to_owned(),
            speaker.to_owned(),
            owned.get(&member.name).copied().unwrap_or_default().to_string(),
            if handicaps.is_empty() { "-".to_owned() } else { handicaps.join(",") },
        ]);
    }
    table(out, &members)?;
    writeln!(out)?;
    let mut addresses = vec![["ADDRESS", "SERVICE", "OWNER", "STAND-IN", "NEXT"].map(str::to_owned)];
    for (ip, address) in &seen.addresses {
        let owner = seen.owners.get(ip).and_then(Option::as_ref);
        let next = address.candidates.iter().find(|node| Some(*node) != owner);
        let name = |node: Option<&NodeName>| node.map_or_else(|| "-".to_owned(), ToString::to_string);
        addresses.push([
            ip.to_string(),
            address.services.join(","),
            name(owner),
            name(address.stand_in.as_ref()),
            name(next),
        ]);
    }
    table(out, &addresses)?;
    for (ip, address) in &seen.addresses {
        if let Some(reason) = &address.unowned {
            writeln!(out, "\n{ip} has no owner: {reason}; {}", address.mend.as_deref().unwrap_or_default())?;
        }
    }
    for moved in &seen.moves {
        let addresses: Vec<String> = moved.addresses.iter().map(ToString::to_string).collect();
        writeln!(out, "\n{} stays with {} until {}", addresses.join(", "), moved.to, moved.until)?;
    }
    for problem in &seen.problems {
        writeln!(out, "\n{problem}")?;
    }
    for FindingState { text, .. } in &seen.findings {
        writeln!(out, "\n{}: {text}", seen.node)?;
    }
    writeln!(out, "\nas seen by {}; placement {}", seen.node, seen.placement.as_str())
}

/// What makes a node a worse owner.
pub(crate) fn handicap_text(handicap: Handicap) -> &'static str {
    match handicap {
        Handicap::Late => "its timers are late",
        Handicap::NoGateway => "no gateway answers it",
        Handicap::NoDataPlane => "its data plane does not forward",
    }
}

/// Prints rows in columns as wide as their widest cell.
fn table<const N: usize>(out: &mut impl Write, rows: &[[String; N]]) -> io::Result<()> {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or_default()).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
