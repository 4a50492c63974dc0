//! What is done with a cluster, and what must come of it. Each is a subcommand of `garpike chaos run`.
//!
//! Everything is done by `kubectl` and by power cuts, and judged by what the client gets and by what the tap on its cable sees.

mod bad_input;
mod install;
mod migration;
mod power;
mod roll_out;
mod walkthroughs;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use super::Cluster;
use super::image::Images;
use crate::lab::{Init, Record};
use crate::load::Output;
use crate::load::figures::Figures;
use power::Judged;

/// What happens.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Scenario {
    /// From `kubectl apply` to the first Service that is reached, in a cluster of real kubelets
    Install(Args),
    /// A new image on every node: no probe, no connection and no owner may be lost
    RollOut(Args),
    /// The node of the owner loses its power; the endpoint is on another one
    PowerOff(Args),
    /// The same, judged from the moment on at which the power returns
    Reboot(Args),
    /// What five guides tell their readers to do, step by step
    Walkthroughs(Args),
    /// From a running MetalLB to Garpike and back, each by one `kubectl apply`
    Migration(Args),
    /// What people get wrong, and whether they are told where they look
    BadInput(Args),
}

/// How it is done.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Where; a cluster is made of real kubelets in namespaces: needs root and what `cargo xtask setup nodes` brings
    #[arg(long, value_enum, default_value_t = Source::Cluster)]
    source: Source,
    /// The archive of the image to judge, as `cargo xtask image` writes it [default: this program itself]
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// How many nodes, besides that of the control plane
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=10))]
    nodes: u8,
    /// How often [default: power-off and reboot 10, the others once]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    trials: Option<u32>,
    #[command(flatten)]
    output: Output,
}

/// Where a scenario takes place.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Kubernetes
    Cluster,
}

impl Scenario {
    fn args(&self) -> &Args {
        match self {
            Self::Install(args)
            | Self::RollOut(args)
            | Self::PowerOff(args)
            | Self::Reboot(args)
            | Self::Walkthroughs(args)
            | Self::Migration(args)
            | Self::BadInput(args) => args,
        }
    }
}

/// Runs a scenario; how it is to be printed, and what was found.
///
/// # Errors
///
/// When the cluster does not start, or a step fails: the error has the step and the place of the logs.
pub(crate) fn run(init: &mut Init, scenario: &Scenario) -> Result<(Output, Figures)> {
    let args = scenario.args();
    let Source::Cluster = args.source;
    let images = Images { garpike: args.image.as_deref(), programs: Vec::new() };
    let figures = match scenario {
        Scenario::Install(_) => {
            let mut figures = Figures::begin("install");
            for trial in 0..args.trials.unwrap_or(1) {
                let cluster = Cluster::start(init, args.nodes, &images)?;
                within(cluster, |cluster| install::run(cluster, trial, &mut figures))?;
            }
            figures
        }
        Scenario::RollOut(_) => {
            let mut figures = Figures::begin("roll-out");
            let cluster = Cluster::start(init, args.nodes, &images)?;
            within(cluster, |cluster| roll_out::run(cluster, args.trials.unwrap_or(1), &mut figures))?;
            figures
        }
        Scenario::PowerOff(_) => {
            let mut figures = Figures::begin("power-off");
            let cluster = Cluster::start(init, args.nodes, &images)?;
            let trials = args.trials.unwrap_or(POWER_CUTS);
            within(cluster, |cluster| power::run(cluster, trials, Judged::Cut, &mut figures))?;
            figures
        }
        Scenario::Reboot(_) => {
            let mut figures = Figures::begin("reboot");
            let cluster = Cluster::start(init, args.nodes, &images)?;
            let trials = args.trials.unwrap_or(POWER_CUTS);
            within(cluster, |cluster| power::run(cluster, trials, Judged::Return, &mut figures))?;
            figures
        }
        Scenario::Walkthroughs(_) => {
            let mut figures = Figures::begin("walkthroughs");
            let cluster = Cluster::start(init, args.nodes, &images)?;
            within(cluster, |cluster| walkthroughs::run(cluster, &mut figures))?;
            figures
        }
        Scenario::BadInput(_) => {
            let mut figures = Figures::begin("bad-input");
            let cluster = Cluster::start(init, args.nodes, &images)?;
            within(cluster, |cluster| bad_input::run(cluster, &mut figures))?;
            figures
        }
        Scenario::Migration(_) => {
            let mut figures = Figures::begin("migration");
            let (images, manifest) = (migration::with_metallb(images)?, migration::manifest()?);
            let cluster = Cluster::start(init, args.nodes, &images)?;
            let trials = args.trials.unwrap_or(1);
            within(cluster, |cluster| migration::run(cluster, &manifest, trials, &mut figures))?;
            figures
        }
    };
    Ok((args.output, figures.end()))
}

/// Does something in a cluster and ends it; the logs are kept when that fails.
fn within(mut cluster: Cluster<'_>, act: impl FnOnce(&mut Cluster<'_>) -> Result<()>) -> Result<()> {
    act(&mut cluster).map_err(|error| cluster.explain(error))
}

/// Tells a person how far it has come.
fn step(what: &str) {
    #[expect(clippy::print_stderr, reason = "progress of long work")]
    {
        eprintln!("{what}");
    }
}

/// How many of a probe's datagrams never came back.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
fn lost(record: &Record) -> f64 {
    record.samples.iter().filter(|sample| sample.answered.is_none()).count() as f64
}

/// A count as a figure.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
fn count(number: usize) -> f64 {
    number as f64
}

/// Chosen: enough for a median.
const POWER_CUTS: u32 = 10;
/// Chosen: an install or a reboot takes some seconds.
const SERVED_WITHIN: Duration = Duration::from_secs(60);
