//! Why a datagram was dropped. Such a datagram changes nothing but a counter.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::{Path, metrics};

/// The reason for which a datagram was dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rejected {
    /// Longer than any datagram of ours.
    TooLong,
    /// Too short to be a datagram of ours.
    Truncated,
    /// The first byte is that of a newer or foreign protocol.
    UnknownVersion,
    /// A packet of hashicorp's memberlist: MetalLB, Consul, Docker Swarm.
    Memberlist,
    /// Sent in the clear, while this node seals.
    Plaintext,
    /// Sealed, while this node sends in the clear.
    Sealed,
    /// Sealed with another key.
    WrongKey,
    /// Sealed with a key that calls itself ours, but the content does not authenticate.
    Tampered,
    /// Authentic, but not understood.
    Malformed,
    /// Sent by this very process.
    Own,
    /// Sent by another process that bears this node's name.
    OwnName,
    /// Meant for another process, such as an earlier life of this node.
    OtherProcess,
    /// Seen before.
    Replayed,
    /// So late that it cannot be told from one seen before.
    TooOld,
    /// Its sender has not yet proved that it lives; it is being asked.
    Unproven,
    /// Too many senders are being asked, or this source asks too often.
    Busy,
    /// An answer to nothing that was asked.
    Unasked,
    /// Its sender's identity has been superseded by a newer one.
    Superseded,
    /// Its content is refused by foca.
    Refused,
}

impl Rejected {
    /// The word for the reason in metrics, logs and `/state.json`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Truncated => "truncated",
            Self::UnknownVersion => "unknown_version",
            Self::Memberlist => "memberlist",
            Self::Plaintext => "plaintext",
            Self::Sealed => "sealed",
            Self::WrongKey => "wrong_key",
            Self::Tampered => "tampered",
            Self::Malformed => "malformed",
            Self::Own => "own",
            Self::OwnName => "own_name",
            Self::OtherProcess => "other_process",
            Self::Replayed => "replayed",
            Self::TooOld => "too_old",
            Self::Unproven => "unproven",
            Self::Busy => "busy",
            Self::Unasked => "unasked",
            Self::Superseded => "superseded",
            Self::Refused => "refused",
        }
    }

    /// What the operator can do about it; `None` where such datagrams are part of normal operation or tell nothing.
    pub fn mend(self) -> Option<&'static str> {
        match self {
            Self::Memberlist => Some(
                "a MetalLB speaker, Consul or Docker Swarm uses this port on the sender: stop it, or give one of the two \
                 another port (--ml-bindport)",
            ),
            Self::Plaintext => {
                Some("the sender runs with --insecure-plaintext: give it the cluster's secret, and drop that flag")
            }
            Self::Sealed => {
                Some("this node runs with --insecure-plaintext and the sender does not: give it the secret")
            }
            Self::WrongKey => Some(
                "the sender has another secret or --cluster-name: give all nodes the same; \"garpike keys status\" shows \
                 who holds which key",
            ),
            Self::UnknownVersion => Some("the sender is no Garpike speaker, or a newer one: upgrade this node"),
            Self::OwnName => Some("two speakers use this node's name: give each its own --node-name"),
            Self::TooLong
            | Self::Truncated
            | Self::Tampered
            | Self::Malformed
            | Self::Own
            | Self::OtherProcess
            | Self::Replayed
            | Self::TooOld
            | Self::Unproven
            | Self::Busy
            | Self::Unasked
            | Self::Superseded
            | Self::Refused => None,
        }
    }
}

/// How often each reason occurred, and for whom last.
#[derive(Debug, Default)]
pub(crate) struct Rejections(BTreeMap<Rejected, Rejection>);

#[derive(Clone, Debug)]
pub(crate) struct Rejection {
    pub(crate) count: u64,
    pub(crate) last_from: Path,
    pub(crate) last_at: Instant,
}

impl Rejections {
    pub(crate) fn count(&mut self, rejected: Rejected, from: &Path, now: Instant) {
        let rejection =
            self.0.entry(rejected).or_insert_with(|| Rejection { count: 0, last_from: from.clone(), last_at: now });
        rejection.count += 1;
        rejection.last_from = from.clone();
        rejection.last_at = now;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Rejected, &Rejection)> {
        self.0.iter().map(|(rejected, rejection)| (*rejected, rejection))
    }

    /// Hands the counts to the recorder.
    pub(crate) fn report(&self) {
        for (rejected, rejection) in &self.0 {
            metrics::rejected(*rejected, rejection.count);
        }
    }
}
