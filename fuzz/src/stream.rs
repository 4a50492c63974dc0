//! Bytes of a client on the gossip port, TCP.

use garpike_membership::{StreamFault, check_stream};

/// Serves a client that sends the input in the clear.
///
/// # Panics
///
/// When it gets something done that it did not ask for, more than one thing, or is served differently when it comes again;
/// when a frame that is cut, too long or not the next one is not the end.
pub fn stream(data: &[u8]) {
    let now = crate::start();
    let served = check_stream(data, now);
    assert_eq!(check_stream(data, now), served, "equal inputs, different outputs");
    match served {
        Ok(done) => {
            let frames = frames(data).expect("what is cut or too long is not served");
            let (hello, asked) = frames.split_first().expect("who says nothing is not served");
            assert!(matches!(hello, [b'P', 0x81, 1, ..]), "{hello:02x?} is no hello");
            assert!(hello.len() <= 1024, "a hello of {} bytes", hello.len());
            assert!(asked.len() <= 1 && done == asked.len(), "{done} things for {} frames", asked.len());
            assert!(asked.iter().all(|frame| matches!(frame, [b'P', 0x83 | 0x84, 1, ..])), "{asked:02x?}");
            let (_, cut) = data.split_last().expect("is not empty");
            assert!(check_stream(cut, now).is_err(), "the last byte does not matter");
            for at in asked.iter().flat_map(|_| NONCE_AND_NUMBER) {
                let mut other = data.to_vec();
                *other.get_mut(4 + hello.len() + 4 + at).expect("a frame has a header") ^= 1;
                assert!(check_stream(&other, now).is_err(), "byte {at} of the second frame does not matter");
            }
        }
        Err(fault) => assert_eq!(fault == StreamFault::Silent, data.is_empty(), "{fault:?}"),
    }
}

/// Where a frame in the clear says for which conversation, and which of its frames, it is.
const NONCE_AND_NUMBER: std::ops::Range<usize> = 3..27;

/// The envelopes of whole frames, each behind its length of four bytes; `None` when there is more or less.
fn frames(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (len, rest) = bytes.split_first_chunk()?;
        let len = usize::try_from(u32::from_be_bytes(*len)).ok().filter(|len| *len <= 1024 * 1024)?;
        let (frame, rest) = rest.split_at_checked(len)?;
        frames.push(frame);
        bytes = rest;
    }
    Some(frames)
}
