//! The verdicts that this node has told lately, and who holds them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use garpike_election::NodeName;

use crate::Identity;
use crate::notice::{Notice, NoticeId};
use crate::watch::votes::Charge;

/// The verdicts.
#[derive(Debug, Default)]
pub(crate) struct Told(BTreeMap<NoticeId, Verdict>);

#[derive(Debug)]
pub(crate) struct Verdict {
    notice: Notice,
    /// When it was told first.
    pub(crate) at: Instant,
    /// Who has acknowledged it.
    pub(crate) holders: BTreeSet<NodeName>,
}

impl Told {
    pub(crate) fn note(&mut self, id: NoticeId, notice: Notice, now: Instant) {
        if self.0.len() >= VERDICTS_MAX && !self.0.contains_key(&id) {
            self.forget_before(now.checked_sub(KEPT_FOR / 10).unwrap_or(now));
        }
        if self.0.len() < VERDICTS_MAX {
            self.0.entry(id).or_insert(Verdict { notice, at: now, holders: BTreeSet::new() });
        }
    }

    pub(crate) fn get_mut(&mut self, id: &NoticeId) -> Option<&mut Verdict> {
        self.0.get_mut(id)
    }

    /// The verdict, with the number of those who are known to hold it by now.
    pub(crate) fn notice(&self, id: &NoticeId) -> Option<Notice> {
        let verdict = self.0.get(id)?;
        let holders = u16::try_from(verdict.holders.len() + 1).unwrap_or(u16::MAX).max(verdict.notice.holders);
        Some(Notice { holders, ..verdict.notice.clone() })
    }

    /// How many have acknowledged that the host of this life is dead.
    pub(crate) fn holders(&self, subject: &Identity) -> usize {
        let of_subject = self.0.iter().filter(|(id, _)| {
            id.charge == Charge::HostDead && id.node == subject.name && id.generation == subject.generation
        });
        of_subject.map(|(_, verdict)| verdict.holders.len()).max().unwrap_or(0)
    }

    /// Forgets what has been told long ago.
    pub(crate) fn forget_old(&mut self, now: Instant) {
        if let Some(then) = now.checked_sub(KEPT_FOR) {
            self.forget_before(then);
        }
    }

    fn forget_before(&mut self, then: Instant) {
        self.0.retain(|_, verdict| verdict.at >= then);
    }
}

/// Chosen: longer than anything is repeated.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Chosen: half of the largest cluster that is tested, at once.
const VERDICTS_MAX: usize = 512;
