use garpike_controller_api::AddressRange;
use garpike_controller_api::config::KeptFor;
use proptest::prelude::*;

use super::*;
use crate::fixtures::{asking, ips, kept, key, pool, pools, service, sharing, texts};

#[test]
fn gives_the_lowest_address_of_the_first_range_first() {
    let pools =
        pools([pool("first-pool", &["192.168.10.0/24", "192.168.9.1-192.168.9.5", "fc00:f853:0ccd:e799::/124"])]);
    let mut allocator = Allocator::new(&pools);

    assert_eq!(assign(&mut allocator, &service("a")), Ok(vec!["192.168.10.0".to_owned()]));
    assert_eq!(assign(&mut allocator, &service("b")), Ok(vec!["192.168.10.1".to_owned()]));
    let dual = Service { families: Families::RequireDual, ..service("c") };
    assert_eq!(assign(&mut allocator, &dual), Ok(vec!["192.168.10.2".to_owned(), "fc00:f853:ccd:e799::".to_owned()]));
    allocator.release(&key("a"));
    assert_eq!(assign(&mut allocator, &service("d")), Ok(vec!["192.168.10.0".to_owned()]));
}

#[test]
fn a_huge_ipv6_block_is_no_different() {
    let mut allocator = Allocator::new(&pools([pool("p", &["2001:db8::/64"])]));
    for number in 0..1000 {
        let service = Service { families: Families::Single(Family::V6), ..service(&format!("s{number}")) };
        assert_eq!(assign(&mut allocator, &service), Ok(vec![format!("2001:db8::{number:x}").replace("::0", "::")]));
    }
    let last = asking(service("last"), &["2001:db8::ffff:ffff:ffff:ffff"]);
    assert!(allocator.assign(&last).is_ok());
}

#[test]
fn a_pool_that_avoids_buggy_addresses_gives_none_and_refuses_them() {
    let buggy = Pool { avoid_buggy_ips: true, ..pool("p", &["10.0.0.254-10.0.1.1"]) };
    let mut allocator = Allocator::new(&pools([buggy]));

    assert_eq!(assign(&mut allocator, &service("a")), Ok(vec!["10.0.0.254".to_owned()]));
    assert_eq!(assign(&mut allocator, &service("b")), Ok(vec!["10.0.1.1".to_owned()]));
    assert_eq!(
        assign(&mut allocator, &service("c")),
        Err("no free IPv4 address is left in the pool p; add a range to spec.addresses of one".to_owned())
    );
    assert_eq!(
        assign(&mut allocator, &asking(service("d"), &["10.0.1.0"])),
        Err("the pool p leaves 10.0.1.0 unused by its spec.avoidBuggyIPs".to_owned())
    );
}

#[test]
fn pools_are_tried_by_priority_and_then_by_name() {
    let all = || {
        [
            pool("b-general", &["10.0.0.0/32"]),
            pool("a-general", &["10.0.1.0/32"]),
            kept(pool("z-first", &["10.0.2.0/32"]), 1, &["default"]),
            kept(pool("y-last", &["10.0.3.0/32"]), 0, &["default"]),
            kept(pool("x-second", &["10.0.4.0/32"]), 2, &[]),
            kept(pool("w-others", &["10.0.5.0/32"]), 1, &["other"]),
            Pool { auto_assign: false, ..pool("a-asked", &["10.0.6.0/32"]) },
        ]
    };
    let mut allocator = Allocator::new(&pools(all()));
    let order: Vec<String> =
        (0..5).map(|n| assign(&mut allocator, &service(&format!("s{n}"))).unwrap().concat()).collect();

    assert_eq!(order, ["10.0.2.0", "10.0.4.0", "10.0.3.0", "10.0.1.0", "10.0.0.0"]);
    assert_eq!(
        assign(&mut allocator, &service("s5")),
        Err("no free IPv4 address is left in the pools z-first, x-second, y-last, a-general, b-general; add a range to \
             spec.addresses of one"
            .to_owned())
    );
    let named = |name: &str| Service { pool: Some(PoolName(name.to_owned())), ..service("named") };
    assert_eq!(assign(&mut allocator, &named("a-asked")), Ok(vec!["10.0.6.0".to_owned()]));
    assert_eq!(
        assign(&mut allocator, &named("w-others")),
        Err("the pool w-others is kept for other Services by its spec.serviceAllocation".to_owned())
    );
    assert_eq!(
        assign(&mut allocator, &named("nil")),
        Err("there is no usable pool nil; correct the annotation metallb.io/address-pool or the pool".to_owned())
    );
    assert_eq!(texts(allocator.held(&key("named"))), ["10.0.6.0"], "a refusal takes nothing away");
}

#[test]
fn a_pool_for_no_namespace_is_open_to_nobody() {
    let nobody = Pool {
        kept_for: Some(KeptFor { namespaces: Some(BTreeSet::new()), ..KeptFor::default() }),
        ..pool("p", &["10.0.0.0/24"])
    };
    let mut allocator = Allocator::new(&pools([nobody]));
    let refusal = Err("the pool p is kept for other Services by its spec.serviceAllocation".to_owned());

    assert_eq!(assign(&mut allocator, &asking(service("a"), &["10.0.0.1"])), refusal);
    assert_eq!(assign(&mut allocator, &Service { pool: Some(PoolName("p".to_owned())), ..service("a") }), refusal);
    assert!(allocator.assign(&service("a")).is_err());
}

#[test]
fn shares_by_key_unless_ports_clash() {
    let mut allocator = Allocator::new(&pools([pool("p", &["10.0.0.0/30"])]));
    let shared = |name: &str, word: &str, port: u16| sharing(service(name), word, &[port]);

    assert_eq!(assign(&mut allocator, &shared("a", "x", 80)), Ok(vec!["10.0.0.0".to_owned()]));
    assert_eq!(assign(&mut allocator, &shared("b", "x", 443)), Ok(vec!["10.0.0.0".to_owned()]));
    assert_eq!(assign(&mut allocator, &shared("c", "x", 80)), Ok(vec!["10.0.0.1".to_owned()]));
    assert_eq!(assign(&mut allocator, &shared("d", "y", 80)), Ok(vec!["10.0.0.2".to_owned()]));
    assert_eq!(
        assign(&mut allocator, &asking(shared("e", "x", 80), &["10.0.0.0"])),
        Err("10.0.0.0 is held by Service default/a, and both serve TCP/80".to_owned())
    );
    assert_eq!(
        assign(&mut allocator, &asking(service("e"), &["10.0.0.2"])),
        Err("10.0.0.2 is held by Service default/d, and the two have no equal metallb.io/allow-shared-ip".to_owned())
    );
    allocator.release(&key("a"));
    assert_eq!(assign(&mut allocator, &shared("e", "x", 80)), Ok(vec!["10.0.0.0".to_owned()]));
}

#[test]
fn the_only_holder_may_change_its_key() {
    let mut allocator = Allocator::new(&pools([pool("p", &["10.0.0.0/32"])]));
    assign(&mut allocator, &sharing(service("a"), "x", &[80])).unwrap();

    assert!(allocator.keep(&sharing(service("a"), "y", &[80]), &ips(&["10.0.0.0"])).is_ok());
    assert!(allocator.assign(&sharing(service("b"), "x", &[81])).is_err());
    assert!(allocator.assign(&sharing(service("b"), "y", &[81])).is_ok());
}

#[test]
fn a_service_that_prefers_both_families_takes_what_there_is() {
    let prefer = |name: &str, family| Service { families: Families::PreferDual(family), ..service(name) };
    let mut allocator = Allocator::new(&pools([
        pool("a4", &["10.0.0.0/32"]),
        pool("b46", &["10.0.1.0/32", "fc00::/128"]),
        pool("c6", &["fd00::/128"]),
    ]));

    assert_eq!(texts(&allocator.assign(&prefer("a", Family::V4)).unwrap()), ["10.0.1.0", "fc00::"]);
    assert_eq!(texts(&allocator.assign(&prefer("b", Family::V6)).unwrap()), ["fd00::"]);
    assert_eq!(texts(&allocator.assign(&prefer("c", Family::V6)).unwrap()), ["10.0.0.0"]);
    assert!(!allocator.complete(&prefer("b", Family::V6)), "the other family must come from the same pool");
    allocator.release(&key("a"));
    let half = prefer("half", Family::V4);
    allocator.keep(&half, &ips(&["10.0.1.0"])).unwrap();
    assert!(allocator.complete(&half));
    assert_eq!(texts(allocator.held(&half.key)), ["10.0.1.0", "fc00::"]);
    assert!(!allocator.complete(&half));
}

#[test]
fn says_what_a_pool_without_the_family_lacks() {
    let mut allocator = Allocator::new(&pools([pool("p", &["fc00::/120"])]));

    assert_eq!(
        assign(&mut allocator, &service("a")),
        Err("no IPv4 address is in the pool p; add a range to spec.addresses of one, or set spec.ipFamilies of the \
             Service"
            .to_owned())
    );
    assert_eq!(
        assign(&mut allocator, &asking(service("a"), &["10.0.0.1"])),
        Err("10.0.0.1 lies in no pool; the pools hold fc00::-fc00::ff of p".to_owned())
    );
}

#[test]
fn addresses_of_two_pools_are_not_one_assignment() {
    let mut allocator = Allocator::new(&pools([pool("a", &["10.0.0.0/24"]), pool("b", &["fc00::/120"])]));

    assert_eq!(
        assign(&mut allocator, &asking(service("s"), &["10.0.0.1", "fc00::1"])),
        Err("fc00::1 lies in the pool b and not in a".to_owned())
    );
    let elsewhere = Service { pool: Some(PoolName("b".to_owned())), ..asking(service("s"), &["10.0.0.1"]) };
    assert_eq!(assign(&mut allocator, &elsewhere), Err("10.0.0.1 lies in the pool a and not in b".to_owned()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The naive model walks all addresses of all pools.
    #[test]
    fn does_what_a_walk_over_all_addresses_would_do(steps in prop::collection::vec(step(), 0..60)) {
        let all = [
            pool("b", &["10.0.1.0/30", "10.0.0.9-10.0.0.10"]),
            Pool { avoid_buggy_ips: true, ..pool("a", &["10.0.3.254-10.0.4.2", "fc00::/126"]) },
            kept(pool("c", &["10.0.5.9-10.0.5.11", "fd00::1-fd00::2"]), 3, &["default"]),
            kept(pool("d", &["10.0.6.0/31"]), 1, &["other"]),
            Pool { auto_assign: false, ..pool("e", &["10.0.7.0/31", "fe00::/127"]) },
        ];
        let pools = pools(all);
        let mut allocator = Allocator::new(&pools);
        let mut model = Model { pools: &pools, holders: BTreeMap::new() };
        for step in steps {
            match step {
                Step::Assign(service) => {
                    let expected = model.assign(&service);
                    prop_assert_eq!(allocator.assign(&service).ok(), expected, "{:?}", service);
                }
                Step::Release(name) => {
                    allocator.release(&key(&name));
                    model.release(&key(&name));
                }
            }
            model.check()?;
            prop_assert_eq!(&model.holders, &holders(&allocator));
        }
        for name in 0..8 {
            allocator.release(&key(&format!("s{name}")));
        }
        prop_assert_eq!(holders(&allocator), BTreeMap::new());
        prop_assert_eq!(allocator.counts(), Allocator::new(&pools).counts());
        let mut fresh = Allocator::new(&pools);
        for name in 0..24 {
            let service = service(&format!("s{name}"));
            prop_assert_eq!(allocator.assign(&service), fresh.assign(&service), "everything is free again");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Assign(Box<Service>),
    Release(String),
}

fn step() -> impl Strategy<Value = Step> {
    let families = prop_oneof![
        Just(Families::Unspecified),
        Just(Families::Single(Family::V4)),
        Just(Families::Single(Family::V6)),
        Just(Families::PreferDual(Family::V4)),
        Just(Families::PreferDual(Family::V6)),
        Just(Families::RequireDual),
    ];
    let pool =
        prop_oneof![4 => Just(None), 1 => prop::sample::select(vec!["a", "b", "c", "d", "e", "x"]).prop_map(Some)];
    let word = prop::sample::select(vec!["", "k", "l"]);
    let name = (0..8).prop_map(|n| format!("s{n}"));
    let assign = (name.clone(), families, pool, word, 80..83_u16).prop_map(|(name, families, pool, word, port)| {
        let pool = pool.map(|name| PoolName(name.to_owned()));
        Step::Assign(Box::new(Service { families, pool, ..sharing(service(&name), word, &[port]) }))
    });
    prop_oneof![4 => assign, 1 => name.prop_map(Step::Release)]
}

struct Model<'a> {
    pools: &'a Pools,
    holders: BTreeMap<ServiceIp, BTreeMap<ServiceKey, Sharing>>,
}

impl Model<'_> {
    fn assign(&mut self, service: &Service) -> Option<Vec<ServiceIp>> {
        let before = self.holders.clone();
        let held: Vec<ServiceIp> =
            self.holders.iter().filter(|(_, holders)| holders.contains_key(&service.key)).map(|(ip, _)| *ip).collect();
        self.release(&service.key);
        let ips = self.salvage(service, &held).or_else(|| self.choose(service));
        let Some(ips) = ips else {
            self.holders = before;
            return None;
        };
        for ip in &ips {
            let sharing = if service.sharing.key.shares() { service.sharing.clone() } else { Sharing::default() };
            self.holders.entry(*ip).or_default().insert(service.key.clone(), sharing);
        }
        Some(ips)
    }

    /// What it had, as far as that is right; else nothing.
    fn salvage(&self, service: &Service, held: &[ServiceIp]) -> Option<Vec<ServiceIp>> {
        let pool = self.pools.containing(*held.first()?)?;
        let in_pool = service.pool.as_ref().is_none_or(|wanted| *wanted == pool.name);
        if !in_pool || !pool.admits(service) {
            return None;
        }
        let mine = |family: Family| {
            let clash = |ip: &ServiceIp| {
                self.holders.get(ip).into_iter().flatten().any(|(_, other)| service.sharing.clash(other).is_some())
            };
            held.iter().copied().find(|ip| Family::of(*ip) == family && !clash(ip))
        };
        let new = |family| self.first(service, pool, family);
        let (v4, v6) = (mine(Family::V4), mine(Family::V6));
        match service.families {
            // A pair is one of its forms.
            Families::Unspecified if held.len() == 2 && v4.is_some() && v6.is_some() => Some(vec![v4?, v6?]),
            Families::Unspecified => v4.or(v6).map(|ip| vec![ip]),
            Families::Single(Family::V4) => v4.map(|ip| vec![ip]),
            Families::Single(Family::V6) => v6.map(|ip| vec![ip]),
            Families::PreferDual(_) if held.len() == 1 => v4.or(v6).map(|ip| vec![ip]),
            Families::PreferDual(_) | Families::RequireDual => match (v4, v6) {
                (None, None) => None,
                (Some(v4), Some(v6)) => Some(vec![v4, v6]),
                (v4, v6) => match (v4.or_else(|| new(Family::V4)), v6.or_else(|| new(Family::V6))) {
                    (Some(v4), Some(v6)) => Some(vec![v4, v6]),
                    _ if service.families == Families::RequireDual => None,
                    (v4, v6) => v4.or(v6).map(|ip| vec![ip]),
                },
            },
        }
    }

    fn first(&self, service: &Service, pool: &Pool, family: Family) -> Option<ServiceIp> {
        let all = pool.ranges.iter().flat_map(walk);
        all.filter(|ip| Family::of(*ip) == family && !pool.avoids(*ip)).find(|ip| {
            self.holders.get(ip).into_iter().flatten().all(|(_, other)| service.sharing.clash(other).is_none())
        })
    }

    fn release(&mut self, key: &ServiceKey) {
        self.holders.retain(|_, holders| {
            holders.remove(key);
            !holders.is_empty()
        });
    }

    fn choose(&self, service: &Service) -> Option<Vec<ServiceIp>> {
        if let Some(name) = &service.pool {
            let pool = self.pools.named(name).filter(|pool| pool.admits(service))?;
            return self.choose_from(service, &[pool]);
        }
        let named = |names: &[&str]| -> Vec<&Pool> {
            names.iter().filter_map(|name| self.pools.named(&PoolName((*name).to_owned()))).collect()
        };
        self.choose_from(service, &named(&["c"])).or_else(|| self.choose_from(service, &named(&["a", "b"])))
    }

    fn choose_from(&self, service: &Service, pools: &[&Pool]) -> Option<Vec<ServiceIp>> {
        let v4 = |pool: &&Pool| self.first(service, pool, Family::V4).map(|ip| vec![ip]);
        let v6 = |pool: &&Pool| self.first(service, pool, Family::V6).map(|ip| vec![ip]);
        let both =
            |pool: &&Pool| Some(vec![self.first(service, pool, Family::V4)?, self.first(service, pool, Family::V6)?]);
        match service.families {
            Families::Unspecified | Families::Single(Family::V4) => pools.iter().find_map(v4),
            Families::Single(Family::V6) => pools.iter().find_map(v6),
            Families::RequireDual => pools.iter().find_map(both),
            Families::PreferDual(Family::V4) => {
                pools.iter().find_map(both).or_else(|| pools.iter().find_map(v4)).or_else(|| pools.iter().find_map(v6))
            }
            Families::PreferDual(Family::V6) => {
                pools.iter().find_map(both).or_else(|| pools.iter().find_map(v6)).or_else(|| pools.iter().find_map(v4))
            }
        }
    }

    /// Never an address twice unless it is shared; always inside a pool.
    fn check(&self) -> Result<(), TestCaseError> {
        for (ip, holders) in &self.holders {
            prop_assert!(self.pools.containing(*ip).is_some());
            for (key, sharing) in holders {
                prop_assert!(holders.iter().all(|(other, its)| other == key || sharing.clash(its).is_none()));
            }
        }
        Ok(())
    }
}

fn holders(allocator: &Allocator) -> BTreeMap<ServiceIp, BTreeMap<ServiceKey, Sharing>> {
    let all = allocator.pools().iter().flat_map(|pool| pool.ranges.iter().flat_map(walk));
    let held = all.map(|ip| (ip, allocator.ledger.holders(ip)));
    let holders = held.map(|(ip, of)| (ip, of.map(|one| (one.key.clone(), one.sharing.clone())).collect()));
    holders.filter(|(_, of): &(_, BTreeMap<_, _>)| !of.is_empty()).collect()
}

fn walk(range: &AddressRange) -> Vec<ServiceIp> {
    let next = |ip: &std::net::IpAddr| match ip {
        std::net::IpAddr::V4(ip) => std::net::Ipv4Addr::from_bits(ip.to_bits() + 1).into(),
        std::net::IpAddr::V6(ip) => std::net::Ipv6Addr::from_bits(ip.to_bits() + 1).into(),
    };
    let all = std::iter::successors(Some(range.first()), |ip| (*ip != range.last()).then(|| next(ip)));
    all.map(|ip| ServiceIp::new(ip).unwrap()).collect()
}

fn assign(allocator: &mut Allocator, service: &Service) -> Result<Vec<String>, String> {
    allocator.assign(service).map(|ips| texts(&ips)).map_err(|refusal| refusal.to_string())
}
