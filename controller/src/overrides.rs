//! `garpike drain`, `undrain` and `move`: writes what an operator asks for, where the speakers read it.
//!
//! A request that would leave an address without a node that answers for it is refused and changes nothing. In a cluster
//! the result is an annotation of the Node or the Service. Without one the manifests that people wrote are read and never
//! written; the result is `garpike-overrides.yaml` beside them.

mod cluster;
mod file;
mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use garpike_controller_api::config::Config;
use garpike_controller_api::manifests::{self, OVERRIDES_FILE, ReadDirError};
use garpike_controller_api::{ChosenOwner, Objects, Problem, Scope, Severity, desired, validate};
use garpike_election::{Change, Desired, Members, NodeName, NodeState, ServiceIp, ServiceKey, elect};
use thiserror::Error;

use crate::status_file::Written;
pub use cluster::{ClusterError, carry_out_in_cluster};
use file::Overrides;
pub use file::WriteOverridesError;

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The addresses of a node are to be elsewhere.
    Drain(NodeName),
    /// A node is drained no longer.
    Undrain(NodeName),
    /// An address, and those that must stay with it, are to be owned by a node for a while.
    Move {
        /// The address.
        ip: ServiceIp,
        /// Where to, and until when.
        chosen: ChosenOwner,
    },
    /// An address goes back to where it would be.
    EndMove(ServiceIp),
}

/// What is known when a request is judged.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Which objects are ours.
    pub scope: &'a Scope,
    /// Who lives, as a speaker sees it; `None` when none was asked.
    pub members: Option<&'a Members>,
    /// The time.
    pub now: SystemTime,
}

/// What became of a request.
#[derive(Debug)]
pub struct Report {
    /// Why it was refused; empty when it was not.
    pub refusals: Vec<Refusal>,
    /// The addresses whose owner it changes; `None` when nobody said who lives.
    pub changes: Option<Vec<Change>>,
    /// The addresses that it is about: those of the group that is moved.
    pub addresses: BTreeSet<ServiceIp>,
    /// The Services of that group, the oldest first.
    pub services: Vec<ServiceKey>,
    /// What is wrong with the manifests that it was judged by.
    pub problems: Vec<Problem>,
    /// Where it is written.
    pub place: Place,
    /// Whether that changed; a request that was refused changes nothing.
    pub written: Written,
}

/// Where speakers read what an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file beside the manifests.
    File(PathBuf),
    /// In annotations of these objects of the cluster.
    Annotations(Vec<String>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Annotations(objects) => write!(f, "the annotations of {}", objects.join(", ")),
        }
    }
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The address, where the reason is not the same for all.
    pub ip: Option<ServiceIp>,
    /// The Services that hold it.
    pub services: BTreeSet<ServiceKey>,
    /// What stands against it; a sentence without its full stop.
    pub reason: String,
    /// What would be right.
    pub mend: String,
}

/// `10.0.0.1 (Service default/web): n1 must keep it: ...; start ...`.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ip) = self.ip {
            let services: Vec<String> = self.services.iter().map(ToString::to_string).collect();
            match services.as_slice() {
                [] => write!(f, "{ip}: ")?,
                services => write!(f, "{ip} (Service {}): ", services.join(", "))?,
            }
        }
        write!(f, "{}; {}", self.reason, self.mend)
    }
}

/// Why a request was not carried out.
#[derive(Debug, Error)]
pub enum CarryOutError {
    /// The directory cannot be read.
    #[error(transparent)]
    Read(#[from] ReadDirError),
    /// Somebody else's change cannot be waited for.
    #[error("cannot lock {} against other commands that write there", dir.display())]
    Lock {
        /// The directory.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file that is to be changed cannot be understood.
    #[error("{0}; mend it, or remove the file, which undoes all drains and moves")]
    Broken(Box<Problem>),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteOverridesError),
}

/// Judges a request and, unless it is refused, writes it to the overrides in `dir`.
///
/// # Errors
///
/// When the directory cannot be read or the file not be written, or it holds what cannot be understood.
pub fn carry_out(dir: &Path, request: &Request, facts: Facts<'_>) -> Result<Report, CarryOutError> {
    // Held to the end: of two commands at a time the second one sees what the first has written.
    let _lock = lock(dir)?;
    let (objects, problems) = manifests::read_dir(dir)?;
    let Judgement { refusals, changes, group, config, problems } = judge(&objects, problems, request, facts);
    let broken =
        |problem: &&Problem| problem.severity == Severity::Error && problem.file.as_deref() == Some(OVERRIDES_FILE);
    if let Some(problem) = problems.iter().find(broken) {
        return Err(CarryOutError::Broken(Box::new(problem.clone())));
    }
    let Group { addresses, services } = group;
    let mut overrides = Overrides::read(&objects);
    overrides.forget_the_past(&objects, facts.now);
    match request {
        Request::Drain(node) => overrides.drain(node, &config),
        Request::Undrain(node) => overrides.undrain(node, &objects),
        Request::Move { chosen, .. } => overrides.choose(&services, chosen),
        Request::EndMove(_) => overrides.end_choice(&services, &objects, facts.now),
    }
    let place = Place::File(dir.join(OVERRIDES_FILE));
    let written = if refusals.is_empty() { overrides.write(dir)? } else { Written::Unchanged };
    Ok(Report { refusals, changes, addresses, services, problems, place, written })
}

/// What a request would do.
struct Judgement {
    refusals: Vec<Refusal>,
    changes: Option<Vec<Change>>,
    group: Group,
    config: Config,
    problems: Vec<Problem>,
}

/// Judges a request by what people wrote; `problems` are those known already.
fn judge(objects: &Objects, mut problems: Vec<Problem>, request: &Request, facts: Facts<'_>) -> Judgement {
    let (config, complaints) = validate(objects, facts.scope);
    problems.extend(complaints);
    let (desired, _, complaints) = desired(&config, facts.now);
    problems.extend(complaints);
    let group = request.address().map(|ip| Group::of(ip, &config, &desired)).unwrap_or_default();
    let mut wanted = desired.clone();
    match request {
        Request::Drain(_) | Request::Undrain(_) => {}
        Request::Move { chosen, .. } => {
            wanted.moves.extend(group.addresses.iter().map(|ip| (*ip, chosen.node.clone())));
        }
        Request::EndMove(_) => wanted.moves.retain(|ip, _| !group.addresses.contains(ip)),
    }
    let refusals = judge::refusals(request, &config, &desired, &wanted, facts.members);
    let changes =
        facts.members.map(|members| elect(&desired, members).changes_to(&elect(&wanted, &after(request, members))));
    Judgement { refusals, changes, group, config, problems }
}

impl Request {
    /// The address that it is about.
    fn address(&self) -> Option<ServiceIp> {
        match self {
            Self::Drain(_) | Self::Undrain(_) => None,
            Self::Move { ip, .. } | Self::EndMove(ip) => Some(*ip),
        }
    }
}

/// Services connected by shared addresses.
#[derive(Debug, Default)]
struct Group {
    addresses: BTreeSet<ServiceIp>,
    /// The oldest first.
    services: Vec<ServiceKey>,
}

impl Group {
    /// The group of `ip`; empty when no Service holds it.
    fn of(ip: ServiceIp, config: &Config, desired: &Desired) -> Self {
        let Some(key) = desired.addresses.get(&ip).map(|address| address.election_key) else { return Self::default() };
        let group: BTreeMap<_, _> =
            desired.addresses.iter().filter(|(_, address)| address.election_key == key).collect();
        let held = |key: &ServiceKey| group.values().any(|address| address.services.contains(key));
        let services = config.services_by_age().into_iter().map(|service| service.key.clone()).filter(held).collect();
        Self { addresses: group.into_keys().copied().collect(), services }
    }
}

/// The members once the request is known to them.
fn after(request: &Request, members: &Members) -> Members {
    let mut members = members.clone();
    let change = match request {
        Request::Drain(node) => Some((node, NodeState::Draining)),
        Request::Undrain(node) => Some((node, NodeState::Ready)),
        Request::Move { .. } | Request::EndMove(_) => None,
    };
    if let Some((node, state)) = change
        && let Some(member) = members.nodes.get_mut(node)
    {
        member.state = state;
    }
    members
}

fn lock(dir: &Path) -> Result<File, CarryOutError> {
    let lock = || {
        let handle = File::open(dir)?;
        handle.lock()?;
        Ok(handle)
    };
    lock().map_err(|source| CarryOutError::Lock { dir: dir.to_owned(), source })
}

#[cfg(test)]
mod tests;
