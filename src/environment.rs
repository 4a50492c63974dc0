//! Variables of the environment by which MetalLB's manifests tell its programs what others tell by flags.

use std::env;

use clap::Command;

/// Makes MetalLB's environment variables the defaults of their flags: below flag and `GARPIKE_*`.
pub(crate) fn accept(mut command: Command, variables: &[(&'static str, &'static str)]) -> Command {
    for &(argument, variable) in variables {
        if env::var_os(variable).is_none_or(|value| value.is_empty()) {
            continue;
        }
        command = command.mut_arg(argument, |argument| {
            let ours = argument.get_env().and_then(env::var_os);
            // Not as a default: that would not count as given where one of two flags must be.
            if ours.is_some() { argument } else { argument.env(variable) }
        });
    }
    command
}
