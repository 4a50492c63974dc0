//! What the observed speakers say of a node, put together.
//!
//! A verdict begins when the first of them tells it, and stands until nobody tells it any more or somebody knows a later life of
//! the node: a speaker that is behind cannot bring back an old one.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use garpike_election::NodeName;
use garpike_membership::{Account, Life};

/// What each observed speaker tells at this moment, by its node.
pub(crate) type Accounts = BTreeMap<NodeName, Account>;

/// What is told.
#[derive(Debug, Default)]
pub(super) struct Testimony {
    accounts: BTreeMap<NodeName, Account>,
    /// Who was told to be alive last, in which life, and when.
    alive: BTreeMap<NodeName, (Life, Instant)>,
    verdicts: BTreeMap<NodeName, Verdict>,
}

/// A node is dead, as some of the observed speakers tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    pub(super) life: Life,
    /// When it was told first.
    pub(super) told: Instant,
    /// For how long nothing had been heard of the node by then, as far as anybody knows.
    pub(super) silent: Duration,
    /// Until when this life was told to be alive; `None`: it never was.
    pub(super) alive_until: Option<Instant>,
    /// How many observed speakers tell it, the dead one itself not counted.
    pub(super) speakers: usize,
    /// The most holders that one of them knows of.
    pub(super) holders: u16,
    /// How many speakers there were before.
    pub(super) known: u16,
}

impl Verdict {
    /// Whether it was the node that was cut off, and not those who are observed.
    pub(super) fn is_by_majority(&self) -> bool {
        u32::from(self.holders) * 2 > u32::from(self.known)
    }
}

impl Testimony {
    /// Takes what is told at `now`. What was told before was true until then.
    pub(super) fn handle(&mut self, accounts: Accounts, now: Instant) {
        for account in self.accounts.values().chain(accounts.values()) {
            for (node, life) in &account.members {
                let known = self.alive.entry(node.clone()).or_insert((*life, now));
                if life.generation >= known.0.generation {
                    *known = (*life, now);
                }
            }
        }
        self.alive.retain(|_, (_, at)| now.saturating_duration_since(*at) < REMEMBERED);
        self.accounts = accounts;
        let known = self.known(now);
        let mut verdicts: BTreeMap<NodeName, Verdict> = BTreeMap::new();
        for (node, dead) in self.accounts.values().flat_map(|account| &account.dead) {
            let generation = dead.life.generation;
            if self.life_of(node).is_some_and(|life| life.generation > generation) {
                continue;
            }
            match verdicts.get(node).map(|verdict| verdict.life.generation.cmp(&generation)) {
                Some(Ordering::Greater) => continue,
                Some(Ordering::Less) => drop(verdicts.remove(node)),
                Some(Ordering::Equal) | None => {}
            }
            let before = self.verdicts.get(node).filter(|verdict| verdict.life == dead.life);
            let seen = self.alive.get(node).filter(|(life, _)| life.generation == generation);
            let verdict = verdicts.entry(node.clone()).or_insert_with(|| Verdict {
                life: dead.life,
                told: before.map_or(now, |verdict| verdict.told),
                silent: before.map_or(Duration::ZERO, |verdict| verdict.silent),
                alive_until: before.map_or_else(|| seen.map(|(_, at)| *at), |verdict| verdict.alive_until),
                speakers: 0,
                holders: 0,
                known,
            });
            verdict.holders = verdict.holders.max(dead.holders);
            verdict.known = verdict.known.max(dead.known);
            verdict.silent = verdict.silent.max(dead.silent);
        }
        for (node, verdict) in &mut verdicts {
            let tells = |(speaker, account): &(&NodeName, &Account)| {
                let same = account.dead.get(node).is_some_and(|dead| dead.life.generation == verdict.life.generation);
                same && *speaker != node
            };
            verdict.speakers = self.accounts.iter().filter(tells).count();
        }
        self.verdicts = verdicts;
    }

    pub(super) fn verdicts(&self) -> impl Iterator<Item = (&NodeName, &Verdict)> {
        self.verdicts.iter()
    }

    pub(super) fn verdict(&self, node: &NodeName) -> Option<&Verdict> {
        self.verdicts.get(node)
    }

    /// The latest life in which somebody tells that the node is a member.
    pub(super) fn life_of(&self, node: &NodeName) -> Option<Life> {
        let lives = self.accounts.values().filter_map(|account| account.members.get(node));
        lives.max_by_key(|life| life.generation).copied()
    }

    /// How many nodes were told to be alive lately: at least so many speakers there were before a fault.
    fn known(&self, now: Instant) -> u16 {
        let lately = self.alive.values().filter(|(_, at)| now.saturating_duration_since(*at) < LATELY);
        u16::try_from(lately.count()).unwrap_or(u16::MAX)
    }
}

/// Chosen: halves of a cluster that part one node at a time are still one fault.
const LATELY: Duration = Duration::from_secs(60);
/// Chosen: far longer than a hint may come late.
const REMEMBERED: Duration = Duration::from_secs(600);
