//! Which key seals for whom, as far as the cluster knows its members.
//!
//! What a process tells of its keys counts, and the key that the datagram came with that is being answered: its sender
//! holds it, whatever else is known. Who is asked in vain is asked with another key the next time, so that two nodes find
//! each other if they share any.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use garpike_election::NodeName;
use tracing::info;

use super::Cluster;
use crate::datagram::Kind;
use crate::facts::{Facts, News};
use crate::keyring::{Held, IdsChanged, Keyring, SourcedKeys};
use crate::{Identity, KeyId, Path, ProcessId, Sealing, metrics};

/// What is known of the keys of others.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// What the members, and those that died lately, have told of theirs.
    told: BTreeMap<ProcessId, Vec<KeyId>>,
    /// The sender of the datagram that is being handled, and the key that it came with; no key: in the clear.
    answering: Option<(ProcessId, Option<KeyId>)>,
    /// How often was asked in vain.
    attempts: BTreeMap<Path, u32>,
    /// What is wrong with the source of keys.
    pub(super) complaints: Vec<String>,
    /// The keys of the destination that is being sent to.
    held: Vec<KeyId>,
}

impl Keys {
    /// A datagram of `sender` is handled from here on.
    pub(super) fn begin_answering(&mut self, sender: ProcessId, came_with: Option<KeyId>) {
        self.answering = Some((sender, came_with));
    }

    /// The datagram has been handled.
    pub(super) fn end_answering(&mut self) {
        self.answering = None;
    }

    /// What the destination of a datagram holds.
    pub(super) fn held(&mut self, kind: Kind, to: Option<ProcessId>, path: &Path) -> Held<'_> {
        let answering = self.answering.filter(|(sender, _)| to == Some(*sender));
        let told = to.and_then(|to| self.told.get(&to));
        self.held.clear();
        self.held.extend(told.into_iter().flatten());
        self.held.extend(answering.and_then(|(_, came_with)| came_with));
        if told.is_some() || answering.is_some() {
            self.attempts.remove(path);
            return Held::Keys(&self.held);
        }
        if !matches!(kind, Kind::Challenge | Kind::FactsWanted) {
            return Held::Unknown;
        }
        if self.attempts.len() >= ATTEMPTS_MAX && !self.attempts.contains_key(path) {
            self.attempts.clear();
        }
        let attempts = self.attempts.entry(path.clone()).or_default();
        let attempt = *attempts;
        *attempts = attempts.wrapping_add(1);
        Held::Attempt(attempt)
    }
}

impl Cluster {
    /// Takes what the source of keys holds.
    pub fn set_keys(&mut self, sourced: SourcedKeys, now: Instant) {
        self.now = now;
        metrics::key_problems(sourced.complaints.len());
        self.keys.complaints = sourced.complaints;
        let before = self.config.sealing.keyring().map(|keyring| keyring.newest().id());
        let changed = self.config.sealing.replace(sourced.keys);
        let newest = self.config.sealing.keyring().map(|keyring| keyring.newest().id());
        if let (true, Some(key)) = (before != newest, newest) {
            info!(%key, "this node has a newer key");
        }
        self.tell_keys_if(changed);
        self.review_keys();
        self.settle();
    }

    /// How this node protects what it sends, and opens what it gets.
    pub fn sealing(&self) -> &Sealing {
        &self.config.sealing
    }

    /// Decides which keys are needed no longer: whenever a member comes, goes or says something, and every few seconds.
    pub(super) fn review_keys(&mut self) {
        let living = self.peers.iter().map(|peer| &peer.identity);
        let dead = self.peers.iter_dead().map(|dead| &dead.identity);
        let told = |identity: &Identity| Some((identity.process, keys_of(self.book.of(identity)?)));
        self.keys.told = living.chain(dead).filter_map(told).collect();
        self.judge_keys();
    }

    /// The same when these have said something new.
    pub(super) fn review_keys_of(&mut self, said: &BTreeSet<NodeName>) {
        let mut changed = false;
        for name in said {
            let living = self.peers.get(name).map(|peer| &peer.identity);
            let Some(identity) = living.or_else(|| Some(&self.peers.dead(name)?.identity)) else { continue };
            let Some(keys) = self.book.of(identity).map(keys_of) else { continue };
            changed |= self.keys.told.get(&identity.process) != Some(&keys);
            self.keys.told.insert(identity.process, keys);
        }
        if changed {
            self.judge_keys();
        }
    }

    fn judge_keys(&mut self) {
        if self.config.sealing.keyring().is_some() {
            let members: Vec<Option<&[KeyId]>> =
                self.peers.iter().map(|peer| self.keys.told.get(&peer.identity.process).map(Vec::as_slice)).collect();
            let changed = self.config.sealing.handle_members(&members, self.now);
            self.tell_keys_if(changed);
        }
        metrics::keys(&self.config.sealing);
    }

    fn tell_keys_if(&mut self, changed: IdsChanged) {
        match changed {
            IdsChanged::Yes if self.own.set_keys(self.config.sealing.ids()) == News::Yes => self.spread_facts(),
            IdsChanged::Yes | IdsChanged::No => {}
        }
    }
}

/// No node holds more; who says so makes no work.
fn keys_of(facts: &Facts) -> Vec<KeyId> {
    facts.keys().take(Keyring::HELD_MAX).collect()
}

/// Chosen: places that are asked in vain at the same time, above the largest cluster that is tested.
const ATTEMPTS_MAX: usize = 1024;
