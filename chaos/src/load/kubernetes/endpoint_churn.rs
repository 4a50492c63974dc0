//! Pods come and go beside others on their nodes: nobody's eligibility changes, so nothing else may.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use garpike_announcer::wire::Message;

use super::rig::{Rig, numbered, place, whole};
use crate::lab::{Init, Tapped, now};
use crate::load::Output;
use crate::load::figures::{Bound, Figures};
use crate::objects::Endpoint;

/// Elections, frames and processor time while EndpointSlices change that decide nothing
///
/// Exit status 0 only if there is no election and no frame, and a speaker needs less than 3 % of a core.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How many Services there are
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    services: u32,
    /// How many EndpointSlices change in a second
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// For how long, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    lasts: u64,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(super) fn run(init: &mut Init, args: &Args) -> Result<Figures> {
    let mut figures = Figures::begin("endpoint-churn");
    let mut rig = Rig::build(init, NODES)?;
    let services: Vec<String> = numbered(args.services).map(|(name, _)| name).collect();
    rig.make(numbered(args.services).map(|(name, ip)| rig.everywhere(name, Some(ip))).collect())?;
    rig.start_speakers()?;
    rig.wait_until_owned(services.len())?;
    let owned = now();
    rig.wait_until_quiet(WRITTEN_WITHIN)?;
    thread::sleep(ANNOUNCED_FOR.saturating_sub(owned.elapsed()));

    let lasts = Duration::from_secs(args.lasts);
    let (quiet, _, quiet_cpu) = watch(&rig, || {
        thread::sleep(lasts);
        Ok(())
    })?;
    let (told, judged) = (rig.metric_of_all(TOLD)?, rig.metric_of_all(JUDGED)?);
    let writes = rig.writes()?.len();
    let one = rig.nodes().iter().map(Endpoint::ready).collect::<Vec<_>>();
    let two: Vec<Endpoint> = one.iter().chain(&one).cloned().collect();
    let interval = Duration::from_secs(1) / args.rate;
    let count = u64::from(args.rate) * args.lasts;
    let (seen, passed, cpu) = watch(&rig, || {
        rig.api.run(async move |client| {
            let begun = tokio::time::Instant::now();
            for (number, name) in (0..count).zip(services.iter().cycle()) {
                tokio::time::sleep_until(begun + interval.saturating_mul(u32::try_from(number)?)).await;
                // A second pod on every node in one round, and none in the next.
                let round = number / services.len() as u64;
                place(client.clone(), name, if round.is_multiple_of(2) { &two } else { &one }).await?;
            }
            Ok(())
        })
    })?;
    let told = rig.metric_of_all(TOLD)? - told;
    let judged = rig.metric_of_all(JUDGED)? - judged;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let (writes, rate) = ((rig.writes()?.len() - writes) as f64, count as f64 / passed.as_secs_f64());
    figures.row("at rest".to_owned(), [("frames", quiet), ("cpu_percent", quiet_cpu)]);
    figures.row(
        "churn".to_owned(),
        [("changes_per_s", rate), ("told", told), ("frames", seen), ("cpu_percent", cpu), ("writes", writes)],
    );
    figures.target("elections".to_owned(), judged, Bound::AtMost, 0.0);
    let usual = quiet * passed.as_secs_f64() / lasts.as_secs_f64();
    figures.target("frames more than at rest".to_owned(), (seen - usual).max(0.0), Bound::AtMost, TURNS);
    figures.target("writes to the API".to_owned(), writes, Bound::AtMost, 0.0);
    figures.target("percent of a core, the busiest speaker".to_owned(), cpu, Bound::AtMost, CPU_PERCENT);
    Ok(figures.end())
}

/// Lets something happen: how many addresses were announced unasked meanwhile, how long it took, and what the busiest
/// speaker used.
fn watch(rig: &Rig<'_>, happen: impl FnOnce() -> Result<()>) -> Result<(f64, Duration, f64)> {
    let tap = rig.lab.tap()?;
    let (before, begun) = (rig.usage()?, now());
    happen()?;
    let (passed, (cpu, _)) = (begun.elapsed(), rig.used_since(&before, begun)?);
    let seen = tap.stop()?;
    whole(&seen)?;
    Ok((announcements(&seen), passed, cpu))
}

/// Announcements of service IPs. The addresses of the pool are announced in turn for quiet networks, one every few hundred
/// milliseconds where there are thousands, so they are compared with those at rest.
fn announcements(seen: &Tapped) -> f64 {
    let unasked = seen.announcements.iter().filter(|seen| match &seen.message {
        Message::Arp(_) | Message::NeighborAdvertisement(_) => seen.message.is_gratuitous(),
        Message::NeighborSolicitation(_) => false,
    });
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let count = unasked.count() as f64;
    count
}

const NODES: usize = 3;
const TOLD: &str = "garpike_speaker_api_updates_total";
const JUDGED: &str = "garpike_speaker_api_judgements_total";
/// Chosen: twice the time that the statuses of 20 000 Services take.
const WRITTEN_WITHIN: Duration = Duration::from_secs(900);
/// A gained address is announced again and again for three minutes; chosen with some room.
const ANNOUNCED_FOR: Duration = Duration::from_secs(200);
/// The first and the last turn of each node fall into the one window or into the other.
const TURNS: f64 = 2.0 * 3.0;
const CPU_PERCENT: f64 = 3.0;
