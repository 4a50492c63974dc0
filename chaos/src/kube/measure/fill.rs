//! Thousands of Services wait, and a controller starts.

use anyhow::Result;

use super::rig::{Rig, names, seconds};
use crate::kube::ApiServer;
use crate::lab::now;
use crate::load::Output;
use crate::load::figures::{Bound, Figures};

/// The time from the start of a controller until thousands of waiting Services have an address, beside the time in which
/// a bare client with 16 requests in flight writes the same statuses
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How many Services
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    services: u32,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(super) async fn run(server: &ApiServer, args: &Args) -> Result<Figures> {
    let mut figures = Figures::begin("controller-fill");
    let rig = Rig::build(server).await?;
    rig.make(names(args.services)).await?;
    let bare = rig.assign_all().await?;
    rig.clear_all().await?;

    let begun = now();
    let _controller = rig.installation.start("controller-0", &[]).await?;
    let took = rig.all_have(usize::try_from(args.services)?).await? - begun;

    let writes = rig.status_writes()?;
    let per_second = |duration| f64::from(args.services) / seconds(duration);
    figures.row("bare client".to_owned(), [("s", seconds(bare)), ("writes_per_s", per_second(bare))]);
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let row = [("s", seconds(took)), ("writes_per_s", per_second(took)), ("writes", writes as f64)];
    figures.row("controller".to_owned(), row);
    let ratio = seconds(took) / seconds(bare);
    figures.target("times the bare client's time".to_owned(), ratio, Bound::AtMost, TIMES_THE_BARE_CLIENT);
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    figures.target("writes for each Service".to_owned(), writes as f64 / f64::from(args.services), Bound::AtMost, 1.0);
    Ok(figures.end())
}

const TIMES_THE_BARE_CLIENT: f64 = 1.5;
