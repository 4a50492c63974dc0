//! What a node needs to know to take part, and the constants of the protocol.

use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::PeriodicParams;
use garpike_election::{InterfaceName, NodeName, Selection};

use crate::{Generation, ProcessId, Sealing};

/// How this process takes part in the cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub local: NodeName,
    /// Milliseconds since the epoch at the start of the process.
    pub generation: Generation,
    /// Drawn at random at the start of the process; not 0.
    pub process: ProcessId,
    /// The address at which the other members reach this one: never 0.0.0.0 or `::`.
    pub gossip: SocketAddr,
    /// Addresses of members to begin with; the own one may be among them. None: this node waits to be found.
    pub seeds: Vec<SocketAddr>,
    /// How datagrams are protected.
    pub sealing: Sealing,
    /// The interfaces on which this node can announce.
    pub interfaces: Selection<InterfaceName>,
}

/// The longest datagram of foca. With the envelope and names of usual length this stays below 1200 bytes, with the
/// longest names below 1428: no fragments on Ethernet. It must be the same on all nodes, foca refuses longer ones.
pub(crate) const PACKET_MAX: usize = 1100;

/// How often a member is probed; with the two below, chosen so that all survivors know of a death within 0.8 s.
pub(crate) const PROBE_PERIOD: Duration = Duration::from_millis(100);

/// Within this time a probed member answers, or others are asked to probe it.
const PROBE_RTT: Duration = Duration::from_millis(40);

/// How long a suspected member has to refute.
pub(crate) const SUSPECT_TO_DOWN: Duration = Duration::from_millis(400);

/// How often a suspected member is told so within [`SUSPECT_TO_DOWN`].
pub(crate) const TELL_SUSPECT_EVERY: Duration = PROBE_PERIOD;

/// How long a suspicion is held back when nobody is heard, one [`HOLD_BACK_FOR`] at a time.
pub(crate) const HOLD_BACK_FOR: Duration = Duration::from_millis(100);

/// How often it is held back: 300 ms in all, then a lone survivor believes it, within a second of the death.
pub(crate) const HOLD_BACK_TIMES: u32 = 3;

/// Silence from everybody for so long is our own trouble, not theirs: in a cluster of two survivors each is heard every
/// 200 ms at the latest.
pub(crate) const SILENCE: Duration = Duration::from_millis(250);

/// How long we must have heard others again before a suspicion counts: two tellings of the suspect.
pub(crate) const HEARING_AGAIN: Duration = Duration::from_millis(200);

/// How often seeds are tried while this node joins or is alone.
pub(crate) const SEEDS_EVERY: Duration = Duration::from_millis(500);

/// How often seeds that are no members are tried otherwise.
pub(crate) const LOST_SEEDS_EVERY: Duration = Duration::from_secs(5);

/// A node is ready after this time even if some seed has not been found.
pub(crate) const JOIN_WITHIN: Duration = Duration::from_secs(3);

/// How often a node repeats its facts, for those that missed them.
pub(crate) const FACTS_EVERY: Duration = Duration::from_secs(10);

/// How often a member is asked for its facts as long as they are missing.
pub(crate) const ASK_FACTS_EVERY: Duration = Duration::from_millis(500);

/// How often, and how many times, a leaving node repeats that it leaves: 250 ms in all, well within the time that a Pod
/// has for its end.
pub(crate) const FAREWELL_EVERY: Duration = Duration::from_millis(50);
pub(crate) const FAREWELLS: u32 = 5;

/// For how long a dead member is shown, and tried to be reached.
pub(crate) const SHOW_DEAD: Duration = Duration::from_secs(600);

/// How many dead members are remembered, so that a heal is told from a restart however long the partition was.
pub(crate) const DEAD_MAX: usize = 1024;

/// For how long a node stays out after it has heard that another node lives under its name.
pub(crate) const OUTCAST_FOR: Duration = Duration::from_secs(3);

/// How many others an unconnected node announces itself to, besides the seeds.
pub(crate) const ANNOUNCE_TO: usize = 3;

pub(crate) fn foca() -> foca::Config {
    foca::Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_RTT,
        num_indirect_probes: const { NonZeroUsize::new(3).unwrap() },
        // Simulated: with 15 no false verdict in 48 node-hours at 10 % loss; with the 2 that foca gives three nodes, 51 an hour.
        max_transmissions: const { NonZeroU8::new(15).unwrap() },
        suspect_to_down_after: SUSPECT_TO_DOWN,
        remove_down_after: Some(SHOW_DEAD),
        max_packet_size: const { NonZeroUsize::new(PACKET_MAX).unwrap() },
        notify_down_members: true,
        periodic_announce: None,
        periodic_announce_to_down_members: Some(PeriodicParams {
            frequency: Duration::from_secs(2),
            num_members: const { NonZeroUsize::new(2).unwrap() },
        }),
        // Only while there is something to tell.
        periodic_gossip: Some(PeriodicParams {
            frequency: Duration::from_millis(50),
            num_members: const { NonZeroUsize::new(3).unwrap() },
        }),
    }
}
