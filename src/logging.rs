//! The log of a process that serves: lines on standard error, as text or in MetalLB's JSON form.

mod json;

use std::io::{IsTerminal as _, stderr};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// An object on a line each, with the keys that MetalLB's have.
    Json,
}

/// Who reads the log of a process, unless it is somebody at a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// What collects the logs of a Kubernetes cluster.
    Cluster,
    /// The journal of a host.
    Host,
}

impl Form {
    /// What `--log-format` means; without it text at a terminal and on a host, JSON in a cluster, whose pipelines have been
    /// made for MetalLB's.
    pub(crate) fn wanted(flag: Option<&str>, readers: Readers) -> Self {
        Self::of(flag, readers, stderr().is_terminal().then_some(Terminal))
    }

    fn of(flag: Option<&str>, readers: Readers, terminal: Option<Terminal>) -> Self {
        match (flag, terminal, readers) {
            (Some("json"), _, _) | (None, None, Readers::Cluster) => Self::Json,
            (Some(_), _, _) | (None, Some(Terminal), _) | (None, None, Readers::Host) => Self::Text,
        }
    }
}

/// Somebody looks at it as it comes.
struct Terminal;

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
pub(crate) fn start(targets: Targets, form: Form) {
    let targets = targets.with_target("kube_client", LevelFilter::OFF).with_target("kube_runtime", LevelFilter::OFF);
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal());
    let lines = match form {
        Form::Text => lines.with_target(false).boxed(),
        Form::Json => lines.with_ansi(false).event_format(json::Lines).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(targets)).init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_gets_json_and_whoever_looks_at_a_terminal_gets_text() {
        assert_eq!(Form::of(None, Readers::Cluster, None), Form::Json);
        assert_eq!(Form::of(None, Readers::Cluster, Some(Terminal)), Form::Text);
        assert_eq!(Form::of(None, Readers::Host, None), Form::Text);
    }

    #[test]
    fn the_flag_decides() {
        for readers in [Readers::Cluster, Readers::Host] {
            assert_eq!(Form::of(Some("text"), readers, None), Form::Text);
            assert_eq!(Form::of(Some("json"), readers, Some(Terminal)), Form::Json);
        }
    }
}
