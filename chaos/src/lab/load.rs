//! Loads for a responder: requests from the client's network card, as many as it can answer or so many a second.
//!
//! The generator sends and receives in batches, so that it costs less than what it measures. All of it is raw frames:
//! the client's kernel takes no part, and the requests go to the Ethernet address of the responder under test.

mod closed;
mod forward;
mod open;
mod yardstick;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitStatus;

use garpike_announcer::io::{EtherType, OpenSocketError, PacketSocket};
use garpike_announcer::wire::{
    self, Arp, ArpOperation, Ethernet, Message, NeighborSolicitation, multicast_mac, solicited_node,
};
use garpike_announcer::{Filter, Prefixes};
use garpike_election::{MacAddr, ServiceIp};
use thiserror::Error;

pub use closed::{ClosedLoop, Throughput};
pub use forward::{Cost, Road, Sockets, Version};
pub use open::{OpenLoop, Paced, flood, who_has};
pub use yardstick::Yardstick;

use super::{Host, Lab, LabError, NamespaceError};

/// By which protocol addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// For IPv4.
    Arp,
    /// For IPv6.
    Ndp,
}

impl Protocol {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Arp => "arp",
            Self::Ndp => "ndp",
        }
    }

    /// Whether it asks for this address.
    pub fn speaks_of(self, ip: ServiceIp) -> bool {
        match self {
            Self::Arp => ip.v4().is_some(),
            Self::Ndp => ip.v6().is_some(),
        }
    }
}

/// To whom a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// To one station.
    Station(MacAddr),
    /// To everybody that ARP or neighbour discovery asks when it knows nobody.
    Segment,
}

/// The frame by which the client asks for an address.
pub fn request(ip: IpAddr, audience: Audience) -> wire::Bytes {
    let client = Host::CLIENT;
    let message = match ip {
        IpAddr::V4(ip) => {
            let destination = match audience {
                Audience::Station(mac) => mac,
                Audience::Segment => MacAddr::BROADCAST,
            };
            Message::Arp(Arp {
                ethernet: Ethernet { destination, source: client.mac },
                operation: ArpOperation::Request,
                sender_mac: client.mac,
                sender_ip: client.v4,
                target_mac: MacAddr::ZERO,
                target_ip: ip,
            })
        }
        IpAddr::V6(target) => {
            let group = solicited_node(target);
            let (destination, destination_ip) = match audience {
                Audience::Station(mac) => (mac, target),
                Audience::Segment => (multicast_mac(group), group),
            };
            Message::NeighborSolicitation(NeighborSolicitation {
                ethernet: Ethernet { destination, source: client.mac },
                source_ip: client.v6,
                destination_ip,
                target,
                source_mac: Some(client.mac),
            })
        }
    };
    message.emit()
}

/// The address that a frame tells the client about, if it is an answer.
fn answered(frame: &[u8]) -> Option<IpAddr> {
    match wire::parse(frame).ok()? {
        Message::Arp(Arp { operation: ArpOperation::Reply, sender_ip, .. }) => Some(sender_ip.into()),
        Message::NeighborAdvertisement(advertisement) => Some(advertisement.target.into()),
        Message::Arp(_) | Message::NeighborSolicitation(_) => None,
    }
}

impl Lab<'_> {
    /// A socket on the client's network card that hears the answers to it.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn client_socket(&self, protocol: Protocol) -> Result<PacketSocket, LoadError> {
        let eth0 = self.client.index_of("eth0")?;
        let filter = Filter::new(&Prefixes::default());
        let open = move || match protocol {
            Protocol::Arp => PacketSocket::open(eth0, EtherType::Arp, &filter.arp),
            Protocol::Ndp => PacketSocket::open(eth0, EtherType::Ipv6, &filter.ndp),
        };
        Ok(self.client.run(move |_| open()).map_err(LabError::from)??)
    }
}

/// Why a load could not be made.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The lab.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// There is no packet socket.
    #[error(transparent)]
    Open(#[from] OpenSocketError),
    /// A socket failed.
    #[error("the client cannot ask: {0}")]
    Socket(#[from] io::Error),
    /// There is no address to ask for.
    #[error("there is no address to ask for by {}", .0.as_str())]
    NothingToAsk(Protocol),
    /// The C compiler is missing.
    #[error(
        "cannot run `cc`: {0}; the yardstick is compiled at run time: install a C compiler (Debian: gcc libc6-dev)"
    )]
    NoCompiler(#[source] io::Error),
    /// The C compiler refused the yardstick.
    #[error("`cc -O2` could not compile {}: {status}", path.display())]
    Compiler {
        /// The source.
        path: PathBuf,
        /// How it ended.
        status: ExitStatus,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_asks_for_the_address_and_an_answer_names_it() {
        let owner = MacAddr([2, 0x77, 0, 0, 0, 11]);
        for ip in ["10.64.0.1", "fd64::1"] {
            let ip: IpAddr = ip.parse().unwrap();
            for audience in [Audience::Station(owner), Audience::Segment] {
                let frame = request(ip, audience);
                let message = wire::parse(&frame).unwrap();

                assert_eq!(message.target(), ip);
                assert_eq!(answered(&frame), None, "it is a question");
                let to_owner = message.ethernet().destination == owner;
                assert_eq!(to_owner, audience == Audience::Station(owner));
            }
        }
        let reply = Message::Arp(Arp {
            ethernet: Ethernet { destination: Host::CLIENT.mac, source: owner },
            operation: ArpOperation::Reply,
            sender_mac: owner,
            sender_ip: [10, 64, 0, 1].into(),
            target_mac: Host::CLIENT.mac,
            target_ip: Host::CLIENT.v4,
        });
        assert_eq!(answered(&reply.emit()), Some([10, 64, 0, 1].into()));
    }
}
