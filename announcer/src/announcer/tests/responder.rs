//! Forms of questions, and changes of interfaces, case by case.

use super::*;

#[test]
fn a_probe_is_answered_so_that_the_prober_yields() {
    let mut rig = Rig::owning(&["192.168.10.1"]);
    assert_eq!(rig.hear(ETH0, arp_request("0.0.0.0", "192.168.10.1")), Ok(()));
    let [(ETH0, Message::Arp(reply))] = rig.sent()[..] else { panic!("no reply") };
    //= https://www.rfc-editor.org/rfc/rfc5227#section-2.1.1
    //# If during this period [...] the host receives any ARP packet where the packet's sender IP address is the address
    //# being probed for, then the host MUST treat this address as being in use by some other host.
    assert_eq!((reply.sender_ip, reply.sender_mac), (v4("192.168.10.1"), MAC0));
    assert_eq!((reply.target_ip, reply.target_mac), (Ipv4Addr::UNSPECIFIED, CLIENT));
    assert_eq!(reply.ethernet.destination, CLIENT);
}

#[test]
fn a_request_whose_frame_comes_from_another_address_is_answered_where_it_says() {
    let mut rig = Rig::owning(&["192.168.10.1"]);
    let mut relayed = arp("192.168.8.200", "192.168.10.1");
    relayed.ethernet.source = STRANGER;
    assert_eq!(rig.hear(ETH0, Message::Arp(relayed)), Ok(()));
    let [(ETH0, Message::Arp(reply))] = rig.sent()[..] else { panic!("no reply") };
    assert_eq!((reply.ethernet.destination, reply.target_mac), (CLIENT, CLIENT));
}

#[test]
fn a_solicitation_that_was_routed_is_not_answered() {
    let mut rig = Rig::owning(&["fc00::1"]);
    let mut routed = solicitation("fc00::200", "fc00::1").emit().to_vec();
    routed[21] = 254;
    let heard = rig.core.handle_frame(ETH0, &routed, rig.now);
    assert_eq!(heard.map_err(Unanswered::reason), Err("hop_limit"));
    assert_eq!(rig.sent(), []);
}

#[test]
fn tagged_questions_are_not_answered() {
    let mut rig = Rig::owning(&["192.168.10.1", "fc00::1"]);
    for question in [arp_request("192.168.8.200", "192.168.10.1"), solicitation("fc00::200", "fc00::1")] {
        let mut tagged = question.emit().to_vec();
        tagged.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
        let heard = rig.core.handle_frame(ETH0, &tagged, rig.now);
        assert_eq!(heard.map_err(Unanswered::reason), Err("tagged"));
    }
    assert_eq!(rig.sent(), []);
}

#[test]
fn an_interface_with_another_name_hears_the_announcements_and_obeys_the_advertisements() {
    let mut rig = Rig::new();
    rig.core.handle_owned(BTreeMap::from([(ip("192.168.10.1"), names(&["lan7"]))]), rig.now);
    assert_eq!(rig.run_for(10_000), []);
    rig.link(ETH0, |link| link.name = "lan7".parse().unwrap());
    let announced = rig.run_for(10_000);
    assert!(!announced.is_empty() && announced.iter().all(|(_, interface, _)| *interface == ETH0));
    rig.link(ETH0, |link| link.name = "eth0".parse().unwrap());
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.1")), Err(Unanswered::NotHere));
}

#[test]
fn a_card_that_becomes_a_port_leaves_the_address_to_its_bridge() {
    let mut rig = Rig::owning(&["192.168.10.1"]);
    rig.link(ETH0, |link| link.master = Some(ETH1));
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.1")), Err(Unanswered::Interface));
    assert_eq!(rig.hear(ETH1, arp_request("192.168.8.200", "192.168.10.1")), Ok(()));
    rig.sent();
    rig.link(ETH0, |link| link.master = None);
    assert!(rig.sent().iter().any(|(interface, _)| *interface == ETH0), "it announces again when it is free");
}

#[test]
fn excluded_interfaces_are_those_of_the_patterns() {
    let excluded = Excluded::new(["^eth1$"]).unwrap();
    let mut rig = Rig::new();
    rig.core = Announcer::new(Config { excluded, ..Config::default() });
    let snapshot = rig.snapshot.clone();
    rig.core.handle_links(snapshot, rig.now);
    rig.own(&["192.168.10.1"]);
    assert_eq!(rig.hear(ETH1, arp_request("192.168.8.200", "192.168.10.1")), Err(Unanswered::Interface));
    assert_eq!(rig.hear(ETH0, arp_request("192.168.8.200", "192.168.10.1")), Ok(()));
}
