//! Frames from the segment: anybody may send them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use garpike_announcer::wire;
use garpike_announcer::{Announcer, Config, Datagram, Duties, FrameKind, Link, LinkSet, Peer, Standing, Undelivered};
use garpike_election::{IfIndex, MacAddr, Member, NodeName, NodeState, Selection, ServiceIp, Wire};

/// Parses a frame, writes what was understood and parses that again; hands the frame to a responder. A wrong checksum of
/// ICMPv6 is mended first: what lies behind it would hardly be reached otherwise.
///
/// # Panics
///
/// When a message does not survive the round trip, a right checksum is called wrong, or an answer is anything else than
/// one true claim about what was asked.
pub fn frame(data: &[u8]) {
    if wire::parse(data) == Err(wire::Ignored::Checksum) {
        let mended = with_checksum(data).expect("a frame whose checksum is judged has one");
        assert_ne!(wire::parse(&mended), Err(wire::Ignored::Checksum), "{mended:02x?}");
        respond(&mended);
        settle(&mended);
    } else {
        respond(data);
        settle(data);
    }
}

fn respond(data: &[u8]) {
    let message = wire::parse(data).ok();
    if let Some(message) = message {
        assert_eq!(wire::parse(&message.emit()), Ok(message), "a message does not survive the wire");
    }
    let now = crate::start();
    let mut announcer = Announcer::new(Config::default());
    announcer.handle_links(links(), now);
    let owned = ["192.168.10.0", "fc00:f853:ccd:e799::"].map(|ip| ip.parse::<ServiceIp>().expect("is a service IP"));
    announcer.handle_owned(owned.into_iter().map(|ip| (ip, Selection::All)).collect(), now);
    while announcer.poll_transmit().is_some() {}

    let handled = announcer.handle_frame(ETH0, data, now);

    // An address that somebody else claims is announced as well.
    let sent = std::iter::from_fn(|| announcer.poll_transmit());
    let answers: Vec<_> = sent.filter(|frame| frame.kind == FrameKind::Reply).collect();
    assert_eq!(answers.len(), usize::from(handled.is_ok()), "{handled:?}");
    for answer in answers {
        let asked = message.expect("only a message is answered").target();
        assert!(owned.iter().any(|ip| ip.addr() == asked), "an answer for {asked}, which is not owned");
        let answer = wire::parse(&answer.bytes).expect("an answer is a valid frame");
        assert_eq!(answer.claim(), Some(wire::Claim { ip: asked, mac: MAC }), "the answer to {message:?}");
        assert_eq!(answer.ethernet().source, MAC);
    }
}

/// Hands the frame to a node of a cluster: with addresses of its own, new ones, those of others, a peer that lives and one that
/// died. Whoever sends it may send it again, a second later.
///
/// # Panics
///
/// When a frame makes it send more than a few, or claim an address that is not its own.
fn settle(data: &[u8]) {
    let mut now = crate::start();
    let mut announcer = Announcer::new(Config::default());
    announcer.handle_links(links(), now);
    let [own, new, other] = ["192.168.10.0", "192.168.10.1", "192.168.10.2"].map(service_ip);
    let nodes = [(1, Standing::Here), (2, Standing::Here), (3, Standing::Dead)].map(|(number, standing)| {
        let mac = MacAddr([0x02, 0x77, 0, 0, 0, number]);
        let nets = ["192.168.8.12/22".parse().expect("is a prefix")].into();
        let wires = BTreeMap::from([("eth0".parse().expect("is an interface name"), Wire { mac, nets })]);
        let member = Member { wires, ..Member::new(NodeState::Ready, Selection::All) };
        (node(number), Peer { standing, member })
    });
    let duties = Duties {
        owned: [own, new, service_ip("fc00:f853:ccd:e799::")].map(|ip| (ip, Selection::All)).into(),
        untried: [new].into(),
        elsewhere: [(other, node(2))].into(),
        nodes: nodes.into(),
        local: Some(node(1)),
        ..Duties::default()
    };
    let owned: Vec<IpAddr> = duties.owned.keys().map(|ip| ip.addr()).collect();
    announcer.handle_duties(duties, now);
    for _ in 0..5 {
        let _ = announcer.handle_frame(ETH0, data, now);
        let sent: Vec<_> = std::iter::from_fn(|| announcer.poll_transmit()).collect();
        assert!(sent.len() <= 32, "{} frames", sent.len());
        for claim in sent.iter().filter_map(|frame| wire::parse(&frame.bytes).ok()?.claim()) {
            let of_the_host = ["192.168.8.11", "fe80::1"].map(|ip| ip.parse::<IpAddr>().expect("is an address"));
            assert!(owned.contains(&claim.ip) || of_the_host.contains(&claim.ip), "{claim:?}");
        }
        now += Duration::from_secs(1);
        announcer.handle_timeout(now);
        while announcer.poll_event().is_some() {}
    }
}

fn service_ip(text: &str) -> ServiceIp {
    text.parse().expect("is a service IP")
}

fn node(number: u8) -> NodeName {
    format!("n{number}").parse().expect("is a node name")
}

/// Takes a datagram of the membership out of a frame, and puts the input, as a datagram, into one.
///
/// # Panics
///
/// When something comes out that is not in the frame, comes from or goes to another station than the frame says, or does not
/// survive being sent; when a datagram is sent that is too long.
pub fn wire_datagram(data: &[u8]) {
    let now = crate::start();
    let mut announcer = Announcer::new(Config::default());
    announcer.handle_links(links(), now);

    let found = wire::unwrap_datagram(data);
    if let Ok((ethernet, datagram)) = found {
        let again = wire::wrap_datagram(ethernet, datagram).expect("it came in a frame");
        assert_eq!(again.get(..16 + datagram.len()), data.get(..16 + datagram.len()), "it is not what the frame holds");
        assert_eq!(wire::unwrap_datagram(&again), found, "a datagram does not survive the wire");
    }
    match announcer.unwrap_datagram(ETH0, data) {
        Ok(datagram) => {
            let (ethernet, payload) = found.expect("there is no datagram in the frame");
            assert_eq!((ethernet.destination, ethernet.source), (MAC, datagram.mac), "it is not for this station");
            assert_eq!(payload, datagram.payload);
            let (interface, answer) = announcer.wrap_datagram(&datagram).expect("whence one came another can go");
            let (ethernet, payload) = wire::unwrap_datagram(&answer).expect("a datagram was put into it");
            assert_eq!((interface, ethernet.destination, ethernet.source), (ETH0, datagram.mac, MAC));
            assert_eq!(payload, datagram.payload, "a datagram does not survive the wire");
        }
        Err(Undelivered::Unusable(ignored)) => assert_eq!(found, Err(ignored)),
        Err(Undelivered::NotForUs) => assert!(found.is_ok_and(|(ethernet, _)| ethernet.destination != MAC)),
        Err(Undelivered::OwnFrame) => assert!(found.is_ok_and(|(ethernet, _)| ethernet.source == MAC)),
        Err(undelivered @ (Undelivered::Interface | Undelivered::BadReceiver | Undelivered::TooLong)) => {
            panic!("{undelivered:?}")
        }
    }
    assert!(
        announcer.unwrap_datagram(IfIndex(ETH0.0 + 1), data).is_err(),
        "an interface that is not there received it"
    );

    let interface = "eth0".parse().expect("is an interface name");
    let datagram = Datagram { interface, mac: MacAddr([0x02, 0x77, 0, 0, 0, 0x0c]), payload: data.to_vec() };
    let sent = announcer.wrap_datagram(&datagram);
    assert_eq!(sent.is_ok(), data.len() <= wire::MAX_DATAGRAM_LEN, "{} bytes", data.len());
    if let Ok((_, frame)) = sent {
        assert!((60..=1514).contains(&frame.len()), "a frame of {} bytes", frame.len());
        let content = wire::unwrap_datagram(&frame).map(|(_, content)| content);
        assert_eq!(content.is_ok(), !data.is_empty(), "{content:?}");
        assert!(content.is_err() || content == Ok(data), "a datagram does not survive the wire");
    }
    assert_eq!(announcer.poll_transmit(), None, "a datagram was answered by the announcer");
}

/// The frame with the one's complement sum over addresses, length, next header and body (RFC 4443 section 2.3).
fn with_checksum(data: &[u8]) -> Option<Vec<u8>> {
    let mut frame = data.to_vec();
    frame.get_mut(56..58)?.fill(0);
    let body_len = u16::from_be_bytes([*data.get(18)?, *data.get(19)?]);
    let (addresses, body) = (frame.get(22..54)?, frame.get(54..)?.get(..body_len.into())?);
    let words = addresses.chunks(2).chain(body.chunks(2)).map(|word| match *word {
        [high, low, ..] => u16::from_be_bytes([high, low]),
        [high] => u16::from_be_bytes([high, 0]),
        [] => 0,
    });
    let sum = words.chain([body_len, 58]).fold(0_u16, |sum, word| {
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    });
    frame.get_mut(56..58)?.copy_from_slice(&(!sum).to_be_bytes());
    Some(frame)
}

fn links() -> LinkSet {
    let link = Link::ethernet(
        "eth0".parse().expect("is an interface name"),
        MAC,
        ["192.168.8.11/22", "fe80::1/64"].map(|net| net.parse().expect("is a prefix")).to_vec(),
    );
    LinkSet { links: BTreeMap::from([(ETH0, link)]) }
}

const ETH0: IfIndex = IfIndex(2);
const MAC: MacAddr = MacAddr([0x02, 0x77, 0, 0, 0, 0x0b]);
