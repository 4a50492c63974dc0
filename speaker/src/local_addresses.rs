//! Keeps every service IP local to this host (`--bind-service-ips lo`).
//!
//! On every host, owner or not: the heir's kernel accepts packets the moment they come. They stay when the speaker
//! ends, because its host may go on serving; the next start removes those that no Service holds any more.

use std::collections::BTreeSet;
use std::time::Duration;

use garpike_announcer::Surroundings;
use garpike_announcer::io::{addresses, arp_sysctl};
use garpike_election::{Selection, ServiceIp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::source::{Origin, Snapshot};

/// Follows `snapshots` until `stop`, and watches that the kernel leaves ARP on the interfaces that can announce to the announcer.
pub(crate) async fn keep(
    mut snapshots: watch::Receiver<Snapshot>,
    mut surroundings: watch::Receiver<Surroundings>,
    stop: CancellationToken,
) {
    let mut told = BTreeSet::new();
    // Before anything is known, nothing is superfluous either.
    tokio::select! {
        () = stop.cancelled() => return,
        known = snapshots.wait_for(|snapshot| snapshot.origin != Origin::Nothing) => if known.is_err() { return },
    }
    loop {
        let wanted: BTreeSet<ServiceIp> = snapshots.borrow_and_update().desired.addresses.keys().copied().collect();
        let mut complaints: BTreeSet<String> = match addresses::bind(&wanted).await {
            Ok(bound) => {
                if !bound.added.is_empty() || !bound.removed.is_empty() {
                    debug!(added = ?bound.added, removed = ?bound.removed, "service IPs on lo");
                }
                bound.failed.into_iter().map(|error| format!("{:#}", anyhow::Error::new(error))).collect()
            }
            Err(error) => BTreeSet::from([format!("{:#}", anyhow::Error::new(error))]),
        };
        if let Selection::Only(interfaces) = &surroundings.borrow_and_update().interfaces {
            complaints.extend(arp_sysctl::check(interfaces).iter().map(ToString::to_string));
        }
        // Each complaint once: a retry that fails in the same way has nothing new to say.
        for complaint in complaints.difference(&told) {
            warn!("{complaint}");
        }
        told = complaints;
        tokio::select! {
            () = stop.cancelled() => return,
            changed = snapshots.changed() => if changed.is_err() { return },
            changed = surroundings.changed() => if changed.is_err() { return },
            // Somebody may have removed them.
            () = tokio::time::sleep(RECHECK) => {}
        }
    }
}

/// Chosen: an address that was removed by hand is back while its author still wonders.
const RECHECK: Duration = Duration::from_secs(10);
