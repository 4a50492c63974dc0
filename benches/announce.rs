//! How long does it take from the new assignment to the first frame, when thousands of addresses move at once?
//!
//! Decides whether the campaigns of all gained addresses may be begun before the first frame leaves: they may while that
//! takes less than 5 ms for 10 000 addresses; it delays each takeover.

#![expect(clippy::unwrap_used, reason = "a bench may panic on its own fixtures")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use garpike_announcer::wire::{Arp, ArpOperation, Ethernet, Message};
use garpike_announcer::{Announcer, Config, Link, LinkSet};
use garpike_election::{IfIndex, InterfaceName, MacAddr, NodeName, Selection, ServiceIp};

fn takeover(c: &mut Criterion) {
    let mut group = c.benchmark_group("announce");
    group.sample_size(20);
    let now = start();
    for gained in [1, 4_000, 10_000] {
        let owned = owned(gained);
        group.bench_function(BenchmarkId::new("from the assignment to the first frames", gained), |b| {
            b.iter_batched(
                || (heir(gained, now), owned.clone()),
                |(mut announcer, owned)| {
                    announcer.handle_owned(black_box(owned), now);
                    assert!(announcer.poll_transmit().is_some());
                    announcer
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// Decides whether the timer may be looked up after each frame: it may while that is far below the 10 us of a frame.
fn next_deadline(c: &mut Criterion) {
    let now = start();
    let mut announcer = heir(10_000, now);
    announcer.handle_owned(owned(10_000), now);
    while announcer.poll_transmit().is_some() {}
    c.bench_function("announce/deadline of 10 000 campaigns", |b| b.iter(|| black_box(&announcer).poll_timeout()));
}

/// A node that owns nothing yet. Each tenth address of the others was asked for lately.
fn heir(addresses: u32, now: Instant) -> Announcer {
    let mut announcer = Announcer::new(Config::default());
    announcer.handle_links(LinkSet { links: BTreeMap::from([(ETH0, eth0())]) }, now);
    let other = "other".parse::<NodeName>().unwrap();
    announcer.handle_elsewhere((0..addresses).map(|i| (vip(i), other.clone())).collect());
    for i in (0..addresses).step_by(10) {
        announcer.handle_frame(ETH0, &question(i), now).unwrap_err();
    }
    announcer
}

fn owned(count: u32) -> BTreeMap<ServiceIp, Selection<InterfaceName>> {
    (0..count).map(|i| (vip(i), Selection::All)).collect()
}

/// A client asks for an address.
fn question(i: u32) -> Vec<u8> {
    let client = MacAddr([2, 0, 0, 0, 1, 1]);
    let arp = Arp {
        ethernet: Ethernet { destination: MacAddr::BROADCAST, source: client },
        operation: ArpOperation::Request,
        sender_mac: client,
        sender_ip: [192, 168, 8, 200].into(),
        target_mac: MacAddr::ZERO,
        target_ip: vip(i).v4().unwrap(),
    };
    Message::Arp(arp).emit().to_vec()
}

fn vip(i: u32) -> ServiceIp {
    let [_, b, c, d] = (i + 1).to_be_bytes();
    ServiceIp::new([10, b, c, d].into()).unwrap()
}

fn eth0() -> Link {
    Link {
        name: "eth0".parse().unwrap(),
        mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
        up: true,
        carrier: true,
        carrier_ups: 1,
        loopback: false,
        no_arp: false,
        point_to_point: false,
        master: None,
        nets: vec!["192.168.8.11/22".parse().unwrap()],
        mtu: 1500,
    }
}

#[expect(clippy::disallowed_methods, reason = "virtual time needs one real instant to start from")]
fn start() -> Instant {
    Instant::now()
}

const ETH0: IfIndex = IfIndex(2);

criterion_group!(benches, takeover, next_deadline);
criterion_main!(benches);
