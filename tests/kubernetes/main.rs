//! The shipped controller against a real API server, with the rights of `deploy/manifests/rbac.yaml`.
//!
//! Needs no root, but etcd and kube-apiserver (`cargo xtask setup kubernetes`). One server serves all tests, which run
//! side by side: each has a namespace, a load balancer class and addresses of its own. What is judged is what the API
//! server has; nothing is judged by waiting, only by what follows from something else, within a generous time.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it reports as the test harness does")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a check that cannot go on has failed, and it waits in real time"
)]

mod adoption;
mod allocation;
mod bad_input;
mod conditions;
mod dead_node;
mod dual_stack;
mod housekeeping;
mod replicas;
mod selection;
mod selftest;
mod sharing;
mod site;
mod webhook;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use garpike_chaos::kube::{ApiServer, Stack, define};
use site::Ground;
use tokio::runtime::{Builder, Handle};

/// A check, as a sentence, and what does it. It panics when something is not as it should be.
struct Check(&'static str, fn(&Ground<'_>));

const CHECKS: &[&[Check]] = &[
    selftest::CHECKS,
    allocation::CHECKS,
    sharing::CHECKS,
    selection::CHECKS,
    dual_stack::CHECKS,
    adoption::CHECKS,
    replicas::CHECKS,
    bad_input::CHECKS,
    conditions::CHECKS,
    housekeeping::CHECKS,
    webhook::CHECKS,
    dead_node::CHECKS,
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let all = CHECKS.iter().copied().flatten();
    let checks: Vec<&Check> =
        all.filter(|Check(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part))).collect();
    // One for all: the clients of the API server live in it.
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let server = match runtime.block_on(begin()) {
        Ok(server) => server,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let outcomes = run(&checks, &server, runtime.handle());
    let mut failed = 0;
    for (Check(name, _), (outcome, took)) in checks.iter().zip(&outcomes) {
        if outcome.is_err() {
            failed += 1;
        }
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {word} ({took:.1} s)");
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {} held; {failed} failed", checks.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn begin() -> anyhow::Result<ApiServer> {
    let server = ApiServer::start(Stack::Dual).await?;
    define(&server).await?;
    Ok(server)
}

/// Some at a time, in order; each check's outcome and how many seconds it took.
fn run(checks: &[&Check], server: &ApiServer, runtime: &Handle) -> Vec<(Result<(), ()>, f64)> {
    let next = AtomicUsize::new(0);
    let outcomes: Mutex<Vec<_>> = Mutex::new(checks.iter().map(|_| (Err(()), 0.0)).collect());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(check) = checks.get(index) else { return };
                    let (begun, ground) = (now(), Ground { server, runtime, program: program(), number: index });
                    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| check.1(&ground)));
                    let outcome = outcome.map_err(|_| eprintln!("FAILED: {}", check.0));
                    outcomes.lock().unwrap()[index] = (outcome, begun.elapsed().as_secs_f64());
                }
            });
        }
    });
    outcomes.into_inner().unwrap()
}

/// The binary under test.
fn program() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_garpike")).to_owned()
}

fn now() -> Instant {
    Instant::now()
}

/// Chosen: most of their time they wait.
const AT_A_TIME: usize = 6;
