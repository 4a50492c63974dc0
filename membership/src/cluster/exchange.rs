//! The states that two nodes exchange over TCP, so that whatever was missed is known in the end.

use std::collections::BTreeSet;
use std::time::Instant;

use garpike_election::NodeName;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Cluster;
use crate::facts::{Facts, NODES_MAX};
use crate::notice::{Force, Notice};
use crate::peers::End;
use crate::swim::Spread;
use crate::watch::votes::Charge;
use crate::{Account, Identity, Rejected, codec};

/// What a node knows of the cluster.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    from: Identity,
    /// The members, the author among them.
    members: Vec<Identity>,
    /// The verdicts by which hosts are dead.
    dead: Vec<Notice>,
    facts: Vec<Facts>,
}

impl Cluster {
    /// A short name for what is known here of the members: two nodes with equal ones have nothing to tell each other.
    pub fn digest(&self) -> u64 {
        let mut digest = Sha256::new();
        let own = (&self.own.author.name, self.own.author.process, self.own.age());
        let others = self.peers.iter().map(|peer| {
            let version = self.book.of(&peer.identity).map_or((peer.identity.generation, 0), Facts::age);
            (&peer.identity.name, peer.identity.process, version)
        });
        let mut all: Vec<_> = others.chain([own]).collect();
        all.sort_unstable_by_key(|(name, ..)| *name);
        for (name, process, (generation, version)) in all {
            digest.update(name.as_str());
            digest.update([0]);
            for number in [process.0, generation.0, version] {
                digest.update(number.to_be_bytes());
            }
        }
        let digest = digest.finalize();
        let (first, _) = digest.split_first_chunk().expect("SHA-256 has 32 bytes");
        u64::from_be_bytes(*first)
    }

    /// Who is known here and what they said, for [`Cluster::handle_state`] of another node.
    pub fn state(&self) -> Vec<u8> {
        let own = self.swim.identity();
        let living = self.peers.iter().map(|peer| &peer.identity);
        let dead = self.peers.iter_dead().filter(|dead| dead.end == End::HostDead).map(|dead| self.notice_about(dead));
        // Who came back just now must not be ready before it knows.
        let returned = self.deliveries.open_to_subjects().filter_map(|id| self.told.notice(id));
        let returned = returned.filter(|notice| notice.force == Force::InForce && notice.charge == Charge::HostDead);
        let state = State {
            from: own.clone(),
            members: living.chain([own]).cloned().collect(),
            dead: dead.chain(returned).collect(),
            facts: self.book.iter().chain([&self.own]).cloned().collect(),
        };
        codec::encode_state(&state).expect("the tables are bounded")
    }

    /// Whether foca does not know this life of another node, nor a later one.
    pub(super) fn is_news(&self, identity: &Identity) -> bool {
        let ended = |dead: &crate::peers::Dead| identity.generation <= dead.identity.generation;
        let member = self.peers.get(&identity.name).is_some_and(|peer| peer.identity == *identity);
        identity.name != self.config.local
            && !member
            && !self.peers.dead(&identity.name).is_some_and(ended)
            && self
                .swim
                .named(&identity.name)
                .is_none_or(|known| foca::Identity::win_addr_conflict(identity, known.id()))
    }

    /// Takes in the state of another node: authentic, fresh, but not trusted to be well formed.
    ///
    /// # Errors
    ///
    /// When the bytes are no state.
    pub fn handle_state(&mut self, state: &[u8], now: Instant) -> Result<NodeName, Rejected> {
        let state: State = codec::decode_state(state).map_err(|_| Rejected::Malformed)?;
        self.now = now;
        let room = NODES_MAX.saturating_sub(self.peers.len());
        let news = state.members.into_iter().filter(|identity| self.is_news(identity)).take(room);
        let news: Vec<Identity> = news.collect();
        for notice in state.dead.iter().take(NODES_MAX) {
            if notice.subject.name == self.config.local && notice.subject.process != self.config.process {
                self.hold_down.handle(notice, now);
            }
        }
        // Who knew nobody has learnt nothing that those who told it would not know.
        let spread = if self.peers.is_empty() { Spread::No } else { Spread::Further };
        self.swim.introduce(news.into_iter(), spread);
        self.settle();
        for facts in state.facts.into_iter().take(NODES_MAX).filter(Facts::fit) {
            self.learn(facts);
        }
        // A verdict that did not come here: it is looked into, not believed.
        let missed: BTreeSet<NodeName> = (state.dead.iter().take(NODES_MAX))
            .map(|notice| &notice.subject)
            .filter(|identity| self.peers.get(&identity.name).is_some_and(|peer| peer.identity == **identity))
            .map(|identity| identity.name.clone())
            .collect();
        for name in missed {
            self.look_after(&name);
        }
        self.settle();
        Ok(state.from.name)
    }
}

impl Account {
    /// Reads what a speaker tells an observer: authentic, but not trusted to be well formed.
    ///
    /// # Errors
    ///
    /// When the bytes are no state.
    pub fn read(state: &[u8]) -> Result<Self, Rejected> {
        let mut state: State = codec::decode_state(state).map_err(|_| Rejected::Malformed)?;
        state.members.truncate(NODES_MAX);
        state.dead.truncate(NODES_MAX);
        Ok(Self::new(&state.members, &state.dead))
    }
}

#[cfg(test)]
mod tests {
    use garpike_election::{NodeState, Selection};

    use super::*;
    use crate::{Generation, ProcessId, Surroundings};

    #[test]
    fn golden_state() {
        let identity = |name: &str, last: u8| Identity {
            name: NodeName::new(name).unwrap(),
            generation: Generation(u64::from(last)),
            process: ProcessId(u64::from(last) + 0x10),
            gossip: ([192, 0, 2, last], 7946).into(),
        };
        let n1 = || identity("n1", 1);
        let facts = Facts::new(&n1(), NodeState::Joining, vec![], &Surroundings::new(Selection::All));
        let (charge, force) = (Charge::HostDead, Force::InForce);
        let subject = identity("n3", 3);
        let verdict = Notice { subject, charge, force, version: 5, holders: 2, known: 4, deaths: 1, silent_ms: 160 };
        let state =
            State { from: n1(), members: vec![n1(), identity("n2", 2)], dead: vec![verdict], facts: vec![facts] };
        // name, generation, process, address, port
        let identities = [
            b"\x02n1\x01\x11\x00\xc0\x00\x02\x01\xfb\x0a\x1f",
            b"\x02n2\x02\x12\x00\xc0\x00\x02\x02\xfb\x0a\x1f",
            b"\x02n3\x03\x13\x00\xc0\x00\x02\x03\xfb\x0a\x1f",
        ];
        let [n1, n2, n3] = identities.map(|identity| &identity[..]);
        // version, state, interfaces, wires, handicaps, keys, level, software, later
        let facts = b"\x01\x02\x00\x00\x00\x00\x01\x050.1.0\x00";
        // charge, force, version, holders, known, deaths, silent_ms
        let verdict = b"\x01\x00\x05\x02\x04\x01\xa0";
        let golden = [n1, b"\x02", n1, n2, b"\x01", n3, verdict, b"\x01", n1, facts].concat();

        assert_eq!(codec::encode_state(&state).unwrap(), golden);
        let read: State = codec::decode_state(&golden).unwrap();
        assert_eq!(
            (read.from, read.members, read.dead, read.facts),
            (state.from, state.members, state.dead, state.facts)
        );
    }
}
