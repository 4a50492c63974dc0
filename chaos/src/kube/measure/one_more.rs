//! One more Service where thousands have their addresses.
//!
//! Most of the wait is the API server's: it stores the Service, tells of it, stores the address and tells of that. So the
//! same is done by hand before, and the controller says how long it was busy.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use super::rig::{Rig, millis, names};
use crate::kube::{ApiServer, Controller};
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
    let mut have = usize::try_from(args.services)?;
    let mut by_hand = Vec::new();
    for (trial, ip) in (0..args.trials).zip(BY_HAND.to_bits()..) {
        let (name, begun) = (format!("by-hand-{trial}"), now());
        rig.make([name.clone()]).await?;
        rig.assign(&name, Ipv4Addr::from_bits(ip)).await?;
        have += 1;
        rig.all_have(have).await?;
        by_hand.push(millis(rig.watched.since(&name).context("the new Service is gone")? - begun));
    }
    let mut controller = rig.installation.start("controller-0", &[]).await?;
    rig.ready(&mut controller).await?;
    // The first one waits until the controller has the Lease.
    rig.make(["first".to_owned()]).await?;
    have += 1;
    rig.all_have(have).await?;
    let (published, busy) = (metric(&controller, PUBLISHED).await, metric(&controller, PUBLISHING).await);
    let (mut made, mut waits) = (Vec::new(), Vec::new());
    for trial in 0..args.trials {
        let (name, begun) = (format!("new-{trial}"), now());
        rig.make([name.clone()]).await?;
        made.push(millis(begun.elapsed()));
        have += 1;
        rig.all_have(have).await?;
        waits.push(millis(rig.watched.since(&name).context("the new Service is gone")? - begun));
    }
    let published = metric(&controller, PUBLISHED).await - published;
    let busy = (metric(&controller, PUBLISHING).await - busy) * 1000.0 / published.max(1.0);
    let half = median(waits.iter().copied());
    for (name, waits) in [("one more Service", waits), ("by hand: made, read, assigned", by_hand)] {
        figures.row(name.to_owned(), row(waits));
    }
    figures.row("of it".to_owned(), [("making_it_p50_ms", median(made)), ("seen_to_written_mean_ms", busy)]);
    figures.target("ms until it has its address, median".to_owned(), half, Bound::AtMost, ONE_MORE_MS);
    Ok(figures.end())
}

fn row(mut waits: Vec<f64>) -> [(&'static str, f64); 5] {
    waits.sort_by(f64::total_cmp);
    let rank =
        |percent: usize| waits.get((waits.len() * percent).div_ceil(100).max(1) - 1).copied().unwrap_or_default();
    [("min_ms", rank(0)), ("p50_ms", rank(50)), ("p90_ms", rank(90)), ("p99_ms", rank(99)), ("max_ms", rank(100))]
}

/// A figure that the controller gives of itself; 0 where it gives none.
async fn metric(controller: &Controller, name: &str) -> f64 {
    let text = controller.metrics().await;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_default()
}

/// How many addresses it has published, and in how many seconds all together.
const PUBLISHED: &str = "garpike_controller_publish_seconds_count";
const PUBLISHING: &str = "garpike_controller_publish_seconds_sum";
/// Of the pool, and nobody's.
const BY_HAND: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);
const ONE_MORE_MS: f64 = 20.0;
