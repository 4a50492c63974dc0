//! How long an answer takes at a modest rate, on a calm machine and on one that is overcommitted; and what the speaker
//! weighs.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Output;
use super::figures::{Bound, Figures, micros, permille};
use super::rig::{Owners, Rig, Spent};
use crate::lab::Init;
use crate::lab::load::{OpenLoop, Protocol};

/// The time from a request to its answer at 1000 requests a second, without and with busy loops beside it; memory
///
/// Exit status 0 only if the targets are reached: p50 30 us, p99 500 us (10 ms under four busy loops for each
/// processor), resident memory 15 MB with 10 and 30 MB with 10 000 addresses.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How many service IPs the speaker owns, half of either family; several are measured one after the other
    #[arg(long, value_delimiter = ',', default_values_t = [10, 10_000],
          value_parser = clap::value_parser!(u32).range(2..=20_000))]
    addresses: Vec<u32>,
    /// How often a second it is asked
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    per_second: u32,
    /// For how long
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    lasts: u64,
    /// How many threads are busy in the second half of the measurement [default: four for each processor]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    busy: Option<u16>,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(super) fn run(init: &mut Init, args: &Args) -> Result<Figures> {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let busy = args.busy.map_or(4 * cores, usize::from);
    let mut figures = Figures::begin("arp-latency");
    for addresses in &args.addresses {
        let mut rig = Rig::build(init, 1, 1, usize::try_from(*addresses)?, Owners::All)?;
        rig.wait_until_whole()?;
        for protocol in [Protocol::Arp, Protocol::Ndp] {
            let what = format!("{} {addresses:>5} IPs", protocol.as_str());
            let [p50, p99] = ask(&rig, protocol, args, &what, &mut figures)?;
            figures.target(format!("{what}: p50 us"), p50, Bound::AtMost, P50_US);
            figures.target(format!("{what}: p99 us"), p99, Bound::AtMost, P99_US);
            let what = format!("{what}, {busy} busy loops");
            let [_, p99] = while_busy(busy, || ask(&rig, protocol, args, &what, &mut figures))?;
            figures.target(format!("{what}: p99 us"), p99, Bound::AtMost, BUSY_P99_US);
        }
        weigh(&rig, &mut figures)?;
    }
    Ok(figures.end())
}

/// Asks; gives median and 99th percentile in microseconds.
fn ask(rig: &Rig<'_>, protocol: Protocol, args: &Args, what: &str, figures: &mut Figures) -> Result<[f64; 2]> {
    let node = rig.lab.nodes().next().context("the lab has no node")?;
    let load = OpenLoop {
        station: rig.lab.host(node)?.mac,
        per_second: args.per_second,
        lasts: Duration::from_secs(args.lasts),
        seed: 1,
    };
    let socket = rig.lab.client_socket(protocol)?;
    let seen = load.run(&socket, &rig.ips_of(protocol))?;
    if seen.latencies_ns.is_empty() {
        bail!("{what}: nothing was answered");
    }
    let of = |rank| micros(permille(&seen.latencies_ns, rank));
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let (asked, unanswered) = (seen.asked as f64, seen.unanswered as f64);
    figures.row(
        what.to_owned(),
        [
            ("asked", asked),
            ("unanswered", unanswered),
            ("p50_us", of(500)),
            ("p99_us", of(990)),
            ("p99.9_us", of(999)),
            ("max_us", of(1000)),
            ("asked_late_at_worst_us", seen.worst_lateness.as_secs_f64() * 1e6),
        ],
    );
    Ok([of(500), of(990)])
}

/// What the speaker keeps resident.
fn weigh(rig: &Rig<'_>, figures: &mut Figures) -> Result<()> {
    let node = rig.lab.nodes().next().context("the lab has no node")?;
    #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
    let rss_mb = Spent::of(rig.speaker(node)?)?.rss_bytes as f64 / 1e6;
    let count = rig.ips.len();
    figures.row(format!("memory {count:>5} IPs"), [("rss_mb", rss_mb)]);
    let limit = if count <= FEW { RSS_FEW_MB } else { RSS_MANY_MB };
    figures.target(format!("{count} IPs: resident memory in MB"), rss_mb, Bound::AtMost, limit);
    Ok(())
}

/// Does something while so many threads keep the processors busy.
fn while_busy<T>(threads: usize, measure: impl FnOnce() -> Result<T>) -> Result<T> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    spin_loop();
                }
            });
        }
        let measured = measure();
        over.store(true, Ordering::Relaxed);
        measured
    })
}

const P50_US: f64 = 30.0;
const P99_US: f64 = 500.0;
const BUSY_P99_US: f64 = 10_000.0;
/// Up to so many addresses the smaller limit counts.
const FEW: usize = 100;
const RSS_FEW_MB: f64 = 15.0;
const RSS_MANY_MB: f64 = 30.0;
