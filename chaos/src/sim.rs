//! The simulator: many nodes in one thread, in virtual time, from a seed.
//!
//! It drives the cores that the speaker ships (membership, election, announcer), not models of them; modelled are the
//! network, the hosts with their kernels and clocks, the gateways and a client. Equal seeds give equal runs, so whatever
//! it finds is replayed by one command.
//!
//! ```text
//! run (a scenario) ─► world ─► hosts: the shipped cores
//!        │              │ └──► network: what gets through, and when
//!        │              └────► judge: what is true, and what must not happen
//!        └► summary of many runs ─► targets
//! ```

mod client;
mod host;
mod judge;
mod network;
mod queue;
mod run;
mod scenario;
mod summary;
mod target;
mod world;

pub use host::Gateways;
pub use run::{Outcome, run};
pub use scenario::{Config, Protection, Scenario, Speed, name_of_profile};
pub use summary::{Summary, run_seeds};
pub use target::Target;
pub use world::Clock;
