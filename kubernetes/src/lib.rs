//! How Garpike talks to the Kubernetes API.
//!
//! [`connect`] makes a client, [`follow`] tells what there is of a kind and what becomes of it, [`Recorder`] writes events,
//! [`serve_metrics`] shows metrics to whom the cluster lets see them.
//! Nothing here decides anything. Invariants: no request waits for ever, no queue grows without bound, and an API server
//! that is away is asked again, ever more slowly, and reported once.

mod accept;
mod bgp;
mod client;
mod configuration_state;
mod events;
mod failure;
mod follow;
pub mod http;
pub mod https;
mod lenient;
mod serving;
mod tls;

pub use bgp::{BgpInUse, bgp_in_use, is_alive, wait_for_bgp_to_end};
pub use client::{ConnectError, connect};
pub use configuration_state::{Component, ConfigurationReporter};
pub use events::{Recorder, Regarding, Severity, recorder};
pub use failure::failure;
pub use follow::{Trouble, Update, follow, follow_as};
pub use lenient::Lenient;
pub use serving::{ServeMetricsError, Serving, serve_metrics};
pub use tls::{InvalidCertificate, InvalidTlsRules, ServedCertificate, TlsRules, serve_files};
