//! What packet sockets, their filters and snooping switches let pass.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use garpike_announcer::io::{EtherType, PacketSocket, Received};
use garpike_announcer::wire::{self, Arp, ArpOperation, Ethernet, Message, NeighborSolicitation};
use garpike_announcer::{Filter, MAX_PREFIXES, Prefixes};
use garpike_chaos::lab::bench::{Bench, Cord, Setting, SnoopingSwitch};
use garpike_chaos::lab::{Host, Init};
use garpike_election::MacAddr;

use super::frames::NEW;
use super::{Check, Verdict, now, sleep, wait_until};

pub(crate) const CHECKS: &[Check] = &[
    Check("tagged frames are not heard, those with a priority alone are", tags),
    Check("frames of a macvlan child are not taken for the parent's", children),
    Check("the longest filters are accepted, and where option memory is small too", longest_filters),
    Check("a flood for addresses outside the prefixes never reaches the process", foreign_flood),
    Check("a socket outlives the fall of its interface and not its end", fall_and_end),
    Check("one socket joins as many groups as the announcer counts on", groups_per_socket),
    Check("a snooping switch keeps solicitations from who has not joined their group", snooping),
    Check("a router forwards a unicast solicitation for a service IP by asking for it", forwarded_solicitation),
];

fn tags(inside: &Init) -> Verdict {
    let bench = Bench::new(inside, &[]).unwrap();
    let socket = listen(&bench);
    let tagged = |tag: [u8; 4]| {
        let mut frame = question(SERVICE_IP);
        frame.splice(12..12, tag);
        frame
    };
    let heard = |frame: Vec<u8>| {
        bench.send(&frame).unwrap();
        frames_of(&socket).len()
    };
    assert_eq!(heard(question(SERVICE_IP)), 1, "untagged");
    assert_eq!(heard(tagged([0x81, 0x00, 0x00, 0x05])), 0, "VLAN 5");
    assert_eq!(heard(tagged([0x88, 0xa8, 0x00, 0x05])), 0, "service VLAN 5");
    assert_eq!(heard(tagged([0x81, 0x00, 0xa0, 0x00])), 1, "VLAN 0, priority 5");
    Verdict::Held
}

fn children(inside: &Init) -> Verdict {
    let bench = Bench::new(inside, &[]).unwrap();
    let child = MacAddr([0x02, 0x77, 0, 0, 2, 1]);
    if let Err(error) = bench.add_macvlan("child0", child) {
        return Verdict::NotRun(error.to_string());
    }
    let socket = listen(&bench);
    let mut to_child = question(SERVICE_IP);
    to_child[..6].copy_from_slice(&child.0);
    bench.send(&to_child).unwrap();
    assert_eq!(frames_of(&socket), [[0_u8; 0]; 0]);
    bench.send(&question(SERVICE_IP)).unwrap();
    assert_eq!(frames_of(&socket).len(), 1, "a broadcast is the parent's as well");
    Verdict::Held
}

fn longest_filters(inside: &Init) -> Verdict {
    // Unlike each other, so that no prefix is short.
    let v4 = (0..u32::try_from(MAX_PREFIXES).unwrap()).map(|i| Ipv4Addr::from_bits(i * 0x0100_0001));
    let v6 = (0..u128::try_from(MAX_PREFIXES).unwrap())
        .map(|i| Ipv6Addr::from_bits(i * 0x0100_0000_0001_0000_0000_0000_0001));
    let prefixes = Prefixes::covering(v4, v6);
    assert_eq!((prefixes.v4.len(), prefixes.v6.len()), (MAX_PREFIXES, MAX_PREFIXES));
    let filter = Filter::new(&prefixes);
    // Kernels before 6.7 have the smaller one.
    for optmem in ["131072", "20480"] {
        let bench = match Bench::new(inside, &[Setting("net/core/optmem_max", optmem)]) {
            Ok(bench) => bench,
            Err(error) => return Verdict::NotRun(error.to_string()),
        };
        let (eth0, filter) = (bench.eth0(), filter.clone());
        let opened = bench.on_host(move || {
            let arp = PacketSocket::open(eth0, EtherType::Arp, &filter.arp).map(drop);
            (arp, PacketSocket::open(eth0, EtherType::Ipv6, &filter.ndp).map(drop))
        });
        let (arp, ndp) = opened.unwrap();
        assert!(arp.is_ok() && ndp.is_ok(), "{optmem} bytes: {arp:?}, {ndp:?}");
    }
    Verdict::Held
}

fn foreign_flood(inside: &Init) -> Verdict {
    let bench = Bench::new(inside, &[]).unwrap();
    let socket = listen(&bench);
    for last in 0..10_000_u32 {
        bench.send(&question(Ipv4Addr::from_bits(0x0a00_0000 + last))).unwrap();
    }
    bench.send(&question(SERVICE_IP)).unwrap();
    let frames = frames_of(&socket);
    assert_eq!(frames, [question(SERVICE_IP)], "{} frames", frames.len());
    Verdict::Held
}

fn fall_and_end(inside: &Init) -> Verdict {
    let bench = Bench::new(inside, &[]).unwrap();
    let socket = listen(&bench);
    let send = || socket.send(&question(SERVICE_IP)).map_err(|error| error.raw_os_error());
    assert_eq!(send(), Ok(()));
    bench.set_card(Cord::Out).unwrap();
    assert_eq!(send(), Err(Some(libc_errno::ENETDOWN)));
    bench.set_card(Cord::In).unwrap();
    // The fall is told once, to who receives.
    let _ = socket.receive(&mut [0; 64]);
    wait_until("it sends again", || send().is_ok());
    wait_until("it receives again", || bench.send(&question(SERVICE_IP)).is_ok() && !frames_of(&socket).is_empty());
    bench.remove_card().unwrap();
    assert!(matches!(send(), Err(Some(libc_errno::ENXIO | libc_errno::ENODEV | libc_errno::ENETDOWN))), "{:?}", send());
    let again = bench.on_host({
        let eth0 = bench.eth0();
        move || PacketSocket::open(eth0, EtherType::Arp, &Filter::new(&Prefixes::default()).arp).map(drop)
    });
    let error = again.unwrap().unwrap_err();
    assert!(error.to_string().contains("does not exist any more"), "{error}");
    Verdict::Held
}

fn groups_per_socket(inside: &Init) -> Verdict {
    // How many the announcer puts on a socket before it opens another, and what kernels before 6.7 hold.
    for (optmem, at_least) in [("131072", 2000), ("20480", 300)] {
        let bench = match Bench::new(inside, &[Setting("net/core/optmem_max", optmem)]) {
            Ok(bench) => bench,
            Err(error) => return Verdict::NotRun(error.to_string()),
        };
        let eth0 = bench.eth0();
        let joined = bench.on_host(move || {
            let socket = UdpSocket::bind("[::]:0")?;
            let join = |i: u32| socket.join_multicast_v6(&wire::solicited_node(service_ip6(i)), eth0.0);
            Ok::<_, io::Error>((0..10_000).map(join).take_while(Result::is_ok).count())
        });
        let joined = joined.unwrap().unwrap();
        assert!((at_least..10_000).contains(&joined), "{optmem} bytes: {joined} groups");
    }
    Verdict::Held
}

fn snooping(inside: &Init) -> Verdict {
    let switch = SnoopingSwitch::new(inside).unwrap();
    let (joined, other) = (service_ip6(1), service_ip6(2));
    let solicits = |target| switch.reaches_node(&solicitation(target)).unwrap();
    // Until the querier has asked around, everything is flooded.
    wait_until("the switch snoops", || !solicits(joined));
    let eth0 = switch.eth0();
    let socket = switch.on_node(move || {
        let socket = UdpSocket::bind("[::]:0")?;
        socket.join_multicast_v6(&wire::solicited_node(joined), eth0.0)?;
        Ok::<_, io::Error>(socket)
    });
    let socket = socket.unwrap().unwrap();
    wait_until("the switch has heard that the node listens", || solicits(joined));
    assert!(!solicits(other), "it hears its own group alone");
    drop(socket);
    wait_until("the switch has heard that the node listens no more", || !solicits(joined));
    Verdict::Held
}

fn forwarded_solicitation(inside: &Init) -> Verdict {
    let bench = Bench::new(inside, &[Setting("net/ipv6/conf/all/forwarding", "1")]).unwrap();
    let target = service_ip6(7);
    let frame = Message::NeighborSolicitation(NeighborSolicitation {
        ethernet: Ethernet { destination: Host::CLIENT.mac, source: NEW },
        source_ip: Host::CLIENT.v6.to_bits().wrapping_add(1).into(),
        destination_ip: target,
        target,
        source_mac: Some(NEW),
    });
    bench.heard().unwrap();
    bench.send(&frame.emit()).unwrap();
    let mut said: Vec<Message> = Vec::new();
    wait_until("the kernel asks for the service IP itself", || {
        let heard = bench.heard().unwrap();
        said.extend(heard.iter().filter_map(|frame| wire::parse(frame).ok()));
        said.retain(|message| {
            message.ethernet().source == Host::CLIENT.mac && message.target() == IpAddr::from(target)
        });
        said.iter().any(|message| message.ethernet().destination.is_multicast())
    });
    // Nobody may answer that, and it is no claim.
    assert!(said.iter().all(|message| matches!(message, Message::NeighborSolicitation(_))), "{said:?}");
    assert!(
        said.iter().all(|message| message.claim().is_none_or(|claim| claim.ip != IpAddr::from(target))),
        "{said:?}"
    );
    Verdict::Held
}

/// A socket on the host that passes what concerns one service IP.
fn listen(bench: &Bench) -> PacketSocket {
    let eth0 = bench.eth0();
    let filter = Filter::new(&Prefixes::covering([SERVICE_IP], []));
    bench.on_host(move || PacketSocket::open(eth0, EtherType::Arp, &filter.arp)).unwrap().unwrap()
}

/// What a socket hears within a moment, its own frames left out.
fn frames_of(socket: &PacketSocket) -> Vec<Vec<u8>> {
    let (mut frames, mut buffer) = (Vec::new(), [0; 128]);
    let deadline = now() + std::time::Duration::from_millis(150);
    while now() < deadline {
        match socket.receive(&mut buffer) {
            Ok(Some(Received { frame, .. })) => frames.push(frame.to_vec()),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(5),
            Err(error) => panic!("{error}"),
        }
    }
    frames
}

/// Who has the address? From the caller, to all.
pub(crate) fn question(ip: Ipv4Addr) -> Vec<u8> {
    let arp = Arp {
        ethernet: Ethernet { destination: MacAddr::BROADCAST, source: NEW },
        operation: ArpOperation::Request,
        sender_mac: NEW,
        sender_ip: Ipv4Addr::new(192, 168, 8, 201),
        target_mac: MacAddr::ZERO,
        target_ip: ip,
    };
    Message::Arp(arp).emit().to_vec()
}

pub(crate) fn solicitation(target: Ipv6Addr) -> Vec<u8> {
    let group = wire::solicited_node(target);
    let solicitation = NeighborSolicitation {
        ethernet: Ethernet { destination: wire::multicast_mac(group), source: NEW },
        source_ip: Ipv6Addr::new(0xfc00, 0xf853, 0x0ccd, 0xe799, 0, 0, 1, 0x0201),
        destination_ip: group,
        target,
        source_mac: Some(NEW),
    };
    Message::NeighborSolicitation(solicitation).emit().to_vec()
}

/// A service IP with a group of its own.
pub(crate) fn service_ip6(number: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(Ipv6Addr::new(0xfc00, 0xf853, 0x0ccd, 0xe799, 0, 0, 0x10, 0).to_bits() + u128::from(number))
}

pub(crate) const SERVICE_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 1);

/// Linux' numbers of errors.
mod libc_errno {
    pub(super) const ENXIO: i32 = 6;
    pub(super) const ENODEV: i32 = 19;
    pub(super) const ENETDOWN: i32 = 100;
}
