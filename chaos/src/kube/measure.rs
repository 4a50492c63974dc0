//! How fast and how small a controller is on a real API server, and whether it keeps its promises when it is killed.
//!
//! Each measurement starts an API server and controllers of its own binary on loopback. What is measured is what the API
//! server shows; figures beside other work on the machine are not comparable.

pub mod crash;
pub mod fill;
mod ledger;
pub mod memory;
pub mod one_more;
pub mod restart;
mod rig;

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::{ApiServer, Stack, define};
use crate::load::figures::Figures;

/// What is measured.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Measurement {
    /// How long thousands of waiting Services wait for a controller that starts
    ControllerFill(fill::Args),
    /// How long a new Service waits for a controller that is started again
    ControllerRestart(restart::Args),
    /// How long one more Service waits
    ControllerOneMore(one_more::Args),
    /// What becomes of addresses when controllers are killed
    ControllerCrash(crash::Args),
    /// What a controller needs at rest
    ControllerMemory(memory::Args),
}

/// Runs a measurement. Exit status 0 only if every target was reached.
///
/// # Errors
///
/// When the API server cannot be started, or a controller does nothing for too long.
pub fn run(measurement: &Measurement) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = ApiServer::start(Stack::Dual).await?;
        define(&server).await.context("cannot define the custom resources")?;
        let (output, figures): (_, Figures) = match measurement {
            Measurement::ControllerFill(args) => (args.output, fill::run(&server, args).await?),
            Measurement::ControllerRestart(args) => (args.output, restart::run(&server, args).await?),
            Measurement::ControllerOneMore(args) => (args.output, one_more::run(&server, args).await?),
            Measurement::ControllerCrash(args) => (args.output, crash::run(&server, args).await?),
            Measurement::ControllerMemory(args) => (args.output, memory::run(&server, args).await?),
        };
        output.print(&figures)
    })
}
