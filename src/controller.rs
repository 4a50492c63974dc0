//! `garpike controller`: gives addresses to the Services of a Kubernetes cluster.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use garpike_controller::Args;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use crate::logging::{self, Form, Readers};

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let level = logging::level(&args.log_level);
    let targets = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("garpike", level);
    logging::start(targets, Form::wanted(args.log_format.as_deref(), Readers::Cluster));
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
