//! `garpike speaker`: the process of one node.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use garpike_speaker::Args;
use tracing::level_filters::LevelFilter;

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let level = match args.log_level.as_str() {
        "none" => LevelFilter::OFF,
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "debug" => LevelFilter::DEBUG,
        "all" => LevelFilter::TRACE,
        _ => LevelFilter::INFO,
    };
    let colours = std::io::stderr().is_terminal();
    // What the client of the Kubernetes API says of failed requests is said once, and better, by those who asked.
    let filter = tracing_subscriber::EnvFilter::new(format!("{level},kube_client=off,kube_runtime=off,tower=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .init();
    // One thread: the three tasks share nothing, and a wake-up of another core costs more than any of their work.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime; are file descriptors exhausted?")?;
    runtime.block_on(garpike_speaker::run(args))?;
    Ok(ExitCode::SUCCESS)
}
