//! What a node needs to know to take part, and the constants of the protocol.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::PeriodicParams;
use garpike_election::{NodeName, Spread};

use crate::{FeatureLevel, Generation, ProcessId, Sealing, Surroundings};

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
    /// What is known of the links of this node.
    pub surroundings: Surroundings,
    /// How fast and how careful deaths are detected.
    pub profile: Profile,
    /// For how long a speaker that is gone keeps its addresses while its host lives.
    pub restart_grace: Duration,
    /// For how long a node that returns from the dead does not get its addresses back; `None`: never by itself.
    pub failback: Option<Duration>,
    /// TCP ports of a host whose answers show that it lives. Its gossip port is always among them.
    pub host_ports: Vec<u16>,
    /// How this node wants owners to be spread; in force when all members want the same.
    pub spread: Spread,
    /// What this speaker can do: [`FeatureLevel::CURRENT`], but for tests of the skew between versions.
    pub feature_level: FeatureLevel,
    /// Facts that this version does not know, by number: none, but for the same tests. At most two, of at most 16 bytes.
    pub later_facts: BTreeMap<u16, Vec<u8>>,
}

/// How fast and how careful deaths are detected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Profile {
    /// A death is known within 200 ms; a pause of a whole host of up to 160 ms is none.
    #[default]
    Default,
    /// Within 80 ms; needs timers that are never late.
    Fast,
    /// Within a second or so, for routed and lossy networks.
    Relaxed,
}

/// The longest datagram of foca. With the envelope and names of usual length this stays below 1200 bytes, with the
/// longest names below 1428: no fragments on Ethernet. It must be the same on all nodes, foca refuses longer ones.
pub(crate) const PACKET_MAX: usize = 1100;

/// How often a suspected member is told so before its suspicion ends.
pub(crate) const TELL_SUSPECT_EVERY: Duration = Duration::from_millis(200);

/// How often dead members are pinged by those who would watch them, in case they live; after [`SHOW_DEAD`], only at every
/// tenth time.
pub(crate) const REVENANTS_EVERY: Duration = Duration::from_millis(200);
pub(crate) const OLD_REVENANTS_EVERY: u32 = 10;

/// For how long a node that pinged us is sent heartbeats, though by our members it is none of our watchers.
pub(crate) const SUBSCRIBED_FOR: Duration = Duration::from_secs(1);

/// For how long a node that is none of a suspect's watchers looks after it.
pub(crate) const TEMPORARY_FOR: Duration = Duration::from_secs(2);
/// How often a member is looked after because datagrams to it come back, at most. Chosen: a forger costs five pings and as many
/// connections a second, and a speaker that was killed is found at the first.
pub(crate) const REFUSED_EVERY: Duration = Duration::from_secs(1);

/// How often states are exchanged with some member, in case something was missed.
pub(crate) const EXCHANGE_EVERY: Duration = Duration::from_secs(30);

/// How often seeds are tried while this node joins or is alone.
pub(crate) const SEEDS_EVERY: Duration = Duration::from_millis(500);

/// How often seeds that are no members are tried otherwise.
pub(crate) const LOST_SEEDS_EVERY: Duration = Duration::from_secs(5);

/// A node is ready after this time even if some seed has not been found.
pub(crate) const JOIN_WITHIN: Duration = Duration::from_secs(3);

/// How often old things are forgotten.
pub(crate) const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(10);

/// For how long a dead member is remembered, and pinged: a machine may be away for a day.
pub(crate) const REMEMBER_DEAD: Duration = Duration::from_secs(24 * 3600);

/// How often a member is asked for its facts as long as they are missing.
pub(crate) const ASK_FACTS_EVERY: Duration = Duration::from_millis(100);

/// How often, and how many times, a leaving node repeats that it leaves: 250 ms in all, well within the time that a Pod
/// has for its end.
pub(crate) const FAREWELL_EVERY: Duration = Duration::from_millis(50);
pub(crate) const FAREWELLS: u32 = 5;

/// For how long a dead member is shown, and pinged often; and for how long foca remembers it.
pub(crate) const SHOW_DEAD: Duration = Duration::from_secs(600);

/// How many dead members are remembered, so that a heal is told from a restart however long the partition was.
pub(crate) const DEAD_MAX: usize = 1024;

/// For how long a node stays out after it has heard that another node lives under its name.
pub(crate) const OUTCAST_FOR: Duration = Duration::from_secs(3);

/// How many others an unconnected node announces itself to, besides the seeds.
pub(crate) const ANNOUNCE_TO: usize = 3;

/// The settings of foca, which joins, spreads and heals; who is dead is found by the watchers. Its probes are the net under
/// theirs: they find a member that nobody watches, for instance while views of the members differ.
pub(crate) fn foca(profile: Profile) -> foca::Config {
    let (probe_period, suspect_to_down_after) = match profile {
        Profile::Default | Profile::Fast => (Duration::from_millis(1000), Duration::from_millis(500)),
        Profile::Relaxed => (Duration::from_millis(2000), Duration::from_millis(2000)),
    };
    foca::Config {
        probe_period,
        probe_rtt: probe_period * 2 / 5,
        num_indirect_probes: const { NonZeroUsize::new(3).unwrap() },
        // Simulated: with 15 no false verdict in 48 node-hours at 10 % loss; with the 2 that foca gives three nodes, 51 an hour.
        max_transmissions: const { NonZeroU8::new(15).unwrap() },
        suspect_to_down_after,
        remove_down_after: Some(SHOW_DEAD),
        max_packet_size: const { NonZeroUsize::new(PACKET_MAX).unwrap() },
        notify_down_members: true,
        periodic_announce: None,
        // The watchers ping the dead.
        periodic_announce_to_down_members: None,
        // Only while there is something to tell.
        periodic_gossip: Some(PeriodicParams {
            frequency: Duration::from_millis(50),
            num_members: const { NonZeroUsize::new(3).unwrap() },
        }),
    }
}
