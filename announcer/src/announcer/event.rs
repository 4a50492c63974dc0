//! What the core tells: for the log, the metrics and whoever decides. Nobody has to listen.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use garpike_election::{InterfaceName, MacAddr, NodeName, ServiceIp};

use super::{Because, Claimant, Outcome};

/// Something that others should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Another station says that it has an address that this node owns; at most one per address and second.
    Claimed {
        /// The address.
        ip: ServiceIp,
        /// The station.
        mac: MacAddr,
        /// Where it was heard.
        interface: InterfaceName,
        /// Who that is.
        by: Claimant,
    },
    /// This node does not claim an address that it owns, because another station answers for it.
    Withheld {
        /// The address.
        ip: ServiceIp,
        /// What the station is.
        because: Because,
        /// Its Ethernet address.
        mac: MacAddr,
    },
    /// It claims the address after all: nobody else answers any more.
    Claims {
        /// The address.
        ip: ServiceIp,
    },
    /// The kernels of several members answer for an address that this node owns.
    KernelsAnswer {
        /// The address.
        ip: ServiceIp,
    },
    /// The last of some addresses that this node has lost to other nodes is theirs.
    HandedOver {
        /// Of how many the new owner's claim was heard.
        claimed: usize,
        /// Of how many it was not, within a second.
        given_up: usize,
    },
    /// Two interfaces of this node are on one segment.
    OneSegment {
        /// The one that answers and announces.
        speaks: InterfaceName,
        /// The one that does not.
        silent: InterfaceName,
    },
    /// An address of another node was asked for.
    Checked {
        /// What came of it.
        outcome: Outcome,
    },
    /// Somebody else than the owner answers for an address; at most one per address and minute.
    WrongAnswer {
        /// The address.
        ip: ServiceIp,
        /// The Ethernet address that is told.
        mac: MacAddr,
        /// Whose it is.
        by: Claimant,
        /// Who owns the address.
        owner: NodeName,
        /// Where it was heard.
        interface: InterfaceName,
    },
    /// The first frame that announces an address has left since it was gained, or an interface that announces it.
    Announced {
        /// The address.
        ip: ServiceIp,
        /// When.
        at: Instant,
    },
    /// A gateway or client shows that it sends to this node for an address that was gained; the first to do so.
    Acknowledged {
        /// The address.
        ip: ServiceIp,
        /// The station.
        mac: MacAddr,
        /// How long it took from the gain.
        after: Duration,
    },
    /// A station that is no member has answered, and is the first on its interface since stations were asked there.
    StationAnswered {
        /// Where it was heard.
        interface: InterfaceName,
        /// The station.
        mac: MacAddr,
    },
    /// No interface of this node can announce an owned address; once, until that changes.
    NoInterface {
        /// The address.
        ip: ServiceIp,
    },
}

/// Queues an event if there is room, and tells so: without room it is due again at the next occasion.
pub(super) fn push_event(events: &mut VecDeque<Event>, event: Event) -> bool {
    let room = events.len() < EVENT_DEPTH;
    if room {
        events.push_back(event);
    }
    room
}

/// Chosen: one event for each of several thousand addresses; more means that nobody listens.
const EVENT_DEPTH: usize = 8192;
