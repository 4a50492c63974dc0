//! Tells the log of peers that are not understood: a wrong key, no key, MetalLB on the same port.
//!
//! The membership counts each of their datagrams; the log hears of each peer once a minute.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use garpike_membership::Complaint;
use tracing::warn;

/// What was told, and when.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    told: BTreeMap<(&'static str, String), Instant>,
}

impl Complaints {
    /// Logs what is new.
    pub(crate) fn report(&mut self, complaints: &[Complaint], now: Instant) {
        for Complaint { reason, source, mend, .. } in self.due(complaints, now) {
            warn!(reason, %source, "datagrams of a peer are not understood: {mend}");
        }
    }

    /// The complaints of the last second that were not told within a minute.
    fn due<'a>(&mut self, complaints: &'a [Complaint], now: Instant) -> Vec<&'a Complaint> {
        self.told.retain(|_, at| now.saturating_duration_since(*at) < INTERVAL);
        let mut due = Vec::new();
        for complaint in complaints.iter().filter(|complaint| complaint.seconds_ago < RECENT_SECONDS) {
            let key = (complaint.reason, complaint.source.station());
            // Sources may be forged: their number is bounded, and so is the log.
            if self.told.len() < MAX_TOLD && !self.told.contains_key(&key) {
                self.told.insert(key, now);
                due.push(complaint);
            }
        }
        due
    }
}

/// Chosen: often enough to be seen by whoever looks for it, seldom enough not to hide other lines.
const INTERVAL: Duration = Duration::from_secs(60);
/// The status that carries complaints is renewed every 200 ms.
const RECENT_SECONDS: f64 = 1.0;
/// Chosen: lines a minute at most.
const MAX_TOLD: usize = 20;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use super::*;

    #[test]
    fn each_peer_is_told_of_once_a_minute() {
        let (mut complaints, start) = (Complaints::default(), now());
        let seen = [complaint("10.0.0.1", 0.1), complaint("10.0.0.2", 0.1)];

        assert_eq!(complaints.due(&seen, start).len(), 2);
        assert_eq!(complaints.due(&seen, start + INTERVAL / 2).len(), 0);
        assert_eq!(complaints.due(&seen, start + INTERVAL).len(), 2);
    }

    #[test]
    fn what_is_over_is_not_told() {
        assert!(Complaints::default().due(&[complaint("10.0.0.1", 5.0)], now()).is_empty());
    }

    #[test]
    fn forged_sources_do_not_flood_the_log() {
        let seen: Vec<Complaint> = (0..200).map(|i| complaint(&format!("10.0.0.{i}"), 0.1)).collect();

        assert_eq!(Complaints::default().due(&seen, now()).len(), MAX_TOLD);
    }

    fn complaint(source: &str, seconds_ago: f64) -> Complaint {
        let source = SocketAddr::from((source.parse::<IpAddr>().unwrap(), 7946)).into();
        Complaint { reason: "wrong_key", source, mend: "give all nodes the same secret", seconds_ago }
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn now() -> Instant {
        Instant::now()
    }
}
