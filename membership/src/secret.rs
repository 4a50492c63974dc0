//! The secret that the nodes of a cluster share.
//!
//! Any text that people already put into MetalLB's `memberlist` Secret works. It is wiped from memory when dropped and
//! never printed.

use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

/// The longest secret that is accepted; chosen: far above the 177 bytes of `openssl rand -base64 128`.
pub(crate) const MAX_LEN: usize = 64 * 1024;

/// The shared secret, as the operator wrote it.
#[derive(Clone)]
pub struct SecretKey(Zeroizing<Vec<u8>>);

impl SecretKey {
    /// Takes the bytes of the secret; white space at the end does not count, any other byte does.
    ///
    /// # Errors
    ///
    /// When nothing but white space is there, or too much.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidSecret> {
        if bytes.len() > MAX_LEN {
            return Err(InvalidSecret::TooLong { len: bytes.len() });
        }
        let secret = bytes.trim_ascii_end();
        if secret.is_empty() {
            return Err(InvalidSecret::Empty);
        }
        Ok(Self(Zeroizing::new(secret.to_vec())))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// Why some bytes are no secret.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidSecret {
    /// There is nothing but white space.
    #[error("the secret is empty")]
    Empty,
    /// It is longer than any secret ought to be.
    #[error("the secret has {len} bytes, at most {MAX_LEN} are allowed")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_at_the_end_does_not_count_and_inner_newlines_do() {
        let secret = SecretKey::parse(b"line one\nline two\nline three\r\n \t\n").unwrap();

        assert_eq!(secret.bytes(), b"line one\nline two\nline three");
    }

    #[test]
    fn any_bytes_are_a_secret() {
        assert_eq!(SecretKey::parse(&[0, 0xff, 0x80]).unwrap().bytes(), [0, 0xff, 0x80]);
    }

    #[test]
    fn nothing_is_no_secret() {
        assert_eq!(SecretKey::parse(b"").unwrap_err(), InvalidSecret::Empty);
        assert_eq!(SecretKey::parse(b" \n").unwrap_err(), InvalidSecret::Empty);
        assert_eq!(
            SecretKey::parse(&vec![b'a'; MAX_LEN + 1]).unwrap_err(),
            InvalidSecret::TooLong { len: MAX_LEN + 1 }
        );
    }

    #[test]
    fn debug_output_does_not_show_the_secret() {
        assert_eq!(format!("{:?}", SecretKey::parse(b"hunter2").unwrap()), "SecretKey(..)");
    }
}
