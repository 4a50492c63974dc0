//! The outermost bytes of a datagram.
//!
//! ```text
//! sealed       0x47 | key id (4) | nonce (24) | ciphertext | tag (16)     authenticated with the first five bytes
//! in the clear 0x50 | text
//! ```
//!
//! The first byte also tells our datagrams from those of hashicorp's memberlist, which MetalLB uses on the same port.

use rand::RngExt;
use rand::rngs::StdRng;

use crate::metrics::{self, Direction};
use crate::seal::{KeyId, NONCE_LEN, Sealing, TAG_LEN};
use crate::{Held, Rejected};

/// The longest datagram that is looked at. Ours have at most 1425 bytes, see [`crate::config::PACKET_MAX`].
pub(crate) const DATAGRAM_MAX: usize = 2048;

/// First byte of a sealed datagram, "G".
pub(crate) const SEALED: u8 = 0x47;

/// First byte of a datagram in the clear, "P".
pub(crate) const PLAINTEXT: u8 = 0x50;

/// Wraps `text` for the wire and for a destination that holds the keys `held`.
pub(crate) fn wrap(sealing: &Sealing, held: Held<'_>, text: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let Some(key) = sealing.key_for(held) else {
        metrics::plaintext(Direction::Sent);
        let mut bytes = Vec::with_capacity(1 + text.len());
        bytes.push(PLAINTEXT);
        bytes.extend_from_slice(text);
        return bytes;
    };
    let mut bytes = Vec::with_capacity(HEADER_LEN + NONCE_LEN + text.len() + TAG_LEN);
    bytes.push(SEALED);
    bytes.extend_from_slice(&key.id().0);
    let nonce: [u8; NONCE_LEN] = rng.random();
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(text);
    let (header, rest) = bytes.split_at_mut(HEADER_LEN);
    let (_, text) = rest.split_at_mut(NONCE_LEN);
    let tag = key.seal(nonce, header, text);
    bytes.extend_from_slice(&tag);
    bytes
}

/// Takes the text out of at most `limit` bytes of the wire, and tells the key that it was sealed with; `None`: it came in
/// the clear.
pub(crate) fn unwrap(sealing: &Sealing, bytes: &[u8], limit: usize) -> Result<(Vec<u8>, Option<KeyId>), Rejected> {
    if bytes.len() > limit {
        return Err(Rejected::TooLong);
    }
    let (&version, rest) = bytes.split_first().ok_or(Rejected::Truncated)?;
    match version {
        SEALED => {
            let (&id, rest) = rest.split_first_chunk().ok_or(Rejected::Truncated)?;
            let (&nonce, rest) = rest.split_first_chunk().ok_or(Rejected::Truncated)?;
            let (text, &tag) = rest.split_last_chunk().ok_or(Rejected::Truncated)?;
            let keyring = sealing.keyring().ok_or(Rejected::Sealed)?;
            let key = keyring.opening(KeyId(id)).ok_or(Rejected::WrongKey)?;
            let (header, _) = bytes.split_at(HEADER_LEN);
            let mut text = text.to_vec();
            key.open(nonce, header, &mut text, tag).map_err(|_| Rejected::Tampered)?;
            Ok((text, Some(key.id())))
        }
        PLAINTEXT => match sealing {
            Sealing::Sealed(_) => Err(Rejected::Plaintext),
            Sealing::RollOut(_) | Sealing::InsecurePlaintext => {
                metrics::plaintext(Direction::Received);
                Ok((rest.to_vec(), None))
            }
        },
        // memberlist net.go: message types 0 to 13, encryption versions 0 and 1, and the label prefix 244.
        0..=13 | 0xf4 => Err(Rejected::Memberlist),
        _ => Err(Rejected::UnknownVersion),
    }
}

/// Version and key id.
const HEADER_LEN: usize = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;
    use crate::{Key, SecretKey};

    #[test]
    fn what_was_wrapped_comes_out_again() {
        let key = key("secret");
        let roll_out = Sealing::RollOut(key.clone().into());
        let ours = [key.id()];
        let cases = [
            (sealed("secret"), Held::Unknown, Some(key.id())),
            (sealed("secret"), Held::Keys(&ours), Some(key.id())),
            (sealed("secret"), Held::Keys(&[]), Some(key.id())),
            (roll_out.clone(), Held::Unknown, None),
            (roll_out.clone(), Held::Attempt(0), None),
            (roll_out.clone(), Held::Attempt(1), Some(key.id())),
            (roll_out.clone(), Held::Keys(&ours), Some(key.id())),
            (roll_out, Held::Keys(&[]), None),
            (Sealing::InsecurePlaintext, Held::Keys(&ours), None),
        ];
        for (sealing, held, sealed_with) in cases {
            let bytes = wrap(&sealing, held, b"text", &mut rng());
            assert_eq!(unwrap(&sealing, &bytes, DATAGRAM_MAX), Ok((b"text".to_vec(), sealed_with)), "{held:?}");
        }
    }

    #[test]
    fn the_layout_is_version_key_id_nonce_ciphertext_tag() {
        let sealing = sealed("secret");

        let bytes = wrap(&sealing, Held::Unknown, b"text", &mut rng());

        assert_eq!(bytes.len(), 1 + 4 + 24 + 4 + 16);
        assert_eq!(bytes[0], 0x47);
        assert_eq!(bytes[1..5], key("secret").id().0);
        assert_ne!(bytes[29..33], *b"text");
    }

    #[test]
    fn equal_texts_do_not_look_equal() {
        let (sealing, mut rng) = (sealed("secret"), rng());
        let mut wrapped = || wrap(&sealing, Held::Unknown, b"text", &mut rng);

        assert_ne!(wrapped()[29..], wrapped()[29..]);
    }

    #[test]
    fn the_sender_s_mistake_is_named() {
        let ours = sealed("secret");
        let plain = Sealing::InsecurePlaintext;
        let roll_out = Sealing::RollOut(key("secret").into());
        let wrap = |sealing| wrap(sealing, Held::Unknown, b"text", &mut rng());
        let cases: [(&Sealing, Vec<u8>, Rejected); 10] = [
            (&ours, vec![], Rejected::Truncated),
            (&ours, vec![SEALED; 44], Rejected::Truncated),
            (&ours, vec![0; DATAGRAM_MAX + 1], Rejected::TooLong),
            (&ours, wrap(&sealed("other")), Rejected::WrongKey),
            (&roll_out, wrap(&sealed("other")), Rejected::WrongKey),
            (&ours, wrap(&plain), Rejected::Plaintext),
            (&plain, wrap(&ours), Rejected::Sealed),
            (&ours, vec![0xff; 60], Rejected::UnknownVersion),
            (&ours, b"\x07\x82\xa3Seq".to_vec(), Rejected::Memberlist),
            (&plain, b"\xf4\x05label".to_vec(), Rejected::Memberlist),
        ];
        for (sealing, bytes, expected) in cases {
            assert_eq!(unwrap(sealing, &bytes, DATAGRAM_MAX), Err(expected), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn a_datagram_with_any_bit_flipped_is_refused(text in prop::collection::vec(any::<u8>(), 0..100), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let sealing = sealed("secret");
            let mut bytes = wrap(&sealing, Held::Unknown, &text, &mut rng());
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;

            prop_assert!(unwrap(&sealing, &bytes, DATAGRAM_MAX).is_err());
        }

        #[test]
        fn a_datagram_cut_short_is_refused(text in prop::collection::vec(any::<u8>(), 0..100), len in any::<prop::sample::Index>()) {
            let sealing = sealed("secret");
            let bytes = wrap(&sealing, Held::Unknown, &text, &mut rng());

            prop_assert!(unwrap(&sealing, &bytes[..len.index(bytes.len())], DATAGRAM_MAX).is_err());
        }

        #[test]
        fn random_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(unwrap(&sealed("secret"), &bytes, DATAGRAM_MAX).is_err());
        }
    }

    #[test]
    fn the_limit_is_the_caller_s() {
        let sealing = sealed("secret");
        let bytes = wrap(&sealing, Held::Unknown, &[7; 100_000], &mut rng());

        assert_eq!(unwrap(&sealing, &bytes, DATAGRAM_MAX), Err(Rejected::TooLong));
        assert_eq!(unwrap(&sealing, &bytes, bytes.len() - 1), Err(Rejected::TooLong));
        assert_eq!(unwrap(&sealing, &bytes, bytes.len()).unwrap().0, [7; 100_000]);
    }

    fn sealed(secret: &str) -> Sealing {
        key(secret).into()
    }

    fn key(secret: &str) -> Key {
        Key::derive(&SecretKey::parse(secret.as_bytes()).unwrap(), "garpike")
    }

    fn rng() -> StdRng {
        StdRng::seed_from_u64(1)
    }
}
