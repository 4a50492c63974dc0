//! The link monitor: the kernel's interfaces and addresses as [`LinkSet`] snapshots.
//!
//! What an event takes away, a carrier or an interface, is published at once, before anything is read: others can take
//! over. So is that the kernel tells the neighbours anew where this host is. All else comes with the next reading.

#![expect(clippy::wildcard_enum_match_arm, reason = "the messages of netlink are not ours, and grow with the kernel")]

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use garpike_election::{IfIndex, InterfaceName, MacAddr};
use ipnet::IpNet;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkEvent, LinkFlags, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::info;

use super::flaps::Flaps;
use super::netlink::{Concern, Followed, Lost, keep_following, publish};
use crate::links::{Link, LinkSet};

/// Keeps `links` up to date; ends when nobody listens any more. The first snapshot comes at once.
pub(super) async fn watch_links(links: watch::Sender<Option<LinkSet>>, lost: mpsc::Sender<Lost>) {
    let interfaces = Interfaces { links: links.clone(), flaps: Flaps::default(), told_anew: BTreeMap::new() };
    keep_following(&links, &lost, interfaces).await;
}

struct Interfaces {
    links: watch::Sender<Option<LinkSet>>,
    flaps: Flaps,
    /// How often the kernel has told the neighbours anew where an interface is.
    told_anew: BTreeMap<IfIndex, u32>,
}

impl Followed for Interfaces {
    const NAME: &'static str = "interfaces";
    const GROUPS: &'static [MulticastGroup] =
        &[MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    type Snapshot = LinkSet;

    async fn read(handle: Handle) -> Result<LinkSet, rtnetlink::Error> {
        snapshot(handle).await
    }

    fn hear(&mut self, event: &NetlinkMessage<RouteNetlinkMessage>, now: Instant) -> Concern {
        let change = self.links.borrow().as_ref().and_then(|links| Change::of(event, links));
        if let Some(change) = change {
            self.apply(change, now);
        }
        Concern::Changed
    }

    fn take(&mut self, mut links: LinkSet, now: Instant) -> Option<Instant> {
        self.told_anew.retain(|index, _| links.links.contains_key(index));
        for (index, link) in &mut links.links {
            link.carrier_ups = link.carrier_ups.saturating_add(self.told_anew.get(index).copied().unwrap_or(0));
        }
        self.tell(links, now)
    }
}

impl Interfaces {
    fn tell(&mut self, mut links: LinkSet, now: Instant) -> Option<Instant> {
        let again = self.flaps.follow(self.links.borrow().as_ref(), &mut links, now.into_std()).map(Instant::from_std);
        publish(&self.links, Some(links));
        again
    }

    fn apply(&mut self, change: Change, now: Instant) {
        let Some(mut links) = self.links.borrow().clone() else { return };
        let (Change::CarrierLost(index) | Change::ToldAnew(index) | Change::Gone(index)) = change;
        let Some(link) = links.links.get_mut(&index) else { return };
        info!(interface = %link.name, "{}", change.in_words());
        match change {
            Change::CarrierLost(_) => link.carrier = false,
            Change::ToldAnew(_) => {
                let told = self.told_anew.entry(index).or_default();
                *told = told.saturating_add(1);
                link.carrier_ups = link.carrier_ups.saturating_add(1);
            }
            Change::Gone(_) => {
                links.links.remove(&index);
            }
        }
        self.tell(links, now);
    }
}

/// What is to be known at once of an interface that was usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    CarrierLost(IfIndex),
    ToldAnew(IfIndex),
    Gone(IfIndex),
}

impl Change {
    fn of(event: &NetlinkMessage<RouteNetlinkMessage>, links: &LinkSet) -> Option<Self> {
        let usable = |index| links.links.get(&index).is_some_and(|link| link.carrier);
        match &event.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => {
                let index = IfIndex(message.header.index);
                if !usable(index) {
                    None
                } else if !has_carrier(message.header.flags) {
                    Some(Self::CarrierLost(index))
                } else {
                    tells_anew(message).then_some(Self::ToldAnew(index))
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) => {
                let index = IfIndex(message.header.index);
                (usable(index) && is_own(message)).then_some(Self::Gone(index))
            }
            _ => None,
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::CarrierLost(_) => "the carrier is lost",
            Self::ToldAnew(_) => "the kernel tells the neighbours anew where this host is",
            Self::Gone(_) => "the interface is gone",
        }
    }
}

/// Whether a bond has failed over, or the machine has moved to another port of the switch.
fn tells_anew(message: &LinkMessage) -> bool {
    message
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, LinkAttribute::Event(LinkEvent::BondingFailover | LinkEvent::NotifyPeers)))
}

/// Whether the message is about an interface as such; a bridge tells by the same one that a port has left it.
fn is_own(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

fn has_carrier(flags: LinkFlags) -> bool {
    flags.contains(LinkFlags::LowerUp | LinkFlags::Running)
}

async fn snapshot(handle: Handle) -> Result<LinkSet, rtnetlink::Error> {
    let mut links = BTreeMap::new();
    let mut messages = std::pin::pin!(handle.link().get().execute());
    while let Some(message) = messages.try_next().await? {
        links.extend(link(&message));
    }
    let mut messages = std::pin::pin!(handle.address().get().execute());
    while let Some(message) = messages.try_next().await? {
        let link = links.get_mut(&IfIndex(message.header.index));
        if let (Some(link), Some(net)) = (link, net(&message)) {
            link.nets.push(net);
        }
    }
    Ok(LinkSet { links })
}

fn link(message: &LinkMessage) -> Option<(IfIndex, Link)> {
    let flags = message.header.flags;
    let mut name = None;
    let mut mac = None;
    let mut master = None;
    let mut mtu = 0;
    let mut carrier_ups = 0;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = InterfaceName::new(text).ok(),
            LinkAttribute::Address(bytes) => mac = bytes.as_slice().try_into().ok().map(MacAddr),
            LinkAttribute::Controller(index) => master = Some(IfIndex(*index)),
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            LinkAttribute::CarrierUpCount(count) => carrier_ups = *count,
            _ => {}
        }
    }
    let is_ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let link = Link {
        name: name?,
        mac: mac.filter(|mac| is_ethernet && *mac != MacAddr::ZERO),
        up: flags.contains(LinkFlags::Up),
        carrier: has_carrier(flags),
        carrier_ups,
        loopback: flags.contains(LinkFlags::Loopback),
        no_arp: flags.contains(LinkFlags::Noarp),
        point_to_point: flags.contains(LinkFlags::Pointopoint),
        master,
        nets: Vec::new(),
        mtu,
    };
    Some((IfIndex(message.header.index), link))
}

/// The address of a message, unless duplicate address detection has not passed it.
fn net(message: &AddressMessage) -> Option<IpNet> {
    let mut local = None;
    let mut address = None;
    let mut flags = AddressFlags::empty();
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    // `Address` is the peer's where there is one; IPv6 has no `Local` where there is none.
    let ip = local.or(address)?;
    let usable = !flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
    IpNet::new(ip, message.header.prefix_len).ok().filter(|_| usable)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_first_snapshot_comes_unasked_and_holds_the_loopback_interface() {
        let (sender, mut links) = watch::channel(None);
        let (lost, _lost) = mpsc::channel(1);
        let read = async {
            links.wait_for(Option::is_some).await.expect("the monitor is running").clone().expect("waited for it")
        };
        let read = tokio::time::timeout(Duration::from_secs(5), read);
        let links = tokio::select! {
            () = watch_links(sender, lost) => panic!("the monitor ended while somebody listened"),
            links = read => links.unwrap(),
        };
        let lo = &links.links[&IfIndex(1)];
        assert_eq!((lo.name.as_str(), lo.loopback, lo.mac), ("lo", true, None));
    }

    #[test]
    fn a_lost_carrier_is_told_before_anything_is_read() {
        let mut rig = Rig::new();
        assert_eq!(rig.hear(Heard::New(LinkFlags::Up, None)), Concern::Changed);
        assert_eq!(rig.published().map(|link| (link.up, link.carrier)), Some((true, false)));
    }

    #[test]
    fn an_interface_that_is_removed_is_gone_before_anything_is_read_but_not_one_that_leaves_a_bridge() {
        let mut rig = Rig::new();
        rig.hear(Heard::Gone(AddressFamily::Bridge));
        assert!(rig.published().is_some_and(|link| link.carrier));
        rig.hear(Heard::Gone(AddressFamily::Unspec));
        assert_eq!(rig.published(), None);
    }

    #[test]
    fn a_bond_that_fails_over_counts_as_a_carrier_that_came_and_stays_counted() {
        let mut rig = Rig::new();
        rig.hear(Heard::New(GOOD, Some(LinkEvent::Reboot)));
        assert_eq!(rig.published().unwrap().carrier_ups, 1);
        let next = rig.hear_and_read(Heard::New(GOOD, Some(LinkEvent::BondingFailover)));
        assert!(next.is_some(), "it is announced again when the events of the failover are over");
        assert_eq!(rig.published().unwrap().carrier_ups, 2);
    }

    #[test]
    fn what_is_still_there_waits_for_the_reading() {
        let mut rig = Rig::new();
        let before = rig.published();
        assert_eq!(rig.hear(Heard::New(GOOD, None)), Concern::Changed);
        assert_eq!(rig.published(), before);
    }

    enum Heard {
        New(LinkFlags, Option<LinkEvent>),
        Gone(AddressFamily),
    }

    struct Rig {
        interfaces: Interfaces,
        links: watch::Receiver<Option<LinkSet>>,
    }

    impl Rig {
        fn new() -> Self {
            let (sender, links) = watch::channel(Some(eth0()));
            let interfaces = Interfaces { links: sender, flaps: Flaps::default(), told_anew: BTreeMap::new() };
            Self { interfaces, links }
        }

        fn hear(&mut self, heard: Heard) -> Concern {
            let mut message = LinkMessage::default();
            message.header.index = ETH0.0;
            let inner = match heard {
                Heard::New(flags, event) => {
                    message.header.flags = flags;
                    message.attributes = event.map(LinkAttribute::Event).into_iter().collect();
                    RouteNetlinkMessage::NewLink(message)
                }
                Heard::Gone(family) => {
                    message.header.interface_family = family;
                    RouteNetlinkMessage::DelLink(message)
                }
            };
            self.interfaces.hear(&NetlinkMessage::from(inner), Instant::now())
        }

        fn hear_and_read(&mut self, heard: Heard) -> Option<Instant> {
            self.hear(heard);
            self.interfaces.take(eth0(), Instant::now())
        }

        fn published(&self) -> Option<Link> {
            self.links.borrow().as_ref().unwrap().links.get(&ETH0).cloned()
        }
    }

    const ETH0: IfIndex = IfIndex(2);
    const GOOD: LinkFlags = LinkFlags::Up.union(LinkFlags::LowerUp).union(LinkFlags::Running);

    fn eth0() -> LinkSet {
        let link = Link::ethernet("eth0".parse().unwrap(), MacAddr([2, 0, 0, 0, 0, 1]), Vec::new());
        LinkSet { links: BTreeMap::from([(ETH0, link)]) }
    }
}
