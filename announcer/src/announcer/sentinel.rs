//! Asking the dead: a node whose addresses were taken over is asked for them, so that a healed segment shows at once.
//!
//! Who was merely cut off still answers for what it owned. Its first answer is a claim, which [`super::conflict`] settles
//! by rank; then it is asked for all the rest. The questions go to its Ethernet address alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::{Duration, Instant};

use garpike_election::{IfIndex, MacAddr, Member, NodeName, ServiceIp, Wire};

use super::{Announcer, Frame, FrameKind, OUTBOX_DEPTH};
use crate::duties::{Duties, Standing};
use crate::stations::Question;
use crate::surroundings::telling_nets;

/// The nodes that died, with what was taken from them.
#[derive(Debug, Default)]
pub(super) struct Sentinels {
    dead: BTreeMap<NodeName, Sentinel>,
}

#[derive(Debug)]
struct Sentinel {
    since: Instant,
    /// When it is asked for one address; `None` when it has been dead for too long.
    ask_at: Option<Instant>,
    taken: BTreeSet<ServiceIp>,
    sweep: Sweep,
}

/// Asking for everything that was taken.
#[derive(Debug)]
enum Sweep {
    Never,
    /// The next one is the first behind this; `None`: the first of all.
    At(Option<ServiceIp>),
    /// When it ended.
    Done(Instant),
}

impl Sentinels {
    pub(super) fn next_at(&self, probe_at: Option<Instant>) -> Option<Instant> {
        let due = |sentinel: &Sentinel| match sentinel.sweep {
            Sweep::At(_) => sentinel.ask_at.into_iter().chain(probe_at).min(),
            Sweep::Never | Sweep::Done(_) => sentinel.ask_at,
        };
        self.dead.values().filter_map(due).min()
    }
}

impl Announcer {
    /// Notes who died and what this node took from them. Called while the core still has its old duties.
    pub(super) fn note_taken(&mut self, next: &Duties, now: Instant) {
        let dead = |node: &NodeName| next.nodes.get(node).is_some_and(|peer| peer.standing == Standing::Dead);
        self.sentinels.dead.retain(|node, _| dead(node));
        let lived = |node: &NodeName| self.peers.standing(node).is_some_and(|before| before != Standing::Dead);
        let died: BTreeSet<&NodeName> = next.nodes.keys().filter(|node| dead(node) && lived(node)).collect();
        if died.is_empty() {
            return;
        }
        for (ip, node) in &self.peers.elsewhere {
            if died.contains(node) && next.owned.contains_key(ip) {
                let sentinel = self.sentinels.dead.entry(node.clone()).or_insert_with(|| Sentinel {
                    since: now,
                    ask_at: Some(now + ASK_INTERVAL),
                    taken: BTreeSet::new(),
                    sweep: Sweep::Never,
                });
                sentinel.taken.insert(*ip);
            }
        }
    }

    /// A node that is taken for dead was heard: it is asked for everything that was taken from it.
    pub(super) fn rouse(&mut self, node: &NodeName, now: Instant) {
        if let Some(sentinel) = self.sentinels.dead.get_mut(node) {
            match sentinel.sweep {
                Sweep::At(_) => {}
                Sweep::Done(ended) if now < ended + SWEEP_INTERVAL => {}
                Sweep::Never | Sweep::Done(_) => sentinel.sweep = Sweep::At(None),
            }
        }
    }

    /// Asks what is due.
    pub(super) fn tend_sentinels(&mut self, now: Instant) {
        let mut dead = std::mem::take(&mut self.sentinels.dead);
        for (node, sentinel) in &mut dead {
            let Some(member) = self.peers.member(node).cloned() else { continue };
            if sentinel.ask_at.is_some_and(|at| at <= now) {
                let first = sentinel.taken.iter().copied().find(|ip| self.is_served(*ip));
                if let Some(ip) = first {
                    self.ask_dead(&member, ip);
                }
                let dead_for = now.saturating_duration_since(sentinel.since);
                let interval = if dead_for < OFTEN_FOR { ASK_INTERVAL } else { SELDOM_INTERVAL };
                sentinel.ask_at = (dead_for < ASKED_FOR).then(|| now + interval);
            }
            while let Sweep::At(position) = sentinel.sweep {
                let behind = (position.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
                let mut rest = sentinel.taken.range(behind).copied();
                let Some(ip) = rest.find(|ip| self.is_served(*ip)) else {
                    sentinel.sweep = Sweep::Done(now);
                    break;
                };
                if self.outbox.len() >= OUTBOX_DEPTH || self.prober(now).take(now).is_none() {
                    break;
                }
                self.ask_dead(&member, ip);
                sentinel.sweep = Sweep::At(Some(ip));
            }
        }
        self.sentinels.dead = dead;
    }

    fn is_served(&self, ip: ServiceIp) -> bool {
        self.served.get(&ip).is_some_and(|served| !served.ports.is_empty())
    }

    fn ask_dead(&mut self, member: &Member, ip: ServiceIp) {
        for (index, mac) in self.ways_to(member) {
            let link = self.links.as_ref().and_then(|links| links.links.get(&index));
            let Some((port, link)) = self.ports.get(&index).zip(link) else { continue };
            let question = port.question(Question { ip: ip.addr(), mac: Some(mac) }, &link.nets);
            if let Some(question) = question.filter(|_| self.outbox.len() < OUTBOX_DEPTH) {
                let (ip, kind) = (ip.addr(), FrameKind::Probe);
                self.outbox.push_back(Frame { interface: index, ip, kind, bytes: question.emit() });
            }
        }
    }

    /// On which interfaces a node is met, and with which Ethernet address.
    pub(super) fn ways_to(&self, member: &Member) -> Vec<(IfIndex, MacAddr)> {
        let links = self.links.iter().flat_map(|links| &links.links);
        let ways = links.filter_map(|(index, link)| {
            let own = Wire { mac: self.ports.get(index)?.mac, nets: telling_nets(link) };
            let met = member.wires.values().find(|other| other.meets(&own))?;
            Some((*index, met.mac))
        });
        ways.collect()
    }
}

/// Chosen: a heal shows well within a second.
const ASK_INTERVAL: Duration = Duration::from_millis(200);
/// Chosen: as long as a node that died may return in general.
const OFTEN_FOR: Duration = Duration::from_secs(600);
const SELDOM_INTERVAL: Duration = Duration::from_secs(2);
/// Chosen: whoever returns later is noticed by the membership, which never ceases to look.
const ASKED_FOR: Duration = Duration::from_secs(3600);
/// Chosen: what was lost of one is asked again.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
