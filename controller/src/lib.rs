//! Which Service gets which address.
//!
//! [`Allocator`] gives and takes back single addresses, [`planner`] decides from one change to the next who has which and
//! what must be written, [`plan`] does so for a whole configuration at once, and [`allocate`] for a directory of
//! manifests. [`run`] is the process that does so in a Kubernetes cluster. [`overrides`] writes drains and choices of owners
//! beside them. Allocation is deterministic and sticky: equal
//! inputs give equal addresses, and a Service that has a valid address keeps it.

pub mod allocate;
mod allocator;
mod args;
mod dead_node;
#[cfg(test)]
mod fixtures;
mod free;
pub mod gossip_secret;
mod health;
pub mod import;
mod io;
mod lease;
mod ledger;
mod metrics;
pub mod overrides;
mod plan;
pub mod planner;
mod registry;
mod run;
mod seen;
mod shares;
pub mod status_file;
#[cfg(test)]
mod stub_api;
mod webhook;

pub use allocator::{Allocator, Refusal};
pub use args::{Args, METALLB_VARIABLES, MetalLbOnly, MetricsAuth, WebhookMode};
pub use dead_node::{InvalidShare, Mode as DeadNodeHintMode, Share};
pub use plan::{Outcome, Plan, plan};
pub use run::run;
