//! What the flags of `garpike speaker` may be set to, where that is no number, name or path.

use std::net::{IpAddr, SocketAddr};

use clap::ValueEnum;
use garpike_election::Spread;
use hyper::Uri;

/// `--bind-service-ips`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindServiceIps {
    /// As /32 and /128 on the loopback interface; needs CAP_NET_ADMIN
    Lo,
    /// Something else makes them local
    None,
}

/// `--metrics-auth`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsAuth {
    /// Whom the cluster grants the verb get on the path /metrics; HTTPS with a bearer token
    TokenReview,
    /// Everybody who reaches the port; plain HTTP
    None,
}

/// `--per-ip-metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerIpMetrics {
    /// There are series for each service IP of this node.
    Shown,
    /// There are none.
    Hidden,
}

/// `--placement`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// By MetalLB's hash, each address on its own
    Hash,
    /// In even numbers, to one address more or less; in force as soon as all speakers have it
    Balanced,
}

impl Placement {
    /// What it means to the election.
    pub(crate) fn spread(self) -> Spread {
        match self {
            Self::Hash => Spread::Hash,
            Self::Balanced => Spread::Balanced,
        }
    }
}

/// `--ndp-unicast`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum NdpUnicast {
    /// They are answered
    On,
    /// They are not: who asks so gets no answer and then asks everybody
    Off,
}

impl From<NdpUnicast> for garpike_announcer::io::NdpUnicast {
    fn from(value: NdpUnicast) -> Self {
        match value {
            NdpUnicast::On => Self::On,
            NdpUnicast::Off => Self::Off,
        }
    }
}

/// `--dataplane-health`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataPlaneHealth {
    /// Nobody is asked.
    None,
    /// Whoever answers there, by plain HTTP.
    At(Uri),
}

impl std::str::FromStr for DataPlaneHealth {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s == "none" {
            return Ok(Self::None);
        }
        let url: Option<Uri> = s.parse().ok();
        let url = url.filter(|url| url.scheme_str() == Some("http") && url.authority().is_some());
        url.map(Self::At)
            .ok_or_else(|| format!("\"{s}\" is neither \"none\" nor an http URL; write http://127.0.0.1:10256/healthz"))
    }
}

/// A peer as `--join` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinPeer {
    pub(super) ip: IpAddr,
    pub(super) port: Option<u16>,
}

impl std::str::FromStr for JoinPeer {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if let Ok(ip) = s.parse() {
            return Ok(Self { ip, port: None });
        }
        let address: SocketAddr = s.parse().map_err(|_| {
            format!("\"{s}\" is not an address; write 192.168.8.11, 192.168.8.11:7946, fd00::11 or [fd00::11]:7946")
        })?;
        Ok(Self { ip: address.ip(), port: Some(address.port()) })
    }
}
