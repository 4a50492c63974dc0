//! The link monitor: the kernel's interfaces and addresses as [`LinkSet`] snapshots.
//!
//! Events are hints only. Each leads to a complete re-read, soon after the first of a burst, or at once when a carrier
//! is lost or an interface goes away. A connection that ends is opened again. Nothing is polled.

#![expect(clippy::wildcard_enum_match_arm, reason = "the messages of netlink are not ours, and grow with the kernel")]

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use garpike_election::{IfIndex, InterfaceName, MacAddr};
use ipnet::IpNet;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use rtnetlink::{Handle, MulticastGroup};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use crate::links::{Link, LinkSet};
use crate::metrics;

/// Keeps `links` up to date; ends when nobody listens any more. The first snapshot comes at once.
pub async fn watch_links(links: watch::Sender<Option<LinkSet>>) {
    keep_following(&links, "interfaces", || follow_links(&links)).await;
}

/// Runs `follow` again and again, until nobody listens to `sender` any more.
pub(super) async fn keep_following<T, F: Future<Output = FollowError>>(
    sender: &watch::Sender<T>,
    what: &'static str,
    follow: impl Fn() -> F,
) {
    let mut patience = RECONNECT_MIN;
    while !sender.is_closed() {
        let before = Instant::now();
        let error = tokio::select! {
            () = sender.closed() => return,
            error = follow() => error,
        };
        metrics::socket_error("netlink");
        warn!(%error, "lost sight of the {what}; trying again");
        patience = if before.elapsed() > RECONNECT_MAX { RECONNECT_MIN } else { (patience * 2).min(RECONNECT_MAX) };
        tokio::select! {
            () = sender.closed() => return,
            () = sleep(patience) => {}
        }
    }
}

/// Why a monitor had to begin again.
#[derive(Debug, Error)]
pub(super) enum FollowError {
    #[error("cannot open a netlink socket: {0}")]
    Open(std::io::Error),
    #[error("cannot read from the kernel: {0}")]
    Read(rtnetlink::Error),
    #[error("the netlink connection ended")]
    Ended,
}

/// Reads the kernel's state and publishes it, at first and whenever an event of `groups` makes it due, until the
/// connection ends. `due_in` tells how soon an event does, or that it is of no concern.
pub(super) async fn follow<T, R: Future<Output = Result<T, rtnetlink::Error>>>(
    groups: &[MulticastGroup],
    read: impl Fn(Handle) -> R,
    publish: impl Fn(T),
    due_in: impl Fn(&NetlinkMessage<RouteNetlinkMessage>) -> Option<Duration>,
) -> FollowError {
    let (connection, handle, mut events) = match rtnetlink::new_multicast_connection(groups) {
        Ok(opened) => opened,
        Err(error) => return FollowError::Open(error),
    };
    let snapshots = async {
        let mut due = Some(Instant::now());
        loop {
            let at = due.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                () = sleep_until(at), if due.is_some() => {
                    match read(handle.clone()).await {
                        Ok(new) => publish(new),
                        Err(error) => return FollowError::Read(error),
                    }
                    due = None;
                }
                event = events.next() => {
                    let Some((message, _)) = event else { return FollowError::Ended };
                    if let Some(pause) = due_in(&message) {
                        let soon = Instant::now() + pause;
                        due = Some(due.map_or(soon, |due| due.min(soon)));
                    }
                }
            }
        }
    };
    tokio::select! {
        () = connection => FollowError::Ended,
        error = snapshots => error,
    }
}

/// Lets the receivers know only if something has changed.
pub(super) fn publish<T: PartialEq>(sender: &watch::Sender<T>, new: T) {
    sender.send_if_modified(|current| {
        let changed = *current != new;
        *current = new;
        changed
    });
}

async fn follow_links(links: &watch::Sender<Option<LinkSet>>) -> FollowError {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    follow(
        &groups,
        snapshot,
        |new| publish(links, Some(new)),
        |message| Some(if is_loss(message, links.borrow().as_ref()) { Duration::ZERO } else { DEBOUNCE }),
    )
    .await
}

/// Whether the event takes away an interface that was usable in the last snapshot.
fn is_loss(message: &NetlinkMessage<RouteNetlinkMessage>, links: Option<&LinkSet>) -> bool {
    let index = match &message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) if !has_carrier(link.header.flags) => {
            link.header.index
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => link.header.index,
        _ => return false,
    };
    links.and_then(|links| links.links.get(&IfIndex(index))).is_some_and(|link| link.carrier)
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

/// Chosen: the burst of events of an interface that comes up is over within it, and it is short beside a failover.
pub(super) const DEBOUNCE: Duration = Duration::from_millis(50);
/// Chosen: a failure that lasts must not fill the log, one that passes must not cost a failover.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_snapshot_comes_unasked_and_holds_the_loopback_interface() {
        let (sender, mut links) = watch::channel(None);
        let read = async {
            links.wait_for(Option::is_some).await.expect("the monitor is running").clone().expect("waited for it")
        };
        let read = tokio::time::timeout(Duration::from_secs(5), read);
        let links = tokio::select! {
            () = watch_links(sender) => panic!("the monitor ended while somebody listened"),
            links = read => links.unwrap(),
        };
        let lo = &links.links[&IfIndex(1)];
        assert_eq!((lo.name.as_str(), lo.loopback, lo.mac), ("lo", true, None));
    }
}
