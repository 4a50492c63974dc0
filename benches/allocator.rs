//! How long does it take to give an address, and to find that there is none?
//!
//! Decides whether the allocator may stay one ordered map per question: it may while a /20 fills in 12 ms, a request on a
//! full one fails in 5 us, and a million Services get an address of a /12 in a second. MetalLB 0.16.1, which walks the
//! range, needs 12.1 s and 4.6 ms for the first two.

#![expect(clippy::unwrap_used, reason = "a bench may panic on its own fixtures")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use garpike_controller::Allocator;
use garpike_controller::planner::{Author, Completeness, Observed, Planner, Wish};
use garpike_controller_api::config::{Families, Pool, PoolName, Pools, Request, Service, TrafficPolicy};
use garpike_controller_api::{Labels, Port, Protocol, Sharing, SharingKey, Source};
use garpike_election::{Endpoints, ServiceKey};

fn single(c: &mut Criterion) {
    let mut group = c.benchmark_group("allocator");
    group.sample_size(20);
    let services: Vec<Service> = (0..4096).map(|n| service(n, "")).collect();
    group.bench_function("fill a /20", |b| {
        b.iter_batched(|| Allocator::new(&pools("10.0.0.0/20")), |all| filled(all, &services), BatchSize::LargeInput);
    });
    let mut full = filled(Allocator::new(&pools("10.0.0.0/20")), &services);
    let late = service(5000, "");
    group.bench_function("a request on a full /20", |b| b.iter(|| full.assign(black_box(&late)).unwrap_err()));

    let sharers: Vec<Service> = (0..4096).map(|n| service(n, "key")).collect();
    let mut shared = filled(Allocator::new(&pools("10.0.0.0/20")), &sharers);
    let late = service(5000, "key");
    // The only question that looks at addresses one by one: those with the key of the Service.
    group.bench_function("a request on a full /20 whose 4096 holders share by one key and port", |b| {
        b.iter(|| shared.assign(black_box(&late)).unwrap_err());
    });
    let mut full = filled(Allocator::new(&pools("10.0.0.0/20")), &services);
    let (gone, late) = (service(2000, ""), service(5000, ""));
    group.bench_function("give back and take on a full /20", |b| {
        b.iter(|| {
            full.release(&gone.key);
            full.assign(black_box(&late)).unwrap();
            full.release(&late.key);
            full.assign(black_box(&gone)).unwrap();
        });
    });
    group.finish();
}

fn million(c: &mut Criterion) {
    let mut group = c.benchmark_group("allocator");
    group.sample_size(10).measurement_time(Duration::from_secs(20)).throughput(Throughput::Elements(1_000_000));
    let services: Vec<Service> = (0..1_000_000).map(|n| service(n, "")).collect();
    group.bench_function("1 000 000 of a /12", |b| {
        b.iter_batched(|| Allocator::new(&pools("10.0.0.0/12")), |all| filled(all, &services), BatchSize::PerIteration);
    });
    group.finish();
}

fn planner(c: &mut Criterion) {
    let mut group = c.benchmark_group("planner");
    group.sample_size(20);
    let observed: Vec<(ServiceKey, Observed)> = (0..4000).map(|n| observed(service(n, ""))).collect();
    group.bench_function("start with 4000 waiting Services", |b| {
        b.iter_batched(|| observed.clone(), |all| started(all, "10.0.0.0/16"), BatchSize::LargeInput);
    });
    let mut ready = started(observed.clone(), "10.0.0.0/16");
    let (key, late) = self::observed(service(5000, ""));
    group.bench_function("one Service more and less beside 4000", |b| {
        b.iter(|| {
            ready.handle_service(&key, late.clone());
            settle(&mut ready);
            ready.handle_gone(&key);
        });
    });
    let mut full = started(observed, "10.0.0.0/22");
    let first = service(0, "").key;
    let (_, again) = self::observed(service(0, ""));
    // 2976 wait; each of them is asked when something is free, until it is not.
    group.bench_function("one Service less and more beside 2976 that wait", |b| {
        b.iter(|| {
            full.handle_gone(&first);
            settle(&mut full);
            full.handle_service(&first, again.clone());
        });
    });
    group.finish();
}

fn filled(mut allocator: Allocator, services: &[Service]) -> Allocator {
    for service in services {
        allocator.assign(service).unwrap();
    }
    allocator
}

fn started(observed: Vec<(ServiceKey, Observed)>, range: &str) -> Planner {
    let mut planner = Planner::default();
    planner.handle_pools(&pools(range), Completeness::Whole);
    for (key, observed) in observed {
        planner.handle_service(&key, observed);
    }
    planner.handle_synced();
    settle(&mut planner);
    planner
}

/// Lets every write succeed.
fn settle(planner: &mut Planner) {
    while let Some(write) = planner.poll_write() {
        planner.handle_written(&write, write.version + 1);
    }
    while planner.poll_event().is_some() {}
}

fn observed(service: Service) -> (ServiceKey, Observed) {
    let key = service.key.clone();
    let wish = Wish::Addresses(Box::new(service));
    (key, Observed { version: 1, addresses: Vec::new(), from_pool: None, author: Author::Us, wish })
}

fn pools(range: &str) -> Pools {
    let mut pools = Pools::default();
    let pool = Pool {
        name: PoolName("first-pool".to_owned()),
        labels: Labels::default(),
        ranges: vec![range.parse().unwrap()],
        auto_assign: true,
        avoid_buggy_ips: false,
        kept_for: None,
    };
    pools.insert(pool).unwrap();
    pools
}

fn service(number: u32, word: &str) -> Service {
    Service {
        key: ServiceKey::new("default", format!("service-{number:07}")),
        labels: Labels::default(),
        created: None,
        held: None,
        request: Request::Any,
        pool: None,
        families: Families::Unspecified,
        sharing: Sharing {
            key: SharingKey { word: word.to_owned(), backend: String::new() },
            ports: [Port { protocol: Protocol::Tcp, number: 80 }].into(),
        },
        chosen: None,
        traffic_policy: TrafficPolicy::Cluster,
        endpoints: Endpoints::Anywhere,
        source: Source::default(),
    }
}

criterion_group!(benches, single, million, planner);
criterion_main!(benches);
