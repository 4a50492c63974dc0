//! How Garpike talks to the Kubernetes API.
//!
//! [`connect`] makes a client, [`follow`] tells what there is of a kind and what becomes of it, [`Recorder`] writes events.
//! Nothing here decides anything. Invariants: no request waits for ever, no queue grows without bound, and an API server
//! that is away is asked again, ever more slowly, and reported once.

mod client;
mod events;
mod follow;
mod with_spec;

pub use client::{ConnectError, connect};
pub use events::{Recorder, Regarding, Severity, recorder};
pub use follow::{Trouble, Update, follow, follow_as};
pub use with_spec::WithSpec;
