//! `garpike completions`: what a shell needs to complete the command line.

use std::io;
use std::process::ExitCode;

use anyhow::Result;
use clap::Command;
use clap_complete::Shell;

/// Prints a completion script for a shell
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  source <(garpike completions bash)\n  garpike completions fish > ~/.config/fish/completions/garpike.fish"
)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Args, mut command: Command) -> Result<ExitCode> {
    clap_complete::generate(args.shell, &mut command, "garpike", &mut io::stdout());
    Ok(ExitCode::SUCCESS)
}
