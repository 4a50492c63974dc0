//! What the task does when a socket fails: it counts, tells, and opens anew what has lost its interface.
//!
//! One interface that fails never stops the others.

use std::io;
use std::time::Instant;

use garpike_election::{IfIndex, InterfaceName, Selection};

use super::{COUNTERS_INTERVAL, REOPEN_INTERVAL, Task, wall_clock};
use crate::announcer::Status;
use crate::io::troubles::{Operation, Place};
use crate::metrics;
use crate::surroundings::Surroundings;

impl Task {
    /// Counts a frame that could not be sent, and tells whether it is worth trying again.
    pub(super) fn handle_send_failure(&mut self, interface: IfIndex, error: &io::Error, now: Instant) -> Room {
        let (reason, room) = failure(error);
        metrics::send_error(reason);
        if room != Room::Full {
            self.handle_failure(interface, Operation::Send, error, now);
        }
        room
    }

    /// Notes that a socket of the interface failed. One that lost its interface does not get it back: it is opened anew.
    pub(super) fn handle_failure(&mut self, interface: IfIndex, operation: Operation, error: &io::Error, now: Instant) {
        self.troubles.note(Place::Interface(interface), operation, error, now);
        self.publish_within(COUNTERS_INTERVAL, now);
        if failure(error).1 == Room::Gone {
            self.ports.close(interface);
            self.deaf.insert(interface);
            self.tell_surroundings();
            self.reopen_at.get_or_insert(now + REOPEN_INTERVAL);
        }
    }

    /// Shows the present state. There is no room for two pictures of thousands of addresses: the old one goes first.
    pub(super) fn publish(&self, now: Instant) {
        self.status.send_if_modified(|status| {
            status.addresses.clear();
            false
        });
        self.status.send_replace(self.picture(now));
    }

    /// What is to be seen from outside, with what goes wrong with the sockets.
    fn picture(&self, now: Instant) -> Status {
        let mut status = self.announcer.status(now, wall_clock());
        for (index, name) in self.announcer.interface_names() {
            if let Some(interface) = status.interfaces.get_mut(name) {
                interface.troubles = self.troubles.shown(Place::Interface(index), now);
            }
        }
        status.troubles = self.troubles.shown(Place::Node, now);
        status
    }
}

/// Leaves out an interface that cannot be used after all.
pub(super) fn forget(surroundings: &mut Surroundings, interface: &InterfaceName) {
    surroundings.wires.remove(interface);
    if let Selection::Only(names) = &mut surroundings.interfaces {
        names.remove(interface);
    }
}

/// Whether it is worth trying to send a frame again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Soon: queues were full.
    Full,
    /// Not by this socket: its interface is gone.
    Gone,
    /// The failure has another reason.
    Unknown,
}

/// Why a frame could not be sent, as a metric label.
fn failure(error: &io::Error) -> (&'static str, Room) {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::WouldBlock, _) | (_, Some(libc::ENOBUFS)) => ("queue_full", Room::Full),
        (io::ErrorKind::NotConnected, _) => ("no_socket", Room::Unknown),
        (io::ErrorKind::NetworkDown, _) => ("interface_down", Room::Unknown),
        (_, Some(libc::ENXIO | libc::ENODEV)) => ("interface_gone", Room::Gone),
        (io::ErrorKind::PermissionDenied, _) => ("not_permitted", Room::Unknown),
        (_, Some(libc::EMSGSIZE)) => ("too_long", Room::Unknown),
        _ => ("other", Room::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_interface_without_sockets_is_none_to_the_others() {
        let names = |names: &[&str]| Selection::Only(names.iter().map(|name| name.parse().unwrap()).collect());
        let mut surroundings = Surroundings { interfaces: names(&["eth0", "eth1"]), ..Surroundings::default() };
        forget(&mut surroundings, &"eth1".parse().unwrap());
        assert_eq!(surroundings.interfaces, names(&["eth0"]));
        forget(&mut surroundings, &"eth0".parse().unwrap());
        assert_eq!(surroundings.interfaces, Selection::Only(BTreeSet::new()));
    }

    #[test]
    fn each_failure_has_its_reason_and_only_a_full_queue_is_worth_another_try() {
        for (errno, expected) in [
            (libc::EAGAIN, ("queue_full", Room::Full)),
            (libc::ENOBUFS, ("queue_full", Room::Full)),
            (libc::ENETDOWN, ("interface_down", Room::Unknown)),
            (libc::ENXIO, ("interface_gone", Room::Gone)),
            (libc::ENODEV, ("interface_gone", Room::Gone)),
            (libc::EPERM, ("not_permitted", Room::Unknown)),
            (libc::EACCES, ("not_permitted", Room::Unknown)),
            (libc::EMSGSIZE, ("too_long", Room::Unknown)),
            (libc::EINVAL, ("other", Room::Unknown)),
        ] {
            assert_eq!(failure(&io::Error::from_raw_os_error(errno)), expected, "{errno}");
        }
        assert_eq!(failure(&io::ErrorKind::NotConnected.into()), ("no_socket", Room::Unknown));
    }
}
