//! The nodes that are counted among the members, and those that are not any more.
//!
//! ```text
//!            verdict "speaker gone", or it restarts            verdict "host dead", or the grace is over
//!   here ──────────────────────────────────────────► away ─────────────────────────────────────────────► dead
//!    ▲ ▲   it serves again                            │                                                    │
//!    │ └──────────────────────────────────────────────┘                                                    │
//!    │                               foca hears of it (another identity)                                   │
//!    └─────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use garpike_election::{Member, NodeName, NodeState, Presence, Selection};

use crate::config::DEAD_MAX;
use crate::facts::Facts;
use crate::{Identity, ProcessId};

/// The other nodes.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    living: BTreeMap<NodeName, Peer>,
    dead: BTreeMap<NodeName, Dead>,
    /// How often the host of a node died lately, and when last.
    deaths: BTreeMap<NodeName, (u16, Instant)>,
}

/// A member.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) identity: Identity,
    /// Since when it has been a member without a break.
    pub(crate) since: Instant,
    pub(crate) away: Option<Away>,
    /// It came back from the dead, and has not yet said how it ranks.
    pub(crate) returned: bool,
    pub(crate) start: Start,
    /// foca takes it for dead by hearsay.
    pub(crate) rumoured: bool,
    /// The last sign by UDP, and by whatever way.
    pub(crate) heard_by_udp: Option<Instant>,
    pub(crate) heard: Option<Instant>,
    /// It answers on the wire or by TCP, but not by UDP, since then.
    pub(crate) udp_blocked: Option<Instant>,
    /// When a datagram to it came back last, as nobody listens there.
    pub(crate) refused: Option<Instant>,
}

/// What this node has seen of the beginning of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Start {
    /// Nothing: it was there before.
    Unseen,
    /// That it joins.
    Joining,
    /// That it became ready, then.
    Ready(Instant),
}

/// A member whose speaker does not run.
#[derive(Clone, Debug)]
pub(crate) struct Away {
    pub(crate) since: Instant,
    /// The end of its grace.
    pub(crate) until: Instant,
    pub(crate) cause: Cause,
    /// What it was, and stays for the election.
    pub(crate) member: Member,
}

/// Why a speaker does not run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cause {
    /// The watchers found it gone; it lives if the same process has said more than this version since.
    Gone { process: ProcessId, version: u64 },
    /// It said that it restarts, or another process has taken its place.
    Restarting,
}

/// A node that died, or did not come back in time.
#[derive(Clone, Debug)]
pub(crate) struct Dead {
    pub(crate) identity: Identity,
    pub(crate) at: Instant,
    pub(crate) last_state: Option<NodeState>,
    pub(crate) end: End,
    /// What it was.
    pub(crate) member: Option<Member>,
    /// The last version of its facts.
    pub(crate) version: u64,
    /// How many members there were before.
    pub(crate) known: u16,
    /// How many hold the verdict, as far as others have told.
    pub(crate) holders: u16,
    /// How often it died lately, this time included.
    pub(crate) deaths: u16,
    /// For how many milliseconds nothing had been heard of it, as the verdict says; 0: unknown.
    pub(crate) silent_ms: u16,
}

/// How a node ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// A verdict: its host is dead.
    HostDead,
    /// Its speaker did not come back within its grace.
    GraceOver,
    /// We were alone, and have forgotten what we held against it.
    Pardoned,
}

impl Peers {
    pub(crate) fn get(&self, name: &NodeName) -> Option<&Peer> {
        self.living.get(name)
    }

    pub(crate) fn get_mut(&mut self, name: &NodeName) -> Option<&mut Peer> {
        self.living.get_mut(name)
    }

    pub(crate) fn dead(&self, name: &NodeName) -> Option<&Dead> {
        self.dead.get(name)
    }

    pub(crate) fn dead_mut(&mut self, name: &NodeName) -> Option<&mut Dead> {
        self.dead.get_mut(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.living.values()
    }

    /// The members whose speakers run.
    pub(crate) fn here(&self) -> impl Iterator<Item = &Peer> {
        self.iter().filter(|peer| peer.is_here())
    }

    pub(crate) fn iter_dead(&self) -> impl Iterator<Item = &Dead> {
        self.dead.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.living.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.living.is_empty()
    }

    /// A node is a member from here on; gives what was known of it while it was dead.
    pub(crate) fn insert(&mut self, peer: Peer) -> Option<Dead> {
        let dead = self.dead.remove(&peer.identity.name);
        self.living.insert(peer.identity.name.clone(), peer);
        dead
    }

    /// How often the host of `name` died lately.
    pub(crate) fn deaths(&self, name: &NodeName, now: Instant) -> u16 {
        let recent = |at: Instant| now.saturating_duration_since(at) < RECENT;
        self.deaths.get(name).filter(|(_, at)| recent(*at)).map_or(0, |(deaths, _)| *deaths)
    }

    /// A node is none any more.
    pub(crate) fn bury(&mut self, dead: Dead) {
        self.living.remove(&dead.identity.name);
        if dead.end == End::HostDead {
            self.deaths.insert(dead.identity.name.clone(), (dead.deaths, dead.at));
        }
        if self.dead.len() >= DEAD_MAX
            && let Some(longest) = self.dead.values().min_by_key(|dead| dead.at).map(|dead| dead.identity.name.clone())
        {
            self.dead.remove(&longest);
        }
        self.dead.insert(dead.identity.name.clone(), dead);
    }

    /// Holds nothing against the dead any more.
    pub(crate) fn pardon(&mut self) {
        self.dead.values_mut().for_each(|dead| dead.end = End::Pardoned);
    }

    /// Forgets the dead of whom nothing was heard since `then`.
    pub(crate) fn forget_dead_before(&mut self, then: Instant) {
        self.dead.retain(|_, dead| dead.at >= then);
        self.deaths.retain(|_, (_, at)| *at >= then);
    }

    /// The first end of a grace.
    pub(crate) fn first_grace(&self) -> Option<Instant> {
        self.living.values().filter_map(|peer| Some(peer.away.as_ref()?.until)).min()
    }
}

impl Peer {
    pub(crate) fn new(identity: Identity, now: Instant) -> Self {
        Self {
            identity,
            since: now,
            away: None,
            returned: false,
            start: Start::Unseen,
            rumoured: false,
            heard_by_udp: None,
            heard: None,
            udp_blocked: None,
            refused: None,
        }
    }

    pub(crate) fn presence(&self) -> Presence {
        if self.is_here() { Presence::Here } else { Presence::Away }
    }

    pub(crate) fn is_here(&self) -> bool {
        self.away.is_none()
    }

    /// Whether anything was heard of it for less than `duration`.
    pub(crate) fn was_heard_within(&self, duration: Duration, now: Instant) -> bool {
        self.heard.is_some_and(|at| now.saturating_duration_since(at) < duration)
    }

    /// It gave a sign, but not by UDP: tells whether UDP is blocked, for nothing of it came that way for `overdue`.
    pub(crate) fn heard_otherwise(&mut self, overdue: Duration, now: Instant) -> bool {
        let blocked = self.heard_by_udp.is_none_or(|at| now.saturating_duration_since(at) >= overdue);
        if blocked {
            self.udp_blocked.get_or_insert(now);
        }
        blocked
    }

    /// What the election is to know of it. A member that has not yet spoken for itself ranks behind the others.
    pub(crate) fn describe(&self, facts: Option<&Facts>) -> Member {
        if let Some(away) = &self.away {
            return away.member.clone();
        }
        let member = facts.map_or_else(unknown, describe);
        if self.returned { Member { state: member.state.max(NodeState::HeldDown), ..member } } else { member }
    }
}

impl Away {
    /// Whether what its node says now ends its absence.
    pub(crate) fn is_ended_by(&self, facts: &Facts) -> bool {
        let serves = match facts.state {
            NodeState::Ready | NodeState::HeldDown | NodeState::Draining => true,
            NodeState::Joining | NodeState::Restarting => false,
        };
        match self.cause {
            Cause::Gone { process, version } if facts.author.process == process => {
                facts.version > version && facts.state != NodeState::Restarting
            }
            Cause::Gone { .. } | Cause::Restarting => serves,
        }
    }
}

/// What facts say to the election.
pub(crate) fn describe(facts: &Facts) -> Member {
    let (handicaps, wires, spread) = (facts.handicaps(), facts.wires(), Some(facts.spread()));
    Member { handicaps, wires, spread, ..Member::new(facts.rank(), facts.interfaces()) }
}

/// Chosen: a host that was well for half an hour has recovered.
const RECENT: Duration = Duration::from_secs(1800);

fn unknown() -> Member {
    Member::new(NodeState::Joining, Selection::All)
}
