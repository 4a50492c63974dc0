//! The cluster as one node sees it, for people: `/state.json`, `garpike status`.

use std::net::SocketAddr;

use garpike_election::{InterfaceName, NodeName, NodeState, Selection};
use serde::Serialize;

use crate::{Generation, ProcessId};

/// A snapshot; ages count to the moment at which it was made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// The node whose view this is.
    pub local: NodeName,
    /// Which of its lives this is.
    pub generation: Generation,
    /// Its process number, in hexadecimal digits.
    #[serde(serialize_with = "as_text")]
    pub process: ProcessId,
    /// Where it receives datagrams.
    pub gossip: SocketAddr,
    /// What it says it is doing.
    pub state: NodeState,
    /// Whether at least one other member is in touch with it.
    pub connected: bool,
    /// The name of the key, in hexadecimal digits; absent when datagrams travel in the clear.
    pub key_id: Option<String>,
    /// Seeds at which no member is known.
    pub missing_seeds: Vec<SocketAddr>,
    /// The living members other than this node.
    pub members: Vec<MemberStatus>,
    /// The members that died or left within the last ten minutes.
    pub dead: Vec<DeadStatus>,
    /// Datagrams that changed nothing.
    pub rejected: Vec<RejectedStatus>,
    /// What an operator ought to look at.
    pub complaints: Vec<Complaint>,
}

/// A living member.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemberStatus {
    /// The node.
    pub name: NodeName,
    /// Where it receives datagrams.
    pub gossip: SocketAddr,
    /// Which of its lives this is.
    pub generation: Generation,
    /// Whether it answers.
    pub liveness: Liveness,
    /// What it says it is doing; absent until it has said so.
    pub state: Option<NodeState>,
    /// The interfaces on which it can announce; absent when not restricted or not known.
    pub interfaces: Option<Vec<InterfaceName>>,
}

/// Whether a living member answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    /// It does.
    Alive,
    /// It did not answer in time, and has not yet refuted that it is dead.
    Suspect,
}

/// A member that died or left.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeadStatus {
    /// The node.
    pub name: NodeName,
    /// Where it was.
    pub gossip: SocketAddr,
    /// Which of its lives ended.
    pub generation: Generation,
    /// How long ago that came to be known.
    pub seconds_ago: f64,
    /// What it said last; `restarting` when it left on purpose.
    pub last_state: Option<NodeState>,
}

/// Datagrams that were dropped for one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RejectedStatus {
    /// The reason, as in the metrics.
    pub reason: &'static str,
    /// How many.
    pub count: u64,
    /// Who sent the last of them. Where they are not authentic, the address may be forged.
    pub last_from: SocketAddr,
    /// When that was.
    pub seconds_ago: f64,
}

/// Something that an operator ought to look at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Complaint {
    /// Its name, for scripts.
    pub reason: &'static str,
    /// Who causes it.
    pub source: SocketAddr,
    /// What to do about it.
    pub mend: &'static str,
    /// When it was last seen.
    pub seconds_ago: f64,
}

/// Unrestricted interfaces are absent.
pub(crate) fn names(interfaces: Selection<InterfaceName>) -> Option<Vec<InterfaceName>> {
    match interfaces {
        Selection::All => None,
        Selection::Only(names) => Some(names.into_iter().collect()),
    }
}

fn as_text<S: serde::Serializer>(process: &ProcessId, serializer: S) -> Result<S::Ok, S::Error> {
    // A number of 64 bits would be rounded by the readers that know doubles only.
    serializer.collect_str(process)
}
