//! The last pod on the owner of a Service with `externalTrafficPolicy: Local` is told to end.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use garpike_election::{NodeName, ServiceIp};

use super::rig::{Rig, Wanted, place, whole};
use crate::fleet::Fleet;
use crate::lab::{Init, Role, echo, now};
use crate::load::Output;
use crate::load::figures::{Bound, Figures, median};
use crate::objects::{Endpoint, Stage, TrafficPolicy};

/// Lost probes while the last pod on the owner's node ends, and when the address has moved
///
/// The pod serves for two more seconds, as one does that is told to end. Exit status 0 only if no probe is lost and the
/// address is elsewhere before the pod is gone.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How often
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    trials: u32,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(super) fn run(init: &mut Init, args: &Args) -> Result<Figures> {
    let mut figures = Figures::begin("local-terminates");
    let mut rig = Rig::build(init, NODES)?;
    let ip = ServiceIp::new(ON_THE_SEGMENT).context("it is the address of a host")?;
    let nodes = rig.nodes();
    let endpoints = nodes.iter().take(WITH_A_POD).map(Endpoint::ready).collect();
    rig.make(vec![Wanted { name: SERVICE.to_owned(), ip: Some(ip), policy: TrafficPolicy::Local, endpoints }])?;
    for node in nodes.iter().take(WITH_A_POD) {
        rig.lab.spawn(node, Role::Echo, echo::command(&[Fleet::target(ip)]))?;
    }
    rig.start_speakers()?;
    rig.wait_until_owned(1)?;
    // The first announcements are over after 3 s.
    thread::sleep(SETTLES_WITHIN);
    let (mut lost, mut moved) = (0, Vec::new());
    for trial in 0..args.trials {
        let one = one(&mut rig, ip).with_context(|| format!("trial {trial}"))?;
        lost += one.lost;
        moved.push(one.moved.as_secs_f64() * 1000.0);
    }
    let worst = moved.iter().copied().fold(0.0, f64::max);
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let lost = lost as f64;
    let row = [
        ("trials", f64::from(args.trials)),
        ("lost_probes", lost),
        ("moved_ms_median", median(moved)),
        ("moved_ms_max", worst),
    ];
    figures.row("last pod of the owner".to_owned(), row);
    figures.target("lost probes".to_owned(), lost, Bound::AtMost, 0.0);
    figures.target("ms until the address is elsewhere".to_owned(), worst, Bound::AtMost, GRACE.as_secs_f64() * 1000.0);
    Ok(figures.end())
}

/// What the client saw.
struct Trial {
    lost: usize,
    /// From the change of the EndpointSlice until another node answered.
    moved: Duration,
}

fn one(rig: &mut Rig<'_>, ip: ServiceIp) -> Result<Trial> {
    let tap = rig.lab.tap()?;
    let probe = rig.lab.probe(Fleet::target(ip), INTERVAL)?;
    if !probe.wait_for_answer(ANSWERED_WITHIN) {
        bail!("{ip} is not answered");
    }
    thread::sleep(BEFORE);
    let answers = tap.so_far()?.answers;
    let mac = answers.back().context("the tap saw no answer")?.mac;
    let nodes = rig.nodes();
    let owner = nodes.iter().find(|node| rig.lab.host(node).is_ok_and(|host| host.mac == mac));
    let owner = owner.context("a stranger answers")?.clone();
    let at = now();
    move_pods(rig, &owner, Some(Stage::Terminating))?;
    thread::sleep(GRACE);
    rig.lab.kill_echo(&owner)?;
    move_pods(rig, &owner, None)?;
    thread::sleep(AFTER);
    let end = now();
    let record = probe.stop();
    let seen = tap.stop()?;
    whole(&seen)?;
    let elsewhere = seen.answers.iter().find(|answer| answer.at > at && answer.mac != mac);
    let moved = elsewhere.with_context(|| format!("{ip} is still at {owner}"))?.at - at;
    rig.lab.spawn(&owner, Role::Echo, echo::command(&[Fleet::target(ip)]))?;
    thread::sleep(BEFORE);
    move_pods(rig, &owner, Some(Stage::Ready))?;
    thread::sleep(SETTLES_WITHIN);
    Ok(Trial { lost: record.lost(at, end - ON_THE_WAY), moved })
}

/// Writes where the pods are; the owner's is in this stage, or gone.
fn move_pods(rig: &Rig<'_>, owner: &NodeName, stage: Option<Stage>) -> Result<()> {
    let endpoint = |node: NodeName| {
        let stage = if node == *owner { stage? } else { Stage::Ready };
        Some(Endpoint { node, stage })
    };
    let endpoints: Vec<Endpoint> = rig.nodes().into_iter().take(WITH_A_POD).filter_map(endpoint).collect();
    rig.api.run(async move |client| place(client, SERVICE, &endpoints).await)
}

/// Within the client's net: it probes it.
const ON_THE_SEGMENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 10, 1));
const NODES: usize = 3;
/// The third node has none.
const WITH_A_POD: usize = 2;
const SERVICE: &str = "local";
const INTERVAL: Duration = Duration::from_millis(5);
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
const BEFORE: Duration = Duration::from_millis(300);
/// Chosen: short for a pod, whose default is 30 s.
const GRACE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_millis(1500);
/// A probe that is not answered by then was not sent in time to be.
const ON_THE_WAY: Duration = Duration::from_millis(100);
/// The first announcements of a gained address are over.
const SETTLES_WITHIN: Duration = Duration::from_millis(3500);
