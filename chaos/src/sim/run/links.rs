//! The network breaks, hosts and speakers live.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt as _;

use super::{DEATH_IS_KNOWN, LONGEST_DETECTION, ONE_OWNER, Run, SETTLING};
use crate::sim::host::Gateways;
use crate::sim::network::Bursts;

impl Run {
    /// Nothing happens; a death is false.
    pub(super) fn rest(&mut self) {
        let end = self.world.clock().elapsed() + self.config.rest;
        while self.world.clock().elapsed() < end && self.world.judge.false_downs.is_empty() {
            let left = end.saturating_sub(self.world.clock().elapsed());
            self.world.advance(left.min(REST_STEP));
        }
        self.world.network.mend();
        self.world.advance(SETTLING);
        self.judge_wire();
    }

    /// Losses come in bursts at every port.
    pub(super) fn burst_loss(&mut self) {
        self.world.network.burst(BURSTS);
        self.rest();
    }

    /// One host loses much in one direction, and so does a third of all ways.
    pub(super) fn asymmetric_loss(&mut self) {
        let share = self.rng.random_range(0.1..0.3);
        let (received, sent) = if self.one_of(2) == 0 { (share, 0.0) } else { (0.0, share) };
        self.world.network.lose_at(self.victim, received, sent);
        for from in self.all() {
            for to in self.all() {
                if from != to && self.one_of(3) == 0 {
                    let share = self.rng.random_range(0.02..0.2);
                    self.world.network.lose_between(from, to, share);
                }
            }
        }
        self.rest();
    }

    /// The victim is cut off from the other hosts and the gateway.
    pub(super) fn partition(&mut self) {
        let lasts = self.lasts(Duration::from_secs(2)..Duration::from_secs(10));
        self.divide(&BTreeSet::from([self.victim]), lasts, Near::Others);
    }

    /// The victim is on one side, all others on the other; the gateway is on either.
    pub(super) fn one_versus_rest(&mut self) {
        let lasts = self.lasts(PARTITION);
        let near = if self.one_of(2) == 0 { Near::These } else { Near::Others };
        self.divide(&BTreeSet::from([self.victim]), lasts, near);
    }

    /// Two halves.
    pub(super) fn halves(&mut self) {
        let lasts = self.lasts(PARTITION);
        let mut half = vec![self.victim];
        while half.len() < self.config.nodes / 2 {
            let next = self.another(&half);
            half.push(next);
        }
        let near = if self.one_of(2) == 0 { Near::These } else { Near::Others };
        self.divide(&half.into_iter().collect(), lasts, near);
    }

    /// The victim and another host do not hear each other.
    pub(super) fn bridge_partition(&mut self) {
        let other = self.another(&[self.victim]);
        self.world.network.cut(&BTreeSet::from([self.victim]), &BTreeSet::from([other]));
        let lasts = self.lasts(PARTITION);
        self.world.advance(lasts);
        self.world.network.mend();
        self.recover();
        self.judge_wire();
        self.judge_kept();
    }

    /// Nobody hears anybody.
    pub(super) fn segment_blackout(&mut self) {
        self.world.network.black_out();
        let lasts = self.lasts(Duration::from_millis(300)..Duration::from_secs(30));
        if self.config.gateways == Gateways::Absent {
            // Who knows no station besides the members cannot tell this from their death.
            self.world.judge.excuse(self.all());
        }
        self.world.advance(lasts);
        self.world.network.mend();
        self.recover();
        self.judge_wire();
        if self.config.gateways == Gateways::Present {
            self.judge_kept();
        }
    }

    /// A firewall drops the gossip port of the victim, or of all.
    pub(super) fn blocked_7946(&mut self) {
        let blocked = if self.one_of(2) == 0 { BTreeSet::from([self.victim]) } else { self.all() };
        for host in &blocked {
            self.world.network.filter(*host);
        }
        let lasts = self.config.lasts.unwrap_or(Duration::from_secs(600));
        self.world.advance(lasts);
        self.world.network.mend();
        self.recover();
        self.judge_wire();
        self.judge_kept();
    }

    /// The link of the victim is dead for less than a death takes, or for more.
    pub(super) fn bond_failover(&mut self) {
        let short = self.one_of(2) == 0;
        let drawn = if short {
            self.between(Duration::from_millis(10)..HARMLESS_FAILOVER)
        } else {
            self.between(Duration::from_millis(150)..Duration::from_millis(800))
        };
        let lasts = self.config.lasts.unwrap_or(drawn);
        let harmless = lasts <= HARMLESS_FAILOVER;
        if !harmless {
            self.world.judge.excuse([self.victim]);
        }
        self.measure(&BTreeSet::from([self.victim]));
        self.world.network.unplug(self.victim);
        self.world.advance(lasts);
        self.world.network.mend();
        self.recover();
        self.take_outage();
        self.judge_wire();
        if harmless {
            self.judge_kept();
        }
    }

    /// Three racks: a host dies, or the victim's rack is cut off from the others.
    pub(super) fn racks(&mut self) {
        if self.one_of(2) == 0 {
            return self.crash();
        }
        let rack = self.victim % RACKS;
        let here: BTreeSet<usize> =
            self.world.stations().into_iter().filter(|station| self.rack_of(*station) == rack).collect();
        let there: BTreeSet<usize> = self.world.stations().difference(&here).copied().collect();
        let lasts = self.lasts(Duration::from_secs(1)..Duration::from_secs(60));
        // The addresses of a rack belong to its hosts, who hear each other: others are dead to them, nothing moves.
        let before = self.world.judge.owners().clone();
        self.world.judge.excuse(self.all());
        self.world.network.cut(&here, &there);
        self.world.advance(lasts);
        self.world.network.mend();
        self.recover();
        self.judge_wire();
        for (ip, owner) in before {
            if self.world.owner(ip) != Some(owner) {
                let detail = format!("{ip} left {} because of another rack", self.world.name(owner));
                self.found(ONE_OWNER, detail);
            }
        }
    }

    fn rack_of(&self, station: usize) -> usize {
        (0..RACKS).find(|rack| self.world.gateway(*rack) == station).unwrap_or(station % RACKS)
    }

    /// Cuts `these` off from all others for a while.
    fn divide(&mut self, these: &BTreeSet<usize>, lasts: Duration, near: Near) {
        let others: BTreeSet<usize> = self.all().difference(these).copied().collect();
        let gateway = self.world.gateway(0);
        let with_gateway = |side: &BTreeSet<usize>| side.iter().copied().chain([gateway]).collect();
        let (a, b) = match near {
            Near::These => (with_gateway(these), others.clone()),
            Near::Others => (these.clone(), with_gateway(&others)),
        };
        self.world.judge.excuse(self.all());
        self.world.network.cut(&a, &b);
        // Who is alone can claim only where the gateway answers it; who has company knows by votes.
        let (side, lost) = match near {
            Near::These => (these, &others),
            Near::Others => (&others, these),
        };
        let known = self.world.wait(lasts.min(LONGEST_DETECTION), |world| world.know_dead(side, lost));
        self.outcome.all_know = (known.is_some() || lasts >= LONGEST_DETECTION).then_some(known);
        if known.is_none() && lasts >= LONGEST_DETECTION {
            self.found(
                DEATH_IS_KNOWN,
                format!("the side of the gateway counts the other one {LONGEST_DETECTION:?} later"),
            );
        }
        let left = lasts.saturating_sub(known.unwrap_or_else(|| LONGEST_DETECTION.min(lasts)));
        self.world.advance(left);
        if known.is_some() && left >= SETTLING {
            for ip in self.ips.clone() {
                if self.world.owner_among(ip, |host| side.contains(&host)).is_none() {
                    self.found(ONE_OWNER, format!("{ip} has none on the side of the gateway"));
                }
            }
        }
        self.world.network.mend();
        self.recover();
        self.judge_wire();
    }
}

/// On which side of a partition the gateway is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Near {
    These,
    Others,
}

const RACKS: usize = 3;
/// A bond may be so long without a link without being declared dead.
const HARMLESS_FAILOVER: Duration = Duration::from_millis(140);
/// Up to the ten minutes for which the dead are remembered.
const PARTITION: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(600);
/// Chosen: between two looks.
const REST_STEP: Duration = Duration::from_secs(10);
/// Chosen: bad times of 15 ms on average at every port, twice a second, in which three of four packets are lost. None is
/// longer than 100 ms: that would be a bond failover.
const BURSTS: Bursts = Bursts {
    good: Duration::from_millis(500),
    bad: Duration::from_millis(15),
    longest: Duration::from_millis(100),
    loss: 0.75,
};
