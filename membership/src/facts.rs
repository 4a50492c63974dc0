//! What a node says about itself, and what the others have said.
//!
//! Each node is the only writer of its own facts and numbers their versions; newer replaces older wherever it
//! comes from. They go to every member directly until it acknowledges them, and come along when nodes exchange their
//! states. A node that lies about another has the key of the cluster, and could do worse.

use std::collections::{BTreeMap, BTreeSet};

use garpike_election::{Handicap, InterfaceName, MacAddr, NodeName, NodeState, Selection, Spread, Wire};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::{Gateway, Generation, Identity, KeyId, Surroundings};

/// What a speaker can do. Nodes act by the lowest level among the living members, so that two versions never elect
/// differently.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FeatureLevel(pub u16);

impl FeatureLevel {
    /// The level of this version. It goes up when an election or a message changes its meaning.
    pub const CURRENT: Self = Self(1);
}

/// What one process of one node says about itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// Which life of which node says it.
    pub(crate) author: Identity,
    pub(crate) version: u64,
    pub(crate) state: NodeState,
    /// `None`: every interface.
    interfaces: Option<BTreeSet<InterfaceName>>,
    wires: BTreeMap<InterfaceName, WireFacts>,
    /// A bit for each [`Handicap`], one for a gateway that is silent, one for [`Spread::Balanced`] and two for the rank of who
    /// restarts, so that unknown ones can be passed over.
    handicaps: u32,
    /// The keys that the node holds, the one it prefers first; none: it sends in the clear.
    keys: Vec<[u8; 4]>,
    pub(crate) level: FeatureLevel,
    software: String,
    /// Facts of later versions, by number.
    later: BTreeMap<u16, Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct WireFacts {
    mac: [u8; 6],
    nets: BTreeSet<IpNet>,
}

impl Facts {
    /// The first facts of a process.
    pub(crate) fn new(local: &Identity, state: NodeState, keys: Vec<KeyId>, surroundings: &Surroundings) -> Self {
        let mut facts = Self {
            author: local.clone(),
            version: 1,
            state,
            interfaces: None,
            wires: BTreeMap::new(),
            handicaps: 0,
            keys: bytes_of(keys),
            level: FeatureLevel::CURRENT,
            software: env!("CARGO_PKG_VERSION").chars().take(SOFTWARE_MAX).collect(),
            later: BTreeMap::new(),
        };
        facts.set_surroundings(surroundings);
        facts.version = 1;
        facts
    }

    /// Says what another version than this one would say, from the beginning.
    pub(crate) fn set_release(&mut self, level: FeatureLevel, later: &BTreeMap<u16, Vec<u8>>) {
        self.level = level;
        let short = later.iter().filter(|(_, fact)| fact.len() <= LATER_LEN_MAX);
        self.later = short.take(LATER_MAX).map(|(number, fact)| (*number, fact.clone())).collect();
    }

    /// Says how the node wants owners to be spread, from the beginning.
    pub(crate) fn set_spread(&mut self, spread: Spread) {
        match spread {
            Spread::Hash => self.handicaps &= !BALANCED,
            Spread::Balanced => self.handicaps |= BALANCED,
        }
    }

    /// Changes the state; tells whether that is news. Who restarts goes on saying what it was: a node that joins meanwhile has not
    /// seen it, and must rank it as the others do.
    pub(crate) fn set_state(&mut self, state: NodeState) -> News {
        let changed = self.state != state;
        if changed {
            let rank = if state == NodeState::Restarting { bits_of_rank(self.state) } else { 0 };
            self.handicaps = self.handicaps & !RANK | rank;
        }
        self.state = state;
        self.next_version_if(changed)
    }

    /// The state, as far as the election is concerned.
    pub(crate) fn rank(&self) -> NodeState {
        match self.state {
            NodeState::Restarting => rank_of_bits(self.handicaps & RANK),
            NodeState::Ready | NodeState::HeldDown | NodeState::Joining | NodeState::Draining => self.state,
        }
    }

    /// Changes what is said of the links; tells whether that is news.
    pub(crate) fn set_surroundings(&mut self, surroundings: &Surroundings) -> News {
        let interfaces = short_enough(&surroundings.interfaces);
        let wires = surroundings.wires.iter().take(WIRES_MAX).map(|(name, wire)| {
            let nets = wire.nets.iter().take(NETS_MAX).copied().collect();
            (name.clone(), WireFacts { mac: wire.mac.0, nets })
        });
        let wires = wires.collect();
        let silent = match surroundings.gateway {
            Gateway::Answers => 0,
            Gateway::Silent => SILENT_GATEWAY,
        };
        let handicaps = surroundings.handicaps.iter().map(|handicap| bit(*handicap)).sum::<u32>();
        let handicaps = handicaps | silent | self.handicaps & (BALANCED | RANK);
        let changed = (&self.interfaces, &self.wires, self.handicaps) != (&interfaces, &wires, handicaps);
        (self.interfaces, self.wires, self.handicaps) = (interfaces, wires, handicaps);
        self.next_version_if(changed)
    }

    /// Changes the keys that are held; tells whether that is news.
    pub(crate) fn set_keys(&mut self, keys: Vec<KeyId>) -> News {
        let keys = bytes_of(keys);
        let changed = self.keys != keys;
        self.keys = keys;
        self.next_version_if(changed)
    }

    /// Goes on under another identity of the same process.
    pub(crate) fn set_author(&mut self, author: Identity) {
        self.author = author;
        self.version += 1;
    }

    /// Says the same again, as news: above what others hold against it.
    pub(crate) fn go_above(&mut self, version: u64) {
        self.version = self.version.max(version.saturating_add(1));
    }

    pub(crate) fn interfaces(&self) -> Selection<InterfaceName> {
        self.interfaces.clone().map_or(Selection::All, Selection::Only)
    }

    pub(crate) fn wires(&self) -> BTreeMap<InterfaceName, Wire> {
        let wire = |wire: &WireFacts| Wire { mac: MacAddr(wire.mac), nets: wire.nets.clone() };
        self.wires.iter().map(|(name, facts)| (name.clone(), wire(facts))).collect()
    }

    pub(crate) fn handicaps(&self) -> BTreeSet<Handicap> {
        HANDICAPS.into_iter().filter(|handicap| self.handicaps & bit(*handicap) != 0).collect()
    }

    /// How the gateways of the node do. That is no handicap by itself: they may be silent for all.
    pub(crate) fn gateway(&self) -> Gateway {
        if self.handicaps & SILENT_GATEWAY == 0 { Gateway::Answers } else { Gateway::Silent }
    }

    /// How the node wants owners to be spread; a version that does not know of it goes by the hash.
    pub(crate) fn spread(&self) -> Spread {
        if self.handicaps & BALANCED == 0 { Spread::Hash } else { Spread::Balanced }
    }

    /// The keys that the node holds, the one it prefers first; none: it sends in the clear.
    pub(crate) fn keys(&self) -> impl Iterator<Item = KeyId> {
        self.keys.iter().copied().map(KeyId)
    }

    /// The version of the speaker, as far as it can be shown to people.
    pub(crate) fn software(&self) -> String {
        self.software.chars().filter(char::is_ascii_graphic).take(SOFTWARE_MAX).collect()
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self).expect("the constructors bound the length of facts")
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes)
    }

    /// Whether they are short enough to be told in a datagram, as their author must have told them.
    pub(crate) fn fit(&self) -> bool {
        codec::encode(self).is_ok()
    }

    pub(crate) fn age(&self) -> (Generation, u64) {
        (self.author.generation, self.version)
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
        if self.0.get(&facts.author.name).is_some_and(|known| known.age() >= facts.age()) {
            return News::No;
        }
        if self.0.len() >= NODES_MAX && !self.0.contains_key(&facts.author.name) {
            return News::No;
        }
        self.0.insert(facts.author.name.clone(), facts);
        News::Yes
    }

    /// What the process behind `identity` has said. Facts of an earlier life of the node say nothing about this one.
    pub(crate) fn of(&self, identity: &Identity) -> Option<&Facts> {
        self.0.get(&identity.name).filter(|facts| facts.author.process == identity.process)
    }

    /// Of how many nodes something is known.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Facts> {
        self.0.values()
    }

    /// Forgets the nodes of which `keep` does not want to know.
    pub(crate) fn retain(&mut self, keep: impl Fn(&NodeName) -> bool) {
        self.0.retain(|node, _| keep(node));
    }
}

fn bytes_of(keys: Vec<KeyId>) -> Vec<[u8; 4]> {
    keys.into_iter().map(|KeyId(bytes)| bytes).collect()
}

const HANDICAPS: [Handicap; 3] = [Handicap::Late, Handicap::NoGateway, Handicap::NoDataPlane];

/// A gateway does not answer any more.
const SILENT_GATEWAY: u32 = 8;

/// Owners are to be spread evenly.
const BALANCED: u32 = 16;

/// What a node was that restarts.
const RANK: u32 = 32 | 64;

fn bits_of_rank(state: NodeState) -> u32 {
    match state {
        NodeState::Ready | NodeState::Restarting => 0,
        NodeState::HeldDown => 32,
        NodeState::Joining => 64,
        NodeState::Draining => RANK,
    }
}

fn rank_of_bits(bits: u32) -> NodeState {
    match bits {
        32 => NodeState::HeldDown,
        64 => NodeState::Joining,
        RANK => NodeState::Draining,
        _ => NodeState::Ready,
    }
}

fn bit(handicap: Handicap) -> u32 {
    match handicap {
        Handicap::Late => 1,
        Handicap::NoGateway => 2,
        Handicap::NoDataPlane => 4,
    }
}

/// The interfaces as facts carry them: `None` when there are too many to name, which claims too much rather than too
/// little; the election on the node itself knows better.
fn short_enough(interfaces: &Selection<InterfaceName>) -> Option<BTreeSet<InterfaceName>> {
    match interfaces {
        Selection::All => None,
        Selection::Only(names) => (names.len() <= INTERFACES_MAX).then(|| names.clone()),
    }
}

/// Chosen: 32 names of at most 15 bytes leave room in a datagram for the rest.
const INTERFACES_MAX: usize = 32;

/// Chosen: with four networks each, the wires take at most 400 bytes. Who stands in for a node, and who challenges it on the
/// wire, finds one that both share among these.
const WIRES_MAX: usize = 4;
const NETS_MAX: usize = 4;

/// Chosen: longer than any version of ours.
const SOFTWARE_MAX: usize = 32;

/// Chosen: enough to see that they are passed on; those of later versions have the limits that they set.
const LATER_MAX: usize = 2;
const LATER_LEN_MAX: usize = 16;

/// Chosen: four times the largest cluster that is tested.
pub(crate) const NODES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProcessId;

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
        (0..10).for_each(|_| before.set_author(identity(1)));
        let after = Facts { author: Identity { generation: Generation(2), ..identity(2) }, ..facts() };
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
        assert_eq!(facts.set_surroundings(&Surroundings::new(Selection::All)), News::No);
        assert_eq!(facts.version, 1);
    }

    #[test]
    fn what_was_said_of_the_links_comes_out_again() {
        let mut facts = facts();
        let nets = BTreeSet::from(["192.168.8.0/22".parse().unwrap(), "fd00::/64".parse().unwrap()]);
        let wire = Wire { mac: MacAddr([2, 0, 0, 0, 0, 1]), nets };
        let surroundings = Surroundings {
            interfaces: interfaces(1),
            wires: [(InterfaceName::new("eth0").unwrap(), wire)].into(),
            stations: true,
            gateway: Gateway::Silent,
            handicaps: HANDICAPS.into(),
        };

        assert_eq!(facts.set_surroundings(&surroundings), News::Yes);

        let facts = Facts::parse(&facts.to_bytes()).unwrap();
        assert_eq!(
            (facts.interfaces(), facts.wires(), facts.gateway(), facts.handicaps()),
            (surroundings.interfaces, surroundings.wires, surroundings.gateway, surroundings.handicaps)
        );
    }

    #[test]
    fn how_owners_are_to_be_spread_stays_said_whatever_becomes_of_the_links() {
        let mut facts = facts();
        assert_eq!(facts.spread(), Spread::Hash);
        facts.set_spread(Spread::Balanced);
        let silent = Surroundings { gateway: Gateway::Silent, ..Surroundings::new(interfaces(1)) };

        assert_eq!(facts.set_surroundings(&silent), News::Yes);
        assert_eq!(facts.set_surroundings(&silent), News::No);

        let facts = Facts::parse(&facts.to_bytes()).unwrap();
        assert_eq!((facts.spread(), facts.gateway()), (Spread::Balanced, Gateway::Silent));
        assert_eq!(facts.handicaps(), BTreeSet::new());
    }

    #[test]
    fn more_than_32_interfaces_are_all() {
        let mut facts = facts();

        facts.set_surroundings(&Surroundings::new(interfaces(32)));
        assert_eq!(facts.interfaces(), interfaces(32));
        facts.set_surroundings(&Surroundings::new(interfaces(33)));
        assert_eq!(facts.interfaces(), Selection::All);
    }

    #[test]
    fn the_longest_facts_fit_into_a_datagram() {
        let mut longest = facts();
        longest.author = Identity {
            name: NodeName::new(&"a".repeat(NodeName::MAX_LEN)).unwrap(),
            generation: Generation(u64::MAX),
            process: ProcessId(u64::MAX),
            gossip: "[2001:db8::1]:65535".parse().unwrap(),
        };
        let Selection::Only(names) = interfaces(32) else { unreachable!() };
        let nets = (0..9_u32).map(|n| format!("2001:db8:{n:x}::1/64").parse().unwrap()).collect();
        let wire = Wire { mac: MacAddr([2, 0, 0, 0, 0, 1]), nets };
        longest.set_surroundings(&Surroundings {
            wires: names.iter().map(|name| (name.clone(), wire.clone())).collect(),
            ..Surroundings::new(Selection::Only(names))
        });
        longest.version = u64::MAX;
        longest.software = "v".repeat(SOFTWARE_MAX);
        longest.keys = vec![[1; 4]; 8];
        longest.set_release(FeatureLevel(u16::MAX), &(65_000..65_009).map(|number| (number, vec![7; 16])).collect());

        let bytes = longest.to_bytes();

        assert_eq!(Facts::parse(&bytes).unwrap(), longest);
        assert!(bytes.len() <= 1400, "{} bytes", bytes.len());
    }

    fn facts() -> Facts {
        Facts::new(&identity(1), NodeState::Joining, vec![], &Surroundings::new(Selection::All))
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
