//! How many datagrams of each kind were sent and taken in.
//!
//! Counted here and not by the recorder, which costs more than the rest of handling a heartbeat.

use crate::datagram::Kind;
use crate::metrics;

/// The counts, by [`Kind`].
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    sent: [u64; Kind::ALL.len()],
    received: [u64; Kind::ALL.len()],
}

impl Traffic {
    pub(crate) fn sent(&mut self, kind: Kind) {
        bump(&mut self.sent, kind);
    }

    pub(crate) fn received(&mut self, kind: Kind) {
        bump(&mut self.received, kind);
    }

    /// Hands the counts to the recorder.
    pub(crate) fn report(&self) {
        for (kind, (sent, received)) in Kind::ALL.into_iter().zip(self.sent.into_iter().zip(self.received)) {
            metrics::sent(kind, sent);
            metrics::received(kind, received);
        }
    }
}

fn bump(counts: &mut [u64], kind: Kind) {
    if let Some(count) = counts.get_mut(usize::from(kind.to_byte()) - 1) {
        *count += 1;
    }
}
