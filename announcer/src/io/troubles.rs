//! What goes wrong with sockets: each failure is counted, each kind of it logged once a minute and shown while it lasts.
//!
//! Nothing is decided here; whoever failed tries again.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

use garpike_election::IfIndex;
use tracing::warn;

use crate::metrics;

/// What has gone wrong lately.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    lately: BTreeMap<(Place, Operation), Trouble>,
}

/// Where something goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Node,
    Interface(IfIndex),
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Open,
    Filter,
    Receive,
    Send,
    JoinGroup,
    Netlink,
}

#[derive(Debug)]
struct Trouble {
    /// The last failure in words.
    error: String,
    count: u64,
    last: Instant,
    logged: Instant,
}

impl Operation {
    /// The operation as a metric label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Filter => "filter",
            Self::Receive => "receive",
            Self::Send => "send",
            Self::JoinGroup => "join_group",
            Self::Netlink => "netlink",
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::Open => "cannot listen",
            Self::Filter => "the kernel refuses the packet filter",
            Self::Receive => "cannot receive",
            Self::Send => "cannot send",
            Self::JoinGroup => "cannot join a solicited-node group",
            Self::Netlink => "cannot follow the kernel",
        }
    }
}

impl Troubles {
    /// Counts a failure, and logs it unless its like was logged within a minute.
    pub(super) fn note(&mut self, place: Place, operation: Operation, error: &dyn Display, now: Instant) {
        metrics::socket_error(operation.as_str());
        if self.is_worth_a_line(place, operation, error, now) {
            match place {
                Place::Node => warn!(%error, "{}; trying again", operation.in_words()),
                Place::Interface(interface) => warn!(%interface, %error, "{}; trying again", operation.in_words()),
            }
        }
    }

    /// What has gone wrong with an interface, or with the node, within the last minute; a line each.
    pub(super) fn shown(&self, place: Place, now: Instant) -> Vec<String> {
        let of_place = self.lately.iter().filter(|((at, _), trouble)| *at == place && !trouble.is_over(now));
        let lines = of_place.map(|((_, operation), Trouble { error, count, last, .. })| {
            let ago = now.saturating_duration_since(*last).as_secs();
            format!("{}: {error} ({count} times, last {ago} s ago)", operation.in_words())
        });
        lines.collect()
    }

    fn is_worth_a_line(&mut self, place: Place, operation: Operation, error: &dyn Display, now: Instant) -> bool {
        // Interfaces of containers come and go: what is over makes room.
        self.lately.retain(|_, trouble| !trouble.is_over(now));
        match self.lately.get_mut(&(place, operation)) {
            Some(trouble) => {
                trouble.count += 1;
                trouble.last = now;
                let due = now.saturating_duration_since(trouble.logged) >= MINUTE;
                if due {
                    trouble.logged = now;
                    trouble.error = error.to_string();
                }
                due
            }
            None => {
                let trouble = Trouble { error: error.to_string(), count: 1, last: now, logged: now };
                self.lately.insert((place, operation), trouble);
                true
            }
        }
    }
}

impl Trouble {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= MINUTE
    }
}

/// Chosen: often enough to be seen by whoever looks for it, seldom enough not to hide other lines.
const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_trouble_is_logged_once_a_minute_and_counted_each_time() {
        let (mut troubles, start) = (Troubles::default(), start());
        let mut lines = 0;
        for second in 0..120 {
            let now = start + Duration::from_secs(second);
            lines += usize::from(troubles.is_worth_a_line(ETH0, Operation::Open, &"no right", now));
            lines += usize::from(troubles.is_worth_a_line(ETH0, Operation::Send, &"down", now));
        }
        assert_eq!(lines, 4);
        let now = start + Duration::from_secs(121);
        assert_eq!(
            troubles.shown(ETH0, now),
            ["cannot listen: no right (120 times, last 2 s ago)", "cannot send: down (120 times, last 2 s ago)"]
        );
        assert_eq!(troubles.shown(Place::Node, now), [""; 0]);
    }

    #[test]
    fn what_is_over_is_shown_no_more_and_takes_no_room() {
        let (mut troubles, start) = (Troubles::default(), start());
        for index in 0..1000 {
            troubles.is_worth_a_line(Place::Interface(IfIndex(index)), Operation::Open, &"gone", start);
        }
        assert_eq!(troubles.shown(ETH0, start + MINUTE), [""; 0]);
        assert!(troubles.is_worth_a_line(Place::Node, Operation::Netlink, &"ended", start + MINUTE));
        assert_eq!(troubles.lately.len(), 1);
    }

    const ETH0: Place = Place::Interface(IfIndex(2));

    #[expect(clippy::disallowed_methods, reason = "virtual time needs one real instant to start from")]
    fn start() -> Instant {
        Instant::now()
    }
}
