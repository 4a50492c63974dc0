//! What is done with a cluster, and what must come of it. Each is a subcommand of `garpike chaos run`.
//!
//! Everything is done by `kubectl` and by power cuts, and judged by what the client gets and by what the tap on its cable sees.

mod bad_input;
mod dashboards;
mod dead_node;
mod install;
mod migration;
mod power;
mod roll_out;
mod walkthroughs;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use garpike_election::NodeName;
use serde_json::Value;

use super::image::Images;
use super::install::{Exposed, NAMESPACE};
use super::{Cluster, items};
use crate::lab::{Init, Links, Record};
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
    /// Nodes die with an endpoint of every Service, and the controllers take their endpoints away: see docs/dead-node-hint.md
    DeadNode(Args),
    /// Nodes lose their power, and a Prometheus is asked for everything that the dashboards show
    Dashboards(Args),
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
    /// How many nodes, besides that of the control plane [default: 3, dead-node 4]
    #[arg(long, value_parser = clap::value_parser!(u8).range(2..=10))]
    nodes: Option<u8>,
    /// How many network cards each node has; of two the first is for clients alone
    #[arg(long, value_enum, default_value_t = Links::One)]
    links: Links,
    /// How often [default: power-off, reboot and dead-node 10, dashboards 3, the others once]
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
            | Self::DeadNode(args)
            | Self::Dashboards(args)
            | Self::Walkthroughs(args)
            | Self::Migration(args)
            | Self::BadInput(args) => args,
        }
    }

    fn defaults(&self) -> Defaults {
        let (name, nodes, trials) = match self {
            Self::Install(_) => ("install", 3, 1),
            Self::RollOut(_) => ("roll-out", 3, 1),
            Self::PowerOff(_) => ("power-off", 3, POWER_CUTS),
            Self::Reboot(_) => ("reboot", 3, POWER_CUTS),
            // With fewer, one node is more than the share that may die at a time, or the rest no majority.
            Self::DeadNode(_) => ("dead-node", 4, POWER_CUTS),
            Self::Dashboards(_) => ("dashboards", 3, 3),
            Self::Walkthroughs(_) => ("walkthroughs", 3, 1),
            Self::Migration(_) => ("migration", 3, 1),
            Self::BadInput(_) => ("bad-input", 3, 1),
        };
        Defaults { name, nodes, trials }
    }
}

struct Defaults {
    name: &'static str,
    nodes: u8,
    trials: u32,
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
    let Defaults { name, nodes, trials } = scenario.defaults();
    let (nodes, trials) = (args.nodes.unwrap_or(nodes), args.trials.unwrap_or(trials));
    let mut figures = Figures::begin(name);
    let mut within = |images: &Images<'_>, act: Act<'_>| {
        let mut cluster = Cluster::start(init, nodes, args.links, images)?;
        // The logs are kept when it fails.
        act(&mut cluster, &mut figures).map_err(|error| cluster.explain(error))
    };
    match scenario {
        Scenario::Install(_) => {
            (0..trials).try_for_each(|trial| within(&images, &|cluster, figures| install::run(cluster, trial, figures)))
        }
        Scenario::RollOut(_) => within(&images, &|cluster, figures| roll_out::run(cluster, trials, figures)),
        Scenario::PowerOff(_) => within(&images, &|cluster, figures| power::run(cluster, trials, Judged::Cut, figures)),
        Scenario::Reboot(_) => {
            within(&images, &|cluster, figures| power::run(cluster, trials, Judged::Return, figures))
        }
        Scenario::DeadNode(_) => within(&images, &|cluster, figures| dead_node::run(cluster, trials, figures)),
        Scenario::Dashboards(_) => within(&images, &|cluster, figures| dashboards::run(cluster, trials, figures)),
        Scenario::Walkthroughs(_) => within(&images, &|cluster, figures| walkthroughs::run(cluster, figures)),
        Scenario::Migration(_) => {
            let manifest = migration::manifest()?;
            within(&migration::with_metallb(images)?, &|cluster, figures| {
                migration::run(cluster, &manifest, trials, figures)
            })
        }
        Scenario::BadInput(_) => within(&images, &|cluster, figures| bad_input::run(cluster, figures)),
    }?;
    Ok((args.output, figures.end()))
}

/// What is done in a running cluster.
type Act<'a> = &'a dyn Fn(&mut Cluster<'_>, &mut Figures) -> Result<()>;

/// Makes pools, and so many Services before what serves as `echo`; the client reaches every address.
fn reached_services(cluster: &mut Cluster<'_>, count: usize) -> Result<Vec<Exposed>> {
    cluster.configure_pools()?;
    let exposed = cluster.expose("echo", count)?;
    for ip in exposed.iter().flat_map(Exposed::both) {
        cluster.wait_until_served(ip, SERVED_WITHIN)?;
    }
    Ok(exposed)
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

/// How often the container of the node's speaker was started again, and whether it is ready. The API believes a dead node's pods
/// ready for a while, so the second tells nothing without the first.
fn speaker(cluster: &mut Cluster<'_>, node: &NodeName) -> Result<(u64, Option<bool>)> {
    let on = format!("--field-selector=spec.nodeName={node}");
    let pods = cluster.get("pods", &["-n", NAMESPACE, "-l", "component=speaker", &on])?;
    let status = items(&pods).find_map(|pod| pod.pointer("/status/containerStatuses/0"));
    let status = status.with_context(|| format!("{node} has no speaker"))?;
    let restarts = status.get("restartCount").and_then(Value::as_u64).unwrap_or_default();
    Ok((restarts, status.get("ready").and_then(Value::as_bool)))
}

/// How often the container of the node's speaker was started again.
fn restarts(cluster: &mut Cluster<'_>, node: &NodeName) -> Result<u64> {
    Ok(speaker(cluster, node)?.0)
}

/// Waits until the node's speaker, which had been started again `before` times, was so once more and is ready.
fn wait_for_restart(cluster: &mut Cluster<'_>, node: &NodeName, before: u64) -> Result<()> {
    cluster.wait_until("the speaker of the node runs again", SERVED_WITHIN, |cluster| {
        let (restarts, ready) = speaker(cluster, node)?;
        Ok((restarts > before && ready == Some(true)).then_some(()))
    })
}

/// Chosen: enough for a median.
const POWER_CUTS: u32 = 10;
/// Chosen: an install or a reboot takes some seconds.
const SERVED_WITHIN: Duration = Duration::from_secs(60);
