//! What on this host, or between it and the others, will hurt: told before it does.
//!
//! Pure: [`Sight`] is what was seen, [`Sight::findings`] what is wrong with it, each with its mend. [`Looking`] looks again and
//! again. Nothing is decided here: who owns an address does not depend on it.

mod host;
mod looking;
mod reach;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use garpike_announcer::Status as Announcer;
use garpike_announcer::io::arp_sysctl;
use garpike_election::{InterfaceName, MacAddr, Members, NodeName, ServiceIp, Spread};
use garpike_membership::Status as Membership;
use serde::{Deserialize, Serialize};

use crate::pipeline::View;

pub(crate) use host::Host;
pub(crate) use looking::Looking;

/// Something that somebody should mend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Finding {
    /// kube-proxy's IPVS mode makes every service IP local, and the kernel answers ARP for them.
    StrictArp { interface: InterfaceName, setting: &'static str, value: u32, wanted: u32 },
    /// The kernel answers for an address that is the subnet-router anycast address of a network of this host.
    SubnetRouter { ip: ServiceIp, interface: InterfaceName },
    /// A peer lives, and its datagrams do not arrive.
    UdpBlocked { peer: String },
    /// A peer does not take connections.
    TcpBlocked { peer: NodeName },
    /// Another node has the name of this one.
    NodeName { other: String },
    /// Something else than Garpike answers for an address of this node.
    ForeignSpeaker { ip: ServiceIp, mac: Option<MacAddr>, node: Option<NodeName> },
    /// Not all members want even numbers.
    Placement { others: String },
    /// The clock of this host is not the API server's.
    Clock { ahead_s: i64 },
}

/// A finding as `/state.json` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingState {
    /// The check that failed, as in the metric.
    pub check: String,
    /// What is wrong, and the mend.
    pub text: String,
}

impl Finding {
    /// All that [`Finding::check`] gives.
    pub(crate) const CHECKS: [&str; 8] = [
        "strict_arp",
        "subnet_router",
        "udp_blocked",
        "tcp_blocked",
        "node_name",
        "foreign_speaker",
        "placement",
        "clock",
    ];

    /// The check that failed, as a metric label.
    pub(crate) fn check(&self) -> &'static str {
        match self {
            Self::StrictArp { .. } => "strict_arp",
            Self::SubnetRouter { .. } => "subnet_router",
            Self::UdpBlocked { .. } => "udp_blocked",
            Self::TcpBlocked { .. } => "tcp_blocked",
            Self::NodeName { .. } => "node_name",
            Self::ForeignSpeaker { .. } => "foreign_speaker",
            Self::Placement { .. } => "placement",
            Self::Clock { .. } => "clock",
        }
    }

    /// What is shown of it.
    pub(crate) fn state(&self) -> FindingState {
        FindingState { check: self.check().to_owned(), text: self.to_string() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StrictArp { interface, setting, value, wanted } => write!(
                f,
                "kube-proxy runs in IPVS mode (there is {IPVS}) and {setting} of {interface} is {value}, {wanted} is needed: \
                 this host answers ARP for service IPs that other nodes own; set ipvs.strictARP: true in the ConfigMap \
                 kube-proxy of kube-system and restart kube-proxy"
            ),
            Self::SubnetRouter { ip, interface } => write!(
                f,
                "{ip} is the subnet-router anycast address of a network on {interface}, and IPv6 forwarding is on: the kernel of \
                 each node answers for it; take the first address of that network out of the IPAddressPool"
            ),
            Self::UdpBlocked { peer } => write!(
                f,
                "the speaker of {peer} lives, and its datagrams do not arrive here: let UDP 7946 (--ml-bindport) pass between \
                 all nodes"
            ),
            Self::TcpBlocked { peer } => write!(
                f,
                "the speaker of {peer} takes no connection from here: let TCP 7946 (--ml-bindport) pass between all nodes"
            ),
            Self::NodeName { other } => {
                write!(f, "the speaker at {other} has the name of this node; give each node its own --node-name")
            }
            Self::ForeignSpeaker { ip, mac, node } => {
                let mac = mac.map_or_else(|| "another station".to_owned(), |mac| mac.to_string());
                let place = node.as_ref().map_or_else(String::new, |node| format!(" on node {node}"));
                write!(
                    f,
                    "{mac}{place} answers for {ip}, and is no Garpike; remove the other load balancer (MetalLB, kube-vip) or the \
                     address of that host"
                )
            }
            Self::Placement { others } => write!(
                f,
                "--placement balanced is not in force, as {others} goes by the hash; start all speakers with the same --placement"
            ),
            Self::Clock { ahead_s } => write!(
                f,
                "the clock of this host is {} s {} the API server's: certificates may not be valid here, and a move ends at \
                 another time than elsewhere; let NTP set both clocks",
                ahead_s.unsigned_abs(),
                if *ahead_s > 0 { "ahead of" } else { "behind" },
            ),
        }
    }
}

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight<'a> {
    pub(crate) host: &'a Host,
    pub(crate) view: &'a View,
    pub(crate) membership: &'a Membership,
    pub(crate) announcer: &'a Announcer,
    /// The members that take no connection.
    pub(crate) unreachable: &'a BTreeSet<NodeName>,
    /// How this node wants owners to be spread.
    pub(crate) spread: Spread,
    pub(crate) clock_ahead_s: i64,
}

impl Sight<'_> {
    /// What is wrong; of each kind no more than [`SHOWN`].
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let all: [Vec<Finding>; 8] = [
            self.strict_arp(),
            self.subnet_router(),
            self.udp_blocked(),
            self.unreachable.iter().map(|peer| Finding::TcpBlocked { peer: peer.clone() }).take(SHOWN).collect(),
            self.node_name(),
            self.foreign_speaker(),
            self.placement(),
            self.clock(),
        ];
        all.into_iter().flatten().collect()
    }

    fn strict_arp(&self) -> Vec<Finding> {
        if !self.announcer.interfaces.keys().any(|name| name.as_str() == IPVS) {
            return Vec::new();
        }
        let finding = |found: &arp_sysctl::Finding| Finding::StrictArp {
            interface: found.interface.clone(),
            setting: found.setting,
            value: found.value,
            wanted: found.wanted,
        };
        self.host.arp.iter().map(finding).take(SHOWN).collect()
    }

    fn subnet_router(&self) -> Vec<Finding> {
        let local = self.view.members.as_ref().and_then(|members| members.nodes.get(&members.local));
        let wires = local.into_iter().flat_map(|local| &local.wires);
        let forwarding = wires.filter(|(name, _)| self.host.forwards_ipv6.contains(*name));
        let anycast: BTreeMap<ServiceIp, &InterfaceName> = forwarding
            .flat_map(|(name, wire)| wire.nets.iter().map(move |net| (name, net)))
            //= https://www.rfc-editor.org/rfc/rfc6164#section-6
            //# Routers MUST disable Subnet-Router anycast [on 127-bit prefixes]
            .filter(|(_, net)| net.addr().is_ipv6() && net.prefix_len() < 127)
            .filter_map(|(name, net)| Some((ServiceIp::new(net.trunc().addr()).ok()?, name)))
            .collect();
        let taken = anycast.into_iter().filter(|(ip, _)| self.view.desired.addresses.contains_key(ip));
        taken.map(|(ip, interface)| Finding::SubnetRouter { ip, interface: interface.clone() }).take(SHOWN).collect()
    }

    fn udp_blocked(&self) -> Vec<Finding> {
        let blocked = self.membership.complaints.iter().filter(|complaint| complaint.reason == "udp_blocked");
        let members = &self.membership.members;
        let name = |station: String| {
            let of_member = members.iter().find(|member| member.gossip.ip().to_string() == station);
            of_member.map_or(station, |member| member.name.to_string())
        };
        blocked.map(|complaint| Finding::UdpBlocked { peer: name(complaint.source.station()) }).take(SHOWN).collect()
    }

    fn node_name(&self) -> Vec<Finding> {
        let twins = self.membership.complaints.iter().filter(|complaint| complaint.reason == "name_conflict");
        twins.map(|complaint| Finding::NodeName { other: complaint.source.station() }).take(SHOWN).collect()
    }

    fn foreign_speaker(&self) -> Vec<Finding> {
        let in_doubt = self.announcer.addresses.iter().filter_map(|(ip, address)| Some((ip, address.doubt.as_ref()?)));
        let foreign = in_doubt.filter(|(_, doubt)| matches!(doubt.reason, "foreign_speaker" | "in_use"));
        let finding = |(ip, doubt): (&ServiceIp, &garpike_announcer::DoubtStatus)| Finding::ForeignSpeaker {
            ip: *ip,
            mac: doubt.mac,
            node: doubt.node.clone(),
        };
        foreign.map(finding).take(SHOWN).collect()
    }

    fn placement(&self) -> Vec<Finding> {
        let Some(members) = self.view.members.as_deref() else { return Vec::new() };
        if self.spread == Spread::Hash || Members::spread(members) == Spread::Balanced {
            return Vec::new();
        }
        let by_hash = members.nodes.iter().filter(|(_, member)| member.spread == Some(Spread::Hash));
        let others: Vec<&str> = by_hash.map(|(node, _)| node.as_str()).take(SHOWN).collect();
        // Before this node has said what it wants, nobody is to blame.
        if others.is_empty() { Vec::new() } else { vec![Finding::Placement { others: others.join(", ") }] }
    }

    fn clock(&self) -> Vec<Finding> {
        let wrong = self.clock_ahead_s.unsigned_abs() >= CLOCK_WRONG_S;
        wrong.then_some(Finding::Clock { ahead_s: self.clock_ahead_s }).into_iter().collect()
    }
}

/// The interface that kube-proxy's IPVS mode makes.
const IPVS: &str = "kube-ipvs0";
/// Chosen: no clock that NTP sets is wrong by so much, and the date of an answer is exact to a second.
const CLOCK_WRONG_S: u64 = 5;
/// Chosen: whoever has mended so many looks again.
const SHOWN: usize = 8;

#[cfg(test)]
mod tests;
