//! How long after a Service was given an address the first frame says where it is.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use garpike_election::MacAddr;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::rig::{Rig, addresses, give, numbered, whole};
use crate::lab::{Init, now};
use crate::load::Output;
use crate::load::figures::{Bound, Figures};
use crate::report::Distribution;

/// The time from the request that writes an address into the status of a Service until the client hears of it
///
/// Exit status 0 only if 99 of 100 Services are heard of within 100 ms.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How many Services have an address before
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    services: u32,
    /// How many more are given one, one after the other
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    trials: u32,
    /// What decides when
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(super) fn run(init: &mut Init, args: &Args) -> Result<Figures> {
    let mut figures = Figures::begin("service-to-garp");
    let mut rig = Rig::build(init, NODES)?;
    let before = usize::try_from(args.services)?;
    let services = numbered(args.services).map(|(name, ip)| rig.everywhere(name, Some(ip)));
    let new: Vec<String> = (0..args.trials).map(|number| format!("new-{number}")).collect();
    let waiting = new.iter().map(|name| rig.everywhere(name.clone(), None));
    rig.make(services.chain(waiting).collect())?;
    rig.start_speakers()?;
    rig.wait_until_owned(before)?;
    rig.wait_until_quiet(WRITTEN_WITHIN)?;

    let mut random = StdRng::seed_from_u64(args.seed);
    let tap = rig.lab.tap()?;
    let mut given = Vec::new();
    for (name, ip) in new.into_iter().zip(addresses().skip(before)) {
        thread::sleep(Duration::from_millis(random.random_range(BETWEEN_MILLIS)));
        let (begun, written) = rig.api.run(async move |client| {
            let begun = now();
            give(client, &name, ip).await?;
            Ok((begun, now()))
        })?;
        given.push((ip, begun, written));
    }
    thread::sleep(HEARD_WITHIN);
    let seen = tap.stop()?;
    whole(&seen)?;
    let first = |ip: garpike_election::ServiceIp, after| Some(seen.first_claim(ip.addr(), NOBODY, after)?.0);
    let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
    let heard = given.iter().map(|(ip, begun, _)| first(*ip, *begun).map(|at| millis(at - *begun)));
    let heard = Distribution::of(heard).context("no Service was given an address")?;
    let writes = Distribution::of(given.iter().map(|(_, begun, written)| Some(millis(*written - *begun))));
    for (name, all) in [("request to first frame", Some(heard)), ("request to answer", writes)] {
        let Some(all) = all else { continue };
        let figure = |value: Option<f64>| value.unwrap_or(f64::INFINITY);
        let row = [
            ("p50_ms", figure(all.p50)),
            ("p90_ms", figure(all.p90)),
            ("p99_ms", figure(all.p99)),
            ("max_ms", figure(all.max)),
        ];
        figures.row(name.to_owned(), row);
    }
    let p99 = heard.p99.unwrap_or(f64::INFINITY);
    figures.target("ms until the first frame, p99".to_owned(), p99, Bound::AtMost, P99_MS);
    Ok(figures.end())
}

const NODES: usize = 3;
/// No station has it.
const NOBODY: MacAddr = MacAddr([0; 6]);
/// Chosen: some come while what the one before has brought is still going on.
const BETWEEN_MILLIS: std::ops::RangeInclusive<u64> = 20..=300;
const HEARD_WITHIN: Duration = Duration::from_secs(2);
/// Chosen: twice the time that the statuses of 20 000 Services take.
const WRITTEN_WITHIN: Duration = Duration::from_secs(900);
const P99_MS: f64 = 100.0;
