//! Directed requests, their answers, and what is remembered of who asked.

use garpike_election::NodeName;

use super::*;

#[test]
fn a_gateway_is_asked_by_arp_in_the_name_of_the_gained_address_and_acknowledges() {
    let mut rig = Rig::behind_gateways();
    rig.own(&["192.168.10.1"]);
    let frames: Vec<Frame> = std::iter::from_fn(|| rig.core.poll_transmit()).collect();
    let question = [
        0x02, 0x77, 0, 0, 0, 0xfe, // to the gateway
        0x02, 0x77, 0, 0, 0, 1, // from this node
        0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1, // ARP request
        0x02, 0x77, 0, 0, 0, 1, 192, 168, 10, 1, // the service IP asks
        0, 0, 0, 0, 0, 0, 192, 168, 8, 1, // for the gateway
    ];
    let kinds = [FrameKind::Announcement, FrameKind::Directed, FrameKind::Announcement];
    assert_eq!(frames.iter().map(|frame| frame.kind).collect::<Vec<_>>(), kinds);
    assert_eq!(&*frames[1].bytes, &question[..]);

    rig.run_for(2);
    let answer = [
        0x02, 0x77, 0, 0, 0, 1, // to this node
        0x02, 0x77, 0, 0, 0, 0xfe, // from the gateway
        0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2, // ARP reply
        0x02, 0x77, 0, 0, 0, 0xfe, 192, 168, 8, 1, // the gateway is here
        0x02, 0x77, 0, 0, 0, 1, 192, 168, 10, 1, // tells it to the service IP
    ];
    assert_eq!(rig.core.handle_frame(ETH0, &answer, rig.now), Err(Unanswered::Acknowledgement));
    assert_eq!(rig.acknowledged(), [(ip("192.168.10.1"), GATEWAY, Duration::from_millis(2))]);
    assert_eq!(rig.core.handle_frame(ETH0, &answer, rig.now), Err(Unanswered::NotAsked), "again");

    let status = &rig.status().addresses[&ip("192.168.10.1")];
    assert_eq!(status.acknowledged, Some(Acknowledgement { mac: GATEWAY, after_ms: 2 }));
    let times = (status.announced_unix_ms, status.next_announcement_unix_ms);
    assert_eq!(times, (Some(1_799_999_999_998), Some(1_800_000_000_048)));
    assert_eq!(status.unacknowledged, [] as [IpAddr; 0]);
    let last = rig.said_of("192.168.10.1", 90_000).into_iter().max();
    assert_eq!(last, Some(2998), "neither asked again nor announced for longer");
}

#[test]
fn a_gateway_is_asked_by_a_solicitation_from_the_gained_address_and_acknowledges() {
    let mut rig = Rig::behind_gateways();
    rig.own(&["fc00::1"]);
    let frames: Vec<Frame> = std::iter::from_fn(|| rig.core.poll_transmit()).collect();
    let question = [
        0x02, 0x77, 0, 0, 0, 0xfe, // to the gateway
        0x02, 0x77, 0, 0, 0, 1, // from this node
        0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255, // IPv6
        0xfc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // from the service IP
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // to the gateway
        135, 0, 0x7c, 0x26, 0, 0, 0, 0, // solicitation
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // where is the gateway?
        1, 1, 0x02, 0x77, 0, 0, 0, 1, // tell this node
    ];
    assert_eq!(
        frames.iter().map(|frame| frame.kind).collect::<Vec<_>>(),
        [FrameKind::Announcement, FrameKind::Directed]
    );
    assert_eq!(&*frames[1].bytes, &question[..]);

    // Asked by unicast, Linux leaves its Ethernet address out.
    let answer = |destination_ip, solicited| {
        Message::NeighborAdvertisement(NeighborAdvertisement {
            ethernet: Ethernet { destination: MAC0, source: GATEWAY },
            source_ip: v6("fe80::1"),
            destination_ip,
            target: v6("fe80::1"),
            target_mac: None,
            flags: NaFlags { router: true, solicited, overrides: true },
        })
    };
    assert_eq!(rig.hear(ETH0, answer(v6("fc00::1"), false)), Err(Unanswered::Station), "nobody asked for that one");
    assert_eq!(rig.hear(ETH0, answer(v6("fe80::10"), true)), Err(Unanswered::NotAsked), "to another address");
    assert_eq!(rig.acknowledged(), []);
    assert_eq!(rig.hear(ETH0, answer(v6("fc00::1"), true)), Err(Unanswered::Acknowledgement));
    assert_eq!(rig.acknowledged(), [(ip("fc00::1"), GATEWAY, Duration::ZERO)]);
}

#[test]
fn the_first_to_acknowledge_is_told_and_all_are_waited_for() {
    let mut rig = Rig::behind_gateways();
    rig.elsewhere(&["192.168.10.1"]);
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.1")), Err(Unanswered::NotOwned));
    rig.own(&["192.168.10.1"]);
    let asked: Vec<IpAddr> = rig.directed().into_iter().map(|message| message.target()).collect();
    assert_eq!(asked, ["192.168.8.1", "192.168.8.200"].map(|text| text.parse::<IpAddr>().unwrap()));

    assert_eq!(rig.hear(ETH0, to_vip(answer(CLIENT, MAC0))), Err(Unanswered::Acknowledgement));
    assert_eq!(rig.acknowledged().len(), 1);
    let status = |rig: &Rig| rig.status().addresses[&ip("192.168.10.1")].clone();
    assert_eq!(status(&rig).acknowledged, Some(Acknowledgement { mac: CLIENT, after_ms: 0 }));
    assert_eq!(status(&rig).unacknowledged, ["192.168.8.1".parse::<IpAddr>().unwrap()]);
    rig.run_for(40);
    assert_eq!(rig.run_for(20).len(), 3, "both forms, and the gateway again");

    assert_eq!(rig.hear(ETH0, to_vip(gateway_answer(GATEWAY))), Err(Unanswered::Acknowledgement));
    assert_eq!(rig.acknowledged(), [], "it is not the first");
    assert_eq!(status(&rig).unacknowledged, [] as [IpAddr; 0]);
}

#[test]
fn a_station_that_asks_this_node_and_nobody_else_has_switched() {
    let mut rig = Rig::new();
    rig.elsewhere(&["192.168.10.1"]);
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.1")), Err(Unanswered::NotOwned));
    rig.own(&["192.168.10.1"]);
    rig.run_for(20);
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.1")), Ok(()));
    assert_eq!(rig.acknowledged(), [], "it asked everybody");
    let mut probe = arp("192.168.8.200", "192.168.10.1");
    probe.ethernet.destination = MAC0;
    assert_eq!(rig.hear(ETH0, Message::Arp(probe)), Ok(()));
    assert_eq!(rig.acknowledged(), [(ip("192.168.10.1"), CLIENT, Duration::from_millis(20))]);
}

#[test]
fn where_no_station_was_known_the_first_that_asks_is_asked_in_return() {
    let mut rig = Rig::new();
    rig.own(&["192.168.10.1"]);
    assert_eq!(rig.said_of("192.168.10.1", 4000).len(), 2 * 10, "on both interfaces");
    for station in ["192.168.8.200", "192.168.8.201"] {
        assert_eq!(rig.hear(ETH0, arp_request(station, "192.168.10.1")), Ok(()));
    }
    rig.core.handle_timeout(rig.now);
    let [question] = rig.directed()[..] else { panic!("one is enough") };
    assert_eq!((question.target(), question.ethernet().destination), (v4("192.168.8.200").into(), CLIENT));
    assert_eq!(rig.hear(ETH0, to_vip(answer(CLIENT, MAC0))), Err(Unanswered::Acknowledgement));
    assert_eq!(rig.acknowledged().len(), 1);
    let on_eth0 = rig.run_for(90_000).into_iter().filter(|(_, interface, _)| *interface == ETH0);
    assert_eq!(on_eth0.count(), 0, "the rest of the tail");
}

#[test]
fn members_are_neither_asked_nor_heard() {
    let mut rig = Rig::behind_gateways();
    rig.core.handle_members(BTreeSet::from([GATEWAY, CLIENT]));
    rig.elsewhere(&["192.168.10.1"]);
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.1")), Err(Unanswered::NotOwned));
    rig.own(&["192.168.10.1"]);
    assert_eq!(rig.directed(), []);
    assert_eq!(rig.hear(ETH0, to_vip(gateway_answer(GATEWAY))), Err(Unanswered::NotAsked));
    assert_eq!(rig.acknowledged(), []);

    rig.core.handle_members(BTreeSet::new());
    rig.core.reannounce(rig.now);
    assert_eq!(rig.directed().len(), 1, "the gateway");
    rig.core.handle_members(BTreeSet::from([GATEWAY, CLIENT]));
    rig.now += Duration::from_millis(50);
    rig.core.handle_timeout(rig.now);
    assert_eq!(rig.directed(), [], "it turns out to be a member");
}

#[test]
fn a_gateway_that_nobody_knows_yet_is_looked_for_everywhere_and_asked_at_its_mac_once_it_is_found() {
    let mut rig = Rig::new();
    rig.gateways(&[("192.168.8.1", None)]);
    rig.sent();
    rig.own(&["192.168.10.1"]);
    let to =
        |rig: &mut Rig| rig.directed().into_iter().map(|message| message.ethernet().destination).collect::<Vec<_>>();
    assert_eq!(to(&mut rig), [MacAddr::BROADCAST]);
    rig.hear(ETH0, gateway_answer(GATEWAY)).unwrap_err();
    rig.now += Duration::from_millis(50);
    rig.core.handle_timeout(rig.now);
    assert_eq!(to(&mut rig), [GATEWAY]);
}

#[test]
fn of_many_gained_addresses_those_that_were_asked_for_here_or_elsewhere_come_first() {
    let all: Vec<String> = (1..=250).map(|n| format!("192.168.10.{n}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let mut rig = Rig::new();
    rig.links(&[(ETH0, eth0())]);
    rig.elsewhere(&all);
    for asked in ["192.168.10.250", "192.168.10.77"] {
        assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", asked)), Err(Unanswered::NotOwned));
    }
    rig.own(&all);
    let first: Vec<IpAddr> = rig.sent().into_iter().map(|(_, message)| message.target()).take(3).collect();
    assert_eq!(first, ["192.168.10.77", "192.168.10.250", "192.168.10.1"].map(|text| text.parse::<IpAddr>().unwrap()));
}

#[test]
fn nobody_is_remembered_who_asks_for_what_no_node_owns_or_says_no_address_of_his_own() {
    let mut rig = Rig::new();
    rig.elsewhere(&["192.168.10.1", "192.168.10.2"]);
    rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.3")).unwrap_err();
    rig.hear(ETH0, arp_request("0.0.0.0", "192.168.10.1")).unwrap_err();
    let nowhere = Arp { sender_mac: MacAddr::BROADCAST, ..arp("192.168.8.200", "192.168.10.2") };
    rig.hear(ETH0, Message::Arp(nowhere)).unwrap_err();
    rig.own(&["192.168.10.1", "192.168.10.2", "192.168.10.3"]);
    assert_eq!(rig.directed(), []);
}

#[test]
fn the_filter_lets_questions_for_addresses_of_others_in() {
    let mut rig = Rig::new();
    rig.elsewhere(&["192.168.10.1"]);
    assert_eq!(rig.core.prefixes().v4, ["192.168.10.1/32".parse().unwrap()]);
    assert_eq!(rig.core.groups(), BTreeSet::new());
}

#[test]
fn after_a_heal_the_owner_speaks_for_three_seconds_and_asks_again() {
    let mut rig = Rig::behind_gateways();
    rig.own(&["192.168.10.1"]);
    rig.run_for(20_000);
    rig.hear(ETH0, to_vip(gateway_answer(GATEWAY))).unwrap_err();
    assert_eq!(rig.acknowledged().len(), 1);
    assert_eq!(rig.said_of("192.168.10.1", 30_000), [] as [u128; 0]);

    rig.core.reannounce(rig.now);

    let directed = rig.directed();
    assert_eq!(directed.len(), 1, "the gateway may have followed somebody else");
    assert_eq!(rig.said_of("192.168.10.1", 30_000).into_iter().max(), Some(3000));
    assert_eq!(rig.acknowledged(), [], "the address was not gained");
}

#[test]
fn a_request_for_an_address_that_is_lost_does_not_leave_any_more() {
    let mut rig = Rig::behind_gateways();
    rig.own(&["192.168.10.1"]);
    let directed = std::iter::from_fn(|| rig.core.poll_transmit()).find(|frame| frame.kind == FrameKind::Directed);
    assert!(rig.core.still_wants(&directed.unwrap()));
    rig.own(&[]);
    assert!(!rig.core.still_wants(&directed.unwrap()));
    assert_ne!(rig.hear(ETH0, to_vip(gateway_answer(GATEWAY))), Err(Unanswered::Acknowledgement));
}

impl Rig {
    /// With a gateway of each family behind eth0 that has answered.
    fn behind_gateways() -> Self {
        let mut rig = Self::new();
        rig.links(&[(ETH0, eth0())]);
        rig.gateways(&[("192.168.8.1", Some(GATEWAY)), ("fe80::1", Some(GATEWAY))]);
        rig.sent();
        rig
    }

    fn gateways(&mut self, gateways: &[(&str, Option<MacAddr>)]) {
        let gateways = gateways.iter().map(|(ip, mac)| (ip.parse().unwrap(), *mac)).collect();
        self.core.handle_gateways(&Gateways { gateways: BTreeMap::from([(ETH0, gateways)]) }, self.now);
    }

    fn elsewhere(&mut self, ips: &[&str]) {
        let owner: NodeName = "other".parse().unwrap();
        self.core.peers.elsewhere = ips.iter().map(|text| (ip(text), owner.clone())).collect();
    }

    /// The directed requests among what waits to be sent.
    fn directed(&mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.core.poll_transmit())
            .filter(|frame| frame.kind == FrameKind::Directed)
            .map(|frame| wire::parse(&frame.bytes).unwrap())
            .collect()
    }

    /// Lets time pass and gives when the node said where an address is.
    fn said_of(&mut self, ip: &str, ms: u64) -> Vec<u128> {
        let ip: IpAddr = ip.parse().unwrap();
        let says = |message: &Message| message.claim().is_some_and(|claim| claim.ip == ip);
        self.run_for(ms).into_iter().filter(|(_, _, message)| says(message)).map(|(at, ..)| at).collect()
    }

    fn acknowledged(&mut self) -> Vec<(ServiceIp, MacAddr, Duration)> {
        let acknowledged = |event| {
            let Event::Acknowledged { ip, mac, after } = event else { return None };
            Some((ip, mac, after))
        };
        self.events().into_iter().filter_map(acknowledged).collect()
    }
}

/// The same answer to 192.168.10.1.
fn to_vip(answer: Message) -> Message {
    let Message::Arp(answer) = answer else { unreachable!("an answer is ARP") };
    Message::Arp(Arp { target_ip: v4("192.168.10.1"), ..answer })
}

const GATEWAY: MacAddr = MacAddr([0x02, 0x77, 0, 0, 0, 0xfe]);
