//! What a speaker stands: how fast it answers, how much a flood costs it, how long ten thousand addresses take to move. What
//! a controller stands is measured in [`crate::kube::measure`].
//!
//! Each load is a subcommand of `garpike chaos run`. It builds a lab of its own, prints figures and what they should be,
//! and judges by frames and by the kernel's accounts, never by what a speaker says. Figures beside other work on the
//! machine are not comparable: the load average is printed with them.

pub mod announce;
pub mod arp_latency;
pub mod arp_rate;
pub(crate) mod figures;
pub mod flood;
pub mod forward;
pub mod kubernetes;
mod rig;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand as _;

use self::figures::Figures;
use crate::cluster;
use crate::kube::measure::{self, Measurement};
use crate::lab::{Entered, enter};
use crate::tools::Program;

/// What is measured.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Load {
    /// How many requests are answered
    ArpRate(arp_rate::Args),
    /// How long an answer takes
    ArpLatency(arp_latency::Args),
    /// What requests cost that are not to be answered
    Flood(flood::Args),
    /// How long thousands of addresses take to move
    #[command(name = "announce-10k")]
    Announce10k(announce::Args),
    /// What forwarded packets pay for a speaker's sockets
    Forward(forward::Args),
    /// What a speaker stands on the Kubernetes API
    #[command(flatten)]
    Kubernetes(kubernetes::Measurement),
    /// What a controller stands
    #[command(flatten)]
    Controller(Measurement),
    /// What happens to a whole cluster
    #[command(flatten)]
    Cluster(cluster::Scenario),
}

/// The loads by name, each with what it measures.
pub fn list() -> Vec<(String, String)> {
    let command = Load::augment_subcommands(clap::Command::new("run"));
    let about = |load: &clap::Command| load.get_about().map(ToString::to_string).unwrap_or_default();
    command.get_subcommands().map(|load| (load.get_name().to_owned(), about(load))).collect()
}

/// How a load prints what it found.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Output {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs a load. To be called before any thread is started. Exit status 0 only if every target was reached.
///
/// # Errors
///
/// When the lab cannot be built, or the load cannot be made.
pub fn run(load: &Load) -> Result<ExitCode> {
    // Needs no lab: it talks to an API server on loopback.
    if let Load::Controller(measurement) = load {
        return measure::run(measurement);
    }
    if let Load::Kubernetes(_) = load {
        for program in [Program::Etcd, Program::KubeApiserver] {
            program.path()?;
        }
    }
    let mut init = match enter()? {
        Entered::Outside { status } => return Ok(ExitCode::from(status)),
        Entered::Inside(init) => init,
    };
    let (output, figures) = match load {
        Load::ArpRate(args) => (args.output, arp_rate::run(&mut init, args)?),
        Load::ArpLatency(args) => (args.output, arp_latency::run(&mut init, args)?),
        Load::Flood(args) => (args.output, flood::run(&mut init, args)?),
        Load::Announce10k(args) => (args.output, announce::run(&mut init, args)?),
        Load::Forward(args) => (args.output, forward::run(&mut init, args)?),
        Load::Kubernetes(measurement) => kubernetes::run(&mut init, measurement)?,
        Load::Cluster(scenario) => cluster::run(&mut init, scenario)?,
        Load::Controller(_) => unreachable!("was run without a lab"),
    };
    output.print(&figures)
}

impl Output {
    /// Prints what was found; the status is good if every target was reached.
    pub(crate) fn print(self, figures: &Figures) -> Result<ExitCode> {
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty(figures)?)?;
        } else {
            write!(out, "{figures}")?;
        }
        Ok(if figures.all_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
