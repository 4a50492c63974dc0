//! When two Services may have one address: `metallb.io/allow-shared-ip`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// What of a Service decides with whom it may share an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// Equal keys may share.
    pub key: SharingKey,
    /// The ports it serves; two Services with one address have no port in common.
    pub ports: BTreeSet<Port>,
}

/// The annotation, and the backends where they matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SharingKey {
    /// The value of `metallb.io/allow-shared-ip`; empty: it does not share.
    pub word: String,
    /// With `externalTrafficPolicy: Local` the selector of its pods, else empty: only Services with the same pods on
    /// the same nodes can be served by one owner.
    pub backend: String,
}

/// A port of a Service. Small: a controller holds those of all Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Above IP.
    pub protocol: Protocol,
    /// The number.
    pub number: u16,
}

/// What a port is one of, in the order of the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// RFC 9260.
    Sctp,
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

/// Another word than `TCP`, `UDP` or `SCTP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownProtocol;

/// Why two Services cannot have one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clash {
    /// One of them has no sharing key, or the keys differ.
    Key,
    /// The keys are equal; one is for certain pods and the other is not, or for others.
    Backend,
    /// Both serve this port.
    Port(Port),
}

impl Sharing {
    /// Why `self` and `other` cannot have one address; `None` when they can.
    pub fn clash(&self, other: &Self) -> Option<Clash> {
        if !self.key.shares() || self.key.word != other.key.word {
            return Some(Clash::Key);
        }
        if self.key.backend != other.key.backend {
            return Some(Clash::Backend);
        }
        self.ports.intersection(&other.ports).next().copied().map(Clash::Port)
    }
}

impl SharingKey {
    /// Whether a Service with this key shares at all.
    pub fn shares(&self) -> bool {
        !self.word.is_empty()
    }
}

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "SCTP" => Ok(Self::Sctp),
            "TCP" => Ok(Self::Tcp),
            "UDP" => Ok(Self::Udp),
            _ => Err(UnknownProtocol),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sctp => "SCTP",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol, self.number)
    }
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => f.write_str("the two have no equal metallb.io/allow-shared-ip"),
            Self::Backend => {
                f.write_str("with externalTrafficPolicy: Local, both need the same policy and the same spec.selector")
            }
            Self::Port(port) => write!(f, "both serve {port}"),
        }
    }
}
