//! What does a member of a large cluster cost: the time of a datagram and of a change, and memory?
//!
//! Decides whether a node may do all of it in one task between two heartbeats (25 ms): at rest some 140 datagrams a second
//! arrive, a fault brings one from every member, and a join or a death computes ring and members anew. Memory decides
//! whether a thousand members fit beside the rest of a Pod. Prints the memory first; that is counted, not measured.

#![expect(clippy::unwrap_used, reason = "a bench may panic on its own fixtures")]
#![expect(clippy::print_stdout, reason = "a bench prints what it found")]

use std::alloc::System;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cap::Cap;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use garpike_election::{MacAddr, NodeState, Selection, Wire};
use garpike_membership::{
    Cluster, Config, FeatureLevel, Generation, Key, Path, ProcessId, Profile, Sealing, SecretKey, Surroundings,
};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

fn memory(_: &mut Criterion) {
    for count in [100, 1000] {
        let now = start();
        let state = state_of_all(count, &Sealing::InsecurePlaintext, now);
        let before = ALLOCATOR.allocated();
        let mut node = Cluster::new(config(0, 1, Sealing::InsecurePlaintext), [1; 32], now);
        let alone = ALLOCATOR.allocated();
        node.handle_state(&state, now).unwrap();
        drain(&mut node);
        assert_eq!(node.members().nodes.len(), usize::from(count));
        let known = ALLOCATOR.allocated();
        let per_member = (known - alone) / usize::from(count);
        println!("memory at {count} members: {per_member} bytes each, {} bytes for none", alone - before);
        println!("state at {count} members: {} bytes, {} each", state.len(), state.len() / usize::from(count));
    }
}

/// One datagram, in the clear: what the protocol itself costs.
fn handle(c: &mut Criterion) {
    let mut group = c.benchmark_group("membership/handle at 100 members");
    let mut pair = Pair::new(100, Sealing::InsecurePlaintext);
    let mut sent = pair.said(100, &Sealing::InsecurePlaintext);
    let heartbeat = sent.iter().find(|datagram| datagram.get(1) == Some(&HEARTBEAT)).unwrap();
    let header = heartbeat.get(2..28 + name(1).len()).unwrap();
    let ping = [b"P\x0a", header].concat();
    sent.push(ping);
    let dropped = pair.node.status().rejected;
    let mut sequence = 1_000_000;
    for (name, kind) in [("heartbeat", HEARTBEAT), ("ping", 10), ("facts", 6), ("swim", 3)] {
        let datagram = sent.iter().filter(|datagram| datagram.get(1) == Some(&kind)).max_by_key(|bytes| bytes.len());
        let mut datagram = datagram.unwrap_or_else(|| panic!("the peer has sent no {name}")).clone();
        group.throughput(Throughput::Bytes(datagram.len().try_into().unwrap()));
        group.bench_function(format!("{name}, {} bytes", datagram.len()), |b| {
            b.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    sequence += 1;
                    datagram.get_mut(SEQUENCE).unwrap().copy_from_slice(&u64::to_be_bytes(sequence));
                    spent += timed(|| pair.node.handle_datagram(pair.peer_addr, &datagram, pair.now));
                    drain(&mut pair.node);
                }
                spent
            });
        });
    }
    assert_eq!(pair.node.status().rejected, dropped, "a datagram was dropped");
    group.finish();
}

/// Opening: what came before is opened and dropped. Sealing: 99 members are told a state, once sealed and once in the clear.
fn sealed(c: &mut Criterion) {
    let mut group = c.benchmark_group("membership/sealed at 100 members");
    let secret = SecretKey::parse(b"bench").unwrap();
    let sealing = Sealing::from(Key::derive(&secret, "garpike"));
    for (how, sealing) in [("sealed", sealing), ("in the clear", Sealing::InsecurePlaintext)] {
        let mut pair = Pair::new(100, sealing.clone());
        let sent = pair.said(100, &sealing);
        let by_len = |bytes: &&Vec<u8>| bytes.len();
        for datagram in [sent.iter().min_by_key(by_len).unwrap(), sent.iter().max_by_key(by_len).unwrap()] {
            let name = format!("seen before, {} bytes {how}", datagram.len());
            pair.node.handle_datagram(pair.peer_addr, datagram, pair.now);
            drain(&mut pair.node);
            group.bench_function(name, |b| {
                b.iter(|| pair.node.handle_datagram(pair.peer_addr, datagram, pair.now));
            });
        }
        let mut states = [NodeState::Draining, NodeState::Ready].into_iter().cycle();
        group.bench_function(format!("tell 99 members, {how}"), |b| {
            b.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    let state = states.next().unwrap();
                    spent += timed(|| pair.node.set_state(state, pair.now));
                    let told = std::iter::from_fn(|| pair.node.poll_transmit()).count();
                    assert_eq!(told, 99, "not everybody was told");
                    drain(&mut pair.node);
                }
                spent
            });
        });
    }
    group.finish();
}

/// A member comes, and its host dies: ring, members and what is told of it.
fn change(c: &mut Criterion) {
    let mut group = c.benchmark_group("membership/change");
    group.sample_size(10);
    for count in [100, 1000] {
        let mut pair = Pair::new(count, Sealing::InsecurePlaintext);
        let (mut generation, mut sequence) = (10, 2_000_000);
        let mut change = |measured: Change, iterations: u64| {
            let mut spent = Duration::ZERO;
            for _ in 0..iterations {
                generation += 1;
                sequence += 1;
                let state =
                    Cluster::new(config(count, generation, Sealing::InsecurePlaintext), [9; 32], pair.now).state();
                let before = pair.node.members().nodes.len();
                let came = timed(|| drop(pair.node.handle_state(&state, pair.now)));
                drain(&mut pair.node);
                assert_eq!(pair.node.members().nodes.len(), before + 1);
                let notice = notice(&pair, sequence, count, generation);
                let went = timed(|| pair.node.handle_datagram(pair.peer_addr, &notice, pair.now));
                drain(&mut pair.node);
                assert_eq!(pair.node.members().nodes.len(), before);
                spent += match measured {
                    Change::Comes => came,
                    Change::Dies => went,
                };
            }
            spent
        };
        group.bench_function(BenchmarkId::new("a member comes", count), |b| {
            b.iter_custom(|iterations| change(Change::Comes, iterations));
        });
        group.bench_function(BenchmarkId::new("its host dies", count), |b| {
            b.iter_custom(|iterations| change(Change::Dies, iterations));
        });

        let now = pair.now;
        let state = state_of_all(count, &Sealing::InsecurePlaintext, now);
        group.bench_function(BenchmarkId::new("the state of all, new", count), |b| {
            let fresh = || Cluster::new(config(0, 1, Sealing::InsecurePlaintext), [1; 32], now);
            b.iter_batched(fresh, |mut node| node.handle_state(&state, now).map(|_| node), BatchSize::PerIteration);
        });
        group.bench_function(BenchmarkId::new("the state of all, known", count), |b| {
            b.iter(|| pair.node.handle_state(&state, now));
        });
    }
    group.finish();
}

#[derive(Clone, Copy)]
enum Change {
    Comes,
    Dies,
}

/// A node that knows `count` members, itself included, of which one is there.
struct Pair {
    node: Cluster,
    peer: Cluster,
    node_addr: SocketAddr,
    peer_addr: SocketAddr,
    now: Instant,
}

impl Pair {
    fn new(count: u16, sealing: Sealing) -> Self {
        let now = start();
        let all = state_of_all(count, &sealing, now);
        let mut peer = Cluster::new(config(1, 1, sealing.clone()), [2; 32], now);
        peer.handle_state(&all, now).unwrap();
        let watcher = watcher_of(count, now);
        let mut node = Cluster::new(config(watcher, 1, sealing), [1; 32], now);
        node.handle_state(&all, now).unwrap();
        let mut pair = Self { node, peer, node_addr: address(watcher), peer_addr: address(1), now };
        drain(&mut pair.node);
        for _ in 0..4 {
            pair.now += Duration::from_millis(25);
            pair.peer.handle_timeout(pair.now);
            pair.exchange();
        }
        pair
    }

    /// Both prove to each other that they live.
    fn exchange(&mut self) {
        for _ in 0..4 {
            for datagram in taken(&mut self.peer, self.node_addr) {
                self.node.handle_datagram(self.peer_addr, &datagram, self.now);
            }
            for datagram in taken(&mut self.node, self.peer_addr) {
                self.peer.handle_datagram(self.node_addr, &datagram, self.now);
            }
        }
    }

    /// What the peer says to the node in the seconds after it was told of all members, if it hears nothing. Chance decides
    /// to whom it tells how much of it, so it does so many times.
    fn said(&self, count: u16, sealing: &Sealing) -> Vec<Vec<u8>> {
        let (all, mut sent) = (state_of_all(count, sealing, self.now), Vec::new());
        for seed in 0..50 {
            let mut peer = Cluster::new(config(1, 1, sealing.clone()), [seed; 32], self.now);
            peer.handle_state(&all, self.now).unwrap();
            peer.set_state(NodeState::Draining, self.now);
            let end = self.now + Duration::from_secs(2);
            while let Some(due) = peer.poll_timeout().filter(|due| *due <= end) {
                peer.handle_timeout(due);
                sent.extend(taken(&mut peer, self.node_addr));
            }
        }
        sent
    }
}

/// The datagrams to this address; the others get lost.
fn taken(cluster: &mut Cluster, to: SocketAddr) -> Vec<Vec<u8>> {
    while cluster.poll_request().is_some() || cluster.poll_event().is_some() {}
    let all = std::iter::from_fn(|| cluster.poll_transmit());
    all.filter(|datagram| datagram.to == Path::Udp(to)).map(|datagram| datagram.payload).collect()
}

/// A node to which node 1 sends heartbeats.
fn watcher_of(count: u16, now: Instant) -> u16 {
    let mut peer = Cluster::new(config(1, 1, Sealing::InsecurePlaintext), [2; 32], now);
    peer.handle_state(&state_of_all(count, &Sealing::InsecurePlaintext, now), now).unwrap();
    peer.handle_timeout(now);
    let mut sent = std::iter::from_fn(|| peer.poll_transmit());
    let heartbeat = sent.find(|datagram| datagram.payload.get(1) == Some(&HEARTBEAT)).unwrap();
    let Path::Udp(to) = heartbeat.to else { unreachable!("heartbeats go by UDP") };
    host_of(to)
}

/// What a node knows that was told of `count` nodes.
fn state_of_all(count: u16, sealing: &Sealing, now: Instant) -> Vec<u8> {
    let mut hub = Cluster::new(config(0, 1, sealing.clone()), [3; 32], now);
    for node in 1..count {
        hub.handle_state(&Cluster::new(config(node, 1, sealing.clone()), [3; 32], now).state(), now).unwrap();
        drain(&mut hub);
    }
    hub.state()
}

/// The verdict, by the peer, that the host of `node` is dead; the layout is that of `membership/src/datagram.rs`.
fn notice(pair: &Pair, sequence: u64, node: u16, generation: u64) -> Vec<u8> {
    let number = |number: u64| [&[0xfd][..], &number.to_le_bytes()].concat();
    let [to, from, sequence] = [process(host_of(pair.node_addr)).0, process(1).0, sequence].map(u64::to_be_bytes);
    let (sender, subject) = (name(1), name(node));
    let SocketAddr::V4(gossip) = address(node) else { unreachable!("all nodes have IPv4 addresses") };
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [
        &b"P\x0d\x01"[..],
        &to,
        &from,
        &sequence,
        &text(&sender),
        &text(&subject),
        &number(generation),
        &number(process(node).0),
        &[0],
        &gossip.ip().octets(),
        &[0xfb],
        &gossip.port().to_le_bytes(),
        // Host dead, version 1, two holders of three, first death.
        &[1, 1, 2, 3, 1],
    ]
    .concat()
}

fn config(node: u16, generation: u64, sealing: Sealing) -> Config {
    let [high, low] = node.to_be_bytes();
    let wire = Wire {
        mac: MacAddr([0x02, 0x77, 0, 0, high, low]),
        nets: BTreeSet::from(["10.0.0.0/16".parse().unwrap(), "fc00:f853:ccd:e799::/64".parse().unwrap()]),
    };
    Config {
        local: name(node).parse().unwrap(),
        generation: Generation(generation),
        process: process(node),
        gossip: address(node),
        seeds: Vec::new(),
        sealing,
        surroundings: Surroundings {
            wires: BTreeMap::from([("eth0".parse().unwrap(), wire)]),
            // Nobody is declared dead by a node that hears no station.
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
    }
}

fn name(node: u16) -> String {
    format!("worker-{node:04}.example")
}

fn process(node: u16) -> ProcessId {
    ProcessId(0x4000_0000_0000_0000 + u64::from(node))
}

fn address(node: u16) -> SocketAddr {
    let [high, low] = node.to_be_bytes();
    ([10, 0, high, low], 7946).into()
}

fn host_of(addr: SocketAddr) -> u16 {
    let SocketAddr::V4(addr) = addr else { unreachable!("all nodes have IPv4 addresses") };
    let [.., high, low] = addr.ip().octets();
    u16::from_be_bytes([high, low])
}

fn drain(cluster: &mut Cluster) {
    while cluster.poll_transmit().is_some() {}
    while cluster.poll_request().is_some() || cluster.poll_event().is_some() {}
}

fn timed(run: impl FnOnce()) -> Duration {
    let began = start();
    run();
    began.elapsed()
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn start() -> Instant {
    Instant::now()
}

/// The kind of a heartbeat.
const HEARTBEAT: u8 = 9;

/// Where the sequence number of a datagram in the clear is.
const SEQUENCE: std::ops::Range<usize> = 19..27;

criterion_group!(benches, memory, handle, sealed, change);
criterion_main!(benches);
