//! Frames that anybody might send, read by us and by etherparse. Both read the same, but for what is said below.
//!
//! etherparse dissects and does not judge: that a hop limit is 255, a checksum right, a target no group and so on is asked
//! of its fields here, in the order of RFC 4861 section 7.1. Deliberate differences:
//!
//! * a payload length of 0 means to etherparse that the packet goes on to the end of the frame (jumbograms); to us it is 0;
//! * options that are not asked for may have any length here, while etherparse knows some of them;
//! * where the wanted option is there twice, the first one counts.

use etherparse::icmpv6::NdpOptionsIterator;
use etherparse::{EtherType, IpNumber};

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn damaged_messages_are_read_as_etherparse_reads_them(
        message in message(),
        options in proptest::collection::vec(option(), 0..4),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), value()), 0..4),
        cut in proptest::option::weighted(0.2, any::<proptest::sample::Index>()),
        padding in 0_usize..20,
        repaired in proptest::bool::weighted(0.8),
    ) {
        let mut bytes = message.emit().to_vec();
        let ndp = bytes.len() > 54;
        if ndp {
            bytes.extend(options.concat());
            let body = u16::try_from(bytes.len() - 54).unwrap();
            bytes[18..20].copy_from_slice(&body.to_be_bytes());
        }
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if repaired && ndp {
            repair_checksum(&mut bytes);
        }
        bytes.extend(vec![0; padding]);
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        prop_assert_eq!(parse(&bytes).ok(), theirs(&bytes), "{:02x?}", bytes);
    }

    #[test]
    fn any_bytes_behind_an_ethernet_header_are_read_as_etherparse_reads_them(
        ether_type in prop_oneof![Just(0x0806_u16), Just(0x86dd), Just(0x8100), Just(0x88a8), Just(0x0800), any::<u16>()],
        bytes in proptest::collection::vec(value(), 0..100),
    ) {
        let frame = [&[2; 12][..], &ether_type.to_be_bytes(), &bytes].concat();
        prop_assert_eq!(parse(&frame).ok(), theirs(&frame), "{:02x?}", frame);
    }
}

/// The message as etherparse reads it, if the RFCs let us take it.
fn theirs(frame: &[u8]) -> Option<Message> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(LinkSlice::Ethernet2(header)) = &packet.link else { return None };
    let ethernet = Ethernet { destination: MacAddr(header.destination()), source: MacAddr(header.source()) };
    if !packet.link_exts.is_empty() {
        return None;
    }
    match (header.ether_type(), packet.net.as_ref()?) {
        (EtherType::ARP, NetSlice::Arp(arp)) => {
            let arp = arp.to_packet().try_eth_ipv4().ok()?;
            let operation = match arp.operation.0 {
                1 => ArpOperation::Request,
                2 => ArpOperation::Reply,
                _ => return None,
            };
            Some(Message::Arp(Arp {
                ethernet,
                operation,
                sender_mac: MacAddr(arp.sender_mac),
                sender_ip: arp.sender_ipv4.into(),
                target_mac: MacAddr(arp.target_mac),
                target_ip: arp.target_ipv4.into(),
            }))
        }
        (EtherType::IPV6, NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            if header.next_header() != IpNumber::IPV6_ICMP || header.hop_limit() != 255 || header.payload_length() == 0
            {
                return None;
            }
            let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else { return None };
            their_discovery(ethernet, header.source_addr(), header.destination_addr(), icmp)
        }
        _ => None,
    }
}

fn their_discovery(
    ethernet: Ethernet,
    source_ip: Ipv6Addr,
    destination_ip: Ipv6Addr,
    icmp: &Icmpv6Slice<'_>,
) -> Option<Message> {
    if !icmp.is_checksum_valid(source_ip.octets(), destination_ip.octets()) || source_ip.is_multicast() {
        return None;
    }
    match (icmp.icmp_type(), icmp.payload_slice().ok()?) {
        (etherparse::Icmpv6Type::NeighborSolicitation, Icmpv6PayloadSlice::NeighborSolicitation(theirs)) => {
            let target = theirs.target_address();
            let source_mac = their_option(theirs.options(), 1)?;
            let proper =
                !source_ip.is_unspecified() || (destination_ip == solicited_node(target) && source_mac.is_none());
            (proper && !target.is_multicast()).then_some(Message::NeighborSolicitation(NeighborSolicitation {
                ethernet,
                source_ip,
                destination_ip,
                target,
                source_mac,
            }))
        }
        (etherparse::Icmpv6Type::NeighborAdvertisement(header), Icmpv6PayloadSlice::NeighborAdvertisement(theirs)) => {
            let target = theirs.target_address();
            let target_mac = their_option(theirs.options(), 2)?;
            let flags = NaFlags { router: header.router, solicited: header.solicited, overrides: header.r#override };
            let proper = !(destination_ip.is_multicast() && header.solicited);
            (proper && !target.is_multicast()).then_some(Message::NeighborAdvertisement(NeighborAdvertisement {
                ethernet,
                source_ip,
                destination_ip,
                target,
                target_mac,
                flags,
            }))
        }
        _ => None,
    }
}

/// The first link-layer address of a kind; the outer `None` when the options cannot be used.
fn their_option(mut options: &[u8], wanted: u8) -> Option<Option<MacAddr>> {
    let mut found = None;
    while !options.is_empty() {
        // One at a time, so that one of a known kind and an odd length does not end the walk.
        let (kind, units) = (options[0], *options.get(1)?);
        let (option, rest) =
            options.split_at_checked(usize::from(units) * 8).filter(|(option, _)| !option.is_empty())?;
        options = rest;
        if kind != wanted || found.is_some() {
            continue;
        }
        let option = NdpOptionsIterator::from_slice(option).next()?.ok()?;
        let address = if let NdpOptionSlice::SourceLinkLayerAddress(option) = &option {
            option.link_layer_address()
        } else if let NdpOptionSlice::TargetLinkLayerAddress(option) = &option {
            option.link_layer_address()
        } else {
            return None;
        };
        found = Some(MacAddr(address.try_into().ok()?));
    }
    Some(found)
}

/// Options of every kind and of odd lengths.
fn option() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![Just(1_u8), Just(2), Just(3), Just(4), Just(5), Just(14), any::<u8>()];
    (kind, 0_u8..4, proptest::collection::vec(any::<u8>(), 22)).prop_map(|(kind, units, bytes)| {
        let len = usize::from(units) * 8;
        [&[kind, units][..], &bytes[..len.saturating_sub(2)]].concat()
    })
}

/// Values that mean something more often than by chance.
fn value() -> impl Strategy<Value = u8> {
    prop_oneof![
        Just(0_u8),
        Just(1),
        Just(2),
        Just(6),
        Just(0x60),
        Just(58),
        Just(135),
        Just(136),
        Just(255),
        any::<u8>()
    ]
}
