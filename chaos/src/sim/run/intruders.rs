//! Others speak who must not be heard: a node under a name that is taken, and an attacker on the wire.

use std::time::Duration;

use rand::RngExt as _;

use super::{ONE_OWNER, Run};
use crate::sim::world::Recorded;

impl Run {
    /// Another node comes up under the victim's name: one of the two is counted, the other says so and keeps quiet.
    pub(super) fn duplicate_name(&mut self) {
        let name = self.world.name(self.victim);
        let twin = self.world.boot_named(name.clone());
        self.world.judge.welcome([twin]);
        self.world.advance(Duration::from_secs(10));
        for ip in self.ips_of(self.victim) {
            let owner = self.world.owner(ip);
            if owner != Some(self.victim) && owner != Some(twin) {
                let detail = format!("{ip} is answered by {}", self.world.describe_answers(ip));
                self.found(ONE_OWNER, detail);
            }
        }
        let noticed: u64 = [self.victim, twin]
            .iter()
            .filter_map(|host| self.world.hosts().get(*host))
            .map(|host| host.process.name_conflicts)
            .sum();
        if noticed == 0 {
            self.found(CONFLICT_IS_NAMED, format!("neither node named {name} says so"));
        }
        self.world.crash(twin);
        self.world.judge.excuse([self.victim]);
        self.recover();
        self.judge_wire();
    }

    /// An attacker records, and sends what it recorded: as it was, corrupted, to others, to later processes; and garbage.
    pub(super) fn forged(&mut self) {
        self.world.record();
        self.world.advance(Duration::from_secs(3));
        let lasts = self.lasts(Duration::from_secs(5)..Duration::from_secs(20));
        let end = self.world.clock().elapsed() + lasts;
        let mut restarted = false;
        while self.world.clock().elapsed() < end {
            self.attack();
            self.world.advance(ATTACK_EVERY);
            // A new process has seen no sequence numbers: recorded datagrams are of no use against it either.
            if !restarted && end.saturating_sub(self.world.clock().elapsed()) < lasts / 2 {
                restarted = true;
                self.world.kill(self.victim);
                self.world.start(self.victim);
            }
        }
        self.recover();
        self.judge_wire();
        self.judge_kept();
    }

    fn attack(&mut self) {
        let recorded = self.world.recorded();
        let at = self.rng.random_range(0..recorded.len().max(1));
        let Some(mut forged) = recorded.get(at).cloned() else { return };
        let hosts = self.world.hosts().len();
        match self.rng.random_range(0..4_u8) {
            0 => {}
            1 => {
                let at = self.rng.random_range(0..forged.bytes.len().max(1));
                if let Some(byte) = forged.bytes.get_mut(at) {
                    *byte ^= 1 << self.rng.random_range(0..8_u8);
                }
            }
            2 => forged.to = self.rng.random_range(0..hosts),
            _ => forged = Recorded { bytes: self.garbage(), ..forged },
        }
        self.world.forge(forged);
    }

    fn garbage(&mut self) -> Vec<u8> {
        let len = self.rng.random_range(0..1500);
        let mut bytes: Vec<u8> = (0..len).map(|_| self.rng.random()).collect();
        // Half of it begins as a sealed datagram does.
        if self.one_of(2) == 0
            && let Some(first) = bytes.first_mut()
        {
            *first = 0x47;
        }
        bytes
    }
}

const CONFLICT_IS_NAMED: &str = "two nodes under one name are reported";
/// Chosen: 500 forged datagrams in a second.
const ATTACK_EVERY: Duration = Duration::from_millis(2);
