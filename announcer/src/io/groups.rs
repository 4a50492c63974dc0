//! Membership in solicited-node groups, by `IPV6_JOIN_GROUP` on ordinary sockets.
//!
//! The kernel then reports them to snooping switches (MLD) and programs the network card; a packet socket's own
//! membership would not be reported. The sockets receive nothing: they are never bound to a port. Joining thousands of
//! groups takes the kernel a good part of a second, so it is done in steps.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;

use garpike_election::IfIndex;
use socket2::{Domain, Socket, Type};
use thiserror::Error;

/// The groups that are joined, and those that should be.
#[derive(Debug, Default)]
pub(super) struct Groups {
    sockets: Vec<Members>,
    /// For each membership, the place of its socket in `sockets`.
    joined: BTreeMap<(IfIndex, Ipv6Addr), usize>,
    wanted: BTreeSet<(IfIndex, Ipv6Addr)>,
    /// Where `joined` may differ from `wanted`.
    pending: BTreeSet<(IfIndex, Ipv6Addr)>,
    /// Why the kernel refused the last of the wanted ones that it did.
    refused: Option<Refused>,
}

/// A socket and its number of memberships.
#[derive(Debug)]
struct Members {
    socket: Socket,
    count: usize,
}

/// How far the kernel has followed.
#[derive(Debug)]
pub(super) enum Progress {
    Done,
    /// There is more to do at once.
    More,
    /// Some were refused, this one last; [`Groups::want`] begins with them again.
    Refused(Refused),
}

/// That a group cannot be joined.
#[derive(Debug, Error)]
#[error("{group}: {source}")]
pub(super) struct Refused {
    pub(super) interface: IfIndex,
    group: Ipv6Addr,
    source: io::Error,
}

impl Groups {
    /// Sets what [`Groups::step`] works towards.
    pub(super) fn want(&mut self, wanted: BTreeSet<(IfIndex, Ipv6Addr)>) {
        let missing = wanted.iter().filter(|key| !self.joined.contains_key(key));
        let unwanted = self.joined.keys().filter(|key| !wanted.contains(key));
        self.pending = missing.chain(unwanted).copied().collect();
        self.wanted = wanted;
        self.refused = None;
    }

    /// Joins and leaves some groups.
    pub(super) fn step(&mut self) -> Progress {
        for _ in 0..STEP {
            let Some((interface, group)) = self.pending.pop_first() else { break };
            if !self.wanted.contains(&(interface, group)) {
                self.leave(interface, group);
            } else if let Err(source) = self.join(interface, group) {
                self.refused = Some(Refused { interface, group, source });
            }
        }
        if !self.pending.is_empty() {
            return Progress::More;
        }
        self.refused.take().map_or(Progress::Done, Progress::Refused)
    }

    fn join(&mut self, interface: IfIndex, group: Ipv6Addr) -> io::Result<()> {
        let with_room = self.sockets.iter().position(|members| members.count < MAX_GROUPS_PER_SOCKET);
        let place = match with_room.map(|place| (place, self.join_on(place, interface, group))) {
            Some((place, Ok(()))) => place,
            // The socket's share of option memory may end before our own limit.
            Some((_, Err(error))) if !is_out_of_memory(&error) => return Err(error),
            Some((_, Err(_))) | None => {
                let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
                socket.join_multicast_v6(&group, interface.0)?;
                self.sockets.push(Members { socket, count: 1 });
                self.sockets.len() - 1
            }
        };
        self.joined.insert((interface, group), place);
        Ok(())
    }

    fn join_on(&mut self, place: usize, interface: IfIndex, group: Ipv6Addr) -> io::Result<()> {
        let members = self.sockets.get_mut(place).ok_or(io::ErrorKind::NotFound)?;
        match members.socket.join_multicast_v6(&group, interface.0) {
            Ok(()) => members.count += 1,
            Err(error) => {
                if is_out_of_memory(&error) {
                    // It is full for as long as nothing is left.
                    members.count = MAX_GROUPS_PER_SOCKET;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn leave(&mut self, interface: IfIndex, group: Ipv6Addr) {
        let place = self.joined.remove(&(interface, group));
        if let Some(members) = place.and_then(|place| self.sockets.get_mut(place)) {
            // It fails when the interface is gone, and the membership with it.
            let _ = members.socket.leave_multicast_v6(&group, interface.0);
            members.count -= 1;
        }
    }
}

/// Whether a socket has used up its share of option memory (`net.core.optmem_max`).
pub(super) fn is_out_of_memory(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS))
}

/// Linux holds some 2340 on one socket with the default `optmem_max` of 131072 bytes (measured).
const MAX_GROUPS_PER_SOCKET: usize = 2000;
/// Chosen: a join takes 20 to 50 microseconds (measured), so a step holds up answers for less than a millisecond.
const STEP: usize = 16;
