//! What a node says about itself, and what the others have said.
//!
//! Each node is the only writer of its own facts and numbers their versions; newer replaces older wherever it
//! comes from. They travel directly to every member and, for those that miss that, by gossip. A node that lies about
//! another has the key of the cluster, and could do worse.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use garpike_election::{InterfaceName, NodeName, NodeState, Selection};
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::{Generation, Identity, ProcessId};

/// What one process of one node says about itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) node: NodeName,
    pub(crate) process: ProcessId,
    pub(crate) generation: Generation,
    pub(crate) version: u64,
    pub(crate) state: NodeState,
    /// `None`: every interface.
    interfaces: Option<BTreeSet<InterfaceName>>,
}

impl Facts {
    /// The first facts of a process.
    pub(crate) fn new(local: &Identity, state: NodeState, interfaces: Selection<InterfaceName>) -> Self {
        Self {
            node: local.name.clone(),
            process: local.process,
            generation: local.generation,
            version: 1,
            state,
            interfaces: short_enough(interfaces),
        }
    }

    /// Changes the state; tells whether that is news.
    pub(crate) fn set_state(&mut self, state: NodeState) -> News {
        let changed = self.state != state;
        self.state = state;
        self.next_version_if(changed)
    }

    /// Changes the interfaces; tells whether that is news.
    pub(crate) fn set_interfaces(&mut self, interfaces: Selection<InterfaceName>) -> News {
        let interfaces = short_enough(interfaces);
        let changed = self.interfaces != interfaces;
        self.interfaces = interfaces;
        self.next_version_if(changed)
    }

    /// Goes above everything that earlier lives of the node have said.
    pub(crate) fn set_generation(&mut self, generation: Generation) {
        self.generation = generation;
        self.version += 1;
    }

    pub(crate) fn interfaces(&self) -> Selection<InterfaceName> {
        self.interfaces.clone().map_or(Selection::All, Selection::Only)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self).expect("the constructors bound the length of facts")
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes)
    }

    fn age(&self) -> (Generation, u64) {
        (self.generation, self.version)
    }

    fn next_version_if(&mut self, changed: bool) -> News {
        if changed {
            self.version += 1;
            News::Yes
        } else {
            News::No
        }
    }
}

/// Whether something is news.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum News {
    Yes,
    No,
}

/// The newest facts of each node, as far as they have come here.
#[derive(Debug, Default)]
pub(crate) struct FactsBook(BTreeMap<NodeName, Facts>);

impl FactsBook {
    /// Takes facts in unless newer ones are known; tells whether they are news.
    pub(crate) fn learn(&mut self, facts: Facts) -> News {
        if self.0.get(&facts.node).is_some_and(|known| known.age() >= facts.age()) {
            return News::No;
        }
        if self.0.len() >= NODES_MAX && !self.0.contains_key(&facts.node) {
            return News::No;
        }
        self.0.insert(facts.node.clone(), facts);
        News::Yes
    }

    /// What the process behind `identity` has said. Facts of an earlier life of the node say nothing about this one.
    pub(crate) fn of(&self, identity: &Identity) -> Option<&Facts> {
        self.0.get(&identity.name).filter(|facts| facts.process == identity.process)
    }

    /// Forgets the nodes that are not among `nodes`.
    pub(crate) fn keep(&mut self, nodes: &BTreeSet<&NodeName>) {
        self.0.retain(|node, _| nodes.contains(node));
    }
}

/// Decides for foca which gossiped facts are passed on, and hands them to the cluster.
#[derive(Debug)]
pub(crate) struct Relay {
    passed_on: BTreeMap<NodeName, (Generation, u64)>,
    heard: SyncSender<Facts>,
}

/// Facts in foca's backlog.
#[derive(Debug)]
pub(crate) struct Gossiped(Facts);

impl Relay {
    /// A relay, and the end at which the facts that it hears come out.
    pub(crate) fn new() -> (Self, Receiver<Facts>) {
        let (heard, facts) = sync_channel(HEARD_DEPTH);
        (Self { passed_on: BTreeMap::new(), heard }, facts)
    }
}

impl foca::Invalidates for Gossiped {
    fn invalidates(&self, other: &Self) -> bool {
        self.0.node == other.0.node && self.0.age() >= other.0.age()
    }
}

impl foca::BroadcastHandler<Identity> for Relay {
    type Key = Gossiped;
    type Error = CodecError;

    fn receive_item(&mut self, data: &[u8], sender: Option<&Identity>) -> Result<Option<Gossiped>, CodecError> {
        let facts = Facts::parse(data)?;
        if data.len() > GOSSIP_MAX {
            // They would wait for room for ever, and keep foca gossiping.
            return Ok(None);
        }
        if sender.is_none() {
            // Our own: gossiped whether or not that has been done before, so that whoever missed them gets them.
            return Ok(Some(Gossiped(facts)));
        }
        if self.passed_on.get(&facts.node).is_some_and(|passed_on| *passed_on >= facts.age()) {
            return Ok(None);
        }
        if self.passed_on.len() >= NODES_MAX {
            // Costs nothing but to pass some facts on once more.
            self.passed_on.clear();
        }
        self.passed_on.insert(facts.node.clone(), facts.age());
        // A full channel is as good as a lost datagram: the author repeats its facts.
        let _ = self.heard.try_send(facts.clone());
        Ok(Some(Gossiped(facts)))
    }
}

/// The interfaces as facts carry them: `None` when there are too many to name, which claims too much rather than too
/// little; the election on the node itself knows better.
fn short_enough(interfaces: Selection<InterfaceName>) -> Option<BTreeSet<InterfaceName>> {
    match interfaces {
        Selection::All => None,
        Selection::Only(names) => (names.len() <= INTERFACES_MAX).then_some(names),
    }
}

/// Chosen: 32 names of at most 15 bytes fit into a datagram beside two identities of usual length.
const INTERFACES_MAX: usize = 32;

/// What a datagram of foca has room for beside two identities with names of 253 bytes. Longer facts (a long name of the
/// node and many interfaces) travel directly only.
const GOSSIP_MAX: usize = 500;

/// Chosen: four times the largest cluster that is tested.
const NODES_MAX: usize = 4096;

/// More facts than one datagram can hold; the cluster empties the channel after each.
const HEARD_DEPTH: usize = 256;

#[cfg(test)]
mod tests {
    use foca::{BroadcastHandler, Invalidates};

    use super::*;

    #[test]
    fn newer_facts_replace_older_ones_whatever_the_order_of_arrival() {
        let (old, mut new) = (facts(), facts());
        new.set_state(NodeState::Ready);
        let mut book = FactsBook::default();

        assert_eq!(book.learn(new.clone()), News::Yes);
        assert_eq!(book.learn(old), News::No);
        assert_eq!(book.learn(new.clone()), News::No);
        assert_eq!(book.of(&identity(1)), Some(&new));
    }

    #[test]
    fn a_later_life_of_the_node_is_newer_whatever_its_version() {
        let mut before = facts();
        (0..10).for_each(|_| before.set_generation(Generation(1)));
        let after = Facts { generation: Generation(2), process: ProcessId(2), ..facts() };
        let mut book = FactsBook::default();
        book.learn(before);

        assert_eq!(book.learn(after.clone()), News::Yes);
        assert_eq!(book.of(&identity(1)), None, "what an earlier life said does not count");
        assert_eq!(book.of(&identity(2)), Some(&after));
    }

    #[test]
    fn saying_the_same_again_is_no_news() {
        let mut facts = facts();

        assert_eq!(facts.set_state(NodeState::Joining), News::No);
        assert_eq!(facts.set_interfaces(Selection::All), News::No);
        assert_eq!(facts.version, 1);
    }

    #[test]
    fn more_than_32_interfaces_are_all() {
        let mut facts = facts();

        facts.set_interfaces(interfaces(32));
        assert_eq!(facts.interfaces(), interfaces(32));
        facts.set_interfaces(interfaces(33));
        assert_eq!(facts.interfaces(), Selection::All);
    }

    #[test]
    fn the_longest_facts_can_be_written() {
        let mut longest = facts();
        longest.node = NodeName::new(&"a".repeat(NodeName::MAX_LEN)).unwrap();
        (longest.generation, longest.process, longest.version) = (Generation(u64::MAX), ProcessId(u64::MAX), u64::MAX);
        longest.interfaces = short_enough(interfaces(32));

        assert_eq!(Facts::parse(&longest.to_bytes()).unwrap(), longest);
    }

    #[test]
    fn gossip_passes_on_each_version_once_and_own_facts_every_time() {
        let (mut relay, heard) = Relay::new();
        let bytes = facts().to_bytes();
        let author = identity(1);

        assert!(relay.receive_item(&bytes, Some(&author)).unwrap().is_some());
        assert!(relay.receive_item(&bytes, Some(&author)).unwrap().is_none());
        assert!(relay.receive_item(&bytes, None).unwrap().is_some());
        assert!(relay.receive_item(b"no facts", Some(&author)).is_err());
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [facts()]);
    }

    #[test]
    fn newer_facts_drop_older_ones_of_the_same_node_from_the_backlog() {
        let (old, mut new) = (facts(), facts());
        new.set_state(NodeState::Ready);
        let other = Facts { node: NodeName::new("other").unwrap(), ..facts() };

        assert!(Gossiped(new.clone()).invalidates(&Gossiped(old.clone())));
        assert!(!Gossiped(old).invalidates(&Gossiped(new.clone())));
        assert!(!Gossiped(new).invalidates(&Gossiped(other)));
    }

    fn facts() -> Facts {
        Facts::new(&identity(1), NodeState::Joining, Selection::All)
    }

    fn identity(process: u64) -> Identity {
        Identity {
            name: NodeName::new("node").unwrap(),
            generation: Generation(1),
            process: ProcessId(process),
            gossip: "192.0.2.1:7946".parse().unwrap(),
        }
    }

    fn interfaces(count: usize) -> Selection<InterfaceName> {
        Selection::Only((0..count).map(|n| InterfaceName::new(&format!("interface-{n:05}")).unwrap()).collect())
    }
}
