//! What forwarded packets pay for a speaker's sockets on the cables of a router.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::Result;
use garpike_announcer::Prefixes;

use super::Output;
use super::figures::{Bound, Figures, median};
use crate::lab::Init;
use crate::lab::load::{Cost, Road, Sockets, Version};

/// Small packets forwarded at the machine's limit, without and with a speaker's sockets on the router
///
/// Exit status 0 only if IPv4 loses at most 1 %, an IPv6 packet pays at most 130 ns, and IPv6 loses at most 1 % with
/// `--ndp-unicast off`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How many service IPs the filters know, half of either family
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..=20_000))]
    addresses: u32,
    /// How long each is driven in each round
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 500,
          value_parser = clap::value_parser!(u64).range(10..=60_000))]
    lasts: u64,
    /// How often each is measured; the median counts
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(super) fn run(init: &mut Init, args: &Args) -> Result<Figures> {
    let mut figures = Figures::begin("forward");
    let road = Road::build(init)?;
    let numbers = || (1..=args.addresses / 2).map(|number| number * 3);
    let v4 = numbers().map(|number| Ipv4Addr::from_bits(0x0a40_0000 + number));
    let prefixes =
        Prefixes::covering(v4, numbers().map(|number| Ipv6Addr::from_bits((0xfd64 << 112) + u128::from(number))));
    let lasts = Duration::from_millis(args.lasts);
    for (version, name) in [(Version::V4, "IPv4"), (Version::V6, "IPv6")] {
        let variants = [
            (Sockets::None, "no socket"),
            (Sockets::Multicast, "--ndp-unicast off"),
            (Sockets::All, "--ndp-unicast on"),
        ];
        let mut seen = variants.map(|_| Vec::new());
        for _ in 0..args.rounds {
            for ((sockets, _), seen) in variants.iter().zip(&mut seen) {
                seen.push(road.drive(version, *sockets, &prefixes, lasts)?);
            }
        }
        let of = |seen: &[Cost], figure: fn(&Cost) -> f64| median(seen.iter().map(figure));
        let [without, off, all] =
            [0, 1, 2].map(|number: usize| seen.get(number).map_or(0.0, |seen| of(seen, ns_per_packet)));
        for ((_, sockets), seen) in variants.iter().zip(&seen) {
            let row = [("ns_per_packet", of(seen, ns_per_packet)), ("packets_per_s", of(seen, per_second))];
            figures.row(format!("{name}, {sockets}"), row);
        }
        match version {
            Version::V4 => {
                let lost = (1.0 - without / all) * 100.0;
                figures.target("IPv4: percent of the throughput lost".to_owned(), lost, Bound::AtMost, LOST_PERCENT);
            }
            Version::V6 => {
                let measure = "IPv6: ns that a packet pays".to_owned();
                figures.target(measure, all - without, Bound::AtMost, NS_PER_PACKET);
                let lost = (1.0 - without / off) * 100.0;
                let measure = "IPv6, --ndp-unicast off: percent of the throughput lost".to_owned();
                figures.target(measure, lost, Bound::AtMost, LOST_PERCENT);
            }
        }
    }
    Ok(figures.end())
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn ns_per_packet(cost: &Cost) -> f64 {
    cost.cpu.as_secs_f64() * 1e9 / cost.packets as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn per_second(cost: &Cost) -> f64 {
    cost.packets as f64 / cost.took.as_secs_f64()
}

const LOST_PERCENT: f64 = 1.0;
const NS_PER_PACKET: f64 = 130.0;
