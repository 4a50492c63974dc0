//! Datagrams and states of a member of the cluster, and what happens around the node meanwhile.
//!
//! Whoever holds the key, or reaches the port of a cluster without one, may say anything; it must not be able to stop the
//! node, have it send without bound, or make it remember more than it was told.

use std::time::Duration;

use garpike_membership::{Path, Transmit};

use crate::gossip::{STRANGER, interface, mac};
use crate::pair::{Link, PEER, Pair};

/// Plays the input to a node that knows the peer as a living member.
///
/// The input is a list of records: kind, how long to wait after it in units of 10 ms, length of the text (two bytes, little
/// endian), text. The kinds:
///
/// ```text
/// 0x00, 0x80  the text is a datagram of its own, headers and all, by UDP or in a bare frame
/// 0x70        a host has answered: the first byte of the text tells to which of the latest probes
/// 0x71        a station has answered
/// 0x72        the text is a state that the peer tells
/// 0x73        the peer has answered by TCP
/// 0x74, 0x75  the peer is cut off, and joined again
/// others      the text is the payload of a datagram of this kind by the peer; in a bare frame if the high bit is set
/// ```
///
/// # Panics
///
/// When the node fails, says more than the input is worth, knows more members than it was told of, heeds a malformed
/// datagram, or does something else when the same happens again.
pub fn gossip_plaintext(data: &[u8]) {
    assert_eq!(play(data), play(data), "equal inputs, different outputs");
}

fn play(data: &[u8]) -> Vec<Transmit> {
    let mut pair = Pair::met(data.len());
    let wire = |from: u8| Path::Wire(interface(), mac(from));
    let mut rest = data;
    while let Some((&[kind, pause, len_low, len_high], after)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_le_bytes([len_low, len_high]));
        let (text, after) = after.split_at(len.min(after.len()));
        rest = after;
        match kind {
            0x00 => drop(pair.inject(STRANGER.into(), text)),
            0x80 => drop(pair.inject(wire(66), text)),
            0x70 => pair.answer_probe(text.first().copied().unwrap_or_default()),
            0x71 => pair.node.handle_station_answer(pair.now),
            0x72 => drop(pair.node.handle_state(text, pair.now)),
            0x73 => pair.node.handle_reached(PEER, &"n2".parse().expect("is a node name"), pair.now),
            0x74 => pair.set_link(Link::Cut),
            0x75 => pair.set_link(Link::Up),
            kind => {
                let from = if kind < 0x80 { PEER.into() } else { wire(2) };
                let text = pair.in_the_name_of_the_peer(kind & 0x7f, text);
                pair.inject(from, &text);
            }
        }
        pair.run(Duration::from_millis(10) * u32::from(pause));
    }
    // Long enough for a suspicion to end and for facts to be asked for.
    pair.run(Duration::from_secs(1));
    pair.into_sent()
}
