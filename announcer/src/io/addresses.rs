//! Service IPs as local addresses of the host, so that its kernel takes packets to them: `/32` and `/128` on `lo`.
//!
//! For hosts without kube-proxy. Only addresses with our mark are ever removed; one that somebody else put there is
//! left as it is. Needs `CAP_NET_ADMIN`. Which host answers for an address is not decided here: every host holds all.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use garpike_election::ServiceIp;
use rtnetlink::Handle;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};
use thiserror::Error;

/// Who put an address there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// It has our mark.
    Garpike,
    /// It has not, or the kernel is too old to keep marks of IPv6 addresses.
    Other,
}

/// What [`bind`] did.
#[derive(Debug, Default)]
pub struct Bound {
    /// Addresses that were missing.
    pub added: BTreeSet<ServiceIp>,
    /// Addresses with our mark that nobody wants any more.
    pub removed: BTreeSet<ServiceIp>,
    /// What the kernel refused. The others are done all the same.
    pub failed: Vec<BindError>,
}

/// Why addresses cannot be read or changed.
#[derive(Debug, Error)]
pub enum BindError {
    /// There is no netlink.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// The connection ended before the answer came.
    #[error("the netlink connection ended")]
    Ended,
    /// The list is not to be had.
    #[error("cannot list the addresses of lo")]
    List(#[source] rtnetlink::Error),
    /// The process lacks the right.
    #[error(
        "changing {ip} on lo needs the capability CAP_NET_ADMIN; grant it, or run with --bind-service-ips none \
         and make the service IPs local yourself"
    )]
    Permission {
        /// The address.
        ip: ServiceIp,
    },
    /// Anything else.
    #[error("cannot change {ip} on lo")]
    Kernel {
        /// The address.
        ip: ServiceIp,
        /// What the kernel said.
        #[source]
        source: rtnetlink::Error,
    },
}

/// The service IPs that `lo` holds, ours and others.
///
/// # Errors
///
/// When the kernel does not tell.
pub async fn list() -> Result<BTreeMap<ServiceIp, Origin>, BindError> {
    connected(async |handle| list_on(&handle).await).await?
}

/// Makes the wanted addresses local and removes those of ours that are not wanted. What is right already is left alone.
///
/// # Errors
///
/// When nothing can be done at all; what fails for single addresses is part of the result.
pub async fn bind(wanted: &BTreeSet<ServiceIp>) -> Result<Bound, BindError> {
    connected(async |handle| {
        let present = list_on(&handle).await?;
        let mut bound = Bound::default();
        let unwanted = present.iter().filter(|(ip, origin)| **origin == Origin::Garpike && !wanted.contains(ip));
        for (ip, _) in unwanted {
            match remove(&handle, *ip).await {
                Ok(()) => {
                    bound.removed.insert(*ip);
                }
                Err(error) => bound.failed.push(error),
            }
        }
        for ip in wanted.iter().filter(|ip| !present.contains_key(ip)) {
            match add(&handle, *ip).await {
                Ok(()) => {
                    bound.added.insert(*ip);
                }
                Err(error) => bound.failed.push(error),
            }
        }
        Ok(bound)
    })
    .await?
}

/// Runs `work` beside the netlink connection that it needs.
async fn connected<T>(work: impl AsyncFnOnce(Handle) -> T) -> Result<T, BindError> {
    let (connection, handle, _events) = rtnetlink::new_connection().map_err(BindError::Open)?;
    tokio::select! {
        biased;
        result = work(handle) => Ok(result),
        () = connection => Err(BindError::Ended),
    }
}

async fn list_on(handle: &Handle) -> Result<BTreeMap<ServiceIp, Origin>, BindError> {
    let mut present = BTreeMap::new();
    let mut messages = std::pin::pin!(handle.address().get().set_link_index_filter(LOOPBACK).execute());
    while let Some(message) = messages.try_next().await.map_err(BindError::List)? {
        present.extend(service_ip(&message).map(|ip| (ip, origin(&message))));
    }
    Ok(present)
}

async fn add(handle: &Handle, ip: ServiceIp) -> Result<(), BindError> {
    let mut request = handle.address().add(LOOPBACK, ip.addr(), host_len(ip));
    let message = request.message_mut();
    message.attributes.push(AddressAttribute::Protocol(PROTOCOL));
    match ip.addr() {
        IpAddr::V4(_) => {
            // Keeps the kernel from choosing it as the source of the host's own connections.
            message.header.scope = AddressScope::Host;
            message.attributes.push(AddressAttribute::Label(LABEL.to_owned()));
        }
        IpAddr::V6(_) => {
            // Many hosts hold it on purpose.
            message.header.flags |= AddressHeaderFlags::Nodad;
            // Deprecated, and so not chosen as a source (RFC 6724, rule 3).
            let mut lifetime = CacheInfo::default();
            lifetime.ifa_preferred = 0;
            lifetime.ifa_valid = FOREVER;
            message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        }
    }
    match request.execute().await {
        Err(error) if errno(&error) == Some(libc::EEXIST) => Ok(()),
        result => result.map_err(|error| failure(ip, error)),
    }
}

async fn remove(handle: &Handle, ip: ServiceIp) -> Result<(), BindError> {
    let message = handle.address().add(LOOPBACK, ip.addr(), host_len(ip)).message_mut().clone();
    match handle.address().del(message).execute().await {
        Err(error) if errno(&error) == Some(libc::EADDRNOTAVAIL) => Ok(()),
        result => result.map_err(|error| failure(ip, error)),
    }
}

/// The address of a message, if it is one that could be a service IP.
fn service_ip(message: &AddressMessage) -> Option<ServiceIp> {
    let mut found = None;
    for attribute in &message.attributes {
        if let AddressAttribute::Local(ip) = attribute {
            found = Some(*ip);
        } else if let AddressAttribute::Address(ip) = attribute {
            found = found.or(Some(*ip));
        }
    }
    let ip = ServiceIp::new(found?).ok()?;
    (message.header.prefix_len == host_len(ip)).then_some(ip)
}

fn origin(message: &AddressMessage) -> Origin {
    let ours = message.attributes.iter().any(|attribute| {
        *attribute == AddressAttribute::Protocol(PROTOCOL) || *attribute == AddressAttribute::Label(LABEL.to_owned())
    });
    if ours { Origin::Garpike } else { Origin::Other }
}

fn host_len(ip: ServiceIp) -> u8 {
    if ip.v4().is_some() { 32 } else { 128 }
}

fn failure(ip: ServiceIp, error: rtnetlink::Error) -> BindError {
    if errno(&error) == Some(libc::EPERM) {
        return BindError::Permission { ip };
    }
    BindError::Kernel { ip, source: error }
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    if let rtnetlink::Error::NetlinkError(message) = error { Some(message.raw_code().abs()) } else { None }
}

/// The loopback interface is the first of every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;
/// Our mark, kept by Linux 5.18 and later (`IFA_PROTO`). Chosen: the letter g; the kernel uses 1 to 3.
const PROTOCOL: AddressProtocol = AddressProtocol::Other(0x67);
/// Our mark on older kernels, for IPv4 only; the kernel wants the interface's name in front.
const LABEL: &str = "lo:garpike";
/// `INFINITY_LIFE_TIME` of linux/if_addr.h.
const FOREVER: u32 = u32::MAX;
