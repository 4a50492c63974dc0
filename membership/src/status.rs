//! The cluster as one node sees it, for people: `/state.json`, `garpike status`.

use std::net::SocketAddr;

use garpike_election::{InterfaceName, NodeName, NodeState, Presence, Selection};
use serde::Serialize;

use crate::{FeatureLevel, Generation, KeyId, Keyring, Path, ProcessId, Sealing};

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
    /// Whether it hears no member at all.
    pub dark: bool,
    /// The level that all living members understand.
    pub feature_level: FeatureLevel,
    /// The name of the newest key, in hexadecimal digits; absent when datagrams travel in the clear.
    pub key_id: Option<String>,
    /// How datagrams are protected: `sealed`, `roll_out` or `plaintext`.
    pub sealing: &'static str,
    /// The keys of this node, in the order of preference.
    pub keys: Vec<KeyStatus>,
    /// What is wrong with the files of the keys.
    pub key_complaints: Vec<String>,
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
    /// Whether its speaker runs.
    pub presence: Presence,
    /// For how many seconds it is away.
    pub away_seconds: Option<f64>,
    /// Milliseconds since anything was heard of it; absent when this node has heard nothing yet.
    pub heard_ms_ago: Option<f64>,
    /// For how many seconds it answers on the wire or by TCP, but not by UDP.
    pub udp_blocked_seconds: Option<f64>,
    /// How this node watches it; absent when others do.
    pub watch: Option<WatchStatus>,
    /// What it says it is doing; absent until it has said so.
    pub state: Option<NodeState>,
    /// The names of the keys that it holds; absent until it has said so.
    pub keys: Option<Vec<KeyId>>,
    /// The interfaces on which it can announce; absent when not restricted or not known.
    pub interfaces: Option<Vec<InterfaceName>>,
    /// Its version.
    pub software: Option<String>,
}

/// A key of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyStatus {
    /// Its name, in hexadecimal digits.
    pub id: KeyId,
    /// What it is good for: `in_force`, `retired` or `expiring`.
    pub standing: &'static str,
}

/// How a member is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchStatus {
    /// Its heartbeats come, or are not overdue.
    Listening,
    /// Its speaker is gone; its host is looked at.
    Checking,
    /// It is silent and being pinged.
    Verifying,
    /// This node votes that its speaker is gone.
    SpeakerGone,
    /// This node votes that its host is dead.
    HostDead,
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
    /// Whether a verdict ended it: then its host is dead; else its speaker did not come back in time.
    pub host_dead: bool,
    /// How often its host died lately.
    pub deaths: u16,
}

/// Datagrams that were dropped for one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RejectedStatus {
    /// The reason, as in the metrics.
    pub reason: &'static str,
    /// How many.
    pub count: u64,
    /// Who sent the last of them. Where they are not authentic, the address may be forged.
    pub last_from: Path,
    /// When that was.
    pub seconds_ago: f64,
}

/// Something that an operator ought to look at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Complaint {
    /// Its name, for scripts.
    pub reason: &'static str,
    /// Who causes it.
    pub source: Path,
    /// What to do about it.
    pub mend: &'static str,
    /// When it was last seen.
    pub seconds_ago: f64,
}

/// The keys of a node that seals; none otherwise.
pub(crate) fn keys(sealing: &Sealing) -> Vec<KeyStatus> {
    let keys = sealing.keyring().into_iter().flat_map(Keyring::iter);
    keys.map(|(id, standing)| KeyStatus { id, standing: standing.as_str() }).collect()
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
