//! The keys that a node holds, and which of them seals for whom.
//!
//! A new secret reaches the nodes one after the other, minutes apart, and no datagram may be lost meanwhile. So a key that
//! vanished from its source goes on opening, and goes on sealing for those who do not hold a newer one. Invariants: a ring
//! is never empty, and its size is bounded. It does not read files and does not know who the members are.
//!
//! ```text
//!            vanished from the source         every member holds the newest       10 min
//! in force ───────────────────────────► retired ◄────────────────────────► expiring ─────► forgotten
//!     ▲                                    │            one does not            │
//!     └────────────────────────────────────┴──── in the source again ──────────┘
//! ```
//!
//! A node that knows no member lets nothing expire. What is expiring still opens but is told to nobody ([`Keyring::ids`]), so
//! that nobody seals with it when it goes.

use std::time::{Duration, Instant};

use crate::{Key, KeyId};

/// One or more keys.
#[derive(Clone, Debug)]
pub struct Keyring {
    /// In the order in which they are preferred: those in force before the others, each newest first. Never empty.
    entries: Vec<Entry>,
    /// The newest key that every member is known to hold.
    common: Option<KeyId>,
}

#[derive(Clone, Debug)]
struct Entry {
    key: Key,
    standing: Standing,
}

/// What a key of a ring is good for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It is in the source.
    InForce,
    /// It was in the source, and some member may not yet hold what replaced it.
    Retired,
    /// Nobody needs it any more; it opens what is still on its way.
    Expiring {
        /// When it is forgotten.
        at: Instant,
    },
}

/// What is known of the keys that the receiver of a datagram holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held<'a> {
    /// Nothing.
    Unknown,
    /// Nothing, and so many datagrams to it were not answered: each is sealed with another key in turn.
    Attempt(u32),
    /// These.
    Keys(&'a [KeyId]),
}

/// Whether what a node tells others of its keys is different from before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum IdsChanged {
    /// Tell the others.
    Yes,
    /// They know.
    No,
}

/// What the source of keys holds, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourcedKeys {
    /// Newest first.
    pub keys: Vec<Key>,
    /// What an operator ought to mend, a sentence each.
    pub complaints: Vec<String>,
}

impl Keyring {
    /// At most so many keys of a source are in force.
    pub const IN_FORCE_MAX: usize = 8;

    /// At most so many keys are held: those in force, and the latest of the others.
    pub const HELD_MAX: usize = 12;

    /// A ring of the keys of a source and of those that it held earlier, both newest first; `None` without a key in force.
    pub fn new(in_force: Vec<Key>, retired: Vec<Key>) -> Option<Self> {
        let mut ring = Self { entries: Vec::new(), common: None };
        ring.adopt(retired);
        let _ = ring.replace(in_force);
        let (first, _) = ring.entries.split_first()?;
        (first.standing == Standing::InForce).then_some(ring)
    }

    /// The key that was seen last in the source.
    pub fn newest(&self) -> &Key {
        &self.entries.first().expect("a ring is never empty").key
    }

    /// The key of that name, whatever its standing.
    pub fn opening(&self, id: KeyId) -> Option<&Key> {
        self.entries.iter().map(|entry| &entry.key).find(|key| key.id() == id)
    }

    /// The key that seals for a destination: the newest that it holds.
    ///
    /// When that is not known, or it holds none of ours, the newest key that every member holds; failing that, the oldest
    /// that somebody may still need: who restarts between two others knows as little as they do, and the old key is the one
    /// that they share.
    pub fn sealing(&self, held: Held<'_>) -> &Key {
        match held {
            Held::Unknown => self.best_guess(),
            Held::Attempt(attempt) => self.attempt(attempt),
            Held::Keys(ids) => self.newest_among(ids).unwrap_or_else(|| self.best_guess()),
        }
    }

    /// The newest key that is among `ids`.
    pub(crate) fn newest_among(&self, ids: &[KeyId]) -> Option<&Key> {
        self.entries.iter().map(|entry| &entry.key).find(|key| ids.contains(&key.id()))
    }

    /// What the others are to know: the keys that they may seal with for this node, in the order of preference.
    pub fn ids(&self) -> Vec<KeyId> {
        self.advertised().map(Key::id).collect()
    }

    /// Every key that is held, in the order of preference.
    pub fn iter(&self) -> impl Iterator<Item = (KeyId, Standing)> {
        self.entries.iter().map(|entry| (entry.key.id(), entry.standing))
    }

    /// Takes what the source holds, newest first. A source that holds nothing changes nothing.
    pub fn replace(&mut self, mut keys: Vec<Key>) -> IdsChanged {
        keys.truncate(Self::IN_FORCE_MAX);
        if keys.is_empty() {
            return IdsChanged::No;
        }
        self.telling_changes(|ring| {
            let newest_before = ring.entries.first().map(|entry| entry.key.id());
            let mut entries: Vec<Entry> = Vec::with_capacity(Self::HELD_MAX);
            for key in keys {
                if entries.iter().all(|entry| entry.key.id() != key.id()) {
                    entries.push(Entry { key, standing: Standing::InForce });
                }
            }
            let same_newest = entries.first().map(|entry| entry.key.id()) == newest_before;
            for mut entry in std::mem::take(&mut ring.entries) {
                if entries.iter().any(|kept| kept.key.id() == entry.key.id()) {
                    continue;
                }
                // Whether every member holds the newest key must be asked anew when that is another one.
                if entry.standing == Standing::InForce || !same_newest {
                    entry.standing = Standing::Retired;
                }
                entries.push(entry);
            }
            entries.truncate(Self::HELD_MAX);
            ring.entries = entries;
        })
    }

    /// Takes what each living member holds but this node itself; `None` where that is not known.
    ///
    /// To be called whenever that changes, and after [`Self::replace`].
    pub fn handle_members(&mut self, members: &[Option<&[KeyId]>], now: Instant) -> IdsChanged {
        self.telling_changes(|ring| {
            let known = || members.iter().flatten();
            let common = |entry: &&Entry| known().all(|ids| ids.contains(&entry.key.id()));
            ring.common = ring.entries.iter().find(common).map(|entry| entry.key.id());
            if known().next().is_none() {
                ring.common = None;
            }
            let newest = ring.newest().id();
            // Who hears of no member may be cut off from those that lack it.
            let all_have_newest =
                !members.is_empty() && members.iter().all(|ids| ids.is_some_and(|ids| ids.contains(&newest)));
            for entry in &mut ring.entries {
                entry.standing = match (entry.standing, all_have_newest) {
                    (Standing::InForce, _) => Standing::InForce,
                    (Standing::Retired, true) => Standing::Expiring { at: now + EXPIRES_AFTER },
                    (Standing::Expiring { at }, true) => Standing::Expiring { at },
                    (Standing::Retired | Standing::Expiring { .. }, false) => Standing::Retired,
                };
            }
        })
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.entries.iter().filter_map(|entry| entry.expires_at()).min()
    }

    /// Forgets the keys whose time is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.entries.retain(|entry| entry.expires_at().is_none_or(|at| now < at));
    }

    fn adopt(&mut self, retired: Vec<Key>) {
        let entries = retired.into_iter().map(|key| Entry { key, standing: Standing::Retired });
        self.entries.extend(entries.take(Self::HELD_MAX));
    }

    fn telling_changes(&mut self, change: impl FnOnce(&mut Self)) -> IdsChanged {
        let before = self.ids();
        change(self);
        if self.ids() == before { IdsChanged::No } else { IdsChanged::Yes }
    }

    fn advertised(&self) -> impl DoubleEndedIterator<Item = &Key> {
        let advertised = self.entries.iter().filter(|entry| entry.expires_at().is_none());
        advertised.map(|entry| &entry.key)
    }

    fn best_guess(&self) -> &Key {
        let common = self.common.and_then(|id| self.opening(id));
        common.or_else(|| self.advertised().next_back()).unwrap_or_else(|| self.newest())
    }

    fn attempt(&self, attempt: u32) -> &Key {
        let guess = self.best_guess();
        let others = self.entries.iter().map(|entry| &entry.key).filter(|key| key.id() != guess.id());
        let turn = usize::try_from(attempt).unwrap_or(0) % self.entries.len().max(1);
        std::iter::once(guess).chain(others).nth(turn).unwrap_or(guess)
    }
}

impl Entry {
    fn expires_at(&self) -> Option<Instant> {
        match self.standing {
            Standing::InForce | Standing::Retired => None,
            Standing::Expiring { at } => Some(at),
        }
    }
}

impl From<Key> for Keyring {
    fn from(key: Key) -> Self {
        Self { entries: vec![Entry { key, standing: Standing::InForce }], common: None }
    }
}

impl Standing {
    /// All that [`Self::as_str`] gives.
    pub(crate) const WORDS: [&'static str; 3] = ["in_force", "retired", "expiring"];

    /// The word for it in metrics and `/state.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InForce => "in_force",
            Self::Retired => "retired",
            Self::Expiring { .. } => "expiring",
        }
    }
}

/// Chosen: far above the time for which a datagram or a fact about a member is under way, a partition that heals included.
const EXPIRES_AFTER: Duration = Duration::from_secs(600);

#[cfg(test)]
pub(crate) mod tests;
