//! The name of a node: the same text as `metadata.name` of its Kubernetes Node object.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A node's name: 1 to 253 characters, an RFC 1123 subdomain as Kubernetes wants it.
///
/// Cloning is cheap. The bound matters: names travel in every gossip datagram.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The longest name that is accepted, in bytes (RFC 1123 subdomain, as Kubernetes).
    pub const MAX_LEN: usize = 253;

    /// Parses a node name.
    ///
    /// # Errors
    ///
    /// When the text is empty, too long, or holds anything but `a-z`, `0-9`, `-` and `.`, or does not begin and
    /// end with a letter or digit.
    pub fn new(name: &str) -> Result<Self, InvalidNodeName> {
        Self::check(name)?;
        Ok(Self(name.into()))
    }

    /// Tells whether a text is a node name, without making one.
    ///
    /// # Errors
    ///
    /// As [`NodeName::new`].
    pub fn check(name: &str) -> Result<(), InvalidNodeName> {
        let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = name.as_bytes();
        let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
            return Err(InvalidNodeName::Empty);
        };
        if bytes.len() > Self::MAX_LEN {
            return Err(InvalidNodeName::TooLong { len: bytes.len() });
        }
        let inner = bytes.iter().all(|&b| alphanumeric(b) || b == b'-' || b == b'.');
        if !(inner && alphanumeric(first) && alphanumeric(last)) {
            return Err(InvalidNodeName::Characters { name: name.to_owned() });
        }
        Ok(())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for NodeName {
    type Err = InvalidNodeName;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::new(s)
    }
}

impl TryFrom<String> for NodeName {
    type Error = InvalidNodeName;

    fn try_from(s: String) -> Result<Self, Self::Error> {
        Self::new(&s)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0.as_ref().to_owned()
    }
}

/// Why a text is not a node name.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidNodeName {
    /// There is no text.
    #[error("node name is empty")]
    Empty,
    /// The text is longer than [`NodeName::MAX_LEN`].
    #[error("node name has {len} bytes, at most {} are allowed", NodeName::MAX_LEN)]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A character that Kubernetes does not allow in a node name.
    #[error("node name \"{name}\" is not made of lower case letters, digits, '-' and '.' (RFC 1123 subdomain)")]
    Characters {
        /// The text.
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_kubernetes_accepts() {
        for name in ["a", "node-a", "ip-10-0-0-1.eu.internal", "0", &"a".repeat(253)] {
            assert_eq!(NodeName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn refuses_what_kubernetes_refuses() {
        for name in ["", "Node", "a_b", "-a", "a-", ".a", "a b", "a#b", "ä", &"a".repeat(254)] {
            assert!(NodeName::new(name).is_err(), "{name}");
        }
    }

    #[test]
    fn deserializing_checks_the_name() {
        assert!(serde_json::from_str::<NodeName>("\"n1\"").is_ok());
        assert!(serde_json::from_str::<NodeName>("\"N 1\"").is_err());
    }
}
