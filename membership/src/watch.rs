//! One watcher's opinion of one node: from silence to a vote.
//!
//! ```text
//!             overdue, or hurried               no answer from speaker: the vote stands
//! Listening ───────────────────────► Verifying ──────────────────────────────────────────► Accusing
//!     ▲  a sign of the speaker           │ ▲                                                   │
//!     └──────────────────────────────────┴─┼───────────────────────────────────────────────────┘
//!                  no answer from the host │
//! Checking ────────────────────────────────┘      (of a node whose speaker is known to be gone: its host is looked at;
//!     ▲  a sign of the host                        what it answers ends Verifying and Accusing)
//! ```
//!
//! A window of pings begins and ends in the same light: while this node hears no member, silence proves nothing, and what
//! it pinged in the dark does not count. All states and inputs are in `docs/membership.md`, and a test compares them.

pub(crate) mod gaps;
pub(crate) mod ring;
#[cfg(test)]
mod tests;
pub(crate) mod timing;
pub(crate) mod votes;

use std::time::{Duration, Instant};

use garpike_election::Presence;

use self::gaps::Gaps;
use self::timing::Timing;
use self::votes::Charge;
use crate::WatchStatus;

/// What this node hears of the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Light {
    /// Some member is heard.
    Lit,
    /// None is.
    Dark(Permission),
}

/// Whether a node that hears no member may believe that the others are dead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Permission {
    /// A station on its wire has answered since, or there is none that could.
    Given,
    /// It may as well be cut off itself.
    Withheld,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    /// Ping the speaker on all ways and look at its host.
    Ping,
    /// Look at its host.
    Look,
    /// Tell the other watchers, and ping all the same.
    Accuse(Charge),
}

/// What became of a vote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Vote {
    /// There was none, or it stands.
    AsBefore,
    /// It was withdrawn: the subject gave a sign.
    Retracted,
}

/// The watch over one node.
#[derive(Debug)]
pub(crate) struct Watch {
    presence: Presence,
    /// The last sign of the speaker, or when patience with it began.
    heard: Instant,
    gaps: Gaps,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Listening,
    Checking { next: Instant, asked: Option<Instant> },
    Verifying(Window),
    Accusing(Accusation),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Window {
    began_in: Light,
    sent: u32,
    next: Instant,
    host: Host,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Host {
    Silent,
    Answered,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Accusation {
    charge: Charge,
    since: Instant,
    next: Instant,
    /// The last sign of the host.
    host: Option<Instant>,
}

impl Watch {
    /// A watch that gives its subject all the time that a living one needs.
    pub(crate) fn begin(presence: Presence, now: Instant) -> Self {
        let phase = match presence {
            Presence::Here => Phase::Listening,
            Presence::Away => Phase::Checking { next: now, asked: None },
        };
        Self { presence, heard: now, gaps: Gaps::default(), phase }
    }

    /// A watch over a node that others have found silent.
    pub(crate) fn begin_at_once(presence: Presence, light: Light, now: Instant) -> Self {
        Self { phase: Phase::Verifying(Window::new(light, now)), ..Self::begin(presence, now) }
    }

    /// Something authentic came from the speaker.
    pub(crate) fn speaker_heard(&mut self, timing: &Timing, now: Instant) -> Vote {
        self.heard = now;
        self.calm(timing, now)
    }

    /// Its heartbeat with this number came.
    pub(crate) fn heartbeat(&mut self, number: u32, now: Instant) {
        self.gaps.heartbeat(number, now);
    }

    /// Its host answered.
    pub(crate) fn host_answered(&mut self, timing: &Timing, now: Instant) -> Vote {
        match (self.presence, &mut self.phase) {
            (Presence::Away, _) => return self.calm(timing, now),
            (Presence::Here, Phase::Verifying(window)) => window.host = Host::Answered,
            (Presence::Here, Phase::Accusing(accusation)) => {
                accusation.host = Some(now);
                if accusation.charge == Charge::HostDead {
                    accusation.charge = Charge::SpeakerGone;
                    accusation.next = now;
                }
            }
            (Presence::Here, Phase::Listening | Phase::Checking { .. }) => {}
        }
        Vote::AsBefore
    }

    /// Another watcher has voted: a silence that is only beginning is looked into at once.
    pub(crate) fn hurry(&mut self, light: Light, timing: &Timing, now: Instant) {
        match self.phase {
            Phase::Listening if now.saturating_duration_since(self.heard) < timing.suspicious => {}
            Phase::Listening | Phase::Checking { .. } => self.phase = Phase::Verifying(Window::new(light, now)),
            Phase::Verifying(_) | Phase::Accusing(_) => {}
        }
    }

    /// There is reason to look at once, however lately it was heard.
    pub(crate) fn doubt(&mut self, light: Light, now: Instant) {
        if self.phase == Phase::Listening {
            self.phase = Phase::Verifying(Window::new(light, now));
        }
    }

    /// Another watcher finds the host dead that has answered this one: if that was not just now, this one looks again.
    pub(crate) fn contradict(&mut self, light: Light, timing: &Timing, now: Instant) {
        if let Phase::Accusing(Accusation { charge: Charge::SpeakerGone, host, .. }) = self.phase
            && host.is_none_or(|at| now.saturating_duration_since(at) > timing.ping_every * timing.pings)
        {
            self.phase = Phase::Verifying(Window::new(light, now));
        }
    }

    /// It has come to be known whether the speaker runs.
    pub(crate) fn set_presence(&mut self, presence: Presence, now: Instant) {
        if self.presence != presence {
            *self = Self { gaps: self.gaps, ..Self::begin(presence, now) };
        }
    }

    /// A member is heard again after none was: what was silent meanwhile gets all its time once more.
    pub(crate) fn light_returned(&mut self, timing: &Timing, now: Instant) -> Vote {
        self.heard = now;
        self.calm(timing, now)
    }

    /// A station has answered while no member is heard: from here on, silence counts.
    pub(crate) fn permit(&mut self, now: Instant) {
        if let Phase::Verifying(window) = &mut self.phase
            && window.began_in != Light::Dark(Permission::Given)
        {
            let host = window.host;
            *window = Window { host, ..Window::new(Light::Dark(Permission::Given), now) };
        }
    }

    /// The vote that stands.
    pub(crate) fn charge(&self) -> Option<Charge> {
        match &self.phase {
            Phase::Accusing(accusation) => Some(accusation.charge),
            Phase::Listening | Phase::Checking { .. } | Phase::Verifying(_) => None,
        }
    }

    /// How long the vote has been standing.
    pub(crate) fn accusing_since(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Accusing(accusation) => Some(accusation.since),
            Phase::Listening | Phase::Checking { .. } | Phase::Verifying(_) => None,
        }
    }

    /// The phase, for people.
    pub(crate) fn status(&self) -> WatchStatus {
        match &self.phase {
            Phase::Listening => WatchStatus::Listening,
            Phase::Checking { .. } => WatchStatus::Checking,
            Phase::Verifying(_) => WatchStatus::Verifying,
            Phase::Accusing(Accusation { charge: Charge::SpeakerGone, .. }) => WatchStatus::SpeakerGone,
            Phase::Accusing(Accusation { charge: Charge::HostDead, .. }) => WatchStatus::HostDead,
        }
    }

    /// Whether the subject is suspected in some way.
    pub(crate) fn is_at_work(&self) -> bool {
        match self.phase {
            Phase::Listening | Phase::Checking { .. } => false,
            Phase::Verifying(_) | Phase::Accusing(_) => true,
        }
    }

    /// When [`Self::step`] has something to do.
    pub(crate) fn next(&self, timing: &Timing) -> Instant {
        match &self.phase {
            Phase::Listening => self.heard + self.gaps.budget(timing),
            Phase::Checking { next, .. } => *next,
            Phase::Verifying(window) => window.next,
            Phase::Accusing(accusation) => accusation.next,
        }
    }

    /// Goes on at [`Self::next`]; to be called until nothing is due.
    pub(crate) fn step(&mut self, light: Light, timing: &Timing, now: Instant) -> Option<Act> {
        if self.next(timing) > now {
            return None;
        }
        match &mut self.phase {
            Phase::Listening => self.verify(light, timing, now),
            Phase::Checking { next, asked } => {
                if asked.is_some_and(|at| now.saturating_duration_since(at) >= timing.check_patience) {
                    return self.verify(light, timing, now);
                }
                *asked = Some(now);
                *next = now + timing.check_patience;
                Some(Act::Look)
            }
            Phase::Verifying(window) => {
                if let Some(act) = window.step(timing, now) {
                    return Some(act);
                }
                self.conclude(light, timing, now)
            }
            Phase::Accusing(accusation) => {
                let void = light == Light::Dark(Permission::Withheld) && accusation.charge == Charge::HostDead;
                if void || accusation.is_outdated(timing, now) {
                    return self.verify(light, timing, now);
                }
                accusation.next = now + accusation.repeat_after(timing, now);
                Some(Act::Accuse(accusation.charge))
            }
        }
    }

    /// Begins a window, with its first ping.
    fn verify(&mut self, light: Light, timing: &Timing, now: Instant) -> Option<Act> {
        let mut window = Window::new(light, now);
        let act = window.step(timing, now);
        self.phase = Phase::Verifying(window);
        act
    }

    /// The window is over and the speaker has not answered.
    fn conclude(&mut self, light: Light, timing: &Timing, now: Instant) -> Option<Act> {
        let Phase::Verifying(window) = self.phase else { return None };
        let charge = match (window.host, light) {
            (Host::Answered, _) => Charge::SpeakerGone,
            (Host::Silent, Light::Lit | Light::Dark(Permission::Given)) if window.began_in == light => Charge::HostDead,
            (Host::Silent, Light::Lit | Light::Dark(_)) => return self.verify(light, timing, now),
        };
        let host = (window.host == Host::Answered).then_some(now);
        let accusation = Accusation { charge, since: now, next: now + timing.ping_every, host };
        self.phase = Phase::Accusing(accusation);
        Some(Act::Accuse(charge))
    }

    /// The subject gave the sign that was waited for.
    fn calm(&mut self, timing: &Timing, now: Instant) -> Vote {
        let vote = if self.charge().is_some() { Vote::Retracted } else { Vote::AsBefore };
        self.phase = match (self.presence, self.phase) {
            (Presence::Here, _) => Phase::Listening,
            (Presence::Away, Phase::Checking { next, asked: None }) => Phase::Checking { next, asked: None },
            (Presence::Away, _) => Phase::Checking { next: now + timing.check_every, asked: None },
        };
        vote
    }
}

impl Window {
    fn new(light: Light, now: Instant) -> Self {
        Self { began_in: light, sent: 0, next: now, host: Host::Silent }
    }

    /// The next ping, if there is one left.
    fn step(&mut self, timing: &Timing, now: Instant) -> Option<Act> {
        let (pings, every) = match self.began_in {
            Light::Lit => (timing.pings, timing.ping_every),
            Light::Dark(Permission::Given) => (timing.pings_alone, timing.ping_every),
            Light::Dark(Permission::Withheld) => (timing.pings, timing.ask_stations_every),
        };
        if self.sent >= pings {
            return None;
        }
        self.sent += 1;
        self.next = now + every;
        Some(Act::Ping)
    }
}

impl Accusation {
    /// The host has not been heard for so long that it may be dead as well by now.
    fn is_outdated(&self, timing: &Timing, now: Instant) -> bool {
        let quiet = |at| now.saturating_duration_since(at) > timing.check_every * 3;
        self.charge == Charge::SpeakerGone && self.host.is_none_or(quiet)
    }

    /// Often at first, then seldom: others may have no reason to agree, for as long as a fault lasts.
    fn repeat_after(&self, timing: &Timing, now: Instant) -> Duration {
        if now.saturating_duration_since(self.since) < timing.ping_every * 25 {
            timing.ping_every
        } else {
            timing.check_every * 2
        }
    }
}
