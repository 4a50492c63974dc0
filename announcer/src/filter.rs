//! The packet filter: classic BPF programs that pass ARP and neighbour discovery about service IPs, answers to this
//! station, datagrams of the membership to it, and nothing else.
//!
//! It spares the process every other frame of a busy segment, so it may pass too much but never too little: whatever
//! the core would answer or report, it passes. Hop limit, checksum and the rest are left to [`crate::wire`], which
//! counts what it drops.

use crate::prefixes::Prefixes;

/// One instruction of classic BPF (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip when a comparison holds.
    pub if_true: u8,
    /// How many instructions to skip when it does not.
    pub if_false: u8,
    /// The operand.
    pub k: u32,
}

/// The programs for the sockets of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// For the socket that is bound to `ETH_P_ARP`.
    pub arp: Vec<Instruction>,
    /// For the socket that is bound to `ETH_P_IPV6`.
    pub ndp: Vec<Instruction>,
    /// The same as `ndp` for a raw ICMPv6 socket, which the kernel gives packets instead of frames.
    pub icmpv6: Vec<Instruction>,
    /// For the socket that is bound to the EtherType of datagrams.
    pub datagrams: Vec<Instruction>,
}

impl Filter {
    /// Passes what concerns the prefixes, answers and datagrams.
    pub fn new(prefixes: &Prefixes) -> Self {
        Self { arp: arp(prefixes), ndp: ndp(prefixes), icmpv6: icmpv6(prefixes), datagrams: datagrams() }
    }
}

/// ARP whose target or sender address lies in a prefix, and replies to this station.
fn arp(prefixes: &Prefixes) -> Vec<Instruction> {
    let mut program = for_this_segment();
    program.extend([load_half(ETHER_TYPE_AT), require(u32::from(ETHER_TYPE_ARP)), DROP]);
    program.extend([load_byte(PACKET_TYPE), equal(HOST, 0, 3)]);
    program.extend([load_half(ARP_OPERATION_AT), equal(ARP_REPLY, 0, 1), PASS]);
    for address_at in [ARP_TARGET_AT, ARP_SENDER_AT] {
        program.extend(keep_words(address_at, 1));
        for net in &prefixes.v4 {
            program.extend(pass_within(&[(net.network().to_bits(), net.netmask().to_bits())]));
        }
    }
    program.push(DROP);
    program
}

/// Neighbour solicitations and advertisements whose target or source address lies in a prefix, and advertisements to
/// this station.
fn ndp(prefixes: &Prefixes) -> Vec<Instruction> {
    let mut program = for_this_segment();
    program.extend([load_half(ETHER_TYPE_AT), require(u32::from(ETHER_TYPE_IPV6)), DROP]);
    program.extend(neighbour_discovery(prefixes, IN_FRAME));
    program
}

/// The same of what a raw ICMPv6 socket gets. The kernel has dropped what is not for this host.
fn icmpv6(prefixes: &Prefixes) -> Vec<Instruction> {
    neighbour_discovery(prefixes, NETWORK_HEADER)
}

/// `packet_at` is where the IPv6 header is.
fn neighbour_discovery(prefixes: &Prefixes, packet_at: u32) -> Vec<Instruction> {
    let mut program = vec![load_byte(packet_at + NEXT_HEADER_AT), require(ICMPV6), DROP];
    program.extend([load_byte(packet_at + ICMP_TYPE_AT), equal(SOLICITATION, 2, 0), require(ADVERTISEMENT), DROP]);
    program.extend([equal(ADVERTISEMENT, 0, 3), load_byte(PACKET_TYPE), equal(HOST, 0, 1), PASS]);
    for address_at in [ND_TARGET_AT, IPV6_SOURCE_AT] {
        program.extend(keep_words(packet_at + address_at, 4));
        for net in &prefixes.v6 {
            let (network, mask) = (words(net.network().to_bits()), words(net.netmask().to_bits()));
            program.extend(pass_within(&network.into_iter().zip(mask).collect::<Vec<_>>()));
        }
    }
    program.push(DROP);
    program
}

/// Datagrams of the membership to this station alone.
fn datagrams() -> Vec<Instruction> {
    let mut program = for_this_segment();
    program.extend([load_byte(PACKET_TYPE), require(HOST), DROP]);
    program.extend([load_half(ETHER_TYPE_AT), require(u32::from(ETHER_TYPE_DATAGRAM)), DROP, PASS]);
    program
}

/// Drops what another station or another segment is meant to get: frames to foreign addresses, our own, and VLAN tags.
///
/// A tag that the kernel took off is no longer in the bytes. Without an interface for the VLAN the kernel marks such a
/// frame as somebody else's, broadcasts included.
fn for_this_segment() -> Vec<Instruction> {
    vec![
        load_byte(PACKET_TYPE),
        equal(OTHER_HOST, 1, 0),
        equal(OUTGOING, 0, 1),
        DROP,
        load_byte(VLAN_TAG_PRESENT),
        require(0),
        DROP,
    ]
}

/// Copies the words of an address from the frame to the memory of the program, from where each comparison takes them: the
/// kernel makes a load from a frame into ten instructions of its own, one from memory into one.
fn keep_words(address_at: u32, count: u32) -> impl Iterator<Item = Instruction> {
    (0..count).flat_map(move |word| [load_word(address_at + 4 * word), statement(ST, word)])
}

/// Passes the frame if the words in memory are within the prefix: network and mask of each word.
fn pass_within(prefix: &[(u32, u32)]) -> Vec<Instruction> {
    let told = prefix.iter().take_while(|(_, mask)| *mask != 0).zip(0..);
    // From the end, because each comparison skips what is behind it when it fails.
    let mut program = vec![PASS];
    for ((network, mask), word) in told.collect::<Vec<_>>().into_iter().rev() {
        let behind = u8::try_from(program.len()).expect("four words take a dozen instructions");
        let masked = (*mask != u32::MAX).then_some(and(*mask));
        let compared = [statement(LD_MEM, word)].into_iter().chain(masked).chain([equal(*network, 0, behind)]);
        program.splice(..0, compared);
    }
    program
}

/// The 32-bit words of an IPv6 address, in network order.
fn words(bits: u128) -> [u32; 4] {
    [96, 64, 32, 0].map(|shift| u32::try_from((bits >> shift) & u128::from(u32::MAX)).expect("masked to 32 bits"))
}

const fn load_byte(at: u32) -> Instruction {
    statement(LD_B_ABS, at)
}

const fn load_half(at: u32) -> Instruction {
    statement(LD_H_ABS, at)
}

const fn load_word(at: u32) -> Instruction {
    statement(LD_W_ABS, at)
}

const fn and(mask: u32) -> Instruction {
    statement(ALU_AND_K, mask)
}

/// Skips the instruction behind it when the accumulator holds `value`.
const fn require(value: u32) -> Instruction {
    equal(value, 1, 0)
}

const fn equal(value: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { code: JMP_JEQ_K, if_true, if_false, k: value }
}

const fn statement(code: u16, k: u32) -> Instruction {
    Instruction { code, if_true: 0, if_false: 0, k }
}

const DROP: Instruction = statement(RET_K, 0);
/// Passes the whole frame.
const PASS: Instruction = statement(RET_K, u32::MAX);

// Operation codes: linux/bpf_common.h.
const LD_W_ABS: u16 = 0x20;
const LD_H_ABS: u16 = 0x28;
const LD_B_ABS: u16 = 0x30;
const LD_MEM: u16 = 0x60;
const ST: u16 = 0x02;
const ALU_AND_K: u16 = 0x54;
const JMP_JEQ_K: u16 = 0x15;
const RET_K: u16 = 0x06;

// What the kernel knows of a frame besides its bytes: linux/filter.h, SKF_AD_OFF plus SKF_AD_PKTTYPE and
// SKF_AD_VLAN_TAG_PRESENT.
const PACKET_TYPE: u32 = 0xffff_f004;
const VLAN_TAG_PRESENT: u32 = 0xffff_f030;
// Packet types: linux/if_packet.h.
const HOST: u32 = 0;
const OTHER_HOST: u32 = 3;
const OUTGOING: u32 = 4;

// Offsets into the frame, after 14 bytes of Ethernet.
const ETHER_TYPE_AT: u32 = 12;
const ARP_OPERATION_AT: u32 = 20;
const ARP_SENDER_AT: u32 = 28;
const ARP_TARGET_AT: u32 = 38;
const IN_FRAME: u32 = 14;
/// Where the kernel takes offsets for those into the network header, whatever else the socket sees: linux/filter.h, SKF_NET_OFF.
const NETWORK_HEADER: u32 = 0xfff0_0000;
// Offsets into the IPv6 packet.
const NEXT_HEADER_AT: u32 = 6;
const IPV6_SOURCE_AT: u32 = 8;
const ICMP_TYPE_AT: u32 = 40;
const ND_TARGET_AT: u32 = 48;

const ETHER_TYPE_ARP: u16 = 0x0806;
const ETHER_TYPE_IPV6: u16 = 0x86dd;
const ETHER_TYPE_DATAGRAM: u16 = 0x88b5;
const ARP_REPLY: u32 = 2;
const ICMPV6: u32 = 58;
const SOLICITATION: u32 = 135;
const ADVERTISEMENT: u32 = 136;

#[cfg(test)]
mod tests;
