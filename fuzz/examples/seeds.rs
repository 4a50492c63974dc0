//! Writes the seeds of the gossip targets: what three nodes tell each other while one of them drains, loses its speaker,
//! loses its host, comes back and leaves. Equal runs write equal files.
//!
//! `cargo run -p garpike-fuzz --example seeds` puts them into `fuzz/corpus`, as `run-*`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use garpike_announcer::wire::{self, Ethernet};
use garpike_election::{Handicap, InterfaceName, MacAddr, NodeState, Selection, Wire};
use garpike_membership::{
    Cluster, Config, FeatureLevel, Generation, Key, Path, ProcessId, Profile, Request, Sealing, SecretKey, Surroundings,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn main() -> io::Result<()> {
    let secret = SecretKey::parse(b"another").expect("is not empty");
    let mut sealed = Net::new(Key::derive(&secret, "garpike").into());
    sealed.run(Duration::from_millis(100));
    for (i, sent) in sealed.sent.iter().enumerate().step_by(7).take(4) {
        write("datagram", &format!("run-sealed-{i}"), &sent.bytes)?;
        write("wire_datagram", &format!("run-sealed-{i}"), &framed(&sent.bytes))?;
    }

    let mut net = Net::new(Sealing::InsecurePlaintext);
    for (phase, begin) in PHASES {
        net.sent.clear();
        let state = net.state(2);
        begin(&mut net);
        net.run(Duration::from_millis(900));
        write("state", &format!("run-{phase}"), &net.state(2))?;
        net.write_script(phase, &state)?;
        net.write_kinds(phase)?;
    }

    // Names of the recorded datagram, and what is done to it: see `gossip_sealed`.
    let [long, tail] = [[0x41; 900], [7; 900]];
    let sealed: [(&str, &[u8]); 12] = [
        ("own", b"\0\0\x47\x01\x02\x03\x04nonce nonce nonce nonce text tag tag tag tag"),
        ("plaintext", b"\x40\0P\x0a\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x63\x02n2"),
        ("header", b"\x01\x01nonce nonce nonce nonce text tag tag tag tag"),
        ("header-alone", b"\x81\x00"),
        ("replay", b"\x42\x04"),
        ("replay-challenge", b"\x02\x00"),
        ("replay-by-wire", b"\x82\x06"),
        ("bit-of-version", b"\x42\x05\0\0\x17"),
        ("bit-of-key", b"\x42\x05\0\x02\x01"),
        ("bit-of-tag", b"\xc2\x08\0\x46\x80"),
        ("cut", b"\x42\x07\x01"),
        ("other-tail", b"\x43\x08tag"),
    ];
    for (name, bytes) in sealed {
        write("gossip_sealed", &format!("run-{name}"), bytes)?;
    }
    write("gossip_sealed", "run-long", &[b"\x01\x02", &long[..]].concat())?;
    write("wire_datagram", "run-long", &framed(&tail))?;

    for (name, frames) in conversations() {
        write("stream", &format!("run-{name}"), &frames)?;
    }
    Ok(())
}

type Begin = fn(&mut Net);

const PHASES: [(&str, Begin); 9] = [
    ("meet", |_| {}),
    ("drain", |net| net.set_state(2, NodeState::Draining)),
    ("ready", |net| net.set_state(2, NodeState::Ready)),
    ("restart", |net| net.set_state(2, NodeState::Restarting)),
    ("links", |net| {
        let wires = BTreeMap::from([(eth0(), wire_of(2)), ("eth1".parse().expect("is a name"), wire_of(3))]);
        let interfaces = Selection::Only(wires.keys().cloned().collect());
        let handicaps = BTreeSet::from([Handicap::Late, Handicap::NoGateway]);
        let surroundings = Surroundings { wires, handicaps, ..Surroundings::new(interfaces) };
        let now = net.now;
        net.nodes.get_mut(&address(2)).expect("it runs").set_surroundings(surroundings, now);
        net.set_state(2, NodeState::Ready);
    }),
    ("speaker-gone", |net| {
        net.cut.insert(address(3));
        net.refusing.insert(address(3));
    }),
    ("host-dead", |net| net.refusing.clear()),
    ("return", |net| {
        net.cut.clear();
        net.start(3, Generation(2_000), ProcessId(13));
    }),
    ("leave", |net| {
        let now = net.now;
        net.nodes.get_mut(&address(2)).expect("it runs").leave(now);
    }),
];

struct Net {
    sealing: Sealing,
    now: Instant,
    nodes: BTreeMap<SocketAddr, Cluster>,
    /// Nobody hears them.
    cut: BTreeSet<SocketAddr>,
    /// Their hosts live although they are not heard.
    refusing: BTreeSet<SocketAddr>,
    sent: Vec<Sent>,
}

struct Sent {
    at: Instant,
    from: SocketAddr,
    to: Path,
    bytes: Vec<u8>,
}

impl Net {
    fn new(sealing: Sealing) -> Self {
        let (nodes, cut) = (BTreeMap::new(), BTreeSet::new());
        let mut net = Self { sealing, now: start(), nodes, refusing: cut.clone(), cut, sent: Vec::new() };
        for node in 1..=3 {
            net.start(node, Generation(1_000), ProcessId(node.into()));
        }
        net
    }

    fn start(&mut self, node: u8, generation: Generation, process: ProcessId) {
        let config = Config {
            local: format!("n{node}").parse().expect("is a node name"),
            generation,
            process,
            gossip: address(node),
            seeds: vec![address(1)],
            sealing: self.sealing.clone(),
            surroundings: Surroundings {
                wires: BTreeMap::from([(eth0(), wire_of(node))]),
                stations: true,
                ..Surroundings::new(Selection::All)
            },
            profile: Profile::Default,
            restart_grace: Duration::from_secs(60),
            failback: Some(Duration::from_secs(30)),
            host_ports: vec![10_250],
            spread: garpike_election::Spread::Hash,
            feature_level: FeatureLevel::CURRENT,
            later_facts: BTreeMap::new(),
        };
        self.nodes.insert(address(node), Cluster::new(config, [node; 32], self.now));
    }

    fn set_state(&mut self, node: u8, state: NodeState) {
        let now = self.now;
        self.nodes.get_mut(&address(node)).expect("it runs").set_state(state, now);
    }

    fn state(&self, node: u8) -> Vec<u8> {
        self.nodes.get(&address(node)).expect("it runs").state()
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            while self.talk() {}
            let due = self.nodes.values().filter_map(Cluster::poll_timeout).min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            let now = self.now;
            self.nodes.values_mut().for_each(|node| node.handle_timeout(now));
        }
        self.now = end;
    }

    /// Carries what there is; tells whether there was anything.
    fn talk(&mut self) -> bool {
        let (mut datagrams, mut requests) = (Vec::new(), Vec::new());
        for (addr, node) in &mut self.nodes {
            datagrams.extend(std::iter::from_fn(|| node.poll_transmit()).map(|datagram| (*addr, datagram)));
            requests.extend(std::iter::from_fn(|| node.poll_request()).map(|request| (*addr, request)));
            while node.poll_event().is_some() {}
        }
        let busy = !datagrams.is_empty() || !requests.is_empty();
        for (from, datagram) in datagrams {
            let (to, path) = match &datagram.to {
                Path::Udp(to) => (*to, Path::Udp(from)),
                Path::Wire(interface, to) => (address(last(to.0)), Path::Wire(interface.clone(), mac(last_of(from)))),
            };
            if !self.cut.contains(&from)
                && !self.cut.contains(&to)
                && let Some(node) = self.nodes.get_mut(&to)
            {
                node.handle_datagram(path, &datagram.payload, self.now);
            }
            self.sent.push(Sent { at: self.now, from, to: datagram.to, bytes: datagram.payload });
        }
        for (from, request) in requests {
            self.carry_out(from, request);
        }
        busy
    }

    fn carry_out(&mut self, from: SocketAddr, request: Request) {
        let now = self.now;
        let ours = self.nodes.get(&from).expect("it asked").state();
        let lives = |to: &SocketAddr| !self.cut.contains(to) || self.refusing.contains(to);
        match request {
            Request::ProbeHost { probe, to } => {
                if lives(&SocketAddr::new(to.ip(), 7946)) {
                    self.nodes.get_mut(&from).expect("it asked").handle_host_answer(probe, now);
                }
            }
            Request::AskStations => self.nodes.get_mut(&from).expect("it asked").handle_station_answer(now),
            Request::Exchange { with } if !self.cut.contains(&with) => {
                let Some(other) = self.nodes.get_mut(&with) else { return };
                let theirs = other.state();
                other.handle_state(&ours, now).expect("is a state");
                self.nodes.get_mut(&from).expect("it asked").handle_state(&theirs, now).expect("is a state");
            }
            Request::Exchange { .. } | Request::Reach { .. } => {}
        }
    }

    /// The first payloads of each kind that `n2` sent to `n1`, as a script for `gossip_plaintext`.
    fn write_script(&self, phase: &str, state: &[u8]) -> io::Result<()> {
        let mut script = record(0x72, Duration::ZERO, state);
        let (mut seen, mut last) = (BTreeMap::new(), None);
        for sent in self.sent.iter().filter(|sent| sent.from == address(2)) {
            let wire = match &sent.to {
                Path::Udp(to) if *to == address(1) => 0,
                Path::Wire(_, to) if *to == mac(1) => 0x80,
                Path::Udp(_) | Path::Wire(..) => continue,
            };
            let Some((kind, payload)) = self.payload(sent) else { continue };
            let count = seen.entry(kind).or_insert(0);
            *count += 1;
            if *count > 3 {
                continue;
            }
            let pause = last.map_or(Duration::ZERO, |last| sent.at.saturating_duration_since(last));
            last = Some(sent.at);
            script.extend(record(kind | wire, pause, payload));
        }
        write("gossip_plaintext", &format!("run-{phase}"), &script)
    }

    /// One datagram of each kind, as it is for each target.
    fn write_kinds(&self, phase: &str) -> io::Result<()> {
        let mut seen = BTreeSet::new();
        for sent in self.sent.iter().filter(|sent| sent.from == address(2)) {
            let Some((kind, payload)) = self.payload(sent) else { continue };
            if !seen.insert(kind) {
                continue;
            }
            let name = format!("run-{phase}-{kind}");
            if kind == 6 {
                write("facts", &name, payload)?;
            }
            if phase == "meet" || kind > 11 {
                write("message", &name, sent.bytes.get(1..).unwrap_or_default())?;
                write("datagram", &name, &sent.bytes)?;
                write("wire_datagram", &name, &framed(&sent.bytes))?;
            }
        }
        Ok(())
    }

    /// Kind and payload; all nodes have names of two bytes.
    fn payload<'a>(&self, sent: &'a Sent) -> Option<(u8, &'a [u8])> {
        let text = sent.bytes.strip_prefix(b"P")?;
        Some((*text.first()?, text.get(29..)?))
    }
}

/// A record of `gossip_plaintext`.
fn record(kind: u8, pause: Duration, text: &[u8]) -> Vec<u8> {
    let pause = u8::try_from(pause.as_millis() / 10).unwrap_or(u8::MAX);
    let [low, high] = u16::try_from(text.len()).expect("a text is short").to_le_bytes();
    [&[kind, pause, low, high], text].concat()
}

/// In a frame to the station that the target is.
fn framed(datagram: &[u8]) -> Vec<u8> {
    let ethernet = Ethernet { destination: mac(0x0b), source: mac(0x0c) };
    wire::wrap_datagram(ethernet, datagram).expect("a datagram fits into a frame")
}

/// What clients say to the server of `check_stream`, which draws its nonce from a generator of known seed.
fn conversations() -> Vec<(&'static str, Vec<u8>)> {
    let nonce: [u8; 16] = StdRng::seed_from_u64(1).random();
    let hello = |purpose: u8| {
        let hello = [&[0xc1; 16][..], &2_u64.to_be_bytes(), &2_u64.to_be_bytes(), &[purpose], b"client"].concat();
        frame(0x81, [0; 16], 0, &hello)
    };
    let (state, subscribe) = (frame(0x83, nonce, 1, b"state of the client"), frame(0x84, nonce, 1, b""));
    vec![
        ("exchange", [hello(1), state.clone()].concat()),
        ("observe", [hello(2), subscribe.clone()].concat()),
        ("reach", hello(3)),
        ("equal", hello(1)),
        ("state-for-observer", [hello(2), state.clone()].concat()),
        ("state-first", state.clone()),
        ("replayed", [hello(1), state.clone(), state.clone()].concat()),
        ("other-nonce", [hello(1), frame(0x83, [9; 16], 1, b"state")].concat()),
        ("unchanged", [hello(2), subscribe, frame(0x85, nonce, 2, b"")].concat()),
        ("cut", [hello(1), state.get(..9).unwrap_or_default().to_vec()].concat()),
        ("long", [hello(1), 0x0010_0001_u32.to_be_bytes().to_vec()].concat()),
        ("claim", vec![0, 0, 4, 0, b'P']),
        ("memberlist", vec![0, 0x83, b'a']),
        ("nothing", Vec::new()),
    ]
}

fn frame(kind: u8, to: [u8; 16], number: u64, payload: &[u8]) -> Vec<u8> {
    let envelope = [&[b'P', kind, 1], &to[..], &number.to_be_bytes(), payload].concat();
    let len = u32::try_from(envelope.len()).expect("a frame is short");
    [&len.to_be_bytes()[..], &envelope].concat()
}

fn write(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let directory = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join(name), bytes)
}

fn wire_of(node: u8) -> Wire {
    Wire { mac: mac(node), nets: BTreeSet::from(["192.0.2.0/24".parse().expect("is a prefix")]) }
}

fn eth0() -> InterfaceName {
    "eth0".parse().expect("is an interface name")
}

const fn mac(node: u8) -> MacAddr {
    MacAddr([0x02, 0x77, 0, 0, 0, node])
}

const fn address(node: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, node)), 7946)
}

fn last_of(addr: SocketAddr) -> u8 {
    match addr.ip() {
        IpAddr::V4(ip) => last(ip.octets()),
        IpAddr::V6(ip) => last(ip.octets()),
    }
}

fn last<const N: usize>(bytes: [u8; N]) -> u8 {
    bytes.last().copied().unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "virtual time needs some instant to start from")]
fn start() -> Instant {
    Instant::now()
}
