//! Datagrams of the membership in bare Ethernet frames, for neighbours that hear each other although IP does not pass.
//!
//! Ethernet pads short frames and does not tell how long their content is, so two bytes in front of it do:
//!
//! ```text
//! destination 6 | source 6 | EtherType 0x88b5 | length 2, big endian | datagram | zeros up to 60 bytes
//! ```
//!
//! What the datagram says, and whether it is authentic, is the membership's business.

use garpike_election::MacAddr;

use super::Ignored;
use super::ethernet::{DATAGRAM, Ethernet};

/// The longest datagram, in bytes: what an Ethernet frame carries (1500, IEEE 802.3), less its length.
pub const MAX_DATAGRAM_LEN: usize = 1498;

/// The least length of a frame without its checksum (IEEE 802.3); a network card that gets less pads it itself.
const MIN_FRAME_LEN: usize = 60;

/// A datagram that is too long for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TooLong {
    /// Its length in bytes.
    pub len: usize,
}

/// Puts a datagram into a frame.
///
/// # Errors
///
/// When it is longer than [`MAX_DATAGRAM_LEN`].
pub fn wrap(ethernet: Ethernet, datagram: &[u8]) -> Result<Vec<u8>, TooLong> {
    let too_long = TooLong { len: datagram.len() };
    if datagram.len() > MAX_DATAGRAM_LEN {
        return Err(too_long);
    }
    let len = u16::try_from(datagram.len()).map_err(|_| too_long)?;
    let mut frame = ethernet.emit(DATAGRAM).to_vec();
    frame.extend(len.to_be_bytes());
    frame.extend(datagram);
    frame.resize(frame.len().max(MIN_FRAME_LEN), 0);
    Ok(frame)
}

/// Takes a datagram out of a frame that is addressed to one station. What is behind it is padding.
///
/// # Errors
///
/// Why there is no datagram in it.
pub fn unwrap(frame: &[u8]) -> Result<(Ethernet, &[u8]), Ignored> {
    let (ethernet, ether_type, content) = Ethernet::parse(frame)?;
    if ether_type != DATAGRAM {
        return Err(Ignored::EtherType);
    }
    let (len, rest) = content.split_first_chunk::<2>().ok_or(Ignored::Truncated)?;
    let len = usize::from(u16::from_be_bytes(*len));
    if len == 0 || len > MAX_DATAGRAM_LEN {
        return Err(Ignored::DatagramLength);
    }
    let datagram = rest.get(..len).ok_or(Ignored::Truncated)?;
    if ethernet.destination.is_multicast() || ethernet.source.is_multicast() || ethernet.source == MacAddr::ZERO {
        return Err(Ignored::Addressing);
    }
    Ok((ethernet, datagram))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_datagram_is_padded_and_keeps_its_length() {
        let frame = wrap(ETHERNET, &[0x47, 0, 0]).unwrap();

        let mut golden = vec![0x02, 0x77, 0, 0, 0, 1, 0x02, 0x77, 0, 0, 0, 2, 0x88, 0xb5, 0, 3, 0x47, 0, 0];
        golden.resize(60, 0);
        assert_eq!(frame, golden);
        assert_eq!(unwrap(&frame), Ok((ETHERNET, &[0x47, 0, 0][..])));
    }

    #[test]
    fn the_longest_datagram_fills_a_frame_of_the_usual_mtu() {
        assert_eq!(wrap(ETHERNET, &[1; MAX_DATAGRAM_LEN]).unwrap().len(), 14 + 1500);
        assert_eq!(wrap(ETHERNET, &[1; MAX_DATAGRAM_LEN + 1]), Err(TooLong { len: MAX_DATAGRAM_LEN + 1 }));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let frame = wrap(ETHERNET, &[7; 100]).unwrap();
        let with = |at: usize, value: u8| {
            let mut frame = frame.clone();
            frame[at] = value;
            unwrap(&frame).map(|(_, datagram)| datagram.len())
        };

        for len in 0..frame.len() {
            assert_eq!(unwrap(&frame[..len]), Err(Ignored::Truncated), "{len}");
        }
        assert_eq!(with(15, 101), Err(Ignored::Truncated));
        assert_eq!(with(14, 0xff), Err(Ignored::DatagramLength));
        assert_eq!(with(15, 0), Err(Ignored::DatagramLength));
        assert_eq!(with(13, 0xb6), Err(Ignored::EtherType));
        assert_eq!(with(0, 0x03), Err(Ignored::Addressing));
        assert_eq!(with(6, 0x03), Err(Ignored::Addressing));
    }

    proptest! {
        #[test]
        fn every_datagram_survives(datagram in proptest::collection::vec(any::<u8>(), 1..=MAX_DATAGRAM_LEN)) {
            let frame = wrap(ETHERNET, &datagram).unwrap();

            prop_assert!(frame.len() >= MIN_FRAME_LEN);
            prop_assert_eq!(unwrap(&frame), Ok((ETHERNET, datagram.as_slice())));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = unwrap(&bytes);
        }
    }

    const ETHERNET: Ethernet =
        Ethernet { destination: MacAddr([0x02, 0x77, 0, 0, 0, 1]), source: MacAddr([0x02, 0x77, 0, 0, 0, 2]) };
}
