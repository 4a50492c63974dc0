//! The yardstick: the least that a user-space responder can do, in C, compiled when it is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use garpike_election::NodeName;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{LoadError, Protocol};
use crate::lab::process::Which;
use crate::lab::{Lab, Role};

/// A program that answers every request with one `recvfrom` and one `sendto`.
#[derive(Clone, Debug)]
pub struct Yardstick {
    program: PathBuf,
}

impl Yardstick {
    /// Compiles it with `cc -O2`. To be called before a lab is built: the lab reaps all children of the process.
    ///
    /// # Errors
    ///
    /// When there is no compiler, or it fails.
    pub fn compile(directory: &Path) -> Result<Self, LoadError> {
        let (source, program) = (directory.join("arp_responder.c"), directory.join("arp_responder"));
        fs::write(&source, SOURCE)?;
        let status = Command::new("cc").arg("-O2").arg("-o").arg(&program).arg(&source).status();
        let status = status.map_err(LoadError::NoCompiler)?;
        if status.success() { Ok(Self { program }) } else { Err(LoadError::Compiler { path: source, status }) }
    }

    /// Starts it on a node.
    ///
    /// # Errors
    ///
    /// When the lab cannot start it.
    pub fn start(&self, lab: &mut Lab<'_>, node: &NodeName, protocol: Protocol) -> Result<Pid, LoadError> {
        let mut command = Command::new(&self.program);
        command.arg("eth0").arg(protocol.as_str());
        Ok(lab.spawn(node, Role::Other, command)?)
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn end(&self, lab: &mut Lab<'_>, node: &NodeName) -> Result<(), LoadError> {
        lab.processes.signal(node, Which::Only(Role::Other), Signal::SIGKILL)?;
        Ok(lab.processes.wait(node, Which::Only(Role::Other), ENDS_WITHIN)?)
    }
}

/// SIGKILL needs one scheduling of the process; chosen with room for a machine under load.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

const SOURCE: &str = include_str!("../../../../tools/arp-responder/arp_responder.c");
