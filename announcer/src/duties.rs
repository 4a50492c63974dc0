//! What the announcer is to answer for, as one value, so that no address is between two of its sets.

use std::collections::{BTreeMap, BTreeSet};

use garpike_election::{InterfaceName, MacAddr, NodeName, Selection, ServiceIp};

/// Everything that a node answers for, and whom it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Duties {
    /// The owned addresses, with the interfaces that may announce them.
    pub owned: BTreeMap<ServiceIp, Selection<InterfaceName>>,
    /// The addresses whose owners are away, with the owners' Ethernet addresses on the interfaces that reach them.
    pub stood_in: BTreeMap<ServiceIp, BTreeMap<InterfaceName, MacAddr>>,
    /// The addresses that other nodes own, with their owners.
    pub elsewhere: BTreeMap<ServiceIp, NodeName>,
    /// The Ethernet addresses of all members, those that are dead included: what they say is no answer of a station.
    pub members: BTreeSet<MacAddr>,
}
