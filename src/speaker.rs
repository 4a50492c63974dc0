//! `garpike speaker`: the process of one node.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use garpike_speaker::Args;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use crate::logging::{self, Form, Readers};

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let level = logging::level(&args.log_level);
    let readers = if args.manifests.is_some() { Readers::Host } else { Readers::Cluster };
    let form = Form::wanted(args.log_format.as_deref(), readers);
    logging::start(Targets::new().with_default(level).with_target("tower", LevelFilter::OFF), form);
    // One thread: the three tasks share nothing, and a wake-up of another core costs more than any of their work.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime; are file descriptors exhausted?")?;
    runtime.block_on(garpike_speaker::run(args))?;
    Ok(ExitCode::SUCCESS)
}
