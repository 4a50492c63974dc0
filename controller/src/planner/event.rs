//! What people are told about a Service, with MetalLB's reasons.

use std::fmt;

use garpike_election::ServiceKey;

/// Something worth an event of the Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The Service.
    pub service: ServiceKey,
    /// What happened.
    pub reason: Reason,
    /// The rest, in words.
    pub message: String,
}

/// What happened to a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It has a new address.
    IpAllocated,
    /// It does not have an address any more that it had.
    ClearAssignment,
    /// It has no address.
    AllocationFailed,
    /// It has an address and not the one that it asks for.
    LoadBalancerFailed,
}

/// How much it matters, in Kubernetes' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// All is well.
    Normal,
    /// Somebody should look.
    Warning,
}

impl Reason {
    /// The type of the event.
    pub fn event_type(self) -> EventType {
        match self {
            Self::IpAllocated | Self::ClearAssignment => EventType::Normal,
            Self::AllocationFailed | Self::LoadBalancerFailed => EventType::Warning,
        }
    }
}

/// As MetalLB writes it in `reason`.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IpAllocated => "IPAllocated",
            Self::ClearAssignment => "ClearAssignment",
            Self::AllocationFailed => "AllocationFailed",
            Self::LoadBalancerFailed => "LoadBalancerFailed",
        })
    }
}

/// As Kubernetes writes it in `type`.
impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        })
    }
}
