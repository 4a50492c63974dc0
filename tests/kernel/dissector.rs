//! What another program makes of the announcer's frames.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use garpike_announcer::{Announcer, Config, Link, LinkSet};
use garpike_chaos::lab::Init;
use garpike_election::{IfIndex, MacAddr, Selection};

use super::frames::NEW;
use super::sockets::{SERVICE_IP, question, service_ip6, solicitation};
use super::{Check, Verdict, now};

pub(crate) const CHECKS: &[Check] = &[Check("tshark sees the announcements as they are meant", tshark)];

fn tshark(inside: &Init) -> Verdict {
    let capture = inside.scratch().join("announcements.pcap");
    write_capture(&capture, &announcements_and_answers());
    let rows = dissect(&capture);

    let gratuitous = |opcode: &str| {
        rows.iter()
            .any(|row| row["arp.isgratuitous"] == "1" && row["arp.opcode"] == opcode && row["eth.dst"] == BROADCAST)
    };
    assert!(gratuitous("1") && gratuitous("2"), "both forms of gratuitous ARP: {rows:?}");
    let answer = rows.iter().find(|row| row["arp.opcode"] == "2" && row["arp.isgratuitous"] != "1").unwrap();
    assert_eq!((&*answer["arp.src.proto_ipv4"], &*answer["eth.dst"]), (&*SERVICE_IP.to_string(), &*NEW.to_string()));

    let unsolicited = rows.iter().find(|row| row["ipv6.dst"] == "ff02::1").unwrap();
    assert_eq!(flags(unsolicited), ["0", "0", "1"], "router, solicited, override");
    let solicited = rows.iter().find(|row| row["icmpv6.type"] == "136" && row["ipv6.dst"] != "ff02::1").unwrap();
    assert_eq!(flags(solicited), ["0", "1", "1"], "router, solicited, override");
    for advertisement in [unsolicited, solicited] {
        assert_eq!(advertisement["icmpv6.nd.na.target_address"], service_ip6(1).to_string());
        assert_eq!(advertisement["icmpv6.opt.linkaddr"], MAC.to_string());
        assert_eq!((&*advertisement["ipv6.hlim"], &*advertisement["icmpv6.checksum.status"]), ("255", "1"));
    }
    assert!(
        rows.iter().all(|row| row["_ws.malformed"].is_empty() && row["_ws.expert.severity"].is_empty()),
        "{rows:?}"
    );
    Verdict::Held
}

/// Whatever a node sends that gains an IPv4 and an IPv6 address, and is asked for both.
fn announcements_and_answers() -> Vec<Vec<u8>> {
    let (mut announcer, start) = (Announcer::new(Config::default()), now());
    let link = Link::ethernet(
        "eth0".parse().unwrap(),
        MAC,
        ["192.168.8.12/22", "fe80::12/64"].map(|net| net.parse().unwrap()).to_vec(),
    );
    announcer.handle_links(LinkSet { links: BTreeMap::from([(ETH0, link)]) }, start);
    let owned = [SERVICE_IP.into(), service_ip6(1).into()]
        .map(|ip: std::net::IpAddr| (ip.to_string().parse().unwrap(), Selection::All));
    announcer.handle_owned(BTreeMap::from(owned), start);
    announcer.handle_timeout(start + Duration::from_millis(100));
    announcer.handle_frame(ETH0, &question(SERVICE_IP), start).unwrap();
    announcer.handle_frame(ETH0, &solicitation(service_ip6(1)), start).unwrap();
    std::iter::from_fn(|| announcer.poll_transmit()).map(|frame| frame.bytes.to_vec()).collect()
}

/// A file in the format of libpcap, link type Ethernet.
fn write_capture(path: &Path, frames: &[Vec<u8>]) {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    for frame in frames {
        let len = u32::try_from(frame.len()).unwrap();
        for word in [0, 0, len, len] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    fs::write(path, file).unwrap();
}

/// One row for each frame: what tshark says of each field.
fn dissect(capture: &Path) -> Vec<BTreeMap<&'static str, String>> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(capture).args(["-T", "fields", "-E", "separator=|", "-E", "occurrence=f"]);
    command.args(FIELDS.iter().flat_map(|field| ["-e", field]));
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => panic!("tshark: {error}; `cargo xtask setup lab` installs it"),
    };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Later versions write True for 1.
    let value = |value: &str| match value {
        "True" => "1".to_owned(),
        "False" => "0".to_owned(),
        other => other.to_owned(),
    };
    text.lines().map(|line| FIELDS.into_iter().zip(line.split('|').map(value)).collect()).collect()
}

fn flags(row: &BTreeMap<&'static str, String>) -> [String; 3] {
    ["r", "s", "o"].map(|flag| row[&*format!("icmpv6.nd.na.flag.{flag}")].clone())
}

const FIELDS: [&str; 16] = [
    "eth.dst",
    "arp.opcode",
    "arp.isgratuitous",
    "arp.src.proto_ipv4",
    "ipv6.dst",
    "ipv6.hlim",
    "icmpv6.type",
    "icmpv6.checksum.status",
    "icmpv6.nd.na.target_address",
    "icmpv6.nd.na.flag.r",
    "icmpv6.nd.na.flag.s",
    "icmpv6.nd.na.flag.o",
    "icmpv6.opt.linkaddr",
    "_ws.malformed",
    "_ws.expert.severity",
    "_ws.expert.message",
];
const BROADCAST: &str = "ff:ff:ff:ff:ff:ff";
const ETH0: IfIndex = IfIndex(2);
const MAC: MacAddr = MacAddr([0x02, 0x77, 0, 0, 0, 0x0c]);
