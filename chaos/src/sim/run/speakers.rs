//! Speakers are killed, stopped, held up or restarted while their hosts live: nothing moves.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use garpike_election::NodeState;

use super::{Run, SETTLING, SOMEBODY_STANDS_IN};
use crate::sim::host::PausedClock;

impl Run {
    /// The speaker of the victim is killed and comes back.
    pub(super) fn speaker_kill(&mut self) {
        self.measure(&BTreeSet::from([self.victim]));
        self.world.kill(self.victim);
        let gone = self.lasts(GONE);
        self.stood_in(gone);
        self.world.start(self.victim);
        self.recover();
        self.take_outage();
        self.judge_wire();
        self.judge_kept();
    }

    /// The speaker of the victim is stopped and goes on.
    pub(super) fn freeze(&mut self) {
        let stopped = self.lasts(Duration::from_secs(1)..Duration::from_secs(50));
        self.hold_up(stopped);
    }

    /// The speaker of the victim is held up.
    pub(super) fn stall(&mut self) {
        let drawn = match self.one_of(3) {
            0 => self.between(Duration::from_millis(50)..Duration::from_millis(200)),
            1 => Duration::from_secs(1),
            _ => Duration::from_secs(30),
        };
        self.hold_up(self.config.lasts.unwrap_or(drawn));
    }

    /// The machine of the victim is paused. Nobody can tell a long pause from a death, but a short one is none.
    pub(super) fn vm_pause(&mut self) {
        let drawn = match self.one_of(3) {
            0 => self.between(Duration::from_millis(20)..HARMLESS_PAUSE),
            1 => self.between(HARMLESS_PAUSE..Duration::from_secs(1)),
            _ => self.log_between(Duration::from_secs(1)..Duration::from_secs(30)),
        };
        let paused = self.config.lasts.unwrap_or(drawn);
        let clock = if self.one_of(2) == 0 { PausedClock::GoesOn } else { PausedClock::StandsStill };
        if paused >= HARMLESS_PAUSE {
            self.world.judge.excuse([self.victim]);
        }
        self.world.listen_for(self.victim);
        self.world.advance(REGULAR);
        let began = self.world.now();
        self.world.pause(self.victim);
        self.world.advance(paused);
        let recently = began.checked_sub(REGULAR).unwrap_or(began);
        let last_heard = self.world.heard_since(recently).into_iter().min();
        self.world.resume(self.victim, clock);
        self.recover();
        self.judge_wire();
        if let (Some(verdict), Some(last_heard)) = (self.world.judge.vanished_at(self.victim), last_heard)
            && verdict.saturating_duration_since(last_heard) < NO_VERDICT_BEFORE
            && self.config.profile == garpike_membership::Profile::Default
        {
            let detail = format!(
                "{} was declared dead {:?} after its last heartbeat",
                self.world.name(self.victim),
                verdict.saturating_duration_since(last_heard)
            );
            self.found(NO_HASTY_VERDICT, detail);
        }
    }

    /// All speakers are told to end, and come back after some seconds.
    pub(super) fn term_all(&mut self) {
        for host in self.all() {
            let soon = self.between(Duration::ZERO..Duration::from_millis(20));
            self.world.advance(soon);
            self.world.terminate(host);
        }
        self.world.advance(ENDED_WITHIN);
        let gone = self.lasts(Duration::from_millis(500)..Duration::from_secs(20));
        self.world.advance(gone);
        let hosts = u32::try_from(self.all().len()).unwrap_or(u32::MAX);
        for host in self.all() {
            let soon = self.between(Duration::ZERO..COME_BACK / hosts);
            self.world.advance(soon);
            self.world.start(host);
        }
        self.recover();
        self.judge_wire();
        self.judge_kept();
    }

    /// The speakers are restarted one after the other, as by an upgrade.
    pub(super) fn rolling_restart(&mut self) {
        for host in self.all().into_iter().take(ROLLED_MAX) {
            self.world.terminate(host);
            self.world.advance(ENDED_WITHIN);
            let gone = self.lasts(Duration::from_millis(500)..Duration::from_secs(3));
            self.world.advance(gone);
            self.world.start(host);
            self.recover();
            let ready = self.between(Duration::ZERO..Duration::from_secs(2));
            self.world.advance(ready);
        }
        self.judge_wire();
        self.judge_kept();
    }

    /// Who stands in for the killed speaker of the victim is drained: its own addresses move, those of the victim do not.
    pub(super) fn stand_in_drain(&mut self) {
        let Some(stand_in) = self.wait_for_stand_in() else { return };
        self.world.judge.excuse([stand_in]);
        self.world.set_state(stand_in, NodeState::Draining);
        self.world.advance(SETTLING);
        let victim = self.victim;
        for ip in self.ips_of(victim) {
            if self.world.stand_in(ip, victim).is_none() {
                self.found(SOMEBODY_STANDS_IN, format!("nobody does for {ip} after the drain"));
            }
        }
        self.world.start(self.victim);
        self.recover();
        self.judge_wire();
        self.judge_kept();
    }

    /// Kills the speaker of the victim, and waits for somebody to stand in for it.
    pub(super) fn wait_for_stand_in(&mut self) -> Option<usize> {
        self.world.kill(self.victim);
        let (ips, victim) = (self.ips_of(self.victim), self.victim);
        self.world.wait(STAND_IN_WITHIN, |world| ips.iter().all(|ip| world.stand_in(*ip, victim).is_some()));
        let stand_in = ips.first().and_then(|ip| self.world.stand_in(*ip, victim));
        if stand_in.is_none() {
            self.found(
                SOMEBODY_STANDS_IN,
                format!("nobody does for {} in {STAND_IN_WITHIN:?}", self.world.name(victim)),
            );
        }
        stand_in
    }

    /// The speaker of the victim does nothing for a while.
    fn hold_up(&mut self, stopped: Duration) {
        self.measure(&BTreeSet::from([self.victim]));
        self.world.freeze(self.victim);
        self.stood_in(stopped);
        self.world.thaw(self.victim);
        self.recover();
        self.take_outage();
        self.judge_wire();
        self.judge_kept();
    }

    /// Lets time pass in which somebody stands in for the victim, unless it is too short for that.
    fn stood_in(&mut self, gone: Duration) {
        let early = gone.min(STAND_IN_WITHIN);
        self.world.advance(early);
        if gone > STAND_IN_WITHIN {
            for ip in self.ips_of(self.victim) {
                if self.world.stand_in(ip, self.victim).is_none() {
                    let detail =
                        format!("nobody does for {ip} of {} after {STAND_IN_WITHIN:?}", self.world.name(self.victim));
                    self.found(SOMEBODY_STANDS_IN, detail);
                }
            }
        }
        self.world.advance(gone - early);
    }
}

const NO_HASTY_VERDICT: &str = "no verdict before 160 ms after the last heartbeat";

/// Chosen: several times what the votes take, for a client that has lost its neighbour entry must not wait long.
pub(super) const STAND_IN_WITHIN: Duration = Duration::from_secs(1);
/// Chosen: within the restart grace, with room for the start.
const GONE: Range<Duration> = Duration::from_millis(500)..Duration::from_secs(50);
/// What a pause of a machine may last at most without being a death: 160 ms from a heartbeat that is 25 ms old.
const HARMLESS_PAUSE: Duration = Duration::from_millis(135);
/// The profile `default` promises it.
const NO_VERDICT_BEFORE: Duration = Duration::from_millis(160);
/// Chosen: who heartbeats is heard within it, even at 30 % loss.
const REGULAR: Duration = Duration::from_millis(500);
/// A speaker waits 3 s for its peers: who comes later finds that others have taken what nobody served.
const COME_BACK: Duration = Duration::from_millis(2500);
/// The hand-over, five farewells and a margin.
pub(super) const ENDED_WITHIN: Duration = Duration::from_secs(1);
/// Chosen: more of them show nothing new.
pub(super) const ROLLED_MAX: usize = 10;
