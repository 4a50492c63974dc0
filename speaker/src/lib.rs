//! The process of one node.
//!
//! Reads what people want ([`source`]), decides with [`Pipeline`] who owns what, and carries the three cores of the
//! walk (membership, election, announcer) in one process: [`run`]. Everything it knows is shown by [`state`].

mod api;
mod args;
mod availability;
mod checks;
mod clock;
mod complaints;
mod data_plane;
mod decisions;
mod excluded;
mod failovers;
mod history;
mod local_addresses;
mod metallb;
mod metrics;
mod peers;
mod pipeline;
mod relay;
mod reports;
mod rights;
mod run;
mod scheduling;
pub mod source;
pub mod state;
mod take_over;
mod timing;
mod window;

pub use args::{
    Args, BindServiceIps, DataPlaneHealth, JoinPeer, METALLB_VARIABLES, MetalLbOnly, MetricsAuth, NdpUnicast,
    PerIpMetrics, Placement,
};
pub use checks::FindingState;
pub use decisions::Decision;
pub use pipeline::{Pipeline, View};
pub use run::run;
pub use timing::{Failback, Profile};
