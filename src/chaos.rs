//! `garpike chaos`: the lab and the simulator from the command line.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Subcommand, ValueEnum as _};
use garpike_chaos::fleet::{Families, Source};
use garpike_chaos::lab::{self, Entered, Links, enter};
use garpike_chaos::load::{self, Load};
use garpike_chaos::scenario::{Length, Scenario};
use garpike_chaos::sim;
use garpike_chaos::tools::{self, Program};
use garpike_chaos::trial::{self, ApiServerState, Plan};
use garpike_election::{MacAddr, ServiceIp};
use garpike_speaker::Profile;

/// Breaks things on purpose, in the lab or in the simulator, and judges by what a client sees
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(Run),
    Simulate(Simulate),
    /// Lists the scenarios
    List,
    /// Checks that the lab itself measures what it says
    Selftest,
    /// Builds the programs of others that scenarios start and that have not been built: etcd, kube-apiserver, kubectl, helm
    Programs {
        /// Those of a cluster with nodes too: kubelet, kube-proxy, kube-controller-manager, kube-scheduler
        #[arg(long)]
        nodes: bool,
    },
    /// Does nothing, for ever: what holds the namespaces of a pod in the cluster lab
    #[command(hide = true)]
    Pause,
    /// Sends every datagram back: what serves behind a service IP in the lab
    #[command(hide = true)]
    Echo {
        addresses: Vec<SocketAddr>,
    },
    /// Answers ARP and NDP in place of another host: what the self-test puts beside a host without a speaker
    #[command(hide = true)]
    StandIn {
        owner: MacAddr,
        ips: Vec<ServiceIp>,
    },
}

/// Runs a scenario, or a load, in the lab
///
/// The owner of the probed Service is hit in each trial. Exit status 0 only if every trial was valid and no invariant
/// was violated.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  garpike chaos run crash --nodes 3 --trials 20\n  \
                        garpike chaos run term --trials 5 --json\n  \
                        garpike chaos run link-down --links 2\n  \
                        garpike chaos run crash --source kubernetes --api-down\n  \
                        garpike chaos run rest --lasts 10m --trials 1\n  \
                        garpike chaos run arp-rate --addresses 10,10000",
    subcommand_help_heading = "Loads",
    subcommand_value_name = "LOAD",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Run {
    #[command(subcommand)]
    load: Option<Load>,
    /// What happens
    #[arg(required = true)]
    scenario: Option<Scenario>,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=100))]
    nodes: u8,
    /// How many network cards each node has; of two the second is for gossip alone
    #[arg(long, value_enum, default_value_t = Links::One)]
    links: Links,
    /// What the client speaks
    #[arg(long, value_enum, default_value_t = Families::Both)]
    family: Families,
    /// How long it lasts, as 60s or 10m [default: rest 10s, term-all 3s, uplink-down 60s, conflict 12s; no other has a
    /// length]
    #[arg(long, value_name = "DURATION")]
    lasts: Option<Length>,
    /// How often it is done
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    trials: u32,
    /// Seed of the first trial; it decides when within the detector's periods the fault comes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Milliseconds between two probes of the client, and between two questions of the one without a cache
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    interval_ms: u64,
    /// How fast and how careful the speakers detect failures
    #[arg(long, value_enum, default_value_t = Profile::Default)]
    profile: Profile,
    /// Where the speakers take their objects from; `kubernetes` needs etcd and kube-apiserver
    #[arg(long, value_enum, default_value_t = Source::Manifests)]
    source: Source,
    /// Kill the API server before the first trial
    #[arg(long)]
    api_down: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs a scenario in the simulator: the shipped code of many nodes in virtual time
///
/// Exit status 0 only if no invariant was violated and no target missed.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  garpike chaos simulate crash --nodes 10 --seeds 0..100 --loss 10\n  \
                        garpike chaos simulate rest --nodes 10 --loss 10 --hours 1 --seeds 0..8\n  \
                        garpike chaos simulate crash --seeds 42..43     (replays seed 42)")]
struct Simulate {
    /// What happens
    scenario: sim::Scenario,
    /// How many nodes; a scenario that needs more takes more
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(2..=1000))]
    nodes: u16,
    /// Seeds, from the first to before the last
    #[arg(long, value_name = "A..B", default_value = "0..20", value_parser = seeds)]
    seeds: std::ops::Range<u64>,
    /// Packets lost, in percent
    #[arg(long, value_name = "PCT", default_value_t = 0.0, value_parser = percent)]
    loss: f64,
    /// Virtual hours of `rest`, `burst-loss` and `asymmetric-loss` for each seed
    #[arg(long, value_name = "H", default_value_t = 0.1, value_parser = hours)]
    hours: f64,
    /// How many service IPs
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    addresses: u32,
    /// How fast and how careful the speakers detect deaths
    #[arg(long, value_enum, default_value_t = sim::Speed::Default)]
    profile: sim::Speed,
    /// How many hosts die in `crash` and `crash-many` [default: 1; 3, or 2 of fewer than ten]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(1..))]
    dead: Option<u16>,
    /// How long the fault lasts, where it ends; otherwise the seed decides
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    lasts: Option<f64>,
    /// No station but the members is on the wire
    #[arg(long)]
    no_gateway: bool,
    /// Do not seal datagrams: faster
    #[arg(long)]
    plaintext: bool,
    /// How many seeds at a time; it does not change the result [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Run(Run { load: Some(load), .. }) => load::run(&load),
        Command::Run(args) => in_lab(&args),
        Command::Simulate(args) => simulate(&args),
        Command::List => list(),
        Command::Selftest => selftest(),
        Command::Programs { nodes: false } => programs(&Program::API),
        Command::Programs { nodes: true } => programs(&[Program::API.as_slice(), &Program::NODES].concat()),
        Command::Pause => loop {
            std::thread::park();
        },
        Command::Echo { addresses } => match lab::echo::serve(&addresses)? {},
        Command::StandIn { owner, ips } => {
            lab::stand_in::serve(owner, &ips)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn in_lab(args: &Run) -> Result<ExitCode> {
    let scenario = args.scenario.context("no scenario is named")?;
    if args.lasts.is_some() && scenario.default_length().is_none() {
        bail!(
            "--lasts: {} has no length that can be chosen; rest, term-all, uplink-down and conflict have",
            scenario.name()
        );
    }
    if args.api_down && args.source == Source::Manifests {
        bail!("--api-down: there is no API server without --source kubernetes");
    }
    if args.api_down && scenario.is_asked_for() {
        bail!("--api-down: {} is asked for by way of the API server", scenario.name());
    }
    if args.source == Source::Kubernetes {
        for program in [Program::Etcd, Program::KubeApiserver] {
            program.path()?;
        }
    }
    let mut init = match enter()? {
        Entered::Outside { status } => return Ok(ExitCode::from(status)),
        Entered::Inside(init) => init,
    };
    let plan = Plan {
        scenario,
        lasts: args.lasts.map(|Length(lasts)| lasts),
        nodes: usize::from(args.nodes),
        links: args.links,
        families: args.family,
        trials: usize::try_from(args.trials)?,
        seed: args.seed,
        interval: Duration::from_millis(args.interval_ms),
        profile: args.profile,
        source: args.source,
        api: if args.api_down { ApiServerState::Down } else { ApiServerState::Up },
    };
    let mut done = 0;
    let report = trial::run(&mut init, plan, &mut |trial| {
        done += 1;
        let outage = |outage: Option<Option<f64>>| match outage {
            Some(Some(outage)) => format!("{outage:.0} ms"),
            Some(None) => "never".to_owned(),
            None => "-".to_owned(),
        };
        #[expect(clippy::print_stderr, reason = "progress of long work")]
        {
            eprintln!(
                "trial {done}/{}: outage v4 {}, v6 {}",
                plan.trials,
                outage(trial.outage_ms.v4),
                outage(trial.outage_ms.v6)
            );
        }
    })?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(status(report.is_good()))
}

fn simulate(args: &Simulate) -> Result<ExitCode> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let config = sim::Config {
        nodes: usize::from(args.nodes),
        loss_percent: args.loss,
        addresses: args.addresses,
        rest: Duration::from_secs_f64(args.hours * 3600.0),
        profile: args.profile.into(),
        dead: args.dead.map(usize::from),
        lasts: args.lasts.map(Duration::from_secs_f64),
        gateways: if args.no_gateway { sim::Gateways::Absent } else { sim::Gateways::Present },
        protection: if args.plaintext { sim::Protection::Plain } else { sim::Protection::Sealed },
        jobs: args.jobs.map_or(cores, usize::from),
    };
    let summary = sim::run_seeds(args.scenario, config, args.seeds.clone());
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&summary)?)?;
    } else {
        write!(out, "{summary}")?;
    }
    for violation in &summary.violations {
        #[expect(clippy::print_stderr, reason = "what a person needs to replay a failure")]
        {
            eprintln!("seed {}: {}: {}", violation.seed, violation.invariant, violation.detail);
            eprintln!("  replay: {}", config.command(args.scenario, violation.seed));
        }
    }
    Ok(status(summary.violations.is_empty()))
}

fn list() -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "In the lab (garpike chaos run SCENARIO):")?;
    for scenario in Scenario::value_variants() {
        writeln!(out, "  {:<17} {}", scenario.name(), help(scenario))?;
    }
    writeln!(out, "Loads in the lab, and of the controller on a real API server (garpike chaos run LOAD):")?;
    for (name, about) in load::list() {
        writeln!(out, "  {name:<19} {about}")?;
    }
    writeln!(out, "In the simulator (garpike chaos simulate SCENARIO):")?;
    for scenario in sim::Scenario::value_variants() {
        writeln!(out, "  {:<17} {}", scenario.name(), help(scenario))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn selftest() -> Result<ExitCode> {
    let mut init = match enter()? {
        Entered::Outside { status } => return Ok(ExitCode::from(status)),
        Entered::Inside(init) => init,
    };
    let report = lab::selftest(&mut init)?;
    write!(std::io::stdout().lock(), "{report}")?;
    Ok(status(report.passed()))
}

#[expect(clippy::print_stderr, reason = "progress of long work")]
fn programs(wanted: &[Program]) -> Result<ExitCode> {
    tools::build_missing(wanted, |missing| {
        let names: Vec<&str> = missing.iter().map(|program| program.name()).collect();
        eprintln!("building {}; this takes some minutes", names.join(" and "));
    })?;
    for program in wanted {
        writeln!(std::io::stdout().lock(), "{}", program.path()?.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn help(value: &impl clap::ValueEnum) -> String {
    let help = value.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string));
    help.unwrap_or_default()
}

fn status(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn seeds(text: &str) -> Result<std::ops::Range<u64>> {
    let Some((first, end)) = text.split_once("..") else {
        bail!("\"{text}\" is not a range of seeds; write 0..100");
    };
    let range = first.parse()?..end.parse()?;
    if range.is_empty() {
        bail!("\"{text}\" holds no seed; the end is not part of the range");
    }
    Ok(range)
}

fn hours(text: &str) -> Result<f64> {
    let hours: f64 = text.parse()?;
    if !(0.0..=10_000.0).contains(&hours) {
        bail!("{text} is not a number of hours between 0 and 10000");
    }
    Ok(hours)
}

fn seconds(text: &str) -> Result<f64> {
    let seconds: f64 = text.parse()?;
    if !(0.0..=1_000_000.0).contains(&seconds) {
        bail!("{text} is not a number of seconds between 0 and 1000000");
    }
    Ok(seconds)
}

fn percent(text: &str) -> Result<f64> {
    let percent: f64 = text.parse()?;
    if !(0.0..=90.0).contains(&percent) {
        bail!("{text} is not a share of lost datagrams between 0 and 90 percent");
    }
    Ok(percent)
}
