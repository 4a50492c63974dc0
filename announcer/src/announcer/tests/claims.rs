//! Several nodes and strangers on a segment: handing over, conflicts, heals, probes, self-check.

use super::segment::{Segment, World, mac, name};
use super::*;
use crate::duties::Standing;

const V4: &str = "192.168.10.1";
const V6: &str = "fc00::10:1";

// --- Handing over

#[test]
fn a_handed_over_address_is_answered_all_the_time_and_by_two_for_no_time() {
    for text in [V4, V6] {
        for first in [0, 1] {
            let (mut segment, world) = owned_by_node_0(&[text]);
            let moved = world.clone().owned_by(text, 1);

            segment.set(first, moved.duties(first));
            for _ in 0..30 {
                let told = segment.ask(text);
                let expected = if first == 0 { BTreeSet::from([mac(0)]) } else { BTreeSet::from([mac(0), mac(1)]) };
                assert_eq!(told, expected, "only node {first} knows of the move");
                segment.run_for(1);
            }
            segment.set(1 - first, moved.duties(1 - first));
            assert_eq!(segment.ask(text), BTreeSet::from([mac(1)]), "both know");
            segment.run_for(5000);
            assert_eq!(segment.ask(text), BTreeSet::from([mac(1)]));
        }
    }
}

#[test]
fn nothing_is_announced_for_an_address_that_is_handed_over_and_filter_and_groups_still_cover_it() {
    let (mut segment, world) = owned_by_node_0(&[V4, V6]);
    let since = segment.now;
    segment.set(0, world.owned_by(V4, 1).owned_by(V6, 1).duties(0));
    segment.run_for(500);

    assert_eq!(segment.sent(0, FrameKind::Announcement, since), []);
    assert_eq!(segment.cores[0].prefixes().v4.len() + segment.cores[0].prefixes().v6.len(), 2);
    assert_eq!(segment.cores[0].groups().len(), 1);
    assert_eq!(segment.status(0).handed_over[&ip(V4)], name(1));
    segment.run_for(600);
    assert!(segment.status(0).handed_over.is_empty());
    assert_eq!(segment.cores[0].groups(), BTreeSet::new());
}

#[test]
fn an_address_that_the_new_owner_does_not_claim_is_given_up_after_a_second() {
    let (mut segment, world) = owned_by_node_0(&[V4]);
    segment.set(0, world.owned_by(V4, 1).duties(0));

    segment.run_for(999);
    assert_eq!(segment.ask(V4), BTreeSet::from([mac(0)]));
    segment.run_for(1);
    assert_eq!(segment.ask(V4), BTreeSet::new());
    segment.deliver();
    assert_eq!(segment.events_of(0), [Event::HandedOver { claimed: 0, given_up: 1 }]);
}

#[test]
fn an_answer_of_the_new_owner_to_somebody_else_counts_and_a_claim_of_a_third_does_not() {
    let (mut segment, world) = owned_by_node_0(&[V4]);
    segment.set(0, world.owned_by(V4, 1).duties(0));
    let reply = |node| {
        let Message::Arp(reply) = answer(mac(node), MacAddr::BROADCAST) else { unreachable!("an answer is ARP") };
        Message::Arp(Arp { sender_ip: v4(V4), ..reply })
    };

    segment.send(0, &reply(2), None);
    assert_eq!(segment.ask(V4), BTreeSet::from([mac(0)]));
    segment.send(0, &reply(1), None);
    assert_eq!(segment.ask(V4), BTreeSet::new());
    segment.deliver();
    assert_eq!(segment.events_of(0), [Event::HandedOver { claimed: 1, given_up: 0 }]);
}

#[test]
fn what_is_handed_over_follows_the_duties() {
    let (mut segment, world) = owned_by_node_0(&[V4]);
    let moved = world.clone().owned_by(V4, 1);
    segment.set(0, moved.duties(0));

    segment.set(0, moved.clone().with(1, Standing::Dead).owned_by(V4, 2).duties(0));
    segment.run_for(999);
    assert_eq!(segment.ask(V4), BTreeSet::from([mac(0)]), "the next one is here");
    segment.set(0, moved.clone().with(1, Standing::Dead).duties(0));
    assert_eq!(segment.ask(V4), BTreeSet::new(), "the new owner is not here");

    segment.set(0, world.duties(0));
    let since = segment.now;
    segment.set(0, moved.duties(0));
    segment.set(0, world.duties(0));
    segment.run_for(100);
    assert_eq!(segment.ask(V4), BTreeSet::from([mac(0)]));
    assert!(!segment.sent(0, FrameKind::Announcement, since).is_empty(), "it is back, and others may have claimed it");

    segment.set(0, World::new(3, &[]).duties(0));
    assert_eq!(segment.ask(V4), BTreeSet::new(), "no Service holds it");
}

#[test]
fn the_address_of_an_owner_that_is_given_up_is_answered_until_its_heir_claims_it() {
    let mut segment = Segment::of(3);
    let away = World::new(3, &[(V4, 2)]).with(2, Standing::Away);
    segment.set_all(&away);
    segment.part[2] = 1;
    assert_eq!(segment.ask(V4), BTreeSet::from([mac(2)]));

    let given_up = away.with(2, Standing::Dead).owned_by(V4, 1);
    segment.set(0, given_up.duties(0));
    assert_eq!(segment.ask(V4), BTreeSet::from([mac(2)]));
    segment.set(1, given_up.duties(1));
    assert_eq!(segment.ask(V4), BTreeSet::from([mac(1)]));
}

#[test]
fn a_dead_owner_is_not_named_after_its_heir_has_claimed_the_address_nor_for_long_if_nobody_does() {
    for (heir_knows_first, named_for) in [(true, 0), (false, 100)] {
        let mut segment = Segment::of(3);
        let away = World::new(3, &[(V4, 2)]).with(2, Standing::Away);
        segment.set_all(&away);
        segment.part[2] = 1;
        let dead = away.with(2, Standing::Dead).owned_by(V4, 1);
        if heir_knows_first {
            segment.set(1, dead.duties(1));
        }
        segment.set(0, dead.duties(0));
        segment.run_for(named_for);
        assert!(!segment.ask(V4).contains(&mac(2)));
    }
}

#[test]
fn an_owner_that_is_back_is_not_waited_for() {
    let mut segment = Segment::of(3);
    let away = World::new(3, &[(V4, 2)]).with(2, Standing::Away);
    segment.set(0, away.duties(0));
    segment.set(0, away.with(2, Standing::Here).duties(0));
    assert_eq!(segment.ask(V4), BTreeSet::new());
}

// --- Heals

#[test]
fn after_a_heal_the_better_of_two_owners_is_soon_the_only_one() {
    for text in [V4, V6, "192.168.10.7", "fc00::10:7"] {
        for heir in [0, 1] {
            let mut segment = Segment::of(2);
            segment.set_all(&World::new(2, &[(text, 1 - heir)]));
            segment.run_for(10_000);
            cut(&mut segment, heir, &[text]);
            segment.run_for(60_000);
            segment.part = vec![0, 0];
            let healed = segment.now;

            segment.run_for(1000);

            let better = mac(better_of_two(text));
            assert_eq!(segment.ask(text), BTreeSet::from([better]));
            segment.run_for(5000);
            assert_eq!(segment.ask(text), BTreeSet::from([better]));
            let announced = segment.sent(better_of_two(text), FrameKind::Announcement, healed);
            assert!((1..=12).contains(&announced.len()), "{announced:?}");
        }
    }
}

#[test]
fn everything_that_was_taken_from_a_node_is_settled_within_a_second() {
    let all: Vec<String> = (0..500).map(|i| Ipv4Addr::from_bits(0xc0a8_0a00 + i).to_string()).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let owners: Vec<(&str, usize)> = all.iter().map(|text| (*text, 0)).collect();
    let mut segment = Segment::of(2);
    segment.set_all(&World::new(2, &owners));
    segment.run_for(10_000);
    cut(&mut segment, 1, &all);
    segment.run_for(60_000);
    segment.part = vec![0, 0];

    segment.run_for(1000);

    for text in all {
        assert_eq!(segment.ask(text), BTreeSet::from([mac(better_of_two(text))]), "{text}");
    }
}

#[test]
fn the_loser_of_a_heal_claims_again_when_the_winner_is_gone() {
    let (mut segment, _) = owned_by_node_0(&[V4]);
    cut(&mut segment, 1, &[V4]);
    segment.part = vec![0, 0, 1];
    segment.run_for(1000);
    let (winner, loser) = (better_of_two(V4), 1 - better_of_two(V4));
    assert_eq!(segment.status(loser).addresses[&ip(V4)].doubt.as_ref().unwrap().reason, "outranked");

    segment.part[winner] = 1;
    segment.run_for(1000);

    segment.part[loser] = 0;
    assert_eq!(segment.ask(V4), BTreeSet::from([mac(loser)]));
}

#[test]
fn who_was_taken_for_dead_by_mistake_is_heard_and_the_better_one_speaks_last() {
    for text in [V4, V6, "192.168.10.7", "fc00::10:7"] {
        let mut segment = Segment::of(2);
        let world = World::new(2, &[(text, 0)]);
        segment.set_all(&world);
        segment.run_for(10_000);
        segment.set(1, world.with(0, Standing::Dead).owned_by(text, 1).duties(1));

        segment.run_for(1000);

        let better = better_of_two(text);
        assert_eq!(segment.ask(text), BTreeSet::from([mac(better)]));
        segment.run_for(10_000);
        let announced = |entry: &&(Instant, usize, FrameKind, Message)| entry.2 == FrameKind::Announcement;
        let (_, last, ..) = segment.log.iter().rfind(announced).unwrap();
        assert_eq!(*last, better, "{text}");
    }
}

#[test]
fn when_the_membership_has_healed_its_word_counts() {
    let (mut segment, world) = owned_by_node_0(&[V4]);
    cut(&mut segment, 1, &[V4]);
    segment.part = vec![0, 0, 1];
    segment.run_for(1000);
    let loser = 1 - better_of_two(V4);

    segment.set_all(&world.owned_by(V4, loser));

    assert_eq!(segment.ask(V4), BTreeSet::from([mac(loser)]));
}

// --- Others

#[test]
fn a_stranger_is_told_and_the_address_defended_once_in_ten_seconds() {
    let (mut segment, _) = owned_by_node_0(&[V4]);
    let since = segment.now;
    for _ in 0..19 {
        segment.send(0, &Message::Arp(arp(V4, V4)), None);
        segment.run_for(1000);
    }
    let defended = segment.sent(0, FrameKind::Announcement, since);
    assert_eq!(defended.len(), 2 * 2, "both forms, twice: {defended:?}");
    let events = segment.events_of(0);
    let expected =
        Event::Claimed { ip: ip(V4), mac: CLIENT, interface: "eth0".parse().unwrap(), by: Claimant::Stranger };
    assert_eq!(events, vec![expected; 19]);
    assert_eq!(segment.ask(V4), BTreeSet::from([mac(0)]));
}

#[test]
fn a_gateway_that_answers_for_everybody_is_told_and_nothing_else() {
    let (mut segment, mut world) = owned_by_node_0(&[V4]);
    let gateways = BTreeMap::from([(v4("192.168.8.254").into(), Some(STRANGER))]);
    segment.cores[0].handle_gateways(&Gateways { gateways: BTreeMap::from([(ETH0, gateways)]) }, segment.now);
    let since = segment.now;
    let Message::Arp(reply) = answer(STRANGER, mac(0)) else { unreachable!("an answer is ARP") };

    segment.send(0, &Message::Arp(Arp { sender_ip: v4(V4), ..reply }), None);
    segment.run_for(10_000);

    assert_eq!(segment.sent(0, FrameKind::Announcement, since), []);
    let [Event::Claimed { by: Claimant::Gateway, .. }] = segment.events_of(0)[..] else { panic!("not told") };
    segment.others.insert(STRANGER, BTreeSet::from([ip("192.168.10.2")]));
    world.untried.insert(ip("192.168.10.2"));
    segment.set(0, world.owned_by("192.168.10.2", 0).duties(0));
    segment.run_for(100);
    assert_eq!(segment.ask("192.168.10.2"), BTreeSet::from([mac(0)]), "its answer to a probe holds nobody back");
}

#[test]
fn a_foreign_speaker_on_a_member_gets_the_address_until_it_ends() {
    for text in [V4, V6] {
        let (mut segment, _) = owned_by_node_0(&[text]);
        segment.others.insert(mac(1), BTreeSet::from([ip(text)]));
        segment.send(0, &claim_by(mac(1), text), None);
        segment.run_for(249);
        assert_eq!(segment.ask(text), BTreeSet::from([mac(0)]), "views may differ for a moment");
        segment.run_for(301);
        let since = segment.now;
        assert_eq!(segment.ask(text), BTreeSet::new());
        segment.run_for(20_000);
        assert_eq!(segment.sent(0, FrameKind::Announcement, since), [], "it is neither claimed nor defended");
        let doubt = segment.status(0).addresses[&ip(text)].doubt.clone().unwrap();
        assert_eq!((doubt.reason, doubt.mac, doubt.node), ("foreign_speaker", Some(mac(1)), Some(name(1))));

        segment.others.clear();
        segment.run_for(2000);
        assert_eq!(segment.ask(text), BTreeSet::from([mac(0)]));
    }
}

#[test]
fn the_address_of_a_foreign_speaker_is_taken_at_once_when_its_host_dies() {
    let (mut segment, world) = owned_by_node_0(&[V4]);
    segment.others.insert(mac(1), BTreeSet::from([ip(V4)]));
    segment.send(0, &claim_by(mac(1), V4), None);
    segment.run_for(1000);
    assert_eq!(segment.ask(V4), BTreeSet::new());

    segment.others.clear();
    segment.set(0, world.with(1, Standing::Dead).duties(0));
    assert_eq!(segment.ask(V4), BTreeSet::from([mac(0)]));
}

#[test]
fn a_foreign_speaker_outlives_the_one_that_ran_on_its_host_before() {
    let (mut segment, world) = owned_by_node_0(&[V4]);
    let world = world.with(1, Standing::Away);
    segment.set(0, world.duties(0));
    segment.others.insert(mac(1), BTreeSet::from([ip(V4)]));
    segment.send(0, &claim_by(mac(1), V4), None);
    segment.run_for(1000);
    assert_eq!(segment.ask(V4), BTreeSet::new());

    segment.set(0, world.with(1, Standing::Dead).duties(0));
    segment.run_for(10_000);
    assert_eq!(segment.ask(V4), BTreeSet::new(), "the grace is over, and it still answers");

    segment.others.clear();
    segment.run_for(3000);
    assert_eq!(segment.ask(V4), BTreeSet::from([mac(0)]));
}

#[test]
fn a_member_whose_view_was_late_for_a_moment_is_no_foreign_speaker() {
    let (mut segment, _) = owned_by_node_0(&[V4]);
    segment.send(0, &claim_by(mac(1), V4), None);
    segment.run_for(50);
    segment.send(0, &claim_by(mac(1), V4), None);
    for _ in 0..100 {
        segment.run_for(100);
        assert_eq!(segment.ask(V4), BTreeSet::from([mac(0)]));
    }
    assert_eq!(segment.status(0).addresses[&ip(V4)].doubt, None);
}

#[test]
fn an_address_that_a_member_claims_which_ranks_first_is_not_announced_meanwhile() {
    let first = better_of_two(V4);
    for (owner, rival) in [(first, 1 - first), (1 - first, first)] {
        let mut segment = Segment::of(2);
        segment.set_all(&World::new(2, &[]));
        segment.set(owner, World::new(2, &[(V4, owner)]).duties(owner));
        segment.run_for(20);
        let claimed = segment.now;
        segment.send(0, &claim_by(mac(rival), V4), None);
        segment.run_for(280);
        assert_eq!(segment.ask(V4), BTreeSet::from([mac(owner)]), "it is answered all the time");
        let announced = segment.sent(owner, FrameKind::Announcement, claimed);
        assert_eq!(announced.is_empty(), owner != first, "{announced:?}");

        segment.run_for(5000);
        let announced = segment.sent(owner, FrameKind::Announcement, claimed);
        assert!(announced.len() > 4, "nobody else answered: {announced:?}");
    }
}

#[test]
fn the_kernels_of_several_members_are_no_foreign_speaker() {
    let (mut segment, _) = owned_by_node_0(&[V4]);
    segment.others = BTreeMap::from([1, 2].map(|node| (mac(node), BTreeSet::from([ip(V4)]))));
    segment.send(0, &claim_by(mac(1), V4), None);
    segment.run_for(8000);
    assert_eq!(segment.ask(V4), BTreeSet::from([mac(0)]));
    assert_eq!(segment.events_of(0).iter().filter(|event| **event == Event::KernelsAnswer { ip: ip(V4) }).count(), 1);
}

#[test]
fn two_foreign_speakers_of_which_one_hands_over_to_the_other_are_no_kernels() {
    let (mut segment, _) = owned_by_node_0(&[V4]);
    let answered_by = |nodes: &[usize]| nodes.iter().map(|node| (mac(*node), BTreeSet::from([ip(V4)]))).collect();
    segment.others = answered_by(&[1]);
    segment.send(0, &claim_by(mac(1), V4), None);
    segment.run_for(3000);
    for nodes in [&[1, 2][..], &[2], &[1, 2], &[1]] {
        segment.others = answered_by(nodes);
        segment.run_for(2500);
        assert_eq!(segment.ask(V4), BTreeSet::new(), "{nodes:?}");
    }
    segment.others.clear();
    segment.run_for(2000);
    assert_eq!(segment.ask(V4), BTreeSet::from([mac(0)]));
}

#[test]
fn the_routers_of_a_subnet_may_answer_for_its_anycast_address() {
    let (mut segment, _) = owned_by_node_0(&["fc00::"]);
    let Message::NeighborAdvertisement(said) = unsolicited(mac(1), "fc00::2", "fc00::") else { unreachable!("is one") };
    let flags = NaFlags { router: true, solicited: true, overrides: false };
    segment.send(0, &Message::NeighborAdvertisement(NeighborAdvertisement { flags, ..said }), None);
    segment.run_for(5000);
    assert_eq!(segment.events_of(0), []);
    assert_eq!(segment.ask("fc00::"), BTreeSet::from([mac(0)]));
}

// --- Before a new claim

#[test]
fn a_new_address_is_asked_for_three_times_before_it_is_claimed() {
    for text in [V4, V6] {
        let (mut segment, world) = new_address(text);
        let since = segment.now;
        segment.set(0, world.duties(0));
        segment.run_for(29);
        assert_eq!(segment.sent(0, FrameKind::Probe, since).len(), 3);
        assert_eq!(segment.ask(text), BTreeSet::new());
        segment.run_for(1);
        assert_eq!(segment.ask(text), BTreeSet::from([mac(0)]));
        assert!(!segment.sent(0, FrameKind::Announcement, since).is_empty());
        assert_eq!(segment.events_of(0), []);
    }
}

#[test]
fn a_probe_claims_nothing() {
    let (mut segment, mut world) = new_address(V4);
    world.untried.insert(ip(V6));
    segment.set(0, world.owned_by(V6, 0).duties(0));
    segment.run_for(25);
    let probes = segment.sent(0, FrameKind::Probe, segment.now - Duration::from_millis(25));
    assert!(!probes.is_empty());
    for probe in probes {
        assert!(probe.claim().is_none_or(|claim| ![ip(V4).addr(), ip(V6).addr()].contains(&claim.ip)), "{probe:?}");
    }
}

#[test]
fn an_address_in_use_is_not_claimed_until_that_ends() {
    for text in [V4, V6] {
        let (mut segment, world) = new_address(text);
        segment.others.insert(STRANGER, BTreeSet::from([ip(text)]));
        let since = segment.now;
        segment.set(0, world.duties(0));
        segment.run_for(60_000);
        assert_eq!(segment.ask(text), BTreeSet::new());
        assert_eq!(segment.sent(0, FrameKind::Announcement, since), []);
        let probes = segment.sent(0, FrameKind::Probe, since).len();
        assert!((25..=35).contains(&probes), "every second, then every two: {probes}");
        let expected = Event::Withheld { ip: ip(text), because: Because::InUse, mac: STRANGER };
        assert!(segment.events_of(0).contains(&expected));

        segment.others.clear();
        segment.run_for(3_000);
        assert_eq!(segment.ask(text), BTreeSet::from([mac(0)]));
        assert!(segment.events_of(0).contains(&Event::Claims { ip: ip(text) }));
    }
}

#[test]
fn a_takeover_waits_for_nobody() {
    let mut segment = Segment::of(2);
    let world = World::new(2, &[(V4, 1)]);
    segment.set_all(&world);
    segment.part[1] = 1;
    segment.set(0, world.with(1, Standing::Dead).owned_by(V4, 0).duties(0));
    assert_eq!(segment.ask(V4), BTreeSet::from([mac(0)]));
}

#[test]
fn an_answer_in_our_own_name_holds_nobody_back() {
    let (mut segment, world) = new_address(V4);
    segment.others.insert(mac(0), BTreeSet::from([ip(V4)]));
    segment.set(0, world.duties(0));
    segment.run_for(100);
    assert_eq!(segment.ask(V4), BTreeSet::from([mac(0)]));
}

#[test]
fn ten_thousand_new_addresses_are_asked_for_at_the_rate_of_announcements() {
    let mut segment = Segment::of(1);
    let all: Vec<String> = (0..10_000).map(|i| Ipv4Addr::from_bits(0x0a00_0000 + i).to_string()).collect();
    let owners: Vec<(&str, usize)> = all.iter().map(|text| (text.as_str(), 0)).collect();
    let mut world = World::new(1, &owners);
    world.untried = world.owners.keys().copied().collect();
    let since = segment.now;
    segment.set(0, world.duties(0));
    segment.run_for(1000);
    let probes = segment.sent(0, FrameKind::Probe, since).len();
    assert!((9000..=10_200).contains(&probes), "{probes}");
    segment.run_for(2500);
    assert_eq!(segment.status(0).addresses.values().filter(|address| address.doubt.is_some()).count(), 0);
}

// --- Two interfaces on one segment

#[test]
fn of_two_interfaces_on_one_segment_the_first_alone_answers_and_announces() {
    let mut rig = Rig::owning(&["192.168.10.1"]);
    let mut own = arp("192.168.10.1", "192.168.10.1");
    (own.ethernet.source, own.sender_mac) = (MAC1, MAC1);
    assert_eq!(rig.hear(ETH0, Message::Arp(own)), Err(Unanswered::OwnFrame));
    let (speaks, silent) = ("eth0".parse().unwrap(), "eth1".parse().unwrap());
    assert_eq!(rig.events(), [Event::OneSegment { speaks, silent }]);

    let announced = rig.run_for(10_000);
    assert!(!announced.is_empty() && announced.iter().all(|(_, index, _)| *index == ETH0), "the last word");
    assert_eq!(rig.hear(ETH1, arp_request("192.168.8.200", "192.168.10.1")), Err(Unanswered::NotHere));
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.1")), Ok(()));

    rig.link(ETH0, |link| link.carrier = false);
    rig.run_for(10_000);
    assert_eq!(rig.hear(ETH1, arp_request("192.168.8.200", "192.168.10.1")), Ok(()));
}

#[test]
fn two_interfaces_of_one_subnet_are_on_one_segment() {
    let mut rig = Rig::new();
    rig.link(ETH1, |link| link.nets.push("192.168.8.12/22".parse().unwrap()));
    rig.own(&["192.168.10.1"]);
    assert!(rig.run_for(10_000).iter().all(|(_, index, _)| *index == ETH0));
    rig.link(ETH1, |link| link.nets.truncate(1));
    assert!(!rig.run_for(10_000).is_empty(), "they are apart again");
    assert_eq!(rig.hear(ETH1, arp_request("192.168.8.200", "192.168.10.1")), Ok(()));
}

// --- Self-check

#[test]
fn the_owners_answers_are_counted_and_disturb_nobody() {
    let mut segment = checking(2);
    segment.set_all(&World::new(2, &[(V4, 0), (V6, 0)]));
    segment.run_for(21_000);
    let check = segment.status(1).self_check;
    assert!((30..=42).contains(&check.answered), "{check:?}");
    assert_eq!((check.unanswered, check.wrong), (0, 0));
    assert!(!segment.cores[0].stations_known() && !segment.cores[1].stations_known());
    assert_eq!(segment.status(0).addresses[&ip(V4)].foreign_claims, 0);
}

#[test]
fn an_address_that_nobody_answers_is_counted() {
    let mut segment = checking(2);
    let world = World::new(2, &[(V4, 0)]);
    segment.set(1, world.duties(1));
    segment.run_for(10_000);
    let check = segment.status(1).self_check;
    assert!(check.unanswered > 5 && check.answered + check.wrong == 0, "{check:?}");
}

#[test]
fn a_wrong_answer_is_told_once_a_minute_with_who_it_is() {
    for (node, by) in [(mac(2), Claimant::Member(name(2))), (STRANGER, Claimant::Stranger)] {
        let mut segment = checking(3);
        segment.part[2] = 1;
        segment.set_all(&World::new(3, &[(V4, 0)]));
        segment.others.insert(node, BTreeSet::from([ip(V4)]));
        segment.run_for(59_000);
        let told = |events: Vec<Event>| -> Vec<Event> {
            events.into_iter().filter(|event| matches!(event, Event::WrongAnswer { .. })).collect()
        };
        let interface = "eth0".parse().unwrap();
        let expected = Event::WrongAnswer { ip: ip(V4), mac: node, by, owner: name(0), interface };
        assert_eq!(told(segment.events_of(1)), [expected]);
        assert_eq!(segment.status(1).self_check.wrong_answers.len(), 1);
        segment.run_for(60_000);
        assert_eq!(told(segment.events_of(1)).len(), 1);
    }
}

#[test]
fn who_has_just_lost_an_address_is_excused() {
    let mut segment = checking(3);
    let mut world = World::new(3, &[(V4, 0)]);
    segment.set_all(&world);
    for round in 0..40 {
        segment.run_for(1234);
        world = world.owned_by(V4, round % 2);
        segment.set(2, world.duties(2));
        segment.run_for(40);
        segment.set(1 - round % 2, world.duties(1 - round % 2));
        segment.run_for(40);
        segment.set(round % 2, world.duties(round % 2));
    }
    let check = segment.status(2).self_check;
    assert!(check.answered > 20 && check.wrong == 0, "{check:?}");
}

/// Three nodes on one segment, the first of which has owned the addresses for long.
fn owned_by_node_0(ips: &[&str]) -> (Segment, World) {
    let owners: Vec<(&str, usize)> = ips.iter().map(|text| (*text, 0)).collect();
    let (mut segment, world) = (Segment::of(3), World::new(3, &owners));
    segment.set_all(&world);
    // Long enough for the whole campaign; the next refresh is 99 s off.
    segment.run_for(201_000);
    segment.events.clear();
    (segment, world)
}

/// Node 0 is to own an address that nobody had.
fn new_address(text: &str) -> (Segment, World) {
    let (segment, world) = owned_by_node_0(&["192.168.10.99"]);
    let mut world = world.owned_by(text, 0);
    world.untried.insert(ip(text));
    (segment, world)
}

/// Nodes 0 and 1 do not hear each other any more and take each other for dead; `heir` owns the addresses of the other too.
fn cut(segment: &mut Segment, heir: usize, ips: &[&str]) {
    let other = 1 - heir;
    segment.part[heir] = 1;
    let owners: Vec<(&str, usize)> = ips.iter().map(|text| (*text, heir)).collect();
    let nodes = segment.cores.len();
    segment.set(heir, World::new(nodes, &owners).with(other, Standing::Dead).duties(heir));
    let owners: Vec<(&str, usize)> = ips.iter().map(|text| (*text, other)).collect();
    segment.set(other, World::new(nodes, &owners).with(heir, Standing::Dead).duties(other));
}

/// Which of nodes 0 and 1 comes first for the address.
fn better_of_two(text: &str) -> usize {
    let score = |node| garpike_election::score(&name(node), ip(text));
    usize::from(score(1) < score(0))
}

fn checking(nodes: usize) -> Segment {
    Segment::with(nodes, &Config::default())
}

fn claim_by(mac: MacAddr, text: &str) -> Message {
    match ip(text).addr() {
        IpAddr::V4(addr) => {
            let said = arp(text, text);
            let ethernet = Ethernet { source: mac, ..said.ethernet };
            Message::Arp(Arp { ethernet, sender_mac: mac, sender_ip: addr, ..said })
        }
        IpAddr::V6(_) => unsolicited(mac, "fe80::99", text),
    }
}
