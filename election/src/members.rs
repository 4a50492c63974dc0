//! Who is alive: the living members of the cluster and what they say about themselves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{InterfaceName, NodeName, Selection};

/// The living members as one node sees them, itself included. Who is dead is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// The node whose view this is.
    pub local: NodeName,
    /// Every living member by name.
    pub nodes: BTreeMap<NodeName, Member>,
}

/// What the election knows of one living member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What the member says it is doing.
    pub state: NodeState,
    /// The interfaces on which it can announce.
    pub interfaces: Selection<InterfaceName>,
}

/// What a living member says it is doing. The order is the rank: an earlier state is preferred as owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Serves.
    Ready,
    /// Has started and does not know all its peers yet.
    Joining,
    /// Is being emptied by an operator.
    Draining,
    /// Has been told to stop and hands over.
    Restarting,
}

impl NodeState {
    /// No other state ranks before it.
    pub const BEST: Self = Self::Ready;

    /// The word for the state in logs, metrics and `/state.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Joining => "joining",
            Self::Draining => "draining",
            Self::Restarting => "restarting",
        }
    }
}
