//! Which Service gets which address.
//!
//! [`Allocator`] gives and takes back single addresses, [`plan`] decides for all Services of a configuration, and
//! [`allocate`] does it for a directory of manifests. Allocation is deterministic and sticky: equal inputs give equal
//! addresses, and a Service that has a valid address keeps it.

pub mod allocate;
mod allocator;
#[cfg(test)]
mod fixtures;
mod free;
mod ledger;
mod plan;
pub mod status_file;

pub use allocator::{Allocator, Refusal};
pub use plan::{Completeness, Outcome, Plan, plan};
