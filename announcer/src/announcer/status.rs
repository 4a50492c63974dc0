//! What the core shows of itself in `/state.json`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use garpike_election::{IfIndex, InterfaceName, MacAddr, NodeName, ServiceIp};
use serde::Serialize;

use super::{Announcer, SelfCheckStatus};

/// A picture of the core at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Every interface of the node.
    pub interfaces: BTreeMap<InterfaceName, InterfaceStatus>,
    /// Every owned address.
    pub addresses: BTreeMap<ServiceIp, AddressStatus>,
    /// Every address that is answered in place of its owner.
    pub stood_in: BTreeMap<ServiceIp, StandInStatus>,
    /// Every address that is answered until its new owner claims it, with that one's name.
    pub handed_over: BTreeMap<ServiceIp, NodeName>,
    /// The interfaces that are silent because a second one of this node is on their segment, with that one.
    pub one_segment: BTreeMap<InterfaceName, InterfaceName>,
    /// What became of the questions for addresses of others.
    pub self_check: SelfCheckStatus,
    /// What keeps the node from following its interfaces, a line each.
    pub troubles: Vec<String>,
}

/// What is to be known of one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceStatus {
    /// Its Ethernet address.
    pub mac: Option<MacAddr>,
    /// Why it cannot announce; `None` when it can.
    pub obstacle: Option<&'static str>,
    /// What has gone wrong with its sockets lately, a line each.
    pub troubles: Vec<String>,
}

/// What is to be known of one owned address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AddressStatus {
    /// Where it is answered. Empty: no interface that may announce it can.
    pub interfaces: Vec<InterfaceName>,
    /// Whether announcements of it are still to come.
    pub announcing: bool,
    /// When it was announced last, in milliseconds since 1970; `None` before the first time.
    pub announced_unix_ms: Option<u64>,
    /// When that comes next, refreshes for quiet networks left out.
    pub next_announcement_unix_ms: Option<u64>,
    /// The first station that showed that it sends to this node since the address was gained.
    pub acknowledged: Option<Acknowledgement>,
    /// The gateways and recent askers that were asked whether they do, and have not answered.
    pub unacknowledged: Vec<IpAddr>,
    /// How many requests for it were heard.
    pub requests: u64,
    /// How many of them were answered.
    pub answers: u64,
    /// How many frames announced it.
    pub announcements: u64,
    /// How many frames claimed it for another station.
    pub foreign_claims: u64,
    /// The last such station.
    pub claimed_by: Option<MacAddr>,
    /// What it is: `member`, `dead_member`, `gateway` or `stranger`.
    pub claimed_by_kind: Option<&'static str>,
    /// Why this node does not simply claim it.
    pub doubt: Option<DoubtStatus>,
}

/// Why the claim of an owned address is in doubt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DoubtStatus {
    /// `untried`, `disputed`, `in_use`, `foreign_speaker` or `outranked`; but for a dispute the address is not answered.
    pub reason: &'static str,
    /// The station that answers for it.
    pub mac: Option<MacAddr>,
    /// Its node.
    pub node: Option<NodeName>,
}

/// That a station sends to this node for an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Acknowledgement {
    /// The station.
    pub mac: MacAddr,
    /// Milliseconds from the gain to its answer.
    pub after_ms: u64,
}

/// What is to be known of one address whose owner is away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StandInStatus {
    /// Where it is answered, and the Ethernet address of the owner that is told there.
    pub interfaces: BTreeMap<InterfaceName, MacAddr>,
    /// How many requests were answered.
    pub answers: u64,
}

impl Announcer {
    /// A picture of the state when the wall clock says `wall`; its cost grows with the number of addresses.
    pub fn status(&self, now: Instant, wall: SystemTime) -> Status {
        let unix_ms = |at: Instant| {
            let wall = (wall + at.saturating_duration_since(now)).checked_sub(now.saturating_duration_since(at));
            milliseconds(wall.and_then(|wall| wall.duration_since(UNIX_EPOCH).ok()).unwrap_or_default())
        };
        let links = self.links.iter().flat_map(|links| links.links.values());
        let interfaces = links.map(|link| {
            let obstacle = link.obstacle(&self.config.excluded).map(|obstacle| obstacle.reason());
            (link.name.clone(), InterfaceStatus { mac: link.mac, obstacle, troubles: Vec::new() })
        });
        let addresses = self.owned.keys().filter_map(|ip| {
            let served = self.served.get(ip)?;
            let ports = || served.ports.iter().filter_map(|index| self.ports.get(index));
            let progress: Vec<_> = ports().map(|port| port.campaigns.progress(*ip)).collect();
            let announced = progress.iter().filter_map(|progress| progress.announced).max();
            let next = progress.iter().filter_map(|progress| progress.next).min();
            let acknowledgement = |(at, mac): (Instant, MacAddr)| {
                let after = served.gained.map_or(Duration::ZERO, |gained| at.saturating_duration_since(gained));
                Acknowledgement { mac, after_ms: milliseconds(after) }
            };
            let claimed = served.contest.as_ref().and_then(|contest| contest.claimed.as_ref());
            let status = AddressStatus {
                interfaces: ports().map(|port| port.name.clone()).collect(),
                announcing: next.is_some(),
                announced_unix_ms: announced.map(unix_ms),
                next_announcement_unix_ms: next.map(unix_ms),
                acknowledged: served.acknowledged.map(acknowledgement),
                unacknowledged: progress.into_iter().flat_map(|progress| progress.missing).collect(),
                requests: served.requests,
                answers: served.answers,
                announcements: served.announcements,
                foreign_claims: served.contest.as_ref().map_or(0, |contest| contest.foreign_claims),
                claimed_by: claimed.map(|(_, mac, _)| *mac),
                claimed_by_kind: claimed.map(|(_, _, by)| by.kind()),
                doubt: self.doubts.of(*ip).map(|(because, mac)| DoubtStatus {
                    reason: because.reason(),
                    mac,
                    node: because.node().cloned(),
                }),
            };
            Some((*ip, status))
        });
        let stood_in = self.stood_in.keys().filter_map(|ip| {
            let stand_in = self.standing_in.get(ip)?;
            let name = |index| self.ports.get(index).map(|port| port.name.clone());
            let interfaces = stand_in.macs.iter().filter_map(|(index, mac)| Some((name(index)?, *mac))).collect();
            Some((*ip, StandInStatus { interfaces, answers: stand_in.answers }))
        });
        let name = |index| self.ports.get(&index).map(|port| port.name.clone());
        let one_segment = self.segments.pairs().filter_map(|(speaks, silent)| Some((name(silent)?, name(speaks)?)));
        Status {
            interfaces: interfaces.collect(),
            addresses: addresses.collect(),
            stood_in: stood_in.collect(),
            handed_over: self.handover.addresses().map(|(ip, to)| (ip, to.clone())).collect(),
            one_segment: one_segment.collect(),
            self_check: self.self_check.status(),
            troubles: Vec::new(),
        }
    }

    /// The interfaces of the node by their number.
    pub fn interface_names(&self) -> impl Iterator<Item = (IfIndex, &InterfaceName)> {
        self.links.iter().flat_map(|links| &links.links).map(|(index, link)| (*index, &link.name))
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
