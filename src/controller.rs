//! `garpike controller`: gives addresses to the Services of a Kubernetes cluster.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use garpike_controller::Args;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let level = match args.log_level.as_str() {
        "none" => LevelFilter::OFF,
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "debug" => LevelFilter::DEBUG,
        "all" => LevelFilter::TRACE,
        _ => LevelFilter::INFO,
    };
    // The client of the API logs whole answers as warnings; what matters of them is told by whoever asked.
    let targets = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("garpike", level);
    let targets = targets.with_target("kube_client", LevelFilter::OFF).with_target("kube_runtime", LevelFilter::OFF);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    tracing_subscriber::registry().with(lines.with_filter(targets)).init();
    // Two threads: the lease is renewed and probes are answered while 10 000 Services are judged.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime; are file descriptors exhausted?")?;
    let result = runtime.block_on(garpike_controller::run(args));
    // What is left of names that are looked up would be waited for.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}
