//! What an observer is told of the life and death of hosts.
//!
//! It is what one speaker believes. Whoever acts on it weighs several accounts: a speaker may be cut off, or behind.

use std::collections::BTreeMap;
use std::time::Duration;

use garpike_election::NodeName;

use crate::notice::{Force, Notice, is_majority};
use crate::watch::votes::Charge;
use crate::{Generation, Identity, ProcessId};

/// The members and the dead as one speaker knows them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Account {
    /// Who is a member, the speaker itself among them, and in which life.
    pub members: BTreeMap<NodeName, Life>,
    /// Whose host is dead by a verdict that still stands.
    pub dead: BTreeMap<NodeName, HostDead>,
}

/// One life of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Life {
    /// Which of its lives; the higher one is newer.
    pub generation: Generation,
    /// The process. The same one in a later life had lived all the time.
    pub process: ProcessId,
}

/// A verdict: the host of a node is dead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostDead {
    /// The life that it ended.
    pub life: Life,
    /// How many speakers are known to hold the verdict.
    pub holders: u16,
    /// How many speakers were known before the fault, the dead one included.
    pub known: u16,
    /// For how long nothing had been heard of the node when the verdict was given; zero where that is not known.
    pub silent: Duration,
}

impl HostDead {
    /// Whether more than half of `known` speakers hold the verdict. Never of two.
    pub fn is_held_by_majority_of(&self, known: u16) -> bool {
        is_majority(self.holders, known)
    }
}

impl Account {
    pub(crate) fn new(members: &[Identity], dead: &[Notice]) -> Self {
        let mut account = Self::default();
        for member in members {
            account.members.insert(member.name.clone(), Life::of(member));
        }
        for notice in dead {
            let life = Life::of(&notice.subject);
            let later = account.members.get(&notice.subject.name).is_some_and(|now| now.generation > life.generation);
            if notice.charge == Charge::HostDead && notice.force == Force::InForce && !later {
                let silent = Duration::from_millis(notice.silent_ms.into());
                let verdict = HostDead { life, holders: notice.holders, known: notice.known, silent };
                account.dead.insert(notice.subject.name.clone(), verdict);
            }
        }
        account
    }
}

impl Life {
    fn of(identity: &Identity) -> Self {
        Self { generation: identity.generation, process: identity.process }
    }
}
