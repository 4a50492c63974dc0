use std::collections::BTreeSet;
use std::net::SocketAddr;

use foca::{Codec as _, Header, Member, Message, State};
use garpike_election::{Handicap, InterfaceName, MacAddr, NodeName, NodeState, Selection, Wire};
use proptest::prelude::*;

use super::*;
use crate::datagram::{Datagram, Kind};
use crate::facts::Facts;
use crate::message::{FactsHeld, Message as Payload};
use crate::notice::{Force, Notice, NoticeId, Vote};
use crate::session::Nonce;
use crate::watch::votes::Charge;
use crate::{Generation, KeyId, ProcessId, Surroundings};

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
        (NodeState::HeldDown, "01"),
        (NodeState::Joining, "02"),
        (NodeState::Draining, "03"),
        (NodeState::Restarting, "04"),
    ];
    for (state, byte) in states {
        let all = Facts::new(&n1(), state, vec![], &Surroundings::new(Selection::All));
        let golden = format!("{N1}  01  {byte}  00  00 00 00 01  05 302e312e30  00");
        assert_eq!(hex(&all.to_bytes()), bytes(&golden));
    }
    let names: BTreeSet<_> = ["eth0", "bond1"].map(|name| InterfaceName::new(name).unwrap()).into();
    let nets = ["192.168.8.1/22", "fd00::1/64"].map(|net| net.parse().unwrap()).into();
    let wires = [(InterfaceName::new("eth0").unwrap(), Wire { mac: MacAddr([2, 0, 0, 0, 0, 9]), nets })].into();
    let handicaps = [Handicap::Late, Handicap::NoDataPlane].into();
    let surroundings = Surroundings { wires, handicaps, ..Surroundings::new(Selection::Only(names)) };
    let some = Facts::new(&n1(), NodeState::Ready, vec![KeyId([1, 2, 3, 4])], &surroundings);
    let golden = "02 6e31  fc 40420f00  fb 3412  00 c0000201 fb 0a1f  01  00  01 02 05 626f6e6431 04 65746830 \
                  01 04 65746830 020000000009 02 00 c0a80801 16 01 fd000000000000000000000000000001 40 \
                  05  01 01020304  01  05 302e312e30  00";
    assert_eq!(hex(&some.to_bytes()), bytes(golden));
    assert_eq!(Facts::parse(&unhex(golden)).unwrap(), some);
}

#[test]
fn facts_of_a_later_version_are_understood_and_kept() {
    let late_and_unknown = "81";
    let golden = format!("{N1}  07  00  00  00  {late_and_unknown}  00  09  05 392e392e39  02 05 03 010203 fb 2c01 00");

    let facts = Facts::parse(&unhex(&golden)).unwrap();

    assert_eq!((facts.level.0, facts.handicaps()), (9, [Handicap::Late].into()));
    assert_eq!(facts.software(), "9.9.9");
    assert_eq!(hex(&facts.to_bytes()), bytes(&golden));
}

#[test]
fn golden_payloads_of_every_kind() {
    let mut seen = BTreeSet::new();
    for (message, golden) in golden_payloads() {
        let (kind, written) = write(&message);
        assert_eq!(hex(&written), bytes(&golden), "{message:?}");

        let payload = unhex(&golden);
        let datagram = Datagram { kind, to: None, name: "n1", process: n1().process, sequence: 1, payload: &payload };
        assert_eq!(Payload::parse(&datagram).unwrap(), message);
        seen.insert(kind.to_byte());
    }
    assert_eq!(seen, Kind::ALL.map(Kind::to_byte).into(), "every kind has one");
}

fn golden_payloads() -> Vec<(Payload, String)> {
    let (nonce, _) = Nonce::split(&[0xab; 16]).unwrap();
    let nonce_bytes = "ab".repeat(16);
    let facts = Facts::new(&n1(), NodeState::Ready, vec![], &Surroundings::new(Selection::All));
    let suspicion = Standing { identity: n1(), incarnation: 300, state: State::Suspect };
    let superseded = Standing { identity: n2(), incarnation: 0, state: State::Down };
    let vote = |charge| Payload::Vote(Vote { subject: n2(), charge });
    let notice = |charge, force, version, known| {
        let subject = n2();
        Payload::Notice(Notice { subject, charge, force, version, holders: 2, known, deaths: 4, silent_ms: 160 })
    };
    let held = |charge, force| {
        let (node, generation) = (n1().name, n1().generation);
        Payload::NoticeHeld(NoticeId { node, generation, charge, force, version: 9 })
    };
    vec![
        (Payload::Challenge(nonce), nonce_bytes.clone()),
        (Payload::Answer(nonce, n1()), format!("{nonce_bytes} {N1}")),
        (Payload::Swim(n1()), format!("{N1} 05 {N2} 08")),
        (Payload::Suspected(suspicion), format!("{N1} fb 2c01 01")),
        (Payload::Superseded(superseded), format!("{N2} 00 02")),
        (Payload::Facts(facts), format!("{N1}  01  00  00  00 00 00 01  05 302e312e30  00")),
        (Payload::FactsWanted, String::new()),
        (
            Payload::FactsHeld(FactsHeld { generation: n1().generation, version: 251 }),
            "fc 40420f00  fb fb00".to_owned(),
        ),
        (Payload::Heartbeat(250), "fa".to_owned()),
        (Payload::Heartbeat(300), "fb 2c01".to_owned()),
        (Payload::Heartbeat(70_000), "fc 70110100".to_owned()),
        (Payload::Ping, String::new()),
        (Payload::Pong, String::new()),
        (vote(Some(Charge::SpeakerGone)), format!("{N2} 01 00")),
        (vote(Some(Charge::HostDead)), format!("{N2} 01 01")),
        (vote(None), format!("{N2} 00")),
        (notice(Charge::SpeakerGone, Force::InForce, 7, 3), format!("{N2} 00 00 07 02 03 04 a0")),
        (notice(Charge::HostDead, Force::InForce, 300, 1000), format!("{N2} 01 00 fb 2c01 02 fb e803 04 a0")),
        (notice(Charge::HostDead, Force::TakenBack, 7, 3), format!("{N2} 01 01 07 02 03 04 a0")),
        (held(Charge::SpeakerGone, Force::InForce), "02 6e31  fc 40420f00  00 00 09".to_owned()),
        (held(Charge::HostDead, Force::TakenBack), "02 6e31  fc 40420f00  01 01 09".to_owned()),
    ]
}

/// The payload as the cluster writes it.
fn write(message: &Payload) -> (Kind, Vec<u8>) {
    match message {
        Payload::Challenge(nonce) => (Kind::Challenge, nonce.as_bytes().to_vec()),
        Payload::Answer(nonce, identity) => (Kind::Answer, nonce.with(&encode(identity).unwrap())),
        Payload::Swim(author) => {
            let header = Header { src: author.clone(), src_incarnation: 5, dst: n2(), message: Message::Gossip };
            let mut written = Vec::new();
            Codec.encode_header(&header, &mut written).unwrap();
            (Kind::Swim, written)
        }
        Payload::Suspected(standing) => (Kind::Suspected, encode(standing).unwrap()),
        Payload::Superseded(standing) => (Kind::Superseded, encode(standing).unwrap()),
        Payload::Facts(facts) => (Kind::Facts, facts.to_bytes()),
        Payload::FactsWanted => (Kind::FactsWanted, Vec::new()),
        Payload::FactsHeld(held) => (Kind::FactsHeld, encode(held).unwrap()),
        Payload::Heartbeat(number) => (Kind::Heartbeat, encode(number).unwrap()),
        Payload::Ping => (Kind::Ping, Vec::new()),
        Payload::Pong => (Kind::Pong, Vec::new()),
        Payload::Vote(vote) => (Kind::Vote, encode(vote).unwrap()),
        Payload::Notice(notice) => (Kind::Notice, encode(notice).unwrap()),
        Payload::NoticeHeld(id) => (Kind::NoticeHeld, encode(id).unwrap()),
    }
}

#[test]
fn a_claimed_length_of_a_terabyte_is_an_error() {
    let bomb = unhex("fd 0000000000010000  61 61");

    assert!(decode::<Identity>(&bomb).is_err());
    assert!(Facts::parse(&bomb).is_err());
    assert!(header_of(&bomb).is_err());
    assert!(Codec.decode_member(&*bomb).is_err());
    let interfaces = unhex(&format!("{N1}  01  00  01 fd 0000000000010000"));
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

#[test]
fn a_state_may_be_longer_than_an_item_and_not_endless() {
    let identities = vec![n1(); 10_000];
    let bytes = encode_state(&identities).unwrap();
    assert!(bytes.len() > ITEM_MAX, "{}", bytes.len());
    assert_eq!(decode_state::<Vec<Identity>>(&bytes).unwrap(), identities);

    let trailing = [&bytes[..], &[0]].concat();
    assert!(matches!(decode_state::<Vec<Identity>>(&trailing), Err(CodecError::Trailing { left: 1 })));
    // A text of 2^40 bytes, and a list of as many.
    let claim = b"\xfd\0\0\0\0\0\x01\0\0";
    assert!(decode_state::<String>(claim).is_err());
    assert!(decode_state::<Vec<Identity>>(claim).is_err());
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
