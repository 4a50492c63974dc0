//! `garpike demo`: a failover before the user's eyes.
//!
//! Builds the lab, starts the shipped speakers, kills the owner of a Service a few times without a word, and shows what
//! the client saw each time. With `--simulate` the same cores run in virtual time, for systems that forbid namespaces.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use garpike_election::{NodeName, ServiceIp};
use garpike_speaker::Profile;

use crate::fleet::{Families, Fleet, FleetConfig, Source};
use crate::lab::{Entered, Init, Links, Record, enter};
use crate::observe::{Observation, Watched, observe};
use crate::report::{Distribution, Finding, load_average};
use crate::scenario::Scenario;
use crate::sim;

/// Shows a failover: builds a small network on this machine, kills the owner of a Service, measures what a client sees
///
/// Needs Linux and nothing else: every node is a network namespace with a real kernel stack and the real speaker.
/// Works as root and, where user namespaces are allowed, as an ordinary user. Leaves nothing behind.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:\n  garpike demo\n  garpike demo --nodes 5 --kills 3 --family v4\n  \
                        garpike demo --simulate")]
pub struct Args {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=20))]
    nodes: u8,
    /// How often the owner is killed
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100))]
    kills: u8,
    /// What the client speaks
    #[arg(long, value_enum, default_value_t = Families::Both)]
    family: Families,
    /// Run the same code in virtual time instead of a lab; needs no namespaces
    #[arg(long)]
    simulate: bool,
}

/// Runs the demo. To be called before any thread is started.
///
/// # Errors
///
/// When the lab cannot be built; the error names the setting of the system that forbids it.
pub fn run(args: &Args) -> Result<ExitCode> {
    if args.simulate {
        return simulate(args);
    }
    match enter().context("the demo needs namespaces; `garpike demo --simulate` does not")? {
        Entered::Outside { status } => Ok(ExitCode::from(status)),
        Entered::Inside(mut init) => show(args, &mut init),
    }
}

fn show(args: &Args, init: &mut Init) -> Result<ExitCode> {
    let mut screen = Screen::new();
    let nodes = usize::from(args.nodes);
    screen.line(format_args!("garpike demo: {nodes} nodes and a client on one segment, all in network namespaces"))?;
    screen.status("starting the speakers")?;
    let config =
        FleetConfig { nodes, links: Links::One, services: 1, profile: Profile::Default, source: Source::Manifests };
    let mut fleet = Fleet::start(init, config)?;
    let started = fleet.wait_until_whole()?;
    let probed = fleet.probed(args.family);
    let ips = probed.iter().map(ToString::to_string).collect::<Vec<_>>().join("  ");
    screen.line(format_args!("pool       first-pool 192.168.10.0/24, 192.168.9.1-192.168.9.5 and"))?;
    screen.line(format_args!("           fc00:f853:ccd:e799::/124, as in MetalLB's documentation"))?;
    screen.line(format_args!("service    default/web  {ips}"))?;
    screen.line(format_args!("members    {}  ({:.1} s after the start)", members(&fleet)?, started.as_secs_f64()))?;
    screen.line(format_args!("client     asks each address every {} ms over UDP", INTERVAL.as_millis()))?;
    let mut outages: Vec<(ServiceIp, Vec<Option<f64>>)> = probed.iter().map(|ip| (*ip, Vec::new())).collect();
    for kill in 1..=args.kills {
        screen.line(format_args!(""))?;
        let watched = Watched {
            scenario: Scenario::Crash,
            lasts: None,
            families: args.family,
            interval: INTERVAL,
            seed: u64::from(kill),
        };
        let seen = observe(&mut fleet, watched, &mut |answered| screen.client(answered))?;
        let victim = &seen.victim;
        screen.line(format_args!(
            "kill {kill}/{}   {victim} owns it and falls silent: power off, cable in",
            args.kills
        ))?;
        for (ip, outages) in &mut outages {
            let Some(record) = seen.records.get(ip) else { continue };
            let outage = record.outage(seen.injected, seen.end).recovered().map(millis);
            outages.push(outage);
            let heir = fleet.answered_by(&seen.seen, ip.addr(), seen.end).filter(|node| node != victim);
            screen.line(format_args!("  {}", timeline(*ip, record, &seen, heir.as_ref(), outage)))?;
        }
        screen.status(&format!("{victim} is switched on again"))?;
        Scenario::Crash.undo(&mut fleet, victim)?;
        let back = fleet.wait_until_whole()?;
        screen.line(format_args!("           {victim} is back after {:.1} s", back.as_secs_f64()))?;
    }
    let [one, ..] = load_average();
    screen.line(format_args!(""))?;
    screen.line(format_args!("summary    {} kills; outage at the client in ms, load average {one:.2}", args.kills))?;
    let mut recovered = true;
    for (ip, outages) in outages {
        let figures = Distribution::of(outages).context("no kill was measured")?;
        recovered &= figures.max.is_some();
        let figure = |value: Option<f64>| value.map_or_else(|| "never".to_owned(), |value| format!("{value:.0}"));
        let [min, p50, max] = [figures.min, figures.p50, figures.max].map(figure);
        screen.line(format_args!("  {}  min {min}  median {p50}  max {max}", family(ip)))?;
    }
    Ok(if recovered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn simulate(args: &Args) -> Result<ExitCode> {
    let mut screen = Screen::new();
    let nodes = usize::from(args.nodes);
    screen.line(format_args!("garpike demo: {nodes} simulated nodes, the shipped code in virtual time"))?;
    let config = sim::Config { nodes, addresses: 1, ..sim::Config::default() };
    let mut outages = Vec::new();
    for kill in 1..=args.kills {
        let outcome = sim::run(sim::Scenario::Crash, config, u64::from(kill));
        let outage = outcome.outage.flatten().map(millis);
        let who = outcome.victim.map_or_else(|| "nobody".to_owned(), |node| node.to_string());
        let known =
            outcome.all_know.flatten().map_or_else(|| "never".to_owned(), |known| format!("{:.0} ms", millis(known)));
        let shown = outage.map_or_else(|| "never ended".to_owned(), |outage| format!("{outage:.0} ms"));
        screen.line(format_args!("kill {kill}/{}   {who} dies; all know after {known}, outage {shown}", args.kills))?;
        for Finding { invariant, detail } in &outcome.findings {
            screen.line(format_args!("  violated: {invariant}: {detail}"))?;
        }
        outages.push(if outcome.findings.is_empty() { outage } else { None });
    }
    let figures = Distribution::of(outages).context("no kill was simulated")?;
    screen.line(format_args!("summary    {figures}"))?;
    Ok(if figures.max.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn members(fleet: &Fleet<'_>) -> Result<String> {
    let first = fleet.nodes().into_iter().next().context("a lab has nodes")?;
    let state = fleet.state(&first)?;
    let members = state.get("members").and_then(|members| members.as_array()).cloned().unwrap_or_default();
    let shown = members.iter().map(|member| {
        let text = |field: &str| member.get(field).and_then(|value| value.as_str()).unwrap_or("?").to_owned();
        format!("{} {}", text("name"), text("state"))
    });
    Ok(shown.collect::<Vec<_>>().join(", "))
}

/// One row: a mark for each [`MARK`] from shortly before the fault, then the outage and who took over.
fn timeline(
    ip: ServiceIp,
    record: &Record,
    seen: &Observation,
    heir: Option<&NodeName>,
    outage: Option<f64>,
) -> String {
    let from = seen.injected.checked_sub(MARK * MARKS_BEFORE).unwrap_or(seen.injected);
    let mut row = String::new();
    let (mut start, mut last) = (from, '|');
    for mark in 0..MARKS {
        let end = from + MARK * (mark + 1);
        let sent = |at: &Instant| (start..end).contains(at);
        let mut samples = record.samples.iter().filter(|sample| sent(&sample.sent)).peekable();
        if samples.peek().is_some() {
            last = if samples.all(|sample| sample.answered.is_some()) { '|' } else { '.' };
        }
        row.push(last);
        start = end;
    }
    let outage = outage.map_or_else(|| "no answer any more".to_owned(), |outage| format!("{outage:.0} ms"));
    let heir = heir.map_or_else(|| "nobody".to_owned(), ToString::to_string);
    format!("{} {row} {outage}, {heir} answers", family(ip))
}

fn family(ip: ServiceIp) -> &'static str {
    if ip.v4().is_some() { "v4" } else { "v6" }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Plain lines; on a terminal also a line that says what is being waited for.
struct Screen {
    terminal: bool,
}

impl Screen {
    fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal() }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) -> Result<()> {
        let mut out = std::io::stdout().lock();
        if self.terminal {
            write!(out, "\r\x1b[K")?;
        }
        writeln!(out, "{line}")?;
        Ok(out.flush()?)
    }

    /// What the client gets at this moment.
    fn client(&mut self, answered: &BTreeMap<ServiceIp, bool>) {
        let word = |answered: bool| if answered { "answered" } else { "NO ANSWER" };
        let families = answered.iter().map(|(ip, answered)| format!("{} {}", family(*ip), word(*answered)));
        let line = format!("client: {}", families.collect::<Vec<_>>().join(", "));
        // A terminal that is gone shows in the next line.
        let _ = self.status(&line);
    }

    fn status(&mut self, status: &str) -> Result<()> {
        if self.terminal {
            let mut out = std::io::stdout().lock();
            write!(out, "\r\x1b[K... {status}")?;
            out.flush()?;
        }
        Ok(())
    }
}

/// How often the client asks.
const INTERVAL: Duration = Duration::from_millis(5);
/// What one mark of a timeline stands for. With 44 of them a row fits on 80 columns and spans 1.1 s.
const MARK: Duration = Duration::from_millis(25);
const MARKS: u32 = 44;
const MARKS_BEFORE: u32 = 4;
