//! What can go wrong on purpose in the lab, and how it is undone.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;
use garpike_election::NodeName;

use crate::fleet::Fleet;
use crate::lab::now;

/// A fault of the owner of the probed Service, or none.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Nothing goes wrong for ten seconds; reports what the speakers use
    Rest,
    /// The owner's host dies without a word: its port keeps the carrier, nothing passes, all its processes stop
    Crash,
    /// The owner's cable is pulled at the switch
    LinkDown,
    /// The owner's speaker is killed (SIGKILL); its host lives: no address may move
    Kill,
    /// The owner's speaker is asked to end (SIGTERM); its host lives: no address may move
    Term,
    /// The owner's speaker is stopped (SIGSTOP) for three seconds; its host lives: no address may move
    Freeze,
    /// The owner is cut off from the other nodes and the client; both sides live
    Partition,
}

impl Scenario {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Crash => "crash",
            Self::LinkDown => "link-down",
            Self::Kill => "kill",
            Self::Term => "term",
            Self::Freeze => "freeze",
            Self::Partition => "partition",
        }
    }

    /// Whether it hits a speaker whose host lives on and stays reachable for the client: its addresses must not move.
    pub fn host_lives(self) -> bool {
        match self {
            Self::Rest | Self::Crash | Self::LinkDown | Self::Partition => false,
            Self::Kill | Self::Term | Self::Freeze => true,
        }
    }

    /// Whether addresses must move.
    pub fn moves(self) -> bool {
        match self {
            Self::Rest | Self::Kill | Self::Term | Self::Freeze => false,
            Self::Crash | Self::LinkDown | Self::Partition => true,
        }
    }

    /// Lets it happen to `victim`; gives the instant just before.
    pub(crate) fn inject(self, fleet: &mut Fleet<'_>, victim: &NodeName) -> Result<Instant> {
        let lab = &mut fleet.lab;
        Ok(match self {
            Self::Rest => {
                let begun = now();
                thread::sleep(REST);
                begun
            }
            Self::Crash => lab.crash(victim)?,
            Self::LinkDown => lab.link_down(victim)?,
            Self::Kill => lab.kill(victim)?,
            Self::Term => lab.term(victim)?,
            Self::Freeze => lab.freeze(victim)?,
            Self::Partition => lab.partition([victim])?,
        })
    }

    /// Makes the lab whole again.
    pub(crate) fn undo(self, fleet: &mut Fleet<'_>, victim: &NodeName) -> Result<()> {
        match self {
            Self::Rest => {}
            Self::Crash => {
                fleet.lab.reboot(victim)?;
                fleet.start_node(victim)?;
            }
            Self::LinkDown => {
                fleet.lab.link_up(victim)?;
            }
            Self::Kill | Self::Term => {
                fleet.lab.wait_for_end(victim, ENDS_WITHIN)?;
                fleet.start_speaker(victim)?;
            }
            Self::Freeze => {
                fleet.lab.thaw(victim)?;
            }
            Self::Partition => {
                fleet.lab.heal()?;
            }
        }
        Ok(())
    }
}

/// Chosen: enough ticks of the kernel's CPU accounting (10 ms) to tell 0.1 % of a core.
const REST: Duration = Duration::from_secs(10);
/// MetalLB's manifest grants a speaker 2 s between SIGTERM and SIGKILL; chosen: with room for a machine under load.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
