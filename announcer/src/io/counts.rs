//! The counters of frames, each looked up once.
//!
//! To look a counter up by its label costs as much as to answer a request.

use std::collections::BTreeMap;

use ::metrics::Counter;

use crate::metrics;

/// The counters that were needed so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    sent: BTreeMap<&'static str, Counter>,
    unanswered: BTreeMap<&'static str, Counter>,
}

impl Counts {
    pub(super) fn frame_sent(&mut self, kind: &'static str) {
        self.sent.entry(kind).or_insert_with(|| metrics::frames_sent(kind)).increment(1);
    }

    pub(super) fn frame_unanswered(&mut self, reason: &'static str) {
        self.unanswered.entry(reason).or_insert_with(|| metrics::frames_unanswered(reason)).increment(1);
    }
}
