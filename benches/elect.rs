//! How long does a death, or the end of a speaker whose host lives, take from the verdict to the new assignment?
//!
//! Decides whether `elect` may stay a plain recomputation: it may while 10 000 addresses on 100 nodes take a few
//! milliseconds (4.4 ms on one core of a small virtual machine); 50 ms would be a quarter of the failover target.

#![expect(clippy::unwrap_used, reason = "a bench may panic on its own fixtures")]

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use garpike_election::{
    Address, Desired, Elector, Endpoints, Member, Members, NodeName, NodeState, Placement, Presence, Selection,
    ServiceIp, elect,
};

fn death(c: &mut Criterion) {
    let mut group = c.benchmark_group("elect");
    group.sample_size(20);
    for (nodes, addresses) in [(3, 1_000), (3, 10_000), (100, 10_000)] {
        let desired = desired(addresses);
        let before = members(nodes);
        let mut after = before.clone();
        after.nodes.remove(&node(1));
        let mut away = before.clone();
        away.nodes.get_mut(&node(1)).unwrap().presence = Presence::Away;
        let size = format!("{nodes} nodes, {addresses} addresses");
        group.bench_function(BenchmarkId::new("first", &size), |b| b.iter(|| elect(black_box(&desired), &before)));
        let mut elector = Elector::default();
        elector.elect(&desired, &before);
        group.bench_function(BenchmarkId::new("after a death", &size), |b| {
            b.iter(|| elector.elect(black_box(&desired), &after));
        });
        group.bench_function(BenchmarkId::new("after a speaker is gone", &size), |b| {
            b.iter(|| elector.elect(black_box(&desired), &away));
        });
    }
    group.finish();
}

fn desired(addresses: u32) -> Desired {
    let everywhere = vec![Placement { nodes: Selection::All, interfaces: Selection::All }];
    let addresses = (0..addresses)
        .map(|i| {
            let [_, b, c, d] = (i + 1).to_be_bytes();
            let ip = ServiceIp::new([10, b, c, d].into()).unwrap();
            (
                ip,
                Address {
                    election_key: ip,
                    services: Box::default(),
                    placements: everywhere.clone(),
                    endpoints: Endpoints::Anywhere,
                },
            )
        })
        .collect();
    Desired { addresses, ..Desired::default() }
}

fn members(count: u32) -> Members {
    let member = Member::new(NodeState::Ready, Selection::All);
    let nodes: BTreeMap<NodeName, Member> = (0..count).map(|i| (node(i), member.clone())).collect();
    Members { local: node(0), nodes }
}

fn node(i: u32) -> NodeName {
    format!("node-{i}").parse().unwrap()
}

criterion_group!(benches, death);
criterion_main!(benches);
