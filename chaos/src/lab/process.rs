//! The processes of the nodes: started in a node's namespace, logged, signalled, reaped.
//!
//! pid 1 must reap every orphan of its PID namespace, so one thread waits for all children and reports those that
//! end; nothing else in the process may wait for a child. Each process leads a process group of its own, so that a
//! signal reaches its children too and Ctrl-C in the terminal does not.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use garpike_election::NodeName;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::LabError;
use super::enter::INSIDE;
use super::netns::Namespace;

/// What a process does on its node: faults aim at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Decides who answers; kill, term, freeze and thaw go to it.
    Speaker,
    /// Answers the client's probes.
    Echo,
    /// Anything else on the host.
    Other,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Speaker => "speaker",
            Self::Echo => "echo",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A process that ended without being asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnexpectedExit {
    /// Where it ran.
    pub node: NodeName,
    /// What it did.
    pub role: Role,
    /// Its end.
    pub how: Exit,
    /// When it was reaped.
    pub at: Instant,
    /// The last lines of its output.
    pub log: String,
}

impl fmt::Display for UnexpectedExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, role, how, at: _, log } = self;
        write!(f, "the {role} of {node} ended by itself ({how}); its last lines:\n{log}")
    }
}

/// A command that has come to its end.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    /// How it ended.
    pub(crate) how: Exit,
    /// What it printed.
    pub(crate) output: Vec<u8>,
    /// What it complained of.
    pub(crate) errors: Vec<u8>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By exit(2) with this status.
    Status(i32),
    /// By this signal.
    Signal(Signal),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "{signal}"),
        }
    }
}

/// All processes of a lab.
#[derive(Debug)]
pub(super) struct Processes {
    running: BTreeMap<Pid, Process>,
    unexpected: Vec<UnexpectedExit>,
    logs: PathBuf,
    started: u32,
    reaper: Reaper,
}

impl Processes {
    /// Begins to reap; logs go to `logs`.
    pub(super) fn new(logs: PathBuf) -> Result<Self, LabError> {
        fs::create_dir_all(&logs).map_err(|source| LabError::Log { path: logs.clone(), source })?;
        let reaper = Reaper::start()?;
        Ok(Self { running: BTreeMap::new(), unexpected: Vec::new(), logs, started: 0, reaper })
    }

    /// Starts `command` in the namespace of `node`. Its output goes to a log file, its input is empty.
    pub(super) fn spawn(
        &mut self,
        namespace: &Namespace,
        node: &NodeName,
        role: Role,
        mut command: Command,
    ) -> Result<Pid, LabError> {
        self.started += 1;
        let path = self.logs.join(format!("{node}-{role}-{}.log", self.started));
        let log = |source| LabError::Log { path: path.clone(), source };
        let output = File::create_new(&path).map_err(log)?;
        let errors = output.try_clone().map_err(log)?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors).env_remove(INSIDE).process_group(0);
        let program = command.get_program().to_owned();

        let spawned = {
            // std waits for a child that could not execute its program; the reaper must not be faster.
            let _reaper_waits = self.reaper.lock.lock().unwrap_or_else(PoisonError::into_inner);
            namespace.run(move |_| command.spawn().map(|child| child.id()))?
        };
        let _ = self.reaper.spawned.try_send(());
        let id = spawned.map_err(|source| LabError::Spawn { node: node.clone(), role, program, source })?;
        let pid = Pid::from_raw(i32::try_from(id).expect("a pid is positive and fits pid_t"));
        self.running.insert(pid, Process { node: node.clone(), role, log: path, ends: Ends::ByItself });
        Ok(pid)
    }

    /// Runs `command` in a namespace and waits for its end: how it ended, and what it printed on either channel.
    pub(super) fn finish(
        &mut self,
        namespace: &Namespace,
        node: &NodeName,
        mut command: Command,
        timeout: Duration,
    ) -> Result<Finished, LabError> {
        self.started += 1;
        let paths = ["out", "err"].map(|kind| self.logs.join(format!("run-{}.{kind}", self.started)));
        let [output, errors] = paths
            .each_ref()
            .map(|path| File::create_new(path).map_err(|source| LabError::Log { path: path.clone(), source }));
        command.stdin(Stdio::null()).stdout(output?).stderr(errors?).env_remove(INSIDE).process_group(0);
        let program = command.get_program().to_owned();
        let spawned = {
            let _reaper_waits = self.reaper.lock.lock().unwrap_or_else(PoisonError::into_inner);
            namespace.run(move |_| command.spawn().map(|child| child.id()))?
        };
        let _ = self.reaper.spawned.try_send(());
        let failed = |source| LabError::Spawn { node: node.clone(), role: Role::Other, program, source };
        let pid = Pid::from_raw(i32::try_from(spawned.map_err(failed)?).expect("a pid is positive and fits pid_t"));
        let how = self.end_of(pid, node, timeout);
        let [output, errors] = paths.map(|path| {
            let text = fs::read(&path).map_err(|source| LabError::Log { path: path.clone(), source });
            let _ = fs::remove_file(&path);
            text
        });
        Ok(Finished { how: how?, output: output?, errors: errors? })
    }

    fn end_of(&mut self, pid: Pid, node: &NodeName, timeout: Duration) -> Result<Exit, LabError> {
        let deadline = super::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(super::now());
            match self.reaper.ended.recv_timeout(left) {
                Ok(ended) if ended.pid == pid => return Ok(ended.how),
                Ok(ended) => self.note(&ended),
                Err(_) => {
                    let _ = killpg(pid, Signal::SIGKILL);
                    return Err(LabError::StillRunning { node: node.clone(), timeout });
                }
            }
        }
    }

    /// Sends `signal` to the processes of `node` that `which` selects; returns how many there are.
    pub(super) fn signal(&mut self, node: &NodeName, which: Which, signal: Signal) -> Result<usize, LabError> {
        self.collect();
        let mut signalled = 0;
        for (&pid, process) in self.running.iter_mut().filter(|(_, process)| process.is(node, which)) {
            if matches!(signal, Signal::SIGKILL | Signal::SIGTERM) {
                process.ends = Ends::Asked;
            }
            match killpg(pid, signal) {
                // It has ended; the reaper will say so.
                Ok(()) | Err(Errno::ESRCH) => signalled += 1,
                Err(errno) => return Err(LabError::Signal { node: node.clone(), role: process.role, signal, errno }),
            }
        }
        Ok(signalled)
    }

    /// Waits until no process of `node` that `which` selects runs any more.
    pub(super) fn wait(&mut self, node: &NodeName, which: Which, timeout: Duration) -> Result<(), LabError> {
        let deadline = super::now() + timeout;
        loop {
            self.collect();
            if !self.running.values().any(|process| process.is(node, which)) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(super::now());
            let Ok(ended) = self.reaper.ended.recv_timeout(left) else {
                return Err(LabError::StillRunning { node: node.clone(), timeout });
            };
            self.note(&ended);
        }
    }

    /// The processes that ended without being asked to, each told once.
    pub(super) fn take_unexpected(&mut self) -> Vec<UnexpectedExit> {
        self.collect();
        std::mem::take(&mut self.unexpected)
    }

    /// The directory of the logs.
    pub(super) fn logs(&self) -> &Path {
        &self.logs
    }

    /// Kills all and waits for them, each node's in turn.
    pub(super) fn end(&mut self) {
        for (&pid, process) in &mut self.running {
            process.ends = Ends::Asked;
            let _ = killpg(pid, Signal::SIGKILL);
        }
        let nodes: Vec<NodeName> = self.running.values().map(|process| process.node.clone()).collect();
        for node in nodes {
            if let Err(error) = self.wait(&node, Which::All, KILLED_WITHIN) {
                tracing::warn!(%error, "a process of the lab survives SIGKILL");
            }
        }
    }

    fn collect(&mut self) {
        while let Ok(ended) = self.reaper.ended.try_recv() {
            self.note(&ended);
        }
    }

    fn note(&mut self, ended: &Ended) {
        // Orphans of our processes are reaped and forgotten.
        let Some(process) = self.running.remove(&ended.pid) else { return };
        match process.ends {
            Ends::Asked => {}
            Ends::ByItself => self.unexpected.push(UnexpectedExit {
                log: last_lines(&process.log),
                node: process.node,
                role: process.role,
                how: ended.how,
                at: ended.at,
            }),
        }
    }
}

/// Which processes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Those with this role.
    Only(Role),
    /// All of the host.
    All,
}

#[derive(Debug)]
struct Process {
    node: NodeName,
    role: Role,
    log: PathBuf,
    ends: Ends,
}

impl Process {
    fn is(&self, node: &NodeName, which: Which) -> bool {
        let chosen = match which {
            Which::Only(role) => self.role == role,
            Which::All => true,
        };
        chosen && self.node == *node
    }
}

#[derive(Clone, Copy, Debug)]
enum Ends {
    ByItself,
    Asked,
}

#[derive(Debug)]
struct Ended {
    pid: Pid,
    how: Exit,
    at: Instant,
}

/// The thread that waits for every child of pid 1.
#[derive(Debug)]
struct Reaper {
    ended: Receiver<Ended>,
    /// Wakes it when there was no child to wait for.
    spawned: SyncSender<()>,
    /// Held while a child is being started.
    lock: Arc<Mutex<()>>,
}

impl Reaper {
    fn start() -> Result<Self, LabError> {
        let (report, ended) = mpsc::sync_channel(REPORTS);
        let (spawned, wake) = mpsc::sync_channel(1);
        let lock = Arc::new(Mutex::new(()));
        let reap = {
            let lock = Arc::clone(&lock);
            move || reap(&report, &wake, &lock)
        };
        // It ends with the last process, and so with the lab.
        thread::Builder::new().name("reaper".to_owned()).spawn(reap).map_err(LabError::Thread)?;
        Ok(Self { ended, spawned, lock })
    }
}

fn reap(report: &SyncSender<Ended>, wake: &Receiver<()>, lock: &Mutex<()>) {
    loop {
        let pid = match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            Ok(status) => status.pid(),
            Err(Errno::ECHILD) => match wake.recv() {
                Ok(()) => continue,
                Err(_) => return,
            },
            // nix knows no name for the real-time signal that ended it, and reaps it all the same.
            Err(_) => {
                let _ = waitpid(None, Some(WaitPidFlag::WNOHANG));
                continue;
            }
        };
        let Some(pid) = pid else { continue };
        let at = super::now();
        let status = {
            let _starting = lock.lock().unwrap_or_else(PoisonError::into_inner);
            waitpid(pid, Some(WaitPidFlag::WNOHANG))
        };
        let how = match status {
            Ok(WaitStatus::Exited(_, status)) => Exit::Status(status),
            Ok(WaitStatus::Signaled(_, signal, _)) => Exit::Signal(signal),
            // std has waited for it: its program could not be executed.
            Ok(_) | Err(_) => continue,
        };
        if report.send(Ended { pid, how, at }).is_err() {
            return;
        }
    }
}

fn last_lines(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) if text.is_empty() => "(no output)".to_owned(),
        Ok(text) => text.trim_end().to_owned(),
        Err(error) => format!("(cannot read {}: {error})", path.display()),
    }
}

/// Reports wait here until the lab's owner looks; beyond it children wait as zombies. Chosen: all processes of 100 nodes.
const REPORTS: usize = 1024;
/// Chosen: some ten lines.
const LOG_TAIL_BYTES: u64 = 2048;
/// SIGKILL needs one scheduling of the process; chosen with room for a machine under load.
const KILLED_WITHIN: Duration = Duration::from_secs(5);
