//! What `drain`, `undrain` and `move` have in common: where they look, what they tell, and how they wait.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, bail};
use clap::ValueEnum;
use garpike_controller::overrides::{Facts, Place, Refusal, Report, Request, carry_out, carry_out_in_cluster};
use garpike_controller::status_file::Written;
use garpike_controller_api::{Scope, Severity};
use garpike_election::{Change, NodeName, NodeState};
use serde_json::{Value, json};

use crate::state::{Seen, Where};

/// Where a request goes, and what becomes of the answer.
#[derive(clap::Args)]
pub(crate) struct Target {
    /// Directory of YAML files that the speakers read, for hosts without Kubernetes [default: the cluster of the kubeconfig]
    #[arg(long, env = "GARPIKE_MANIFESTS", value_name = "DIR", conflicts_with = "kubeconfig")]
    manifests: Option<PathBuf>,
    #[command(flatten)]
    at: Where,
    /// The loadBalancerClass of the Services, as the speakers have it [default: those without a class]
    #[arg(long, env = "GARPIKE_LB_CLASS", value_name = "CLASS", default_value = "")]
    lb_class: String,
    /// Wait until a speaker shows that it is done, and fail if that takes longer
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(ValueEnum, Clone, Copy)]
enum Output {
    /// Lines for people
    Text,
    /// {"done", "judged_by", "place", "written", "addresses", "services", "changes", "refusals"}
    Json,
}

impl Target {
    /// Judges `request`, writes it, and tells what comes of it.
    pub(crate) fn carry_out(&self, request: &Request) -> Result<ExitCode> {
        let seen = self.look()?;
        if let (Some(_), None) = (self.wait, &seen) {
            bail!("--wait: no speaker answers; start one, or leave --wait out");
        }
        let class = Some(self.lb_class.clone()).filter(|class| !class.is_empty());
        let scope = Scope { load_balancer_class: class, ..Scope::default() };
        let members = seen.as_ref().map(Seen::members).transpose()?;
        let facts = Facts { scope: &scope, members: members.as_ref(), now: now() };
        let report = match &self.manifests {
            Some(dir) => carry_out(dir, request, facts)?,
            None => self.at.in_cluster(async |cluster| {
                Ok(carry_out_in_cluster(&cluster.client, &cluster.namespace, request, facts).await?)
            })?,
        };
        match self.output {
            Output::Text => self.tell(request, &report, seen.as_ref())?,
            Output::Json => writeln!(io::stdout().lock(), "{}", serde_json::to_string_pretty(&as_json(&report))?)?,
        }
        if !report.refusals.is_empty() {
            return Ok(ExitCode::FAILURE);
        }
        if let Some(wait) = self.wait {
            self.wait_until_shown(request, &report, wait)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// What a speaker sees; `None` when there is none.
    fn look(&self) -> Result<Option<Seen>> {
        let state = if self.manifests.is_some() { self.at.state_of_this_host() } else { self.at.state() };
        match state {
            Ok(state) => Ok(Some(Seen::parse(&state)?)),
            Err(error) if error.is::<io::Error>() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn tell(&self, request: &Request, report: &Report, seen: Option<&Seen>) -> Result<()> {
        let mut out = io::stdout().lock();
        let mut err = io::stderr().lock();
        if seen.is_none() {
            writeln!(err, "note: no speaker answers: judged by what is written alone, not by who lives")?;
        }
        for problem in report.problems.iter().filter(|problem| problem.severity > Severity::Note) {
            writeln!(err, "{}: {problem}", problem.severity.as_str())?;
        }
        if !report.refusals.is_empty() {
            for refusal in &report.refusals {
                writeln!(err, "error: {refusal}")?;
            }
            writeln!(err, "refused: nothing was written")?;
            return Ok(());
        }
        let place = &report.place;
        match report.written {
            Written::Changed => writeln!(out, "wrote {place}")?,
            Written::Unchanged => writeln!(out, "nothing to write: that is so already")?,
        }
        for Change { ip, from, to } in report.changes.iter().flatten() {
            let name = |node: &Option<NodeName>| node.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
            writeln!(out, "{ip} moves from {} to {}", name(from), name(to))?;
        }
        match &report.changes {
            Some(changes) if changes.is_empty() => writeln!(out, "no address moves")?,
            Some(_) | None => {}
        }
        if let Request::Move { chosen, .. } = request {
            let addresses: Vec<String> = report.addresses.iter().map(ToString::to_string).collect();
            writeln!(out, "{} stays with {} until {}", addresses.join(", "), chosen.node, chosen.time())?;
        }
        if let (Place::File(file), Written::Changed) = (place, report.written) {
            let file = file.display();
            match request {
                Request::Drain(node) | Request::Undrain(node) if seen.is_some_and(|seen| seen.node == *node) => {}
                Request::Drain(node) | Request::Undrain(node) => {
                    writeln!(out, "{node} obeys its own files: unless it shares these, copy {file} there")?;
                }
                Request::Move { .. } | Request::EndMove(_) => {
                    writeln!(
                        out,
                        "every host obeys its own files: unless they share these, copy {file} to all of them"
                    )?;
                }
            }
        }
        Ok(())
    }

    fn wait_until_shown(&self, request: &Request, report: &Report, wait: Duration) -> Result<()> {
        let deadline = instant() + wait;
        loop {
            if self.look()?.is_some_and(|seen| shows(&seen, request, report)) {
                return Ok(());
            }
            if instant() >= deadline {
                let (wait, place) = (humantime::format_duration(wait), &report.place);
                bail!("--wait: after {wait} no speaker shows it; do all of them read {place}?");
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// Whether what was asked for has come about.
fn shows(seen: &Seen, request: &Request, report: &Report) -> bool {
    let state = |node: &NodeName| seen.members.iter().find(|member| member.name == *node).map(|member| member.state);
    match request {
        Request::Drain(node) => {
            let owns = seen.owners.values().any(|owner| owner.as_ref() == Some(node));
            !owns && state(node).is_none_or(|state| state == NodeState::Draining)
        }
        Request::Undrain(node) => state(node) != Some(NodeState::Draining),
        Request::Move { chosen, .. } => {
            report.addresses.iter().all(|ip| seen.owners.get(ip) == Some(&Some(chosen.node.clone())))
        }
        Request::EndMove(ip) => !seen.moves.iter().any(|moved| moved.addresses.contains(ip)),
    }
}

fn as_json(report: &Report) -> Value {
    let Report { refusals, changes, addresses, services, problems: _, place, written } = report;
    let refusal = |Refusal { ip, services, reason, mend }: &Refusal| {
        let services: Vec<String> = services.iter().map(ToString::to_string).collect();
        json!({ "ip": ip, "services": services, "reason": reason, "mend": mend })
    };
    let change = |Change { ip, from, to }: &Change| json!({ "ip": ip, "from": from, "to": to });
    json!({
        "done": refusals.is_empty(),
        "judged_by": if changes.is_some() { "speaker" } else { "files" },
        "place": place.to_string(),
        "written": *written == Written::Changed,
        "addresses": addresses,
        "services": services.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "changes": changes.as_ref().map(|changes| changes.iter().map(change).collect::<Vec<_>>()),
        "refusals": refusals.iter().map(refusal).collect::<Vec<_>>(),
    })
}

/// Reads a time such as `10s` or `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| format!("\"{text}\" is not a time; write 10s, 30m or 1h"))
}

#[expect(clippy::disallowed_methods, reason = "a command reads the clock")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

#[expect(clippy::disallowed_methods, reason = "a command reads the clock")]
fn instant() -> Instant {
    Instant::now()
}

/// Chosen: soon enough for whoever waits, seldom enough for a state of thousands of addresses.
const LOOK_EVERY: Duration = Duration::from_millis(200);
