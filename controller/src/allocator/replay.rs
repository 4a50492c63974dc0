//! What MetalLB's own tables of allocation check, as scripts of one line per step.
//!
//! `s1 = A[,B]` asks for addresses and gets them, `s1 ! A` is refused; `s1 +4`, `+6`, `+46` and `+?` (prefers both) get
//! some of these families, `s1 x4` finds none; `s1 -` gives back what it has. Options: `key=WORD/BACKEND`,
//! `port=PROTOCOL/NUMBER`, `from=POOL`, `ns=NAMESPACE`, `label=VALUE` (of the label `team`).

use garpike_controller_api::config::KeptFor;
use garpike_controller_api::{Labels, Port, Selector, SharingKey};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::*;
use crate::fixtures::{asking, kept, pool, pools, service, texts};

#[test]
fn certain_addresses() {
    let v4 = [
        "s1 = 1.2.3.4",
        "s1 = 1.2.3.4",
        "s2 ! 1.2.3.4",
        "s2 = 1.2.3.5",
        "s1 ! 1.2.3.5",
        "s1 -",
        "s2 = 1.2.3.4",
        "s1 = 1.2.3.5",
        "s3 ! 1.2.4.0",
        "s3 ! 1.2.4.255",
        "s3 = 1.2.4.254",
        "s4 = 1.2.4.3 key=sharing/backend port=TCP/80",
        "s4 = 1.2.4.3 key=share/backend port=TCP/80",
        "s3 ! 1.2.4.3 key=share/backend port=TCP/80",
        "s3 ! 1.2.4.3 key=othershare/backend port=TCP/443",
        "s3 ! 1.2.4.3 key=share/otherbackend port=TCP/443",
        "s3 = 1.2.4.3 key=share/backend port=TCP/443",
        "s3 = 1.2.4.3 key=share/backend port=UDP/53",
        "s3 ! 1.2.4.3 key=othershare/backend port=TCP/443",
        "s3 ! 1.2.4.3 key=share/otherbackend port=TCP/443",
        "s4 = 1.2.4.254",
    ];
    let to_v6 = |step: &str| step.replace("1.2.3.", "1000::").replace("1.2.4.", "1000::4:").replace("254", "ff");
    let v6 = v4.iter().filter(|step| !step.contains("1.2.4.0") && !step.contains("1.2.4.255")).map(|step| to_v6(step));
    let both = [
        "s2 -",
        "s1 = 1.2.3.4,1000::4",
        "s1 ! 1.2.4.5,1000::4",
        "s1 = 1.2.5.10 ns=one",
        "s1 ! 1.2.5.10 ns=other",
        "s1 = 1.2.6.10 ns=other label=net",
        "s1 ! 1.2.6.10 ns=other label=web",
        "s1 = 1.2.7.10 ns=one label=net",
        "s1 ! 1.2.7.10 ns=one label=web",
        "s1 ! 1.2.7.10 ns=other label=net",
    ];
    let steps: Vec<String> = v4.iter().map(|step| (*step).to_owned()).chain(v6).collect();
    let steps: Vec<&str> = steps.iter().map(String::as_str).chain(both).collect();

    let avoiding = |name: &str, ranges: &[&str]| Pool { avoid_buggy_ips: true, ..pool(name, ranges) };
    replay(
        [
            pool("test", &["1.2.3.4/31", "1000::4/127"]),
            avoiding("test2", &["1.2.4.0/24", "1000::4:0/120"]),
            kept(avoiding("test3", &["1.2.5.0/24"]), 0, &["one"]),
            labelled(kept(avoiding("test4", &["1.2.6.0/24"]), 0, &[])),
            labelled(kept(avoiding("test5", &["1.2.7.0/24"]), 20, &["one"])),
        ],
        &steps,
    );
}

#[test]
fn any_addresses_of_a_pool_and_of_all_pools() {
    let of_one_family = [
        "s1 +4",
        "s2 +4",
        "s3 +4",
        "s4 +4",
        "s5 x4",
        "s6 x4",
        "s1 -",
        "s5 +4",
        "s6 x4",
        "s5 -",
        "s5 +4 key=share/ port=TCP/80",
        "s6 +4 key=share/ port=TCP/443",
        "s1 -",
        "s2 -",
        "s3 -",
        "s4 -",
        "s5 -",
        "s6 -",
    ];
    let v6 = of_one_family.map(|step| step.replace("+4", "+6").replace("x4", "x6"));
    let dual = of_one_family.map(|step| step.replace("+4", "+46").replace("x4", "x46"));
    let mixed = [
        "s1 +4", "s2 +6", "s3 +46", "s4 +46", "s5 +46", "s6 x46", "s6 x4", "s7 x6", "s5 -", "s6 +4", "s7 +6", "s8 x46",
        "s8 x4", "s9 x6",
    ];
    let mut steps = of_one_family.map(str::to_owned).to_vec();
    steps.extend(v6.into_iter().chain(dual).chain(mixed.map(str::to_owned)));

    let small = || pool("test", &["1.2.3.4/31", "1.2.3.10/31", "1000::/127", "2000::/127"]);
    let others = [pool("a-not-this-one", &["192.168.0.0/16", "fc00::1:0/112"]), pool("test2", &["10.20.30.0/24"])];
    let from_the_pool: Vec<String> = steps.iter().map(|step| format!("{step} from=test")).collect();
    replay([vec![small()], others.to_vec()].concat(), &from_the_pool);
    // Two pools with the same addresses between them; a pair always comes from one of them.
    replay([pool("a", &["1.2.3.4/31", "1000::/127"]), pool("b", &["1.2.3.10/31", "2000::/127"])], &steps);
}

#[test]
fn a_service_of_another_family_than_before_gets_an_address_of_the_new_one() {
    replay([pool("test", &["1.2.3.4/31", "1000::/127"])], &["s1 +4", "s1 +6", "s1 +46", "s1 +4"]);
}

#[test]
fn every_address_but_the_buggy_ones() {
    let avoiding = |name: &str, range: &str| Pool { avoid_buggy_ips: true, ..pool(name, &[range]) };
    replay(
        [
            pool("test", &["1.2.3.0/31"]),
            pool("test2", &["1.2.3.254/31"]),
            avoiding("test3", "1.2.4.0/31"),
            avoiding("test4", "1.2.4.254/31"),
        ],
        &["s1 +4", "s2 +4", "s3 +4", "s4 +4", "s5 +4", "s6 +4", "s7 x4"],
    );
}

#[test]
fn a_pool_that_gives_nothing_unasked() {
    let asked = Pool { auto_assign: false, ..pool("test1", &["1.2.3.4/31", "1000::4/127"]) };
    let v4 = ["s1 +4", "s2 +4", "s3 x4", "s1 -", "s3 +4", "s2 -", "s3 -"];
    let steps: Vec<String> = v4
        .iter()
        .map(|step| (*step).to_owned())
        .chain(v4.iter().map(|step| step.replace('4', "6")))
        .chain(v4.iter().map(|step| step.replace('4', "46")))
        .chain(["s1 = 1.2.3.4", "s2 +4 from=test1", "s3 = 1.2.3.4,1000::4 from=test1 ns=other"].map(str::to_owned))
        .collect();
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    let (last, steps) = steps.split_last().unwrap();

    let all = || [asked.clone(), pool("test2", &["1.2.3.10/31", "1000::10/127"])];
    replay(all(), steps);
    replay(all(), &[*last]);
}

#[test]
fn what_becomes_of_an_address_when_the_pools_change() {
    let with = |name: &str, ranges: &[&str]| pool(name, ranges);
    let avoiding = |pool: Pool| Pool { avoid_buggy_ips: true, ..pool };
    for (pools_after, s1, s2) in [
        (vec![with("test", &["1.2.3.0/30", "1000::/126"])], Some("test"), Some("test")),
        (vec![with("test", &["1.2.3.0/24", "1000::/120"])], Some("test"), Some("test")),
        (vec![with("test", &["1.2.3.2/31", "1000::/126"])], None, Some("test")),
        (vec![with("test", &["1.2.3.0/30", "1000::2/127"])], Some("test"), None),
        (vec![with("test2", &["1.2.3.0/30", "1000::/126"])], Some("test2"), Some("test2")),
        (
            vec![with("test", &["1.2.3.0/31", "1000::2/127"]), with("test2", &["1.2.3.2/31", "1000::/127"])],
            Some("test"),
            Some("test2"),
        ),
        (vec![avoiding(with("test2", &["1.2.3.0/31", "1000::/127"]))], None, Some("test2")),
        (vec![], None, None),
    ] {
        let mut before = Allocator::new(&pools([with("test", &["1.2.3.0/30", "1000::/126"])]));
        before.assign(&asking(service("s1"), &["1.2.3.0"])).unwrap();
        before.assign(&asking(service("s2"), &["1000::"])).unwrap();

        let mut after = before.with_pools(&pools(pools_after.clone()));
        for (name, expected) in [("s1", s1), ("s2", s2)] {
            let held = after.held(&service(name).key).to_vec();
            let kept = after.keep(&service(name), &held).is_ok();
            let pool = after.pools().containing(held[0]).map(|pool| pool.name.0.as_str());
            assert_eq!(pool.filter(|_| kept), expected, "{name} in {pools_after:?}");
        }
    }
}

#[test]
fn counts_that_a_status_can_hold() {
    const MAX: i64 = i64::MAX;
    for (avoid, ranges, v4, v6) in [
        (false, &["1.2.3.0/24"][..], 256, 0),
        (false, &["1.2.3.0/24", "2.3.4.128/25"], 384, 0),
        (true, &["1.2.3.0/24", "2.3.4.128/25"], 381, 0),
        (true, &["1.2.3.0/24", "2.3.4.128/25", "1000::/64"], 381, MAX),
        (true, &["1.2.3.0/31", "1000::/127"], 1, 2),
        // Here MetalLB's sum overflows and is negative.
        (false, &["1000::/64", "2000::/120", "2001::/32"], 0, MAX),
    ] {
        let pool = Pool { avoid_buggy_ips: avoid, ..pool("p", ranges) };
        let mut allocator = Allocator::new(&pools([pool]));
        let name = PoolName("p".to_owned());
        let counts = |assigned: [i64; 2], available: [i64; 2]| IPAddressPoolStatus {
            assigned_ipv4: assigned[0],
            assigned_ipv6: assigned[1],
            available_ipv4: available[0],
            available_ipv6: available[1],
        };
        assert_eq!(allocator.counts()[&name], counts([0, 0], [v4, v6]), "{ranges:?}");

        if v4 > 1 {
            for (name, port) in [("a", "80"), ("b", "81"), ("c", "80")] {
                allocator.assign(&parse(&format!("{name} +4 key=k/ port=TCP/{port}")).1).unwrap();
            }
            assert_eq!(allocator.counts()[&name], counts([2, 0], [v4 - 2, v6]), "a and b share");
            allocator.release(&service("a").key);
            assert_eq!(allocator.counts()[&name], counts([2, 0], [v4 - 2, v6]), "b is still there");
            allocator.release(&service("b").key);
            assert_eq!(allocator.counts()[&name], counts([1, 0], [v4 - 1, v6]));
        }
    }
}

fn replay(all: impl IntoIterator<Item = Pool>, steps: &[impl AsRef<str>]) {
    let mut allocator = Allocator::new(&pools(all));
    for (at, step) in steps.iter().enumerate() {
        let (step, line) = (step.as_ref(), at + 1);
        let (verb, service) = parse(step);
        let before = allocator.held(&service.key).to_vec();
        match verb {
            Verb::Gets => {
                let ips = allocator.assign(&service).unwrap_or_else(|refusal| panic!("{line}: {step}: {refusal}"));
                assert!(fit(service.families, &ips), "{line}: {step}: {:?}", texts(&ips));
                if let Request::Addresses { ips: wanted, .. } = &service.request {
                    assert_eq!(ips, *wanted, "{line}: {step}");
                }
            }
            Verb::IsRefused => {
                assert!(allocator.assign(&service).is_err(), "{line}: {step}: {before:?}");
                assert_eq!(allocator.held(&service.key), before, "{line}: {step}");
            }
            Verb::GivesBack => drop(allocator.release(&service.key)),
        }
    }
}

#[derive(Clone, Copy)]
enum Verb {
    Gets,
    IsRefused,
    GivesBack,
}

fn parse(step: &str) -> (Verb, Service) {
    let mut words = step.split(' ');
    let mut service = service(words.next().unwrap());
    let verb = match words.next().unwrap() {
        "=" | "!" => {
            let ips: Vec<&str> = words.next().unwrap().split(',').collect();
            service = asking(service, &ips);
            if step.contains(" = ") { Verb::Gets } else { Verb::IsRefused }
        }
        "-" => Verb::GivesBack,
        families => {
            service.families = match &families[1..] {
                "4" => Families::Single(Family::V4),
                "6" => Families::Single(Family::V6),
                "46" => Families::RequireDual,
                other => panic!("{other} in {step}"),
            };
            if families.starts_with('+') { Verb::Gets } else { Verb::IsRefused }
        }
    };
    for word in words {
        let (name, value) = word.split_once('=').unwrap();
        match name {
            "key" => {
                let (word, backend) = value.split_once('/').unwrap();
                service.sharing.key = SharingKey { word: word.to_owned(), backend: backend.to_owned() };
            }
            "port" => {
                let (protocol, number) = value.split_once('/').unwrap();
                let port = Port { protocol: protocol.parse().unwrap(), number: number.parse().unwrap() };
                service.sharing.ports.insert(port);
            }
            "from" => service.pool = Some(PoolName(value.to_owned())),
            "ns" => service.key = ServiceKey::new(value, &*service.key.name),
            "label" => service.labels = Labels([("team".to_owned(), value.to_owned())].into()),
            other => panic!("{other} in {step}"),
        }
    }
    (verb, service)
}

/// The pool, for Services with the label `team=net` only.
fn labelled(pool: Pool) -> Pool {
    let selector =
        LabelSelector { match_labels: Some([("team".to_owned(), "net".to_owned())].into()), ..Default::default() };
    let kept_for = pool.kept_for.unwrap_or_default();
    let service_selectors = vec![Selector::new(&selector).unwrap()];
    Pool { kept_for: Some(KeptFor { service_selectors, ..kept_for }), ..pool }
}
