//! Nodes come, and come again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use garpike_membership::{Key, SecretKey};
use rand::RngExt as _;

use super::{CONVERGES, Config, Outcome, Run, SETTLING, SHAPE, Shape};
use crate::sim::world::World;

impl Run {
    /// All hosts boot at nearly the same time.
    pub(super) fn boot_all(config: Config, seed: u64) -> Outcome {
        let mut run = Self::begin(config, seed, SHAPE, Some(Duration::from_secs(5)));
        run.wait_for_all();
        if run.settle_in() {
            run.judge_wire();
        }
        run.end()
    }

    /// One node joins.
    pub(super) fn join(config: Config, seed: u64) -> Outcome {
        let mut run = Self::begin(config, seed, Shape { late: 1, ..SHAPE }, None);
        if run.settle_in() {
            run.let_join(1, Duration::from_millis(1));
        }
        run.end()
    }

    /// Half of the nodes join at nearly the same time.
    pub(super) fn join_storm(config: Config, seed: u64) -> Outcome {
        let late = (config.nodes / 2).max(1);
        let mut run = Self::begin(config, seed, Shape { late, ..SHAPE }, None);
        if run.settle_in() {
            run.let_join(late, Duration::from_secs(1));
        }
        run.end()
    }

    /// The victim dies and boots again and again. What it has lost stays where it is, for it cannot be trusted.
    pub(super) fn flip_flop(&mut self) {
        self.measure(&BTreeSet::from([self.victim]));
        for round in 0..ROUNDS {
            self.world.crash(self.victim);
            self.wait_until_known(&self.all(), &BTreeSet::from([self.victim]));
            self.world.advance(SETTLING);
            if round == 0 {
                self.take_outage();
                let owners = self.world.owners();
                self.world.judge.set_owners(owners);
            }
            self.world.advance(FLIP - SETTLING);
            self.world.start(self.victim);
            let began = self.world.clock().elapsed();
            self.recover();
            let spent = self.world.clock().elapsed().saturating_sub(began);
            self.world.advance(FLIP.saturating_sub(spent));
        }
        self.judge_wire();
    }

    /// The wall clocks of some hosts jump, then the speaker of the victim restarts with its clock set back.
    pub(super) fn clock_jump(&mut self) {
        for host in self.all() {
            let offset = self.rng.random_range(-DAY_MILLIS..DAY_MILLIS);
            self.world.set_wall_clock(host, offset);
            let soon = self.between(Duration::ZERO..Duration::from_millis(300));
            self.world.advance(soon);
        }
        for offset in [-DAY_MILLIS, DAY_MILLIS, -DAY_MILLIS] {
            self.world.set_wall_clock(self.victim, offset);
            self.world.kill(self.victim);
            let gone = self.lasts(Duration::from_millis(500)..Duration::from_secs(5));
            self.world.advance(gone);
            self.world.start(self.victim);
            self.recover();
        }
        self.judge_wire();
        self.judge_kept();
    }

    /// Every node gets a new key instead of the old one, each at another time.
    pub(super) fn key_rotation(&mut self) {
        let mut times = BTreeMap::new();
        for host in self.all() {
            times.insert(self.between(Duration::ZERO..SECRET_SPREAD), host);
        }
        let (begin, secret) =
            (self.world.clock().elapsed(), SecretKey::parse(b"another secret").expect("is not empty"));
        for (after, host) in times {
            let passed = self.world.clock().elapsed().saturating_sub(begin);
            self.world.advance(after.saturating_sub(passed));
            self.world.set_key(host, Key::derive(&secret, "simulator"));
        }
        self.recover();
        self.judge_wire();
        self.judge_kept();
    }

    fn let_join(&mut self, count: usize, within: Duration) {
        let first = self.world.hosts().len();
        let joining = first..first + count;
        self.world.judge.welcome(joining.clone());
        self.world.boot(count, within);
        let nodes: Vec<usize> = joining.collect();
        self.outcome.join = Some(self.world.wait(LONGEST_JOIN, |world| world.all_know_alive(&nodes)));
        self.recover();
        self.judge_wire();
    }

    /// From the start of the last one until all know all.
    fn wait_for_all(&mut self) {
        let joined = self.world.wait(LONGEST_JOIN, World::is_whole);
        self.outcome.join = Some(joined);
        if joined.is_none() {
            self.found(
                CONVERGES,
                format!("no full membership {LONGEST_JOIN:?} after the last start: {}", self.doubts()),
            );
        }
    }
}

/// Chosen: more rounds would outlast the first hold-down in any case.
const ROUNDS: usize = 3;
/// The operator's flip-flop.
const FLIP: Duration = Duration::from_secs(20);
/// Kubelets refresh a Secret up to so far apart.
const SECRET_SPREAD: Duration = Duration::from_secs(90);
const DAY_MILLIS: i64 = 86_400_000;
/// Chosen: a bound far above the target, which the distribution shows.
const LONGEST_JOIN: Duration = Duration::from_secs(20);
