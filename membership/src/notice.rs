//! What the watchers tell each other and everybody.

use garpike_election::NodeName;
use serde::{Deserialize, Serialize};

use crate::watch::votes::Charge;
use crate::{Generation, Identity};

/// What a watcher says of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Vote {
    pub(crate) subject: Identity,
    /// `None`: the vote is withdrawn.
    pub(crate) charge: Option<Charge>,
}

/// A verdict.
///
/// It ends one life of a node: a later life is not concerned.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Notice {
    pub(crate) subject: Identity,
    pub(crate) charge: Charge,
    pub(crate) force: Force,
    /// The last version of the subject's facts that the watchers knew. It lives if it has said more since.
    pub(crate) version: u64,
    /// How many members are known to hold the verdict, whoever tells it included.
    pub(crate) holders: u16,
    /// How many members there were before, the subject included.
    pub(crate) known: u16,
    /// How often the host of this node was declared dead lately.
    pub(crate) deaths: u16,
    /// For how many milliseconds nothing had been heard of the subject; 0: whoever gave the verdict was none of its watchers.
    pub(crate) silent_ms: u16,
}

/// Which verdict a notice is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) struct NoticeId {
    pub(crate) node: NodeName,
    pub(crate) generation: Generation,
    pub(crate) charge: Charge,
    pub(crate) force: Force,
    pub(crate) version: u64,
}

/// Whether a verdict still stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(crate) enum Force {
    InForce,
    /// Whoever tells it was alone, and takes it back; the subject should know, for its addresses may have been claimed.
    TakenBack,
}

impl Notice {
    pub(crate) fn id(&self) -> NoticeId {
        NoticeId {
            node: self.subject.name.clone(),
            generation: self.subject.generation,
            charge: self.charge,
            force: self.force,
            version: self.version,
        }
    }

    /// Whether more than half of all members believed it: then it was the subject that was cut off, not they.
    pub(crate) fn is_by_majority(&self) -> bool {
        is_majority(self.holders, self.known)
    }
}

/// Whether `holders` are more than half of `known`.
pub(crate) fn is_majority(holders: u16, known: u16) -> bool {
    u32::from(holders) * 2 > u32::from(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProcessId;

    #[test]
    fn half_of_the_members_are_no_majority() {
        for (holders, known, majority) in [(1, 2, false), (2, 3, true), (5, 10, false), (6, 10, true), (0, 0, false)] {
            assert_eq!(notice(holders, known).is_by_majority(), majority, "{holders} of {known}");
        }
    }

    fn notice(holders: u16, known: u16) -> Notice {
        let subject = Identity {
            name: NodeName::new("n1").unwrap(),
            generation: Generation(1),
            process: ProcessId(1),
            gossip: "192.0.2.1:7946".parse().unwrap(),
        };
        let (charge, force) = (Charge::HostDead, Force::InForce);
        Notice { subject, charge, force, version: 1, holders, known, deaths: 1, silent_ms: 160 }
    }
}
