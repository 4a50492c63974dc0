//! `garpike keys`: makes keys, puts them in place, and shows who holds which.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context as _, Result, anyhow};
use clap::{Subcommand, ValueEnum};
use garpike_membership::io::{Rotated, generate_secret, rotate_key};
use garpike_membership::{Key, SecretKey};
use serde::Serialize;
use serde_json::Value;

use crate::state::{STATE_URL, fetch};

/// Makes, changes and shows the keys that encrypt gossip between nodes
///
/// No heartbeat is lost while a key is changed: every node seals with the newest key that the receiver holds, and holds a
/// replaced key until every living member has the new one.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints a new secret: 128 random bytes in base64
    #[command(after_help = "Example:\n  (umask 077; garpike keys generate > /etc/garpike/keys/secretkey)")]
    Generate,
    Status(Status),
    Rotate(Rotate),
}

/// Shows which node holds which keys, as the speaker of this host sees it
///
/// Exit status 1: some living member lacks the newest key or has not said so, or the files of the keys need mending.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  garpike keys status\n  garpike keys status -o json | jq .members\n  \
                        kubectl -n metallb-system exec ds/speaker -- garpike keys status")]
struct Status {
    /// Where the speaker shows its state
    #[arg(long, value_name = "URL", default_value = STATE_URL)]
    state_url: String,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Puts a new secret in the place of the old one
///
/// In a directory the old one stays in force beside it, as "old-TIME", until you remove it. A single file is replaced at
/// once. Then do the same on the other hosts with the same secret; the command says how.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  garpike keys rotate /etc/garpike/keys\n  garpike keys rotate --kubernetes")]
struct Rotate {
    /// The directory of keys, or the file of the only one, that --ml-secret-key-path of the speaker names
    #[arg(value_name = "PATH", required_unless_present = "kubernetes", conflicts_with = "kubernetes")]
    path: Option<PathBuf>,
    /// Print the commands that change the Secret of a cluster
    #[arg(long)]
    kubernetes: bool,
    /// Namespace of the Secret
    #[arg(long, value_name = "NAME", default_value = "metallb-system", value_parser = object_name, requires = "kubernetes")]
    namespace: String,
    /// Name of the Secret
    #[arg(long, value_name = "NAME", default_value = "memberlist", value_parser = object_name, requires = "kubernetes")]
    secret: String,
    /// Name of the cluster as the speakers have it, to print the names of the keys
    #[arg(long, env = "GARPIKE_CLUSTER_NAME", value_name = "NAME", default_value = "garpike")]
    cluster_name: String,
}

#[derive(ValueEnum, Clone, Copy)]
enum Output {
    /// A table
    Text,
    /// {"node", "sealing", "newest", "keys", "members", "complaints"}
    Json,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match &args.command {
        Command::Generate => {
            std::io::stdout().lock().write_all(generate_secret().as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Status(args) => status(args),
        Command::Rotate(args) => rotate(args),
    }
}

fn status(args: &Status) -> Result<ExitCode> {
    let state = fetch(&args.state_url).with_context(|| {
        format!("--state-url: no state from {}; does the speaker run, with this --health-probe-port?", args.state_url)
    })?;
    let view = View::of(&state).with_context(|| {
        format!("--state-url: what {} shows is not the state of a speaker of this version", args.state_url)
    })?;
    let mut out = std::io::stdout().lock();
    match args.output {
        Output::Text => write!(out, "{}", view.text())?,
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&view)?)?,
    }
    Ok(if view.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The keys of the cluster as one speaker sees them.
#[derive(Serialize)]
struct View {
    node: String,
    sealing: String,
    newest: Option<String>,
    /// The keys of the node itself, in the order of preference.
    keys: Vec<OwnKey>,
    members: Vec<Member>,
    complaints: Vec<String>,
}

#[derive(Serialize)]
struct OwnKey {
    id: String,
    standing: String,
}

#[derive(Serialize)]
struct Member {
    name: String,
    /// `None`: it has not said so.
    keys: Option<Vec<String>>,
    sealed_with: Option<String>,
    holds_newest: Option<bool>,
}

impl View {
    fn of(state: &Value) -> Result<Self> {
        let membership = &state["membership"];
        let own = |key: &Value| Ok(OwnKey { id: text(&key["id"])?, standing: text(&key["standing"])? });
        let keys: Vec<OwnKey> = list(&membership["keys"])?.iter().map(own).collect::<Result<_>>()?;
        let newest = keys.first().map(|key| key.id.clone());
        let member = |member: &Value| {
            let told = Some(&member["keys"]).filter(|keys| !keys.is_null());
            let held = told.map(|keys| list(keys)?.iter().map(text).collect::<Result<Vec<_>>>()).transpose()?;
            let holds = |id: &String| held.as_ref().is_some_and(|held| held.contains(id));
            Ok(Member {
                name: text(&member["name"])?,
                sealed_with: keys.iter().map(|key| &key.id).find(|id| holds(id)).cloned(),
                holds_newest: held.as_ref().and(newest.as_ref()).map(holds),
                keys: held,
            })
        };
        let members = list(&membership["members"])?.iter().map(member).collect::<Result<_>>()?;
        let mut complaints: Vec<String> =
            list(&membership["key_complaints"])?.iter().map(text).collect::<Result<_>>()?;
        for complaint in list(&membership["complaints"])? {
            let reason = text(&complaint["reason"])?;
            let recent = complaint["seconds_ago"].as_f64().is_some_and(|seconds| seconds < RECENT_SECONDS);
            if recent && ["wrong_key", "plaintext", "sealed"].contains(&reason.as_str()) {
                complaints.push(format!("{}: {}", text(&complaint["source"])?, text(&complaint["mend"])?));
            }
        }
        let (node, sealing) = (text(&membership["local"])?, text(&membership["sealing"])?);
        Ok(Self { node, sealing, newest, keys, members, complaints })
    }

    fn is_good(&self) -> bool {
        let all = self.members.iter().all(|member| member.holds_newest == Some(true));
        self.newest.is_some() && all && self.complaints.is_empty()
    }

    fn text(&self) -> String {
        let mut rows = vec![["NODE", "KEYS", "SEALED WITH", "NEWEST"].map(str::to_owned)];
        let own = self.keys.iter().map(|key| match key.standing.as_str() {
            "in_force" => key.id.clone(),
            other => format!("{} ({other})", key.id),
        });
        let own = own.collect::<Vec<_>>().join(" ");
        rows.push([format!("{} (this)", self.node), own, "-".to_owned(), mark(self.newest.as_ref().map(|_| true))]);
        for member in &self.members {
            let keys = member.keys.as_ref().map_or_else(|| "not known".to_owned(), |keys| keys.join(" "));
            let sealed_with = member.sealed_with.clone().unwrap_or_else(|| "-".to_owned());
            rows.push([member.name.clone(), keys, sealed_with, mark(member.holds_newest)]);
        }
        let mut text = table(&rows);
        let lacking = self.members.iter().filter(|member| member.holds_newest != Some(true)).count();
        match (self.sealing.as_str(), &self.newest) {
            ("plaintext", _) | (_, None) => {
                text += "\ngossip is not encrypted: give every node the same secret with --ml-secret-key-path\n";
            }
            (sealing, Some(newest)) => {
                if sealing == "roll_out" {
                    text += "\nthis node accepts gossip in the clear as well (--insecure-plaintext)\n";
                }
                if lacking > 0 {
                    text += &format!("\n{lacking} of {} members are not known to hold {newest}\n", self.members.len());
                }
            }
        }
        for complaint in &self.complaints {
            text += &format!("\n{complaint}\n");
        }
        text
    }
}

fn mark(holds_newest: Option<bool>) -> String {
    match holds_newest {
        Some(true) => "yes",
        Some(false) => "no",
        None => "?",
    }
    .to_owned()
}

fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
            line += &format!("{cell:width$}  ", width = width.unwrap_or(0));
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn text(value: &Value) -> Result<String> {
    value.as_str().map(ToOwned::to_owned).ok_or_else(|| anyhow!("a text is missing"))
}

fn list(value: &Value) -> Result<&[Value]> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| anyhow!("a list is missing"))
}

fn rotate(args: &Rotate) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let Some(path) = &args.path else {
        write!(out, "{}", kubernetes_commands(&args.namespace, &args.secret))?;
        return Ok(ExitCode::SUCCESS);
    };
    let rotated = rotate_key(path, now())?;
    write!(out, "{}", told(path, &rotated, &args.cluster_name))?;
    Ok(ExitCode::SUCCESS)
}

/// What was done, and what is left to do.
fn told(path: &Path, rotated: &Rotated, cluster: &str) -> String {
    let id = |secret: &SecretKey| Key::derive(secret, cluster).id();
    let mut text = format!("{} holds a new key: {}\n", rotated.written.display(), id(&rotated.new));
    let path = path.display();
    if let Some(old) = &rotated.old {
        match &rotated.kept {
            Some(kept) => text += &format!("{} keeps the old one in force: {}\n", kept.display(), id(old)),
            None => text += &format!("the old one is replaced: {}\n", id(old)),
        }
    }
    text += "the speaker of this host reads that within a second\n\non every other host, the same files:\n";
    match &rotated.kept {
        Some(kept) => {
            text += &format!("  rsync -a {path}/ HOST:{path}/\n\n");
            text += "when \"garpike keys status\" ends with exit status 0 on every host, on all of them:\n";
            text += &format!("  rm {}\n", kept.display());
        }
        None => {
            text += &format!("  rsync -a {path} HOST:{path}\n\n");
            text += "until all have it, a speaker that restarts without --key-cache is understood only by those that have \
                     it too; a directory of keys (--ml-secret-key-path DIR) keeps the old key in force meanwhile\n";
        }
    }
    text
}

fn kubernetes_commands(namespace: &str, secret: &str) -> String {
    format!(
        "\
# Adds a new key to the Secret {namespace}/{secret} and keeps the old one in force beside it.
# Kubelets bring both to their nodes within about 90 s. Run this in a shell:
old=$(kubectl -n {namespace} get secret {secret} -o 'jsonpath={{.data.secretkey}}')
new=$(garpike keys generate | base64 -w 0)
at=$(date -u +%Y%m%dT%H%M%SZ)
kubectl -n {namespace} patch secret {secret} --type merge --patch-file /dev/stdin <<END
{{\"data\": {{\"old-$at\": \"$old\", \"secretkey\": \"$new\"}}}}
END

# When \"garpike keys status\" ends with exit status 0 on every node, remove the old key:
kubectl -n {namespace} patch secret {secret} --type json -p \"[{{\\\"op\\\": \\\"remove\\\", \\\"path\\\": \\\"/data/old-$at\\\"}}]\"
"
    )
}

/// A name as Kubernetes allows it: it is printed into a shell command.
fn object_name(name: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if name.is_empty() || name.starts_with('-') || !name.chars().all(allowed) {
        return Err("a name consists of a-z, 0-9, '-' and '.'".to_owned());
    }
    Ok(name.to_owned())
}

#[expect(clippy::disallowed_methods, reason = "a command reads the clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Chosen: who is not understood tries again every few seconds.
const RECENT_SECONDS: f64 = 60.0;
