//! Announcements for quiet networks: a switch forgets where a silent station is, and some neighbours never ask again.
//!
//! The addresses of an interface take turns in their order, evenly spread, so that one frame leaves at least every 100 s and
//! each address is announced about every 600 s, however many there are. An address that is being announced anyway
//! passes its turn.

use std::time::{Duration, Instant};

use garpike_election::ServiceIp;

use crate::campaigns::Shot;
use crate::schedule::Schedule;

/// Whose turn it is on one interface.
#[derive(Debug)]
pub(crate) struct Refresh {
    /// When the last turn was.
    last: Instant,
    /// Whose it was.
    turn: Option<ServiceIp>,
    /// The most addresses there were since the first of them had its turn: when most go, the others do not wait longer.
    most: usize,
}

impl Refresh {
    pub(crate) fn new(now: Instant) -> Self {
        Self { last: now, turn: None, most: 0 }
    }

    /// When the next turn is.
    pub(crate) fn next_at(&self, schedule: &Schedule) -> Option<Instant> {
        let count = schedule.len();
        (count > 0).then(|| self.last + interval(self.most.max(count)))
    }

    /// The announcement of the address whose turn it is, if it is time for one.
    pub(crate) fn next(&mut self, schedule: &mut Schedule, now: Instant) -> Option<(ServiceIp, Shot)> {
        if self.next_at(schedule)? > now {
            return None;
        }
        let ip = schedule.behind(self.turn)?;
        let begins_anew = self.turn.is_none_or(|last| ip <= last);
        self.most = if begins_anew { schedule.len() } else { self.most.max(schedule.len()) };
        self.last = now;
        self.turn = Some(ip);
        schedule.refresh(ip, now).map(|shot| (ip, shot))
    }
}

/// The time between two turns of `count` addresses.
fn interval(count: usize) -> Duration {
    let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
    LONGEST_SILENCE.min(ROUND / count)
}

/// A third of the 300 s after which switches forget a silent station by default (IEEE 802.1D ageing time): two may be lost.
const LONGEST_SILENCE: Duration = Duration::from_secs(100);
/// Chosen: half of the 20 min for which routers commonly keep an entry; 17 frames a second at 10 000 addresses.
const ROUND: Duration = Duration::from_secs(600);
