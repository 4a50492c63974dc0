//! Addresses that wait for their next step, each for one.
//!
//! Of the addresses that are due, those at the earliest step go first, and among these the one that has been due for the
//! longest time. Whoever puts an address in keeps its [`Place`], to take it out again.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Instant;

use garpike_election::ServiceIp;

/// Addresses by the step that they wait for.
#[derive(Debug)]
pub(crate) struct Queue<const STEPS: usize> {
    waiting: [BTreeSet<(Instant, ServiceIp)>; STEPS],
}

/// Where an address waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// For which step.
    pub(crate) step: u8,
    /// Until when.
    pub(crate) due: Instant,
}

impl<const STEPS: usize> Queue<STEPS> {
    pub(crate) fn new() -> Self {
        Self { waiting: std::array::from_fn(|_| BTreeSet::new()) }
    }

    pub(crate) fn put(&mut self, ip: ServiceIp, Place { step, due }: Place) {
        if let Some(waiting) = self.waiting.get_mut(usize::from(step)) {
            waiting.insert((due, ip));
        }
    }

    pub(crate) fn remove(&mut self, ip: ServiceIp, Place { step, due }: Place) {
        if let Some(waiting) = self.waiting.get_mut(usize::from(step)) {
            waiting.remove(&(due, ip));
        }
    }

    /// When the next address is due.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.waiting.iter().filter_map(|waiting| waiting.first()).map(|(due, _)| *due).min()
    }

    /// The address that goes first of those that are due at one of the steps, and where it waits.
    pub(crate) fn due(&self, steps: Range<u8>, now: Instant) -> Option<(ServiceIp, Place)> {
        steps.into_iter().find_map(|step| {
            let (due, ip) = *self.waiting.get(usize::from(step))?.first()?;
            (due <= now).then_some((ip, Place { step, due }))
        })
    }
}
