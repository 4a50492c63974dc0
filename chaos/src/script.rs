//! How each scenario is carried out on a running lab: what comes before, what happens, and how the lab is made whole.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use garpike_election::{NodeName, ServiceIp};
use rand::rngs::StdRng;
use rand::{RngExt as _, seq::IndexedRandom as _};

use crate::fleet::Fleet;
use crate::judge::DEFEND_INTERVAL;
use crate::lab::{Lab, LabError, now};
use crate::overrides::Wish;
use crate::scenario::Scenario;

/// A scenario that is about to happen.
pub(crate) struct Script<'a> {
    pub(crate) scenario: Scenario,
    /// Who answers the client.
    pub(crate) victim: &'a NodeName,
    /// The probed addresses.
    pub(crate) probed: &'a [ServiceIp],
    pub(crate) lasts: Duration,
}

/// When it happened, and what is wanted by then.
pub(crate) struct Happened {
    /// Just before the fault.
    pub(crate) at: Instant,
    /// When somebody was there again to be asked, where all were gone.
    pub(crate) resumed: Option<Instant>,
    /// What an operator asked for.
    pub(crate) wanted: Option<Wanted>,
}

/// Where the probed addresses should be in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// At this node.
    At(NodeName),
    /// At any other node.
    Elsewhere(NodeName),
}

impl Happened {
    fn at(at: Instant) -> Self {
        Self { at, resumed: None, wanted: None }
    }
}

impl Script<'_> {
    /// What comes before the instant from which on the client is judged.
    pub(crate) fn prepare(&self, fleet: &mut Fleet<'_>, rng: &mut StdRng) -> Result<()> {
        let victim = self.victim;
        match self.scenario {
            Scenario::KillThenCrash => {
                fleet.lab.kill(victim)?;
                thread::sleep(before_crash(rng));
            }
            Scenario::TermThenCrash => {
                fleet.lab.term(victim)?;
                thread::sleep(before_crash(rng));
            }
            Scenario::Heal => {
                fleet.lab.partition([victim])?;
                thread::sleep(Duration::from_millis(rng.random_range(CUT_MILLIS)));
            }
            Scenario::Undrain => {
                fleet.ask(Wish::Drain(victim))?;
                thread::sleep(HANDED_OVER_WITHIN);
            }
            Scenario::UplinkDown => {
                fleet.lab.uplink_down()?;
                let down = now();
                thread::sleep(self.lasts / 10);
                fleet.lab.crash(victim)?;
                thread::sleep(self.lasts.saturating_sub(now() - down));
            }
            Scenario::Rest
            | Scenario::Crash
            | Scenario::LinkDown
            | Scenario::LinkFlap
            | Scenario::Kill
            | Scenario::Term
            | Scenario::Freeze
            | Scenario::Rolling
            | Scenario::TermAll
            | Scenario::Partition
            | Scenario::Drain
            | Scenario::Move
            | Scenario::Conflict => {}
        }
        Ok(())
    }

    /// Lets it happen. What belongs to it, such as the restart of a killed speaker, is over when this returns.
    pub(crate) fn inject(&self, fleet: &mut Fleet<'_>, rng: &mut StdRng) -> Result<Happened> {
        let victim = self.victim;
        Ok(match self.scenario {
            Scenario::Rest => {
                let at = now();
                thread::sleep(self.lasts);
                Happened::at(at)
            }
            Scenario::Crash | Scenario::KillThenCrash | Scenario::TermThenCrash => {
                Happened::at(fleet.lab.crash(victim)?)
            }
            Scenario::LinkDown => Happened::at(fleet.lab.link_down(victim)?),
            Scenario::LinkFlap => Happened::at(flap(&mut fleet.lab, victim)?),
            Scenario::Kill => {
                let at = fleet.lab.kill(victim)?;
                thread::sleep(GONE);
                fleet.restart_speaker(victim)?;
                Happened::at(at)
            }
            Scenario::Term => {
                let at = fleet.lab.term(victim)?;
                thread::sleep(GONE);
                fleet.restart_speaker(victim)?;
                Happened::at(at)
            }
            Scenario::Freeze => {
                let at = fleet.lab.freeze(victim)?;
                thread::sleep(GONE);
                fleet.lab.thaw(victim)?;
                Happened::at(at)
            }
            Scenario::Rolling => {
                let at = now();
                for node in fleet.nodes() {
                    fleet.lab.term(&node)?;
                    thread::sleep(PULLS);
                    fleet.restart_speaker(&node)?;
                    fleet.wait_until_ready(&node)?;
                }
                Happened::at(at)
            }
            Scenario::TermAll => {
                let at = now();
                for node in fleet.nodes() {
                    fleet.lab.term(&node)?;
                }
                thread::sleep(self.lasts.saturating_sub(now() - at));
                let mut resumed = None;
                for node in fleet.nodes() {
                    fleet.restart_speaker(&node)?;
                    resumed = resumed.or_else(|| Some(now()));
                }
                for node in fleet.nodes() {
                    fleet.wait_until_ready(&node)?;
                }
                Happened { at, resumed, wanted: None }
            }
            Scenario::Partition => Happened::at(fleet.lab.partition([victim])?),
            Scenario::Heal => Happened::at(fleet.lab.heal()?),
            Scenario::Drain => {
                let at = fleet.ask(Wish::Drain(victim))?;
                Happened { at, resumed: None, wanted: Some(Wanted::Elsewhere(victim.clone())) }
            }
            Scenario::Undrain => {
                let at = fleet.ask(Wish::Nothing)?;
                Happened { at, resumed: None, wanted: Some(Wanted::At(victim.clone())) }
            }
            Scenario::Move => {
                let others: Vec<NodeName> = fleet.nodes().into_iter().filter(|node| node != victim).collect();
                let target = others.choose(rng).context("a lab has two nodes")?;
                let at = fleet.ask(Wish::Move(target))?;
                Happened { at, resumed: None, wanted: Some(Wanted::At(target.clone())) }
            }
            Scenario::UplinkDown => Happened::at(fleet.lab.uplink_up()?),
            Scenario::Conflict => {
                let at = now();
                let _stranger = fleet.lab.stranger(self.probed, BETWEEN_CLAIMS)?;
                thread::sleep(self.lasts);
                Happened::at(at)
            }
        })
    }
}

impl Scenario {
    /// Makes the lab whole again.
    pub(crate) fn undo(self, fleet: &mut Fleet<'_>, victim: &NodeName) -> Result<()> {
        match self {
            Self::Rest
            | Self::Kill
            | Self::Term
            | Self::Freeze
            | Self::Rolling
            | Self::TermAll
            | Self::Heal
            | Self::Undrain => {}
            // Only then is the node itself again.
            Self::LinkFlap => thread::sleep(BELIEVED_WITHIN),
            // The owner is to be free to defend itself in the next trial.
            Self::Conflict => thread::sleep(DEFEND_INTERVAL),
            Self::Crash | Self::KillThenCrash | Self::TermThenCrash | Self::UplinkDown => {
                fleet.lab.reboot(victim)?;
                fleet.start_node(victim)?;
            }
            Self::LinkDown => {
                fleet.lab.link_up(victim)?;
            }
            Self::Partition => {
                fleet.lab.heal()?;
            }
            Self::Drain | Self::Move => {
                fleet.ask(Wish::Nothing)?;
                thread::sleep(HANDED_OVER_WITHIN);
            }
        }
        Ok(())
    }
}

fn flap(lab: &mut Lab<'_>, node: &NodeName) -> Result<Instant, LabError> {
    let at = now();
    for _ in 0..FLAPS {
        lab.link_down(node)?;
        thread::sleep(FLAP);
        lab.link_up(node)?;
        thread::sleep(FLAP);
    }
    Ok(at)
}

/// Before the speaker is back, and before its restart grace is over.
fn before_crash(rng: &mut StdRng) -> Duration {
    Duration::from_millis(rng.random_range(200..=3000))
}

/// How long a speaker is gone; chosen: a container restarts in about that time.
const GONE: Duration = Duration::from_secs(2);
/// Between the end of one speaker of a roll-out and its start; chosen: as [`GONE`], but three of them.
const PULLS: Duration = Duration::from_secs(1);
/// Long enough for others to take over and announce; the seed decides.
const CUT_MILLIS: std::ops::RangeInclusive<u64> = 1000..=1500;
/// Files are read again within a second; chosen with room for a machine under load.
const HANDED_OVER_WITHIN: Duration = Duration::from_millis(2500);
const BETWEEN_CLAIMS: Duration = Duration::from_secs(1);
/// Five losses and returns of the carrier within two seconds.
const FLAPS: u32 = 5;
const FLAP: Duration = Duration::from_millis(200);
/// After the fifth loss in a row a carrier is believed 8 s later; chosen with room for a machine under load.
const BELIEVED_WITHIN: Duration = Duration::from_secs(10);
