//! A program that ends with its owner, however that ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running program. It is killed when this is dropped, and also when this process is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// A shell that waits until nobody holds its input any more.
    guard: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; what it prints is appended to `log`.
    ///
    /// # Errors
    ///
    /// When the program cannot be started, or the log cannot be written.
    pub fn spawn(mut command: Command, log: &Path) -> io::Result<Self> {
        let out = OpenOptions::new().create(true).append(true).open(log)?;
        let mut child =
            command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn().map_err(|source| {
                let program = command.get_program().to_string_lossy();
                io::Error::new(source.kind(), format!("cannot start {program}: {source}"))
            })?;
        let guard = Command::new("sh")
            .args(["-c", "read -r _; kill -9 \"$1\" 2>/dev/null", "guard", &child.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match guard {
            Ok(guard) => Ok(Self { child, guard, log: log.to_owned() }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    /// Its number.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("process numbers of Linux fit"))
    }

    /// Sends a signal; nothing happens when it has ended.
    pub fn signal(&self, signal: Signal) {
        // It fails only for a process that has ended.
        let _ = kill(self.pid(), signal);
    }

    /// How it ended, when it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The end of what it printed.
    pub fn last_words(&self) -> String {
        let mut said = String::new();
        match File::open(&self.log).and_then(|mut file| file.read_to_string(&mut said)) {
            Ok(_) => {
                let lines: Vec<&str> = said.lines().collect();
                lines.get(lines.len().saturating_sub(LAST_WORDS)..).unwrap_or_default().join("\n")
            }
            Err(error) => format!("(its log {} cannot be read: {error})", self.log.display()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The guard first: the number may belong to another process once the child has been waited for.
        end(&mut self.guard);
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // Both fail only when it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

/// Chosen: a screen.
const LAST_WORDS: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_last_is_kept_and_the_program_ends_with_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo first; echo last; exec sleep 60"]);

        let process = Process::spawn(command, &directory.path().join("log")).unwrap();
        while !process.last_words().contains("last") {
            std::thread::yield_now();
        }
        let pid = process.pid();
        drop(process);

        assert!(kill(pid, None).is_err());
    }
}
