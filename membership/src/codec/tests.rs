use std::collections::BTreeSet;
use std::net::SocketAddr;

use foca::{Codec as _, Header, Member, Message, State};
use garpike_election::{InterfaceName, NodeName, NodeState, Selection};
use proptest::prelude::*;

use super::*;
use crate::facts::Facts;
use crate::{Generation, ProcessId};

/// name, generation, process, address of `n1`.
const N1: &str = "02 6e31  fc 40420f00  fb 3412  00 c0000201 fb 0a1f";
/// The same of `n2`, which has an IPv6 address.
const N2: &str = "02 6e32  02  fd 1817161514131211  01 20010db8000000000000000000000002 fb 0a1f";

#[test]
fn golden_identities() {
    assert_eq!(hex(&encode(&n1()).unwrap()), bytes(N1));
    assert_eq!(hex(&encode(&n2()).unwrap()), bytes(N2));
    assert_eq!(decode::<Identity>(&unhex(N1)).unwrap(), n1());
}

#[test]
fn golden_headers_of_every_message() {
    let messages = [
        (Message::Ping(7), "00 07".to_owned()),
        (Message::Ack(7), "01 07".to_owned()),
        (Message::PingReq { target: n1(), probe_number: 7 }, format!("02 {N1} 07")),
        (Message::IndirectPing { origin: n1(), probe_number: 7 }, format!("03 {N1} 07")),
        (Message::IndirectAck { target: n1(), probe_number: 7 }, format!("04 {N1} 07")),
        (Message::ForwardedAck { origin: n1(), probe_number: 7 }, format!("05 {N1} 07")),
        (Message::Announce, "06".to_owned()),
        (Message::Feed, "07".to_owned()),
        (Message::Gossip, "08".to_owned()),
        (Message::Broadcast, "09".to_owned()),
        (Message::TurnUndead, "0a".to_owned()),
    ];
    for (message, tail) in messages {
        let header = Header { src: n1(), src_incarnation: 300, dst: n2(), message };
        let golden = unhex(&format!("{N1} fb 2c01 {N2} {tail}"));
        let mut written = Vec::new();
        Codec.encode_header(&header, &mut written).unwrap();

        assert_eq!(hex(&written), hex(&golden));
        assert_eq!(Codec.decode_header(&*golden).unwrap(), header);
    }
}

#[test]
fn golden_members() {
    for (state, byte) in [(State::Alive, "00"), (State::Suspect, "01"), (State::Down, "02")] {
        let member = Member::new(n1(), 5, state);
        let mut written = Vec::new();
        Codec.encode_member(&member, &mut written).unwrap();

        assert_eq!(hex(&written), bytes(&format!("{N1} 05 {byte}")));
        assert_eq!(Codec.decode_member(&*written).unwrap(), member);
    }
}

#[test]
fn golden_standing() {
    let standing = Standing { identity: n1(), incarnation: 5, state: State::Suspect };

    assert_eq!(hex(&encode(&standing).unwrap()), bytes(&format!("{N1} 05 01")));
}

#[test]
fn golden_facts() {
    let states = [
        (NodeState::Ready, "00"),
        (NodeState::Joining, "01"),
        (NodeState::Draining, "02"),
        (NodeState::Restarting, "03"),
    ];
    for (state, byte) in states {
        let all = Facts::new(&n1(), state, Selection::All);
        assert_eq!(hex(&all.to_bytes()), bytes(&format!("02 6e31  fb 3412  fc 40420f00  01  {byte}  00")));
    }
    let names: BTreeSet<_> = ["eth0", "bond1"].map(|name| InterfaceName::new(name).unwrap()).into();
    let some = Facts::new(&n1(), NodeState::Ready, Selection::Only(names));
    let golden = "02 6e31  fb 3412  fc 40420f00  01  00  01 02 05 626f6e6431 04 65746830";
    assert_eq!(hex(&some.to_bytes()), bytes(golden));
    assert_eq!(Facts::parse(&unhex(golden)).unwrap(), some);
}

#[test]
fn a_claimed_length_of_a_terabyte_is_an_error() {
    let bomb = unhex("fd 0000000000010000  61 61");

    assert!(decode::<Identity>(&bomb).is_err());
    assert!(Facts::parse(&bomb).is_err());
    assert!(header_of(&bomb).is_err());
    assert!(Codec.decode_member(&*bomb).is_err());
    let interfaces = unhex("02 6e31  fb 3412  fc 40420f00  01  00  01 fd 0000000000010000");
    assert!(Facts::parse(&interfaces).is_err());
}

#[test]
fn names_that_kubernetes_would_refuse_are_an_error() {
    assert!(decode::<Identity>(&unhex(&N1.replace("6e31", "4e31"))).is_err(), "N1");
    assert!(decode::<Identity>(&unhex(&N1.replace("6e31", "6eff"))).is_err(), "not UTF-8");
}

#[test]
fn left_over_bytes_are_an_error() {
    assert!(decode::<Identity>(&unhex(&format!("{N1} 00"))).is_err());
}

#[test]
fn a_member_that_does_not_fit_leaves_the_buffer_clean() {
    let mut storage = [0xaa_u8; 8];
    let mut room = &mut storage[..];

    assert!(Codec.encode_member(&Member::alive(n1()), &mut room).is_err());

    assert_eq!(room.len(), 8);
    assert_eq!(storage, [0xaa; 8]);
}

#[test]
fn the_longest_header_is_within_the_limits() {
    let longest = Identity {
        name: NodeName::new(&"a".repeat(NodeName::MAX_LEN)).unwrap(),
        generation: Generation(u64::MAX),
        process: ProcessId(u64::MAX),
        gossip: "[2001:db8::1]:65535".parse().unwrap(),
    };
    let message = Message::PingReq { target: longest.clone(), probe_number: 255 };
    let header = Header { src: longest.clone(), src_incarnation: u16::MAX, dst: longest, message };
    let mut written = Vec::new();
    Codec.encode_header(&header, &mut written).unwrap();

    assert!(written.len() <= crate::config::PACKET_MAX, "{}", written.len());
    assert_eq!(Codec.decode_header(&*written).unwrap(), header);
}

proptest! {
    #[test]
    fn identities_round_trip(name in "[a-z0-9]([a-z0-9.-]{0,60}[a-z0-9])?", generation: u64, process: u64, gossip: SocketAddr) {
        // An address in an identity has neither scope nor flow: both mean something on one host only.
        let gossip = SocketAddr::new(gossip.ip(), gossip.port());
        let name = NodeName::new(&name).unwrap();
        let identity = Identity { name, generation: Generation(generation), process: ProcessId(process), gossip };

        prop_assert_eq!(decode::<Identity>(&encode(&identity).unwrap()).unwrap(), identity);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode::<Identity>(&bytes);
        let _ = decode::<Standing>(&bytes);
        let _ = Facts::parse(&bytes);
        let _ = header_of(&bytes);
        let _ = Codec.decode_member(&*bytes);
    }
}

fn n1() -> Identity {
    Identity {
        name: NodeName::new("n1").unwrap(),
        generation: Generation(1_000_000),
        process: ProcessId(0x1234),
        gossip: "192.0.2.1:7946".parse().unwrap(),
    }
}

fn n2() -> Identity {
    Identity {
        name: NodeName::new("n2").unwrap(),
        generation: Generation(2),
        process: ProcessId(0x1112_1314_1516_1718),
        gossip: "[2001:db8::2]:7946".parse().unwrap(),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(golden: &str) -> String {
    golden.replace(' ', "")
}
