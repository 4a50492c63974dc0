//! The simulator: many nodes in one thread, in virtual time, from a seed.
//!
//! It drives the cores that the speaker ships (membership, election, announcer), not models of them; modelled are the
//! segment (delay, loss), the hosts (alive or dead) and a client with a neighbour cache. Equal seeds give equal runs, so
//! whatever it finds is replayed by one command.

mod host;
mod scenario;
mod world;

pub use scenario::{Config, Outcome, Scenario, Summary, run, run_seeds};
pub use world::{Clock, World};
