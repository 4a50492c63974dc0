//! Who may write: one controller at a time, by a Lease.
//!
//! The time that a lease shows is its holder's clock, and is never compared with ours: a candidate counts from when it saw
//! the lease change. A holder counts from before it asked for the renewal, and stops before the others may begin. So two
//! never write at once while their clocks run at the same rate. Nothing here sends anything or reads a clock.

use std::fmt;
use std::time::{Duration, Instant};

/// One process that would like to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The pod that it runs in; empty when it does not say, or is none.
    pub(crate) pod: String,
    /// Tells it from all others, earlier ones of the same pod included.
    pub(crate) process: String,
}

impl Identity {
    /// Whether `holder` was an earlier process of this pod. It has ended: a pod has one at a time.
    fn succeeds(&self, holder: &str) -> bool {
        let of_this_pod = holder.rsplit_once('_').is_some_and(|(pod, _)| pod == self.pod);
        of_this_pod && !self.pod.is_empty()
    }
}

/// As it stands in the lease.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.pod, self.process)
    }
}

/// What a lease shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Who holds it; empty when it was given back.
    pub(crate) holder: String,
    /// For how long after a change nobody else takes it.
    pub(crate) duration: Duration,
    /// Changes with every change.
    pub(crate) version: String,
}

/// What a candidate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It holds the lease and asks to hold it on.
    Renew,
    /// It asks for the lease.
    Acquire(Predecessor),
    /// Somebody else holds it, at least until then.
    Wait(Instant),
}

/// Who held the lease before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Predecessor {
    /// Nobody, or somebody who had no write under way when he gave it back.
    Done,
    /// Somebody whose last write may still come.
    Silent,
}

/// What to do about a lease that shows this since `since`; `None`: there is none.
pub(crate) fn decide(lease: Option<(&Shown, Instant)>, me: &Identity, now: Instant) -> Decision {
    let Some((shown, since)) = lease else { return Decision::Acquire(Predecessor::Done) };
    let free_at = since + shown.duration.clamp(SHORTEST, LONGEST);
    if shown.holder == me.to_string() {
        Decision::Renew
    } else if shown.holder.is_empty() {
        Decision::Acquire(Predecessor::Done)
    } else if me.succeeds(&shown.holder) || now >= free_at {
        Decision::Acquire(Predecessor::Silent)
    } else {
        Decision::Wait(free_at)
    }
}

/// How long after a change nobody else takes a lease. Design value: a crash is made good within 5 s.
pub(crate) const DURATION: Duration = Duration::from_secs(3);
/// How long its holder writes after it asked for a renewal that was granted. Chosen: two more tries fit, and what is left
/// of [`DURATION`] covers clocks that differ by a sixth.
pub(crate) const HELD_FOR: Duration = Duration::from_millis(2500);
/// How often a holder asks. Design value.
pub(crate) const RENEW_EACH: Duration = Duration::from_secs(1);
/// How often somebody else looks whether the lease has changed. Chosen: it adds that much to a takeover.
pub(crate) const LOOK_EACH: Duration = Duration::from_millis(500);
/// What other holders may ask for. Chosen: the least that Kubernetes can express, and a time that people wait.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
