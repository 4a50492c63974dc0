//! What the planner is told of a Service, what it remembers of it, and what it wants written.

use std::collections::BTreeSet;

use garpike_controller_api::config::{PoolName, Service};
use garpike_election::{ServiceIp, ServiceKey};

use crate::allocator::Refusal;

/// A Service as its source shows it.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Grows with every change of the object: its resource version.
    pub version: u64,
    /// The addresses that its status shows, each once.
    pub addresses: Vec<ServiceIp>,
    /// The pool that its annotation `metallb.io/ip-allocated-from-pool` names.
    pub from_pool: Option<PoolName>,
    /// Who wrote the addresses.
    pub author: Author,
    /// What it is to have.
    pub wish: Wish,
}

/// What a Service is to have.
#[derive(Clone, Debug)]
pub enum Wish {
    /// Addresses.
    Addresses(Box<Service>),
    /// None: it is of another type.
    Nothing,
    /// Nobody can tell, because the object is broken. It keeps what it has.
    Unknown,
}

/// Who wrote the addresses that the status of a Service shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// A controller of ours, or MetalLB's before it.
    Us,
    /// Somebody else. Addresses that our pools do not allow are left alone.
    Another,
    /// The person who wrote the manifest, which cannot be written.
    Manifest,
}

/// What is to be written to a Service, in one call and only if the object still has this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The Service.
    pub service: ServiceKey,
    /// The version that must be there.
    pub version: u64,
    /// What `status.loadBalancer.ingress` is to show.
    pub addresses: Vec<ServiceIp>,
    /// The annotation `metallb.io/ip-allocated-from-pool`; `None`: without it.
    pub pool: Option<PoolName>,
}

/// What became of a write that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The object has another version: nothing was written.
    Conflict,
    /// It was refused: nothing was written.
    Refused,
    /// It was refused, and when to ask again was said: nothing was written.
    Throttled,
    /// Nobody knows: it may have been written, or may be later.
    Unknown,
}

/// What the planner remembers of a Service.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) observed: Observed,
    /// Whether somebody else has changed the addresses since the planner last looked.
    pub(super) status_changed: bool,
    pub(super) standing: Standing,
    /// Why it does not have what it asks for.
    pub(super) refusal: Option<Refusal>,
    /// Addresses that it was given, and what people are to be told once its status shows them.
    pub(super) news: Option<(Vec<ServiceIp>, String)>,
    /// Its place in the queue.
    pub(super) turn: Option<u64>,
    pub(super) writing: Writing,
    /// What failed writes may have written, or may write as long as the object has this version.
    pub(super) uncertain: Option<(u64, BTreeSet<ServiceIp>)>,
    /// How many writes failed in a row.
    pub(super) failures: u32,
    /// How often somebody else has replaced addresses that we wrote.
    pub(super) overwrites: u32,
}

/// Whether the planner decides what a Service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It does.
    Ours,
    /// The Service keeps what its status shows, right or wrong.
    LeftAlone,
}

/// ```text
///        poll_write            handle_published
/// Idle ─────────────► Begun ─────────────────────► Idle
///  ▲                    │ Conflict
///  │ a newer version    ├──────────► Outdated ───► (Idle, by handle_timeout too)
///  │                    │ Refused, Unknown
///  └────────────────────┴──────────► Paused ─────► (Idle, by handle_timeout)
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    Idle,
    Begun(Write),
    /// A newer version should come, and is waited for only so long.
    Outdated,
    Paused,
}

impl Writing {
    /// Whether nothing is written until something else happens, or some time has passed.
    pub(super) fn waits(&self) -> bool {
        match self {
            Self::Outdated | Self::Paused => true,
            Self::Idle | Self::Begun(_) => false,
        }
    }
}

impl Tenant {
    pub(super) fn new(observed: Observed) -> Self {
        Self {
            observed,
            status_changed: true,
            standing: Standing::Ours,
            refusal: None,
            news: None,
            turn: None,
            writing: Writing::Idle,
            uncertain: None,
            failures: 0,
            overwrites: 0,
        }
    }

    /// The Service, where it is to have addresses.
    pub(super) fn service(&self) -> Option<&Service> {
        match &self.observed.wish {
            Wish::Addresses(service) => Some(service),
            Wish::Nothing | Wish::Unknown => None,
        }
    }

    /// The addresses that its status shows, or may show before anybody tells.
    pub(super) fn visible(&self) -> BTreeSet<ServiceIp> {
        let begun = match &self.writing {
            Writing::Begun(write) => write.addresses.as_slice(),
            Writing::Idle | Writing::Outdated | Writing::Paused => &[],
        };
        let uncertain = self.uncertain.iter().flat_map(|(_, ips)| ips);
        self.observed.addresses.iter().chain(begun).chain(uncertain).copied().collect()
    }

    /// Takes in what its source shows. Older versions than the known one say nothing.
    pub(super) fn observe(&mut self, observed: Observed) {
        if observed.version < self.observed.version {
            return;
        }
        let may_be_ours = |(_, ips): &(u64, BTreeSet<ServiceIp>)| observed.addresses.iter().all(|ip| ips.contains(ip));
        let uncertain = self.uncertain.as_ref().is_some_and(may_be_ours);
        if observed.version > self.observed.version {
            // A write is bound to a version that is gone: it cannot happen any more, or has happened and is seen here.
            self.uncertain = None;
            if self.writing == Writing::Outdated {
                self.writing = Writing::Idle;
            }
        }
        let expected = match &self.writing {
            Writing::Begun(write) => write.addresses == observed.addresses,
            Writing::Idle | Writing::Outdated | Writing::Paused => false,
        };
        self.status_changed |= observed.addresses != self.observed.addresses && !expected && !uncertain;
        self.observed = observed;
    }
}
