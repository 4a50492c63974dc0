//! Developer commands: `cargo xtask test|lint|fuzz|crds|crd-facts|manifests|image|setup`.
//!
//! Each prints the commands that it runs and stops at the first that fails.
#![expect(clippy::print_stderr, reason = "it is a command line program")]

mod image;
mod manifests;
mod values;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

/// Developer commands of Garpike.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Xtask {
    /// Builds and runs every test: unit tests, the simulator, the controller on a real API server, the lab
    Test,
    /// Checks format, lints, docs, the IO-free cores, dependency rules and licences; denies warnings
    Lint,
    /// Fuzzes every parser, or one, on the stable toolchain
    Fuzz {
        /// How long each target runs
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Only this target
        target: Option<String>,
    },
    /// Writes deploy/crds from the types in controller/api
    Crds,
    /// Writes the facts of MetalLB's definitions, which a test compares with ours; needs Go
    CrdFacts,
    /// Writes deploy/manifests/garpike.yaml, and what chart and overlays share with it
    Manifests,
    /// Builds the container image and writes it as an archive, without a daemon
    Image(image::Args),
    /// Installs what `lint` or `test` need beyond the toolchain
    #[command(subcommand)]
    Setup(Setup),
}

/// What can be installed.
#[derive(Subcommand)]
enum Setup {
    /// cargo-deny, built from its crate
    Deny,
    /// nftables, tshark and promtool from Debian, which some checks of `test` use; needs root
    Lab,
    /// etcd, kube-apiserver, kubectl and helm, built from the Go module proxy into the user's cache; needs Go
    Kubernetes,
    /// What `garpike chaos run ... --source cluster` starts: these, kubelet, kube-proxy, kube-controller-manager and
    /// kube-scheduler built likewise; containerd, runc and what they call from Debian; needs Go and root
    Nodes,
}

fn main() -> ExitCode {
    match run(&Xtask::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(xtask: &Xtask) -> Result<()> {
    match xtask {
        Xtask::Test => test(),
        Xtask::Lint => lint(),
        Xtask::Fuzz { seconds, target } => fuzz(*seconds, target.as_deref()),
        Xtask::Crds => crds(&["write", "deploy/crds"]),
        Xtask::CrdFacts => crd_facts(),
        Xtask::Manifests => manifests::run(),
        Xtask::Image(args) => image::run(args),
        Xtask::Setup(Setup::Deny) => setup_deny(),
        Xtask::Setup(Setup::Lab) => setup_lab(),
        Xtask::Setup(Setup::Kubernetes) => setup_kubernetes(&[]),
        Xtask::Setup(Setup::Nodes) => setup_nodes(),
    }
}

fn crds(arguments: &[&str]) -> Result<()> {
    cargo(&[&["run", "--package", "garpike-controller-api", "--example", "crds", "--"], arguments].concat())
}

/// Reads the definitions in MetalLB's Go module, from the module proxy or the user's module cache.
fn crd_facts() -> Result<()> {
    // Outside every Go module, so that none is changed.
    let download = Command::new("go")
        .args(["mod", "download", "-json", METALLB])
        .current_dir(std::env::temp_dir())
        .output()
        .context("cannot run go; install Go 1.24 or later")?;
    let answer = String::from_utf8_lossy(&download.stdout);
    let dir = answer.lines().find_map(|line| line.trim().strip_prefix("\"Dir\": \"")?.strip_suffix("\","));
    let Some(dir) = dir.filter(|_| download.status.success()) else {
        bail!("cannot download {METALLB}: {answer}{}", String::from_utf8_lossy(&download.stderr));
    };
    crds(&["facts", &format!("{dir}/config/crd/bases"), FACTS])
}

/// The image that the manifests and the chart name.
const IMAGE: &str = concat!("ghcr.io/garpike/garpike:v", env!("CARGO_PKG_VERSION"));

/// The module that the definitions are compared with.
const METALLB: &str = "go.universe.tf/metallb@v0.16.1";

/// Its definitions without their texts.
const FACTS: &str = "controller/api/tests/metallb-0.16.1-crds.json";

fn test() -> Result<()> {
    eprintln!(
        "xtask: needs the Rust toolchain, and programs of others for some tests, which name the command that brings them; \
         installs nothing"
    );
    // Needs neither rights nor other programs.
    cargo(&["test", "--workspace", "--profile", PROFILE])?;
    // Needs user namespaces or root; fails, with the setting to change, where there are none.
    by_name(&["kernel"])?;
    // Fail, with the command that brings them, where there are no programs of others.
    by_name(&["install"])?;
    by_name(&["kubernetes"])?;
    by_name(&["lab", "--", "--test-threads=1"])
}

/// Runs a test that is not among the others. As part of the workspace, so that the features are the same, and nothing is
/// built twice.
fn by_name(test: &[&str]) -> Result<()> {
    cargo(&[&["test", "--workspace", "--profile", PROFILE, "--test"], test].concat())
}

fn lint() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    // Not among all targets, because they are run by name.
    let by_name = ["--test", "kernel", "--test", "kubernetes", "--test", "lab", "--test", "install"];
    cargo(&[&["clippy"], &by_name[..], &["--", "-D", "warnings"]].concat())?;
    cargo_with(&["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")])?;
    for core in ["garpike-membership", "garpike-announcer"] {
        cargo(&["check", "--package", core, "--no-default-features"])?;
    }
    cargo(&["check", "--no-default-features"])?;
    if !succeeds(Command::new("cargo-deny").arg("--version")) {
        setup_deny()?;
    }
    cargo(&["deny", "check", "bans", "licenses", "sources"])
}

/// Runs the libFuzzer binaries of `fuzz/`. Coverage by the compiler's own pass, so the pinned stable toolchain does.
fn fuzz(seconds: u32, only: Option<&str>) -> Result<()> {
    let targets = fuzz_targets()?;
    if let Some(only) = only.filter(|only| !targets.iter().any(|target| target == only)) {
        bail!("there is no fuzz target \"{only}\"; there are {}", targets.join(", "));
    }
    let flags = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                 -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions=on";
    let target_dir = root().join("target/fuzz");
    let triple = host()?;
    // With --target the flags do not reach build scripts and proc macros.
    let build =
        ["build", "--release", "--package", "garpike-fuzz", "--features", "libfuzzer", "--bins", "--target", &triple];
    cargo_with(&build, &[("RUSTFLAGS", flags), ("CARGO_TARGET_DIR", &target_dir.to_string_lossy())])?;
    for target in targets.iter().filter(|target| only.is_none_or(|only| only == *target)) {
        let found = target_dir.join("corpus").join(target);
        let artifacts = root().join("fuzz/artifacts").join(target);
        for directory in [&found, &artifacts] {
            std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        }
        // libFuzzer's own limit on one allocation needs a sanitizer; the kernel's needs nothing.
        let mut command = Command::new("sh");
        command
            .args(["-c", "ulimit -v 524288 && exec \"$@\"", "sh"])
            .arg(target_dir.join(&triple).join("release").join(target))
            .arg(format!("-max_total_time={seconds}"))
            .args(["-max_len=4096", "-rss_limit_mb=400", "-timeout=5", "-print_final_stats=1"])
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg(&found)
            .arg(root().join("fuzz/corpus").join(target));
        succeed(&mut command).with_context(|| {
            format!(
                "target {target}: an input that it found is in {}; add it to fuzz/corpus/{target} with the mend",
                artifacts.display()
            )
        })?;
    }
    Ok(())
}

fn fuzz_targets() -> Result<Vec<String>> {
    let directory = root().join("fuzz/fuzz_targets");
    let mut targets = Vec::new();
    for entry in std::fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))? {
        if let Some(name) = entry?.path().file_stem().and_then(|name| name.to_str()) {
            targets.push(name.to_owned());
        }
    }
    targets.sort();
    Ok(targets)
}

fn setup_deny() -> Result<()> {
    eprintln!("xtask: installing cargo-deny {DENY_VERSION} with cargo install");
    cargo(&["install", "cargo-deny", "--locked", "--version", DENY_VERSION])
}

/// The binary that the tests start knows which programs of others it needs.
fn setup_kubernetes(more: &[&str]) -> Result<()> {
    cargo(&["test", "--workspace", "--profile", PROFILE, "--no-run"])?;
    succeed(Command::new(target_dir().join(PROFILE).join("garpike")).args(["chaos", "programs"]).args(more))
}

fn setup_lab() -> Result<()> {
    debian(&LAB_PROGRAMS, &DEBIAN_PACKAGES)
}

fn setup_nodes() -> Result<()> {
    debian(&NODE_PROGRAMS, &NODE_PACKAGES)?;
    setup_kubernetes(&["--nodes"])
}

/// Installs packages unless all programs are there.
fn debian(programs: &[&str], packages: &[&str]) -> Result<()> {
    let found = |program: &&str| succeeds(Command::new("which").arg(program));
    if programs.iter().all(found) {
        eprintln!("xtask: {} are there", programs.join(", "));
        return Ok(());
    }
    succeed(Command::new("apt-get").arg("update"))?;
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    // The runlevel keeps the packages from starting services: only the programs are wanted.
    install.envs([("DEBIAN_FRONTEND", "noninteractive"), ("RUNLEVEL", "1")]);
    succeed(&mut install)
        .with_context(|| format!("on other systems install {} by their own means", programs.join(", ")))
}

fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    cargo_with(arguments, &[])
}

fn cargo_with(arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    succeed(Command::new("cargo").args(arguments).envs(environment.iter().copied()).current_dir(root()))
}

fn succeed(command: &mut Command) -> Result<()> {
    let line = printed(command);
    eprintln!("xtask: {line}");
    let start = now();
    let status = command.status().with_context(|| format!("cannot run {line}"))?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    eprintln!("xtask: done in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn printed(command: &Command) -> String {
    let words = command.get_envs().filter_map(|(key, value)| {
        value.map(|value| format!("{}='{}'", key.to_string_lossy(), value.to_string_lossy()))
    });
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    let program = command.get_program().to_string_lossy().into_owned();
    words.chain([program]).chain(arguments).collect::<Vec<_>>().join(" ")
}

fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

#[expect(clippy::disallowed_methods, reason = "it measures how long its commands take")]
fn now() -> Instant {
    Instant::now()
}

/// The profile of tests and lab: see Cargo.toml.
const PROFILE: &str = "ci";
/// What the tests call of them.
const LAB_PROGRAMS: [&str; 3] = ["nft", "tshark", "promtool"];
const DEBIAN_PACKAGES: [&str; 3] = ["nftables", "tshark", "prometheus"];
/// What the nodes of the cluster lab call of them.
const NODE_PROGRAMS: [&str; 6] = ["containerd", "runc", "nft", "conntrack", "ip", "unshare"];
const NODE_PACKAGES: [&str; 7] =
    ["containerd", "runc", "containernetworking-plugins", "nftables", "conntrack", "iproute2", "util-linux"];
const DENY_VERSION: &str = "0.20.2";
