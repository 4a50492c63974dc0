//! `garpike convert`: what people have from older releases, in the form of today.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use garpike_controller_api::{Scope, Severity, legacy, manifests, validate};

/// Turns a configuration of MetalLB 0.12 and older into the custom resources of today
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    source: Source,
}

#[derive(clap::Subcommand)]
enum Source {
    /// Converts the ConfigMap "config" of metallb-system, or what its key "config" holds
    ///
    /// Prints the custom resources, and on standard error what needs attention. Exit status 1 if a line could not be
    /// carried over.
    #[command(after_help = "Example:\n  kubectl get configmap -n metallb-system config -o yaml > old.yaml\n  \
                            garpike convert configmap old.yaml > new.yaml")]
    Configmap {
        /// The file
        file: PathBuf,
    },
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let Source::Configmap { file } = &args.source;
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let (objects, mut problems) = legacy::convert(&file.display().to_string(), &text);
    let yaml = legacy::render(&objects)?;
    // What was wrong before is wrong now; better to hear of it here.
    let (read, complaints) = manifests::parse_documents("result", &yaml);
    problems.extend(complaints);
    let namespace = read.pools.keys().next().map(|key| key.namespace.clone());
    let scope = namespace.map_or_else(Scope::default, |namespace| Scope { namespace, ..Scope::default() });
    problems.extend(validate(&read, &scope).1);
    std::io::stdout().lock().write_all(yaml.as_bytes())?;
    let mut err = std::io::stderr().lock();
    for problem in &problems {
        writeln!(err, "{}: {problem}", problem.severity.as_str())?;
    }
    let lost = problems.iter().any(|problem| problem.severity == Severity::Error);
    Ok(if lost || objects.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
