#![expect(clippy::disallowed_methods, reason = "any instant will do where time is an argument")]

use std::collections::BTreeMap;

use garpike_controller_api::config::{Families, Pool, Request, Service};
use garpike_controller_api::{Family, Sharing};

use super::*;
use crate::fixtures::{asking, ips, key, pool, pools, service, sharing, texts};

mod objects;
mod world;

#[test]
fn gives_nothing_before_it_knows_who_has_what() {
    let mut planner = Planner::default();
    planner.handle_pools(&pools([pool("p", &["10.0.0.0/31"])]), Completeness::Whole);
    planner.handle_service(&key("a"), wants(service("a")));
    assert_eq!(planner.poll_write(), None);
    assert_eq!(planner.counts(), BTreeMap::new());
    planner.handle_service(&key("b"), has(service("b"), &["10.0.0.0"], "p"));
    planner.handle_synced();

    assert_eq!(events(&mut planner), [""; 0], "nobody can see the address yet");
    assert_eq!(run(&mut planner), ["a = 10.0.0.1 p"]);
    assert_eq!(events(&mut planner), ["a IPAllocated has 10.0.0.1 from the pool p"]);
    assert_eq!(run(&mut planner), [""; 0]);
}

#[test]
fn a_restart_writes_nothing() {
    let mut planner = started(
        &[pool("p", &["10.0.0.0/30", "fc00::/126"])],
        [
            has(service("a"), &["10.0.0.2"], "p"),
            has(prefer("b"), &["10.0.0.1", "fc00::1"], "p"),
            // The order of MetalLB's second pass, when addresses were asked for.
            has(prefer("c"), &["fc00::", "10.0.0.3"], "p"),
            wants(Service { request: Request::Invalid, ..service("d") }),
        ],
    );

    assert_eq!(run(&mut planner), [""; 0]);
    assert_eq!(planner.pool_writes().len(), 1);
    let counts = planner.counts();
    for (name, status) in counts {
        planner.handle_pool_status(&name, Some(status));
    }
    assert_eq!(planner.pool_writes(), BTreeMap::new());
}

#[test]
fn an_address_is_free_for_others_only_when_nobody_sees_it_any_more() {
    let mut planner = started(
        &[pool("p", &["10.0.0.0/31"])],
        [has(service("a"), &["10.0.0.0"], "p"), has(service("b"), &["10.0.0.1"], "p")],
    );
    planner.handle_service(&key("c"), wants(service("c")));
    planner.handle_service(&key("d"), wants(asking(service("d"), &["10.0.0.0"])));
    assert_eq!(
        events(&mut planner)[1],
        "d AllocationFailed has no address: 10.0.0.0 is held by Service default/a, and the \
        two have no equal metallb.io/allow-shared-ip"
    );

    planner.handle_service(
        &key("a"),
        Observed { version: 2, wish: Wish::Nothing, ..has(service("a"), &["10.0.0.0"], "p") },
    );
    let write = planner.poll_write().unwrap();
    assert_eq!((&*write.service.name, write.addresses.len(), &write.pool), ("a", 0, &None));
    assert_eq!(planner.poll_write(), None, "until that is written, nobody is given the address");
    planner.handle_written(&write, 3);

    assert_eq!(run(&mut planner), ["c = 10.0.0.0 p"], "c waits longer than d");
    assert_eq!(planner.counts().values().next().unwrap().available_ipv4, 0);
}

#[test]
fn who_gives_an_address_up_for_another_lets_the_waiting_one_have_it() {
    let mut planner = started(&[pool("p", &["10.0.0.0/31"])], [has(service("a"), &["10.0.0.0"], "p")]);
    planner.handle_service(&key("b"), wants(asking(service("b"), &["10.0.0.0"])));
    assert_eq!(run(&mut planner), [""; 0]);
    let edited = Observed { version: 2, ..has(asking(service("a"), &["10.0.0.1"]), &["10.0.0.0"], "p") };
    planner.handle_service(&key("a"), edited);

    assert_eq!(run(&mut planner), ["a = 10.0.0.1 p", "b = 10.0.0.0 p"]);
}

#[test]
fn a_write_whose_end_nobody_knows_keeps_its_address_until_the_object_is_seen_again() {
    let mut planner = started(&[pool("p", &["10.0.0.0/31"])], [wants(service("a"))]);
    let now = Instant::now();
    let write = planner.poll_write().unwrap();
    planner.handle_failure(&write, Failure::Unknown, now);
    planner.handle_service(&key("a"), Observed { version: 1, ..wants(asking(service("a"), &["10.0.0.1"])) });
    planner.handle_service(&key("b"), wants(asking(service("b"), &["10.0.0.0"])));
    assert_eq!(run(&mut planner), [""; 0], "a pauses, and the first write may still come");
    assert!(planner.refusal(&key("b")).is_some());

    let at = planner.poll_timeout().unwrap();
    planner.handle_timeout(at);
    assert_eq!(run(&mut planner), ["a = 10.0.0.1 p", "b = 10.0.0.0 p"]);
    assert_eq!(planner.poll_timeout(), None);
}

#[test]
fn a_conflict_waits_for_the_newer_object_and_then_writes_over_that() {
    let mut planner = started(&[pool("p", &["10.0.0.0/31"])], [wants(service("a"))]);
    let write = planner.poll_write().unwrap();
    planner.handle_failure(&write, Failure::Conflict, Instant::now());
    assert_eq!(planner.poll_write(), None);
    planner.handle_service(&key("a"), Observed { version: 7, ..wants(service("a")) });
    let write = planner.poll_write().unwrap();
    assert_eq!(write.version, 7);
    // The newer object may also come before the answer.
    planner.handle_service(&key("a"), Observed { version: 9, ..wants(service("a")) });
    planner.handle_failure(&write, Failure::Conflict, Instant::now());
    assert_eq!(planner.poll_write().unwrap().version, 9);
}

#[test]
fn a_conflict_that_no_newer_object_explains_is_tried_again() {
    let mut planner = started(&[pool("p", &["10.0.0.0/31"])], [wants(service("a"))]);
    let mut at = Instant::now();
    for _ in 0..3 {
        let write = planner.poll_write().unwrap();
        planner.handle_failure(&write, Failure::Conflict, at);
        assert_eq!(planner.poll_write(), None);
        at = planner.poll_timeout().expect("nothing else may ever happen");
        planner.handle_timeout(at);
    }

    assert_eq!(events(&mut planner), [""; 0], "nothing is told of an address that was never written");
    assert_eq!(run(&mut planner), ["a = 10.0.0.0 p"]);
    assert_eq!(events(&mut planner), ["a IPAllocated has 10.0.0.0 from the pool p"]);
}

#[test]
fn who_is_throttled_waits_no_longer_each_time() {
    let pauses = |failure| {
        let mut planner = started(&[pool("p", &["10.0.0.0/31"])], [wants(service("a"))]);
        let mut at = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..4 {
            let write = planner.poll_write().unwrap();
            planner.handle_failure(&write, failure, at);
            let next = planner.poll_timeout().unwrap();
            pauses.push((next - at).as_millis());
            at = next;
            planner.handle_timeout(at);
        }
        pauses
    };

    assert_eq!(pauses(Failure::Refused), [100, 200, 400, 800]);
    assert_eq!(pauses(Failure::Throttled), [100, 100, 100, 100]);
}

#[test]
fn an_address_is_told_of_when_the_watch_shows_what_no_answer_said() {
    let mut planner = started(&[pool("p", &["10.0.0.0/31"])], [wants(service("a"))]);
    let write = planner.poll_write().unwrap();
    planner.handle_failure(&write, Failure::Unknown, Instant::now());
    planner.handle_service(&key("a"), Observed { version: 2, ..has(service("a"), &["10.0.0.0"], "p") });

    assert_eq!(events(&mut planner), ["a IPAllocated has 10.0.0.0 from the pool p"]);
}

#[test]
fn old_news_changes_nothing() {
    let mut planner = started(&[pool("p", &["10.0.0.0/31"])], [wants(service("a"))]);
    let write = planner.poll_write().unwrap();
    planner.handle_written(&write, 5);
    planner.handle_service(&key("a"), Observed { version: 4, ..wants(service("a")) });

    assert_eq!(run(&mut planner), [""; 0]);
    assert_eq!(texts(planner.addresses(&key("a"))), ["10.0.0.0"]);
}

#[test]
fn what_somebody_else_wrote_outside_our_pools_is_left_alone() {
    let foreign = Observed { author: Author::Another, from_pool: None, ..has(service("a"), &["10.9.9.9"], "p") };
    let mut planner = started(&[pool("p", &["10.0.0.0/31"])], [foreign]);
    assert_eq!(run(&mut planner), [""; 0]);
    assert_eq!(
        events(&mut planner),
        [
            "a LoadBalancerFailed has 10.9.9.9 and not what it asks for: 10.9.9.9 was written by somebody else and is left \
          alone: 10.9.9.9 lies in no pool; the pools hold 10.0.0.0-10.0.0.1 of p"
        ]
    );
    planner.handle_pools(&pools([]), Completeness::Whole);
    assert_eq!(run(&mut planner), [""; 0]);

    planner.handle_pools(&pools([pool("q", &["10.9.9.0/24"])]), Completeness::Whole);
    assert_eq!(run(&mut planner), ["a = 10.9.9.9 q"], "in a pool of ours it is ours");
}

#[test]
fn stops_after_three_overwrites_and_says_so() {
    let mut planner = started(&[pool("p", &["10.0.0.0/31"])], [wants(service("a"))]);
    let mut written = Vec::new();
    for round in 1..6_u64 {
        written.extend(run(&mut planner));
        let theirs = Observed { version: round * 10, author: Author::Another, ..has(service("a"), &["10.9.9.9"], "p") };
        planner.handle_service(&key("a"), theirs);
    }

    assert_eq!(written, ["a = 10.0.0.0 p"; 3]);
    // They are judged again with every namespace that somebody makes.
    planner.handle_pools(&pools([pool("p", &["10.0.0.0/31"])]), Completeness::Whole);
    assert_eq!(run(&mut planner), [""; 0], "the pools are what they were");
    assert!(events(&mut planner).last().unwrap().starts_with(
        "a LoadBalancerFailed has 10.9.9.9 and not what it asks for: another allocator overwrites its status"
    ));
    let elsewhere = wants(service("b"));
    planner.handle_service(&key("b"), elsewhere);
    assert_eq!(run(&mut planner), ["b = 10.0.0.0 p"], "its address is not kept for it");
}

#[test]
fn a_valid_address_that_somebody_wrote_by_hand_is_taken_over() {
    let mut planner = started(&[pool("p", &["10.0.0.0/30"])], [wants(service("a"))]);
    run(&mut planner);
    planner.handle_service(&key("a"), Observed { version: 10, ..has(service("a"), &["10.0.0.3"], "p") });

    assert_eq!(run(&mut planner), [""; 0]);
    assert_eq!(texts(planner.addresses(&key("a"))), ["10.0.0.3"]);
}

#[test]
fn a_broken_pool_costs_nobody_an_address_and_a_removed_one_does() {
    let all = [pool("p", &["10.0.0.0/31"]), pool("q", &["10.1.0.0/31"])];
    let holds = || [has(service("a"), &["10.0.0.0"], "p"), has(service("b"), &["10.1.0.0"], "q")];
    let mut planner = started(&all, holds());
    planner.handle_pools(&pools(all[1..].to_vec()), Completeness::Partial);
    assert_eq!(run(&mut planner), [""; 0]);
    assert_eq!(texts(planner.addresses(&key("a"))), ["10.0.0.0"]);

    let mut restarted = Planner::default();
    restarted.handle_pools(&pools(all[1..].to_vec()), Completeness::Partial);
    for observed in holds() {
        restarted.handle_service(&name_of(&observed), observed);
    }
    restarted.handle_synced();
    assert_eq!(run(&mut restarted), [""; 0]);

    for planner in [&mut planner, &mut restarted] {
        planner.handle_pools(&pools(all[1..].to_vec()), Completeness::Whole);
        assert_eq!(run(planner), ["a = 10.1.0.1 q"]);
        planner.handle_pools(&pools([]), Completeness::Whole);
        assert_eq!(run(planner), ["a =", "b ="]);
    }
}

#[test]
fn a_pool_that_is_renamed_changes_the_annotation_only() {
    let mut planner = started(&[pool("p", &["10.0.0.0/31"])], [has(service("a"), &["10.0.0.1"], "p")]);
    planner.handle_pools(&pools([pool("q", &["10.0.0.0/24"])]), Completeness::Whole);

    assert_eq!(run(&mut planner), ["a = 10.0.0.1 q"]);
    assert_eq!(events(&mut planner), [""; 0]);
}

#[test]
fn the_second_family_comes_when_the_pool_grows_and_goes_with_the_policy() {
    let mut planner = started(&[pool("p", &["10.0.0.0/31"])], [wants(prefer("a"))]);
    assert_eq!(run(&mut planner), ["a = 10.0.0.0 p"]);
    let grown = pools([pool("p", &["10.0.0.0/31", "fc00::/127"])]);
    planner.handle_pools(&grown, Completeness::Whole);
    assert_eq!(run(&mut planner), ["a = 10.0.0.0 fc00:: p"]);
    let single = Service { families: Families::Single(Family::V6), ..service("a") };
    planner.handle_service(&key("a"), Observed { version: 50, ..has(single, &["10.0.0.0", "fc00::"], "p") });
    assert_eq!(run(&mut planner), ["a = fc00:: p"], "what it may keep of the two it keeps");
    let all: Vec<String> = events(&mut planner).iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(all, ["IPAllocated", "IPAllocated", "ClearAssignment", "IPAllocated"]);
}

#[test]
fn a_service_that_is_gone_makes_room_for_the_longest_waiting_one_that_fits() {
    let mut planner = started(
        &[pool("p", &["10.0.0.0/32", "fc00::/128"])],
        [
            has(service("a"), &["10.0.0.0"], "p"),
            has(Service { families: Families::Single(Family::V6), ..service("b") }, &["fc00::"], "p"),
        ],
    );
    for (name, families) in
        [("z", Families::Single(Family::V6)), ("y", Families::Unspecified), ("x", Families::Unspecified)]
    {
        planner.handle_service(&key(name), wants(Service { families, ..service(name) }));
    }
    planner.handle_gone(&key("a"));
    assert_eq!(run(&mut planner), ["y = 10.0.0.0 p"]);
    planner.handle_gone(&key("b"));
    assert_eq!(run(&mut planner), ["z = fc00:: p"]);
    planner.handle_gone(&key("y"));
    assert_eq!(run(&mut planner), ["x = 10.0.0.0 p"]);
}

#[test]
fn a_shared_address_is_open_again_when_a_port_of_it_is_given_up() {
    let mut planner = started(
        &[pool("p", &["10.0.0.0/32"])],
        [has(sharing(service("a"), "k", &[80, 443]), &["10.0.0.0"], "p"), wants(sharing(service("b"), "k", &[443]))],
    );
    assert_eq!(run(&mut planner), [""; 0]);
    let edited = Observed { version: 2, ..has(sharing(service("a"), "k", &[80]), &["10.0.0.0"], "p") };
    planner.handle_service(&key("a"), edited);

    assert_eq!(run(&mut planner), ["b = 10.0.0.0 p"]);
}

#[test]
fn one_service_more_is_one_write_however_many_there_are() {
    let count = 400;
    let all = (0..count).map(|n| has(service(&format!("s{n:04}")), &[&format!("10.0.{}.{}", n / 256, n % 256)], "p"));
    let mut planner = started(&[pool("p", &["10.0.0.0/16"])], all);
    planner.handle_service(&key("new"), wants(service("new")));

    assert_eq!(run(&mut planner), ["new = 10.0.1.144 p"]);
}

fn started(all: &[Pool], observed: impl IntoIterator<Item = Observed>) -> Planner {
    let mut planner = Planner::default();
    planner.handle_pools(&pools(all.to_vec()), Completeness::Whole);
    for observed in observed {
        planner.handle_service(&name_of(&observed), observed);
    }
    planner.handle_synced();
    planner
}

fn name_of(observed: &Observed) -> ServiceKey {
    match &observed.wish {
        Wish::Addresses(service) => service.key.clone(),
        Wish::Nothing | Wish::Unknown => panic!("a Service without a name"),
    }
}

fn wants(service: Service) -> Observed {
    Observed {
        version: 1,
        addresses: vec![],
        from_pool: None,
        author: Author::Us,
        wish: Wish::Addresses(Box::new(service)),
    }
}

fn has(service: Service, addresses: &[&str], pool: &str) -> Observed {
    Observed { addresses: ips(addresses), from_pool: Some(PoolName(pool.to_owned())), ..wants(service) }
}

fn prefer(name: &str) -> Service {
    Service { families: Families::PreferDual(Family::V4), ..service(name) }
}

/// Lets every write succeed; says what was written.
fn run(planner: &mut Planner) -> Vec<String> {
    let mut written = Vec::new();
    while let Some(write) = planner.poll_write() {
        let pool = write.pool.as_ref().map(ToString::to_string);
        let words = texts(&write.addresses).into_iter().chain(pool).collect::<Vec<_>>().join(" ");
        written.push(format!("{} = {words}", write.service.name).trim_end().to_owned());
        planner.handle_written(&write, write.version + 1);
    }
    written
}

fn events(planner: &mut Planner) -> Vec<String> {
    let all = std::iter::from_fn(|| planner.poll_event());
    all.map(|event| format!("{} {} {}", event.service.name, event.reason, event.message)).collect()
}
