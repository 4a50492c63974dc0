use std::net::{Ipv4Addr, Ipv6Addr};

use garpike_election::MacAddr;
use proptest::prelude::*;

use super::*;
use crate::wire::{self, Arp, ArpOperation, Ethernet, Message, NaFlags, NeighborAdvertisement, NeighborSolicitation};

#[test]
fn arp_passes_by_target_and_by_sender() {
    let filter = filter();
    assert_eq!(run(&filter.arp, &arp("10.9.9.9", "192.168.10.1"), FOR_US), Verdict::Pass);
    assert_eq!(run(&filter.arp, &arp("192.168.10.1", "10.9.9.9"), FOR_US), Verdict::Pass);
    assert_eq!(run(&filter.arp, &arp("10.9.9.9", "192.168.10.3"), FOR_US), Verdict::Drop);
}

#[test]
fn neighbour_discovery_passes_by_target_and_by_source() {
    let filter = filter();
    assert_eq!(run(&filter.ndp, &solicitation("fc00::9", "fc00::1"), FOR_US), Verdict::Pass);
    assert_eq!(run(&filter.ndp, &solicitation("fc00::1", "fc00::9"), FOR_US), Verdict::Pass);
    assert_eq!(run(&filter.ndp, &advertisement("fe80::9", "fc00::2"), FOR_US), Verdict::Pass);
    assert_eq!(run(&filter.ndp, &solicitation("fc00::9", "fc00::3"), FOR_US), Verdict::Drop);
    assert_eq!(run(&filter.ndp, &advertisement("fe80::9", "fd00::1"), MULTICAST), Verdict::Drop);
}

#[test]
fn a_raw_socket_gets_of_packets_what_a_packet_socket_gets_of_frames() {
    let filter = filter();
    let mut other = solicitation("fc00::9", "fc00::1");
    other[54] = 134;
    for frame in [
        solicitation("fc00::9", "fc00::1"),
        solicitation("fc00::1", "fc00::9"),
        solicitation("fc00::9", "fc00::3"),
        advertisement("fe80::9", "fc00::2"),
        advertisement("fe80::9", "fd00::1"),
        other,
    ] {
        for packet_type in [HOST, 1, 2] {
            let context = Context { packet_type, ..FOR_US };
            assert_eq!(run(&filter.icmpv6, &frame, context), run(&filter.ndp, &frame, context), "{frame:02x?}");
        }
    }
}

#[test]
fn answers_to_this_station_pass_whatever_they_are_about() {
    let filter = filter();
    let mut reply = arp("10.9.9.9", "10.9.9.8");
    assert_eq!(run(&filter.arp, &reply, FOR_US), Verdict::Drop, "a request");
    reply[21] = 2;
    let answer = advertisement("fe80::9", "fd00::1");
    for (packet_type, expected) in [(HOST, Verdict::Pass), (1, Verdict::Drop), (2, Verdict::Drop), (3, Verdict::Drop)] {
        let context = Context { packet_type, ..FOR_US };
        assert_eq!(run(&filter.arp, &reply, context), expected, "{packet_type}");
        assert_eq!(run(&filter.ndp, &answer, context), expected, "{packet_type}");
    }
    assert_eq!(run(&filter.ndp, &solicitation("fe80::9", "fd00::1"), FOR_US), Verdict::Drop, "a solicitation");
}

#[test]
fn datagrams_pass_to_this_station_alone() {
    let filter = filter();
    let ethernet = Ethernet { destination: MAC, source: MAC };
    let frame = wire::wrap_datagram(ethernet, b"sealed").unwrap();
    for (packet_type, expected) in
        [(HOST, Verdict::Pass), (1, Verdict::Drop), (2, Verdict::Drop), (OTHER_HOST, Verdict::Drop)]
    {
        assert_eq!(run(&filter.datagrams, &frame, Context { packet_type, ..FOR_US }), expected, "{packet_type}");
    }
    let tagged = Context { vlan_tag_present: 1, ..FOR_US };
    assert_eq!(run(&filter.datagrams, &frame, tagged), Verdict::Drop);
    assert_eq!(run(&filter.datagrams, &arp("10.9.9.9", "192.168.10.1"), FOR_US), Verdict::Drop);
    assert_eq!(run(&filter.arp, &frame, FOR_US), Verdict::Drop);
}

#[test]
fn other_traffic_is_dropped() {
    let filter = filter();
    let good = solicitation("fc00::9", "fc00::1");
    for (at, value) in [(12, 0x08), (20, 17), (20, 0), (54, 134), (54, 137), (54, 128)] {
        let mut other = good.clone();
        other[at] = value;
        assert_eq!(run(&filter.ndp, &other, FOR_US), Verdict::Drop, "byte {at} = {value}");
    }
    assert_eq!(run(&filter.arp, &good, FOR_US), Verdict::Drop);
    assert_eq!(run(&filter.ndp, &arp("10.9.9.9", "192.168.10.1"), FOR_US), Verdict::Drop);
}

#[test]
fn tagged_frames_are_dropped_with_the_tag_in_the_bytes_or_beside_them() {
    let filter = filter();
    let mut tagged = arp("10.9.9.9", "192.168.10.1");
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
    assert_eq!(run(&filter.arp, &tagged, FOR_US), Verdict::Drop);
    let beside = Context { vlan_tag_present: 1, ..FOR_US };
    assert_eq!(run(&filter.arp, &arp("10.9.9.9", "192.168.10.1"), beside), Verdict::Drop);
}

#[test]
fn own_frames_and_those_for_others_are_dropped() {
    let filter = filter();
    for (packet_type, expected) in [
        (0, Verdict::Pass),
        (1, Verdict::Pass),
        (2, Verdict::Pass),
        (OTHER_HOST, Verdict::Drop),
        (OUTGOING, Verdict::Drop),
    ] {
        let context = Context { packet_type, ..FOR_US };
        assert_eq!(run(&filter.arp, &arp("10.9.9.9", "192.168.10.1"), context), expected, "{packet_type}");
        assert_eq!(run(&filter.ndp, &solicitation("fc00::9", "fc00::1"), context), expected, "{packet_type}");
    }
}

#[test]
fn short_frames_are_dropped() {
    let filter = filter();
    for (program, frame) in
        [(&filter.arp, arp("10.9.9.9", "192.168.10.1")), (&filter.ndp, solicitation("fc00::9", "fc00::1"))]
    {
        for len in 0..42 {
            assert_eq!(run(program, &frame[..len], FOR_US), Verdict::Drop);
        }
    }
}

#[test]
fn no_question_passes_without_addresses() {
    let filter = Filter::new(&Prefixes::default());
    assert_eq!(run(&filter.arp, &arp("10.9.9.9", "0.0.0.0"), FOR_US), Verdict::Drop);
    assert_eq!(run(&filter.ndp, &solicitation("fc00::9", "fc00::1"), FOR_US), Verdict::Drop);
}

#[test]
fn the_longest_program_is_within_the_kernels_limit() {
    let v4 = (0..MAX).map(|n| Ipv4Addr::from_bits(n * 0x0100_0001));
    let v6 = (0..MAX).map(|n| Ipv6Addr::from_bits(u128::from(n) * 0x0100_0000_0000_0000_0001));
    let prefixes = Prefixes::covering(v4, v6);
    assert_eq!((prefixes.v4.len(), prefixes.v6.len()), (crate::MAX_PREFIXES, crate::MAX_PREFIXES));
    let filter = Filter::new(&prefixes);
    assert!(filter.arp.len() <= 4096 && filter.ndp.len() <= 4096, "{} {}", filter.arp.len(), filter.ndp.len());
}

#[test]
fn ten_thousand_scattered_addresses_pass_and_most_others_do_not() {
    // A multiplicative generator: scattered, and the same in every run.
    let scattered = |seed: u64| {
        (0..10_000).scan(seed, |state, _| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Some(u32::try_from(*state >> 32).unwrap())
        })
    };
    // A pool of a /16 and one of a /112, as people have them.
    let v4 = |bits: u32| Ipv4Addr::from_bits(0x0a0a_0000 | bits >> 16);
    let v6 = |bits: u32| Ipv6Addr::from_bits(0xfc00_0000_0000_0001_0000_0000_0000_0000 | u128::from(bits >> 16));
    let filter = Filter::new(&Prefixes::covering(scattered(1).map(v4), scattered(1).map(v6)));
    for bits in scattered(1) {
        assert_eq!(run(&filter.arp, &arp("192.168.8.200", &v4(bits).to_string()), FOR_US), Verdict::Pass);
        assert_eq!(run(&filter.ndp, &solicitation("fe80::9", &v6(bits).to_string()), FOR_US), Verdict::Pass);
    }
    for bits in scattered(2) {
        let elsewhere = Ipv4Addr::from_bits(bits & !0x0a00_0000 | 0x8000_0000);
        assert_eq!(run(&filter.arp, &arp("192.168.8.200", &elsewhere.to_string()), FOR_US), Verdict::Drop);
        let elsewhere = Ipv6Addr::from_bits(0xfc00_0000_0000_0002 << 64 | u128::from(bits));
        assert_eq!(run(&filter.ndp, &solicitation("fe80::9", &elsewhere.to_string()), FOR_US), Verdict::Drop);
    }
}

proptest! {
    #[test]
    fn what_the_core_could_answer_passes(
        v4 in proptest::collection::vec(any::<u32>().prop_map(Ipv4Addr::from_bits), 1..100),
        v6 in proptest::collection::vec(address(), 1..100),
        sender in any::<u32>().prop_map(Ipv4Addr::from_bits),
        source in address(),
        chosen in any::<proptest::sample::Index>(),
    ) {
        let filter = Filter::new(&Prefixes::covering(v4.clone(), v6.clone()));
        let target = v4[chosen.index(v4.len())];
        for (sender, target) in [(sender, target), (target, sender), (Ipv4Addr::UNSPECIFIED, target)] {
            let frame = arp(&sender.to_string(), &target.to_string());
            prop_assert_eq!(run(&filter.arp, &frame, FOR_US), Verdict::Pass);
        }
        let target = v6[chosen.index(v6.len())];
        for (source, target) in [(source, target), (target, source), (Ipv6Addr::UNSPECIFIED, target)] {
            let frame = solicitation(&source.to_string(), &target.to_string());
            prop_assert!(wire::parse(&frame).is_ok() || source.is_unspecified());
            prop_assert_eq!(run(&filter.ndp, &frame, FOR_US), Verdict::Pass);
        }
    }

    #[test]
    fn few_addresses_pass_exactly(
        v6 in proptest::collection::vec(address(), 1..60),
        near in any::<proptest::sample::Index>(),
        flipped in 0u32..128,
    ) {
        let filter = Filter::new(&Prefixes::covering([], v6.clone()));
        let other = Ipv6Addr::from_bits(v6[near.index(v6.len())].to_bits() ^ (1 << flipped));
        let expected = if v6.contains(&other) { Verdict::Pass } else { Verdict::Drop };
        prop_assert_eq!(run(&filter.ndp, &solicitation("fe80::ffff:9", &other.to_string()), FOR_US), expected);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    Drop,
}

/// What the kernel knows of a frame besides its bytes.
#[derive(Clone, Copy)]
struct Context {
    packet_type: u32,
    vlan_tag_present: u32,
}

const FOR_US: Context = Context { packet_type: 0, vlan_tag_present: 0 };
const MULTICAST: Context = Context { packet_type: 2, vlan_tag_present: 0 };
const MAX: u32 = 64;

/// Runs a program as the kernel does: a load beyond the frame drops it.
fn run(program: &[Instruction], frame: &[u8], context: Context) -> Verdict {
    let mut accumulator = 0;
    let mut memory = [0; 16];
    let mut next = 0;
    loop {
        let Instruction { code, if_true, if_false, k } = program[next];
        next += 1;
        let load = |len: usize| {
            // The network header is behind that of Ethernet, which a raw socket never sees.
            let at = usize::try_from(k.checked_sub(NETWORK_HEADER).map_or(k, |at| IN_FRAME + at)).unwrap();
            Some(frame.get(at..at + len)?.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
        };
        let loaded = match (code, k) {
            (LD_B_ABS, PACKET_TYPE) => Some(context.packet_type),
            (LD_B_ABS, VLAN_TAG_PRESENT) => Some(context.vlan_tag_present),
            (LD_B_ABS, _) => load(1),
            (LD_H_ABS, _) => load(2),
            (LD_W_ABS, _) => load(4),
            (LD_MEM, _) => Some(memory[usize::try_from(k).unwrap()]),
            (ST, _) => {
                memory[usize::try_from(k).unwrap()] = accumulator;
                Some(accumulator)
            }
            (ALU_AND_K, _) => Some(accumulator & k),
            (JMP_JEQ_K, _) => {
                next += usize::from(if accumulator == k { if_true } else { if_false });
                Some(accumulator)
            }
            (RET_K, 0) => return Verdict::Drop,
            (RET_K, _) => return Verdict::Pass,
            other => panic!("no such instruction: {other:?}"),
        };
        let Some(loaded) = loaded else { return Verdict::Drop };
        accumulator = loaded;
    }
}

fn filter() -> Filter {
    let v4 = ["192.168.10.1", "192.168.10.2"].map(|ip| ip.parse().unwrap());
    let v6 = ["fc00::1", "fc00::2"].map(|ip| ip.parse().unwrap());
    Filter::new(&Prefixes::covering(v4, v6))
}

const MAC: MacAddr = MacAddr([0x02, 0x77, 0, 0, 1, 1]);
const ETHERNET: Ethernet = Ethernet { destination: MacAddr::BROADCAST, source: MAC };

fn arp(sender: &str, target: &str) -> Vec<u8> {
    let arp = Arp {
        ethernet: ETHERNET,
        operation: ArpOperation::Request,
        sender_mac: MAC,
        sender_ip: sender.parse().unwrap(),
        target_mac: MacAddr::ZERO,
        target_ip: target.parse().unwrap(),
    };
    Message::Arp(arp).emit().to_vec()
}

fn solicitation(source: &str, target: &str) -> Vec<u8> {
    let target = target.parse().unwrap();
    let solicitation = NeighborSolicitation {
        ethernet: ETHERNET,
        source_ip: source.parse().unwrap(),
        destination_ip: wire::solicited_node(target),
        target,
        source_mac: Some(MAC),
    };
    Message::NeighborSolicitation(solicitation).emit().to_vec()
}

fn advertisement(source: &str, target: &str) -> Vec<u8> {
    let advertisement = NeighborAdvertisement {
        ethernet: ETHERNET,
        source_ip: source.parse().unwrap(),
        destination_ip: wire::ALL_NODES,
        target: target.parse().unwrap(),
        target_mac: Some(MAC),
        flags: NaFlags::default(),
    };
    Message::NeighborAdvertisement(advertisement).emit().to_vec()
}

fn address() -> impl Strategy<Value = Ipv6Addr> {
    // Near each other in every word, so that prefixes of all lengths come up.
    let near = (0u128..4, 0u128..4, 0u128..4, 0u128..4)
        .prop_map(|(a, b, c, d)| Ipv6Addr::from_bits(0xfc00 << 112 | a << 96 | b << 64 | c << 32 | d));
    let any = any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits >> 8 | 0xfd << 120));
    prop_oneof![near, any]
}
