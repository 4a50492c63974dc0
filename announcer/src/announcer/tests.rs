use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::wire::{
    Arp, ArpOperation, Ethernet, Ignored, Message, NaFlags, NeighborAdvertisement, NeighborSolicitation,
};

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
    assert_eq!(rig.events(), []);
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
fn arp_is_announced_in_both_forms_at_0_50_200_1000_and_3000_ms() {
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
    let expected: Vec<_> = [0, 50, 200, 1000, 3000].iter().flat_map(|at| both.map(|form| (*at, ETH0, form))).collect();
    assert_eq!(rig.run_for(10_000), expected);
}

#[test]
fn an_ipv6_address_is_announced_to_all_nodes_at_0_1000_and_2000_ms() {
    let mut rig = Rig::new();
    rig.links(&[(ETH0, eth0())]);
    rig.own(&["fc00::1"]);
    let expected = [0, 1000, 2000].map(|at| (at, ETH0, unsolicited(MAC0, "fe80::10", "fc00::1")));
    assert_eq!(rig.run_for(10_000), expected);
}

#[test]
fn only_addresses_that_moved_are_announced() {
    let mut rig = Rig::owning(&["192.168.10.1", "fc00::1"]);
    rig.own(&["192.168.10.1", "fc00::1"]);
    assert_eq!(rig.run_for(10_000), []);
    rig.own(&["192.168.10.1", "192.168.10.2", "fc00::1"]);
    let announced = rig.run_for(10_000);
    assert_eq!(announced.len(), 2 * 10);
    assert!(announced.iter().all(|(_, _, message)| message.target() == ip("192.168.10.2").addr()));
    rig.own(&["192.168.10.1", "fc00::1"]);
    assert_eq!(rig.run_for(10_000), []);
}

#[test]
fn a_lost_address_falls_silent_at_once() {
    let mut rig = Rig::new();
    let now = rig.now;
    rig.core.handle_owned(owned(&["192.168.10.1", "192.168.10.2"]), now);
    rig.core.handle_owned(owned(&["192.168.10.2"]), now);
    let announced = rig.run_for(10_000);
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
    let announced = rig.run_for(60_000);
    assert_eq!(announced.len(), 2000 * 10);
    let firsts: BTreeSet<IpAddr> = announced[..2000].iter().map(|(_, _, message)| message.target()).collect();
    assert_eq!(firsts.len(), 2000);
    for start in 0..60_000 {
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
    assert_eq!(rig.run_for(10_000).len(), 2 * (10 + 3));
    rig.core.reannounce_on(ETH1, rig.now);
    let announced = rig.run_for(10_000);
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
        rig.run_for(10_000);
        rig.link(ETH0, away);
        rig.run_for(10_000);
        rig.link(ETH0, back);
        assert_eq!(rig.run_for(10_000).len(), 10 + 3);
    }
}

#[test]
fn a_loss_of_carrier_that_no_snapshot_shows_is_noticed() {
    let mut rig = Rig::owning(&["192.168.10.1"]);
    rig.link(ETH0, |link| link.carrier_ups += 1);
    let announced = rig.run_for(10_000);
    assert_eq!(announced.len(), 10);
    assert!(announced.iter().all(|(_, interface, _)| *interface == ETH0));
}

#[test]
fn a_change_of_addresses_announces_nothing_but_ipv6_when_it_comes() {
    let mut rig = Rig::new();
    rig.links(&[(ETH0, Link { nets: Vec::new(), ..eth0() })]);
    rig.own(&["192.168.10.1", "fc00::1"]);
    assert_eq!(rig.run_for(10_000).len(), 10);
    assert_eq!(rig.hear(ETH0, solicitation("fc00::200", "fc00::1")), Err(Unanswered::NotHere));
    rig.link(ETH0, |link| link.nets = vec!["192.168.8.11/22".parse().unwrap()]);
    assert_eq!(rig.run_for(10_000), []);
    rig.link(ETH0, |link| link.nets.push("fe80::10/64".parse().unwrap()));
    let announced = rig.run_for(10_000);
    assert_eq!(announced.len(), 3);
    rig.link(ETH0, |link| link.nets.push("fc00::11/64".parse().unwrap()));
    assert_eq!(rig.run_for(10_000), []);
}

#[test]
fn only_usable_interfaces_can_announce() {
    let mut rig = Rig::new();
    assert_eq!(rig.core.announceable(), names(&["eth0", "eth1"]));
    rig.link(ETH1, |link| link.carrier = false);
    assert_eq!(rig.core.announceable(), names(&["eth0"]));
    rig.links(&[]);
    assert_eq!(rig.core.announceable(), names(&[]));
    assert_eq!(Announcer::new(Config::default()).announceable(), names(&[]));
}

#[test]
fn an_address_without_interface_is_complained_about_once() {
    let mut rig = Rig::new();
    let only = |name: &str| Selection::Only(BTreeSet::from([name.parse().unwrap()]));
    let complaint = || vec![Event::NoInterface { ip: ip("192.168.10.1") }];
    rig.core.handle_owned(BTreeMap::from([(ip("192.168.10.1"), only("eth7"))]), rig.now);
    assert_eq!(rig.events(), complaint());
    assert_eq!(rig.core.status().addresses[&ip("192.168.10.1")].interfaces, []);
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
    assert_eq!(rig.run_for(10_000).len(), 10);
    assert_eq!(rig.events(), []);
}

// --- Claims

#[test]
fn a_foreign_claim_is_told_once_a_second_and_each_is_counted() {
    let mut rig = Rig::owning(&["192.168.10.1", "fc00::1"]);
    let gratuitous = || Message::Arp(arp("192.168.10.1", "192.168.10.1"));
    let claimed = || {
        let interface = "eth0".parse().unwrap();
        vec![Event::Claimed { ip: ip("192.168.10.1"), mac: CLIENT, interface }]
    };
    assert_eq!(rig.hear(ETH0, gratuitous()), Err(Unanswered::ForeignClaim));
    assert_eq!(rig.events(), claimed());
    rig.run_for(999);
    assert_eq!(rig.hear(ETH0, gratuitous()), Err(Unanswered::ForeignClaim));
    assert_eq!(rig.events(), []);
    rig.run_for(1);
    assert_eq!(rig.hear(ETH0, gratuitous()), Err(Unanswered::ForeignClaim));
    assert_eq!(rig.events(), claimed());
    let status = &rig.core.status().addresses[&ip("192.168.10.1")];
    assert_eq!((status.foreign_claims, status.claimed_by), (3, Some(CLIENT)));
    assert_eq!(rig.sent(), []);
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
    let status = rig.core.status();
    let interface = |name: &str| &status.interfaces[&name.parse().unwrap()];
    assert_eq!(*interface("eth0"), InterfaceStatus { mac: Some(MAC0), obstacle: None });
    assert_eq!(interface("eth1").obstacle, Some("has no carrier"));
    let address = &status.addresses[&ip("192.168.10.1")];
    assert_eq!((address.answers, address.announcing), (1, false));
    assert_eq!(address.interfaces, ["eth0".parse().unwrap()]);
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

    /// Owns these since long ago: everything is announced.
    fn owning(ips: &[&str]) -> Self {
        let mut rig = Self::new();
        rig.own(ips);
        rig.run_for(10_000);
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
const STRANGER: MacAddr = MacAddr([0x02, 0x77, 0, 0, 1, 2]);

#[expect(clippy::disallowed_methods, reason = "virtual time needs one real instant to start from")]
fn start() -> Instant {
    Instant::now()
}

fn eth0() -> Link {
    Link {
        name: "eth0".parse().unwrap(),
        mac: Some(MAC0),
        up: true,
        carrier: true,
        carrier_ups: 1,
        loopback: false,
        no_arp: false,
        point_to_point: false,
        master: None,
        nets: vec!["192.168.8.11/22".parse().unwrap(), "fe80::10/64".parse().unwrap()],
        mtu: 1500,
    }
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
