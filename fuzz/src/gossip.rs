//! Datagrams on the gossip port, and the secret that seals them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use garpike_election::{InterfaceName, MacAddr, NodeName, Selection, Wire};
use garpike_membership::{
    Cluster, Config, FeatureLevel, Generation, Key, Path, ProcessId, Profile, Sealing, SecretKey, Surroundings,
    check_datagram,
};

/// Hands a datagram from a stranger, by UDP and in a bare frame, to a node that seals and to one that does not.
///
/// # Panics
///
/// When the node that seals does more than count it, or the other one says more than one thing.
pub fn datagram(data: &[u8]) {
    let now = crate::start();
    for from in [Path::Udp(STRANGER), Path::Wire(interface(), mac(66))] {
        let secret = SecretKey::parse(b"fuzz").expect("is not empty");
        let mut sealed = Cluster::new(config(1, Key::derive(&secret, "garpike").into()), [7; 32], now);
        while sealed.poll_event().is_some() {}
        let before = sealed.members().clone();
        sealed.handle_datagram(from.clone(), data, now);
        assert_eq!(*sealed.members(), before, "a stranger changed who is alive");
        assert_eq!(sealed.poll_transmit(), None, "a stranger got an answer");
        assert_eq!((sealed.poll_request(), sealed.poll_event()), (None, None), "a stranger got something done");
        let counted: u64 = sealed.status().rejected.iter().map(|rejected| rejected.count).sum();
        assert_eq!(counted, 1, "a stranger's datagram was not counted once");

        let mut plain = Cluster::new(config(1, Sealing::InsecurePlaintext), [7; 32], now);
        while plain.poll_event().is_some() {}
        plain.handle_datagram(from.clone(), data, now);
        assert_eq!(*plain.members(), before, "somebody counts who has not proved to be alive");
        assert_eq!((plain.poll_request(), plain.poll_event()), (None, None), "somebody unproven got something done");
        let answers: Vec<_> = std::iter::from_fn(|| plain.poll_transmit()).collect();
        assert!(answers.len() <= 1, "{} answers to one datagram", answers.len());
        assert!(answers.iter().all(|answer| answer.to == from), "{answers:?}");
    }
}

/// Parses an opened datagram.
///
/// # Panics
///
/// When something is accepted that no sender writes, or refused for a reason that has nothing to do with its bytes.
pub fn message(data: &[u8]) {
    match check_datagram(data) {
        Ok(()) => {
            // Kind, version, receiver and sender (8 bytes each), sequence number (8), and a name with its length.
            let &[kind @ 1..=14, 1, ..] = data else { panic!("kind or version") };
            assert!(data.get(10..18).is_some_and(|sender| sender != [0; 8]), "nobody sent it");
            let (name, payload) = data.get(26..).and_then(short_text).expect("a name");
            assert!(is_node_name(name), "the name {name:?}");
            // How much each can hold: a number of 64, 32, 16 bits takes at most 9, 5, 3 bytes, and a length 9.
            let lengths = match kind {
                1 => 16..=16,
                2 => 16..=16 + IDENTITY_MAX,
                4 | 5 => 1..=IDENTITY_MAX + 9 + 5,
                7 | 10 | 11 => 0..=0,
                8 => 2..=18,
                9 => 1..=5,
                12 => 1..=IDENTITY_MAX + 1 + 5,
                13 => 1..=IDENTITY_MAX + 5 + 9 + 3 * 3,
                14 => 1..=9 + 253 + 9 + 5 + 9,
                6 => 1..=2048,
                // What foca adds to its header is foca's to judge.
                _ => 1..=data.len(),
            };
            assert!(lengths.contains(&payload.len()), "{} bytes of kind {kind}", payload.len());
            // An answer, behind its nonce, a datagram of foca and facts begin with the name of their author, and what is
            // said of somebody with that one's.
            let named = match kind {
                2 => payload.get(16..),
                3..=6 | 12..=14 => Some(payload),
                _ => None,
            };
            let named = named.filter(|payload| payload.first().is_some_and(|len| *len <= 250)).and_then(short_text);
            if let Some((named, _)) = named {
                assert!(is_node_name(named), "{named:?} of kind {kind}");
                assert!(!matches!(kind, 2 | 3 | 6) || named == name, "{name:?} speaks for {named:?}");
            }
        }
        Err(rejected) => assert!(["malformed", "unknown_version"].contains(&rejected.reason()), "{rejected:?}"),
    }
}

fn is_node_name(name: &[u8]) -> bool {
    str::from_utf8(name).is_ok_and(|name| name.parse::<NodeName>().is_ok())
}

/// A text behind its length of one byte, and the rest.
fn short_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*len))
}

/// Parses a secret.
///
/// # Panics
///
/// When an empty one is accepted or another one is not, or white space at the end counts.
pub fn secret(data: &[u8]) {
    let secret = SecretKey::parse(data);
    assert_eq!(secret.is_ok(), !data.trim_ascii_end().is_empty() && data.len() <= 64 * 1024);
    if let Ok(secret) = secret {
        let trimmed = SecretKey::parse(data.trim_ascii_end()).expect("is not empty");
        let [id, trimmed] = [secret, trimmed].map(|secret| Key::derive(&secret, "garpike").id());
        assert_eq!(id, trimmed, "white space at the end makes another key");
    }
}

/// Node `n1`, `n2`, ... as a process of the same number.
pub(crate) fn config(node: u8, sealing: Sealing) -> Config {
    Config {
        local: format!("n{node}").parse().expect("is a node name"),
        generation: Generation(1_000),
        process: ProcessId(node.into()),
        gossip: address(node),
        seeds: Vec::new(),
        sealing,
        surroundings: Surroundings {
            wires: BTreeMap::from([(interface(), wire(node))]),
            stations: true,
            ..Surroundings::new(Selection::All)
        },
        profile: Profile::Default,
        restart_grace: Duration::from_secs(60),
        failback: Some(Duration::from_secs(30)),
        host_ports: Vec::new(),
        spread: garpike_election::Spread::Hash,
        feature_level: FeatureLevel::CURRENT,
        later_facts: BTreeMap::new(),
    }
}

/// Where node `n1`, `n2`, ... receives datagrams.
pub(crate) const fn address(node: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, node)), 7946)
}

/// An address at which no node is.
pub(crate) const STRANGER: SocketAddr = address(66);

/// The interface of each node on the segment that all share.
pub(crate) fn interface() -> InterfaceName {
    "eth0".parse().expect("is an interface name")
}

/// The Ethernet address of node `n1`, `n2`, ...
pub(crate) const fn mac(node: u8) -> MacAddr {
    MacAddr([0x02, 0x77, 0, 0, 0, node])
}

fn wire(node: u8) -> Wire {
    Wire { mac: mac(node), nets: BTreeSet::from(["192.0.2.0/24".parse().expect("is a prefix")]) }
}

/// Name with its length, two numbers, family, address, port.
const IDENTITY_MAX: usize = 9 + 253 + 2 * 9 + 5 + 16 + 3;
