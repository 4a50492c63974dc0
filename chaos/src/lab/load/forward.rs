//! A router between two hosts: what do a speaker's sockets on its cables cost each packet that it forwards?
//!
//! Everything that happens to a packet happens within the system call of its sender, so the sender's processor time for
//! each packet tells the cost, whatever else the machine does.

use std::fs;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use garpike_announcer::io::{EtherType, PacketSocket};
use garpike_announcer::{Filter, Prefixes};
use garpike_election::MacAddr;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, sendmmsg};
use socket2::{Domain, Protocol, Socket, Type};

use super::LoadError;
use crate::lab::netns::Namespace;
use crate::lab::wiring::{CLIENT_SYSCTLS, Cable};
use crate::lab::{Init, LabError, now};

/// Three namespaces: source, router, sink.
#[derive(Debug)]
pub struct Road {
    source: Namespace,
    router: Namespace,
    cables: [Cable; 2],
    way_in: MacAddr,
    /// Takes what comes for it and reads nothing, so that nobody answers.
    _sinks: [UdpSocket; 2],
    _sink: Namespace,
}

/// The protocol of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which sockets of a speaker are open on the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sockets {
    /// None.
    None,
    /// For ARP, for datagrams of the membership, and a raw one for ICMPv6, as with `--ndp-unicast off`.
    Multicast,
    /// For ARP, for datagrams, and the one for neighbour discovery, which is shown every IPv6 packet.
    All,
}

/// What a run has cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Packets that were sent.
    pub packets: u64,
    /// Processor time of the sender.
    pub cpu: Duration,
    /// How long it took.
    pub took: Duration,
}

impl Road {
    /// Builds it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses something.
    pub fn build(_init: &mut Init) -> Result<Self, LoadError> {
        let [source, router, sink] = [Namespace::new("source")?, Namespace::new("router")?, Namespace::new("sink")?];
        source.set_sysctls(CLIENT_SYSCTLS)?;
        sink.set_sysctls(CLIENT_SYSCTLS)?;
        router.set_sysctls(CLIENT_SYSCTLS)?;
        router.set_sysctls(ROUTER_SYSCTLS)?;
        let cables = [router.add_cable("in", &source, "eth0", SOURCE)?, router.add_cable("out", &sink, "eth0", SINK)?];
        let [way_in, way_out] = cables;
        for (namespace, index, v4, v6) in [
            (&source, way_in.card, SOURCE_V4, SOURCE_V6),
            (&router, way_in.port, ROUTER_IN_V4, ROUTER_IN_V6),
            (&router, way_out.port, ROUTER_OUT_V4, ROUTER_OUT_V6),
            (&sink, way_out.card, SINK_V4, SINK_V6),
        ] {
            namespace.add_address(index, v4.into(), 24)?;
            namespace.add_address(index, v6.into(), 64)?;
        }
        let bind = |ip: IpAddr| sink.run(move |_| UdpSocket::bind(SocketAddr::new(ip, PORT))).map_err(LabError::from);
        let sinks = [bind(SINK_V4.into())??, bind(SINK_V6.into())??];
        let mac = router.mac_of(way_in.port)?;
        Ok(Self { source, router, cables, way_in: mac, _sinks: sinks, _sink: sink })
    }

    /// Sends for a while as fast as possible, while the router has these sockets.
    ///
    /// # Errors
    ///
    /// When a socket fails.
    pub fn drive(
        &self,
        version: Version,
        sockets: Sockets,
        prefixes: &Prefixes,
        lasts: Duration,
    ) -> Result<Cost, LoadError> {
        let _open = self.open(sockets, prefixes)?;
        let frame = self.packet(version);
        let (card, filter) = (self.cables[0].card, Filter::new(&Prefixes::default()));
        let open = move || PacketSocket::open(card, EtherType::Datagram, &filter.datagrams);
        let socket = self.source.run(move |_| open()).map_err(LabError::from)??;
        // The router asks for the sink before the first packet gets through.
        send(&socket, &frame, WARM_UP)?;
        let (begun, before) = (now(), processor_time()?);
        let packets = send(&socket, &frame, lasts)?;
        Ok(Cost { packets, cpu: processor_time()?.saturating_sub(before), took: begun.elapsed() })
    }

    fn open(&self, sockets: Sockets, prefixes: &Prefixes) -> Result<(Vec<PacketSocket>, Vec<Socket>), LoadError> {
        let wanted: &[EtherType] = match sockets {
            Sockets::None => &[],
            Sockets::Multicast => &[EtherType::Arp, EtherType::Datagram],
            Sockets::All => &[EtherType::Arp, EtherType::Datagram, EtherType::Ipv6],
        };
        let (mut open, mut raw) = (Vec::new(), Vec::new());
        for index in self.cables.map(|cable| cable.port) {
            for &ether_type in wanted {
                let filter = Filter::new(prefixes);
                let socket = move || {
                    let program = match ether_type {
                        EtherType::Arp => &filter.arp,
                        EtherType::Ipv6 => &filter.ndp,
                        EtherType::Datagram => &filter.datagrams,
                    };
                    PacketSocket::open(index, ether_type, program)
                };
                open.push(self.router.run(move |_| socket()).map_err(LabError::from)??);
            }
            if sockets == Sockets::Multicast {
                let socket = || Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6));
                raw.push(self.router.run(move |_| socket()).map_err(LabError::from)??);
            }
        }
        Ok((open, raw))
    }

    /// The smallest UDP packet from the source to the sink.
    fn packet(&self, version: Version) -> Vec<u8> {
        let udp = |checksum: [u8; 2]| [&PORT.to_be_bytes()[..], &PORT.to_be_bytes(), &[0, 8], &checksum].concat();
        let packet = match version {
            Version::V4 => {
                let start =
                    [&[0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, UDP, 0, 0][..], &SOURCE_V4.octets(), &SINK_V4.octets()];
                let mut header = start.concat();
                let sum = checksum(&header);
                header.splice(10..12, sum);
                [header, udp([0, 0])].concat()
            }
            Version::V6 => {
                let addresses = [SOURCE_V6.octets(), SINK_V6.octets()].concat();
                let sum = checksum(&[&addresses[..], &[0, 0, 0, 8, 0, 0, 0, UDP], &udp([0, 0])].concat());
                [&[0x60, 0, 0, 0, 0, 8, UDP, 64][..], &addresses, &udp(sum)].concat()
            }
        };
        let ether_type: [u8; 2] = match version {
            Version::V4 => [0x08, 0x00],
            Version::V6 => [0x86, 0xdd],
        };
        [&self.way_in.0[..], &SOURCE.0, &ether_type, &packet].concat()
    }
}

fn send(socket: &PacketSocket, frame: &[u8], lasts: Duration) -> io::Result<u64> {
    let (begun, mut sent) = (now(), 0);
    let slices = [[IoSlice::new(frame)]; BATCH];
    while begun.elapsed() < lasts {
        let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
        match sendmmsg(socket.as_raw_fd(), &mut headers, &slices, [None; BATCH], [], MsgFlags::MSG_DONTWAIT) {
            Ok(done) => sent += done.count() as u64,
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(sent)
}

/// Of this thread.
fn processor_time() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| io::Error::other("/proc/thread-self/schedstat is empty"))
}

/// RFC 1071, over an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let (words, _) = bytes.as_chunks();
    let sum: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    (!u16::try_from(folded).expect("it was folded into 16 bits")).to_be_bytes()
}

const ROUTER_SYSCTLS: &[(&str, &str)] = &[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")];
const SOURCE: MacAddr = MacAddr([0x02, 0x77, 0, 0, 0x02, 0x01]);
const SINK: MacAddr = MacAddr([0x02, 0x77, 0, 0, 0x02, 0x02]);
const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 2);
const ROUTER_IN_V4: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);
const ROUTER_OUT_V4: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const SINK_V4: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0xfd98, 0, 0, 0, 0, 0, 0, 2);
const ROUTER_IN_V6: Ipv6Addr = Ipv6Addr::new(0xfd98, 0, 0, 0, 0, 0, 0, 1);
const ROUTER_OUT_V6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1);
const SINK_V6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 2);
/// The discard service of RFC 863.
const PORT: u16 = 9;
const UDP: u8 = 17;
/// Chosen: long enough to make a system call's own cost small.
const BATCH: usize = 64;
const WARM_UP: Duration = Duration::from_millis(50);
