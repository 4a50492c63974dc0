//! Directed requests: has this station taken in that the address is here?
//!
//! A request for the station's own address that comes from the announced one makes the station note the sender (even
//! where gratuitous frames are ignored, and where it knew nothing), and its answer goes to the announced address: it shows
//! that the station has switched. Asked are the gateways and who asked for the address lately, until each has answered.
//! No answer proves nothing: some stations do not answer an asker from a net that is not theirs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use garpike_election::ServiceIp;

use crate::pacer::Pacer;
use crate::queue::{Place, Queue};
use crate::schedule::Reach;
use crate::stations::Question;

/// The open inquiries of one interface.
#[derive(Debug)]
pub(crate) struct Inquiries {
    open: BTreeMap<ServiceIp, Inquiry>,
    queue: Queue<ROUNDS>,
    pacer: Pacer,
}

#[derive(Debug)]
struct Inquiry {
    /// Who has not answered.
    missing: Vec<Missing>,
    /// The round that comes or is under way; the last one is repeated.
    round: u32,
    next: Place,
    /// When it is given up.
    until: Instant,
}

#[derive(Debug)]
struct Missing {
    question: Question,
    /// In how many rounds it was asked.
    asked: u32,
}

/// What an acknowledgement leaves to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Other stations have not answered.
    Others,
    /// All have answered.
    Nobody,
}

impl Inquiries {
    pub(crate) fn new(pacer: Pacer) -> Self {
        Self { open: BTreeMap::new(), queue: Queue::new(), pacer }
    }

    /// Asks these stations from here on, and those that are added; nobody else for this address.
    pub(crate) fn begin(&mut self, ip: ServiceIp, whom: Vec<Question>, reach: Reach, now: Instant) {
        self.cancel(ip);
        let until = now + patience(reach);
        let due = if whom.is_empty() { until } else { now };
        let missing = whom.into_iter().map(|question| Missing { question, asked: 0 }).collect();
        let next = Place { step: 0, due };
        self.queue.put(ip, next);
        self.open.insert(ip, Inquiry { missing, round: 0, next, until });
    }

    /// Asks nobody any more for the address.
    pub(crate) fn cancel(&mut self, ip: ServiceIp) {
        if let Some(inquiry) = self.open.remove(&ip) {
            self.queue.remove(ip, inquiry.next);
        }
    }

    /// Asks this station, too, for every address of its family that is inquired about.
    pub(crate) fn add(&mut self, question: Question, now: Instant) {
        for (ip, inquiry) in &mut self.open {
            let is_there = inquiry.missing.iter().any(|missing| missing.question.ip == question.ip);
            if !is_there && ip.addr().is_ipv4() == question.ip.is_ipv4() {
                inquiry.ask_too(*ip, question, &mut self.queue, now);
            }
        }
    }

    /// Asks this station if there is no other that could acknowledge the address.
    pub(crate) fn add_if_alone(&mut self, ip: ServiceIp, question: Question, now: Instant) {
        if let Some(inquiry) = self.open.get_mut(&ip).filter(|inquiry| inquiry.missing.is_empty()) {
            inquiry.ask_too(ip, question, &mut self.queue, now);
        }
    }

    /// A station shows that it knows where the address is. `None` if it was not asked, or has answered before.
    pub(crate) fn acknowledge(&mut self, ip: ServiceIp, station: IpAddr) -> Option<Left> {
        let missing = &mut self.open.get_mut(&ip)?.missing;
        let at = missing.iter().position(|missing| missing.question.ip == station)?;
        missing.remove(at);
        if !missing.is_empty() {
            return Some(Left::Others);
        }
        self.cancel(ip);
        Some(Left::Nobody)
    }

    /// Who has not acknowledged the address yet.
    pub(crate) fn missing(&self, ip: ServiceIp) -> impl Iterator<Item = IpAddr> {
        self.open.get(&ip).into_iter().flat_map(|inquiry| &inquiry.missing).map(|missing| missing.question.ip)
    }

    /// When there will be something to do.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        Some(self.queue.next_at()?.max(self.pacer.ready_at()))
    }

    /// Whom to ask now, if anybody.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(ServiceIp, Question)> {
        if now < self.pacer.ready_at() {
            return None;
        }
        loop {
            let (ip, _) = self.queue.due(0..LAST_ROUND + 1, now)?;
            let inquiry = self.open.get_mut(&ip).expect("whoever waits is inquired about");
            if inquiry.until <= now {
                self.cancel(ip);
                continue;
            }
            let round = inquiry.round;
            if let Some(missing) = inquiry.missing.iter_mut().find(|missing| missing.asked <= round) {
                missing.asked = round + 1;
                self.pacer.take(now)?;
                return Some((ip, missing.question));
            }
            self.queue.remove(ip, inquiry.next);
            inquiry.round += 1;
            inquiry.next = inquiry.place_of_round(now);
            self.queue.put(ip, inquiry.next);
        }
    }
}

impl Inquiry {
    fn ask_too(&mut self, ip: ServiceIp, question: Question, queue: &mut Queue<ROUNDS>, now: Instant) {
        // Of thousands of addresses each has one station that asked.
        self.missing.reserve_exact(1);
        self.missing.push(Missing { question, asked: 0 });
        queue.remove(ip, self.next);
        self.next.due = self.next.due.min(now);
        queue.put(ip, self.next);
    }

    fn place_of_round(&self, now: Instant) -> Place {
        let step = u8::try_from(self.round).map_or(LAST_ROUND, |round| round.min(LAST_ROUND));
        let gap_ms = GAPS_MS.get(usize::from(step)).copied().unwrap_or_default();
        let due = if self.missing.is_empty() { self.until } else { now + Duration::from_millis(gap_ms) };
        Place { step, due: due.min(self.until) }
    }
}

/// For how long a station is asked that does not answer.
fn patience(reach: Reach) -> Duration {
    match reach {
        Reach::Short => SHORT_PATIENCE,
        Reach::Long => LONG_PATIENCE,
    }
}

/// With the gratuitous ARP at 0, 50 and 200 ms, 1 and 3 s, and so between the advertisements, which have to be a second
/// apart. Then at 10 s and every 10 s: chosen, an uplink that was down is in use again within that time.
const GAPS_MS: [u64; 7] = [0, 50, 150, 800, 2000, 7000, 10_000];
const ROUNDS: usize = GAPS_MS.len();
const LAST_ROUND: u8 = 6;
/// Chosen: the rounds of the first three seconds, with room.
const SHORT_PATIENCE: Duration = Duration::from_secs(5);
/// Chosen: who has not answered for so long is off, or never answers such a request.
const LONG_PATIENCE: Duration = Duration::from_secs(600);
