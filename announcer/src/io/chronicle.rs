//! Tells people what the announcer tells: logs and counts its events.
//!
//! Each is counted. The log hears of each address and kind of event once a minute, and of no more than some addresses.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use garpike_election::ServiceIp;
use tracing::{debug, info, trace, warn};

use crate::announcer::{Because, Claimant, Event};
use crate::metrics;

/// What the log has heard.
#[derive(Debug, Default)]
pub(super) struct Chronicle {
    told: BTreeMap<(&'static str, ServiceIp), Instant>,
}

impl Chronicle {
    /// Logs and counts an event.
    pub(super) fn tell(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Claimed { ip, mac, interface, by } => {
                metrics::conflict(by.kind());
                if self.is_due(by.kind(), *ip, now) {
                    let mend = mend_of_claim(by);
                    warn!(service_ip = %ip, %mac, %interface, "{by} claims the address; {mend}");
                }
            }
            Event::Withheld { ip, because, mac } => {
                metrics::withheld(because.reason());
                if self.is_due(because.reason(), *ip, now) {
                    let why = why(because);
                    warn!(service_ip = %ip, %mac, node = because.node().map(tracing::field::display), "{why}");
                }
            }
            Event::Claims { ip } => {
                if self.is_due("claims", *ip, now) {
                    info!(service_ip = %ip, "nobody else answers any more: claiming the address");
                }
            }
            Event::KernelsAnswer { ip } => {
                if self.is_due("kernels", *ip, now) {
                    warn!(service_ip = %ip, "the kernels of several nodes answer for the address; {KERNEL_MEND}");
                }
            }
            Event::HandedOver { claimed, given_up: 0 } => {
                metrics::handed_over(*claimed, 0);
                info!(addresses = claimed, "handed over: the new owners have announced");
            }
            Event::HandedOver { claimed, given_up } => {
                metrics::handed_over(*claimed, *given_up);
                warn!(claimed, given_up, "handed over, but of some the new owner's announcement was not heard in time");
            }
            Event::OneSegment { speaks, silent } => {
                warn!(%speaks, %silent, "two interfaces of this node are on one segment: only the first announces");
            }
            Event::Checked { outcome } => metrics::self_check(outcome.as_str()),
            Event::WrongAnswer { ip, mac, by, owner, interface } => {
                let (kind, mend) = match by {
                    Claimant::Member(_) | Claimant::Dead(_) => ("kernel", KERNEL_MEND),
                    Claimant::Gateway => ("gateway", "switch proxy ARP off for the pool's addresses"),
                    Claimant::Stranger => ("stranger", "find the station, or take its address out of the pool"),
                };
                metrics::wrong_answer(kind);
                warn!(service_ip = %ip, %owner, %mac, %interface, "{by} answers for an address of another node; {mend}");
            }
            Event::NoInterface { ip } => warn!(service_ip = %ip, "no interface of this node can announce the address"),
            Event::Announced { ip, at: _ } => debug!(service_ip = %ip, "announced"),
            Event::Acknowledged { ip, mac, after } => {
                debug!(service_ip = %ip, %mac, ?after, "a station sends to this node for the address");
                metrics::acknowledged(*after);
            }
            Event::StationAnswered { interface, mac } => {
                trace!(%interface, %mac, "a station answered");
                metrics::station_answered();
            }
        }
    }

    /// Whether it has not been told within a minute.
    fn is_due(&mut self, what: &'static str, ip: ServiceIp, now: Instant) -> bool {
        self.told.retain(|_, at| now.saturating_duration_since(*at) < INTERVAL);
        if self.told.contains_key(&(what, ip)) {
            return false;
        }
        if self.told.len() >= MAX_TOLD {
            debug!(service_ip = %ip, what, "not all events of this minute are logged");
            return false;
        }
        self.told.insert((what, ip), now);
        true
    }
}

fn mend_of_claim(by: &Claimant) -> &'static str {
    match by {
        Claimant::Member(_) => "if that goes on, another speaker runs there",
        Claimant::Dead(_) => "the one that ranks first keeps it",
        Claimant::Gateway => "switch proxy ARP off for the pool's addresses",
        Claimant::Stranger => "defending it; find the station, or take its address out of the pool",
    }
}

fn why(because: &Because) -> &'static str {
    match because {
        Because::Untried | Because::Disputed(_) => "the claim of the address is in doubt",
        Because::InUse => {
            "not claiming the address: a station that is no node answers for it; find it, or take its address out of the pool"
        }
        Because::ForeignSpeaker(_) => {
            "not claiming the address: something else than Garpike answers for it on that node, such as MetalLB; it is taken \
             when that ends"
        }
        Because::Outranked(_) => {
            "not claiming the address: a node that was taken for dead answers for it and ranks first; the segment has healed"
        }
    }
}

const KERNEL_MEND: &str = "its kernel may: set strictARP in kube-proxy's IPVS mode (arp_ignore=1), take the address off its \
                           interfaces, and with IPv6 forwarding use no first address of a subnet";
/// Chosen: often enough to be seen by whoever looks for it, seldom enough not to hide other lines.
const INTERVAL: Duration = Duration::from_secs(60);
/// Chosen: lines a minute at most.
const MAX_TOLD: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_told_once_a_minute_and_a_flood_of_them_fills_a_screen() {
        let (mut chronicle, now) = (Chronicle::default(), now());
        let ip = |last: u8| ServiceIp::new([10, 0, 0, last].into()).unwrap();

        assert!(chronicle.is_due("stranger", ip(1), now));
        assert!(!chronicle.is_due("stranger", ip(1), now + INTERVAL / 2));
        assert!(chronicle.is_due("member", ip(1), now + INTERVAL / 2));
        assert!(chronicle.is_due("stranger", ip(1), now + INTERVAL));
        let told = (1..=255).filter(|last| chronicle.is_due("stranger", ip(*last), now + 3 * INTERVAL)).count();
        assert_eq!(told, MAX_TOLD);
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
    fn now() -> Instant {
        Instant::now()
    }
}
