//! How many requests a second are answered, beside the least that a user-space responder can do and beside a kernel.
//!
//! Three nodes, one responder each: the speaker, the yardstick in C, the kernel. They are measured in turn, several
//! times, so that other work on the machine hits all of them.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use garpike_election::{MacAddr, NodeName};
use nix::unistd::Pid;

use super::Output;
use super::figures::{Bound, Figures, median, micros, permille};
use super::rig::{Owners, Rig, Spent};
use crate::lab::load::{ClosedLoop, Protocol, Yardstick};
use crate::lab::{Host, Init};

/// Requests answered per second, 1, 8 and 64 in flight, against a minimal responder in C and the kernel
///
/// Needs a C compiler. Exit status 0 only if the speaker reaches 80 % of the responder in C at 64 in flight.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How many service IPs the speaker owns, half of either family; several are measured one after the other
    #[arg(long, value_delimiter = ',', default_values_t = [10, 10_000],
          value_parser = clap::value_parser!(u32).range(2..=20_000))]
    addresses: Vec<u32>,
    /// How many requests are on their way at any time
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64],
          value_parser = clap::value_parser!(u8).range(1..=64))]
    in_flight: Vec<u8>,
    /// How long each responder is asked in each round
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000,
          value_parser = clap::value_parser!(u64).range(10..=60_000))]
    lasts: u64,
    /// How often each is measured; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(super) fn run(init: &mut Init, args: &Args) -> Result<Figures> {
    let yardstick = Yardstick::compile(init.scratch())?;
    let mut figures = Figures::begin("arp-rate");
    for addresses in &args.addresses {
        let mut rig = Rig::build(init, NODES, 1, usize::try_from(*addresses)?, Owners::All)?;
        rig.wait_until_whole()?;
        for protocol in [Protocol::Arp, Protocol::Ndp] {
            compare(&mut rig, &yardstick, protocol, args, &mut figures)?;
        }
    }
    Ok(figures.end())
}

/// A responder under test.
struct Responder {
    name: &'static str,
    mac: MacAddr,
    /// `None`: the kernel.
    pid: Option<Pid>,
    ips: Vec<IpAddr>,
    seen: Vec<Seen>,
}

/// One round.
struct Seen {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    lost: u64,
    cpu_us_per_answer: Option<f64>,
}

fn compare(
    rig: &mut Rig<'_>,
    yardstick: &Yardstick,
    protocol: Protocol,
    args: &Args,
    figures: &mut Figures,
) -> Result<()> {
    let nodes: Vec<NodeName> = rig.lab.nodes().cloned().collect();
    let [speaker, minimal, kernel] = nodes.as_slice() else { bail!("the lab has {} nodes", nodes.len()) };
    let ips = rig.ips_of(protocol);
    // A kernel looks an address up in a hash table: a few addresses are as good as many.
    let few: Vec<IpAddr> = ips.iter().take(KERNEL_ADDRESSES).copied().collect();
    for ip in &few {
        rig.lab.add_address(kernel, *ip)?;
    }
    // A kernel answers only whom it can note as a neighbour. The speaker asks the client from each of its addresses; thousands
    // of them fill the table of the machine (1024 entries by default).
    rig.lab.introduce_client(kernel)?;
    let pid = yardstick.start(&mut rig.lab, minimal, protocol)?;
    let mac = |node: &NodeName| rig.lab.host(node).map(|host: Host| host.mac);
    let mut responders = [
        Responder {
            name: "speaker",
            mac: mac(speaker)?,
            pid: Some(rig.speaker(speaker)?),
            ips: ips.clone(),
            seen: vec![],
        },
        Responder { name: "minimal C", mac: mac(minimal)?, pid: Some(pid), ips, seen: vec![] },
        Responder { name: "kernel", mac: mac(kernel)?, pid: None, ips: few.clone(), seen: vec![] },
    ];
    for in_flight in &args.in_flight {
        for round in 0..args.rounds {
            for responder in &mut responders {
                let load = ClosedLoop {
                    station: responder.mac,
                    in_flight: usize::from(*in_flight),
                    lasts: Duration::from_millis(args.lasts),
                    seed: u64::from(round),
                };
                responder.ask(rig, protocol, load)?;
            }
        }
        report(rig.ips.len(), protocol, *in_flight, &mut responders, figures)?;
    }
    if let Some(exit) = rig.lab.unexpected_exits().first() {
        bail!("{exit}");
    }
    for ip in few {
        rig.lab.remove_address(kernel, ip)?;
    }
    Ok(yardstick.end(&mut rig.lab, minimal)?)
}

impl Responder {
    fn ask(&mut self, rig: &Rig<'_>, protocol: Protocol, load: ClosedLoop) -> Result<()> {
        let socket = rig.lab.client_socket(protocol)?;
        let spent = || self.pid.map(Spent::of).transpose();
        let before = spent()?;
        let seen = load.run(&socket, &self.ips)?;
        let cpu = before.zip(spent()?).map(|(before, after)| after.cpu.saturating_sub(before.cpu));
        if seen.answers == 0 {
            bail!("the {} answers nothing by {}", self.name, protocol.as_str());
        }
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let answers = seen.answers as f64;
        self.seen.push(Seen {
            per_second: seen.per_second(),
            p50_us: micros(permille(&seen.latencies_ns, 500)),
            p99_us: micros(permille(&seen.latencies_ns, 990)),
            lost: seen.lost,
            cpu_us_per_answer: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / answers),
        });
        Ok(())
    }
}

/// Adds what all rounds together say, and forgets the rounds.
fn report(
    addresses: usize,
    protocol: Protocol,
    in_flight: u8,
    responders: &mut [Responder; 3],
    figures: &mut Figures,
) -> Result<()> {
    let what = format!("{} {addresses:>5} IPs {in_flight:>2} in flight", protocol.as_str());
    for responder in responders.iter() {
        let of = |figure: fn(&Seen) -> f64| median(responder.seen.iter().map(figure));
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let mut row = vec![
            ("answers_per_s", of(|seen| seen.per_second)),
            ("p50_us", of(|seen| seen.p50_us)),
            ("p99_us", of(|seen| seen.p99_us)),
            ("lost", responder.seen.iter().map(|seen| seen.lost).sum::<u64>() as f64),
        ];
        if responder.pid.is_some() {
            row.push(("cpu_us_per_answer", of(|seen| seen.cpu_us_per_answer.unwrap_or_default())));
        }
        figures.row(format!("{what}  {:<9}", responder.name), row);
    }
    let [speaker, minimal, _] = &*responders;
    let ratios = speaker.seen.iter().zip(&minimal.seen).map(|(ours, minimal)| ours.per_second / minimal.per_second);
    let ratio = median(ratios);
    if in_flight == 64 {
        figures.target(format!("{what}: of the minimal C responder's rate"), ratio, Bound::AtLeast, 0.8);
        let reached = median(speaker.seen.iter().map(|seen| seen.per_second));
        let peer = METALLB.iter().rfind(|(owned, ..)| addresses >= *owned);
        if let Some((owned, rate, times)) = peer.filter(|_| protocol == Protocol::Arp) {
            let measure = format!("{what}: of MetalLB's rate with {owned} addresses ({rate:.0}/s)");
            figures.target(measure, reached / rate, Bound::AtLeast, *times);
        }
    }
    for responder in responders {
        responder.seen.clear();
    }
    Ok(())
}

const NODES: usize = 3;
const KERNEL_ADDRESSES: usize = 10;
/// MetalLB 0.16.1 on a machine with two processors like this one, by the same kind of loop: with so many addresses, its
/// answers per second, and how many times that is to be reached with as many or more. It slows down with their number.
const METALLB: [(usize, f64, f64); 2] = [(10, 102_960.0, 2.0), (4000, 16_017.0, 10.0)];
