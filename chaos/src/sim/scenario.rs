//! The scenarios, and the conditions under which they are run.

use std::fmt::Write as _;
use std::time::Duration;

use clap::ValueEnum;
use garpike_membership::Profile;

use super::host::Gateways;

/// What happens in a simulation.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// A host that owns addresses dies without a word
    Crash,
    /// Several hosts die at the same moment (--dead)
    CrashMany,
    /// One of two hosts dies
    TwoNodes,
    /// A speaker is killed and comes back within the restart grace; its host lives
    SpeakerKill,
    /// A speaker is killed, and then its host dies
    KillThenCrash,
    /// A speaker is told to end, as for a reboot, and then its host dies
    TermThenCrash,
    /// Who stands in for a killed speaker dies with its host
    StandInCrash,
    /// Who stands in for a killed speaker is drained
    StandInDrain,
    /// All speakers are told to end at the same moment, and come back
    TermAll,
    /// A speaker is stopped for 1 to 50 s and goes on
    Freeze,
    /// A virtual machine is paused for 20 ms to 30 s, kernel and speaker
    VmPause,
    /// A speaker is held up for 50-200 ms, 1 s or 30 s
    Stall,
    /// Nothing goes wrong for --hours, but for the loss of packets
    Rest,
    /// Nothing goes wrong for --hours, but packets are lost in bursts
    BurstLoss,
    /// Nothing goes wrong for --hours, but some ways lose many more packets in one direction than in the other
    AsymmetricLoss,
    /// Two halves do not hear each other for 1 s to 10 min
    Halves,
    /// One host and all others do not hear each other for 1 s to 10 min
    OneVersusRest,
    /// Two hosts do not hear each other, all others hear both
    BridgePartition,
    /// A host that owns addresses is cut off for some seconds, with the other hosts and the gateway out of its reach
    Partition,
    /// Nobody hears anybody for 0.3 to 30 s, the gateway included
    SegmentBlackout,
    /// A firewall drops port 7946 of one host or of all for 10 min; everything else gets through
    #[value(name = "blocked-7946")]
    Blocked7946,
    /// The link of one host carries nothing for 10 to 800 ms, as when a bond fails over
    BondFailover,
    /// One node joins
    Join,
    /// Half of the nodes join within a second
    JoinStorm,
    /// The speakers are restarted one after the other
    RollingRestart,
    /// All hosts boot within 5 s, as after a power cut
    BootAll,
    /// A host dies and boots again and again, 20 s each
    FlipFlop,
    /// Wall clocks jump forward and back, and a speaker restarts with its clock set back
    ClockJump,
    /// Another node comes up under the name of a member
    DuplicateName,
    /// The Secret gets another key, which reaches the nodes up to 90 s apart
    KeyRotation,
    /// The speakers are upgraded one after the other to a version that says more, while another speaks an unknown format
    VersionSkew,
    /// Forged, corrupt and recorded datagrams arrive all the time, a restart included
    Forged,
    /// Three routed racks: a host dies, or a rack is cut off
    Racks,
}

/// The conditions of a simulation.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many hosts there are.
    pub nodes: usize,
    /// How many packets of a hundred are lost.
    pub loss_percent: f64,
    /// How many service IPs there are.
    pub addresses: u32,
    /// How long nothing goes wrong in [`Scenario::Rest`] and its like.
    pub rest: Duration,
    /// How fast and how careful the speakers detect deaths.
    pub profile: Profile,
    /// How many hosts die in [`Scenario::Crash`] and [`Scenario::CrashMany`].
    pub dead: Option<usize>,
    /// How long the fault lasts where it ends; otherwise the seed decides.
    pub lasts: Option<Duration>,
    /// Whether a station other than the members is on the wires.
    pub gateways: Gateways,
    /// Whether datagrams are sealed.
    pub protection: Protection,
    /// How many runs at a time. It does not change what they give.
    pub jobs: usize,
}

/// The profiles of the membership, as words of the command line.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speed {
    /// A death is known within 200 ms
    Default,
    /// Within 80 ms; needs timers that are never late
    Fast,
    /// Within a second or so, for routed and lossy networks
    Relaxed,
}

impl From<Speed> for Profile {
    fn from(speed: Speed) -> Self {
        match speed {
            Speed::Default => Self::Default,
            Speed::Fast => Self::Fast,
            Speed::Relaxed => Self::Relaxed,
        }
    }
}

/// How the datagrams of a simulation are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Sealed, as in a cluster.
    Sealed,
    /// In the clear, which is faster to simulate.
    Plain,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nodes: 3,
            loss_percent: 0.0,
            addresses: 12,
            rest: Duration::from_secs(360),
            profile: Profile::Default,
            dead: None,
            lasts: None,
            gateways: Gateways::Present,
            protection: Protection::Sealed,
            jobs: 1,
        }
    }
}

impl Scenario {
    /// Its name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// A crash of several hosts is another scenario, with targets of its own.
    pub(super) fn with_dead(self, dead: Option<usize>) -> Self {
        if self == Self::Crash && dead.is_some_and(|dead| dead > 1) { Self::CrashMany } else { self }
    }

    /// How many hosts it has when so many are wanted.
    pub fn nodes(self, wanted: usize) -> usize {
        match self {
            Self::TwoNodes => 2,
            Self::BridgePartition | Self::StandInCrash | Self::StandInDrain => wanted.max(3),
            Self::Racks => wanted.max(6),
            Self::Crash
            | Self::CrashMany
            | Self::SpeakerKill
            | Self::KillThenCrash
            | Self::TermThenCrash
            | Self::TermAll
            | Self::Freeze
            | Self::VmPause
            | Self::Stall
            | Self::Rest
            | Self::BurstLoss
            | Self::AsymmetricLoss
            | Self::Halves
            | Self::OneVersusRest
            | Self::Partition
            | Self::SegmentBlackout
            | Self::Blocked7946
            | Self::BondFailover
            | Self::Join
            | Self::JoinStorm
            | Self::RollingRestart
            | Self::BootAll
            | Self::FlipFlop
            | Self::ClockJump
            | Self::DuplicateName
            | Self::KeyRotation
            | Self::VersionSkew
            | Self::Forged => wanted,
        }
    }
}

impl Config {
    /// How many hosts die at the same moment: what is wanted, or 3 of 10 and 2 of 3, but never all.
    pub fn dead(&self) -> usize {
        let wanted = self.dead.unwrap_or(if self.nodes >= 10 { 3 } else { 2 });
        wanted.min(self.nodes.saturating_sub(1)).max(1)
    }

    /// The command that runs a scenario under these conditions with one seed.
    pub fn command(&self, scenario: Scenario, seed: u64) -> String {
        let mut command = format!(
            "garpike chaos simulate {} --nodes {} --loss {} --addresses {} --hours {} --profile {}",
            scenario.name(),
            self.nodes,
            self.loss_percent,
            self.addresses,
            self.rest.as_secs_f64() / 3600.0,
            name_of_profile(self.profile),
        );
        if let Some(dead) = self.dead {
            let _ = write!(command, " --dead {dead}");
        }
        if let Some(lasts) = self.lasts {
            let _ = write!(command, " --lasts {}", lasts.as_secs_f64());
        }
        if self.gateways == Gateways::Absent {
            command.push_str(" --no-gateway");
        }
        if self.protection == Protection::Plain {
            command.push_str(" --plaintext");
        }
        let _ = write!(command, " --seeds {seed}..{}", seed + 1);
        command
    }
}

/// A profile as on the command line.
pub fn name_of_profile(profile: Profile) -> &'static str {
    match profile {
        Profile::Default => "default",
        Profile::Fast => "fast",
        Profile::Relaxed => "relaxed",
    }
}
