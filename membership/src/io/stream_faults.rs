//! How often connections were ended for which reason, for people.
//!
//! A reason that datagrams are dropped for as well is shown once, with the sum: what is to be done about it is the same.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use crate::stream::StreamFault;
use crate::{Complaint, RejectedStatus, Status};

/// The counts, and who caused the last of each.
#[derive(Debug, Default)]
pub(super) struct StreamFaults(BTreeMap<StreamFault, Counted>);

#[derive(Clone, Copy, Debug)]
struct Counted {
    count: u64,
    last_from: SocketAddr,
    last_at: Instant,
}

impl StreamFaults {
    pub(super) fn count(&mut self, fault: StreamFault, from: SocketAddr, now: Instant) {
        let counted = self.0.entry(fault).or_insert(Counted { count: 0, last_from: from, last_at: now });
        *counted = Counted { count: counted.count + 1, last_from: from, last_at: now };
    }

    /// Adds what was counted to what the cluster shows.
    pub(super) fn show(&self, status: &mut Status, now: Instant) {
        for (fault, counted) in &self.0 {
            let Counted { count, last_from, last_at } = *counted;
            let (reason, seconds_ago) = (fault.reason(), now.saturating_duration_since(last_at).as_secs_f64());
            match status.rejected.iter_mut().find(|rejected| rejected.reason == reason) {
                Some(rejected) => {
                    rejected.count += count;
                    if seconds_ago < rejected.seconds_ago {
                        (rejected.last_from, rejected.seconds_ago) = (last_from.into(), seconds_ago);
                    }
                }
                None => {
                    status.rejected.push(RejectedStatus { reason, count, last_from: last_from.into(), seconds_ago });
                }
            }
            let Some(mend) = fault.mend() else { continue };
            match status.complaints.iter_mut().find(|complaint| complaint.reason == reason) {
                Some(complaint) if seconds_ago < complaint.seconds_ago => {
                    (complaint.source, complaint.seconds_ago) = (last_from.into(), seconds_ago);
                }
                Some(_) => {}
                None => status.complaints.push(Complaint { reason, source: last_from.into(), mend, seconds_ago }),
            }
        }
    }
}
