//! Why a conversation was ended. It has changed nothing then but a counter.

use crate::Rejected;

/// The reason for which a TCP connection on the gossip port was ended before its purpose was reached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum StreamFault {
    /// A frame was none of ours, or not fresh; the reasons are those of datagrams.
    Frame(Rejected),
    /// The other end said something that does not belong there.
    Unexpected,
    /// The other end left without a word.
    Silent,
    /// The other end left in the middle.
    Cut,
    /// The other end was too slow.
    Late,
    /// What this node knows does not fit into a frame.
    StateTooLong,
    /// Too many connections are being served.
    TooManyConnections,
    /// Too many connections of this source are being served.
    TooManyOfSource,
    /// Too many observers are being served.
    TooManyObservers,
    /// The network refused or broke the connection.
    Network,
}

impl StreamFault {
    /// The word for the reason in metrics, logs and `/state.json`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Frame(rejected) => rejected.reason(),
            Self::Unexpected => "unexpected",
            Self::Silent => "silent",
            Self::Cut => "cut",
            Self::Late => "late",
            Self::StateTooLong => "state_too_long",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyOfSource => "too_many_of_source",
            Self::TooManyObservers => "too_many_observers",
            Self::Network => "network",
        }
    }

    /// What the operator can do about it; `None` where this is part of normal operation or tells nothing.
    pub fn mend(self) -> Option<&'static str> {
        match self {
            Self::Frame(rejected) => rejected.mend(),
            Self::StateTooLong => {
                Some("the cluster is larger than this version can describe in 1 MiB: make it smaller")
            }
            Self::TooManyObservers => Some("more than 32 observers watch this node: run fewer controllers"),
            Self::Unexpected
            | Self::Silent
            | Self::Cut
            | Self::Late
            | Self::TooManyConnections
            | Self::TooManyOfSource
            | Self::Network => None,
        }
    }
}

impl From<Rejected> for StreamFault {
    fn from(rejected: Rejected) -> Self {
        Self::Frame(rejected)
    }
}
