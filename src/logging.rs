//! The log of a process that serves: lines on standard error.

use std::io::{IsTerminal as _, stderr};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// The level that `--log-level` means.
pub(crate) fn level(name: &str) -> LevelFilter {
    match name {
        "none" => LevelFilter::OFF,
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "debug" => LevelFilter::DEBUG,
        "all" => LevelFilter::TRACE,
        _ => LevelFilter::INFO,
    }
}

/// Logs what `targets` let pass. What the client of the Kubernetes API says of failed requests is said once, and better, by
/// those who asked.
pub(crate) fn start(targets: Targets) {
    let targets = targets.with_target("kube_client", LevelFilter::OFF).with_target("kube_runtime", LevelFilter::OFF);
    let lines =
        tracing_subscriber::fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal()).with_target(false);
    tracing_subscriber::registry().with(lines.with_filter(targets)).init();
}
