//! What keeps a hint back.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use garpike_election::NodeName;
use thiserror::Error;

/// Why there is no hint for a node that some speaker takes for dead.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Guard {
    /// Nobody here was told that the node lived: it has been dead for nobody knows how long.
    Unwitnessed,
    /// It was seen alive too long before: those who observe were cut off meanwhile.
    Late,
    /// Only one speaker says so.
    OneSpeaker,
    /// Not more than half of all speakers are known to hold the verdict: these may be the ones that are cut off.
    Minority,
    /// The kubelet has renewed its Lease since, or there is no Lease by which to tell.
    Lease,
    /// Kubernetes has no such node.
    NoSuchNode,
    /// The API server does not tell about the node.
    Unreadable,
    /// Too many nodes died within a minute.
    Share,
    /// Too many pods were marked within a minute.
    Rate,
    /// The node died before, not long ago.
    HoldDown,
}

impl Guard {
    pub(crate) const ALL: [Self; 10] = [
        Self::Unwitnessed,
        Self::Late,
        Self::OneSpeaker,
        Self::Minority,
        Self::Lease,
        Self::NoSuchNode,
        Self::Unreadable,
        Self::Share,
        Self::Rate,
        Self::HoldDown,
    ];

    /// The word for metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unwitnessed => "unwitnessed",
            Self::Late => "late",
            Self::OneSpeaker => "one_speaker",
            Self::Minority => "minority",
            Self::Lease => "lease",
            Self::NoSuchNode => "no_such_node",
            Self::Unreadable => "unreadable",
            Self::Share => "share",
            Self::Rate => "rate",
            Self::HoldDown => "hold_down",
        }
    }
}

/// The share of the nodes for which there are hints within a minute; of however few, one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    part: u32,
    of: u32,
}

impl Share {
    /// How many of so many nodes.
    pub(super) fn of(self, nodes: usize) -> usize {
        let nodes = u64::try_from(nodes).unwrap_or(u64::MAX);
        let share = nodes.saturating_mul(u64::from(self.part)) / u64::from(self.of);
        usize::try_from(share).unwrap_or(usize::MAX).max(1)
    }
}

impl FromStr for Share {
    type Err = InvalidShare;

    fn from_str(text: &str) -> Result<Self, InvalidShare> {
        let invalid = || InvalidShare { text: text.to_owned() };
        let number = |text: &str| text.parse::<u32>().map_err(|_| invalid());
        let (part, of) = match (text.strip_suffix('%'), text.split_once('/')) {
            (Some(percent), _) => (number(percent)?, 100),
            (None, Some((part, of))) => (number(part)?, number(of)?),
            (None, None) => return Err(invalid()),
        };
        if part == 0 || part > of { Err(invalid()) } else { Ok(Self { part, of }) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

/// A text is no share.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("\"{text}\" is no share of the nodes: write one above 0 and up to 1 as 1/3 or 33%")]
pub struct InvalidShare {
    text: String,
}

/// The hints that were given lately.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Within the last minute, the oldest first.
    lately: VecDeque<(Instant, NodeName, usize)>,
    /// How often for a node within the last hour, and when last.
    of_node: BTreeMap<NodeName, (u32, Instant)>,
}

impl Given {
    pub(super) fn note(&mut self, node: &NodeName, pods: usize, now: Instant) {
        self.forget_old(now);
        self.lately.push_back((now, node.clone(), pods));
        let (times, last) = self.of_node.entry(node.clone()).or_insert((0, now));
        *times = times.saturating_add(1);
        *last = now;
    }

    /// The nodes of the last minute.
    pub(super) fn nodes(&self, now: Instant) -> impl Iterator<Item = &NodeName> {
        let recent = move |at: Instant| now.saturating_duration_since(at) < MINUTE;
        self.lately.iter().filter(move |(at, ..)| recent(*at)).map(|(_, node, _)| node)
    }

    /// Whether so many pods more may be marked. Those of one node always may.
    pub(super) fn has_room_for(&self, pods: usize, now: Instant) -> bool {
        let recent = |at: Instant| now.saturating_duration_since(at) < MINUTE;
        let marked: usize = self.lately.iter().filter(|(at, ..)| recent(*at)).map(|(.., pods)| pods).sum();
        marked == 0 || marked.saturating_add(pods) <= PODS_PER_MINUTE
    }

    /// Whether the node died not long ago.
    pub(super) fn holds_down(&self, node: &NodeName, now: Instant) -> bool {
        self.of_node.get(node).is_some_and(|(times, last)| {
            let doublings = times.saturating_sub(1).min(MAX_DOUBLINGS);
            now.saturating_duration_since(*last) < HOLD_DOWN.saturating_mul(1 << doublings)
        })
    }

    fn forget_old(&mut self, now: Instant) {
        self.lately.retain(|(at, ..)| now.saturating_duration_since(*at) < MINUTE);
        self.of_node.retain(|_, (_, last)| now.saturating_duration_since(*last) < REMEMBERED);
    }
}

const MINUTE: Duration = Duration::from_secs(60);
/// Chosen: nine full nodes (110 pods); an API server takes some hundred small writes a second.
const PODS_PER_MINUTE: usize = 1000;
/// Chosen: a host that boots again and again takes about as long each time; its pods have hardly become ready.
const HOLD_DOWN: Duration = Duration::from_secs(60);
/// Chosen: 60 s become 32 min.
const MAX_DOUBLINGS: u32 = 5;
const REMEMBERED: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_down_and_is_one_node_at_least() {
        let third: Share = "1/3".parse().unwrap();

        assert_eq!([1, 2, 3, 5, 6, 100].map(|nodes| third.of(nodes)), [1, 1, 1, 1, 2, 33]);
        assert_eq!("50%".parse::<Share>().unwrap().of(5), 2);
        assert_eq!("100%".parse::<Share>().unwrap().of(5), 5);
    }

    #[test]
    fn what_is_no_share_is_refused_with_the_mend() {
        for text in ["", "0%", "101%", "1/0", "0/3", "2/1", "0.3", "-1/3", "1/3/5"] {
            let error = text.parse::<Share>().unwrap_err().to_string();

            assert!(error.contains(&format!("\"{text}\"")) && error.contains("1/3"), "{error}");
        }
    }
}
