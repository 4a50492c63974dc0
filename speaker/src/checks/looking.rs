//! Looks again and again, and tells what is new.

use std::collections::BTreeSet;
use std::time::Duration;

use garpike_announcer::Surroundings;
use garpike_election::{NodeName, Spread};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Finding, Host, Sight, reach};
use crate::metrics;
use crate::pipeline::View;

/// Where it is looked, and who is told.
pub(crate) struct Looking {
    pub(crate) view: watch::Receiver<View>,
    pub(crate) membership: watch::Receiver<garpike_membership::Status>,
    pub(crate) announcer: watch::Receiver<garpike_announcer::Status>,
    pub(crate) surroundings: watch::Receiver<Surroundings>,
    pub(crate) spread: Spread,
    /// Of a cluster: by how many seconds the clock of this host is ahead of the API server's.
    pub(crate) clock_ahead: Option<watch::Receiver<i64>>,
    pub(crate) findings: watch::Sender<Vec<Finding>>,
}

impl Looking {
    /// Looks until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut unreachable = BTreeSet::new();
        let mut rounds = 0_u32;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if rounds.is_multiple_of(ROUNDS_BETWEEN_CONNECTIONS) {
                let membership = self.membership.borrow().clone();
                tokio::select! {
                    () = stop.cancelled() => return,
                    found = reach::unreachable(&membership) => unreachable = found,
                }
            }
            rounds = rounds.wrapping_add(1);
            self.look(&unreachable);
        }
    }

    fn look(&self, unreachable: &BTreeSet<NodeName>) {
        let host = Host::read(&self.surroundings.borrow().interfaces);
        let sight = Sight {
            host: &host,
            view: &self.view.borrow(),
            membership: &self.membership.borrow(),
            announcer: &self.announcer.borrow(),
            unreachable,
            spread: self.spread,
            clock_ahead_s: self.clock_ahead.as_ref().map_or(0, |ahead| *ahead.borrow()),
        };
        let found = sight.findings();
        for check in Finding::CHECKS {
            metrics::findings(check, found.iter().filter(|finding| finding.check() == check).count());
        }
        self.findings.send_if_modified(|before| {
            if *before == found {
                return false;
            }
            for finding in found.iter().filter(|finding| !before.contains(finding)) {
                warn!(check = finding.check(), "{finding}");
            }
            for finding in before.iter().filter(|finding| !found.contains(finding)) {
                info!(check = finding.check(), "no longer so: {finding}");
            }
            *before = found;
            true
        });
    }
}

/// Chosen: soon enough after a start for whoever watches it, and cheap.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Chosen: every ten minutes, and at the first look.
const ROUNDS_BETWEEN_CONNECTIONS: u32 = 120;
