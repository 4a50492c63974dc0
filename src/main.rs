//! `garpike`: one binary, one subcommand per job.
//!
//! Parses, dispatches, prints. What a subcommand does is in the crates of the workspace.

mod allocate;
mod backup;
#[cfg(feature = "lab")]
mod chaos;
mod cluster;
mod completions;
mod controller;
mod convert;
mod drain;
mod environment;
mod explain;
mod keys;
mod logging;
mod move_;
mod overrides;
mod owners;
mod speaker;
mod state;
mod status;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

/// Load balancer for bare-metal Kubernetes and any Linux hosts: service IPs that fail over in a fraction of a second.
#[derive(Parser)]
#[command(name = "garpike", version, arg_required_else_help = true)]
#[command(after_help = "Exit status: 0 done, 1 found something wrong, 2 wrong use.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Speaker(Box<garpike_speaker::Args>),
    Controller(Box<garpike_controller::Args>),
    Allocate(allocate::Args),
    Convert(convert::Args),
    Owners(owners::Args),
    Status(status::Args),
    Explain(explain::Args),
    Drain(drain::Drain),
    Undrain(drain::Undrain),
    Move(move_::Args),
    Keys(keys::Args),
    Backup(backup::Args),
    Completions(completions::Args),
    #[cfg(feature = "lab")]
    Demo(garpike_chaos::demo::Args),
    #[cfg(feature = "lab")]
    Chaos(chaos::Args),
}

fn main() -> ExitCode {
    let command = Cli::command()
        .mut_subcommand("speaker", |command| environment::accept(command, &garpike_speaker::METALLB_VARIABLES))
        .mut_subcommand("controller", |command| environment::accept(command, &garpike_controller::METALLB_VARIABLES));
    let cli = Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    let result = match cli.command {
        Command::Speaker(args) => speaker::run(&args),
        Command::Controller(args) => controller::run(&args),
        Command::Allocate(args) => allocate::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Owners(args) => owners::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Drain(args) => drain::drain(&args),
        Command::Undrain(args) => drain::undrain(&args),
        Command::Move(args) => move_::run(&args),
        Command::Keys(args) => keys::run(&args),
        Command::Backup(args) => backup::run(&args),
        Command::Completions(args) => completions::run(&args, Cli::command()),
        #[cfg(feature = "lab")]
        Command::Demo(args) => garpike_chaos::demo::run(&args),
        #[cfg(feature = "lab")]
        Command::Chaos(args) => chaos::run(args),
    };
    result.unwrap_or_else(|error| {
        #[expect(clippy::print_stderr, reason = "the last word of a command line program")]
        {
            eprintln!("error: {error:#}");
        }
        ExitCode::FAILURE
    })
}
