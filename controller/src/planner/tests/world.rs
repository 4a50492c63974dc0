//! The planner against a modelled API server: objects with versions, a watch that lags, writes that are lost, delayed or
//! refused, people who edit, and restarts at any point.

use std::collections::{BTreeSet, VecDeque};

use garpike_controller_api::config::Pools;
use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_address_is_seen_twice_lost_or_changed_without_cause(steps in prop::collection::vec(step(), 0..80)) {
        let mut world = World::new();
        for step in steps {
            world.step(step)?;
        }
        world.settle()?;
        world.check_at_rest()?;
    }

    #[test]
    fn a_change_of_one_service_moves_no_other(steps in prop::collection::vec(step(), 0..40), last in step()) {
        let mut world = World::new();
        for step in steps {
            world.step(step)?;
        }
        world.settle()?;
        let before = world.objects.clone();
        let pools_before = world.pools;
        world.step(last.clone())?;
        world.settle()?;
        world.check_at_rest()?;
        for (key, object) in &before {
            let touched = matches!(&last, Step::Apply(at, _) | Step::Delete(at) | Step::Retype(at) if name(*at) == *key);
            if touched || world.pools != pools_before || object.addresses.is_empty() {
                continue;
            }
            let after = &world.objects[key].addresses;
            // A Service that asks for what has become free gets it.
            let asked = matches!(&object.service.request, Request::Addresses { ips, .. } if ips == after);
            let in_asked_pool = object.service.pool.is_some();
            prop_assert!(
                asked || in_asked_pool || object.addresses.iter().all(|ip| after.contains(ip)),
                "{key}: {:?} became {after:?} by {last:?}", object.addresses
            );
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Somebody makes or edits a Service.
    Apply(u8, Box<Service>),
    Delete(u8),
    /// Somebody makes it another type.
    Retype(u8),
    Pools(u8),
    /// The watch tells the next change.
    Watch,
    /// The planner begins a write.
    Begin,
    /// The server does the oldest write that it has not done, and the answer arrives or is lost.
    Do {
        answer_arrives: bool,
    },
    /// The answer says that nobody knows, while the write stays under way.
    TimeOut,
    /// Pauses end.
    Wait,
    /// The process is killed and another one starts, with the writes of the first done or lost.
    Restart {
        done: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let apply = (0..7_u8, spec()).prop_map(|(at, service)| {
        let key = name(at);
        // Those with high numbers share, with a port each, the others never.
        let sharer = at >= 5;
        let service = Service { key, ..service };
        let service = if sharer { sharing(service, "k", &[u16::from(at)]) } else { service };
        Step::Apply(at, Box::new(service))
    });
    prop_oneof![
        6 => apply,
        2 => (0..7_u8).prop_map(Step::Delete),
        1 => (0..7_u8).prop_map(Step::Retype),
        1 => (0..4_u8).prop_map(Step::Pools),
        8 => Just(Step::Watch),
        6 => Just(Step::Begin),
        6 => prop::bool::weighted(0.8).prop_map(|answer_arrives| Step::Do { answer_arrives }),
        1 => Just(Step::TimeOut),
        1 => Just(Step::Wait),
        1 => any::<bool>().prop_map(|done| Step::Restart { done }),
    ]
}

fn spec() -> impl Strategy<Value = Service> {
    let families = prop::sample::select(vec![
        Families::Unspecified,
        Families::Single(Family::V4),
        Families::Single(Family::V6),
        Families::PreferDual(Family::V4),
        Families::PreferDual(Family::V6),
        Families::RequireDual,
    ]);
    let request = prop::option::weighted(
        0.3,
        prop::sample::select(vec!["10.0.0.0", "10.0.0.1", "10.0.1.0", "fc00::", "10.7.7.7"]),
    );
    let pool = prop::option::weighted(0.15, prop::sample::select(vec!["p", "q"]));
    (families, request, pool).prop_map(|(families, request, pool)| {
        let service = Service { families, pool: pool.map(|name| PoolName(name.to_owned())), ..service("x") };
        match request {
            Some(ip) => asking(service, &[ip]),
            None => service,
        }
    })
}

fn all_pools(number: u8) -> Pools {
    pools(match number {
        0 => vec![pool("p", &["10.0.0.0/30", "fc00::/127"]), pool("q", &["10.0.1.0/31"])],
        1 => vec![pool("p", &["10.0.0.0/31", "fc00::/128"]), pool("q", &["10.0.1.0/31"])],
        2 => vec![pool("r", &["10.0.0.0/30", "fc00::/126"])],
        _ => vec![Pool { avoid_buggy_ips: true, ..pool("p", &["10.0.0.0/29", "fc00::/127"]) }],
    })
}

fn name(at: u8) -> ServiceKey {
    key(&format!("s{at}"))
}

#[derive(Clone, Debug)]
struct Object {
    version: u64,
    service: Service,
    is_load_balancer: bool,
    addresses: Vec<ServiceIp>,
    from_pool: Option<PoolName>,
}

struct World {
    clock: Instant,
    version: u64,
    pools: u8,
    objects: BTreeMap<ServiceKey, Object>,
    /// What the watch has not told yet.
    news: VecDeque<(ServiceKey, Option<Object>)>,
    /// Writes that the server has not done, and whether the planner still waits for their answer.
    writes: VecDeque<(Write, bool)>,
    planner: Planner,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            clock: Instant::now(),
            version: 0,
            pools: 0,
            objects: BTreeMap::new(),
            news: VecDeque::new(),
            writes: VecDeque::new(),
            planner: Planner::default(),
        };
        world.start();
        world
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Apply(at, service) => {
                let version = self.next_version();
                let object = self.objects.entry(name(at)).or_insert_with(|| Object {
                    version,
                    service: (*service).clone(),
                    is_load_balancer: true,
                    addresses: vec![],
                    from_pool: None,
                });
                (object.version, object.service, object.is_load_balancer) = (version, *service, true);
                self.news.push_back((name(at), Some(object.clone())));
            }
            Step::Delete(at) => {
                if self.objects.remove(&name(at)).is_some() {
                    self.news.push_back((name(at), None));
                }
            }
            Step::Retype(at) => {
                let version = self.next_version();
                if let Some(object) = self.objects.get_mut(&name(at)) {
                    (object.version, object.is_load_balancer) = (version, false);
                    self.news.push_back((name(at), Some(object.clone())));
                }
            }
            Step::Pools(number) => {
                self.pools = number;
                self.planner.handle_pools(&all_pools(number), Completeness::Whole);
            }
            Step::Watch => {
                if let Some((key, object)) = self.news.pop_front() {
                    match object {
                        Some(object) => self.planner.handle_service(&key, observe(&object)),
                        None => self.planner.handle_gone(&key),
                    }
                }
            }
            Step::Begin => {
                if let Some(write) = self.planner.poll_write() {
                    self.writes.push_back((write, true));
                }
            }
            Step::Do { answer_arrives } => {
                if let Some((write, awaited)) = self.writes.pop_front() {
                    let result = self.write(&write)?;
                    match (awaited, answer_arrives, result) {
                        (false, _, _) => {}
                        (true, false, _) => self.planner.handle_failure(&write, Failure::Unknown, self.clock),
                        (true, true, Some(version)) => self.planner.handle_written(&write, version),
                        (true, true, None) => self.planner.handle_failure(&write, Failure::Conflict, self.clock),
                    }
                }
            }
            Step::TimeOut => {
                let clock = self.clock;
                if let Some((write, awaited)) = self.writes.iter_mut().find(|(_, awaited)| *awaited) {
                    *awaited = false;
                    self.planner.handle_failure(write, Failure::Unknown, clock);
                }
            }
            Step::Wait => {
                self.clock += Duration::from_secs(60);
                self.planner.handle_timeout(self.clock);
            }
            Step::Restart { done } => {
                while let Some((write, _)) = self.writes.pop_front() {
                    if done {
                        self.write(&write)?;
                    }
                }
                self.start();
            }
        }
        Ok(())
    }

    /// A new planner, which lists before it watches.
    fn start(&mut self) {
        self.news.clear();
        self.planner = Planner::default();
        for (key, object) in &self.objects {
            self.planner.handle_service(key, observe(object));
        }
        self.planner.handle_pools(&all_pools(self.pools), Completeness::Whole);
        self.planner.handle_synced();
    }

    /// What the API server does with a write.
    fn write(&mut self, write: &Write) -> Result<Option<u64>, TestCaseError> {
        let version = self.next_version();
        let Some(object) = self.objects.get_mut(&write.service).filter(|object| object.version == write.version) else {
            return Ok(None);
        };
        object.version = version;
        object.addresses.clone_from(&write.addresses);
        object.from_pool.clone_from(&write.pool);
        self.news.push_back((write.service.clone(), Some(object.clone())));
        self.check_exclusive(&write.service)?;
        Ok(Some(version))
    }

    /// No two Services show one address, but for those that share.
    fn check_exclusive(&self, key: &ServiceKey) -> Result<(), TestCaseError> {
        let object = &self.objects[key];
        for (other_key, other) in self.objects.iter().filter(|(other, _)| *other != key) {
            for ip in object.addresses.iter().filter(|ip| other.addresses.contains(ip)) {
                let both: [&Sharing; 2] = [&object.service.sharing, &other.service.sharing];
                prop_assert_eq!(both[0].clash(both[1]), None, "{} of {} and {}", ip, key, other_key);
            }
        }
        Ok(())
    }

    /// Lets everything happen that can, in order and without losses.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..2_000 {
            self.step(Step::Wait)?;
            while !self.news.is_empty() {
                self.step(Step::Watch)?;
            }
            self.step(Step::Begin)?;
            if self.writes.is_empty() && self.news.is_empty() && self.planner.poll_timeout().is_none() {
                return Ok(());
            }
            self.step(Step::Do { answer_arrives: true })?;
        }
        Err(TestCaseError::fail("does not come to rest"))
    }

    /// At rest: nothing is shown that is wrong, nobody waits who could be served, and a restart writes nothing.
    fn check_at_rest(&mut self) -> Result<(), TestCaseError> {
        let pools = all_pools(self.pools);
        for (key, object) in &self.objects {
            self.check_exclusive(key)?;
            prop_assert!(object.is_load_balancer || object.addresses.is_empty());
            let in_pools: BTreeSet<Option<&PoolName>> =
                object.addresses.iter().map(|ip| pools.containing(*ip).map(|pool| &pool.name)).collect();
            prop_assert!(in_pools.len() <= 1 && !in_pools.contains(&None), "{key} {:?}", object.addresses);
            prop_assert_eq!(object.from_pool.as_ref(), in_pools.first().copied().flatten());
            if object.is_load_balancer && object.addresses.is_empty() {
                let mut allocator = Allocator::new(&pools);
                for (key, other) in &self.objects {
                    let fresh = Service { request: Request::Any, ..other.service.clone() };
                    prop_assert!(
                        other.addresses.is_empty() || allocator.adopt(&fresh, &other.addresses).is_ok(),
                        "{key}"
                    );
                }
                prop_assert!(allocator.assign(&object.service).is_err(), "{key} waits and could be served");
                prop_assert!(self.planner.refusal(key).is_some(), "{key}");
            }
        }
        self.start();
        prop_assert_eq!(self.planner.poll_write(), None, "a restart writes nothing");
        Ok(())
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }
}

fn observe(object: &Object) -> Observed {
    let service = Box::new(object.service.clone());
    Observed {
        version: object.version,
        addresses: object.addresses.clone(),
        from_pool: object.from_pool.clone(),
        author: Author::Us,
        wish: if object.is_load_balancer { Wish::Addresses(service) } else { Wish::Nothing },
    }
}
