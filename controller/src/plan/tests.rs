use garpike_controller_api::config::{Families, Pool, PoolName, Pools, Request};
use garpike_controller_api::{Clash, Family};
use proptest::prelude::*;

use super::*;
use crate::fixtures::{asking, config, having, kept, key, pool, pools, service, sharing, texts};

#[test]
fn who_has_an_address_keeps_it_and_who_asks_goes_before_who_does_not() {
    let plan = whole(&config(
        pools([pool("p", &["10.0.0.0/29"])]),
        [
            service("a"),
            asking(service("b"), &["10.0.0.0"]),
            having(service("c"), &["10.0.0.3"], Holder::StatusFile),
            having(service("d"), &["10.0.0.1"], Holder::Object),
            service("e"),
        ],
    ));

    assert_eq!(after(&plan), ["a 10.0.0.2", "b 10.0.0.0", "c 10.0.0.3", "d 10.0.0.1", "e 10.0.0.4"]);
}

#[test]
fn of_services_with_one_address_the_older_keeps_it_and_a_manifest_goes_before_the_file() {
    let plan = whole(&config(
        pools([pool("p", &["10.0.0.0/29"])]),
        [
            having(service("a"), &["10.0.0.3"], Holder::StatusFile),
            having(service("b"), &["10.0.0.4"], Holder::StatusFile),
            having(service("c"), &["10.0.0.4"], Holder::StatusFile),
            having(service("d"), &["10.0.0.3"], Holder::Object),
            having(service("e"), &["10.0.0.3"], Holder::Object),
        ],
    ));

    assert_eq!(after(&plan), ["a 10.0.0.0", "b 10.0.0.4", "c 10.0.0.1", "d 10.0.0.3", "e 10.0.0.3"]);
    let taken = Refusal::Taken { ip: "10.0.0.3".parse().unwrap(), by: key("d"), clash: Clash::Key };
    assert_eq!(refusals(&plan), [("e".to_owned(), taken)], "what a manifest says cannot be changed here");
}

#[test]
fn a_request_that_cannot_be_met_leaves_the_address_in_place() {
    let plan = whole(&config(
        pools([pool("p", &["10.0.0.0/29"]), Pool { auto_assign: false, ..pool("q", &["10.0.1.0/32"]) }]),
        [
            having(asking(service("a"), &["10.0.0.4"]), &["10.0.0.3"], Holder::StatusFile),
            having(service("b"), &["10.0.0.4"], Holder::StatusFile),
            having(Service { request: Request::Invalid, ..service("c") }, &["10.0.0.5"], Holder::StatusFile),
            having(Service { pool: name("nil"), ..service("d") }, &["10.0.0.6"], Holder::StatusFile),
            having(Service { pool: name("q"), ..service("e") }, &["10.0.0.7"], Holder::StatusFile),
            Service { pool: name("q"), ..service("f") },
        ],
    ));

    assert_eq!(after(&plan), ["a 10.0.0.3", "b 10.0.0.4", "c 10.0.0.5", "d 10.0.0.6", "e 10.0.1.0", "f "]);
    let failed: Vec<String> = refusals(&plan).into_iter().map(|(name, _)| name).collect();
    assert_eq!(failed, ["a", "c", "d", "f"]);
}

#[test]
fn an_address_that_is_given_up_goes_to_who_waits_for_it_in_the_same_run() {
    let ask = |name: &str, wants: &str, has: &str| having(asking(service(name), &[wants]), &[has], Holder::StatusFile);
    let plan = whole(&config(
        pools([pool("p", &["10.0.0.0/29"])]),
        [ask("a", "10.0.0.2", "10.0.0.1"), ask("b", "10.0.0.3", "10.0.0.2"), ask("c", "10.0.0.4", "10.0.0.3")],
    ));

    assert_eq!(after(&plan), ["a 10.0.0.2", "b 10.0.0.3", "c 10.0.0.4"]);
    assert!(refusals(&plan).is_empty());
}

#[test]
fn an_address_that_its_pool_no_longer_allows_is_replaced() {
    let plan = whole(&config(
        pools([pool("p", &["10.0.0.0/29"]), kept(pool("q", &["10.0.1.0/29"]), 0, &["other"])]),
        [
            having(service("a"), &["10.9.9.9"], Holder::StatusFile),
            having(service("b"), &["10.0.1.1"], Holder::StatusFile),
            having(
                Service { families: Families::Single(Family::V4), ..service("c") },
                &["fc00::1"],
                Holder::StatusFile,
            ),
            having(service("d"), &["10.0.1.2"], Holder::Object),
            having(service("e"), &["10.9.9.8"], Holder::Object),
        ],
    ));

    assert_eq!(after(&plan), ["a 10.0.0.0", "b 10.0.0.1", "c 10.0.0.2", "d 10.0.1.2", "e 10.9.9.8"]);
    assert_eq!(refusals(&plan).len(), 1, "the manifest of e names an address outside every pool");
}

#[test]
fn nobody_loses_an_address_because_something_else_is_broken() {
    let mut config = config(
        pools([pool("p", &["10.0.0.0/30"])]),
        [having(service("a"), &["10.9.9.9"], Holder::StatusFile), service("b")],
    );
    config.strays.insert(key("broken"), vec!["10.0.0.0".parse().unwrap()]);

    let partial = plan(&config, Completeness::Partial);
    assert_eq!(after(&partial), ["a 10.9.9.9", "b 10.0.0.1"]);
    assert_eq!(refusals(&partial).len(), 1);
    assert_eq!(after(&whole(&config)), ["a 10.0.0.0", "b 10.0.0.1"]);
}

#[test]
fn a_service_that_prefers_both_families_gets_the_second_when_there_is_one() {
    let half = |services| config(pools([pool("p", &["10.0.0.0/30", "fc00::/128"])]), services);
    let prefer = |name: &str| Service { families: Families::PreferDual(Family::V4), ..service(name) };
    let had_one = having(prefer("b"), &["10.0.0.3"], Holder::StatusFile);

    assert_eq!(after(&whole(&half([had_one.clone(), service("c")]))), ["b 10.0.0.3 fc00::", "c 10.0.0.0"]);
    let taken = having(service("a"), &["fc00::"], Holder::StatusFile);
    let plan = whole(&half([had_one, taken]));
    assert_eq!(after(&plan), ["a fc00::", "b 10.0.0.3"]);
    assert!(refusals(&plan).is_empty(), "one family is what it is content with");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn never_gives_an_address_twice_and_changes_nothing_the_second_time(services in services(12)) {
        let config = config(small_pools(), services);
        let first = whole(&config);
        check(&config, &first)?;

        let second_config = apply(&config, &first);
        let second = whole(&second_config);
        for (key, outcome) in &second.services {
            prop_assert_eq!(&outcome.after, &first.services[key].after);
            prop_assert_eq!(outcome.refusal.is_some(), first.services[key].refusal.is_some());
        }
    }

    #[test]
    fn a_new_service_moves_no_old_one(services in services(12), newcomers in services(16)) {
        let config = config(small_pools(), services);
        let first = whole(&config);
        let mut larger = apply(&config, &first);
        for (key, newcomer) in crate::fixtures::config(small_pools(), newcomers).services {
            larger.services.entry(key).or_insert(Service { held: None, ..newcomer });
        }
        let second = whole(&larger);
        check(&larger, &second)?;
        for (key, outcome) in &first.services {
            prop_assert_eq!(&second.services[key].after, &outcome.after);
        }
    }

    #[test]
    fn a_service_that_ends_frees_its_address(count in 1..8_usize, gone in 0..8_usize) {
        let pools = || pools([pool("p", &["10.0.0.0/29"])]);
        let all: Vec<Service> = (0..8).map(|n| service(&format!("s{n}"))).collect();
        let full = apply(&config(pools(), all.clone()), &whole(&config(pools(), all)));
        prop_assert_eq!(refusals(&whole(&config(pools(), full.services.values().cloned().chain([service("t")])))).len(), 1);
        let rest = full.services.values().enumerate().filter(|(at, _)| (at + 8 - gone) % 8 >= count);
        let newcomers = (0..count).map(|n| service(&format!("t{n}")));
        let config = config(pools(), rest.map(|(_, service)| service.clone()).chain(newcomers));
        let plan = whole(&config);
        prop_assert!(refusals(&plan).is_empty());
        check(&config, &plan)?;
    }
}

fn services(count: usize) -> impl Strategy<Value = Vec<Service>> {
    let addresses = prop::sample::select(vec![
        &["10.0.0.0"][..],
        &["10.0.0.1"],
        &["10.0.0.2"],
        &["10.0.1.0"],
        &["10.0.0.1", "fc00::1"],
        &["fc00::"],
        &["10.7.7.7"],
    ]);
    let families = prop::sample::select(vec![
        Families::Unspecified,
        Families::Single(Family::V4),
        Families::Single(Family::V6),
        Families::PreferDual(Family::V4),
        Families::PreferDual(Family::V6),
        Families::RequireDual,
    ]);
    let one = (
        prop::option::weighted(0.3, addresses.clone()),
        prop::option::weighted(0.5, (addresses, prop::bool::weighted(0.8))),
        prop::option::weighted(0.2, prop::sample::select(vec!["p", "q", "r"])),
        families,
        prop::sample::select(vec!["", "k"]),
        80..82_u16,
    );
    let build = |(at, (request, held, pool, families, word, port))| {
        let mut service: Service = sharing(service(&format!("s{at}")), word, &[port]);
        service.families = families;
        service.pool = Option::<&str>::and_then(pool, name);
        if let Some(ips) = request {
            service = asking(service, ips);
        }
        match held {
            Some((ips, true)) => having(service, ips, Holder::StatusFile),
            Some((ips, false)) => having(service, ips, Holder::Object),
            None => service,
        }
    };
    prop::collection::vec(one, 0..count)
        .prop_map(move |all: Vec<_>| all.into_iter().enumerate().map(|(at, one)| build((at, one))).collect())
}

fn small_pools() -> Pools {
    pools([
        pool("p", &["10.0.0.0/30", "fc00::/127"]),
        pool("q", &["10.0.1.0/31"]),
        kept(pool("r", &["10.0.2.0/32", "fd00::/128"]), 1, &["default"]),
    ])
}

/// The configuration after the plan has been written.
fn apply(config: &Config, plan: &Plan) -> Config {
    let mut config = config.clone();
    for (key, outcome) in &plan.services {
        let service = config.services.get_mut(key).unwrap();
        let by_object = service.is_held_by(Holder::Object);
        if !by_object {
            let ips = texts(&outcome.after);
            let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
            *service = Service { held: None, ..service.clone() };
            if !ips.is_empty() {
                *service = having(service.clone(), &ips, Holder::StatusFile);
            }
        }
    }
    config
}

/// Never an address twice unless it is shared; always inside a pool that admits the Service.
fn check(config: &Config, plan: &Plan) -> Result<(), TestCaseError> {
    let mut holders: BTreeMap<ServiceIp, Vec<&Service>> = BTreeMap::new();
    for (key, outcome) in &plan.services {
        let service = &config.services[key];
        if service.is_held_by(Holder::Object) && outcome.refusal.is_some() {
            prop_assert_eq!(&outcome.before, &outcome.after);
            continue;
        }
        prop_assert!(!outcome.after.is_empty() || outcome.refusal.is_some());
        for ip in &outcome.after {
            prop_assert!(config.pools.containing(*ip).is_some());
            for other in holders.entry(*ip).or_default().iter() {
                prop_assert_eq!(service.sharing.clash(&other.sharing), None);
            }
            holders.entry(*ip).or_default().push(service);
        }
    }
    Ok(())
}

fn whole(config: &Config) -> Plan {
    plan(config, Completeness::Whole)
}

fn after(plan: &Plan) -> Vec<String> {
    plan.services.iter().map(|(key, outcome)| format!("{} {}", key.name, texts(&outcome.after).join(" "))).collect()
}

fn refusals(plan: &Plan) -> Vec<(String, Refusal)> {
    let refused = plan.services.iter().filter_map(|(key, outcome)| Some((key, outcome.refusal.clone()?)));
    refused.map(|(key, refusal)| (key.name.to_string(), refusal)).collect()
}

fn name(name: &str) -> Option<PoolName> {
    Some(PoolName(name.to_owned()))
}
