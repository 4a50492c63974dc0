//! What a flood of requests costs that a speaker must not answer, and whether it goes on with its work meanwhile.
//!
//! Three speakers share many addresses. The client floods the whole segment with requests: first for addresses that no
//! Service has and no filter passes, then for addresses that no Service has but that lie between those of each node.
//! Beside it, it asks one node for addresses of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use garpike_announcer::wire;
use garpike_election::{MacAddr, NodeName};

use super::Output;
use super::figures::{Bound, Figures, micros, permille};
use super::rig::{Owners, Rig, Spent};
use crate::lab::load::{Audience, OpenLoop, Protocol, flood, request, who_has};
use crate::lab::{Init, now};

/// The cost of 50 000 ARP requests a second that are not to be answered, and the latency of owned addresses meanwhile
///
/// Exit status 0 only if a speaker needs at most 5 % of a processor for addresses outside, 25 % for addresses between
/// its own, answers for its own with p99.9 of 5 ms, and convicts nobody meanwhile.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How many service IPs the cluster has, half of either family
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..=20_000))]
    addresses: u32,
    /// Requests of the flood per second
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    per_second: u32,
    /// For how long
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    lasts: u64,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(super) fn run(init: &mut Init, args: &Args) -> Result<Figures> {
    let mut figures = Figures::begin("flood");
    let mut rig = Rig::build(init, NODES, NODES, usize::try_from(args.addresses)?, Owners::All)?;
    rig.wait_until_whole()?;
    let nodes: Vec<NodeName> = rig.lab.nodes().cloned().collect();
    let owners = who_has(&rig.lab.client_socket(Protocol::Arp)?, &rig.ips_of(Protocol::Arp))?;
    let asked = Asked::of_most(&rig, &nodes, &owners)?;
    let inside = Rig::gaps(args.addresses / 2).into_iter().map(|ip| request(ip, Audience::Segment)).collect();
    let outside = (0..u8::MAX).map(|last| request(Ipv4Addr::new(172, 16, 0, last).into(), Audience::Segment)).collect();

    let before = verdicts(&rig, &nodes)?;
    let idle = one(&rig, &nodes, &asked, &[], args, "no flood", &mut figures)?;
    let floods: [(&str, Vec<wire::Bytes>, f64); 2] =
        [("outside", outside, OUTSIDE_PERCENT), ("inside, not ours", inside, INSIDE_PERCENT)];
    for (what, frames, limit) in floods {
        let cpu = one(&rig, &nodes, &asked, &frames, args, what, &mut figures)?;
        let worst = nodes.iter().filter_map(|node| Some(cpu.get(node)? - idle.get(node)?)).fold(0.0, f64::max);
        figures.target(format!("{what}: percent of a processor for the flood alone"), worst, Bound::AtMost, limit);
    }
    let convicted = verdicts(&rig, &nodes)? - before;
    figures.target("verdicts about members".to_owned(), convicted, Bound::AtMost, 0.0);
    Ok(figures.end())
}

/// The node that is asked for what it owns.
struct Asked {
    node: NodeName,
    mac: MacAddr,
    own: Vec<IpAddr>,
}

impl Asked {
    /// The node that answers for most addresses: the election may prefer some to others.
    fn of_most(rig: &Rig<'_>, nodes: &[NodeName], owners: &BTreeMap<IpAddr, MacAddr>) -> Result<Self> {
        let mut all = Vec::new();
        for node in nodes {
            let mac = rig.lab.host(node)?.mac;
            let own = owners.iter().filter(|(_, owner)| **owner == mac).map(|(ip, _)| *ip).collect();
            all.push(Self { node: node.clone(), mac, own });
        }
        let most = all.into_iter().max_by_key(|asked| asked.own.len());
        most.filter(|asked| !asked.own.is_empty()).context("nobody answers for any address")
    }
}

/// Floods, and asks a node for what it owns meanwhile; gives what each speaker used of a processor, in percent.
fn one(
    rig: &Rig<'_>,
    nodes: &[NodeName],
    asked: &Asked,
    frames: &[wire::Bytes],
    args: &Args,
    what: &str,
    figures: &mut Figures,
) -> Result<BTreeMap<NodeName, f64>> {
    let load =
        OpenLoop { station: asked.mac, per_second: ASKED_PER_SECOND, lasts: Duration::from_secs(args.lasts), seed: 1 };
    let [asking, flooding] = [rig.lab.client_socket(Protocol::Arp)?, rig.lab.client_socket(Protocol::Arp)?];
    let spent = || nodes.iter().map(|node| Spent::of(rig.speaker(node)?)).collect::<Result<Vec<Spent>>>();
    let (over, begun, before) = (AtomicBool::new(false), now(), spent()?);
    let (seen, flooded) = thread::scope(|scope| {
        let flooder = scope.spawn(|| match frames {
            [] => Ok(0),
            frames => flood(&flooding, frames, args.per_second, &over),
        });
        let seen = load.run(&asking, &asked.own);
        over.store(true, Ordering::Relaxed);
        (seen, flooder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let (seen, flooded, took) = (seen?, flooded?, begun.elapsed());
    let used = before.iter().zip(spent()?).map(|(before, after)| after.cpu.saturating_sub(before.cpu));
    let cpu: BTreeMap<NodeName, f64> =
        nodes.iter().cloned().zip(used.map(|used| used.as_secs_f64() / took.as_secs_f64() * 100.0)).collect();

    let of = |rank| micros(permille(&seen.latencies_ns, rank));
    let of_node = |node: &NodeName| cpu.get(node).copied().unwrap_or_default();
    let others = nodes.iter().filter(|node| **node != asked.node).map(of_node).fold(0.0, f64::max);
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let row = [
        ("flood_per_s", flooded as f64 / took.as_secs_f64()),
        ("cpu_percent_asked", of_node(&asked.node)),
        ("cpu_percent_others_at_most", others),
        ("owned", asked.own.len() as f64),
        ("unanswered", seen.unanswered as f64),
        ("p50_us", of(500)),
        ("p99_us", of(990)),
        ("p99.9_us", of(999)),
    ];
    figures.row(what.to_owned(), row);
    figures.target(format!("{what}: p99.9 us of owned addresses"), of(999), Bound::AtMost, OWNED_P999_US);
    Ok(cpu)
}

/// How many verdicts the speakers have reached or been told.
fn verdicts(rig: &Rig<'_>, nodes: &[NodeName]) -> Result<f64> {
    nodes.iter().map(|node| rig.metric(node, VERDICTS)).sum()
}

const NODES: usize = 3;
const ASKED_PER_SECOND: u32 = 1000;
const OUTSIDE_PERCENT: f64 = 5.0;
const INSIDE_PERCENT: f64 = 25.0;
const OWNED_P999_US: f64 = 5000.0;
const VERDICTS: &str = "garpike_membership_verdicts_total";
