//! The frames of the tables, built by the announcer's own writer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use garpike_announcer::wire::{
    self, Arp, ArpOperation, Ethernet, Message, NaFlags, NeighborAdvertisement, NeighborSolicitation,
};
use garpike_chaos::lab::Host;
use garpike_election::MacAddr;

/// Who had the address.
pub(crate) const OLD: MacAddr = MacAddr([0x02, 0x77, 0, 0, 0, 0x0a]);
/// Who has it from now on.
pub(crate) const NEW: MacAddr = MacAddr([0x02, 0x77, 0, 0, 0, 0x0b]);

/// A way to say that an address is at [`NEW`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Gratuitous ARP request, target hardware address zero.
    Request,
    /// The same, target hardware address ff:ff:ff:ff:ff:ff.
    RequestFf,
    /// The same to the client alone.
    RequestUnicast,
    /// Gratuitous ARP reply, target hardware address that of the sender (RFC 5944 section 4.6).
    Reply,
    /// Gratuitous ARP reply, target hardware address ff:ff:ff:ff:ff:ff.
    ReplyFf,
    /// Gratuitous ARP reply, target hardware address zero.
    ReplyZero,
    /// The answer to a question of the client.
    Answer,
    /// A question for the client's own address, asked from the service IP.
    Directed,
    /// An ARP probe (RFC 5227).
    Probe,
    /// Unsolicited neighbour advertisement with override, to all nodes.
    Na,
    /// The same with the router flag.
    NaRouter,
    /// A solicited advertisement with override, to the client.
    NaSolicited,
    /// Without override.
    NaNoOverride,
    /// With override, without the option that says where the address is.
    NaNoOption,
    /// A solicitation for the client's own address, asked from the service IP.
    NsDirected,
}

/// The frame of a form for an address.
pub(crate) fn frame(form: Form, ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => arp(form, ip).emit().to_vec(),
        IpAddr::V6(ip) => nd(form, ip).emit().to_vec(),
    }
}

fn arp(form: Form, ip: Ipv4Addr) -> Message {
    let client = Host::CLIENT;
    let gratuitous = Arp {
        ethernet: Ethernet { destination: MacAddr::BROADCAST, source: NEW },
        operation: ArpOperation::Request,
        sender_mac: NEW,
        sender_ip: ip,
        target_mac: MacAddr::ZERO,
        target_ip: ip,
    };
    let to_client = Ethernet { destination: client.mac, source: NEW };
    let reply = Arp { operation: ArpOperation::Reply, target_mac: NEW, ..gratuitous };
    Message::Arp(match form {
        Form::Request => gratuitous,
        Form::RequestFf => Arp { target_mac: MacAddr::BROADCAST, ..gratuitous },
        Form::RequestUnicast => Arp { ethernet: to_client, ..gratuitous },
        Form::Reply => reply,
        Form::ReplyFf => Arp { target_mac: MacAddr::BROADCAST, ..reply },
        Form::ReplyZero => Arp { target_mac: MacAddr::ZERO, ..reply },
        Form::Answer => Arp { ethernet: to_client, target_mac: client.mac, target_ip: client.v4, ..reply },
        Form::Directed => Arp { ethernet: to_client, target_ip: client.v4, ..gratuitous },
        Form::Probe => Arp { sender_ip: Ipv4Addr::UNSPECIFIED, ..gratuitous },
        Form::Na | Form::NaRouter | Form::NaSolicited | Form::NaNoOverride | Form::NaNoOption | Form::NsDirected => {
            panic!("{form:?} is not ARP")
        }
    })
}

fn nd(form: Form, ip: Ipv6Addr) -> Message {
    let client = Host::CLIENT;
    let to_client = Ethernet { destination: client.mac, source: NEW };
    let unsolicited = NeighborAdvertisement {
        ethernet: Ethernet { destination: wire::multicast_mac(wire::ALL_NODES), source: NEW },
        source_ip: ip,
        destination_ip: wire::ALL_NODES,
        target: ip,
        target_mac: Some(NEW),
        flags: NaFlags { router: false, solicited: false, overrides: true },
    };
    let flags = unsolicited.flags;
    Message::NeighborAdvertisement(match form {
        Form::Na => unsolicited,
        Form::NaRouter => NeighborAdvertisement { flags: NaFlags { router: true, ..flags }, ..unsolicited },
        Form::NaSolicited => NeighborAdvertisement {
            ethernet: to_client,
            destination_ip: client.v6,
            flags: NaFlags { solicited: true, ..flags },
            ..unsolicited
        },
        Form::NaNoOverride => NeighborAdvertisement { flags: NaFlags { overrides: false, ..flags }, ..unsolicited },
        Form::NaNoOption => NeighborAdvertisement { target_mac: None, ..unsolicited },
        Form::NsDirected => {
            return Message::NeighborSolicitation(NeighborSolicitation {
                ethernet: to_client,
                source_ip: ip,
                destination_ip: client.v6,
                target: client.v6,
                source_mac: Some(NEW),
            });
        }
        Form::Request
        | Form::RequestFf
        | Form::RequestUnicast
        | Form::Reply
        | Form::ReplyFf
        | Form::ReplyZero
        | Form::Answer
        | Form::Directed
        | Form::Probe => panic!("{form:?} is not neighbour discovery"),
    })
}
