//! A running controller.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::process::Process;

/// A process of `garpike controller`. Dropping it kills it; while a check fails, the end of its log is printed.
#[derive(Debug)]
pub struct Controller {
    process: Process,
    health: u16,
    metrics: u16,
}

impl Drop for Controller {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "what a check that fails has to say")]
            {
                eprintln!("the log of controller {}:\n{}", self.pid(), self.last_words());
            }
        }
    }
}

impl Controller {
    pub(super) fn spawn(command: Command, log: &Path, health: u16, metrics: u16) -> io::Result<Self> {
        Ok(Self { process: Process::spawn(command, log)?, health, metrics })
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        self.process.last_words()
    }

    /// Kills it as the kernel would: nothing is released.
    pub fn kill(self) {
        drop(self);
    }

    /// Tells it to end, and waits until it has; how long that took.
    ///
    /// # Errors
    ///
    /// When it has not ended in time: then it is killed.
    pub async fn terminate(mut self, within: Duration) -> Result<(ExitStatus, Duration), StillRunning> {
        let begun = now();
        self.process.signal(Signal::SIGTERM);
        while begun.elapsed() < within {
            if let Some(status) = self.ended() {
                return Ok((status, begun.elapsed()));
            }
            tokio::time::sleep(POLL).await;
        }
        Err(StillRunning { last_words: self.last_words() })
    }

    /// How it ended by itself, when it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Its resident memory: the present and the greatest ever.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn memory(&self) -> io::Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let field = |name: &str| {
            let value =
                status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok());
            value.map(|kib: u64| kib * 1024).ok_or_else(|| io::Error::other(format!("no {name}")))
        };
        Ok(Memory { resident_bytes: field("VmRSS:")?, peak_bytes: field("VmHWM:")? })
    }

    /// The time that it has spent on processors, all threads together, in steps of 10 ms.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn processor_time(&self) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // The name, in brackets, may hold blanks; utime and stime are the 14th and 15th field, proc_pid_stat(5).
        let after_name = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: Vec<u64> = after_name.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
        Ok(TICK.saturating_mul(u32::try_from(ticks.iter().sum::<u64>()).unwrap_or(u32::MAX)))
    }

    /// What `/readyz` says: the status code and the text. None: nobody listens.
    pub async fn readyz(&self) -> Option<(u16, String)> {
        get(self.health, "/readyz").await.ok()
    }

    /// The port of `/metrics`.
    pub fn metrics_port(&self) -> u16 {
        self.metrics
    }

    /// What `/metrics` says; empty when nobody listens.
    pub async fn metrics(&self) -> String {
        get(self.metrics, "/metrics").await.map(|(_, text)| text).unwrap_or_default()
    }
}

/// Memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Resident now.
    pub resident_bytes: u64,
    /// The most that ever was.
    pub peak_bytes: u64,
}

/// A controller does not end.
#[derive(Debug, thiserror::Error)]
#[error("the controller did not end in time; it last said:\n{last_words}")]
pub struct StillRunning {
    last_words: String,
}

/// One request over a connection of its own.
async fn get(port: u16, path: &str) -> io::Result<(u16, String)> {
    let ask = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        status.map(|status| (status, body)).ok_or_else(|| io::Error::other("no HTTP"))
    };
    tokio::time::timeout(ASK_FOR, ask).await?
}

#[expect(clippy::disallowed_methods, reason = "it waits for another program")]
fn now() -> Instant {
    Instant::now()
}

/// `USER_HZ`, which is 100 on every architecture that Linux knows but Alpha.
const TICK: Duration = Duration::from_millis(10);
const POLL: Duration = Duration::from_millis(5);
/// Chosen: loopback, and text that is there already.
const ASK_FOR: Duration = Duration::from_secs(5);
const MAX_ANSWER_BYTES: u64 = 16 << 20;
