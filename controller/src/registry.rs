//! What is known of the cluster: the objects that the API tells of, the planner that is fed with them, and what people are
//! to be told.
//!
//! Invariants: no address is given before all Services and pools are known; a kind that cannot be read stops nothing that
//! does not need it, and takes no address from anybody. Nothing here sends anything or reads a clock.

mod conditions;
mod kinds;
mod notice;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use garpike_controller_api::config::PoolName;
use garpike_controller_api::{
    Community, IPAddressPool, IPAddressPoolStatus, L2Advertisement, ObjectKey, Objects, Problem, Scope, Severity,
    Source, Sourced, validate,
};
use garpike_election::ServiceKey;
use garpike_kubernetes::{Lenient, Trouble, Update};
use k8s_openapi::api::core::v1::Namespace;

use crate::metrics;
use crate::planner::{Completeness, Event, Failure, Planner, Write};
use crate::seen::Seen;

pub(crate) use conditions::ConditionWrite;
pub(crate) use kinds::Kind;
pub(crate) use notice::Notice;

use conditions::Conditions;
use kinds::{Knowledge, Listed, take};

/// The objects of a cluster and what follows from them.
#[derive(Debug)]
pub(crate) struct Registry {
    scope: Scope,
    planner: Planner,
    objects: Objects,
    services: BTreeMap<ServiceKey, Entry>,
    kinds: BTreeMap<Kind, Knowledge>,
    phase: Phase,
    problems: Vec<Problem>,
    notices: VecDeque<Notice>,
    conditions: Conditions,
}

/// A Service.
#[derive(Debug)]
struct Entry {
    seen: Seen,
    /// When it was told of.
    since: Instant,
    /// What was wrong with it then.
    wrong: String,
}

/// How far the registry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Services cannot be judged, as no pools are known.
    Gathering,
    /// They are judged as they come.
    Judging,
    /// All are known.
    Serving,
}

/// What came of a write.
#[derive(Debug)]
pub(crate) enum Written {
    /// The object is this.
    Done(Box<Seen>),
    /// There is no such object.
    Gone,
    /// It failed.
    Failed(Failure),
}

/// Whether something changed by which pools are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// [`Registry::judge_pools`] is due.
    Pools,
    /// It is not.
    Other,
}

impl Registry {
    /// Knows nothing yet.
    pub(crate) fn new(scope: Scope) -> Self {
        let unknown = Knowledge { listed: false, trouble: None, broken: BTreeMap::new() };
        Self {
            scope,
            planner: Planner::default(),
            objects: Objects::default(),
            services: BTreeMap::new(),
            kinds: Kind::ALL.into_iter().map(|kind| (kind, unknown.clone())).collect(),
            phase: Phase::Gathering,
            problems: Vec::new(),
            notices: VecDeque::new(),
            conditions: Conditions::default(),
        }
    }

    /// Takes in what is told of pools.
    pub(crate) fn handle_pools(&mut self, update: Update<Lenient<IPAddressPool>>) -> Change {
        let before: BTreeMap<ObjectKey, Sourced<IPAddressPool>> = self.objects.pools.clone();
        let broken = self.broken(Kind::Pools).cloned();
        let listed = take(&mut self.objects.pools, update, self.kinds.get_mut(&Kind::Pools));
        for key in before.keys().chain(self.objects.pools.keys()) {
            let status = self.objects.pools.get(key).and_then(|pool| pool.object.status);
            self.planner.handle_pool_status(&PoolName(key.name.clone()), status);
        }
        // Our own statuses come back this way, and change nothing.
        let same = broken.as_ref() == self.broken(Kind::Pools)
            && before.len() == self.objects.pools.len()
            && before.iter().zip(&self.objects.pools).all(|((key, one), (other_key, other))| {
                key == other_key
                    && one.object.spec == other.object.spec
                    && one.object.metadata.labels == other.object.metadata.labels
            });
        if same && listed == Listed::Before { Change::Other } else { Change::Pools }
    }

    /// Takes in what is told of advertisements.
    pub(crate) fn handle_advertisements(&mut self, update: Update<Lenient<L2Advertisement>>) -> Change {
        take(&mut self.objects.advertisements, update, self.kinds.get_mut(&Kind::Advertisements));
        Change::Pools
    }

    /// Takes in what is told of communities.
    pub(crate) fn handle_communities(&mut self, update: Update<Lenient<Community>>) -> Change {
        take(&mut self.objects.communities, update, self.kinds.get_mut(&Kind::Communities));
        Change::Pools
    }

    /// Takes in what is told of namespaces.
    pub(crate) fn handle_namespaces(&mut self, update: Update<Lenient<Namespace>>) -> Change {
        let labels = |objects: &Objects| -> Vec<(ObjectKey, Option<BTreeMap<String, String>>)> {
            let all = objects.namespaces.iter();
            all.map(|(key, sourced)| (key.clone(), sourced.object.metadata.labels.clone())).collect()
        };
        let before = labels(&self.objects);
        let listed = take(&mut self.objects.namespaces, update, self.kinds.get_mut(&Kind::Namespaces));
        let same = before == labels(&self.objects) && listed == Listed::Before;
        if same { Change::Other } else { Change::Pools }
    }

    /// Takes in what is told of Services.
    pub(crate) fn handle_services(&mut self, update: Update<Seen>, now: Instant) {
        match update {
            Update::All(all) => {
                let there: BTreeSet<&ServiceKey> = all.iter().map(|seen| &seen.key).collect();
                let gone = self.services.keys().filter(|key| !there.contains(key)).cloned().collect::<Vec<_>>();
                // First, so that what they leave is free for the others.
                for key in gone {
                    self.handle_gone(&key);
                }
                for seen in all {
                    self.handle_service(seen, now);
                }
                self.know(Kind::Services);
                self.serve_if_all_is_known();
            }
            Update::Applied(seen) => {
                self.know(Kind::Services);
                self.handle_service(seen, now);
            }
            Update::Gone(seen) => {
                self.know(Kind::Services);
                self.handle_gone(&seen.key);
            }
            Update::Trouble(trouble) => self.handle_trouble(Kind::Services, trouble),
        }
    }

    /// Judges the pools, and gives addresses when all is known. Costs a look at every Service.
    pub(crate) fn judge_pools(&mut self) {
        if !self.is_listed(Kind::Pools) || !self.is_decided(Kind::Namespaces) {
            return;
        }
        let (config, mut problems) = validate(&self.objects, &self.scope);
        // The controller does not know the nodes, so that what an advertisement warns of may be wrong.
        problems.retain(|problem| {
            problem.severity == Severity::Error || problem.object.as_deref().is_some_and(|of| of.starts_with(POOL))
        });
        problems.extend(self.unreadable());
        let broken = problems.iter().any(|problem| {
            problem.severity == Severity::Error && problem.object.as_deref().is_some_and(|of| of.starts_with(POOL))
        });
        let whole = !broken && self.is_listed(Kind::Namespaces);
        self.problems = problems;
        self.planner.handle_pools(&config.pools, if whole { Completeness::Whole } else { Completeness::Partial });
        if self.phase == Phase::Gathering {
            self.phase = Phase::Judging;
            let keys: Vec<ServiceKey> = self.services.keys().cloned().collect();
            for key in keys {
                self.judge(&key);
            }
        }
        self.serve_if_all_is_known();
    }

    /// What is to be written next, with the body that the API server is to be sent.
    pub(crate) fn poll_write(&mut self) -> Option<(Write, Vec<u8>)> {
        while let Some(write) = self.planner.poll_write() {
            let Some(entry) = self.services.get(&write.service) else {
                self.planner.handle_gone(&write.service);
                continue;
            };
            let body = entry.seen.body(&write);
            self.notices.extend(notice::deprecated(&entry.seen));
            return Some((write, body));
        }
        None
    }

    /// Takes in what came of a write. Says since when it was due, when it is done.
    pub(crate) fn handle_written(&mut self, write: &Write, written: Written, now: Instant) -> Option<Instant> {
        match written {
            Written::Done(seen) => {
                self.planner.handle_written(write, seen.version);
                let entry = self.services.get_mut(&write.service)?;
                if seen.version > entry.seen.version {
                    entry.seen = *seen;
                }
                let since = entry.since;
                self.forget_if_done(&write.service);
                Some(since)
            }
            Written::Gone => {
                self.handle_gone(&write.service);
                None
            }
            Written::Failed(failure) => {
                self.planner.handle_failure(write, failure, now);
                None
            }
        }
    }

    /// A second has passed: who waited before waits still.
    pub(crate) fn handle_condition_tick(&mut self) {
        self.conditions.handle_tick();
    }

    /// The next condition that is to be written, which says why a Service has no address.
    pub(crate) fn poll_condition(&mut self) -> Option<ConditionWrite> {
        while let Some(key) = self.conditions.next() {
            let Some(entry) = self.services.get(&key) else { continue };
            // A write of addresses takes an outdated condition with it.
            if self.planner.is_writing(&key) {
                continue;
            }
            let refusal = self.planner.refusal(&key).map(ToString::to_string);
            let why = refusal.or_else(|| Some(entry.wrong.clone()).filter(|wrong| !wrong.is_empty()));
            let has_address = !self.planner.addresses(&key).is_empty();
            if why.is_none() && !has_address && self.planner.knows(&key) {
                // Not decided yet, as after a start: what is said there stays until it is.
                continue;
            }
            let why = why.filter(|_| !has_address);
            if let Some(write) = self.conditions.begin(&entry.seen, why) {
                return Some(write);
            }
        }
        None
    }

    /// A condition was written, or could not be.
    pub(crate) fn handle_condition_written(&mut self, service: &ServiceKey, seen: Option<Seen>, now: Instant) {
        self.conditions.end(service);
        if let Some(seen) = seen {
            self.handle_service(seen, now);
        }
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.planner.poll_timeout()
    }

    /// Lets writes be tried again.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.planner.handle_timeout(now);
    }

    /// What people are to be told, the oldest first; at most `most`.
    pub(crate) fn take_notices(&mut self, most: usize) -> Vec<Notice> {
        while let Some(event) = self.planner.poll_event() {
            if let Some(entry) = self.services.get(&event.service) {
                self.conditions.review(event.service.clone());
                self.notices.push_back(Notice::of_event(&entry.seen, event));
            }
        }
        while self.notices.len() > MAX_NOTICES {
            self.notices.pop_back();
            metrics::event_dropped();
        }
        self.notices.drain(..most.min(self.notices.len())).collect()
    }

    /// The pools whose status is to be written, with that.
    pub(crate) fn pool_writes(&self) -> Vec<(PoolName, IPAddressPool)> {
        let writes = self.planner.pool_writes().into_iter();
        let of_pool = |(name, status): (PoolName, IPAddressPoolStatus)| {
            let key = ObjectKey { namespace: self.scope.namespace.clone(), name: name.0.clone() };
            let mut pool = self.objects.pools.get(&key)?.object.clone();
            pool.status = Some(status);
            Some((name, pool))
        };
        writes.filter_map(of_pool).collect()
    }

    /// The status of a pool was written.
    pub(crate) fn handle_pool_written(&mut self, name: &PoolName, status: Option<IPAddressPoolStatus>) {
        self.planner.handle_pool_status(name, status);
    }

    /// How many addresses of each pool are held and free.
    pub(crate) fn counts(&self) -> BTreeMap<PoolName, IPAddressPoolStatus> {
        self.planner.counts()
    }

    /// How many writes are due or wait for another try.
    pub(crate) fn writes_due(&self) -> usize {
        self.planner.writes_due()
    }

    /// What is wrong with pools and advertisements.
    pub(crate) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether addresses are given.
    pub(crate) fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
    }

    /// Whether pools were judged.
    pub(crate) fn is_configured(&self) -> bool {
        self.phase != Phase::Gathering
    }

    /// The kinds that cannot be read, and why.
    pub(crate) fn troubles(&self) -> BTreeMap<Kind, String> {
        let troubled = |(kind, knowledge): (&Kind, &Knowledge)| {
            knowledge.trouble.as_ref().map(|trouble| (*kind, trouble.to_string()))
        };
        self.kinds.iter().filter_map(troubled).collect()
    }

    fn handle_service(&mut self, seen: Seen, now: Instant) {
        let known = self.services.get(&seen.key);
        if known.is_some_and(|known| known.seen.version >= seen.version && self.phase != Phase::Gathering) {
            return;
        }
        let wrong = known.map(|known| known.wrong.clone()).unwrap_or_default();
        let key = seen.key.clone();
        self.services.insert(key.clone(), Entry { seen, since: now, wrong });
        if self.phase != Phase::Gathering {
            self.judge(&key);
        }
    }

    /// Tells the planner of a Service, and people what is wrong with it.
    fn judge(&mut self, key: &ServiceKey) {
        let Some(entry) = self.services.get_mut(key) else { return };
        let object = Sourced { object: entry.seen.service(), source: Source::default() };
        let problems = self.planner.handle_object(key, &object, &self.scope);
        let errors: Vec<&Problem> = problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
        let wrong = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        if wrong != entry.wrong {
            let has_address = !self.planner.addresses(key).is_empty();
            self.notices
                .extend(errors.into_iter().map(|problem| Notice::of_problem(&entry.seen, problem, has_address)));
            entry.wrong = wrong;
        }
        self.conditions.review(key.clone());
        self.forget_if_done(key);
    }

    /// Services of which the planner does not want to know are none of our business.
    fn forget_if_done(&mut self, key: &ServiceKey) {
        if !self.planner.knows(key) && self.services.get(key).is_none_or(|entry| !entry.seen.outdated_condition) {
            self.services.remove(key);
        }
    }

    fn handle_gone(&mut self, key: &ServiceKey) {
        self.conditions.forget(key);
        self.services.remove(key);
        self.planner.handle_gone(key);
    }

    fn handle_trouble(&mut self, kind: Kind, trouble: Trouble) {
        if let Some(knowledge) = self.kinds.get_mut(&kind) {
            knowledge.trouble = Some(trouble);
        }
    }

    fn know(&mut self, kind: Kind) {
        if let Some(knowledge) = self.kinds.get_mut(&kind) {
            (knowledge.listed, knowledge.trouble) = (true, None);
        }
    }

    fn broken(&self, kind: Kind) -> Option<&BTreeMap<ObjectKey, String>> {
        self.kinds.get(&kind).map(|knowledge| &knowledge.broken)
    }

    /// What is wrong with objects that cannot be read.
    fn unreadable(&self) -> impl Iterator<Item = Problem> {
        let kinds = [(Kind::Pools, POOL), (Kind::Advertisements, ADVERTISEMENT), (Kind::Communities, COMMUNITY)];
        kinds.into_iter().flat_map(|(kind, name)| {
            self.broken(kind).into_iter().flatten().map(move |(key, error)| {
                let problem = Problem::error(format!("cannot be read and has no effect: {error}"));
                problem.of(format!("{name}{key}")).mend("write it as its CRD says")
            })
        })
    }

    fn is_listed(&self, kind: Kind) -> bool {
        self.kinds.get(&kind).is_some_and(|knowledge| knowledge.listed)
    }

    /// Whether it is listed, or waiting for it makes no sense.
    fn is_decided(&self, kind: Kind) -> bool {
        let hopeless = |trouble: &Trouble| match trouble {
            Trouble::Forbidden(_) | Trouble::Unknown(_) => true,
            Trouble::Failed(_) => false,
        };
        let is_decided = |knowledge: &Knowledge| knowledge.listed || knowledge.trouble.as_ref().is_some_and(hopeless);
        self.kinds.get(&kind).is_some_and(is_decided)
    }

    fn serve_if_all_is_known(&mut self) {
        if self.phase == Phase::Judging && self.is_listed(Kind::Services) {
            self.phase = Phase::Serving;
            self.planner.handle_synced();
        }
    }
}

/// How many notices wait at most. Chosen: two for each of 10 000 Services.
const MAX_NOTICES: usize = 20_000;
/// How problems call the kinds.
const POOL: &str = "IPAddressPool ";
const ADVERTISEMENT: &str = "L2Advertisement ";
const COMMUNITY: &str = "Community ";

#[cfg(test)]
mod tests;
