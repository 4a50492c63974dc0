use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::icmpv6::{Icmpv6PayloadSlice, NdpOptionSlice};
use etherparse::{Icmpv6Slice, LinkSlice, NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;

mod differential;

/// `arping -c 1 -I eth0 192.168.10.1` of a Linux host.
const ARP_REQUEST: [u8; 42] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x77, 0x00, 0x00, 0x01, 0x01, 0x08, 0x06, // Ethernet
    0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01, // Ethernet, IPv4, request
    0x02, 0x77, 0x00, 0x00, 0x01, 0x01, 192, 168, 8, 200, // sender
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 192, 168, 10, 1, // target
];

/// An unsolicited advertisement; the checksum was computed with another program.
const ADVERTISEMENT: [u8; 86] = [
    0x33, 0x33, 0x00, 0x00, 0x00, 0x01, 0x02, 0x77, 0x00, 0x00, 0x00, 0x01, 0x86, 0xdd, // Ethernet
    0x60, 0x00, 0x00, 0x00, 0x00, 0x20, 0x3a, 0xff, // IPv6: 32 bytes of ICMPv6, hop limit 255
    0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, // from fe80::1
    0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, // to ff02::1
    0x88, 0x00, 0x59, 0xa0, 0x20, 0x00, 0x00, 0x00, // advertisement, override
    0xfc, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x05, // target fc00::5
    0x02, 0x01, 0x02, 0x77, 0x00, 0x00, 0x00, 0x01, // target link-layer address
];

#[test]
fn an_arp_request_is_read_and_written() {
    let request = Message::Arp(Arp {
        ethernet: Ethernet { destination: MacAddr::BROADCAST, source: CLIENT },
        operation: ArpOperation::Request,
        sender_mac: CLIENT,
        sender_ip: Ipv4Addr::new(192, 168, 8, 200),
        target_mac: MacAddr::ZERO,
        target_ip: Ipv4Addr::new(192, 168, 10, 1),
    });
    assert_eq!(parse(&ARP_REQUEST), Ok(request));
    assert_eq!(*request.emit(), ARP_REQUEST);
}

#[test]
fn an_unsolicited_advertisement_is_read_and_written() {
    let advertisement = Message::NeighborAdvertisement(NeighborAdvertisement {
        ethernet: Ethernet { destination: multicast_mac(ALL_NODES), source: NODE },
        source_ip: v6("fe80::1"),
        destination_ip: ALL_NODES,
        target: v6("fc00::5"),
        target_mac: Some(NODE),
        flags: NaFlags { router: false, solicited: false, overrides: true },
    });
    assert_eq!(*advertisement.emit(), ADVERTISEMENT);
    assert_eq!(parse(&ADVERTISEMENT), Ok(advertisement));
}

#[test]
fn padding_behind_the_message_is_accepted() {
    for frame in [ARP_REQUEST.as_slice(), &ADVERTISEMENT] {
        let mut padded = frame.to_vec();
        padded.extend([0xa5; 18]);
        assert_eq!(parse(&padded), parse(frame));
    }
}

#[test]
fn every_cut_is_truncated() {
    for frame in [ARP_REQUEST.as_slice(), &ADVERTISEMENT] {
        for len in 0..frame.len() {
            assert_eq!(parse(&frame[..len]), Err(Ignored::Truncated), "at {len}");
        }
    }
}

#[test]
fn each_defect_has_its_reason() {
    let table: [(&[u8], usize, u8, Ignored); 16] = [
        (&ARP_REQUEST, 12, 0x88, Ignored::EtherType),
        (&ARP_REQUEST, 15, 6, Ignored::ArpFormat),
        (&ARP_REQUEST, 16, 0x86, Ignored::ArpFormat),
        (&ARP_REQUEST, 18, 8, Ignored::ArpFormat),
        (&ARP_REQUEST, 19, 16, Ignored::ArpFormat),
        (&ARP_REQUEST, 21, 3, Ignored::ArpOperation),
        (&ADVERTISEMENT, 14, 0x40, Ignored::IpVersion),
        (&ADVERTISEMENT, 20, 0, Ignored::NotIcmpv6),
        (&ADVERTISEMENT, 21, 254, Ignored::HopLimit),
        (&ADVERTISEMENT, 54, 134, Ignored::IcmpType),
        (&ADVERTISEMENT, 55, 1, Ignored::IcmpCode),
        (&ADVERTISEMENT, 62, 0xff, Ignored::MulticastTarget),
        (&ADVERTISEMENT, 22, 0xff, Ignored::MulticastSource),
        (&ADVERTISEMENT, 58, 0x60, Ignored::Addressing),
        (&ADVERTISEMENT, 79, 0, Ignored::Option),
        (&ADVERTISEMENT, 79, 2, Ignored::Option),
    ];
    for (frame, at, value, expected) in table {
        let mut broken = frame.to_vec();
        broken[at] = value;
        if frame.len() == ADVERTISEMENT.len() {
            repair_checksum(&mut broken);
        }
        assert_eq!(parse(&broken), Err(expected), "byte {at} = {value}");
    }
}

#[test]
fn a_wrong_checksum_is_ignored() {
    for at in [23, 40, 56, 60, 70, 85] {
        let mut broken = ADVERTISEMENT;
        broken[at] ^= 0x10;
        assert_eq!(parse(&broken), Err(Ignored::Checksum), "byte {at}");
    }
}

#[test]
fn tagged_frames_are_ignored() {
    for tag in [[0x81, 0x00, 0x00, 0x05], [0x88, 0xa8, 0x00, 0x05]] {
        let mut tagged = ARP_REQUEST.to_vec();
        tagged.splice(12..12, tag);
        assert_eq!(parse(&tagged), Err(Ignored::Tagged));
    }
}

#[test]
fn a_probe_for_duplicates_with_a_source_address_option_is_ignored() {
    let probe = NeighborSolicitation {
        ethernet: Ethernet { destination: multicast_mac(solicited_node(v6("fc00::5"))), source: CLIENT },
        source_ip: Ipv6Addr::UNSPECIFIED,
        destination_ip: solicited_node(v6("fc00::5")),
        target: v6("fc00::5"),
        source_mac: None,
    };
    assert_eq!(parse(&probe.emit()), Ok(Message::NeighborSolicitation(probe)));
    let with_option = NeighborSolicitation { source_mac: Some(CLIENT), ..probe };
    assert_eq!(parse(&with_option.emit()), Err(Ignored::Addressing));
    let to_target = NeighborSolicitation { destination_ip: probe.target, ..probe };
    assert_eq!(parse(&to_target.emit()), Err(Ignored::Addressing));
}

#[test]
fn unknown_options_are_passed_over() {
    let mut with_nonce = ADVERTISEMENT.to_vec();
    with_nonce.splice(78..78, [14, 1, 1, 2, 3, 4, 5, 6]);
    with_nonce[19] += 8;
    repair_checksum(&mut with_nonce);
    assert_eq!(parse(&with_nonce), parse(&ADVERTISEMENT));
}

#[test]
fn who_claims_what() {
    let arp = |sender, target| Arp {
        ethernet: Ethernet { destination: MacAddr::BROADCAST, source: NODE },
        operation: ArpOperation::Request,
        sender_mac: CLIENT,
        sender_ip: sender,
        target_mac: MacAddr::ZERO,
        target_ip: target,
    };
    let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let claim = |ip: IpAddr| Some(Claim { ip, mac: CLIENT });
    assert_eq!(Message::Arp(arp(a, b)).claim(), claim(a.into()));
    assert_eq!(Message::Arp(arp(Ipv4Addr::UNSPECIFIED, b)).claim(), None);
    assert!(Message::Arp(arp(a, a)).is_gratuitous());
    assert!(!Message::Arp(arp(a, b)).is_gratuitous());

    let Ok(Message::NeighborAdvertisement(advertisement)) = parse(&ADVERTISEMENT) else { panic!("is one") };
    let claimed = Claim { ip: "fc00::5".parse().unwrap(), mac: NODE };
    assert_eq!(Message::NeighborAdvertisement(advertisement).claim(), Some(claimed));
    let bare = NeighborAdvertisement { target_mac: None, ..advertisement };
    assert_eq!(Message::NeighborAdvertisement(bare).claim(), None);

    let solicitation = NeighborSolicitation {
        ethernet: Ethernet { destination: NODE, source: CLIENT },
        source_ip: v6("fc00::200"),
        destination_ip: v6("fc00::5"),
        target: v6("fc00::5"),
        source_mac: Some(CLIENT),
    };
    assert_eq!(Message::NeighborSolicitation(solicitation).claim(), claim("fc00::200".parse().unwrap()));
}

#[test]
fn solicited_node_groups_have_the_last_three_bytes() {
    assert_eq!(solicited_node(v6("fc00:f853:ccd:e799::ab:1234:5678")), v6("ff02::1:ff34:5678"));
    assert_eq!(multicast_mac(v6("ff02::1:ff34:5678")).to_string(), "33:33:ff:34:56:78");
}

proptest! {
    #[test]
    fn what_is_emitted_is_read_back(message in message()) {
        prop_assert_eq!(parse(&message.emit()), Ok(message));
    }

    #[test]
    fn etherparse_reads_the_same(message in message()) {
        let bytes = message.emit();
        let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
        let Some(LinkSlice::Ethernet2(ethernet)) = &packet.link else { panic!("no Ethernet header") };
        prop_assert_eq!(ethernet.source(), message.ethernet().source.0);
        prop_assert_eq!(ethernet.destination(), message.ethernet().destination.0);
        match message {
            Message::Arp(arp) => {
                let Some(NetSlice::Arp(theirs)) = &packet.net else { panic!("no ARP") };
                let theirs = theirs.to_packet().try_eth_ipv4().unwrap();
                prop_assert_eq!(theirs.operation.0, match arp.operation {
                    ArpOperation::Request => 1,
                    ArpOperation::Reply => 2,
                });
                prop_assert_eq!(theirs.sender_mac, arp.sender_mac.0);
                prop_assert_eq!(theirs.sender_ipv4, arp.sender_ip.octets());
                prop_assert_eq!(theirs.target_mac, arp.target_mac.0);
                prop_assert_eq!(theirs.target_ipv4, arp.target_ip.octets());
            }
            Message::NeighborSolicitation(ours) => {
                let (icmp, payload) = icmpv6(&packet, ours.source_ip, ours.destination_ip);
                let Icmpv6PayloadSlice::NeighborSolicitation(theirs) = payload else { panic!("{icmp:?}") };
                prop_assert_eq!(theirs.target_address(), ours.target);
                let options: Vec<_> = theirs.options_iterator().map(Result::unwrap).collect();
                let mac = options.iter().map(|option| {
                    let NdpOptionSlice::SourceLinkLayerAddress(option) = option else { panic!("{option:?}") };
                    option.link_layer_address().to_vec()
                });
                prop_assert_eq!(mac.collect::<Vec<_>>(), ours.source_mac.iter().map(|mac| mac.0.to_vec()).collect::<Vec<_>>());
            }
            Message::NeighborAdvertisement(ours) => {
                let (icmp, payload) = icmpv6(&packet, ours.source_ip, ours.destination_ip);
                let etherparse::Icmpv6Type::NeighborAdvertisement(header) = icmp.icmp_type() else { panic!("{icmp:?}") };
                prop_assert_eq!(header.router, ours.flags.router);
                prop_assert_eq!(header.solicited, ours.flags.solicited);
                prop_assert_eq!(header.r#override, ours.flags.overrides);
                let Icmpv6PayloadSlice::NeighborAdvertisement(theirs) = payload else { panic!("{icmp:?}") };
                prop_assert_eq!(theirs.target_address(), ours.target);
                let options: Vec<_> = theirs.options_iterator().map(Result::unwrap).collect();
                let mac = options.iter().map(|option| {
                    let NdpOptionSlice::TargetLinkLayerAddress(option) = option else { panic!("{option:?}") };
                    option.link_layer_address().to_vec()
                });
                prop_assert_eq!(mac.collect::<Vec<_>>(), ours.target_mac.iter().map(|mac| mac.0.to_vec()).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn damaged_messages_are_read_without_panic(
        message in message(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        repaired in any::<bool>(),
    ) {
        let mut bytes = message.emit().to_vec();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if repaired && bytes.len() > 58 {
            repair_checksum(&mut bytes);
        }
        if let Ok(message) = parse(&bytes) {
            // Reserved bits and unknown options are lost; the rest survives.
            prop_assert_eq!(parse(&message.emit()), Ok(message));
        }
    }
}

const CLIENT: MacAddr = MacAddr([0x02, 0x77, 0, 0, 1, 1]);
const NODE: MacAddr = MacAddr([0x02, 0x77, 0, 0, 0, 1]);

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// The ICMPv6 part as etherparse sees it, after a check of its checksum and of the IPv6 header.
fn icmpv6<'a>(
    packet: &SlicedPacket<'a>,
    source: Ipv6Addr,
    destination: Ipv6Addr,
) -> (Icmpv6Slice<'a>, Icmpv6PayloadSlice<'a>) {
    let Some(NetSlice::Ipv6(ip)) = &packet.net else { panic!("no IPv6") };
    assert_eq!(ip.header().source_addr(), source);
    assert_eq!(ip.header().destination_addr(), destination);
    assert_eq!(ip.header().hop_limit(), 255);
    let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else { panic!("no ICMPv6") };
    assert!(icmp.is_checksum_valid(source.octets(), destination.octets()));
    (icmp.clone(), icmp.payload_slice().unwrap())
}

/// Puts the checksum that etherparse computes into a frame.
fn repair_checksum(frame: &mut [u8]) {
    let (mut source, mut destination) = ([0; 16], [0; 16]);
    source.copy_from_slice(&frame[22..38]);
    destination.copy_from_slice(&frame[38..54]);
    frame[56..58].fill(0);
    let body = &frame[54..];
    let sum = etherparse::checksum::Sum16BitWords::new()
        .add_16bytes(source)
        .add_16bytes(destination)
        .add_4bytes(u32::try_from(body.len()).unwrap().to_be_bytes())
        .add_2bytes([0, 58])
        .add_slice(body)
        .ones_complement();
    frame[56..58].copy_from_slice(&sum.to_ne_bytes());
}

fn message() -> impl Strategy<Value = Message> {
    let mac = || any::<[u8; 6]>().prop_map(MacAddr);
    let v4 = || any::<[u8; 4]>().prop_map(Ipv4Addr::from);
    let v6 = || any::<[u8; 16]>().prop_map(Ipv6Addr::from).prop_filter("is unicast", |ip| !ip.is_multicast());
    let ethernet = || (mac(), mac()).prop_map(|(destination, source)| Ethernet { destination, source });
    let operation = prop_oneof![Just(ArpOperation::Request), Just(ArpOperation::Reply)];
    let arp = (ethernet(), operation, mac(), v4(), mac(), v4()).prop_map(
        |(ethernet, operation, sender_mac, sender_ip, target_mac, target_ip)| {
            Message::Arp(Arp { ethernet, operation, sender_mac, sender_ip, target_mac, target_ip })
        },
    );
    let option = || proptest::option::of(mac());
    let solicitation = (ethernet(), v6(), v6(), v6(), option()).prop_map(
        |(ethernet, source_ip, destination_ip, target, source_mac)| {
            let ns = NeighborSolicitation { ethernet, source_ip, destination_ip, target, source_mac };
            Message::NeighborSolicitation(ns)
        },
    );
    let probe = (ethernet(), v6()).prop_map(|(ethernet, target)| {
        let (source_ip, destination_ip) = (Ipv6Addr::UNSPECIFIED, solicited_node(target));
        let ns = NeighborSolicitation { ethernet, source_ip, destination_ip, target, source_mac: None };
        Message::NeighborSolicitation(ns)
    });
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let advertisement = (ethernet(), v6(), proptest::option::of(v6()), v6(), option(), flags).prop_map(
        |(ethernet, source_ip, asker, target, target_mac, (router, solicited, overrides))| {
            let destination_ip = asker.unwrap_or(ALL_NODES);
            let flags = NaFlags { router, solicited: solicited && asker.is_some(), overrides };
            let na = NeighborAdvertisement { ethernet, source_ip, destination_ip, target, target_mac, flags };
            Message::NeighborAdvertisement(na)
        },
    );
    prop_oneof![arp, solicitation, probe, advertisement]
}
