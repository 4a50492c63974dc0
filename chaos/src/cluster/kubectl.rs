//! kubectl, as an administrator runs it, and what else is run to its end.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use garpike_election::NodeName;
use serde_json::Value;

use super::Cluster;
use crate::lab::{Exit, Finished};
use crate::tools::Program;

impl Cluster<'_> {
    /// Runs kubectl; what it printed. An error has what it complained of.
    pub(crate) fn kubectl(&mut self, arguments: &[&str]) -> Result<String> {
        let command = self.kubectl_command(arguments)?;
        let control = self.control.clone();
        let finished = self.lab.run_on(&control, command, KUBECTL_WITHIN)?;
        good(&format!("kubectl {}", arguments.join(" ")), &finished)
    }

    /// Objects as JSON.
    pub(crate) fn get(&mut self, what: &str, more: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", what, "-o", "json"], more].concat())?;
        serde_json::from_str(&text).with_context(|| format!("kubectl get {what}: no JSON"))
    }

    /// `kubectl apply -f` of a text.
    pub(crate) fn apply(&mut self, yaml: &str) -> Result<String> {
        let path = self.file("applied.yaml");
        fs::write(&path, yaml).with_context(|| format!("cannot write {}", path.display()))?;
        self.kubectl(&["apply", "-f", &path.to_string_lossy()])
    }

    /// Runs a shell line on a node's network, outside of its other namespaces.
    pub(super) fn shell(&mut self, node: &NodeName, line: &str) -> Result<String> {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        good(line, &self.lab.run_on(node, command, SHELL_WITHIN)?)
    }

    /// Runs a shell line at the client.
    pub(super) fn shell_at_client(&mut self, line: &str) -> Result<String> {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        good(line, &self.lab.run_at_client(command, SHELL_WITHIN)?)
    }

    fn kubectl_command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(Program::Kubectl.path()?);
        command.arg("--kubeconfig").arg(self.file("pki/admin.kubeconfig")).args(arguments);
        // Where it keeps what it has found out about the API.
        command.env("KUBECACHEDIR", self.file("kubectl"));
        Ok(command)
    }
}

fn good(what: &str, finished: &Finished) -> Result<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    match finished.how {
        Exit::Status(0) => Ok(text(&finished.output)),
        Exit::Status(_) | Exit::Signal(_) => {
            bail!("{what}: {}: {} {}", finished.how, text(&finished.errors), text(&finished.output))
        }
    }
}

/// `rollout status` waits by itself; chosen: longer than any of them.
const KUBECTL_WITHIN: Duration = Duration::from_secs(300);
const SHELL_WITHIN: Duration = Duration::from_secs(60);
