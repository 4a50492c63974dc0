//! One more Service where thousands have their addresses.

use anyhow::{Context as _, Result};

use super::rig::{Rig, millis, names};
use crate::kube::ApiServer;
use crate::lab::now;
use crate::load::Output;
use crate::load::figures::{Bound, Figures, median};

/// The time from the request that makes a Service until a watch shows its address, where thousands have theirs
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How many Services have an address
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    services: u32,
    /// How many more are made, one after the other
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    trials: u32,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(super) async fn run(server: &ApiServer, args: &Args) -> Result<Figures> {
    let mut figures = Figures::begin("controller-one-more");
    let rig = Rig::build(server).await?;
    rig.make(names(args.services)).await?;
    rig.assign_all().await?;
    let mut controller = rig.installation.start("controller-0", &[]).await?;
    rig.ready(&mut controller).await?;
    // The first one waits until the controller has the Lease.
    let mut have = usize::try_from(args.services)? + 1;
    rig.make(["first".to_owned()]).await?;
    rig.all_have(have).await?;
    let mut waits = Vec::new();
    for trial in 0..args.trials {
        let (name, begun) = (format!("new-{trial}"), now());
        rig.make([name.clone()]).await?;
        have += 1;
        rig.all_have(have).await?;
        waits.push(millis(rig.watched.since(&name).context("the new Service is gone")? - begun));
    }
    let half = median(waits.iter().copied());
    waits.sort_by(f64::total_cmp);
    let rank =
        |percent: usize| waits.get((waits.len() * percent).div_ceil(100).max(1) - 1).copied().unwrap_or_default();
    let row =
        [("min_ms", rank(0)), ("p50_ms", half), ("p90_ms", rank(90)), ("p99_ms", rank(99)), ("max_ms", rank(100))];
    figures.row("one more Service".to_owned(), row);
    figures.target("ms until it has its address, median".to_owned(), half, Bound::AtMost, ONE_MORE_MS);
    Ok(figures.end())
}

const ONE_MORE_MS: f64 = 20.0;
