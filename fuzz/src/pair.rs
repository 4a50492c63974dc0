//! Two nodes that know each other: one to be tried, and one in whose name anything can be said.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use garpike_election::{Member, Members, NodeName};
use garpike_membership::{Cluster, Config, Path, ProbeId, Request, Sealing, Transmit, check_datagram};

use crate::gossip::{address, config, interface, mac};

/// The node and its peer, with nothing between them: a datagram takes no time.
pub(crate) struct Pair {
    pub(crate) node: Cluster,
    pub(crate) peer: Cluster,
    pub(crate) now: Instant,
    /// Whether anything passes between the two.
    link: Link,
    /// The number of the last datagram in the name of the peer. The peer's own numbers are far below, within the window.
    sequence: u64,
    /// Of how many members the input can tell at most.
    told: usize,
    /// What the node wants to know of hosts.
    probes: Vec<ProbeId>,
    /// All that the node has sent.
    sent: Vec<Transmit>,
}

/// Whether datagrams pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Link {
    Up,
    /// The peer is not heard, and does not hear.
    Cut,
}

impl Pair {
    /// The two, each counting the other; `len` is that of the input.
    pub(crate) fn met(len: usize) -> Self {
        let now = crate::start();
        let node = Cluster::new(config(1, Sealing::InsecurePlaintext), [1; 32], now);
        let seeds = vec![NODE];
        let peer = Cluster::new(Config { seeds, ..config(2, Sealing::InsecurePlaintext) }, [2; 32], now);
        let told = len / MEMBER_LEN_MIN;
        let (probes, sent) = (Vec::new(), Vec::new());
        let mut pair = Self { node, peer, now, link: Link::Up, sequence: 900, told, probes, sent };
        pair.run(Duration::from_millis(10));
        let known = |cluster: &Cluster| cluster.members().nodes.len();
        assert_eq!([known(&pair.node), known(&pair.peer)], [2, 2], "the two have not met");
        pair
    }

    /// A datagram of the peer with this payload; the layout is that of `membership/src/datagram.rs`.
    pub(crate) fn in_the_name_of_the_peer(&mut self, kind: u8, payload: &[u8]) -> Vec<u8> {
        self.sequence += 1;
        let [to, from, sequence] = [1, 2, self.sequence].map(u64::to_be_bytes);
        [&[kind, 1], &to[..], &from, &sequence, b"\x02n2", payload].concat()
    }

    /// Brings the node a datagram of the input; gives what it sends for it.
    pub(crate) fn inject(&mut self, from: Path, text: &[u8]) -> Vec<Transmit> {
        let before = self.others();
        let answers = self.deliver(from, &[b"P", text].concat());
        if check_datagram(text).is_err() {
            assert_eq!(self.others(), before, "a malformed datagram changed who is alive");
            // A sender that is not proven yet is asked before its payload is read.
            assert!(answers.len() <= 1, "{} answers to a malformed datagram", answers.len());
        }
        answers
    }

    /// Cuts the two off from each other, or joins them again.
    pub(crate) fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    /// Answers one of the latest questions for a host, whichever it was about.
    pub(crate) fn answer_probe(&mut self, which: u8) {
        let probe = self.probes.iter().rev().nth(which.into()).copied().unwrap_or_else(|| ProbeId(which.into()));
        self.node.handle_host_answer(probe, self.now);
        self.bring_to_peer();
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, duration: Duration) {
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

    /// All that the node has sent.
    pub(crate) fn into_sent(self) -> Vec<Transmit> {
        self.sent
    }

    /// Who is alive besides the node itself.
    pub(crate) fn others(&self) -> BTreeMap<NodeName, Member> {
        let Members { local, nodes } = self.node.members();
        nodes.iter().filter(|(name, _)| *name != local).map(|(name, member)| (name.clone(), member.clone())).collect()
    }

    /// Carries datagrams between the two until neither has more to say.
    pub(crate) fn talk(&mut self) {
        self.bring_to_peer();
        for _ in 0..ROUNDS_MAX {
            let back: Vec<Transmit> = std::iter::from_fn(|| self.peer.poll_transmit()).collect();
            while self.peer.poll_request().is_some() || self.peer.poll_event().is_some() {}
            if back.is_empty() {
                return;
            }
            for datagram in back.iter().filter(|_| self.link == Link::Up).cloned().collect::<Vec<_>>() {
                if datagram.to == NODE.into() {
                    self.deliver(PEER.into(), &datagram.payload);
                } else if datagram.to == Path::Wire(interface(), mac(1)) {
                    self.deliver(Path::Wire(interface(), mac(2)), &datagram.payload);
                }
            }
        }
        panic!("the two do not stop talking");
    }

    /// Hands the node a datagram; gives what it sends for it.
    fn deliver(&mut self, from: Path, bytes: &[u8]) -> Vec<Transmit> {
        self.node.handle_datagram(from, bytes, self.now);
        let before = self.sent.len();
        self.bring_to_peer();
        self.sent.get(before..).unwrap_or_default().to_vec()
    }

    /// Looks at what the node wants, and hands the peer its part.
    pub(crate) fn bring_to_peer(&mut self) {
        let before = self.sent.len();
        while let Some(datagram) = self.node.poll_transmit() {
            let text = datagram.payload.strip_prefix(b"P").expect("it does not seal");
            assert!(text.len() <= TEXT_MAX, "a text of {} bytes", text.len());
            assert_eq!(check_datagram(text), Ok(()), "the node sends what nobody reads: {text:02x?}");
            if self.link == Link::Up {
                if datagram.to == PEER.into() {
                    self.peer.handle_datagram(NODE, &datagram.payload, self.now);
                } else if datagram.to == Path::Wire(interface(), mac(2)) {
                    self.peer.handle_datagram(Path::Wire(interface(), mac(1)), &datagram.payload, self.now);
                }
            }
            self.sent.push(datagram);
        }
        let sent = self.sent.len() - before;
        assert!(sent <= SENT_MAX + SENT_PER_MEMBER * self.told, "{sent} datagrams at once");
        let mut requests = 0;
        while let Some(request) = self.node.poll_request() {
            requests += 1;
            match request {
                Request::ProbeHost { probe, .. } => self.probes.push(probe),
                Request::AskStations | Request::Exchange { .. } | Request::Reach { .. } => {}
            }
        }
        assert!(requests <= REQUESTS_MAX + REQUESTS_PER_MEMBER * self.told, "{requests} requests at once");
        let events = std::iter::from_fn(|| self.node.poll_event()).count();
        assert!(events <= EVENTS_MAX, "{events} events at once");
    }

    /// What holds whenever the node has been left alone for a moment.
    fn check(&mut self) {
        let members = self.node.members();
        assert!(members.nodes.len() <= 2 + self.told, "{} members, told of {}", members.nodes.len(), self.told);
        let conflict = || self.node.status().complaints.iter().any(|complaint| complaint.reason == "name_conflict");
        assert!(members.nodes.contains_key(&members.local) || conflict(), "the node does not count itself");
    }
}

pub(crate) const NODE: SocketAddr = address(1);
pub(crate) const PEER: SocketAddr = address(2);

/// The fewest bytes that name a member: name (2 bytes), generation, process, address (1 + 4 + 1).
const MEMBER_LEN_MIN: usize = 10;

/// What Ethernet leaves of 1500 bytes to a datagram over IPv6 (48 bytes) and its seal (45 bytes).
const TEXT_MAX: usize = 1500 - 48 - 45;

/// How often datagrams may go to and fro at one moment; chosen: eight times the most that was seen.
const ROUNDS_MAX: usize = 32;

/// How many datagrams one moment may cost; chosen: the peer's share.
const SENT_MAX: usize = 32;

/// The same for each member: the node's facts and a verdict to it, pings, and gossip about it to three others.
const SENT_PER_MEMBER: usize = 8;

/// How many things may be wanted at one moment, and for each member: its host is probed, states are exchanged with it.
const REQUESTS_MAX: usize = 8;
const REQUESTS_PER_MEMBER: usize = 4;

/// How many events one moment may bring; chosen.
const EVENTS_MAX: usize = 16;

/// How many timers may end within one run of at most 2.55 s: heartbeats, pings and deliveries of two nodes.
const STEPS_MAX: usize = 1000;

/// The same for each member: it is suspected, watched and told what it does not acknowledge.
const STEPS_PER_MEMBER: usize = 32;
