//! Services and their addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An address that a Service of `type: LoadBalancer` is reachable at.
///
/// Always one that a host can hold and a neighbour can ask for: never unspecified, loopback, multicast, broadcast,
/// IPv6 link-local or IPv4-mapped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "IpAddr", into = "IpAddr")]
pub struct ServiceIp(IpAddr);

impl ServiceIp {
    /// Takes an address that can serve.
    ///
    /// # Errors
    ///
    /// When no host could hold the address, see [`ServiceIp`].
    pub fn new(ip: IpAddr) -> Result<Self, InvalidServiceIp> {
        let kind = match ip {
            _ if ip.is_unspecified() => "the unspecified address",
            _ if ip.is_loopback() => "a loopback address",
            _ if ip.is_multicast() => "a multicast address",
            IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "an IPv4-mapped address",
            IpAddr::V6(v6) if v6.is_unicast_link_local() => "a link-local address",
            IpAddr::V4(_) | IpAddr::V6(_) => return Ok(Self(ip)),
        };
        Err(InvalidServiceIp::Unservable { ip, kind })
    }

    /// The address.
    pub fn addr(self) -> IpAddr {
        self.0
    }

    /// The address, if it is IPv4.
    pub fn v4(self) -> Option<Ipv4Addr> {
        match self.0 {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        }
    }

    /// The address, if it is IPv6.
    pub fn v6(self) -> Option<Ipv6Addr> {
        match self.0 {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => Some(ip),
        }
    }
}

impl fmt::Display for ServiceIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ServiceIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for ServiceIp {
    type Err = InvalidServiceIp;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let ip = s.parse().map_err(|_| InvalidServiceIp::NotAnAddress { text: s.to_owned() })?;
        Self::new(ip)
    }
}

impl TryFrom<IpAddr> for ServiceIp {
    type Error = InvalidServiceIp;

    fn try_from(ip: IpAddr) -> Result<Self, Self::Error> {
        Self::new(ip)
    }
}

impl From<ServiceIp> for IpAddr {
    fn from(ip: ServiceIp) -> Self {
        ip.0
    }
}

/// Why an address cannot be a service IP.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidServiceIp {
    /// The text is no address at all.
    #[error("\"{text}\" is not an IP address")]
    NotAnAddress {
        /// The text.
        text: String,
    },
    /// No host could hold the address.
    #[error("{ip} is {kind} and cannot be a service IP")]
    Unservable {
        /// The address.
        ip: IpAddr,
        /// What it is.
        kind: &'static str,
    },
}

/// Namespace and name of a Service. Copies share the texts: a speaker has several of each of thousands.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(from = "ServiceNames", into = "ServiceNames")]
pub struct ServiceKey(Arc<ServiceNames>);

/// What a [`ServiceKey`] holds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ServiceNames {
    /// `metadata.namespace`.
    pub namespace: Box<str>,
    /// `metadata.name`.
    pub name: Box<str>,
}

impl ServiceKey {
    /// The key of the Service `name` in `namespace`.
    pub fn new(namespace: impl Into<Box<str>>, name: impl Into<Box<str>>) -> Self {
        Self(Arc::new(ServiceNames { namespace: namespace.into(), name: name.into() }))
    }
}

impl Deref for ServiceKey {
    type Target = ServiceNames;

    fn deref(&self) -> &ServiceNames {
        &self.0
    }
}

impl From<ServiceNames> for ServiceKey {
    fn from(names: ServiceNames) -> Self {
        Self(Arc::new(names))
    }
}

impl From<ServiceKey> for ServiceNames {
    fn from(key: ServiceKey) -> Self {
        Arc::unwrap_or_clone(key.0)
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_addresses_that_no_host_can_hold() {
        for text in [
            "0.0.0.0",
            "::",
            "127.0.0.1",
            "::1",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(text.parse::<ServiceIp>().is_err(), "{text}");
        }
    }

    #[test]
    fn prints_the_canonical_text() {
        let ip: ServiceIp = "2001:0DB8:0::1".parse().unwrap();

        assert_eq!(ip.to_string(), "2001:db8::1");
    }
}
