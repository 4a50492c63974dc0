//! What one interface says by itself, in the order of its worth.
//!
//! First announcements go before all else, so every gained address is on the wire once before any is repeated. Then come
//! directed requests, which have a small share of the rate, then repeats, then refreshes. One pacer bounds them together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Instant;

use garpike_election::ServiceIp;

use crate::inquiries::{Inquiries, Left};
use crate::pacer::Pacer;
use crate::refresh::Refresh;
use crate::schedule::{Reach, Schedule, Turn};
use crate::stations::Question;
use crate::wire::ArpOperation;

/// What is sent in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shot {
    /// A gratuitous ARP of this form.
    Arp(ArpOperation, Ipv4Addr),
    /// An unsolicited neighbour advertisement.
    Advertisement(Ipv6Addr),
    /// A directed request.
    Directed(Question),
}

/// The announcements of one interface.
#[derive(Debug)]
pub(crate) struct Campaigns {
    schedule: Schedule,
    inquiries: Inquiries,
    refresh: Refresh,
    pacer: Pacer,
}

/// What is to be known of the announcements of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The last announcement.
    pub(crate) announced: Option<Instant>,
    /// The next one that is due because the address was gained.
    pub(crate) next: Option<Instant>,
    /// Stations that were asked and have not answered.
    pub(crate) missing: Vec<IpAddr>,
}

impl Campaigns {
    /// At most `per_second` frames, and at most `burst` at once.
    pub(crate) fn new(per_second: NonZeroU32, burst: NonZeroU32, now: Instant) -> Self {
        let directed = NonZeroU32::new(per_second.get() / DIRECTED_SHARE).unwrap_or(NonZeroU32::MIN);
        Self {
            schedule: Schedule::new(),
            inquiries: Inquiries::new(Pacer::new(directed, burst.min(DIRECTED_BURST), now)),
            refresh: Refresh::new(now),
            pacer: Pacer::new(per_second, burst, now),
        }
    }

    /// Begins the campaign for an address, anew if one is running.
    pub(crate) fn start(&mut self, ip: ServiceIp, reach: Reach, turn: Turn, now: Instant) {
        self.inquiries.cancel(ip);
        self.schedule.start(ip, reach, turn, now);
    }

    /// Sends nothing more for `ip`.
    pub(crate) fn cancel(&mut self, ip: ServiceIp) {
        self.inquiries.cancel(ip);
        self.schedule.cancel(ip);
    }

    /// Whether the address is announced here, or was and is refreshed.
    pub(crate) fn knows(&self, ip: ServiceIp) -> bool {
        self.schedule.reach(ip).is_some()
    }

    /// Takes a gateway that has appeared.
    pub(crate) fn add_gateway(&mut self, gateway: Question, now: Instant) {
        self.inquiries.add(gateway, now);
    }

    /// Takes a station that asked for an address and was answered.
    pub(crate) fn add_asker(&mut self, ip: ServiceIp, asker: Question, now: Instant) {
        self.inquiries.add_if_alone(ip, asker, now);
    }

    /// A station shows that it knows where the address is. `None` if it was not asked, or has answered before.
    pub(crate) fn acknowledge(&mut self, ip: ServiceIp, station: IpAddr) -> Option<()> {
        match self.inquiries.acknowledge(ip, station)? {
            Left::Others => {}
            Left::Nobody => self.schedule.shorten(ip),
        }
        Some(())
    }

    /// How far the announcements of the address are.
    pub(crate) fn progress(&self, ip: ServiceIp) -> Progress {
        let (announced, next) = self.schedule.times(ip);
        Progress { announced, next, missing: self.inquiries.missing(ip).collect() }
    }

    /// When there will be something to send.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        let due = [self.schedule.next_at(), self.inquiries.next_at(), self.refresh.next_at(&self.schedule)];
        Some(due.into_iter().flatten().min()?.max(self.pacer.ready_at()))
    }

    /// What is to be sent now, if anything. `whom` gives the stations that are to acknowledge an address.
    pub(crate) fn next(
        &mut self,
        now: Instant,
        whom: impl FnOnce(ServiceIp) -> Vec<Question>,
    ) -> Option<(ServiceIp, Shot)> {
        if now < self.pacer.ready_at() {
            return None;
        }
        let first = self.schedule.next_first(now);
        if let Some((ip, _)) = first {
            let reach = self.schedule.reach(ip).unwrap_or(Reach::Short);
            self.inquiries.begin(ip, whom(ip), reach, now);
        }
        let next = first
            .or_else(|| self.inquiries.next(now).map(|(ip, question)| (ip, Shot::Directed(question))))
            .or_else(|| self.schedule.next_repeat(now))
            .or_else(|| self.refresh.next(&mut self.schedule, now))?;
        self.pacer.take(now)?;
        Some(next)
    }
}

/// Directed requests have a small share of the rate, 50 a second by default: whoever answers one notes the announced address
/// as a neighbour, and a Linux router by default keeps 1024 of these and gives none up that is younger than 5 s (measured: ten
/// times as many left its table full, and it answered nobody any more). Four nodes at once are bearable.
const DIRECTED_SHARE: u32 = 200;
/// Chosen: a dozen addresses with a gateway and four recent askers each are asked for at once.
const DIRECTED_BURST: NonZeroU32 = NonZeroU32::new(64).expect("is not zero");

#[cfg(test)]
mod tests;
