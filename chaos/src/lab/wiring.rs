//! What rtnetlink and `/proc/sys` are told: bridges, veth pairs, addresses, sysctls.
//!
//! Thin on purpose: every function is one request, and its error says in which namespace and on what it failed.

use std::fs;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};

use futures_util::TryStreamExt;
use garpike_election::{IfIndex, MacAddr};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{BridgeStpState, InfoData, InfoVeth, LinkAttribute, LinkFlags};
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::netns::Namespace;
use super::{LOOPBACK, LabError};

/// A port of the switch and the interface on the host's end of the cable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cable {
    /// In the switch's namespace.
    pub(super) port: IfIndex,
    /// In the host's namespace.
    pub(super) card: IfIndex,
}

impl Namespace {
    /// Writes sysctls, given as path below `/proc/sys` and value. A path that this kernel lacks is passed over.
    pub(super) fn set_sysctls(&self, settings: &'static [(&'static str, &'static str)]) -> Result<(), LabError> {
        let name = self.name().to_owned();
        // /proc/sys/net shows the namespace of the thread that opens a file.
        self.run(move |_| {
            for (path, value) in settings {
                match fs::write(format!("/proc/sys/{path}"), value) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(source) => return Err(LabError::Sysctl { namespace: name, path, value, source }),
                }
            }
            Ok(())
        })?
    }

    /// Makes a bridge without spanning tree, up. The rest is as the kernel makes it: multicast snooping is on.
    pub(super) fn add_bridge(&self, name: &'static str) -> Result<IfIndex, LabError> {
        self.request(format!("make bridge {name}"), move |netlink| async move {
            let bridge = LinkBridge::new(name).stp_state(BridgeStpState::Disabled).forward_delay(0);
            netlink.link().add(bridge.build()).execute().await
        })?;
        self.index_of(name)
    }

    /// Lays a cable from this switch to `host`: `port` here, `card` there, both up.
    pub(super) fn add_cable(&self, port: &str, host: &Self, card: &str, mac: MacAddr) -> Result<Cable, LabError> {
        let netns = host.as_fd().as_raw_fd();
        let peer =
            LinkMessageBuilder::<LinkUnspec>::new().name(card).address(mac.0.to_vec()).setns_by_fd(netns).build();
        let pair =
            LinkMessageBuilder::<LinkVeth>::new(port, card).set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build();
        self.request(
            format!("lay cable {port}"),
            move |netlink| async move { netlink.link().add(pair).execute().await },
        )?;
        let cable = Cable { port: self.index_of(port)?, card: host.index_of(card)? };
        host.set_link(cable.card, LinkState::Up)?;
        self.set_link(cable.port, LinkState::Up)?;
        Ok(cable)
    }

    /// Plugs a port into a bridge, or out of all (None); its carrier stays.
    pub(super) fn set_bridge(&self, port: IfIndex, bridge: Option<IfIndex>) -> Result<(), LabError> {
        let link = LinkUnspec::new_with_index(port.0);
        let link = match bridge {
            Some(bridge) => link.controller(bridge.0),
            None => link.nocontroller(),
        };
        self.request(format!("move port {port}"), move |netlink| async move {
            netlink.link().change(link.build()).execute().await
        })
    }

    /// Takes an interface up or down.
    pub(super) fn set_link(&self, index: IfIndex, state: LinkState) -> Result<(), LabError> {
        let link = LinkUnspec::new_with_index(index.0);
        let link = match state {
            LinkState::Up => link.up(),
            LinkState::Down => link.down(),
        };
        self.request(format!("set link {index} {state:?}"), move |netlink| async move {
            netlink.link().change(link.build()).execute().await
        })
    }

    /// Whether an interface has a carrier.
    pub(super) fn has_carrier(&self, index: IfIndex) -> Result<bool, LabError> {
        let link = self.request(format!("read link {index}"), move |netlink| async move {
            netlink.link().get().match_index(index.0).execute().try_next().await
        })?;
        Ok(link.is_some_and(|link| link.header.flags.contains(LinkFlags::LowerUp)))
    }

    /// The Ethernet address of an interface.
    pub(super) fn mac_of(&self, index: IfIndex) -> Result<MacAddr, LabError> {
        let link = self.request(format!("read link {index}"), move |netlink| async move {
            netlink.link().get().match_index(index.0).execute().try_next().await
        })?;
        let address = link.into_iter().flat_map(|link| link.attributes).find_map(|attribute| {
            if let LinkAttribute::Address(bytes) = attribute { Some(MacAddr(bytes.try_into().ok()?)) } else { None }
        });
        address.ok_or_else(|| LabError::NoLink { namespace: self.name().to_owned(), link: index.to_string() })
    }

    /// Gives an interface an address, usable at once. That it is there already is no error.
    pub(super) fn add_address(&self, index: IfIndex, ip: IpAddr, prefix_len: u8) -> Result<(), LabError> {
        self.request(format!("add {ip}/{prefix_len} to link {index}"), move |netlink| async move {
            let mut request = netlink.address().add(index.0, ip, prefix_len).replace();
            if ip.is_ipv6() {
                // RFC 4862 5.4 duplicate address detection takes 1.3-1.6 s.
                request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
            request.execute().await
        })
    }

    /// Tells an interface where a neighbour is, for good.
    pub(super) fn add_neighbour(&self, index: IfIndex, ip: IpAddr, mac: MacAddr) -> Result<(), LabError> {
        self.request(format!("note that {ip} is at {mac} on link {index}"), move |netlink| async move {
            netlink.neighbours().add(index.0, ip).link_layer_address(&mac.0).replace().execute().await
        })
    }

    /// Leads packets to one host through an interface.
    pub(super) fn add_route(&self, index: IfIndex, to: Ipv4Addr) -> Result<(), LabError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, 32).output_interface(index.0);
        let route = route.scope(RouteScope::Link).build();
        self.request(format!("lead {to} to link {index}"), move |netlink| async move {
            netlink.route().add(route).replace().execute().await
        })
    }

    /// Takes an address away.
    pub(super) fn remove_address(&self, index: IfIndex, ip: IpAddr) -> Result<(), LabError> {
        self.request(format!("remove {ip} from link {index}"), move |netlink| async move {
            let found = netlink.address().get().set_link_index_filter(index.0).set_address_filter(ip);
            let found: Vec<_> = found.execute().try_collect().await?;
            for address in found {
                netlink.address().del(address).execute().await?;
            }
            Ok(())
        })
    }

    /// Takes away what a reboot takes away: all addresses of `lo` but its own, and the neighbour cache.
    pub(super) fn forget(&self) -> Result<(), LabError> {
        self.request("forget addresses of lo".to_owned(), |netlink| async move {
            let found = netlink.address().get().set_link_index_filter(LOOPBACK.0).execute();
            let found: Vec<_> = found.try_collect().await?;
            let kept =
                |attribute: &AddressAttribute| matches!(attribute, AddressAttribute::Address(ip) if ip.is_loopback());
            for address in found.into_iter().filter(|address| !address.attributes.iter().any(kept)) {
                netlink.address().del(address).execute().await?;
            }
            Ok(())
        })?;
        self.forget_neighbours()
    }

    /// Empties the neighbour cache.
    pub(super) fn forget_neighbours(&self) -> Result<(), LabError> {
        self.request("forget neighbours".to_owned(), |netlink| async move {
            for family in [AddressFamily::Inet, AddressFamily::Inet6] {
                let found = netlink.neighbours().get().set_address_family(family).execute();
                let found: Vec<_> = found.try_collect().await?;
                for neighbour in found.into_iter().filter(|found| found.header.state != NeighbourState::Noarp) {
                    match netlink.neighbours().del(neighbour).execute().await {
                        // The kernel may drop an entry at any time.
                        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -(nix::libc::ENOENT) => {}
                        result => result?,
                    }
                }
            }
            Ok(())
        })
    }

    pub(super) fn index_of(&self, interface: &str) -> Result<IfIndex, LabError> {
        let name = interface.to_owned();
        let link = self.request(format!("find link {interface}"), move |netlink| async move {
            netlink.link().get().match_name(name).execute().try_next().await
        })?;
        let link =
            link.ok_or_else(|| LabError::NoLink { namespace: self.name().to_owned(), link: interface.to_owned() })?;
        Ok(IfIndex(link.header.index))
    }

    /// Asks the kernel for something.
    pub(super) fn request<T, F>(
        &self,
        what: String,
        request: impl FnOnce(Handle) -> F + Send + 'static,
    ) -> Result<T, LabError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, rtnetlink::Error>>,
    {
        let result = self.run(move |inside| inside.netlink(request))?;
        result.map_err(|source| LabError::Netlink { namespace: self.name().to_owned(), what, source: Box::new(source) })
    }
}

/// Whether an interface is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    /// Administratively up.
    Up,
    /// Administratively down: the other end of the cable loses its carrier.
    Down,
}

/// Of the switch: no IPv6 of its own, and no packet filter between the ports.
pub(super) const SWITCH_SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv6/conf/all/disable_ipv6", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("net/bridge/bridge-nf-call-iptables", "0"),
    ("net/bridge/bridge-nf-call-ip6tables", "0"),
    ("net/bridge/bridge-nf-call-arptables", "0"),
];

/// Of the client: the kernel's defaults, whatever the system outside has (a new namespace inherits its IPv4 settings),
/// but addresses are usable at once.
pub(super) const CLIENT_SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/arp_ignore", "0"),
    ("net/ipv4/conf/default/arp_ignore", "0"),
    ("net/ipv4/conf/all/arp_announce", "0"),
    ("net/ipv4/conf/default/arp_announce", "0"),
    ("net/ipv4/conf/all/arp_accept", "0"),
    ("net/ipv4/conf/default/arp_accept", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
];

/// Of a node: as the documentation asks its users, so that the kernel leaves service IPs on `lo` to the speaker.
pub(super) const NODE_SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/arp_ignore", "1"),
    ("net/ipv4/conf/default/arp_ignore", "1"),
    ("net/ipv4/conf/all/arp_announce", "2"),
    ("net/ipv4/conf/default/arp_announce", "2"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
];
