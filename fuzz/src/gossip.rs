//! Datagrams on the gossip port, and the secret that seals them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use garpike_election::{NodeName, Selection};
use garpike_membership::{Cluster, Config, Generation, Key, ProcessId, Sealing, SecretKey, check_datagram};

/// Hands a datagram from a stranger to a node that seals and to one that does not.
///
/// # Panics
///
/// When the node that seals does more than count it, or the other one says more than one thing.
pub fn datagram(data: &[u8]) {
    let now = crate::start();
    let secret = SecretKey::parse(b"fuzz").expect("is not empty");
    let mut sealed = Cluster::new(config(1, Sealing::Sealed(Key::derive(&secret, "garpike"))), [7; 32], now);
    let before = sealed.members().clone();
    sealed.handle_datagram(STRANGER, data, now);
    assert_eq!(*sealed.members(), before, "a stranger changed who is alive");
    assert_eq!(sealed.poll_transmit(), None, "a stranger got an answer");
    let counted: u64 = sealed.status().rejected.iter().map(|rejected| rejected.count).sum();
    assert_eq!(counted, 1, "a stranger's datagram was not counted once");

    let mut plain = Cluster::new(config(1, Sealing::InsecurePlaintext), [7; 32], now);
    plain.handle_datagram(STRANGER, data, now);
    assert_eq!(*plain.members(), before, "somebody counts who has not proved to be alive");
    let answers: Vec<_> = std::iter::from_fn(|| plain.poll_transmit()).collect();
    assert!(answers.len() <= 1, "{} answers to one datagram", answers.len());
    assert!(answers.iter().all(|answer| answer.to == STRANGER), "{answers:?}");
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
            assert!(matches!(data, [1..=7, 1, ..]), "kind or version");
            assert!(data.get(10..18).is_some_and(|sender| sender != [0; 8]), "nobody sent it");
            let (name, payload) = data.get(26..).and_then(short_text).expect("a name");
            assert!(str::from_utf8(name).is_ok_and(|name| name.parse::<NodeName>().is_ok()), "the name {name:?}");
            // An answer, behind its nonce, a datagram of foca and facts begin with the name of their author.
            let author = match data.first() {
                Some(2) => payload.get(16..),
                Some(3 | 6) => Some(payload),
                _ => None,
            };
            let author = author.and_then(short_text).filter(|_| name.len() <= 250);
            assert!(author.is_none_or(|(author, _)| author == name), "{name:?} speaks for {author:?}");
        }
        Err(rejected) => assert!(["malformed", "unknown_version"].contains(&rejected.reason()), "{rejected:?}"),
    }
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
        interfaces: Selection::All,
    }
}

/// Where node `n1`, `n2`, ... receives datagrams.
pub(crate) const fn address(node: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, node)), 7946)
}

/// An address at which no node is.
pub(crate) const STRANGER: SocketAddr = address(66);
