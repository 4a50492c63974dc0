//! Who a member is to foca.
//!
//! One member slot per **node name**: a node that restarts, with the same or another address, takes the slot of its
//! earlier life, so that it is never counted twice. The generation says which life is newer. The process number stays
//! the same when a living process renews its identity, which tells "it had been alive all the time" from "it
//! restarted".

use std::fmt;
use std::net::SocketAddr;

use garpike_election::NodeName;
use serde::{Deserialize, Serialize};

/// Which life of a node an identity belongs to; the higher one is newer.
///
/// A process begins with the milliseconds since the epoch at its start, and goes one higher whenever it is wrongly
/// declared dead.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// A random number that a process draws when it starts; never 0.
///
/// It tells two lives of a node apart whatever its clock says. Datagrams name the process that they are meant for, so
/// a recorded one is of no use against the next life of its receiver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProcessId(pub u64);

/// A member of the cluster as it introduces itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The node.
    pub name: NodeName,
    /// Which of its lives.
    pub generation: Generation,
    /// The process that runs it.
    pub process: ProcessId,
    /// Where it receives datagrams.
    pub gossip: SocketAddr,
}

impl foca::Identity for Identity {
    type Addr = NodeName;

    fn renew(&self) -> Option<Self> {
        self.above(self.generation)
    }

    fn addr(&self) -> NodeName {
        self.name.clone()
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        // The later fields only make the order total, so that all nodes keep the same one of two twins.
        let order = |id: &Self| (id.generation, id.process, id.gossip);
        order(self) > order(adversary)
    }
}

impl Identity {
    /// The same process with a generation above `generation`; `None` when there is none.
    pub(crate) fn above(&self, generation: Generation) -> Option<Self> {
        let generation = Generation(generation.0.checked_add(1)?);
        Some(Self { generation, ..self.clone() })
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use foca::Identity as _;

    use super::*;

    #[test]
    fn a_restart_with_another_address_takes_the_slot_of_its_earlier_life() {
        let old = identity(1_000, 1, "192.0.2.1:7946");
        let new = identity(2_000, 2, "192.0.2.9:7946");

        assert_eq!(old.addr(), new.addr());
        assert!(new.win_addr_conflict(&old));
        assert!(!old.win_addr_conflict(&new));
    }

    #[test]
    fn a_renewed_identity_wins_and_stays_the_same_process() {
        let old = identity(1_000, 1, "192.0.2.1:7946");
        let new = old.renew().unwrap();

        assert!(new.win_addr_conflict(&old));
        assert_eq!(new.process, old.process);
    }

    #[test]
    fn exactly_one_of_two_twins_wins() {
        let a = identity(1_000, 1, "192.0.2.1:7946");
        let b = identity(1_000, 2, "192.0.2.1:7946");

        assert_ne!(a.win_addr_conflict(&b), b.win_addr_conflict(&a));
        assert!(!a.win_addr_conflict(&a));
    }

    #[test]
    fn the_last_generation_cannot_be_renewed() {
        assert_eq!(identity(u64::MAX, 1, "192.0.2.1:7946").renew(), None);
    }

    fn identity(generation: u64, process: u64, gossip: &str) -> Identity {
        Identity {
            name: NodeName::new("node-a").unwrap(),
            generation: Generation(generation),
            process: ProcessId(process),
            gossip: gossip.parse().unwrap(),
        }
    }
}
