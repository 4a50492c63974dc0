//! What a controller needs that has nothing to do.

use std::time::Duration;

use anyhow::Result;

use super::rig::{Rig, megabytes, names, seconds};
use crate::kube::ApiServer;
use crate::lab::now;
use crate::load::Output;
use crate::load::figures::{Bound, Figures};

/// The memory of a controller and its processor time at rest, where thousands of Services have their addresses
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How many Services
    #[arg(long, value_delimiter = ',', default_value = "4000,10000")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=50_000))]
    services: Vec<u32>,
    /// For how long it is watched, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    lasts: u64,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(super) async fn run(server: &ApiServer, args: &Args) -> Result<Figures> {
    let mut figures = Figures::begin("controller-memory");
    let rig = Rig::build(server).await?;
    let mut made = 0;
    for count in &args.services {
        rig.make(names(*count).skip(made)).await?;
        made = made.max(usize::try_from(*count)?);
        rig.assign_all().await?;
        rig.all_have(made).await?;
        let mut controller = rig.installation.start("controller-0", &[]).await?;
        rig.ready(&mut controller).await?;
        // It lists once more after ten seconds.
        tokio::time::sleep(SETTLES_WITHIN).await;
        let (begun, before) = (now(), controller.processor_time()?);
        tokio::time::sleep(Duration::from_secs(args.lasts)).await;
        let spent = controller.processor_time()?.saturating_sub(before);
        let (memory, cpu) = (controller.memory()?, seconds(spent) / seconds(begun.elapsed()) * 100.0);
        let (rss, peak) = (megabytes(memory.resident_bytes), megabytes(memory.peak_bytes));
        figures.row(format!("{made} Services"), [("rss_mb", rss), ("peak_mb", peak), ("cpu_percent", cpu)]);
        figures.target(format!("MB with {made} Services"), rss, Bound::AtMost, limit_mb(made));
        figures.target(format!("percent of a processor at rest with {made}"), cpu, Bound::AtMost, CPU_PERCENT);
        controller.terminate(SETTLES_WITHIN).await?;
    }
    Ok(figures.end())
}

/// 35 MB with 4000, 60 MB with 10 000, and on that line elsewhere.
fn limit_mb(services: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let thousands = services as f64 / 1000.0;
    35.0 + (thousands - 4.0) * 25.0 / 6.0
}

const CPU_PERCENT: f64 = 0.2;
const SETTLES_WITHIN: Duration = Duration::from_secs(15);
