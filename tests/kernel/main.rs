//! What the announcer relies on, asked of the running kernel: what a neighbour cache does with each frame, what packet
//! sockets and switches let pass, how interfaces come and go.
//!
//! Needs root or user namespaces. The tables are what Linux 6.18 was seen to do; a kernel that differs fails the test
//! with the row and the column. Checks run side by side, each in network namespaces of its own.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it reports as the test harness does")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a check that cannot go on has failed")]

mod dissector;
mod frames;
mod links;
mod neighbours;
mod sockets;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use garpike_chaos::lab::{Entered, Init, enter};

/// A check, as a sentence, and what does it. It panics when the kernel differs.
struct Check(&'static str, fn(&Init) -> Verdict);

/// How a check ended that did not fail.
enum Verdict {
    Held,
    /// What it needs is not there.
    NotRun(String),
}

const CHECKS: &[&[Check]] = &[neighbours::CHECKS, sockets::CHECKS, links::CHECKS, dissector::CHECKS];

fn main() -> ExitCode {
    let mut init = match enter() {
        Ok(Entered::Outside { status }) => return ExitCode::from(status),
        Ok(Entered::Inside(init)) => init,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let init = &mut init;
    let checks = CHECKS.iter().copied().flatten();
    let checks: Vec<&Check> =
        checks.filter(|Check(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part))).collect();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let init = &*init;
        let run =
            |check: &'static Check| scope.spawn(move || std::panic::catch_unwind(AssertUnwindSafe(|| check.1(init))));
        let running: Vec<_> = checks.iter().map(|check| run(check)).collect();
        running.into_iter().map(|check| check.join().unwrap()).collect()
    });
    let (mut failed, mut not_run) = (0, 0);
    for (Check(name, _), outcome) in checks.iter().zip(&outcomes) {
        match outcome {
            Ok(Verdict::Held) => println!("test {name} ... ok"),
            Ok(Verdict::NotRun(reason)) => {
                not_run += 1;
                println!("test {name} ... not run: {reason}");
            }
            Err(_) => {
                failed += 1;
                println!("test {name} ... FAILED");
            }
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {} held; {failed} failed; {not_run} not run", checks.len() - failed - not_run);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::disallowed_methods, reason = "a test waits in real time")]
fn now() -> Instant {
    Instant::now()
}

fn sleep(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    // Ten thousand multicast groups take a busy machine half a minute.
    let deadline = now() + Duration::from_secs(60);
    while !condition() {
        assert!(now() < deadline, "{what}: not after 60 s");
        sleep(5);
    }
}
