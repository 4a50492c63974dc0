//! What a speaker needs that knows thousands of Services and a hundred nodes, and how long it computes when one dies.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use garpike_election::{
    Address, Desired, Elector, Endpoints, Member, Members, NodeName, NodeState, Placement, Selection,
};

use super::rig::{Rig, numbered, whole};
use crate::lab::{Init, now};
use crate::load::Output;
use crate::load::figures::{Bound, Figures, median};
use crate::objects;

/// Memory and processor time of a speaker at rest with thousands of Services and a hundred Nodes, and the time of an election
/// after a death
///
/// Exit status 0 only if a speaker needs at most 40 MB and 1 % of a core, and an election at most 5 ms.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How many Services have an address
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    services: u32,
    /// How many Nodes there are; the first three run a speaker
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(3..=200))]
    nodes: u8,
    /// For how long the speakers are watched at rest, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    lasts: u64,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(super) fn run(init: &mut Init, args: &Args) -> Result<Figures> {
    let mut figures = Figures::begin("speaker-scale");
    let mut rig = Rig::build(init, SPEAKERS)?.with_unbound_ips();
    let silent = (0..args.nodes).skip(SPEAKERS).map(|number| {
        let name = NodeName::new(&format!("silent-{number}")).context("letters and digits are a node name")?;
        Ok(objects::node(&name, IpAddr::from(Ipv4Addr::new(192, 168, 9, number))))
    });
    rig.api.write_with_status(silent.collect::<Result<_>>()?)?;
    rig.make(numbered(args.services).map(|(name, ip)| rig.everywhere(name, Some(ip))).collect())?;
    let started = now();
    rig.start_speakers()?;
    rig.wait_until_owned(usize::try_from(args.services)?)?;
    let ready = started.elapsed();
    let full = rig.used_since(&rig.usage()?, started)?.1;
    rig.wait_until_quiet(WRITTEN_WITHIN)?;

    let (before, begun) = (rig.usage()?, now());
    thread::sleep(Duration::from_secs(args.lasts));
    let (cpu, rss) = rig.used_since(&before, begun)?;
    figures.row(
        format!("{} Services, {} Nodes", args.services, args.nodes),
        [("rss_mb", rss), ("rss_when_owning_mb", full), ("cpu_percent", cpu), ("owning_after_s", ready.as_secs_f64())],
    );
    let moved = one_death(&mut rig)?;
    figures.row("a host dies".to_owned(), [("first_frame_ms", moved)]);
    let election = elections(args.services, args.nodes)?;
    figures.row("election after a death".to_owned(), [("p50_ms", election)]);
    figures.target("MB of a speaker".to_owned(), rss, Bound::AtMost, RSS_MB);
    figures.target("percent of a core at rest".to_owned(), cpu, Bound::AtMost, CPU_PERCENT);
    figures.target("ms of an election after a death, median".to_owned(), election, Bound::AtMost, ELECTION_MS);
    Ok(figures.end())
}

/// Lets a host die and gives the time until another one announces, in milliseconds.
fn one_death(rig: &mut Rig<'_>) -> Result<f64> {
    let victim = rig.nodes().into_iter().next().context("the lab has no node")?;
    let mac = rig.lab.host(&victim)?.mac;
    let tap = rig.lab.tap()?;
    let died = rig.lab.crash(&victim)?;
    thread::sleep(MOVED_WITHIN);
    let seen = tap.stop()?;
    whole(&seen)?;
    let first = seen.announcements.iter().find(|seen| {
        seen.at > died && seen.message.is_gratuitous() && seen.message.claim().is_some_and(|claim| claim.mac != mac)
    });
    Ok((first.context("nothing moved")?.at - died).as_secs_f64() * 1000.0)
}

/// The same election in this process: nobody outside can see how long a speaker computes.
fn elections(services: u32, nodes: u8) -> Result<f64> {
    let name = |number: u8| NodeName::new(&format!("n{number}")).expect("letters and digits are a node name");
    let mut desired = Desired::default();
    for (_, ip) in numbered(services) {
        let placements = vec![Placement { nodes: Selection::All, interfaces: Selection::All }];
        let address = Address { services: [].into(), election_key: ip, placements, endpoints: Endpoints::Anywhere };
        desired.addresses.insert(ip, address);
    }
    let all: BTreeMap<NodeName, Member> =
        (0..nodes).map(|number| (name(number), Member::new(NodeState::Ready, Selection::All))).collect();
    let alive = Members { local: name(0), nodes: all };
    let mut elector = Elector::default();
    elector.elect(&desired, &alive);
    let mut times = Vec::new();
    for number in 1..nodes.min(ELECTIONS) {
        let mut after = alive.clone();
        after.nodes.remove(&name(number));
        let begun = now();
        std::hint::black_box(elector.elect(&desired, &after));
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(median(times))
}

const SPEAKERS: usize = 3;
const ELECTIONS: u8 = 40;
const MOVED_WITHIN: Duration = Duration::from_secs(5);
/// Chosen: some times what 50 writes a second and node need for 50 000 Services.
const WRITTEN_WITHIN: Duration = Duration::from_secs(3600);
const RSS_MB: f64 = 40.0;
const CPU_PERCENT: f64 = 1.0;
const ELECTION_MS: f64 = 5.0;
