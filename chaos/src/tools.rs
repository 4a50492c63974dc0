//! Programs of others that judge ours: a real Kubernetes, built from the Go module proxy and kept by version.
//!
//! Each Go module under `tools/` pins one project with all its dependencies. Its programs are built into the user's cache
//! directory, once for each version; nothing is installed, and no right is needed.

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use thiserror::Error;

/// A program that the lab starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// The database of the API server.
    Etcd,
    /// The API server.
    KubeApiserver,
    /// The client that people use.
    Kubectl,
    /// What renders the chart.
    Helm,
    /// What runs pods on a node.
    Kubelet,
    /// What brings packets for a Service to its pods.
    KubeProxy,
    /// What turns Deployments into pods.
    KubeControllerManager,
    /// What gives pods to nodes.
    KubeScheduler,
    /// MetalLB's controller, for the way from it and back.
    MetallbController,
    /// MetalLB's speaker.
    MetallbSpeaker,
}

impl Program {
    /// What tests and loads need that only talk to the API.
    pub const API: [Self; 4] = [Self::Etcd, Self::KubeApiserver, Self::Kubectl, Self::Helm];
    /// What a cluster with nodes needs besides, and a MetalLB for it.
    pub const NODES: [Self; 6] = [
        Self::Kubelet,
        Self::KubeProxy,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::MetallbController,
        Self::MetallbSpeaker,
    ];

    /// Where it is.
    ///
    /// # Errors
    ///
    /// When it has not been built: the error names the command that does.
    pub fn path(self) -> Result<PathBuf, ToolError> {
        let path = self.module().directory()?.join(self.name());
        if path.is_file() { Ok(path) } else { Err(ToolError::Missing { program: self }) }
    }

    /// Its name, which is also its file's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::Kubectl => "kubectl",
            Self::Helm => "helm",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::MetallbController => "controller",
            Self::MetallbSpeaker => "speaker",
        }
    }

    /// The name that Go gives its file.
    fn binary(self) -> &'static str {
        match self {
            // The last part of the package's path is its major version.
            Self::Etcd => "server",
            Self::KubeApiserver
            | Self::Kubectl
            | Self::Helm
            | Self::Kubelet
            | Self::KubeProxy
            | Self::KubeControllerManager
            | Self::KubeScheduler
            | Self::MetallbController
            | Self::MetallbSpeaker => self.name(),
        }
    }

    /// What `cargo xtask setup` calls the set that it belongs to.
    fn setup(self) -> &'static str {
        if Self::NODES.contains(&self) { "nodes" } else { "kubernetes" }
    }

    fn module(self) -> &'static Module {
        match self {
            Self::Etcd => &ETCD,
            Self::KubeApiserver | Self::Kubectl => &KUBERNETES,
            Self::Helm => &HELM,
            Self::Kubelet | Self::KubeProxy | Self::KubeControllerManager | Self::KubeScheduler => &NODES,
            Self::MetallbController | Self::MetallbSpeaker => &METALLB,
        }
    }

    /// The Go package that it is built from.
    fn package(self) -> &'static str {
        match self {
            Self::Etcd => "go.etcd.io/etcd/server/v3",
            Self::KubeApiserver => "k8s.io/kubernetes/cmd/kube-apiserver",
            Self::Kubectl => "k8s.io/kubernetes/cmd/kubectl",
            Self::Helm => "helm.sh/helm/v3/cmd/helm",
            Self::Kubelet => "k8s.io/kubernetes/cmd/kubelet",
            Self::KubeProxy => "k8s.io/kubernetes/cmd/kube-proxy",
            Self::KubeControllerManager => "k8s.io/kubernetes/cmd/kube-controller-manager",
            Self::KubeScheduler => "k8s.io/kubernetes/cmd/kube-scheduler",
            Self::MetallbController => "go.universe.tf/metallb/controller",
            Self::MetallbSpeaker => "go.universe.tf/metallb/speaker",
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Builds those of `wanted` that are missing; `progress` hears of the programs of a module before their build begins.
///
/// # Errors
///
/// When there is no Go, the proxy cannot be reached, or the cache cannot be written.
pub fn build_missing(wanted: &[Program], mut progress: impl FnMut(&[Program])) -> Result<(), ToolError> {
    for module in [&ETCD, &KUBERNETES, &HELM, &NODES, &METALLB] {
        let directory = module.directory()?;
        let absent = |program: &Program| !directory.join(program.name()).is_file();
        let of_module = wanted.iter().copied().filter(|program| program.module().name == module.name);
        let missing: Vec<Program> = of_module.filter(absent).collect();
        if !missing.is_empty() {
            progress(&missing);
            module.build(&missing, &directory)?;
        }
    }
    Ok(())
}

/// A file of MetalLB's module, such as the manifest that its users apply.
///
/// # Errors
///
/// When its programs have not been built: the module has come with them.
pub fn file_of_metallb(path: &str) -> Result<PathBuf, ToolError> {
    let sources = METALLB.directory()?.join("module");
    let list = Command::new("go")
        .args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", METALLB.project])
        .current_dir(&sources)
        .output();
    let found = list.ok().filter(|output| output.status.success());
    let directory = found.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let file = directory.map(|directory| directory.join(path)).filter(|file| file.is_file());
    file.ok_or(ToolError::Missing { program: Program::MetallbSpeaker })
}

/// Why a program is not there.
#[derive(Debug, Error)]
pub enum ToolError {
    /// It was never built.
    #[error("{program} is not built; `cargo xtask setup {}` builds it (needs Go, takes some minutes once)", .program.setup())]
    Missing {
        /// The program.
        program: Program,
    },
    /// There is no place for it.
    #[error("neither XDG_CACHE_HOME nor HOME is set: there is no directory to keep built programs in")]
    NoCache,
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// There is no Go.
    #[error("cannot run `go`, which builds {module}; install Go 1.26 or newer")]
    Go {
        /// What was to be built.
        module: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The build failed; the compiler has said why.
    #[error("building {module} failed: {status}")]
    Build {
        /// What was to be built.
        module: &'static str,
        /// How Go ended.
        status: ExitStatus,
    },
}

/// A Go module that pins one project.
struct Module {
    name: &'static str,
    /// The dependency whose version is the module's.
    project: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
}

impl Module {
    /// Where the programs of this version are kept.
    fn directory(&self) -> Result<PathBuf, ToolError> {
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
        let cache = cache.ok_or(ToolError::NoCache)?;
        Ok(cache.join("garpike").join("tools").join(format!("{}-{}", self.name, self.version())))
    }

    /// The version of the project, such as `v1.34.4`.
    fn version(&self) -> &'static str {
        let required = self.go_mod.lines().map(|line| line.trim().trim_start_matches("require "));
        let mut versions = required.filter_map(|line| line.strip_prefix(self.project)?.strip_prefix(' '));
        versions.find_map(|rest| rest.split_whitespace().next()).expect("the module requires its project")
    }

    /// What the programs are to say when they are asked for their version: a module's build does not know it.
    fn linker_flags(&self) -> String {
        let version = self.version();
        let mut numbers = version.trim_start_matches('v').split('.');
        let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        let fields = [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor), ("gitTreeState", "clean")];
        let mut flags = "-s -w".to_owned();
        for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
            for (field, value) in fields {
                flags.push_str(&format!(" -X {package}.{field}={value}"));
            }
        }
        flags
    }

    /// Builds beside the place where the programs are kept and moves them there whole. All in one call: they share most
    /// of their packages, and linking is done side by side.
    fn build(&self, programs: &[Program], directory: &Path) -> Result<(), ToolError> {
        let sources = directory.join("module");
        let unfinished = directory.join(format!("unfinished.{}", std::process::id()));
        let write = |path: &Path, written: io::Result<()>| {
            written.map_err(|source| ToolError::Write { path: path.to_owned(), source })
        };
        for new in [&sources, &unfinished] {
            write(new, fs::create_dir_all(new))?;
        }
        for (name, text) in [("go.mod", self.go_mod), ("go.sum", self.go_sum)] {
            let path = sources.join(name);
            write(&path, fs::write(&path, text))?;
        }
        let status = Command::new("go")
            .args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", &self.linker_flags(), "-o"])
            .arg(&unfinished)
            .args(programs.iter().map(|program| program.package()))
            .current_dir(&sources)
            .env("CGO_ENABLED", "0")
            .status()
            .map_err(|source| ToolError::Go { module: self.name, source })?;
        if !status.success() {
            return Err(ToolError::Build { module: self.name, status });
        }
        for program in programs {
            let path = directory.join(program.name());
            write(&path, fs::rename(unfinished.join(program.binary()), &path))?;
        }
        write(&unfinished, fs::remove_dir(&unfinished))
    }
}

/// Not 3.4, on which a watch without resourceVersion hangs.
const ETCD: Module = Module {
    name: "etcd",
    project: "go.etcd.io/etcd/server/v3",
    go_mod: include_str!("../../tools/etcd/go.mod"),
    go_sum: include_str!("../../tools/etcd/go.sum"),
};
const KUBERNETES: Module = Module {
    name: "kubernetes",
    project: "k8s.io/kubernetes",
    go_mod: include_str!("../../tools/kubernetes/go.mod"),
    go_sum: include_str!("../../tools/kubernetes/go.sum"),
};
/// Apart from the API server, so that who needs that alone builds that alone.
const NODES: Module = Module { name: "nodes", ..KUBERNETES };
const HELM: Module = Module {
    name: "helm",
    project: "helm.sh/helm/v3",
    go_mod: include_str!("../../tools/helm/go.mod"),
    go_sum: include_str!("../../tools/helm/go.sum"),
};
const METALLB: Module = Module {
    name: "metallb",
    project: "go.universe.tf/metallb",
    go_mod: include_str!("../../tools/metallb/go.mod"),
    go_sum: include_str!("../../tools/metallb/go.sum"),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_kept_by_the_version_of_their_project() {
        for (module, version) in [(&ETCD, "v3.6."), (&KUBERNETES, "v1.34."), (&HELM, "v3.19."), (&METALLB, "v0.16.")] {
            assert!(module.version().starts_with(version), "{} {}", module.name, module.version());
        }
    }

    #[test]
    fn every_program_is_a_tool_of_its_module() {
        for program in Program::API.into_iter().chain(Program::NODES) {
            let tools = program.module().go_mod;
            assert!(tools.contains(program.package()), "{program}");
        }
    }
}
