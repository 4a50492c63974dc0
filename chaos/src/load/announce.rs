//! How long thousands of addresses take to move: from the first frame of an heir to the first frame of the last address.
//!
//! The host that owns all of them dies. The tap on the client's cable is the judge. Some addresses were asked for a
//! moment before: clients wait for those, so they go first.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use garpike_announcer::wire::Message;
use garpike_election::{MacAddr, NodeName};

use super::Output;
use super::figures::{Bound, Figures, median};
use super::rig::{Owners, Rig};
use crate::lab::load::{Audience, Protocol, request};
use crate::lab::{Init, Tapped};

/// The time from the first to the last announcement when the owner of thousands of addresses dies
///
/// Exit status 0 only if the last address follows the first within 0.5 s (up to 4000) or 1.2 s, and those that were asked
/// for lately within 100 ms.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How many service IPs the host owns that dies, half of either family; several are tried one after the other
    #[arg(long, value_delimiter = ',', default_values_t = [4000, 10_000],
          value_parser = clap::value_parser!(u32).range(2..=20_000))]
    addresses: Vec<u32>,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=20))]
    nodes: u8,
    /// How often each; every one in a new lab
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    trials: u32,
    /// Keep /metrics of the last heir there
    #[arg(long, value_name = "FILE")]
    metrics_to: Option<PathBuf>,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(super) fn run(init: &mut Init, args: &Args) -> Result<Figures> {
    let mut figures = Figures::begin("announce-10k");
    for addresses in &args.addresses {
        let mut moves = Vec::new();
        for _ in 0..args.trials {
            let mut rig = Rig::build(
                init,
                usize::from(args.nodes),
                usize::from(args.nodes),
                usize::try_from(*addresses)?,
                Owners::First,
            )?;
            rig.wait_until_whole()?;
            let moved = one(&mut rig);
            if let Some(path) = &args.metrics_to {
                let heir = rig.lab.nodes().nth(1).context("the lab has no second node")?;
                fs::write(path, rig.metrics(heir)?).with_context(|| path.display().to_string())?;
            }
            moves.push(moved?);
        }
        let of = |figure: fn(&Move) -> Duration| median(moves.iter().map(|one| figure(one).as_secs_f64() * 1000.0));
        let worst = |figure: fn(&Move) -> Duration| {
            moves.iter().map(|one| figure(one).as_secs_f64() * 1000.0).fold(0.0, f64::max)
        };
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let frames = median(moves.iter().map(|one| one.frames as f64));
        figures.row(
            format!("{addresses:>5} IPs, {} nodes", args.nodes),
            [
                ("first_ms", of(|one| one.first)),
                ("half_after_first_ms", of(|one| one.half)),
                ("last_after_first_ms", of(|one| one.last)),
                ("last_after_first_worst_ms", worst(|one| one.last)),
                ("asked_after_first_ms", of(|one| one.asked)),
                ("asked_after_first_worst_ms", worst(|one| one.asked)),
                ("frames_of_5s", frames),
            ],
        );
        let limit = if *addresses <= SOME { LAST_OF_SOME_MS } else { LAST_OF_MANY_MS };
        figures.target(format!("{addresses} IPs: last after first, ms"), of(|one| one.last), Bound::AtMost, limit);
        figures.target(
            format!("{addresses} IPs: asked for lately, after first, ms"),
            of(|one| one.asked),
            Bound::AtMost,
            ASKED_MS,
        );
    }
    Ok(figures.end())
}

/// One death.
struct Move {
    /// From the death to the first frame of an heir.
    first: Duration,
    /// From that to the first frame of half of the addresses.
    half: Duration,
    /// Of the last address.
    last: Duration,
    /// Of the last address that was asked for lately.
    asked: Duration,
    /// Announcements within the time that it was watched.
    frames: usize,
}

fn one(rig: &mut Rig<'_>) -> Result<Move> {
    let victim: NodeName = rig.lab.nodes().next().context("the lab has no node")?.clone();
    let owner = rig.lab.host(&victim)?.mac;
    let lately = ask_lately(rig)?;
    let tap = rig.lab.tap()?;
    let died = rig.lab.crash(&victim)?;
    thread::sleep(WATCHED);
    let seen = tap.stop()?;
    let lost = u64::from(seen.missed) + seen.forgotten;
    if lost > 0 {
        bail!("the tap lost {lost} frames: run it again on a calmer machine");
    }
    let (claimed, frames) = first_claims(&seen, owner, died);
    let missing = rig.ips.iter().filter(|ip| !claimed.contains_key(&ip.addr())).count();
    if missing > 0 {
        bail!("{missing} of {} addresses were not announced within {WATCHED:?}", rig.ips.len());
    }
    let mut times: Vec<Instant> = claimed.values().copied().collect();
    times.sort_unstable();
    let (first, last) = (times.first().context("nothing moved")?, times.last().context("nothing moved")?);
    let asked = claimed.iter().filter(|(ip, _)| lately.contains(ip)).map(|(_, at)| *at).max().unwrap_or(*first);
    Ok(Move {
        first: *first - died,
        half: *times.get(times.len() / 2).context("nothing moved")? - *first,
        last: *last - *first,
        asked: asked - *first,
        frames,
    })
}

/// Asks the whole segment for some addresses, spread over all, as clients do.
fn ask_lately(rig: &Rig<'_>) -> Result<BTreeSet<IpAddr>> {
    let mut lately = BTreeSet::new();
    for protocol in [Protocol::Arp, Protocol::Ndp] {
        let socket = rig.lab.client_socket(protocol)?;
        let ips = rig.ips_of(protocol);
        let step = (ips.len() / ASKED).max(1);
        for ip in ips.iter().skip(step / 2).step_by(step).take(ASKED) {
            socket.send(&request(*ip, Audience::Segment))?;
            lately.insert(*ip);
        }
    }
    thread::sleep(ASKED_BEFORE);
    Ok(lately)
}

/// When each address was first announced by another station than its owner, and how many frames announced any.
fn first_claims(seen: &Tapped, owner: MacAddr, after: Instant) -> (BTreeMap<IpAddr, Instant>, usize) {
    let (mut claimed, mut frames) = (BTreeMap::new(), 0);
    for announcement in seen.announcements.iter().filter(|announcement| announcement.at > after) {
        let unasked = match &announcement.message {
            Message::Arp(_) | Message::NeighborAdvertisement(_) => announcement.message.is_gratuitous(),
            Message::NeighborSolicitation(_) => false,
        };
        let claim = announcement.message.claim().filter(|claim| unasked && claim.mac != owner);
        if let Some(claim) = claim {
            claimed.entry(claim.ip).or_insert(announcement.at);
            frames += 1;
        }
    }
    (claimed, frames)
}

/// Chosen: each step of the first announcements is over.
const WATCHED: Duration = Duration::from_secs(5);
/// Chosen: how many addresses of either family clients have asked for.
const ASKED: usize = 50;
const ASKED_BEFORE: Duration = Duration::from_secs(1);
/// Up to so many addresses the smaller limit counts.
const SOME: u32 = 4000;
const LAST_OF_SOME_MS: f64 = 500.0;
const LAST_OF_MANY_MS: f64 = 1200.0;
const ASKED_MS: f64 = 100.0;
