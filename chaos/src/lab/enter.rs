//! The way into the lab: namespaces of its own for this process, as root or as an ordinary user alike.
//!
//! The runner (the process the user started) unshares and starts itself again; that child is pid 1 of a new PID
//! namespace. Whatever ends the runner ends pid 1, and with pid 1 the kernel ends every process of the lab, and with
//! those the network and mount namespaces go: nothing is left behind, even after SIGKILL.
//!
//! ```text
//! runner ── waits, turns Ctrl-C and SIGTERM into "end" ──┐ stdin of pid 1 (its end means "end")
//!   └─ pid 1 = the same program again, [`Entered::Inside`] ◄┘
//!        └─ speakers, echo servers, ...
//! ```

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{getegid, geteuid};
use tempfile::TempDir;
use thiserror::Error;

use super::limits::{Forbidding, Settings};

/// On which side of the entrance the caller is.
#[derive(Debug)]
pub enum Entered {
    /// The lab has been and gone: this is the status that the process should exit with.
    Outside {
        /// The status of pid 1; 128 + the signal when a signal ended it, as shells count.
        status: u8,
    },
    /// This process is pid 1 of the lab.
    Inside(Init),
}

/// Enters the lab. To be called first thing, before any thread is started.
///
/// # Errors
///
/// When the system forbids namespaces: the error names the setting.
pub fn enter() -> Result<Entered, EnterError> {
    // The variable alone may be inherited by mistake, pid 1 alone may be a container's.
    if std::env::var_os(INSIDE).is_some() && std::process::id() == 1 {
        return Ok(Entered::Inside(Init::start()?));
    }
    // unshare(2): a user namespace is refused to a process with threads, and a thread would stay outside.
    let threads = fs::read_dir("/proc/self/task").map_err(EnterError::Proc)?.count();
    if threads != 1 {
        return Err(EnterError::Threads { threads });
    }
    unshare_all()?;
    supervise()
}

/// Proof that this process is pid 1 of a lab, and what comes with it: a scratch directory and a private `/proc`.
#[derive(Debug)]
pub struct Init {
    scratch: Scratch,
}

impl Init {
    /// A directory for files of this lab. It goes with the lab.
    pub fn scratch(&self) -> &Path {
        match &self.scratch {
            Scratch::Private(path) => path,
            Scratch::Shared(dir) => dir.path(),
        }
    }

    fn start() -> Result<Self, EnterError> {
        set_pdeathsig(Signal::SIGKILL)
            .map_err(|errno| EnterError::Kernel { what: "prctl(PR_SET_PDEATHSIG)", errno })?;
        let scratch = match private_mounts() {
            Some(path) => Scratch::Private(path),
            None => Scratch::Shared(temporary_directory().map_err(EnterError::Scratch)?),
        };
        let fallback = match &scratch {
            Scratch::Private(_) => None,
            Scratch::Shared(dir) => Some(dir.path().to_owned()),
        };
        // The runner may have died before the line above: its end of our stdin is closed then.
        let watch = move || {
            wait_for_end_of_input();
            if let Some(dir) = fallback {
                let _ = fs::remove_dir_all(dir);
            }
            std::process::exit(ENDED_BY_RUNNER);
        };
        thread::Builder::new().name("runner".to_owned()).spawn(watch).map_err(EnterError::Thread)?;
        Ok(Self { scratch })
    }
}

/// Why the lab could not be entered.
#[derive(Debug, Error)]
pub enum EnterError {
    /// The process has threads already.
    #[error("the lab must be entered before any thread is started: this process has {threads}")]
    Threads {
        /// How many, the main thread included.
        threads: usize,
    },
    /// A setting of the system forbids namespaces to this user.
    #[error(
        "this system forbids the lab its namespaces: {0}; or run this as root, or use `--simulate`, which needs none"
    )]
    Forbidden(Forbidding),
    /// Namespaces are refused though all known settings allow them.
    #[error(
        "the kernel refuses {what} ({errno}) though its settings allow it: a container's seccomp filter or a chroot is \
         the usual reason; run outside of it, or as root, or use `--simulate`, which needs no namespaces"
    )]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Root inside could not be mapped to the user outside.
    #[error("cannot write {path}: {source}; the program must be readable by its user; or run as root")]
    Map {
        /// The file.
        path: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// Another system call failed.
    #[error("{what} failed: {errno}")]
    Kernel {
        /// The call.
        what: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// `/proc` is not what it should be.
    #[error("cannot read /proc/self/task: {0}; the lab needs /proc to be mounted")]
    Proc(#[source] io::Error),
    /// The program could not be started again.
    #[error("cannot start /proc/self/exe again inside the lab: {0}")]
    Start(#[source] io::Error),
    /// pid 1 could not be waited for or ended.
    #[error("cannot wait for pid 1 of the lab: {0}")]
    Wait(#[source] io::Error),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// There is no place for files.
    #[error("cannot make a scratch directory: {0}")]
    Scratch(#[source] io::Error),
}

/// Where the files of a lab lie.
#[derive(Debug)]
enum Scratch {
    /// In a file system of this mount namespace: it goes when the last process does.
    Private(PathBuf),
    /// In the system's temporary directory, because the private mount was refused: SIGKILL leaves it behind.
    Shared(TempDir),
}

fn unshare_all() -> Result<(), EnterError> {
    let namespaces = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    if unshare(namespaces).is_ok() {
        return Ok(());
    }
    let settings = Settings::read();
    let refused = |what| {
        let settings = &settings;
        move |errno| settings.forbidding(errno).map_or(EnterError::Refused { what, errno }, EnterError::Forbidden)
    };
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(refused("a user namespace"))?;
    // user_namespaces(7): a user may map its own group only after giving up setgroups(2).
    write_map("/proc/self/setgroups", "deny", &settings)?;
    write_map("/proc/self/uid_map", &format!("0 {uid} 1"), &settings)?;
    write_map("/proc/self/gid_map", &format!("0 {gid} 1"), &settings)?;
    unshare(namespaces).map_err(refused("PID, network and mount namespaces"))
}

fn write_map(path: &'static str, text: &str, settings: &Settings) -> Result<(), EnterError> {
    fs::write(path, text).map_err(|source| {
        // AppArmor lets the namespace be made and takes its capabilities away.
        let errno = source.raw_os_error().map(Errno::from_raw).filter(|errno| *errno == Errno::EPERM);
        let forbidden = errno.and_then(|errno| settings.forbidding(errno));
        forbidden.map_or(EnterError::Map { path, source }, EnterError::Forbidden)
    })
}

/// Starts pid 1 and waits for it. SIGINT, SIGTERM and SIGHUP ask it to end; a second one kills it.
fn supervise() -> Result<Entered, EnterError> {
    let mut args = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    let mut init = command.args(args).env(INSIDE, "1").stdin(Stdio::piped()).spawn().map_err(EnterError::Start)?;

    // The child was started before this, so that it does not inherit the mask. A thread would be simpler, but
    // after unshare(CLONE_NEWPID) this process cannot have any.
    let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD].into_iter().collect::<SigSet>();
    let kernel = |what| move |errno| EnterError::Kernel { what, errno };
    let before = signals.thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(kernel("pthread_sigmask"))?;
    let mut ended_by = None;
    let status = loop {
        if let Some(status) = init.try_wait().map_err(EnterError::Wait)? {
            break status;
        }
        let signal = signals.wait().map_err(kernel("sigwait"))?;
        if signal == Signal::SIGCHLD {
            continue;
        }
        if ended_by.replace(signal).is_none() {
            drop(init.stdin.take());
        } else {
            init.kill().map_err(EnterError::Wait)?;
        }
    };
    before.thread_set_mask().map_err(kernel("pthread_sigmask"))?;
    Ok(Entered::Outside { status: exit_status(status, ended_by) })
}

fn exit_status(status: ExitStatus, ended_by: Option<Signal>) -> u8 {
    match (ended_by.map(|signal| signal as i32).or_else(|| status.signal()), status.code()) {
        (Some(signal), _) => 128 | u8::try_from(signal).unwrap_or(0),
        (None, code) => code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX),
    }
}

/// Gives pid 1 a `/proc` that shows its own processes, and a scratch file system that nobody else sees.
fn private_mounts() -> Option<PathBuf> {
    let no_device = None::<&str>;
    let make_private = mount(no_device, "/", no_device, MsFlags::MS_REC | MsFlags::MS_PRIVATE, no_device);
    if let Err(errno) = make_private {
        // Without this a mount could show up outside.
        tracing::debug!(%errno, "mounts stay shared: no /proc and no scratch file system of our own");
        return None;
    }
    let secure = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if let Err(errno) = mount(Some("proc"), "/proc", Some("proc"), secure, no_device) {
        tracing::debug!(%errno, "no /proc of our own: /proc lists the processes of the whole system");
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    match mount(Some("garpike-lab"), SCRATCH, Some("tmpfs"), flags, Some("mode=0700")) {
        Ok(()) => Some(PathBuf::from(SCRATCH)),
        Err(errno) => {
            tracing::debug!(%errno, "no scratch file system of our own");
            None
        }
    }
}

/// A directory that outlives the lab, for what a user should see afterwards.
pub(super) fn temporary_directory() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("garpike-lab-").tempdir()
}

fn wait_for_end_of_input() {
    let mut stdin = io::stdin();
    let mut sink = [0; 64];
    loop {
        match stdin.read(&mut sink) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Set for pid 1 by the runner.
pub(super) const INSIDE: &str = "GARPIKE_LAB_INSIDE";
/// A directory that exists on every Linux for short-lived shared files; the lab's mount hides it from the lab only.
const SCRATCH: &str = "/dev/shm";
/// Never seen by the user: the runner reports the signal that made it end the lab.
const ENDED_BY_RUNNER: i32 = 130;
