mod announcing;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use garpike_election::{Member, NodeName, NodeState, Wire};

use super::*;
use crate::stations::Gateways;
use crate::surroundings::Surroundings;
use crate::wire::{
    Arp, ArpOperation, Ethernet, Ignored, Message, NaFlags, NeighborAdvertisement, NeighborSolicitation,
};

mod claims;
mod laws;
mod responder;
mod segment;

// --- Answers

#[test]
fn answers_a_broadcast_request_by_unicast_with_the_mac_of_the_interface() {
    let mut rig = Rig::owning(&["192.168.10.1"]);
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.1")), Ok(()));
    let reply = Message::Arp(Arp {
        ethernet: Ethernet { destination: CLIENT, source: MAC0 },
        operation: ArpOperation::Reply,
        sender_mac: MAC0,
        sender_ip: v4("192.168.10.1"),
        target_mac: CLIENT,
        target_ip: v4("192.168.8.200"),
    });
    assert_eq!(rig.sent(), [(ETH0, reply)]);
    assert_eq!(rig.hear(ETH1, arp_request("192.168.8.200", "192.168.10.1")), Ok(()));
    let [(ETH1, Message::Arp(reply))] = rig.sent()[..] else { panic!("no reply on eth1") };
    assert_eq!((reply.ethernet.source, reply.sender_mac), (MAC1, MAC1));
}

#[test]
fn answers_a_request_to_its_own_mac_and_a_probe() {
    let mut rig = Rig::owning(&["192.168.10.1"]);
    let mut unicast = arp("192.168.8.200", "192.168.10.1");
    unicast.ethernet.destination = MAC0;
    assert_eq!(rig.hear(ETH0, Message::Arp(unicast)), Ok(()));
    assert_eq!(rig.hear(ETH0, arp_request("0.0.0.0", "192.168.10.1")), Ok(()));
    assert_eq!(rig.sent().len(), 2);
}

#[test]
fn silent_when_not_owner() {
    let mut rig = Rig::owning(&["192.168.10.1", "fc00::1"]);
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.2")), Err(Unanswered::NotOwned));
    assert_eq!(rig.hear(ETH0, solicitation("fc00::200", "fc00::2")), Err(Unanswered::NotOwned));
    rig.own(&[]);
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.1")), Err(Unanswered::NotOwned));
    assert_eq!(rig.hear(ETH0, solicitation("fc00::200", "fc00::1")), Err(Unanswered::NotOwned));
    assert_eq!(rig.sent(), []);
}

#[test]
fn silent_on_an_interface_that_may_not_announce_the_address() {
    let mut rig = Rig::new();
    let only_eth1 = Selection::Only(BTreeSet::from(["eth1".parse().unwrap()]));
    rig.core.handle_owned(BTreeMap::from([(ip("192.168.10.1"), only_eth1)]), rig.now);
    assert!(rig.sent().iter().all(|(interface, _)| *interface == ETH1));
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.1")), Err(Unanswered::NotHere));
    assert_eq!(rig.hear(ETH1, arp_request("192.168.8.200", "192.168.10.1")), Ok(()));
    assert_eq!(rig.hear(IfIndex(77), arp_request("192.168.8.200", "192.168.10.1")), Err(Unanswered::Interface));
}

#[test]
fn answers_solicitations_by_multicast_and_by_unicast_with_or_without_the_option() {
    let mut rig = Rig::owning(&["fc00::1"]);
    let answer = Message::NeighborAdvertisement(NeighborAdvertisement {
        ethernet: Ethernet { destination: CLIENT, source: MAC0 },
        source_ip: v6("fe80::10"),
        destination_ip: v6("fc00::200"),
        target: v6("fc00::1"),
        target_mac: Some(MAC0),
        flags: NaFlags { router: false, solicited: true, overrides: true },
    });
    assert_eq!(rig.hear(ETH0, solicitation("fc00::200", "fc00::1")), Ok(()));
    assert_eq!(rig.sent(), [(ETH0, answer)]);

    let unicast = NeighborSolicitation {
        ethernet: Ethernet { destination: MAC0, source: CLIENT },
        source_ip: v6("fc00::200"),
        destination_ip: v6("fc00::1"),
        target: v6("fc00::1"),
        source_mac: None,
    };
    assert_eq!(rig.hear(ETH0, Message::NeighborSolicitation(unicast)), Ok(()));
    assert_eq!(rig.sent(), [(ETH0, answer)]);
}

#[test]
fn answers_to_the_link_layer_address_of_the_option_if_there_is_one() {
    let mut rig = Rig::owning(&["fc00::1"]);
    let Message::NeighborSolicitation(mut asked) = solicitation("fc00::200", "fc00::1") else { panic!("is one") };
    asked.ethernet.source = STRANGER;
    assert_eq!(rig.hear(ETH0, Message::NeighborSolicitation(asked)), Ok(()));
    let [(ETH0, answer)] = rig.sent()[..] else { panic!("no answer") };
    assert_eq!(answer.ethernet().destination, CLIENT);
}

#[test]
fn defends_an_address_against_a_probe_for_duplicates() {
    let mut rig = Rig::owning(&["fc00::1"]);
    assert_eq!(rig.hear(ETH0, probe("fc00::1")), Ok(()));
    assert_eq!(rig.sent(), [(ETH0, unsolicited(MAC0, "fe80::10", "fc00::1"))]);
}

#[test]
fn without_a_link_local_address_the_service_ip_is_the_source() {
    let mut rig = Rig::owning(&["fc00::1"]);
    rig.link(ETH0, |link| link.nets = vec!["fc00::11/64".parse().unwrap()]);
    assert_eq!(rig.hear(ETH0, probe("fc00::1")), Ok(()));
    assert_eq!(rig.sent(), [(ETH0, unsolicited(MAC0, "fc00::1", "fc00::1"))]);
}

#[test]
fn frames_for_others_and_from_impossible_senders_are_not_answered() {
    let mut rig = Rig::owning(&["192.168.10.1", "fc00::1"]);
    let mut to_other = arp("192.168.8.200", "192.168.10.1");
    to_other.ethernet.destination = STRANGER;
    assert_eq!(rig.hear(ETH0, Message::Arp(to_other)), Err(Unanswered::NotForUs));
    for mac in [MacAddr::BROADCAST, MacAddr::ZERO] {
        let from_nobody = Arp { sender_mac: mac, ..arp("192.168.8.200", "192.168.10.1") };
        assert_eq!(rig.hear(ETH0, Message::Arp(from_nobody)), Err(Unanswered::BadSender));
        let Message::NeighborSolicitation(mut asked) = solicitation("fc00::200", "fc00::1") else { panic!("is one") };
        asked.source_mac = Some(mac);
        assert_eq!(rig.hear(ETH0, Message::NeighborSolicitation(asked)), Err(Unanswered::BadSender));
    }
    let reply = Arp { operation: ArpOperation::Reply, ..arp("192.168.8.200", "192.168.10.1") };
    assert_eq!(rig.hear(ETH0, Message::Arp(reply)), Err(Unanswered::NotAsked));
    assert_eq!(rig.sent(), []);
}

#[test]
fn malformed_frames_are_named() {
    let mut rig = Rig::owning(&["192.168.10.1"]);
    let heard = rig.core.handle_frame(ETH0, &[0; 13], rig.now);
    assert_eq!(heard, Err(Unanswered::Unusable(Ignored::Truncated)));
    assert_eq!(heard.unwrap_err().reason(), "truncated");
}

#[test]
fn own_frames_are_ignored_on_whatever_interface_they_come_back() {
    let mut rig = Rig::owning(&["192.168.10.1"]);
    let mut own = arp("192.168.10.1", "192.168.10.1");
    (own.ethernet.source, own.sender_mac) = (MAC1, MAC1);
    assert_eq!(rig.hear(ETH0, Message::Arp(own)), Err(Unanswered::OwnFrame));
    assert!(!rig.events().iter().any(|event| matches!(event, Event::Claimed { .. })));
}

#[test]
fn more_questions_than_anybody_fetches_answers_for_are_dropped() {
    let mut rig = Rig::owning(&["192.168.10.1"]);
    let question = arp_request("192.168.8.200", "192.168.10.1").emit();
    for _ in 0..OUTBOX_DEPTH {
        assert_eq!(rig.core.handle_frame(ETH0, &question, rig.now), Ok(()));
    }
    assert_eq!(rig.core.handle_frame(ETH0, &question, rig.now), Err(Unanswered::Backlog));
}

// --- Announcements

#[test]
fn arp_is_announced_in_both_forms_for_three_minutes_and_refreshed_by_requests() {
    let mut rig = Rig::new();
    rig.links(&[(ETH0, eth0())]);
    rig.own(&["192.168.10.1"]);
    let form = |operation, target_mac| {
        Message::Arp(Arp {
            ethernet: Ethernet { destination: MacAddr::BROADCAST, source: MAC0 },
            operation,
            sender_mac: MAC0,
            sender_ip: v4("192.168.10.1"),
            target_mac,
            target_ip: v4("192.168.10.1"),
        })
    };
    let both = [form(ArpOperation::Request, MacAddr::ZERO), form(ArpOperation::Reply, MAC0)];
    let steps = [0, 50, 200, 1000, 3000, 10_000, 30_000, 60_000, 180_000];
    let mut expected: Vec<_> = steps.iter().flat_map(|at| both.map(|form| (*at, ETH0, form))).collect();
    let [request, _] = both;
    expected.extend([100_000, 200_000, 300_000].map(|at| (at, ETH0, request)));
    expected.sort_by_key(|(at, ..)| *at);
    assert_eq!(rig.run_for(399_000), expected);
}

#[test]
fn an_ipv6_address_is_announced_to_all_nodes_for_three_minutes_and_refreshed() {
    let mut rig = Rig::new();
    rig.links(&[(ETH0, eth0())]);
    rig.own(&["fc00::1"]);
    let steps = [0, 1000, 2000, 10_000, 30_000, 60_000, 100_000, 180_000, 200_000, 300_000];
    let expected = steps.map(|at| (at, ETH0, unsolicited(MAC0, "fe80::10", "fc00::1")));
    assert_eq!(rig.run_for(399_000), expected);
}

#[test]
fn the_first_frame_of_a_gained_address_is_told_and_every_one_is_counted() {
    let mut rig = Rig::new();
    rig.own(&["10.0.0.1"]);
    let frames: Vec<Frame> = std::iter::from_fn(|| rig.core.poll_transmit()).collect();
    assert!(frames.len() > 1 && frames.iter().all(|frame| frame.kind == FrameKind::Announcement), "{frames:?}");
    assert_eq!(rig.events(), [], "what waits has not left");

    for frame in &frames {
        rig.core.handle_sent(frame, rig.now);
    }

    assert_eq!(rig.events(), [Event::Announced { ip: ip("10.0.0.1"), at: rig.now }]);
    let status = rig.status();
    let address = &status.addresses[&ip("10.0.0.1")];
    assert_eq!((address.announcements, address.requests, address.answers), (frames.len() as u64, 0, 0));
}

#[test]
fn only_addresses_that_moved_are_announced() {
    let mut rig = Rig::owning(&["192.168.10.1", "fc00::1"]);
    rig.own(&["192.168.10.1", "fc00::1"]);
    assert_eq!(rig.run_for(9_000), []);
    rig.own(&["192.168.10.1", "192.168.10.2", "fc00::1"]);
    let announced = rig.run_for(9_000);
    assert_eq!(announced.len(), 2 * 10);
    assert!(announced.iter().all(|(_, _, message)| message.target() == ip("192.168.10.2").addr()));
    rig.own(&["192.168.10.1", "fc00::1"]);
    assert_eq!(rig.run_for(9_000), []);
}

#[test]
fn a_lost_address_falls_silent_at_once() {
    let mut rig = Rig::new();
    let now = rig.now;
    rig.core.handle_owned(owned(&["192.168.10.1", "192.168.10.2"]), now);
    rig.core.handle_owned(owned(&["192.168.10.2"]), now);
    let announced = rig.run_for(9_000);
    assert_eq!(announced.len(), 2 * 10);
    assert!(announced.iter().all(|(_, _, message)| message.target() == ip("192.168.10.2").addr()));
}

#[test]
fn every_address_is_announced_once_before_any_is_repeated_and_the_rate_is_kept() {
    let mut rig = Rig::new();
    rig.links(&[(ETH0, eth0())]);
    let ips: Vec<String> = (0..2000).map(|n| Ipv4Addr::from_bits(0x0a00_0000 + n).to_string()).collect();
    let all: Vec<&str> = ips.iter().map(String::as_str).collect();
    rig.own(&all);
    let announced = rig.run_for(4_900);
    assert_eq!(announced.len(), 2000 * 10);
    let firsts: BTreeSet<IpAddr> = announced[..2000].iter().map(|(_, _, message)| message.target()).collect();
    assert_eq!(firsts.len(), 2000);
    for start in 0..5_000 {
        let in_100_ms = announced.partition_point(|(at, _, _)| *at < start + 100)
            - announced.partition_point(|(at, _, _)| *at < start);
        assert!(in_100_ms <= 128 + 1000, "{in_100_ms} from {start} ms on");
    }
    let first_round_ends = announced[1999].0;
    assert!((187..=188).contains(&first_round_ends), "(2000 - 128) / 10 000 per s: {first_round_ends} ms");
}

#[test]
fn reannounce_runs_the_whole_schedule_again() {
    let mut rig = Rig::owning(&["192.168.10.1", "fc00::1"]);
    rig.core.reannounce(rig.now);
    assert_eq!(rig.run_for(9_000).len(), 2 * (10 + 3));
    rig.core.reannounce_on(ETH1, rig.now);
    let announced = rig.run_for(9_000);
    assert_eq!(announced.len(), 10 + 3);
    assert!(announced.iter().all(|(_, interface, _)| *interface == ETH1));
}

// --- Links

#[test]
fn an_interface_that_appears_or_returns_or_changes_its_mac_hears_the_announcements() {
    type Change = fn(&mut Link);
    let changes: [(Change, Change); 3] = [
        (|link| link.carrier = false, |link| link.carrier = true),
        (|link| link.mac = Some(MAC1), |link| link.mac = Some(MAC0)),
        (|link| link.master = Some(IfIndex(9)), |link| link.master = None),
    ];
    for (away, back) in changes {
        let mut rig = Rig::new();
        rig.links(&[(ETH0, eth0())]);
        rig.own(&["192.168.10.1", "fc00::1"]);
        rig.run_for(9_000);
        rig.link(ETH0, away);
        rig.run_for(9_000);
        rig.link(ETH0, back);
        assert_eq!(rig.run_for(9_000).len(), 10 + 3);
    }
}

#[test]
fn a_loss_of_carrier_that_no_snapshot_shows_is_noticed() {
    let mut rig = Rig::owning(&["192.168.10.1"]);
    rig.link(ETH0, |link| link.carrier_ups += 1);
    let announced = rig.run_for(9_000);
    assert_eq!(announced.len(), 10);
    assert!(announced.iter().all(|(_, interface, _)| *interface == ETH0));
}

#[test]
fn a_change_of_addresses_announces_nothing_but_ipv6_when_it_comes() {
    let mut rig = Rig::new();
    rig.links(&[(ETH0, Link { nets: Vec::new(), ..eth0() })]);
    rig.own(&["192.168.10.1", "fc00::1"]);
    rig.run_for(200_000);
    assert!(rig.status().addresses[&ip("fc00::1")].interfaces.is_empty());
    assert_eq!(rig.hear(ETH0, solicitation("fc00::200", "fc00::1")), Err(Unanswered::NotHere));
    rig.link(ETH0, |link| link.nets = vec!["192.168.8.11/22".parse().unwrap()]);
    assert_eq!(rig.run_for(9_000), []);
    rig.link(ETH0, |link| link.nets.push("fe80::10/64".parse().unwrap()));
    let announced = rig.run_for(9_000);
    assert_eq!(announced.len(), 3);
    rig.run_for(200_000);
    rig.link(ETH0, |link| link.nets.push("fc00::11/64".parse().unwrap()));
    assert_eq!(rig.run_for(9_000), []);
}

#[test]
fn only_usable_interfaces_can_announce() {
    let mut rig = Rig::new();
    assert_eq!(rig.core.surroundings().interfaces, names(&["eth0", "eth1"]));
    rig.link(ETH1, |link| link.carrier = false);
    assert_eq!(rig.core.surroundings().interfaces, names(&["eth0"]));
    rig.links(&[]);
    assert_eq!(rig.core.surroundings().interfaces, names(&[]));
    assert_eq!(Announcer::new(Config::default()).surroundings().interfaces, names(&[]));
}

#[test]
fn an_address_without_interface_is_complained_about_once() {
    let mut rig = Rig::new();
    let only = |name: &str| Selection::Only(BTreeSet::from([name.parse().unwrap()]));
    let complaint = || vec![Event::NoInterface { ip: ip("192.168.10.1") }];
    rig.core.handle_owned(BTreeMap::from([(ip("192.168.10.1"), only("eth7"))]), rig.now);
    assert_eq!(rig.events(), complaint());
    assert_eq!(rig.status().addresses[&ip("192.168.10.1")].interfaces, []);
    rig.link(ETH0, |link| link.mtu = 9000);
    assert_eq!(rig.events(), []);
    rig.core.handle_owned(BTreeMap::from([(ip("192.168.10.1"), only("eth1"))]), rig.now);
    rig.link(ETH1, |link| link.up = false);
    assert_eq!(rig.events(), complaint());
}

#[test]
fn nobody_complains_before_the_interfaces_are_known() {
    let mut rig = Rig { core: Announcer::new(Config::default()), now: start(), snapshot: LinkSet::default() };
    rig.own(&["192.168.10.1"]);
    assert_eq!(rig.events(), []);
    rig.links(&[(ETH0, eth0())]);
    assert_eq!(rig.run_for(9_000).len(), 10);
    assert_eq!(rig.events(), []);
}

// --- Claims

#[test]
fn a_foreign_claim_is_told_once_a_second_and_each_is_counted() {
    let mut rig = Rig::owning(&["192.168.10.1", "fc00::1"]);
    let gratuitous = || Message::Arp(arp("192.168.10.1", "192.168.10.1"));
    let claimed = || {
        let interface = "eth0".parse().unwrap();
        vec![Event::Claimed { ip: ip("192.168.10.1"), mac: CLIENT, interface, by: Claimant::Stranger }]
    };
    assert_eq!(rig.hear(ETH0, gratuitous()), Err(Unanswered::ForeignClaim));
    assert_eq!(rig.events(), claimed());
    rig.run_for(999);
    assert_eq!(rig.hear(ETH0, gratuitous()), Err(Unanswered::ForeignClaim));
    assert_eq!(rig.events(), []);
    rig.run_for(1);
    assert_eq!(rig.hear(ETH0, gratuitous()), Err(Unanswered::ForeignClaim));
    assert_eq!(rig.events(), claimed());
    let status = &rig.status().addresses[&ip("192.168.10.1")];
    assert_eq!((status.foreign_claims, status.claimed_by), (3, Some(CLIENT)));
    assert_eq!(status.claimed_by_kind, Some("stranger"));
}

#[test]
fn every_form_of_claim_is_heard() {
    let mut rig = Rig::owning(&["192.168.10.1", "fc00::1"]);
    let reply = Arp { operation: ArpOperation::Reply, ..arp("192.168.10.1", "192.168.8.200") };
    let forms = [
        arp_request("192.168.10.1", "192.168.8.200"),
        arp_request("192.168.10.1", "192.168.10.1"),
        Message::Arp(reply),
        unsolicited(CLIENT, "fe80::99", "fc00::1"),
        solicitation("fc00::1", "fc00::200"),
    ];
    for form in forms {
        rig.run_for(1000);
        assert_eq!(rig.hear(ETH0, form), Err(Unanswered::ForeignClaim));
        assert_eq!(rig.events().len(), 1, "{form:?}");
    }
}

#[test]
fn what_others_say_about_addresses_of_others_is_no_claim() {
    let mut rig = Rig::owning(&["192.168.10.1", "fc00::1"]);
    for message in [
        arp_request("192.168.10.2", "192.168.10.2"),
        arp_request("0.0.0.0", "192.168.10.1"),
        arp_request("192.168.8.200", "192.168.10.1"),
        unsolicited(CLIENT, "fe80::99", "fc00::2"),
        solicitation("fc00::200", "fc00::1"),
        probe("fc00::1"),
    ] {
        assert_ne!(rig.hear(ETH0, message), Err(Unanswered::ForeignClaim));
    }
    assert_eq!(rig.events(), []);
}

#[test]
fn an_answer_in_our_name_is_no_foreign_claim() {
    let mut rig = Rig::owning(&["192.168.10.1"]);
    let mut stand_in = Arp { operation: ArpOperation::Reply, ..arp("192.168.10.1", "192.168.8.200") };
    stand_in.sender_mac = MAC0;
    assert_eq!(rig.hear(ETH0, Message::Arp(stand_in)), Err(Unanswered::NotAsked));
    assert_eq!(rig.events(), []);
}

// --- For the shell

#[test]
fn groups_and_prefixes_follow_the_owned_addresses() {
    let mut rig = Rig::owning(&["192.168.10.1", "fc00::1:2:3", "fc00::2:2:3", "fc00::5"]);
    let groups = ["ff02::1:ff02:3", "ff02::1:ff00:5"].map(v6);
    let expected = [ETH0, ETH1].into_iter().flat_map(|index| groups.map(|group| (index, group)));
    assert_eq!(rig.core.groups(), expected.collect());
    assert_eq!((rig.core.prefixes().v4.len(), rig.core.prefixes().v6.len()), (1, 3));
    rig.own(&["192.168.10.1"]);
    assert_eq!(rig.core.groups(), BTreeSet::new());
    assert_eq!(rig.core.prefixes().v6, []);
}

#[test]
fn the_status_shows_interfaces_and_addresses() {
    let mut rig = Rig::owning(&["192.168.10.1"]);
    rig.link(ETH1, |link| link.carrier = false);
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.1")), Ok(()));
    let status = rig.status();
    let interface = |name: &str| &status.interfaces[&name.parse().unwrap()];
    assert_eq!(*interface("eth0"), InterfaceStatus { mac: Some(MAC0), obstacle: None, troubles: Vec::new() });
    assert_eq!(interface("eth1").obstacle, Some("has no carrier"));
    let address = &status.addresses[&ip("192.168.10.1")];
    assert_eq!((address.answers, address.announcing), (1, false));
    assert_eq!(address.interfaces, ["eth0".parse().unwrap()]);
}

// --- Standing in

#[test]
fn a_stand_in_answers_arp_with_the_mac_of_the_owner_from_its_own() {
    let mut rig = Rig::standing_in(&["192.168.10.1"]);
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.1")), Ok(()));
    let frame = rig.core.poll_transmit().unwrap();
    let golden = [
        0x02, 0x77, 0, 0, 1, 1, // to the client
        0x02, 0x77, 0, 0, 0, 1, // from this node
        0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2, // ARP reply
        0x02, 0x77, 0, 0, 0, 9, 192, 168, 10, 1, // the owner has the address
        0x02, 0x77, 0, 0, 1, 1, 192, 168, 8, 200,
    ];
    assert_eq!((frame.kind, &*frame.bytes), (FrameKind::StandIn, &golden[..]));
}

#[test]
fn a_stand_in_answers_solicitations_with_the_mac_of_the_owner_from_its_own() {
    let mut rig = Rig::standing_in(&["fc00::1"]);
    assert_eq!(rig.hear(ETH0, solicitation("fc00::200", "fc00::1")), Ok(()));
    let frame = rig.core.poll_transmit().unwrap();
    let golden = [
        0x02, 0x77, 0, 0, 1, 1, // to the client
        0x02, 0x77, 0, 0, 0, 1, // from this node
        0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255, // IPv6
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, // from this node
        0xfc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, // to the client
        136, 0, 0x1a, 0x90, 0x60, 0, 0, 0, // solicited, overrides
        0xfc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // the address
        2, 1, 0x02, 0x77, 0, 0, 0, 9, // is at the owner's
    ];
    assert_eq!((frame.kind, &*frame.bytes), (FrameKind::StandIn, &golden[..]));
}

#[test]
fn a_stand_in_defends_against_probes_in_the_name_of_the_owner() {
    let mut rig = Rig::standing_in(&["192.168.10.1", "fc00::1"]);
    assert_eq!(rig.hear(ETH0, arp_request("0.0.0.0", "192.168.10.1")), Ok(()));
    assert_eq!(rig.hear(ETH0, probe("fc00::1")), Ok(()));
    let sent = rig.sent();
    let claims: Vec<_> = sent.iter().map(|(_, message)| message.claim().unwrap().mac).collect();
    let sources: Vec<_> = sent.iter().map(|(_, message)| message.ethernet().source).collect();
    assert_eq!((claims, sources), (vec![OWNER, OWNER], vec![MAC0, MAC0]));
}

#[test]
fn a_stand_in_announces_nothing_whatever_happens() {
    let mut rig = Rig::standing_in(&["192.168.10.1", "fc00::1"]);
    rig.link(ETH0, |link| link.carrier_ups += 1);
    rig.core.reannounce(rig.now);
    let mut own = arp("192.168.10.1", "192.168.10.1");
    (own.ethernet.source, own.sender_mac) = (OWNER, OWNER);
    assert_eq!(rig.hear(ETH0, Message::Arp(own)), Err(Unanswered::NotAsked));
    assert_eq!((rig.run_for(200_000), rig.events()), (vec![], vec![]));
}

#[test]
fn a_stand_in_is_silent_where_the_owner_is_not_and_after_its_return() {
    let mut rig = Rig::standing_in(&["192.168.10.1"]);
    assert_eq!(rig.hear(ETH1, arp_request("192.168.8.200", "192.168.10.1")), Err(Unanswered::NotHere));
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.1")), Ok(()));
    rig.core.handle_stood_in(BTreeMap::new(), rig.now);
    assert_eq!(rig.sent(), []);
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.1")), Err(Unanswered::NotOwned));
}

#[test]
fn a_stand_in_that_becomes_the_owner_announces() {
    let mut rig = Rig::standing_in(&["192.168.10.1"]);
    rig.own(&["192.168.10.1"]);
    rig.core.handle_stood_in(BTreeMap::new(), rig.now);
    assert!(rig.sent().iter().any(|(_, message)| message.claim().unwrap().mac == MAC0));
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.1")), Ok(()));
    let [(_, answer)] = rig.sent()[..] else { panic!("no answer") };
    assert_eq!(answer.claim().unwrap().mac, MAC0);
}

#[test]
fn groups_filter_and_status_cover_what_is_stood_in_for() {
    let mut rig = Rig::standing_in(&["192.168.10.1", "fc00::1"]);
    assert_eq!(rig.core.groups(), BTreeSet::from([(ETH0, wire::solicited_node(v6("fc00::1")))]));
    let prefixes = rig.core.prefixes();
    assert_eq!((prefixes.v4.len(), prefixes.v6.len()), (1, 1));
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.1")), Ok(()));
    let status = rig.status();
    let expected = StandInStatus { interfaces: BTreeMap::from([("eth0".parse().unwrap(), OWNER)]), answers: 1 };
    assert_eq!(status.stood_in[&ip("192.168.10.1")], expected);
}

// --- Stations

#[test]
fn who_asked_is_asked_at_its_mac_from_the_address_of_its_net() {
    let mut rig = Rig::owning(&["192.168.10.1", "fc00::1"]);
    assert!(!rig.core.surroundings().stations);
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.1")), Ok(()));
    assert_eq!(rig.hear(ETH0, solicitation("fc00::200", "fc00::1")), Ok(()));
    assert!(rig.core.surroundings().stations);
    rig.sent();

    rig.core.ask_stations(rig.now);

    let arp = Message::Arp(Arp {
        ethernet: Ethernet { destination: CLIENT, source: MAC0 },
        operation: ArpOperation::Request,
        sender_mac: MAC0,
        sender_ip: v4("192.168.8.11"),
        target_mac: MacAddr::ZERO,
        target_ip: v4("192.168.8.200"),
    });
    let nd = Message::NeighborSolicitation(NeighborSolicitation {
        ethernet: Ethernet { destination: CLIENT, source: MAC0 },
        source_ip: v6("fe80::10"),
        destination_ip: v6("fc00::200"),
        target: v6("fc00::200"),
        source_mac: Some(MAC0),
    });
    assert_eq!(rig.sent(), [(ETH0, arp), (ETH0, nd)]);
}

#[test]
fn a_station_of_another_net_is_asked_in_the_form_of_a_probe() {
    let mut rig = Rig::owning(&["192.168.10.1"]);
    assert_eq!(rig.hear(ETH0, arp_request("10.1.1.1", "192.168.10.1")), Ok(()));
    rig.sent();
    rig.core.ask_stations(rig.now);
    let [(ETH0, Message::Arp(question))] = rig.sent()[..] else { panic!("no question") };
    assert!(question.is_probe());
    assert_eq!((question.target_ip, question.ethernet.destination), (v4("10.1.1.1"), CLIENT));
}

#[test]
fn the_first_answer_of_a_station_to_this_node_is_told_once() {
    let mut rig = Rig::owning(&["192.168.10.1"]);
    assert_eq!(rig.hear(ETH0, answer(CLIENT, MAC0)), Err(Unanswered::NotAsked), "nobody was asked");
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.1")), Ok(()));
    rig.core.ask_stations(rig.now);

    assert_eq!(rig.hear(ETH0, answer(CLIENT, MAC1)), Err(Unanswered::NotAsked), "to somebody else");
    assert_eq!(rig.hear(ETH0, answer(CLIENT, MAC0)), Err(Unanswered::Station));
    assert_eq!(rig.hear(ETH0, answer(CLIENT, MAC0)), Err(Unanswered::NotAsked), "again");
    let told = Event::StationAnswered { interface: "eth0".parse().unwrap(), mac: CLIENT };
    assert_eq!(rig.events(), [told]);
}

#[test]
fn an_ipv6_gateway_that_leaves_its_mac_out_of_an_answer_to_a_unicast_question_is_not_silent() {
    let (mut rig, gateway) = (Rig::new(), MacAddr([2, 0, 0, 0, 0, 0xfe]));
    let gateways = BTreeMap::from([(v6("fe80::1").into(), Some(gateway))]);
    rig.core.handle_gateways(&Gateways { gateways: BTreeMap::from([(ETH0, gateways)]) }, rig.now);
    let answer = Message::NeighborAdvertisement(NeighborAdvertisement {
        ethernet: Ethernet { destination: MAC0, source: gateway },
        source_ip: v6("fe80::1"),
        destination_ip: v6("fe80::10"),
        target: v6("fe80::1"),
        target_mac: None,
        flags: NaFlags { router: true, solicited: true, overrides: false },
    });
    for _ in 0..20 {
        rig.run_for(1);
        let _ = rig.hear(ETH0, answer);
        assert!(rig.core.stations_known());
        rig.run_for(29_999);
        assert!(!rig.core.surroundings().gateway_silent);
    }
}

#[test]
fn what_a_member_says_is_no_answer_of_a_station() {
    let mut rig = Rig::owning(&["192.168.10.1"]);
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.1")), Ok(()));
    rig.core.ask_stations(rig.now);
    rig.core.handle_members(BTreeSet::from([STRANGER]));
    assert_eq!(rig.hear(ETH0, answer(STRANGER, MAC0)), Err(Unanswered::NotAsked));
    assert_eq!(rig.events(), []);
    assert_eq!(rig.hear(ETH0, answer(CLIENT, MAC0)), Err(Unanswered::Station));

    rig.core.handle_members(BTreeSet::from([CLIENT]));
    rig.sent();
    rig.core.ask_stations(rig.now);
    assert_eq!((rig.sent(), rig.core.surroundings().stations), (vec![], false));
}

#[test]
fn gateways_are_asked_at_once_and_every_30_s_until_there_is_none() {
    let mut rig = Rig::new();
    let gateway = BTreeMap::from([(v4("192.168.8.1").into(), None)]);
    rig.core.handle_gateways(&Gateways { gateways: BTreeMap::from([(ETH0, gateway)]) }, rig.now);
    let asked = rig.run_for(70_000);
    assert_eq!(asked.iter().map(|(at, _, _)| *at).collect::<Vec<_>>(), [0, 30_000, 60_000]);
    assert!(
        asked.iter().all(|(_, interface, message)| {
            *interface == ETH0 && message.ethernet().destination == MacAddr::BROADCAST
        })
    );
    rig.core.handle_gateways(&Gateways::default(), rig.now);
    assert_eq!(rig.run_for(70_000), []);
}

#[test]
fn a_gateway_that_was_known_is_silent_after_three_questions_a_second_apart() {
    let (mut rig, gateway) = (Rig::new(), MacAddr([2, 0, 0, 0, 0, 0xfe]));
    let gateways = BTreeMap::from([(v4("192.168.8.1").into(), None)]);
    rig.core.handle_gateways(&Gateways { gateways: BTreeMap::from([(ETH0, gateways)]) }, rig.now);
    assert_eq!(rig.run_for(40_000).len(), 2, "one that was never heard is not asked more often");
    assert!(!rig.core.surroundings().gateway_silent);
    let answered = |rig: &mut Rig| rig.hear(ETH0, gateway_answer(gateway));

    assert_eq!(answered(&mut rig), Err(Unanswered::NotAsked), "late, and still an answer");
    rig.run_for(22_900);
    assert!(!rig.core.surroundings().gateway_silent);
    rig.run_for(300);
    assert!(rig.core.surroundings().gateway_silent, "asked at 60 s, and missed at 61, 62 and 63 s");
    let asked = rig.run_for(700_000);
    assert!(asked.len() > 690, "every second: {}", asked.len());
    assert!(rig.core.surroundings().gateway_silent, "though it is forgotten as a station by now");

    assert_eq!(answered(&mut rig), Err(Unanswered::Station));
    assert!(!rig.core.surroundings().gateway_silent);
    rig.run_for(40_000);
    assert!(rig.core.surroundings().gateway_silent);
    rig.core.handle_gateways(&Gateways::default(), rig.now);
    assert!(!rig.core.surroundings().gateway_silent, "it is none any more");
}

#[test]
fn a_gateway_that_answers_every_second_question_is_not_silent() {
    let (mut rig, gateway) = (Rig::new(), MacAddr([2, 0, 0, 0, 0, 0xfe]));
    let gateways = BTreeMap::from([(v4("192.168.8.1").into(), None)]);
    rig.core.handle_gateways(&Gateways { gateways: BTreeMap::from([(ETH0, gateways)]) }, rig.now);
    for _ in 0..200 {
        let _ = rig.hear(ETH0, gateway_answer(gateway));
        rig.run_for(2000);
        assert!(!rig.core.surroundings().gateway_silent);
    }
}

#[test]
fn gateways_that_are_known_before_their_interface_are_asked_when_it_comes() {
    let mut rig = Rig::new();
    let snapshot = rig.snapshot.clone();
    rig.links(&[]);
    let gateway = BTreeMap::from([(v4("192.168.8.1").into(), Some(STRANGER))]);
    rig.core.handle_gateways(&Gateways { gateways: BTreeMap::from([(ETH0, gateway)]) }, rig.now);
    assert_eq!(rig.run_for(1000), []);

    rig.core.handle_links(snapshot, rig.now);

    let [(ETH0, question)] = rig.sent()[..] else { panic!("no question") };
    assert_eq!((question.target(), question.ethernet().destination), (v4("192.168.8.1").into(), STRANGER));
}

#[test]
fn the_surroundings_show_each_wire_and_lose_it_with_the_carrier() {
    let mut rig = Rig::new();
    let surroundings = rig.core.surroundings();
    let wire = |mac, nets: &[&str]| Wire { mac, nets: nets.iter().map(|net| net.parse().unwrap()).collect() };
    let eth0 = ("eth0".parse().unwrap(), wire(MAC0, &["192.168.8.11/22"]));
    assert_eq!(surroundings.wires, BTreeMap::from([eth0.clone(), ("eth1".parse().unwrap(), wire(MAC1, &[]))]));
    rig.link(ETH1, |link| link.carrier = false);
    assert_eq!(rig.core.surroundings().wires, BTreeMap::from([eth0]));
    rig.link(ETH0, |link| link.carrier = false);
    assert_eq!(rig.core.surroundings(), Surroundings::default());
}

// --- Datagrams of the membership

#[test]
fn a_datagram_to_this_station_is_taken_with_its_sender() {
    let rig = Rig::new();
    let frame = datagram(CLIENT, MAC1);
    let taken = rig.core.unwrap_datagram(ETH1, &frame).unwrap();
    assert_eq!(taken, Datagram { interface: "eth1".parse().unwrap(), mac: CLIENT, payload: vec![0x47, 0, 0] });

    assert_eq!(rig.core.unwrap_datagram(ETH0, &frame), Err(Undelivered::NotForUs));
    assert_eq!(rig.core.unwrap_datagram(IfIndex(77), &frame), Err(Undelivered::Interface));
    assert_eq!(rig.core.unwrap_datagram(ETH1, &datagram(MAC0, MAC1)), Err(Undelivered::OwnFrame));
    let to_all = rig.core.unwrap_datagram(ETH1, &datagram(CLIENT, MacAddr::BROADCAST));
    assert_eq!(to_all, Err(Undelivered::Unusable(Ignored::Addressing)));
    assert_eq!(to_all.unwrap_err().reason(), "addressing");
}

#[test]
fn a_datagram_is_sent_from_the_interface_that_it_names() {
    let rig = Rig::new();
    let to = |interface: &str, mac, len| {
        rig.core.wrap_datagram(&Datagram { interface: interface.parse().unwrap(), mac, payload: vec![7; len] })
    };
    let (interface, frame) = to("eth1", CLIENT, 100).unwrap();
    assert_eq!(interface, ETH1);
    let ethernet = Ethernet { destination: CLIENT, source: MAC1 };
    assert_eq!(wire::unwrap_datagram(&frame), Ok((ethernet, &[7; 100][..])));

    assert_eq!(to("eth9", CLIENT, 100), Err(Undelivered::Interface));
    assert_eq!(to("eth1", MacAddr::BROADCAST, 100), Err(Undelivered::BadReceiver));
    assert_eq!(to("eth1", CLIENT, wire::MAX_DATAGRAM_LEN + 1), Err(Undelivered::TooLong));
}

/// A core with two interfaces, in virtual time.
struct Rig {
    core: Announcer,
    now: Instant,
    snapshot: LinkSet,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self { core: Announcer::new(Config::default()), now: start(), snapshot: LinkSet::default() };
        let nets = vec!["fe80::20/64".parse().unwrap()];
        let eth1 = Link { name: "eth1".parse().unwrap(), mac: Some(MAC1), nets, ..eth0() };
        rig.links(&[(ETH0, eth0()), (ETH1, eth1)]);
        rig
    }

    /// Owns these since some minutes: they are announced, but for the refreshes.
    fn owning(ips: &[&str]) -> Self {
        let mut rig = Self::new();
        rig.own(ips);
        rig.run_for(200_000);
        rig
    }

    /// Stands in for a node that it meets on eth0 alone.
    fn standing_in(ips: &[&str]) -> Self {
        let mut rig = Self::new();
        let macs = BTreeMap::from([("eth0".parse().unwrap(), OWNER)]);
        rig.core.handle_stood_in(ips.iter().map(|text| (ip(text), macs.clone())).collect(), rig.now);
        rig
    }

    fn own(&mut self, ips: &[&str]) {
        self.core.handle_owned(owned(ips), self.now);
    }

    fn links(&mut self, links: &[(IfIndex, Link)]) {
        self.snapshot = LinkSet { links: links.iter().cloned().collect() };
        self.core.handle_links(self.snapshot.clone(), self.now);
    }

    fn link(&mut self, index: IfIndex, change: impl FnOnce(&mut Link)) {
        change(self.snapshot.links.get_mut(&index).unwrap());
        self.core.handle_links(self.snapshot.clone(), self.now);
    }

    fn hear(&mut self, interface: IfIndex, message: Message) -> Result<(), Unanswered> {
        self.core.handle_frame(interface, &message.emit(), self.now)
    }

    fn sent(&mut self) -> Vec<(IfIndex, Message)> {
        std::iter::from_fn(|| self.core.poll_transmit())
            .map(|frame| (frame.interface, wire::parse(&frame.bytes).unwrap()))
            .collect()
    }

    fn status(&self) -> Status {
        self.core.status(self.now, UNIX_EPOCH + Duration::from_secs(1_800_000_000))
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.core.poll_event()).collect()
    }

    /// Lets time pass and gives what was sent, with the milliseconds since the call.
    fn run_for(&mut self, ms: u64) -> Vec<(u128, IfIndex, Message)> {
        let (start, end) = (self.now, self.now + Duration::from_millis(ms));
        let mut sent = Vec::new();
        loop {
            let at = (self.now - start).as_millis();
            sent.extend(self.sent().into_iter().map(|(interface, message)| (at, interface, message)));
            let Some(next) = self.core.poll_timeout().filter(|next| *next <= end) else { break };
            assert!(next > self.now, "a time-out that has passed was not handled");
            self.now = next;
            self.core.handle_timeout(next);
        }
        self.now = end;
        sent
    }
}

const ETH0: IfIndex = IfIndex(2);
const ETH1: IfIndex = IfIndex(3);
const MAC0: MacAddr = MacAddr([0x02, 0x77, 0, 0, 0, 1]);
const MAC1: MacAddr = MacAddr([0x02, 0x77, 0, 0, 0, 2]);
const CLIENT: MacAddr = MacAddr([0x02, 0x77, 0, 0, 1, 1]);
const OWNER: MacAddr = MacAddr([0x02, 0x77, 0, 0, 0, 9]);
const STRANGER: MacAddr = MacAddr([0x02, 0x77, 0, 0, 1, 2]);

#[expect(clippy::disallowed_methods, reason = "virtual time needs one real instant to start from")]
fn start() -> Instant {
    Instant::now()
}

fn eth0() -> Link {
    Link::ethernet(
        "eth0".parse().unwrap(),
        MAC0,
        vec!["192.168.8.11/22".parse().unwrap(), "fe80::10/64".parse().unwrap()],
    )
}

fn owned(ips: &[&str]) -> BTreeMap<ServiceIp, Selection<InterfaceName>> {
    ips.iter().map(|text| (ip(text), Selection::All)).collect()
}

fn names(names: &[&str]) -> Selection<InterfaceName> {
    Selection::Only(names.iter().map(|name| name.parse().unwrap()).collect())
}

fn ip(text: &str) -> ServiceIp {
    text.parse().unwrap()
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn arp(sender: &str, target: &str) -> Arp {
    Arp {
        ethernet: Ethernet { destination: MacAddr::BROADCAST, source: CLIENT },
        operation: ArpOperation::Request,
        sender_mac: CLIENT,
        sender_ip: v4(sender),
        target_mac: MacAddr::ZERO,
        target_ip: v4(target),
    }
}

fn arp_request(sender: &str, target: &str) -> Message {
    Message::Arp(arp(sender, target))
}

/// That the client's address is at `source`, said to `destination`.
fn answer(source: MacAddr, destination: MacAddr) -> Message {
    Message::Arp(Arp {
        ethernet: Ethernet { destination, source },
        operation: ArpOperation::Reply,
        sender_mac: source,
        sender_ip: v4("192.168.8.200"),
        target_mac: destination,
        target_ip: v4("192.168.8.11"),
    })
}

fn gateway_answer(gateway: MacAddr) -> Message {
    let Message::Arp(answer) = answer(gateway, MAC0) else { unreachable!("an answer is ARP") };
    Message::Arp(Arp { sender_ip: v4("192.168.8.1"), ..answer })
}

fn datagram(source: MacAddr, destination: MacAddr) -> Vec<u8> {
    wire::wrap_datagram(Ethernet { destination, source }, &[0x47, 0, 0]).unwrap()
}

fn solicitation(source: &str, target: &str) -> Message {
    let group = wire::solicited_node(v6(target));
    Message::NeighborSolicitation(NeighborSolicitation {
        ethernet: Ethernet { destination: wire::multicast_mac(group), source: CLIENT },
        source_ip: v6(source),
        destination_ip: group,
        target: v6(target),
        source_mac: Some(CLIENT),
    })
}

fn probe(target: &str) -> Message {
    let Message::NeighborSolicitation(solicitation) = solicitation("::", target) else { panic!("is one") };
    Message::NeighborSolicitation(NeighborSolicitation { source_mac: None, ..solicitation })
}

fn unsolicited(mac: MacAddr, source: &str, target: &str) -> Message {
    Message::NeighborAdvertisement(NeighborAdvertisement {
        ethernet: Ethernet { destination: wire::multicast_mac(wire::ALL_NODES), source: mac },
        source_ip: v6(source),
        destination_ip: wire::ALL_NODES,
        target: v6(target),
        target_mac: Some(mac),
        flags: NaFlags { router: false, solicited: false, overrides: true },
    })
}
