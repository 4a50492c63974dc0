//! `garpike allocate`: gives the Services of a directory their addresses.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use garpike_controller::allocate::{Allocated, Failed, Kept, allocate};
use garpike_controller::status_file::Written;
use garpike_controller_api::Severity;
use garpike_election::ServiceIp;

/// Gives Services addresses from pools, without a cluster
///
/// Reads IPAddressPool and Service objects in DIR and writes the addresses to DIR/garpike-status.yaml; the files that
/// people wrote are never changed. A Service that has a valid address keeps it. Exit status 1 if a Service got no
/// address or an object is broken.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  garpike allocate /etc/garpike")]
pub(crate) struct Args {
    /// Directory of YAML files
    dir: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let report = allocate(&args.dir)?;
    let mut out = std::io::stdout().lock();
    for Allocated { service, addresses, before } in &report.allocated {
        let instead = if before.is_empty() { String::new() } else { format!(" instead of {}", joined(before)) };
        writeln!(out, "{service} got {}{instead}", joined(addresses))?;
    }
    for Kept { service, addresses } in &report.kept {
        if !addresses.is_empty() {
            writeln!(out, "{service} keeps {}", joined(addresses))?;
        }
    }
    for (service, addresses) in &report.released {
        writeln!(out, "{service} is gone, {} is free", joined(addresses))?;
    }
    match report.written {
        Written::Changed => writeln!(out, "wrote {}", report.status_file.display())?,
        Written::Unchanged => writeln!(out, "nothing to write")?,
    }
    let mut err = std::io::stderr().lock();
    for problem in &report.problems {
        writeln!(err, "{}: {problem}", problem.severity.as_str())?;
    }
    for Failed { service, refusal, .. } in &report.failed {
        writeln!(err, "error: Service {service}: {refusal}")?;
    }
    let broken = report.problems.iter().any(|problem| problem.severity == Severity::Error);
    Ok(if broken || !report.failed.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn joined(addresses: &[ServiceIp]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
