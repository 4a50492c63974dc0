//! Two controllers, one of which is killed at a random instant, again and again.
//!
//! Services come and go meanwhile. What becomes of every address is read off a watch.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::rig::{Rig, seconds};
use crate::kube::ApiServer;
use crate::lab::now;
use crate::load::Output;
use crate::load::figures::{Bound, Figures, median};

/// Kills one of two controllers at a random instant while Services come and go, and looks for addresses that were given
/// twice, lost or changed
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How often
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    trials: u32,
    /// What decides who is killed, and when
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(super) async fn run(server: &ApiServer, args: &Args) -> Result<Figures> {
    let mut figures = Figures::begin("controller-crash");
    let mut random = StdRng::seed_from_u64(args.seed);
    let rig = Rig::build(server).await?;
    rig.watched.judge();
    let mut controllers = VecDeque::new();
    for name in ["controller-a", "controller-b"] {
        controllers.push_back((name.to_owned(), rig.installation.start(name, &[]).await?));
    }
    let (mut present, mut waits, mut made) = (VecDeque::new(), Vec::new(), 0_u32);
    let mut told = 0;
    for trial in 0..args.trials {
        let instant = Duration::from_micros(random.random_range(0..WITHIN_US));
        let begun = now();
        let come_and_go = async {
            let new: Vec<String> = (made..made + COME).map(|number| format!("service-{number:06}")).collect();
            made += COME;
            present.extend(new.iter().cloned());
            rig.make(new).await?;
            let old: Vec<String> =
                (0..present.len().saturating_sub(STAY)).filter_map(|_| present.pop_front()).collect();
            rig.remove(old).await
        };
        let kill = async {
            tokio::time::sleep(instant).await;
            if random.random_bool(0.5) {
                controllers.rotate_left(1);
            }
            let (name, killed) = controllers.pop_front().expect("there are two");
            killed.kill();
            name
        };
        let (done, killed) = tokio::join!(come_and_go, kill);
        done?;
        // Its container is started again, or another pod takes its place, who may not know that it has ended.
        let name = if random.random_bool(0.5) { killed } else { format!("controller-{trial}") };
        let controller = rig.installation.start(&name, &[]).await?;
        controllers.push_back((name, controller));
        // Those that were deleted are gone before they are counted.
        wait_for_the_watch(&rig, &present).await?;
        rig.all_have(present.len()).await?;
        waits.push(seconds(begun.elapsed()));
        let violations = rig.watched.violations();
        for violation in violations.iter().skip(told) {
            #[expect(clippy::print_stderr, reason = "what a person needs to find the fault")]
            {
                eprintln!("trial {trial}, seed {}: {violation}", args.seed);
            }
        }
        told = violations.len();
    }
    let addresses: usize = rig.watched.addresses().values().filter(|ips| ips.len() == 1).count();
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let (lost, violations) = ((present.len() - addresses.min(present.len())) as f64, told as f64);
    let slowest = waits.iter().copied().fold(0.0, f64::max);
    let row = [
        ("kills", f64::from(args.trials)),
        ("services", f64::from(made)),
        ("all_served_s_median", median(waits)),
        ("all_served_s_max", slowest),
    ];
    figures.row("two controllers".to_owned(), row);
    figures.target("addresses given twice, changed or lost".to_owned(), violations, Bound::AtMost, 0.0);
    figures.target("Services without an address at the end".to_owned(), lost, Bound::AtMost, 0.0);
    Ok(figures.end())
}

/// Waits until the watch shows exactly these Services.
async fn wait_for_the_watch(rig: &Rig<'_>, present: &VecDeque<String>) -> Result<()> {
    let begun = now();
    let shown = || rig.watched.addresses().into_keys().collect::<BTreeSet<_>>();
    let wanted = present.iter().cloned().collect();
    while shown() != wanted {
        ensure!(begun.elapsed() < PATIENCE, "the watch does not show what was made and removed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Services that come in each trial.
const COME: u32 = 8;
/// Services that stay when others come.
const STAY: usize = 40;
/// A kill comes within the time in which they are made, served, and others start; in microseconds.
const WITHIN_US: u64 = 400_000;
/// Chosen: a watch is never so late.
const PATIENCE: Duration = Duration::from_secs(60);
