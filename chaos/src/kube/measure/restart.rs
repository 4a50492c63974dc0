//! A controller is started again where thousands of Services have their addresses.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::rig::{Rig, names, seconds};
use crate::kube::ApiServer;
use crate::lab::now;
use crate::load::Output;
use crate::load::figures::{Bound, Figures};

/// The time from the start of a controller until a new Service has an address where thousands have theirs, and what the
/// controller wrote or changed besides
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How many Services have an address
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    services: u32,
    /// How often it is started again
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    trials: u32,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(super) async fn run(server: &ApiServer, args: &Args) -> Result<Figures> {
    let mut figures = Figures::begin("controller-restart");
    let rig = Rig::build(server).await?;
    rig.make(names(args.services)).await?;
    rig.assign_all().await?;
    let mut have = usize::try_from(args.services)?;
    rig.all_have(have).await?;
    rig.watched.judge();
    let mut controller = rig.installation.start("controller-0", &[]).await?;
    rig.ready(&mut controller).await?;
    let mut worst: f64 = 0.0;
    for trial in 0..args.trials {
        controller.terminate(TERMINATES_WITHIN).await?;
        let begun = now();
        controller = rig.installation.start("controller-0", &[]).await?;
        let name = format!("new-{trial}");
        rig.make([name.clone()]).await?;
        have += 1;
        rig.all_have(have).await?;
        let took = seconds(rig.watched.since(&name).context("the new Service is gone")? - begun);
        worst = worst.max(took);
        figures.row(format!("start {}", trial + 1), [("new_service_s", took)]);
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let needless = rig.status_writes()? as f64 - f64::from(args.trials);
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let changed = rig.watched.violations().len() as f64;
    figures.target("s until a new Service has its address".to_owned(), worst, Bound::AtMost, NEW_SERVICE_S);
    figures.target("needless writes".to_owned(), needless, Bound::AtMost, 0.0);
    figures.target("changed addresses".to_owned(), changed, Bound::AtMost, 0.0);
    Ok(figures.end())
}

const NEW_SERVICE_S: f64 = 3.0;
const TERMINATES_WITHIN: Duration = Duration::from_secs(10);
