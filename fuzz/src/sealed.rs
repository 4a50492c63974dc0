//! Bytes from somebody who does not hold the key, but hears all that is sent and can send anything.

use std::time::{Duration, Instant};

use garpike_membership::{Cluster, Config, Key, Keyring, Path, RejectedStatus, Sealing, SecretKey, Status, Transmit};

use crate::gossip::{STRANGER, address, config, interface, mac};

/// Tries to pass for a member of a cluster that seals. The input:
///
/// ```text
///  0  how the datagram is made: 0 all of it is the input's own, 1 all behind the name of a key of the cluster, 2 from a
///     recorded one, with changes (position of two bytes, mask of one), 3 the front of a recorded one and the input's tail;
///     the high bits tell by which way it comes
///  1  which of the recorded ones
///  2  the rest
/// ```
///
/// # Panics
///
/// When a datagram that no member made does anything but count, or one that a member made does something again.
pub fn gossip_sealed(data: &[u8]) {
    let Some((&[how, which], rest)) = data.split_first_chunk() else { return };
    let mut met = Met::new();
    let len = met.recorded.len();
    let recorded = met.recorded.get(usize::from(which) % len).cloned().expect("the index is below the length");
    let forged = match how & 3 {
        0 => rest.to_vec(),
        1 => [recorded.get(..HEADER_LEN).expect("each has a header"), rest].concat(),
        2 => changed(recorded, rest),
        _ => {
            let front = recorded.len().saturating_sub(rest.len());
            [recorded.get(..front).unwrap_or_default(), rest].concat()
        }
    };
    let from = match how >> 6 {
        0 => Path::Udp(STRANGER),
        1 => Path::Udp(address(2)),
        2 => Path::Wire(interface(), mac(2)),
        _ => Path::Wire(interface(), mac(66)),
    };
    let (members, (status, counted)) = (met.node.members().clone(), met.status());

    met.node.handle_datagram(from.clone(), &forged, met.now);

    assert_eq!(*met.node.members(), members, "a stranger changed who is alive");
    let (after, counted_after) = met.status();
    assert_eq!(after, status, "a stranger changed something");
    assert_eq!((met.node.poll_request(), met.node.poll_event()), (None, None), "a stranger got something done");
    let answers: Vec<Transmit> = std::iter::from_fn(|| met.node.poll_transmit()).collect();
    if met.recorded.contains(&forged) {
        // Challenges are fresh whoever repeats them, and cost one answer.
        assert!(answers.len() <= 1 && answers.iter().all(|answer| answer.to == from), "{answers:?}");
        assert_eq!(counted_after - counted, u64::from(answers.is_empty()), "neither answered nor counted");
    } else {
        assert_eq!(answers, [], "a stranger got an answer");
        assert_eq!(counted_after - counted, 1, "a stranger's datagram was not counted once");
    }
}

/// Two nodes, of which one is changing to another key, and all that they have sent.
struct Met {
    node: Cluster,
    now: Instant,
    recorded: Vec<Vec<u8>>,
}

impl Met {
    fn new() -> Self {
        let now = crate::start();
        let [old, new] = ["old", "new"].map(|secret| {
            let secret = SecretKey::parse(secret.as_bytes()).expect("is not empty");
            Key::derive(&secret, "garpike")
        });
        let both = Keyring::new(vec![new], vec![old.clone()]).expect("a key is in force");
        let mut node = Cluster::new(config(1, Sealing::Sealed(both)), [1; 32], now);
        let seeds = vec![address(1)];
        let mut peer = Cluster::new(Config { seeds, ..config(2, old.into()) }, [2; 32], now);
        let (mut recorded, end) = (Vec::new(), now + Duration::from_millis(60));
        let mut now = now;
        loop {
            exchange(&mut node, &mut peer, &mut recorded, now);
            let due = [&node, &peer].into_iter().filter_map(Cluster::poll_timeout).min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            now = now.max(due);
            node.handle_timeout(now);
            peer.handle_timeout(now);
        }
        assert_eq!(node.members().nodes.len(), 2, "the two have not met");
        while node.poll_request().is_some() || node.poll_event().is_some() {}
        Self { node, now, recorded }
    }

    /// What people see but for the counters, and how much was counted.
    fn status(&self) -> (Status, u64) {
        let mut status = self.node.status();
        let rejected: Vec<RejectedStatus> = std::mem::take(&mut status.rejected);
        status.complaints.clear();
        (status, rejected.iter().map(|rejected| rejected.count).sum())
    }
}

/// Carries datagrams to and fro until there are none, and keeps a copy of each.
fn exchange(node: &mut Cluster, peer: &mut Cluster, recorded: &mut Vec<Vec<u8>>, now: Instant) {
    loop {
        let to_peer: Vec<Transmit> = std::iter::from_fn(|| node.poll_transmit()).collect();
        let to_node: Vec<Transmit> = std::iter::from_fn(|| peer.poll_transmit()).collect();
        if to_peer.is_empty() && to_node.is_empty() {
            return;
        }
        for datagram in to_peer.into_iter().filter(|datagram| datagram.to == Path::Udp(address(2))) {
            peer.handle_datagram(address(1), &datagram.payload, now);
            recorded.push(datagram.payload);
        }
        for datagram in to_node.into_iter().filter(|datagram| datagram.to == Path::Udp(address(1))) {
            node.handle_datagram(address(2), &datagram.payload, now);
            recorded.push(datagram.payload);
        }
    }
}

/// The datagram with some bits turned; the last, incomplete change cuts its end off.
fn changed(mut datagram: Vec<u8>, changes: &[u8]) -> Vec<u8> {
    for change in changes.chunks(3) {
        match *change {
            [high, low, mask] => {
                let len = datagram.len().max(1);
                if let Some(byte) = datagram.get_mut(usize::from(u16::from_be_bytes([high, low])) % len) {
                    *byte ^= mask;
                }
            }
            [cut] | [cut, _] => datagram.truncate(datagram.len().saturating_sub(cut.into())),
            _ => {}
        }
    }
    datagram
}

/// Version and name of the key, in front of each sealed datagram.
const HEADER_LEN: usize = 5;
