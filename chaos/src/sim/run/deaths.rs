//! Hosts die.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{NO_MOVE_WHILE_THE_HOST_LIVES, Run, SETTLING, SOMEBODY_STANDS_IN};
use crate::sim::run::speakers::STAND_IN_WITHIN;

impl Run {
    /// The victim dies.
    pub(super) fn crash(&mut self) {
        self.die(&BTreeSet::from([self.victim]));
    }

    /// The victim and some others die at the same moment.
    pub(super) fn crash_many(&mut self) {
        let mut dead = vec![self.victim];
        while dead.len() < self.config.dead() {
            let next = self.another(&dead);
            dead.push(next);
        }
        self.die(&dead.into_iter().collect());
    }

    /// The speaker of the victim is killed; some time later its host dies.
    pub(super) fn kill_then_crash(&mut self) {
        self.world.kill(self.victim);
        let later = self.log_between(AFTER_THE_SPEAKER);
        self.world.advance(later);
        self.crash();
    }

    /// The victim reboots: its speaker is told to end, then the host dies.
    pub(super) fn term_then_crash(&mut self) {
        self.world.terminate(self.victim);
        let later = self.log_between(AFTER_THE_SPEAKER);
        self.world.advance(later);
        self.crash();
    }

    /// Who stands in for the killed speaker of the victim dies: somebody else does so then, and the victim keeps its
    /// addresses.
    pub(super) fn stand_in_crash(&mut self) {
        let Some(stand_in) = self.wait_for_stand_in() else { return };
        self.world.crash(stand_in);
        self.wait_until_known(&self.all(), &BTreeSet::from([stand_in]));
        let (ips, victim) = (self.ips_of(self.victim), self.victim);
        let again = self.world.wait(STAND_IN_WITHIN, |world| {
            ips.iter().all(|ip| world.stand_in(*ip, victim).is_some_and(|by| by != stand_in))
        });
        if self.world.hosts().iter().filter(|host| host.runs()).count() > 1 && again.is_none() {
            let detail = format!("nobody does after the death of {}", self.world.name(stand_in));
            self.found(SOMEBODY_STANDS_IN, detail);
        }
        self.world.advance(SETTLING);
        self.world.start(self.victim);
        self.recover();
        self.judge_wire();
        self.judge_kept();
    }

    /// The victim owns what it owned.
    pub(super) fn judge_kept(&mut self) {
        for ip in self.ips_of(self.victim) {
            let owner = self.world.owner(ip);
            if owner != Some(self.victim) {
                let detail = format!(
                    "{ip} of {} is answered by {}",
                    self.world.name(self.victim),
                    self.world.describe_answers(ip)
                );
                self.found(NO_MOVE_WHILE_THE_HOST_LIVES, detail);
            }
        }
    }

    fn die(&mut self, dead: &BTreeSet<usize>) {
        self.measure(dead);
        for host in dead {
            self.world.crash(*host);
        }
        self.wait_until_known(&self.all(), dead);
        self.world.advance(SETTLING);
        self.take_outage();
        self.judge_wire();
    }
}

/// Chosen: at once, and well within the restart grace.
const AFTER_THE_SPEAKER: std::ops::Range<Duration> = Duration::from_millis(50)..Duration::from_secs(30);
