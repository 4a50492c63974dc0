//! Handing over before the process ends: make before break.
//!
//! ```text
//!            SIGTERM                     heir's claim heard, for every address
//!  serving ───────────► handing over ───────────────────────────────────────────► done
//!                            │                no heir, or LONGEST passed              ▲
//!                            └────────────────────────────────────────────────────────┘
//! ```
//!
//! Until an heir has been heard to announce an address, this node goes on answering for it. It does not decide who the
//! heirs are: the other nodes do, once they know that this one is restarting.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use garpike_election::{InterfaceName, Selection, ServiceIp};

/// What this node still answers for while it hands over.
#[derive(Debug)]
pub struct Handover {
    owned: BTreeMap<ServiceIp, Selection<InterfaceName>>,
    awaited: BTreeSet<ServiceIp>,
    deadline: Instant,
}

impl Handover {
    /// The longest time that a hand-over may take. Chosen: a quarter of the 2 s that MetalLB's manifest grants between
    /// SIGTERM and SIGKILL.
    pub const LONGEST: Duration = Duration::from_millis(500);

    /// Starts to hand over `owned`, of which another node can take `inheritable`.
    pub fn new(
        owned: BTreeMap<ServiceIp, Selection<InterfaceName>>,
        inheritable: impl IntoIterator<Item = ServiceIp>,
        now: Instant,
    ) -> Self {
        let awaited = inheritable.into_iter().filter(|ip| owned.contains_key(ip)).collect();
        Self { owned, awaited, deadline: now + Self::LONGEST }
    }

    /// Notes that another node was heard to announce `ip`: it is handed over.
    pub fn handle_claimed(&mut self, ip: ServiceIp) {
        self.owned.remove(&ip);
        self.awaited.remove(&ip);
    }

    /// What this node still has to answer for.
    pub fn owned(&self) -> &BTreeMap<ServiceIp, Selection<InterfaceName>> {
        &self.owned
    }

    /// Whether the process may end: all that can be taken is handed over, or nobody came for it in time.
    pub fn is_done(&self, now: Instant) -> bool {
        self.awaited.is_empty() || now >= self.deadline
    }

    /// When [`Self::is_done`] will be true even if nothing is heard.
    pub fn poll_timeout(&self) -> Instant {
        self.deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lasts_until_every_address_is_claimed() {
        let now = now();
        let mut handover = Handover::new(owned(&["10.0.0.1", "10.0.0.2"]), ips(&["10.0.0.1", "10.0.0.2"]), now);

        handover.handle_claimed(ip("10.0.0.1"));
        assert!(!handover.is_done(now));
        assert_eq!(*handover.owned(), owned(&["10.0.0.2"]));

        handover.handle_claimed(ip("10.0.0.2"));
        assert!(handover.is_done(now));
    }

    #[test]
    fn ends_when_nobody_comes_and_answers_until_then() {
        let now = now();
        let handover = Handover::new(owned(&["10.0.0.1"]), ips(&["10.0.0.1"]), now);

        assert!(!handover.is_done(now + Handover::LONGEST - Duration::from_millis(1)));
        assert_eq!(*handover.owned(), owned(&["10.0.0.1"]));
        assert!(handover.is_done(handover.poll_timeout()));
    }

    #[test]
    fn does_not_wait_where_there_is_no_heir() {
        let now = now();

        assert!(Handover::new(owned(&["10.0.0.1"]), [], now).is_done(now));
    }

    fn owned(texts: &[&str]) -> BTreeMap<ServiceIp, Selection<InterfaceName>> {
        texts.iter().map(|text| (ip(text), Selection::All)).collect()
    }

    fn ips(texts: &[&str]) -> Vec<ServiceIp> {
        texts.iter().map(|text| ip(text)).collect()
    }

    fn ip(text: &str) -> ServiceIp {
        text.parse().unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn now() -> Instant {
        Instant::now()
    }
}
