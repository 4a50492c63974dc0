//! The gateway monitor: default routes of the main table, and where the kernel has found their gateways.
//!
//! Only an event that concerns a default route leads to a re-read, so that hosts with many routes and neighbours stay
//! quiet. The neighbour table is read along; a gateway that the kernel finds later tells its Ethernet address when it
//! answers the announcer.

#![expect(clippy::wildcard_enum_match_arm, reason = "the messages of netlink are not ours, and grow with the kernel")]

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use garpike_election::{IfIndex, MacAddr};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType, RouteVia};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::netlink::{Concern, Followed, Lost, keep_following, publish};
use crate::stations::Gateways;

/// Keeps `gateways` up to date; ends when nobody listens any more. The first snapshot comes at once.
pub(super) async fn watch_gateways(gateways: watch::Sender<Gateways>, lost: mpsc::Sender<Lost>) {
    keep_following(&gateways, &lost, Routes { gateways: gateways.clone() }).await;
}

struct Routes {
    gateways: watch::Sender<Gateways>,
}

impl Followed for Routes {
    const NAME: &'static str = "gateways";
    const GROUPS: &'static [MulticastGroup] = &[MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];
    type Snapshot = Gateways;

    async fn read(handle: Handle) -> Result<Gateways, rtnetlink::Error> {
        snapshot(handle).await
    }

    fn hear(&mut self, event: &NetlinkMessage<RouteNetlinkMessage>, _: Instant) -> Concern {
        concern(event)
    }

    fn take(&mut self, gateways: Gateways, _: Instant) -> Option<Instant> {
        publish(&self.gateways, gateways);
        None
    }
}

/// Only what may concern a default route does: hosts have many others. More events than the socket holds may.
fn concern(event: &NetlinkMessage<RouteNetlinkMessage>) -> Concern {
    match &event.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route)) => {
            if is_default(route) {
                Concern::Changed
            } else {
                Concern::None
            }
        }
        NetlinkPayload::Overrun(_) => Concern::Changed,
        _ => Concern::None,
    }
}

fn is_default(route: &RouteMessage) -> bool {
    let RouteHeader { destination_prefix_length, table, kind, .. } = route.header;
    destination_prefix_length == 0 && table == RouteHeader::RT_TABLE_MAIN && kind == RouteType::Unicast
}

async fn snapshot(handle: Handle) -> Result<Gateways, rtnetlink::Error> {
    let mut gateways: BTreeMap<IfIndex, BTreeMap<IpAddr, Option<MacAddr>>> = BTreeMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut wanted = RouteMessage::default();
        wanted.header.address_family = family;
        let mut routes = std::pin::pin!(handle.route().get(wanted).execute());
        while let Some(route) = routes.try_next().await? {
            for (interface, ip) in gateways_of(&route) {
                gateways.entry(interface).or_default().insert(ip, None);
            }
        }
    }
    let mut neighbours = std::pin::pin!(handle.neighbours().get().execute());
    while let Some(neighbour) = neighbours.try_next().await? {
        let behind = gateways.get_mut(&IfIndex(neighbour.header.ifindex));
        if let (Some(behind), Some((ip, mac))) = (behind, found(&neighbour))
            && let Some(known) = behind.get_mut(&ip)
        {
            *known = Some(mac);
        }
    }
    Ok(Gateways { gateways })
}

/// The gateways of a default route, with the interfaces behind which they are.
fn gateways_of(route: &RouteMessage) -> Vec<(IfIndex, IpAddr)> {
    if !is_default(route) {
        return Vec::new();
    }
    let mut found = Vec::from_iter(hop(None, &route.attributes));
    for attribute in &route.attributes {
        if let RouteAttribute::MultiPath(hops) = attribute {
            found.extend(hops.iter().filter_map(|next| hop(Some(next.interface_index), &next.attributes)));
        }
    }
    found
}

fn hop(mut interface: Option<u32>, attributes: &[RouteAttribute]) -> Option<(IfIndex, IpAddr)> {
    let mut gateway = None;
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) | RouteAttribute::Via(RouteVia::Inet(ip)) => {
                gateway = Some(IpAddr::from(*ip));
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) | RouteAttribute::Via(RouteVia::Inet6(ip)) => {
                gateway = Some(IpAddr::from(*ip));
            }
            _ => {}
        }
    }
    Some((IfIndex(interface?), gateway?))
}

/// Where the kernel has found a neighbour.
fn found(message: &NeighbourMessage) -> Option<(IpAddr, MacAddr)> {
    if matches!(message.header.state, NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None) {
        return None;
    }
    let mut ip = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => ip = Some(IpAddr::from(*address)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => ip = Some(IpAddr::from(*address)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(MacAddr),
            _ => {}
        }
    }
    Some((ip?, mac.filter(|mac| !mac.is_multicast() && *mac != MacAddr::ZERO)?))
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::route::RouteNextHop;

    use super::*;

    #[test]
    fn a_default_route_names_its_gateway_and_interface() {
        let attributes =
            vec![RouteAttribute::Gateway(RouteAddress::Inet([10, 0, 0, 1].into())), RouteAttribute::Oif(2)];
        assert_eq!(gateways_of(&route(0, attributes.clone())), [(IfIndex(2), IpAddr::from([10, 0, 0, 1]))]);
        assert_eq!(gateways_of(&route(24, attributes)), []);
        assert_eq!(gateways_of(&route(0, vec![RouteAttribute::Oif(2)])), []);
    }

    #[test]
    fn only_default_routes_and_lost_events_lead_to_a_reading() {
        let default = RouteNetlinkMessage::NewRoute(route(0, vec![]));
        assert_eq!(concern(&NetlinkMessage::from(default)), Concern::Changed);
        let other = RouteNetlinkMessage::DelRoute(route(24, vec![]));
        assert_eq!(concern(&NetlinkMessage::from(other)), Concern::None);
        let mut overrun = NetlinkMessage::from(RouteNetlinkMessage::NewRoute(route(24, vec![])));
        overrun.payload = NetlinkPayload::Overrun(Vec::new());
        assert_eq!(concern(&overrun), Concern::Changed);
    }

    #[test]
    fn every_hop_of_a_route_with_several_is_named() {
        let hop = |interface_index, last| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = interface_index;
            hop.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet([10, 0, 0, last].into()))];
            hop
        };
        let hops = vec![hop(2, 1), hop(3, 2)];

        let found = gateways_of(&route(0, vec![RouteAttribute::MultiPath(hops)]));

        assert_eq!(found, [(IfIndex(2), IpAddr::from([10, 0, 0, 1])), (IfIndex(3), IpAddr::from([10, 0, 0, 2]))]);
    }

    #[test]
    fn a_neighbour_that_the_kernel_did_not_find_has_no_address() {
        let mut neighbour = NeighbourMessage::default();
        neighbour.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet([10, 0, 0, 1].into())),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1]),
        ];
        neighbour.header.state = NeighbourState::Stale;
        assert_eq!(found(&neighbour), Some(([10, 0, 0, 1].into(), MacAddr([2, 0, 0, 0, 0, 1]))));
        neighbour.header.state = NeighbourState::Failed;
        assert_eq!(found(&neighbour), None);
    }

    fn route(prefix_len: u8, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.destination_prefix_length = prefix_len;
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.header.kind = RouteType::Unicast;
        route.attributes = attributes;
        route
    }
}
