//! `garpike allocate DIR`: gives the Services of a directory their addresses, without a cluster.
//!
//! The manifests that people wrote are read and never written; the result is `garpike-status.yaml` beside them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use garpike_controller_api::config::{Config, Holder};
use garpike_controller_api::manifests::{self, ReadDirError, STATUS_FILE};
use garpike_controller_api::{Problem, Scope, Severity, validate};
use garpike_election::{ServiceIp, ServiceKey};
use thiserror::Error;

use crate::allocator::Refusal;
use crate::plan::{Outcome, Plan, plan};
use crate::planner::Completeness;
use crate::status_file::{self, UnwritableName, WriteError, Written};

/// What one run did.
#[derive(Debug)]
pub struct Report {
    /// Services that have new addresses.
    pub allocated: Vec<Allocated>,
    /// Services that have what they had.
    pub kept: Vec<Kept>,
    /// Services that do not have what they ask for.
    pub failed: Vec<Failed>,
    /// Addresses of Services that are gone.
    pub released: BTreeMap<ServiceKey, Vec<ServiceIp>>,
    /// What is wrong, or worth knowing, about the manifests.
    pub problems: Vec<Problem>,
    /// The file with the addresses.
    pub status_file: PathBuf,
    /// Whether it changed.
    pub written: Written,
}

/// A Service with new addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocated {
    /// The Service.
    pub service: ServiceKey,
    /// Its addresses.
    pub addresses: Vec<ServiceIp>,
    /// The addresses that it had before.
    pub before: Vec<ServiceIp>,
}

/// A Service with its old addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The Service.
    pub service: ServiceKey,
    /// Its addresses.
    pub addresses: Vec<ServiceIp>,
}

/// A Service that does not have what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The Service.
    pub service: ServiceKey,
    /// The addresses that it has all the same.
    pub addresses: Vec<ServiceIp>,
    /// Why, and what would help.
    pub refusal: Refusal,
}

/// Why nothing was allocated.
#[derive(Debug, Error)]
pub enum AllocateError {
    /// The directory cannot be read.
    #[error(transparent)]
    Read(#[from] ReadDirError),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The name of a Service cannot be written.
    #[error(transparent)]
    Name(#[from] UnwritableName),
}

/// Gives the Services in `dir` their addresses and writes them beside the manifests.
///
/// # Errors
///
/// When the directory cannot be read or the file not be written. What is wrong with single objects is in the report.
pub fn allocate(dir: &Path) -> Result<Report, AllocateError> {
    let (objects, mut problems) = manifests::read_dir(dir)?;
    let (config, complaints) = validate(&objects, &Scope::default());
    problems.extend(complaints);
    let broken = problems.iter().any(|problem| problem.severity == Severity::Error);
    let completeness = if broken { Completeness::Partial } else { Completeness::Whole };
    let plan = plan(&config, completeness);
    // A Service that is missing because it is broken has not given its addresses up.
    let (strays, released) = match completeness {
        Completeness::Whole => (BTreeMap::new(), config.strays.clone()),
        Completeness::Partial => (config.strays.clone(), BTreeMap::new()),
    };
    let status_file = dir.join(STATUS_FILE);
    let addresses = for_the_file(&config, &plan, strays);
    let written = if addresses.is_empty() && !status_file.exists() {
        Written::Unchanged
    } else {
        status_file::write(dir, &status_file::render(&addresses)?)?
    };
    let (allocated, kept, failed) = sort(plan);
    Ok(Report { allocated, kept, failed, released, problems, status_file, written })
}

/// What the file is to hold: all addresses but those that a Service's own manifest gives it.
fn for_the_file(
    config: &Config,
    plan: &Plan,
    strays: BTreeMap<ServiceKey, Vec<ServiceIp>>,
) -> BTreeMap<ServiceKey, Vec<ServiceIp>> {
    let by_own_manifest =
        |key: &ServiceKey| config.services.get(key).is_some_and(|service| service.is_held_by(Holder::Object));
    let planned = plan.services.iter().filter(|(key, outcome)| !outcome.after.is_empty() && !by_own_manifest(key));
    planned.map(|(key, outcome)| (key.clone(), outcome.after.clone())).chain(strays).collect()
}

fn sort(plan: Plan) -> (Vec<Allocated>, Vec<Kept>, Vec<Failed>) {
    let (mut allocated, mut kept, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for (service, Outcome { before, after, refusal }) in plan.services {
        match refusal {
            Some(refusal) => failed.push(Failed { service, addresses: after, refusal }),
            None if before == after => kept.push(Kept { service, addresses: after }),
            None => allocated.push(Allocated { service, addresses: after, before }),
        }
    }
    (allocated, kept, failed)
}

#[cfg(test)]
mod tests;
