//! How long does a takeover take on the processor, and how much does an answer cost besides the system calls?
//!
//! Takeover: from the members without the dead node to the first frame, 10 000 addresses on three nodes, all of them the
//! dead node's. Decides whether the plan may be recomputed whole: it may while it takes less than 5 ms. Answer: one
//! request to one reply; decides whether the responder can keep up with a minimal one in C, whose system calls take some
//! 2 us: it can while an answer costs less than 0.5 us, and the same with 10 and 10 000 addresses.

#![expect(clippy::unwrap_used, reason = "a bench may panic on its own fixtures")]

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Instant, SystemTime};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use garpike_announcer::wire::{self, Arp, ArpOperation, Ethernet, Message, NeighborSolicitation};
use garpike_announcer::{Announcer, Config, Filter, Link, LinkSet};
use garpike_election::{
    Address, Desired, Endpoints, IfIndex, InterfaceName, MacAddr, Member, Members, NodeName, NodeState, Placement,
    Selection, ServiceIp, Wire, order,
};
use garpike_speaker::Pipeline;

fn takeover(c: &mut Criterion) {
    let mut group = c.benchmark_group("takeover");
    group.sample_size(10);
    for addresses in [1000, 10_000] {
        let before = || heir(addresses);
        group.bench_function(BenchmarkId::new("members to duties", addresses), |b| {
            b.iter_batched_ref(
                before,
                |(pipeline, _)| {
                    let changes = pipeline.handle_members(members(2..=3));
                    (changes, pipeline.duties())
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function(BenchmarkId::new("duties to first frame", addresses), |b| {
            let before = || {
                let (mut pipeline, announcer) = before();
                pipeline.handle_members(members(2..=3));
                (pipeline.duties(), announcer)
            };
            b.iter_batched_ref(
                before,
                |(duties, announcer)| {
                    announcer.handle_duties(std::mem::take(duties), now());
                    announcer.poll_transmit().unwrap()
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function(BenchmarkId::new("filter and groups", addresses), |b| {
            let announcer = owner(addresses);
            b.iter(|| (Filter::new(&announcer.prefixes()), announcer.groups()));
        });
        group.bench_function(BenchmarkId::new("status", addresses), |b| {
            let announcer = owner(addresses);
            b.iter(|| announcer.status(now(), SystemTime::UNIX_EPOCH));
        });
    }
    group.finish();
}

fn answer(c: &mut Criterion) {
    let mut group = c.benchmark_group("answer");
    for addresses in [10, 10_000] {
        let mut announcer = owner(addresses);
        let requests: Vec<wire::Bytes> = ips(addresses).into_iter().map(|ip| request(ip.addr())).collect();
        let mut next = requests.iter().cycle();
        let at = now();
        group.bench_function(BenchmarkId::new("request to reply", addresses), |b| {
            b.iter(|| {
                announcer.handle_frame(ETH0, black_box(next.next().unwrap()), at).unwrap();
                announcer.poll_transmit().unwrap()
            });
        });
    }
    group.finish();
}

/// Decides whether the timer may be looked up after each frame: it may while that is far below the 10 us of a frame.
fn next_deadline(c: &mut Criterion) {
    let announcer = owner(10_000);
    c.bench_function("deadline of 10 000 campaigns", |b| b.iter(|| black_box(&announcer).poll_timeout()));
}

/// A node of three, none of whose addresses it owns: the first node does. Each tenth was asked for lately.
fn heir(addresses: u32) -> (Pipeline, Announcer) {
    let mut pipeline = Pipeline::new(node(2));
    pipeline.handle_desired(desired(addresses));
    pipeline.handle_members(members(1..=3));
    assert!(pipeline.owned().is_empty());
    let mut announcer = announcer();
    announcer.handle_duties(pipeline.duties(), now());
    for ip in ips(addresses).iter().step_by(10) {
        announcer.handle_frame(ETH0, &request(ip.addr()), now()).unwrap_err();
    }
    (pipeline, announcer)
}

fn owner(addresses: u32) -> Announcer {
    let mut announcer = announcer();
    let owned = ips(addresses).into_iter().map(|ip| (ip, Selection::All)).collect();
    announcer.handle_owned(owned, now());
    while announcer.poll_transmit().is_some() {}
    announcer
}

fn announcer() -> Announcer {
    let mut announcer = Announcer::new(Config::default());
    let link = Link::ethernet(eth0(), mac(2), vec!["192.168.8.12/22".parse().unwrap(), "fe80::2/64".parse().unwrap()]);
    announcer.handle_links(LinkSet { links: BTreeMap::from([(ETH0, link)]) }, now());
    announcer
}

fn desired(addresses: u32) -> Desired {
    let everywhere = vec![Placement { nodes: Selection::All, interfaces: Selection::All }];
    let address = |ip| Address {
        election_key: ip,
        services: Box::default(),
        placements: everywhere.clone(),
        endpoints: Endpoints::Anywhere,
    };
    Desired { addresses: ips(addresses).into_iter().map(|ip| (ip, address(ip))).collect(), ..Desired::default() }
}

/// Addresses of the first node, half of either family.
fn ips(count: u32) -> Vec<ServiceIp> {
    let nodes = [node(1), node(2), node(3)];
    let candidates = (1..).flat_map(|number: u32| {
        let v4 = IpAddr::V4(Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 64, 0, 0)) + number));
        [v4, IpAddr::V6(Ipv6Addr::from_bits(0xfd64 << 112 | u128::from(number)))]
    });
    let candidates = candidates.map(|ip| ServiceIp::new(ip).unwrap());
    candidates.filter(|ip| order(&nodes, *ip).first() == Some(&&nodes[0])).take(count.try_into().unwrap()).collect()
}

fn members(numbers: std::ops::RangeInclusive<u8>) -> Members {
    let member = |number| {
        let wire = Wire { mac: mac(number), nets: BTreeSet::from(["192.168.8.0/22".parse().unwrap()]) };
        let interfaces = Selection::Only(BTreeSet::from([eth0()]));
        Member { wires: BTreeMap::from([(eth0(), wire)]), ..Member::new(NodeState::Ready, interfaces) }
    };
    Members { local: node(2), nodes: numbers.map(|number| (node(number), member(number))).collect() }
}

fn request(ip: IpAddr) -> wire::Bytes {
    let ethernet = Ethernet { destination: mac(2), source: mac(200) };
    let message = match ip {
        IpAddr::V4(target_ip) => Message::Arp(Arp {
            ethernet,
            operation: ArpOperation::Request,
            sender_mac: mac(200),
            sender_ip: Ipv4Addr::new(192, 168, 8, 200),
            target_mac: MacAddr::ZERO,
            target_ip,
        }),
        IpAddr::V6(target) => Message::NeighborSolicitation(NeighborSolicitation {
            ethernet,
            source_ip: "fc00::200".parse().unwrap(),
            destination_ip: target,
            target,
            source_mac: Some(mac(200)),
        }),
    };
    message.emit()
}

fn node(number: u8) -> NodeName {
    format!("n{number}").parse().unwrap()
}

fn eth0() -> InterfaceName {
    "eth0".parse().unwrap()
}

fn mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, last])
}

#[expect(clippy::disallowed_methods, reason = "a bench needs some instant to start from")]
fn now() -> Instant {
    Instant::now()
}

const ETH0: IfIndex = IfIndex(2);

criterion_group!(benches, takeover, answer, next_deadline);
criterion_main!(benches);
