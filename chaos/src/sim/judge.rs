//! What is true of a world, and what has happened in it that must not.
//!
//! It follows what each speaker believes. A member that vanishes from a speaker's view while its host lives is a false
//! death; an address that somebody else owns while the host of its owner lives has moved without a reason. A scenario
//! excuses the hosts that it maltreats so much that either is right.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use garpike_announcer::wire;
use garpike_election::{MacAddr, NodeName, Presence, ServiceIp};

use super::host::{Host, Speaker, index_of_name};

/// The judge.
pub(super) struct Judge {
    views: Vec<View>,
    owners: BTreeMap<ServiceIp, usize>,
    /// Hosts that may be seen as dead, may see others as dead, and may lose addresses, though they live.
    excused: BTreeSet<usize>,
    /// Hosts that may take addresses from the living.
    welcome: BTreeSet<usize>,
    /// When a host that lived first vanished from somebody's view.
    vanished: BTreeMap<usize, Instant>,
    moved: BTreeSet<(ServiceIp, usize)>,
    /// Who was seen as dead by whom though he lived, and was not excused.
    pub(super) false_downs: Vec<(NodeName, NodeName)>,
    /// Which address went to whom though the host of its owner lived, and was not excused.
    pub(super) moves: Vec<(ServiceIp, NodeName)>,
}

/// What one speaker believes and does.
#[derive(Clone, Debug, Default)]
struct View {
    /// The hosts that it counts as members.
    seen: Vec<Option<Presence>>,
    /// It believes exactly what is true.
    agrees: bool,
    /// What it answers on the wire.
    answers: Vec<(ServiceIp, MacAddr)>,
}

impl Judge {
    pub(super) fn new() -> Self {
        Self {
            views: Vec::new(),
            owners: BTreeMap::new(),
            excused: BTreeSet::new(),
            welcome: BTreeSet::new(),
            vanished: BTreeMap::new(),
            moved: BTreeSet::new(),
            false_downs: Vec::new(),
            moves: Vec::new(),
        }
    }

    /// One more host.
    pub(super) fn add(&mut self) {
        self.views.push(View::default());
    }

    /// The process of `host` is a new one, which has seen nobody yet.
    pub(super) fn forget(&mut self, host: usize) {
        if let Some(view) = self.views.get_mut(host) {
            *view = View::default();
        }
    }

    /// Lets be seen as dead, see others as dead, and lose addresses.
    pub(super) fn excuse(&mut self, hosts: impl IntoIterator<Item = usize>) {
        self.excused.extend(hosts);
    }

    /// Lets take addresses from the living.
    pub(super) fn welcome(&mut self, hosts: impl IntoIterator<Item = usize>) {
        self.welcome.extend(hosts);
    }

    /// These are the owners from which addresses must not move.
    pub(super) fn set_owners(&mut self, owners: BTreeMap<ServiceIp, usize>) {
        self.owners = owners;
        self.moved.clear();
    }

    pub(super) fn owners(&self) -> &BTreeMap<ServiceIp, usize> {
        &self.owners
    }

    /// When `host` vanished from somebody's view while it lived, if it ever did.
    pub(super) fn vanished_at(&self, host: usize) -> Option<Instant> {
        self.vanished.get(&host).copied()
    }

    /// Looks at what the speaker of host `index` believes, after it has changed its mind.
    pub(super) fn review(&mut self, index: usize, hosts: &[Host], now: Instant) {
        let Some(host) = hosts.get(index) else { return };
        let mut seen = vec![None; hosts.len()];
        for (node, member) in &host.process.members().nodes {
            if let Some(seen) = index_of_name(node).and_then(|number| seen.get_mut(number)) {
                *seen = Some(member.presence);
            }
        }
        let Some(view) = self.views.get_mut(index) else { return };
        for (other, subject) in hosts.iter().enumerate() {
            if other == index || !view.sees(other) || seen.get(other) != Some(&None) || !subject.lives() {
                continue;
            }
            self.vanished.entry(other).or_insert(now);
            if !self.excused.contains(&other) && !self.excused.contains(&index) {
                self.false_downs.push((subject.name.clone(), host.name.clone()));
            }
        }
        view.seen = seen;
        view.agrees = view.agrees_with(hosts);
        for ip in host.process.owned.keys() {
            self.took(*ip, index, hosts);
        }
    }

    /// Looks at a frame that `host` sends to everybody.
    pub(super) fn heard(&mut self, host: usize, frame: &[u8], hosts: &[Host]) {
        let claim = wire::parse(frame).ok().and_then(|message| message.claim());
        let Some(claim) = claim else { return };
        let Ok(ip) = ServiceIp::new(claim.ip) else { return };
        let owner = self.owners.get(&ip).and_then(|owner| hosts.get(*owner));
        if owner.is_some_and(|owner| owner.address.mac() != claim.mac) {
            self.took(ip, host, hosts);
        }
    }

    /// Host `index` owns `ip`, or says so.
    fn took(&mut self, ip: ServiceIp, index: usize, hosts: &[Host]) {
        let Some(owner) = self.owners.get(&ip).copied().filter(|owner| *owner != index) else { return };
        let (Some(before), Some(host)) = (hosts.get(owner), hosts.get(index)) else { return };
        let unharmed = before.lives() && before.name != host.name && !self.excused.contains(&owner);
        let unwelcome = !self.welcome.contains(&index) && !self.excused.contains(&index);
        if unharmed && unwelcome && self.moved.insert((ip, index)) {
            self.moves.push((ip, host.name.clone()));
        }
    }

    /// Takes what the speaker of `host` answers on the wire.
    pub(super) fn answers(&mut self, host: usize, answers: Vec<(ServiceIp, MacAddr)>) {
        if let Some(view) = self.views.get_mut(host) {
            view.answers = answers;
        }
    }

    /// Compares all views with what has become true.
    pub(super) fn reality_changed(&mut self, hosts: &[Host]) {
        for view in &mut self.views {
            view.agrees = view.agrees_with(hosts);
        }
    }

    /// Whether every running speaker believes that exactly the living hosts live, and that exactly the running ones run.
    pub(super) fn is_whole(&self, hosts: &[Host]) -> bool {
        let mut counted = hosts.iter().enumerate().zip(&self.views);
        counted.all(|((index, host), view)| view.agrees || !host.runs() || is_twin(index, host))
    }

    /// Whether no running speaker of `by` counts any of `nodes` among the living.
    pub(super) fn is_known_dead(&self, nodes: &BTreeSet<usize>, by: &BTreeSet<usize>, hosts: &[Host]) -> bool {
        let counted = hosts.iter().zip(&self.views).enumerate();
        let mut observers = counted.filter(|(index, (host, _))| host.runs() && by.contains(index));
        observers.all(|(_, (_, view))| !nodes.iter().any(|node| view.sees(*node)))
    }

    /// Whether every running speaker but those of `nodes` counts all of `nodes`, and they count everybody that runs.
    pub(super) fn is_known_alive(&self, nodes: &[usize], hosts: &[Host]) -> bool {
        let running: Vec<usize> =
            hosts.iter().enumerate().filter(|(_, host)| host.runs()).map(|(index, _)| index).collect();
        let sees = |a: usize, b: usize| a == b || self.views.get(a).is_some_and(|view| view.sees(b));
        running.iter().all(|other| nodes.iter().all(|node| sees(*other, *node) && sees(*node, *other)))
    }

    /// The Ethernet addresses with which `ip` is answered by the running speakers that `counts`, each with one who does.
    pub(super) fn answered(
        &self,
        ip: ServiceIp,
        hosts: &[Host],
        counts: impl Fn(usize) -> bool,
    ) -> BTreeMap<MacAddr, usize> {
        let mut answered = BTreeMap::new();
        let counted = hosts.iter().zip(&self.views).enumerate();
        for (index, (_, view)) in counted.filter(|(index, (host, _))| host.runs() && counts(*index)) {
            for (_, mac) in view.answers.iter().filter(|(answered, _)| *answered == ip) {
                answered.entry(*mac).or_insert(index);
            }
        }
        answered
    }
}

impl View {
    fn sees(&self, host: usize) -> bool {
        self.seen.get(host).copied().flatten().is_some()
    }

    /// Whether it counts exactly the hosts that live as members, and those that run as present.
    fn agrees_with(&self, hosts: &[Host]) -> bool {
        hosts.iter().enumerate().all(|(index, host)| {
            let seen = self.seen.get(index).copied().flatten();
            let present = host.speaker != Speaker::Running || seen == Some(Presence::Here);
            is_twin(index, host) || if host.lives() { seen.is_some() && present } else { seen.is_none() }
        })
    }
}

/// Whether the host has the name of another one, which is the one that is counted.
fn is_twin(index: usize, host: &Host) -> bool {
    index_of_name(&host.name) != Some(index)
}
