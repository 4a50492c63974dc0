//! What a speaker stands that takes its objects from a Kubernetes API: how fast it follows, how much it needs, how little it
//! writes.
//!
//! An API server is a host of the lab. There is no controller: addresses, endpoints and nodes are written as their own
//! controllers would, so that what is measured is the speakers' alone. Judged are frames on the client's cable, the
//! kernel's accounts and the API server's audit log.

pub mod endpoint_churn;
pub mod local_terminates;
mod rig;
pub mod service_to_garp;
pub mod speaker_scale;
pub mod status_writes;

use anyhow::Result;

use super::Output;
use super::figures::Figures;
use crate::lab::Init;

/// What is measured.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Measurement {
    /// How long a Service that gets an address waits for its first frame
    ServiceToGarp(service_to_garp::Args),
    /// What a speaker needs with thousands of Services
    SpeakerScale(speaker_scale::Args),
    /// What changes of endpoints cost that change no owner
    EndpointChurn(endpoint_churn::Args),
    /// What speakers write to the API when addresses move
    StatusWrites(status_writes::Args),
    /// What a client sees when the owner's last pod ends
    LocalTerminates(local_terminates::Args),
}

/// Runs a measurement.
pub(super) fn run(init: &mut Init, measurement: &Measurement) -> Result<(Output, Figures)> {
    Ok(match measurement {
        Measurement::ServiceToGarp(args) => (args.output, service_to_garp::run(init, args)?),
        Measurement::SpeakerScale(args) => (args.output, speaker_scale::run(init, args)?),
        Measurement::EndpointChurn(args) => (args.output, endpoint_churn::run(init, args)?),
        Measurement::StatusWrites(args) => (args.output, status_writes::run(init, args)?),
        Measurement::LocalTerminates(args) => (args.output, local_terminates::run(init, args)?),
    })
}
