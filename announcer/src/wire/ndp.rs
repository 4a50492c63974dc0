//! Neighbour solicitation and advertisement (RFC 4861 sections 4.3 and 4.4).

use std::net::Ipv6Addr;

use garpike_election::MacAddr;

use super::ethernet::{self, Bytes, Ethernet};
use super::{Ignored, Message};

/// Every node of the segment, `ff02::1`.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const VERSION: u8 = 6;
const ICMPV6: u8 = 58;
/// Proves that no router forwarded the packet (RFC 4861 section 7.1).
const HOP_LIMIT: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
/// Options are measured in units of 8 bytes; a link-layer address option of Ethernet is one.
const OPTION_UNIT_LEN: usize = 8;
const ROUTER_FLAG: u8 = 0x80;
const SOLICITED_FLAG: u8 = 0x40;
const OVERRIDE_FLAG: u8 = 0x20;

/// The question where a neighbour is, whether it is still there, or (from `::`) whether the address is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborSolicitation {
    /// The frame's addresses.
    pub ethernet: Ethernet,
    /// Who asks; `::` in a probe for duplicates.
    pub source_ip: Ipv6Addr,
    /// The solicited-node group of the target, or the target itself.
    pub destination_ip: Ipv6Addr,
    /// The address that is asked for.
    pub target: Ipv6Addr,
    /// Source link-layer address option: where the asker is.
    pub source_mac: Option<MacAddr>,
}

/// The statement where an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborAdvertisement {
    /// The frame's addresses.
    pub ethernet: Ethernet,
    /// Who says so.
    pub source_ip: Ipv6Addr,
    /// The asker, or all nodes.
    pub destination_ip: Ipv6Addr,
    /// The address that it is about.
    pub target: Ipv6Addr,
    /// Target link-layer address option: where the target is.
    pub target_mac: Option<MacAddr>,
    /// How to take it.
    pub flags: NaFlags,
}

/// The flags of a neighbour advertisement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NaFlags {
    /// The target is a router.
    pub router: bool,
    /// It answers a solicitation that was sent to the target.
    pub solicited: bool,
    /// It replaces a link-layer address that the receiver knows.
    pub overrides: bool,
}

/// The multicast group to which solicitations for `ip` are sent (RFC 4291 section 2.7.1).
pub fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::from([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The Ethernet address of an IPv6 multicast group (RFC 2464 section 7).
pub fn multicast_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

/// The link-layer address that a neighbour solicitation or advertisement names as its subject's, read from ICMPv6 alone.
pub fn link_layer_option(message: &[u8]) -> Option<MacAddr> {
    let (icmp, rest) = message.split_first_chunk::<8>()?;
    let (_, options) = rest.split_first_chunk::<16>()?;
    let wanted =
        if icmp.first() == Some(&ADVERTISEMENT) { TARGET_LINK_LAYER_ADDRESS } else { SOURCE_LINK_LAYER_ADDRESS };
    link_layer_address(options, wanted).ok().flatten()
}

/// Reads an IPv6 packet.
pub(super) fn parse(ethernet: Ethernet, packet: &[u8]) -> Result<Message, Ignored> {
    let (start, rest) = packet.split_first_chunk::<8>().ok_or(Ignored::Truncated)?;
    let [version, _, _, _, length_high, length_low, next_header, hop_limit] = *start;
    if version >> 4 != VERSION {
        return Err(Ignored::IpVersion);
    }
    if next_header != ICMPV6 {
        return Err(Ignored::NotIcmpv6);
    }
    //= https://www.rfc-editor.org/rfc/rfc4861#section-7.1.1
    //# The IP Hop Limit field has a value of 255, i.e., the packet could not possibly have been forwarded by a router.
    if hop_limit != HOP_LIMIT {
        return Err(Ignored::HopLimit);
    }
    let (source_ip, rest) = rest.split_first_chunk::<16>().ok_or(Ignored::Truncated)?;
    let (destination_ip, rest) = rest.split_first_chunk::<16>().ok_or(Ignored::Truncated)?;
    let (source_ip, destination_ip) = (Ipv6Addr::from(*source_ip), Ipv6Addr::from(*destination_ip));
    let body_len = usize::from(u16::from_be_bytes([length_high, length_low]));
    let body = rest.get(..body_len).ok_or(Ignored::Truncated)?;

    let (icmp, rest) = body.split_first_chunk::<8>().ok_or(Ignored::Truncated)?;
    let [kind, code, _, _, flags, _, _, _] = *icmp;
    if kind != SOLICITATION && kind != ADVERTISEMENT {
        return Err(Ignored::IcmpType);
    }
    if checksum(source_ip, destination_ip, &[body]) != 0 {
        return Err(Ignored::Checksum);
    }
    if code != 0 {
        return Err(Ignored::IcmpCode);
    }
    let (target, options) = rest.split_first_chunk::<16>().ok_or(Ignored::Truncated)?;
    let target = Ipv6Addr::from(*target);
    if target.is_multicast() {
        return Err(Ignored::MulticastTarget);
    }
    if source_ip.is_multicast() {
        return Err(Ignored::MulticastSource);
    }
    if kind == SOLICITATION {
        let source_mac = link_layer_address(options, SOURCE_LINK_LAYER_ADDRESS)?;
        //= https://www.rfc-editor.org/rfc/rfc4861#section-7.1.1
        //# If the IP source address is the unspecified address, the IP destination address is a solicited-node
        //# multicast address [and] there is no source link-layer address option in the message.
        if source_ip.is_unspecified() && (destination_ip != solicited_node(target) || source_mac.is_some()) {
            return Err(Ignored::Addressing);
        }
        let solicitation = NeighborSolicitation { ethernet, source_ip, destination_ip, target, source_mac };
        Ok(Message::NeighborSolicitation(solicitation))
    } else {
        let flags = NaFlags {
            router: flags & ROUTER_FLAG != 0,
            solicited: flags & SOLICITED_FLAG != 0,
            overrides: flags & OVERRIDE_FLAG != 0,
        };
        //= https://www.rfc-editor.org/rfc/rfc4861#section-7.1.2
        //# If the IP Destination Address is a multicast address the Solicited flag is zero.
        if destination_ip.is_multicast() && flags.solicited {
            return Err(Ignored::Addressing);
        }
        let target_mac = link_layer_address(options, TARGET_LINK_LAYER_ADDRESS)?;
        let advertisement = NeighborAdvertisement { ethernet, source_ip, destination_ip, target, target_mac, flags };
        Ok(Message::NeighborAdvertisement(advertisement))
    }
}

/// Walks the options and gives the first link-layer address of the wanted kind. Unknown options are passed over.
fn link_layer_address(mut options: &[u8], wanted: u8) -> Result<Option<MacAddr>, Ignored> {
    let mut found = None;
    while let Some((&[kind, units], _)) = options.split_first_chunk() {
        let len = usize::from(units) * OPTION_UNIT_LEN;
        //= https://www.rfc-editor.org/rfc/rfc4861#section-7.1.1
        //# All included options have a length that is greater than zero.
        if len == 0 {
            return Err(Ignored::Option);
        }
        let (option, rest) = options.split_at_checked(len).ok_or(Ignored::Option)?;
        if kind == wanted && found.is_none() {
            let &[_, _, a, b, c, d, e, f] = option else { return Err(Ignored::Option) };
            found = Some(MacAddr([a, b, c, d, e, f]));
        }
        options = rest;
    }
    // One byte is left over: no option is that short.
    if options.is_empty() { Ok(found) } else { Err(Ignored::Option) }
}

impl NeighborSolicitation {
    pub(super) fn emit(&self) -> Bytes {
        let option = self.source_mac.map(|mac| (SOURCE_LINK_LAYER_ADDRESS, mac));
        emit(self.ethernet, self.source_ip, self.destination_ip, SOLICITATION, 0, self.target, option)
    }
}

impl NeighborAdvertisement {
    pub(super) fn emit(&self) -> Bytes {
        let flag = |set, flag| if set { flag } else { 0 };
        let flags = flag(self.flags.router, ROUTER_FLAG)
            | flag(self.flags.solicited, SOLICITED_FLAG)
            | flag(self.flags.overrides, OVERRIDE_FLAG);
        let option = self.target_mac.map(|mac| (TARGET_LINK_LAYER_ADDRESS, mac));
        emit(self.ethernet, self.source_ip, self.destination_ip, ADVERTISEMENT, flags, self.target, option)
    }
}

fn emit(
    ethernet: Ethernet,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    kind: u8,
    flags: u8,
    target: Ipv6Addr,
    option: Option<(u8, MacAddr)>,
) -> Bytes {
    let option = option.map(|(kind, MacAddr([a, b, c, d, e, f]))| [kind, 1, a, b, c, d, e, f]);
    let option = option.as_ref().map_or([].as_slice(), |option| option);
    let start = [kind, 0, 0, 0, flags, 0, 0, 0];
    let sum = checksum(source, destination, &[&start, &target.octets(), option]);
    let body_len: u8 = if option.is_empty() { 24 } else { 32 };

    let mut bytes = ethernet.emit(ethernet::IPV6);
    bytes.push(&[VERSION << 4, 0, 0, 0, 0, body_len, ICMPV6, HOP_LIMIT]);
    bytes.push(&source.octets());
    bytes.push(&destination.octets());
    bytes.push(&[kind, 0]);
    bytes.push(&sum.to_be_bytes());
    bytes.push(&[flags, 0, 0, 0]);
    bytes.push(&target.octets());
    bytes.push(option);
    bytes
}

/// The checksum of ICMPv6 (RFC 4443 section 2.3) over the parts of a body, of which all but the last have even length.
/// Over a body that holds its correct checksum it is 0.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, body: &[&[u8]]) -> u16 {
    let len: usize = body.iter().map(|part| part.len()).sum();
    let addresses = [source.octets(), destination.octets()];
    let mut sum = len as u64 + u64::from(ICMPV6);
    for part in addresses.iter().map(<[u8; 16]>::as_slice).chain(body.iter().copied()) {
        let (words, odd) = part.as_chunks();
        sum += words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum::<u64>();
        sum += odd.first().map_or(0, |last| u64::from(*last) << 8);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("the loop folded it into 16 bits")
}
