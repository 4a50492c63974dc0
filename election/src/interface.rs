//! Network interfaces: index, name, link-layer address.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The kernel's number of an interface (`ifindex`); unique in one network namespace until it is removed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct IfIndex(pub u32);

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The name of an interface, such as `eth0`: 1 to 15 bytes, as the kernel allows them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(Arc<str>);

impl InterfaceName {
    /// The longest name in bytes (`IFNAMSIZ` less the terminating zero).
    pub const MAX_LEN: usize = 15;

    /// Parses an interface name.
    ///
    /// # Errors
    ///
    /// When the kernel would refuse the name: empty, `.`, `..`, longer than 15 bytes, or with `/`, `:`, white space.
    pub fn new(name: &str) -> Result<Self, InvalidInterfaceName> {
        let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0';
        let dots = name == "." || name == "..";
        if name.is_empty() || name.len() > Self::MAX_LEN || dots || name.chars().any(forbidden) {
            return Err(InvalidInterfaceName { name: name.to_owned() });
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for InterfaceName {
    type Err = InvalidInterfaceName;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::new(s)
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = InvalidInterfaceName;

    fn try_from(s: String) -> Result<Self, Self::Error> {
        Self::new(&s)
    }
}

impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> Self {
        name.0.as_ref().to_owned()
    }
}

/// A text that the kernel would refuse as an interface name.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("\"{name}\" is not an interface name (1 to 15 bytes, no '/', ':' or white space)")]
pub struct InvalidInterfaceName {
    /// The text.
    pub name: String,
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The address of everybody on a segment.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// No address; a target that is not known.
    pub const ZERO: Self = Self([0; 6]);

    /// Whether the group bit is set: a frame to it is meant for many.
    pub fn is_multicast(self) -> bool {
        let [first, ..] = self.0;
        first & 0x01 != 0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = InvalidMac;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidMac { text: s.to_owned() };
        let mut bytes = [0; 6];
        let mut parts = s.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(invalid)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() {
            return Err(invalid());
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for MacAddr {
    type Error = InvalidMac;

    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

/// A text that is no Ethernet address.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("\"{text}\" is not an Ethernet address such as 02:00:00:00:00:01")]
pub struct InvalidMac {
    /// The text.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_are_those_of_the_kernel() {
        for name in ["eth0", "bond0.100", "ens3f0np0", "é"] {
            assert!(InterfaceName::new(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-bytes-xx"] {
            assert!(InterfaceName::new(name).is_err(), "{name}");
        }
    }

    #[test]
    fn ethernet_addresses_round_trip() {
        let mac: MacAddr = "02:77:00:00:00:0b".parse().unwrap();

        assert_eq!(mac, MacAddr([0x02, 0x77, 0, 0, 0, 0x0b]));
        assert_eq!(mac.to_string(), "02:77:00:00:00:0b");
        for text in [
            "",
            "02:77:00:00:00",
            "02:77:00:00:00:0b:0c",
            "02-77-00-00-00-0b",
            "zz:77:00:00:00:0b",
            "+2:77:00:00:00:0b0",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }
}
