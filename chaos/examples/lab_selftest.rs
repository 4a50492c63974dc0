//! Tries every fault of the lab and prints what the lab saw: `cargo run -p garpike-chaos --example lab_selftest`.
//!
//! Shows how a program enters the lab: [`lab::enter`] comes first, and the same program serves as echo server.
#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use std::net::SocketAddr;
use std::process::ExitCode;

use garpike_chaos::lab::{self, Entered};

fn main() -> anyhow::Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [chaos, echo, addresses @ ..] = args.as_slice()
        && (chaos.as_str(), echo.as_str()) == ("chaos", "echo")
    {
        let addresses = addresses.iter().map(|address| address.parse()).collect::<Result<Vec<SocketAddr>, _>>()?;
        match lab::echo::serve(&addresses)? {}
    }
    let mut init = match lab::enter()? {
        Entered::Outside { status } => return Ok(ExitCode::from(status)),
        Entered::Inside(init) => init,
    };
    let report = lab::selftest(&mut init)?;
    print!("{report}");
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
