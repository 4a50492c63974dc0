//! Keys, and the sealing of one payload with XChaCha20-Poly1305.
//!
//! Nonces are random. All nodes share one key and none knows the others' counters, so uniqueness must come from chance
//! alone: with 192 bits, 2^64 datagrams under one key (a thousand nodes at 1000 datagrams/s each, for half a million
//! years) collide with a probability of about 2^-65. This holds for a generator that is cryptographic and seeded from
//! the operating system; whoever makes a [`crate::Cluster`] answers for that.

use std::fmt;
use std::time::Instant;

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{Held, IdsChanged, Keyring, SecretKey};

/// The length of a nonce (XChaCha20, draft-irtf-cfrg-xchacha section 2).
pub(crate) const NONCE_LEN: usize = 24;

/// The length of an authentication tag (RFC 8439 section 2.8).
pub(crate) const TAG_LEN: usize = 16;

/// How datagrams are protected on the wire.
#[derive(Clone, Debug)]
pub enum Sealing {
    /// Encrypted and authenticated.
    Sealed(Keyring),
    /// Sealed for those who are known to hold a key, in the clear for the others, and both are accepted: for the time in
    /// which a cluster goes over from [`Self::InsecurePlaintext`] to [`Self::Sealed`]. Protects nothing.
    RollOut(Keyring),
    /// Neither: whoever reaches the port can take over every address.
    InsecurePlaintext,
}

/// The key of a cluster.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    cipher: XChaCha20Poly1305,
}

/// The public name of a key: tells "another secret" from "tampered with".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 4]);

impl Sealing {
    /// The keys that this node can open with, if it seals at all.
    pub fn keyring(&self) -> Option<&Keyring> {
        match self {
            Self::Sealed(keyring) | Self::RollOut(keyring) => Some(keyring),
            Self::InsecurePlaintext => None,
        }
    }

    /// The word for the mode in `/state.json`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Sealed(_) => "sealed",
            Self::RollOut(_) => "roll_out",
            Self::InsecurePlaintext => "plaintext",
        }
    }

    /// What the others are to know of the keys of this node, see [`Keyring::ids`].
    pub fn ids(&self) -> Vec<KeyId> {
        self.keyring().map(Keyring::ids).unwrap_or_default()
    }

    /// See [`Keyring::replace`].
    pub(crate) fn replace(&mut self, keys: Vec<Key>) -> IdsChanged {
        self.keyring_mut().map_or(IdsChanged::No, |keyring| keyring.replace(keys))
    }

    /// See [`Keyring::handle_members`]; also forgets the keys whose time is over.
    pub(crate) fn handle_members(&mut self, members: &[Option<&[KeyId]>], now: Instant) -> IdsChanged {
        self.keyring_mut().map_or(IdsChanged::No, |keyring| {
            keyring.handle_timeout(now);
            keyring.handle_members(members, now)
        })
    }

    /// The key that seals for a destination; `None`: in the clear.
    pub(crate) fn key_for(&self, held: Held<'_>) -> Option<&Key> {
        match (self, held) {
            (Self::Sealed(keyring), held) => Some(keyring.sealing(held)),
            (Self::RollOut(keyring), Held::Keys(ids)) => keyring.newest_among(ids),
            // Who does not answer in the clear may have left the roll-out mode behind.
            (Self::RollOut(keyring), Held::Attempt(attempt)) if attempt % 2 == 1 => {
                Some(keyring.sealing(Held::Attempt(attempt / 2)))
            }
            (Self::RollOut(_), Held::Unknown | Held::Attempt(_)) | (Self::InsecurePlaintext, _) => None,
        }
    }

    fn keyring_mut(&mut self) -> Option<&mut Keyring> {
        match self {
            Self::Sealed(keyring) | Self::RollOut(keyring) => Some(keyring),
            Self::InsecurePlaintext => None,
        }
    }
}

/// Two keys of one name are one key.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Key {}

impl From<Key> for Sealing {
    fn from(key: Key) -> Self {
        Self::Sealed(key.into())
    }
}

impl Key {
    /// Derives the key that `secret` stands for in the cluster named `cluster`.
    ///
    /// Clusters that share a secret by accident but have different names do not understand each other.
    pub fn derive(secret: &SecretKey, cluster: &str) -> Self {
        //= https://www.rfc-editor.org/rfc/rfc5869#section-3.2
        //# it may prevent the derivation of the same keying material for different contexts
        let hkdf = Hkdf::<Sha256>::new(None, secret.bytes());
        let mut key = Zeroizing::new([0; 32]);
        let mut id = [0; 4];
        let short_enough = "RFC 5869 allows up to 8160 bytes";
        hkdf.expand_multi_info(&[KEY_INFO, cluster.as_bytes()], &mut *key).expect(short_enough);
        hkdf.expand_multi_info(&[KEY_ID_INFO, cluster.as_bytes()], &mut id).expect(short_enough);
        Self { id: KeyId(id), cipher: XChaCha20Poly1305::new((&*key).into()) }
    }

    /// The public name of the key.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Encrypts `text` in place; `header` is authenticated with it.
    pub(crate) fn seal(&self, nonce: [u8; NONCE_LEN], header: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        let tag = self.cipher.encrypt_inout_detached(&XNonce::from(nonce), header, text.into());
        tag.expect("a datagram is far below the 256 GiB that ChaCha20 can encrypt").into()
    }

    /// Decrypts `text` in place if it and `header` are what was sealed.
    pub(crate) fn open(
        &self,
        nonce: [u8; NONCE_LEN],
        header: &[u8],
        text: &mut [u8],
        tag: [u8; TAG_LEN],
    ) -> Result<(), Tampered> {
        let opened = self.cipher.decrypt_inout_detached(&XNonce::from(nonce), header, text.into(), &Tag::from(tag));
        opened.map_err(|_| Tampered)
    }
}

/// The content or the header is not what was sealed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tampered;

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl serde::Serialize for KeyId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const KEY_INFO: &[u8] = b"garpike membership 1 key\0";
const KEY_ID_INFO: &[u8] = b"garpike membership 1 key id\0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_depends_on_the_secret_and_on_the_name_of_the_cluster() {
        let ids = [key("a", "x").id(), key("b", "x").id(), key("a", "y").id()];

        assert_eq!(key("a", "x").id(), ids[0]);
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2]);
    }

    #[test]
    fn golden_key_and_ciphertext() {
        // tests/independent.py computes these with Python's `hmac` and libsodium.
        let key = key("correct horse battery staple", "garpike");
        let mut text = *b"who is alive";
        let tag = key.seal([7; NONCE_LEN], b"header", &mut text);

        assert_eq!(key.id().to_string(), "3e237558");
        assert_eq!(text, *b"\x53\x81\x70\x0c\xa7\x12\xad\xae\xbe\xfd\x41\xe2");
        assert_eq!(tag, 0xe260_6fdb_49b6_1da9_58b3_9aba_186d_711f_u128.to_be_bytes());
    }

    #[test]
    fn a_change_of_nonce_header_text_or_tag_is_found() {
        let key = key("secret", "garpike");
        let mut text = *b"who is alive";
        let tag = key.seal([7; NONCE_LEN], b"header", &mut text);
        let opens = |nonce, header: &[u8], mut text: [u8; 12], tag| key.open(nonce, header, &mut text, tag).is_ok();

        assert!(opens([7; NONCE_LEN], b"header", text, tag));
        assert!(!opens([8; NONCE_LEN], b"header", text, tag));
        assert!(!opens([7; NONCE_LEN], b"Header", text, tag));
        assert!(!opens([7; NONCE_LEN], b"header", [0; 12], tag));
        assert!(!opens([7; NONCE_LEN], b"header", text, [0; TAG_LEN]));
    }

    #[test]
    fn debug_output_shows_the_name_of_the_key_only() {
        let key = key("secret", "garpike");

        assert_eq!(format!("{key:?}"), format!("Key {{ id: {}, .. }}", key.id()));
    }

    fn key(secret: &str, cluster: &str) -> Key {
        Key::derive(&SecretKey::parse(secret.as_bytes()).unwrap(), cluster)
    }
}
