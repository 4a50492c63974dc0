//! Datagrams from somebody who holds the key.
//!
//! The codec, the session, the facts and foca are behind the seal, so only a key holder reaches them. A node and a peer
//! meet in the clear, where everything but the envelope is the same; then the input speaks in the peer's name, or in
//! any other, while the peer itself goes on. A key holder can lie about who is alive; it must not be able to stop the
//! node, have it send without bound, or make it remember more than it was told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use garpike_election::{Member, Members, NodeName};
use garpike_membership::{Cluster, Config, Sealing, Transmit, check_datagram};

use crate::gossip::{STRANGER, address, config};

/// Plays the input to a node that knows the peer as a living member.
///
/// The input is a list of records: kind (0: the text is the input's own, headers and all), how long to wait after it in
/// units of 10 ms, length of the text (two bytes, little endian), text.
///
/// # Panics
///
/// When the node fails, says more than the datagram is worth, knows more members than it was told of, or heeds a
/// malformed datagram.
pub fn gossip_plaintext(data: &[u8]) {
    let mut pair = Pair::met(data.len() / MEMBER_LEN_MIN);
    let mut rest = data;
    while let Some((&[kind, pause, len_low, len_high], after)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_le_bytes([len_low, len_high]));
        let (text, after) = after.split_at(len.min(after.len()));
        rest = after;
        if kind == 0 {
            pair.inject(STRANGER, text);
        } else {
            let text = pair.in_the_name_of_the_peer(kind, text);
            pair.inject(PEER, &text);
        }
        pair.run(Duration::from_millis(10) * u32::from(pause));
    }
    // Long enough for a suspicion to end and for facts to be asked for.
    pair.run(Duration::from_secs(1));
}

/// The node and its peer, with nothing between them: a datagram takes no time.
struct Pair {
    node: Cluster,
    peer: Cluster,
    now: Instant,
    /// The number of the last datagram in the name of the peer. The peer's own numbers are far below, within the window.
    sequence: u64,
    /// Of how many members the input can tell at most.
    told: usize,
}

impl Pair {
    /// The two, each counting the other.
    fn met(told: usize) -> Self {
        let now = crate::start();
        let node = Cluster::new(config(1, Sealing::InsecurePlaintext), [1; 32], now);
        let seeds = vec![NODE];
        let peer = Cluster::new(Config { seeds, ..config(2, Sealing::InsecurePlaintext) }, [2; 32], now);
        let mut pair = Self { node, peer, now, sequence: 900, told };
        pair.run(Duration::from_millis(10));
        let known = |cluster: &Cluster| cluster.members().nodes.len();
        assert_eq!([known(&pair.node), known(&pair.peer)], [2, 2], "the two have not met");
        pair
    }

    /// A datagram of the peer with this payload; the layout is that of `membership/src/datagram.rs`.
    fn in_the_name_of_the_peer(&mut self, kind: u8, payload: &[u8]) -> Vec<u8> {
        self.sequence += 1;
        let [to, from, sequence] = [1, 2, self.sequence].map(u64::to_be_bytes);
        [&[kind, 1], &to[..], &from, &sequence, b"\x02n2", payload].concat()
    }

    /// Brings the node a datagram of the input.
    fn inject(&mut self, from: SocketAddr, text: &[u8]) {
        let before = self.others();
        let answers = self.deliver(from, &[b"P", text].concat());
        if check_datagram(text).is_err() {
            assert_eq!(self.others(), before, "a malformed datagram changed who is alive");
            // A sender that is not proven yet is asked before its payload is read.
            assert!(answers <= 1, "{answers} answers to a malformed datagram");
        }
    }

    /// Lets time pass.
    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        let steps_max = STEPS_MAX + STEPS_PER_MEMBER * self.told;
        let mut steps = 0;
        loop {
            self.talk();
            let due = [&self.node, &self.peer].into_iter().filter_map(Cluster::poll_timeout).min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            self.node.handle_timeout(self.now);
            self.peer.handle_timeout(self.now);
            steps += 1;
            assert!(steps <= steps_max, "{steps} timers within {duration:?}");
        }
        self.now = end;
        self.check();
    }

    /// Carries datagrams between the two until neither has more to say.
    fn talk(&mut self) {
        self.bring_to_peer();
        for _ in 0..ROUNDS_MAX {
            let back: Vec<Transmit> = std::iter::from_fn(|| self.peer.poll_transmit()).collect();
            if back.is_empty() {
                return;
            }
            for datagram in back.iter().filter(|datagram| datagram.to == NODE) {
                self.deliver(PEER, &datagram.payload);
            }
        }
        panic!("the two do not stop talking");
    }

    /// Hands the node a datagram; tells how many it sends for it.
    fn deliver(&mut self, from: SocketAddr, bytes: &[u8]) -> usize {
        self.node.handle_datagram(from, bytes, self.now);
        self.bring_to_peer()
    }

    /// Looks at what the node sends, and hands the peer its part; tells how many datagrams there were.
    fn bring_to_peer(&mut self) -> usize {
        let mut sent = 0;
        while let Some(datagram) = self.node.poll_transmit() {
            sent += 1;
            let text = datagram.payload.strip_prefix(b"P").expect("it does not seal");
            assert!(text.len() <= TEXT_MAX, "a text of {} bytes", text.len());
            assert_eq!(check_datagram(text), Ok(()), "the node sends what nobody reads: {text:02x?}");
            if datagram.to == PEER {
                self.peer.handle_datagram(NODE, &datagram.payload, self.now);
            }
        }
        assert!(sent <= SENT_MAX + SENT_PER_MEMBER * self.told, "{sent} datagrams at once");
        sent
    }

    /// What holds whenever the node has been left alone for a moment.
    fn check(&mut self) {
        while self.node.poll_event().is_some() {}
        let members = self.node.members();
        assert!(members.nodes.len() <= 2 + self.told, "{} members, told of {}", members.nodes.len(), self.told);
        let conflict = || self.node.status().complaints.iter().any(|complaint| complaint.reason == "name_conflict");
        assert!(members.nodes.contains_key(&members.local) || conflict(), "the node does not count itself");
    }

    /// Who is alive besides the node itself.
    fn others(&self) -> BTreeMap<NodeName, Member> {
        let Members { local, nodes } = self.node.members();
        nodes.iter().filter(|(name, _)| *name != local).map(|(name, member)| (name.clone(), member.clone())).collect()
    }
}

const NODE: SocketAddr = address(1);
const PEER: SocketAddr = address(2);

/// The fewest bytes that name a member: name (2 bytes), generation, process, address (1 + 4 + 1), incarnation, state.
const MEMBER_LEN_MIN: usize = 12;

/// What Ethernet leaves of 1500 bytes to a datagram over IPv6 (48 bytes) and its seal (45 bytes).
const TEXT_MAX: usize = 1500 - 48 - 45;

/// How often datagrams may go to and fro at one moment; chosen: eight times the most that was seen.
const ROUNDS_MAX: usize = 32;

/// How many datagrams one input may cost; chosen: the peer's share.
const SENT_MAX: usize = 16;

/// The same for each member: the node's facts to it, and gossip about it to three others.
const SENT_PER_MEMBER: usize = 4;

/// How many timers may end within one run; chosen: three times the most that was seen.
const STEPS_MAX: usize = 500;

/// The same for each member: it is suspected, and that is held back a few times.
const STEPS_PER_MEMBER: usize = 8;
