//! What can go wrong on purpose in the lab, and what may be expected of it. How it is done is told in `script`.

use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;

/// A fault of the owner of the probed Service, planned work on it, or none.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Nothing goes wrong for ten seconds, or as long as --lasts says; reports what the speakers use
    Rest,
    /// The owner's host dies without a word: its port keeps the carrier, nothing passes, all its processes stop
    Crash,
    /// The owner's cable is pulled at the switch; with --links 2 the one to the clients
    LinkDown,
    /// The owner's cable to the clients is pulled and put back five times within two seconds
    LinkFlap,
    /// The owner's speaker is killed (SIGKILL) and started again two seconds later: no address may move
    Kill,
    /// The owner's speaker is asked to end (SIGTERM) and started again two seconds later: no address may move
    Term,
    /// The owner's speaker is stopped (SIGSTOP) for two seconds: no address may move
    Freeze,
    /// All speakers are asked to end and started again, one after the other: no address may move
    Rolling,
    /// All speakers are asked to end at once and started again after --lasts (3 s): no address may move
    TermAll,
    /// The owner's speaker is killed, and its host dies 0.2 to 3 s later
    KillThenCrash,
    /// The owner's speaker is asked to end, and its host dies 0.2 to 3 s later
    TermThenCrash,
    /// The owner is cut off from the other nodes and the client; both sides live
    Partition,
    /// The owner comes back from such a cut, in which another node has taken over
    Heal,
    /// The owner is drained
    Drain,
    /// The owner was drained and is wanted again
    Undrain,
    /// The probed Service is moved to another node
    Move,
    /// The client is behind an uplink that is down for --lasts (60 s), while the owner's host dies; then it comes back
    UplinkDown,
    /// A stranger claims the addresses of the probed Service every second, for --lasts (12 s)
    Conflict,
}

/// What becomes of the owner's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Its host lives: they stay, and nobody is told anything else.
    Stay,
    /// They move to another node while the owner's speaker lives.
    HandOver,
    /// They move because its host is dead or out of reach.
    TakeOver,
    /// They may move; in the end one node has them.
    Either,
}

/// Who else but the probing client looks on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Onlooker {
    /// A client without a cache that asks for the probed addresses all the time.
    Fresh,
    /// 200 established TCP connections to the probed addresses.
    Connections,
}

impl Scenario {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Crash => "crash",
            Self::LinkDown => "link-down",
            Self::LinkFlap => "link-flap",
            Self::Kill => "kill",
            Self::Term => "term",
            Self::Freeze => "freeze",
            Self::Rolling => "rolling",
            Self::TermAll => "term-all",
            Self::KillThenCrash => "kill-then-crash",
            Self::TermThenCrash => "term-then-crash",
            Self::Partition => "partition",
            Self::Heal => "heal",
            Self::Drain => "drain",
            Self::Undrain => "undrain",
            Self::Move => "move",
            Self::UplinkDown => "uplink-down",
            Self::Conflict => "conflict",
        }
    }

    pub(crate) fn expected(self) -> Expected {
        match self {
            Self::Rest | Self::Kill | Self::Term | Self::Freeze | Self::Rolling | Self::TermAll | Self::Conflict => {
                Expected::Stay
            }
            Self::Drain | Self::Undrain | Self::Move => Expected::HandOver,
            Self::Crash
            | Self::LinkDown
            | Self::KillThenCrash
            | Self::TermThenCrash
            | Self::Partition
            | Self::UplinkDown => Expected::TakeOver,
            Self::LinkFlap | Self::Heal => Expected::Either,
        }
    }

    /// Whether it looks on. Where a take-over or the need of processor time is measured, nobody may lend a hand or a load.
    pub(crate) fn has(self, onlooker: Onlooker) -> bool {
        match (self, onlooker) {
            (Self::Kill | Self::Term | Self::Freeze | Self::Rolling | Self::TermAll, _) => true,
            (
                Self::Partition
                | Self::Heal
                | Self::LinkFlap
                | Self::Drain
                | Self::Undrain
                | Self::Move
                | Self::Conflict,
                Onlooker::Fresh,
            ) => true,
            (
                Self::Partition
                | Self::Heal
                | Self::LinkFlap
                | Self::Drain
                | Self::Undrain
                | Self::Move
                | Self::Conflict,
                Onlooker::Connections,
            ) => false,
            (
                Self::Rest
                | Self::Crash
                | Self::LinkDown
                | Self::KillThenCrash
                | Self::TermThenCrash
                | Self::UplinkDown,
                _,
            ) => false,
        }
    }

    /// Whether every node is hit, one after the other or at once.
    pub(crate) fn hits_all(self) -> bool {
        match self {
            Self::Rolling | Self::TermAll => true,
            Self::Rest
            | Self::Crash
            | Self::LinkDown
            | Self::LinkFlap
            | Self::Kill
            | Self::Term
            | Self::Freeze
            | Self::KillThenCrash
            | Self::TermThenCrash
            | Self::Partition
            | Self::Heal
            | Self::Drain
            | Self::Undrain
            | Self::Move
            | Self::UplinkDown
            | Self::Conflict => false,
        }
    }

    /// Whether an operator asks for what happens.
    pub fn is_asked_for(self) -> bool {
        match self.expected() {
            Expected::HandOver => true,
            Expected::Stay | Expected::TakeOver | Expected::Either => false,
        }
    }

    /// How long it lasts unless it is told otherwise; `None` where that cannot be chosen.
    pub fn default_length(self) -> Option<Duration> {
        match self {
            Self::Rest => Some(REST),
            Self::TermAll => Some(ALL_GONE),
            Self::UplinkDown => Some(UPLINK_DOWN),
            Self::Conflict => Some(CONFLICT),
            Self::Crash
            | Self::LinkDown
            | Self::LinkFlap
            | Self::Kill
            | Self::Term
            | Self::Freeze
            | Self::Rolling
            | Self::KillThenCrash
            | Self::TermThenCrash
            | Self::Partition
            | Self::Heal
            | Self::Drain
            | Self::Undrain
            | Self::Move => None,
        }
    }
}

/// How long a scenario lasts, as the command line says it: `60s`, `10m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length(pub Duration);

impl FromStr for Length {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let length = humantime::parse_duration(text)
            .map_err(|error| format!("\"{text}\" is not a time ({error}); write 500ms, 60s or 10m"))?;
        if (SHORTEST..=LONGEST).contains(&length) {
            return Ok(Self(length));
        }
        Err(format!("{text} is not between {SHORTEST:?} and {LONGEST:?}"))
    }
}

/// Chosen: enough ticks of the kernel's CPU accounting (10 ms) to tell 0.1 % of a core.
const REST: Duration = Duration::from_secs(10);
/// Chosen: what a roll-out that ends everything takes to pull an image that is there.
const ALL_GONE: Duration = Duration::from_secs(3);
/// Chosen: a switch reboots in about a minute; the first announcements are over long before.
const UPLINK_DOWN: Duration = Duration::from_secs(60);
/// Chosen: longer than the 10 s of RFC 5227 between two defences.
const CONFLICT: Duration = Duration::from_secs(12);
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_has_the_same_name_everywhere() {
        for scenario in Scenario::value_variants() {
            assert_eq!(scenario.to_possible_value().unwrap().get_name(), scenario.name());
        }
    }

    #[test]
    fn a_length_is_read_and_a_bad_one_is_refused_with_the_mend() {
        assert_eq!("10m".parse(), Ok(Length(Duration::from_secs(600))));
        assert!("10".parse::<Length>().unwrap_err().contains("60s"));
        assert!("0s".parse::<Length>().unwrap_err().contains("between"));
    }
}
