//! One term of office: from when this process may write until it may not.
//!
//! It begins with a fresh list of everything and ends with nothing remembered. A write of the leader before that lands after
//! the list is told by the watch, which goes on from the version of the list. No write begins outside of the time that
//! the lease grants, whatever held this process up before.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt as _, OptionFuture};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use garpike_controller_api::config::PoolName;
use garpike_controller_api::{IPAddressPoolStatus, Problem, Scope};
use garpike_election::ServiceKey;
use garpike_kubernetes::Recorder;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::foreign;
use super::lease::Leadership;
use super::watches::{Input, Watches};
use super::writes::{self, ConditionOutcome, Outcome, PoolOutcome};
use crate::health::{Doing, Health};
use crate::metrics;
use crate::planner::{Failure, Write};
use crate::registry::{Change, Kind, Notice, Registry, Written};

/// What a term reports to, and what it learns from.
#[derive(Clone)]
pub(crate) struct Office {
    pub(crate) client: Client,
    pub(crate) scope: Scope,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) recorder: Recorder,
    pub(crate) health: watch::Sender<Health>,
    /// How many addresses of each pool are held and free.
    pub(crate) counts: watch::Sender<BTreeMap<PoolName, IPAddressPoolStatus>>,
    /// What is wrong with pools and advertisements; `None` until they were judged.
    pub(crate) problems: watch::Sender<Option<Vec<Problem>>>,
    pub(crate) stop: CancellationToken,
}

/// Why a term ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The lease is lost.
    Lost,
    /// A controller of MetalLB has come.
    Foreign,
    /// The process is to end, and no write is under way.
    Stopped,
    /// The process is to end, and the last writes were not answered.
    Cut,
}

/// Gives addresses until the term ends. `from` is when it began, as [`Leadership`] has it.
pub(crate) async fn serve(office: Office, from: Instant) -> End {
    let pods: Api<Pod> = Api::namespaced(office.client.clone(), &office.scope.namespace);
    let mut foreign = pin!(foreign::appears(&pods));
    let mut leadership = office.leadership.clone();
    let mut lost = pin!(async move {
        let ours = |leadership: &Leadership| matches!(leadership, Leadership::Leading { from: f, .. } if *f == from);
        // The sender lives as long as the process.
        let _ = leadership.wait_for(|leadership| !ours(leadership)).await;
    });
    let stop = office.stop.clone();
    let mut term = Term::new(office);
    loop {
        term.handle_timeout();
        term.begin_writes();
        term.begin_conditions();
        term.report();
        let wake = sleep_until(term.wake_at().into());
        tokio::select! {
            biased;
            () = stop.cancelled() => return term.end().await,
            () = &mut lost => return End::Lost,
            () = &mut foreign => return End::Foreign,
            Some((write, outcome)) = term.under_way.next() => term.handle_outcome(&write, outcome),
            Some((service, outcome)) = term.conditions.next() => term.handle_condition_outcome(&service, outcome),
            Some(outcomes) = OptionFuture::from(term.pool_writes.as_mut()) => term.handle_pool_outcomes(outcomes),
            Some(input) = term.watches.next() => term.handle_input(input),
            () = wake => {}
        }
    }
}

struct Term {
    office: Office,
    registry: Registry,
    watches: Watches,
    under_way: FuturesUnordered<BoxFuture<'static, (Write, Outcome)>>,
    pool_writes: Option<BoxFuture<'static, Vec<PoolOutcome>>>,
    conditions: FuturesUnordered<BoxFuture<'static, (ServiceKey, ConditionOutcome)>>,
    /// Whether conditions may be written, as far as is known.
    may_write_conditions: bool,
    /// The API server has asked not to be asked before.
    throttled_until: Option<Instant>,
    /// When the pools are to be judged; `None`: nothing has changed.
    judge_at: Option<Instant>,
    /// Pools are not reported before.
    report_at: Instant,
    /// What was told of the last writes that failed, until one succeeds.
    trouble: Option<String>,
    began: Instant,
}

impl Term {
    fn new(office: Office) -> Self {
        let now = now();
        metrics::leading();
        office.health.send_if_modified(|health| health.set(Doing::Reading));
        // What an earlier term found is not known to be so.
        office.problems.send_replace(None);
        Self {
            registry: Registry::new(office.scope.clone()),
            watches: Watches::new(&office.client, &office.scope.namespace),
            office,
            under_way: FuturesUnordered::new(),
            pool_writes: None,
            conditions: FuturesUnordered::new(),
            may_write_conditions: true,
            throttled_until: None,
            judge_at: None,
            report_at: now,
            trouble: None,
            began: now,
        }
    }

    fn begin_writes(&mut self) {
        let now = now();
        let throttled = self.throttled_until.is_some_and(|until| now < until);
        while !throttled && self.under_way.len() < IN_FLIGHT && self.office.leadership.borrow().leads(now) {
            let Some((write, body)) = self.registry.poll_write() else { break };
            debug!(service = %write.service, addresses = ?write.addresses, "writing");
            self.under_way.push(writes::service(self.office.client.clone(), write, body).boxed());
        }
    }

    /// Writes conditions while no address waits to be written.
    fn begin_conditions(&mut self) {
        let now = now();
        let idle = self.under_way.is_empty() && self.registry.is_serving() && self.throttled_until.is_none();
        while idle && self.may_write_conditions && self.conditions.len() < CONDITIONS_IN_FLIGHT {
            if !self.office.leadership.borrow().leads(now) {
                break;
            }
            let Some(write) = self.registry.poll_condition() else { break };
            debug!(service = %write.service, "writing a condition");
            self.conditions.push(writes::condition(self.office.client.clone(), write).boxed());
        }
    }

    fn handle_condition_outcome(&mut self, service: &ServiceKey, outcome: ConditionOutcome) {
        let seen = match outcome {
            ConditionOutcome::Written(seen) => Some(*seen),
            ConditionOutcome::Gone => None,
            ConditionOutcome::Forbidden(error) => {
                if self.may_write_conditions {
                    info!(error, "no conditions are written to Services; events say the same");
                }
                self.may_write_conditions = false;
                None
            }
            // Said again with the next change of the Service.
            ConditionOutcome::Failed(error) => {
                debug!(%service, error, "a condition cannot be written");
                None
            }
        };
        self.registry.handle_condition_written(service, seen, now());
    }

    fn handle_outcome(&mut self, write: &Write, outcome: Outcome) {
        let now = now();
        let (name, trouble, written) = match outcome {
            Outcome::Written(seen) => ("written", None, Written::Done(seen)),
            Outcome::Conflict => ("conflict", None, Written::Failed(Failure::Conflict)),
            Outcome::Gone => ("gone", None, Written::Gone),
            Outcome::Refused { text, after } => {
                let failure = match after {
                    Some(after) => {
                        self.throttled_until = Some(now + after.min(LONGEST_THROTTLE));
                        Failure::Throttled
                    }
                    None => Failure::Refused,
                };
                ("refused", Some(text), Written::Failed(failure))
            }
            Outcome::Unknown { text } => ("unknown", Some(text), Written::Failed(Failure::Unknown)),
        };
        metrics::write_ended(name);
        let done = matches!(written, Written::Done(_));
        if let Some(since) = self.registry.handle_written(write, written, now) {
            metrics::published(now.saturating_duration_since(since));
        }
        if done {
            self.trouble = None;
        } else if let Some(text) = trouble {
            metrics::update_failed();
            if self.trouble.as_ref() != Some(&text) {
                warn!(service = %write.service, error = text, "a status cannot be written: trying again");
                self.trouble = Some(text);
            }
        }
    }

    fn handle_pool_outcomes(&mut self, outcomes: Vec<PoolOutcome>) {
        self.pool_writes = None;
        for PoolOutcome { name, result } in outcomes {
            match result {
                Ok(status) => self.registry.handle_pool_written(&name, status),
                // Tried again when something changes, or with the next list.
                Err(error) => {
                    metrics::update_failed();
                    debug!(pool = %name, error, "the status of a pool cannot be written: trying again");
                }
            }
        }
    }

    fn handle_input(&mut self, input: Input) {
        metrics::updated();
        let before = self.registry.troubles();
        let change = match input {
            Input::Pools(update) => self.registry.handle_pools(update),
            Input::Advertisements(update) => self.registry.handle_advertisements(update),
            Input::Communities(update) => self.registry.handle_communities(update),
            Input::Namespaces(update) => self.registry.handle_namespaces(update),
            Input::Services(update) => {
                self.registry.handle_services(update, now());
                Change::Other
            }
        };
        match change {
            // Many objects are often applied together, and each judgement looks at every Service.
            Change::Pools => self.judge_at = self.judge_at.or_else(|| Some(now() + GATHER)),
            Change::Other => {}
        }
        let troubles = self.registry.troubles();
        for (kind, trouble) in troubles.iter().filter(|(kind, trouble)| before.get(kind) != Some(trouble)) {
            metrics::update_failed();
            warn!(kind = kind.as_str(), trouble, "a kind cannot be read: going on by what is known of it");
        }
        for kind in before.keys().filter(|kind| !troubles.contains_key(kind)) {
            info!(kind = kind.as_str(), "a kind can be read again");
        }
        if troubles != before {
            self.tell_troubles(troubles);
        }
    }

    fn tell_troubles(&self, troubles: BTreeMap<Kind, String>) {
        self.office.health.send_modify(|health| health.troubles = troubles);
    }

    fn handle_timeout(&mut self) {
        let now = now();
        if self.judge_at.is_some_and(|at| at <= now) {
            self.judge_at = None;
            self.registry.judge_pools();
            self.tell_problems();
        }
        if self.throttled_until.is_some_and(|until| until <= now) {
            self.throttled_until = None;
        }
        self.registry.handle_timeout(now);
    }

    fn tell_problems(&self) {
        if !self.registry.is_configured() {
            return;
        }
        let problems = self.registry.problems();
        let before = self.office.problems.borrow().clone().unwrap_or_default();
        for problem in problems.iter().filter(|problem| !before.contains(problem)) {
            warn!("{problem}");
        }
        let errors = problems.iter().filter(|problem| problem.severity == garpike_controller_api::Severity::Error);
        metrics::configured(errors.count());
        self.office.health.send_modify(|health| health.problems = problems.len());
        self.office.problems.send_replace(Some(problems.to_vec()));
    }

    /// Tells people and monitors what is new.
    fn report(&mut self) {
        self.tell_notices();
        metrics::queue_depth(self.registry.writes_due() + self.under_way.len());
        let now = now();
        if !self.registry.is_serving() || now < self.report_at {
            return;
        }
        self.report_at = now + REPORT_EACH;
        self.registry.handle_condition_tick();
        let first = self.office.health.send_if_modified(|health| health.set(Doing::Serving));
        if first {
            let took = now.saturating_duration_since(self.began);
            info!(?took, "all Services and pools are known: giving addresses");
        }
        let counts = self.registry.counts();
        self.office.counts.send_if_modified(|shown| {
            let changed = *shown != counts;
            *shown = counts;
            changed
        });
        let writes = self.registry.pool_writes();
        if self.pool_writes.is_none() && !writes.is_empty() && self.office.leadership.borrow().leads(now) {
            let api = Api::namespaced(self.office.client.clone(), &self.office.scope.namespace);
            self.pool_writes = Some(writes::pools(api, writes).boxed());
        }
    }

    /// Tells events while nothing more important is to be sent: each is a request, and so is an address.
    fn tell_notices(&mut self) {
        let busy = self.under_way.len() == IN_FLIGHT;
        let room = if busy { 0 } else { self.office.recorder.room() };
        for Notice { regarding, severity, reason, message } in self.registry.take_notices(room) {
            debug!(service = regarding.name, reason, message, "event");
            self.office.recorder.tell(regarding, severity, &reason, message);
        }
    }

    fn wake_at(&self) -> Instant {
        let throttled = self.throttled_until;
        let times = [self.registry.poll_timeout(), self.judge_at, throttled];
        let next = times.into_iter().flatten().min();
        let report = if self.registry.is_serving() { self.report_at } else { now() + REPORT_EACH };
        next.map_or(report, |next| next.min(report))
    }

    /// Waits for the answers to the writes under way, not for long.
    async fn end(mut self) -> End {
        let answered = timeout(LAST_ANSWERS_WITHIN, async {
            while self.under_way.next().await.is_some() {}
            if let Some(writes) = self.pool_writes.take() {
                writes.await;
            }
        });
        match answered.await {
            Ok(()) => End::Stopped,
            Err(_) => End::Cut,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// How many writes are under way at once. Design value: more are not faster with the API server that was measured.
const IN_FLIGHT: usize = 16;
/// Chosen: people read them, and addresses go first.
const CONDITIONS_IN_FLIGHT: usize = 4;
/// Chosen: a file with many pools is applied in this time.
const GATHER: Duration = Duration::from_millis(20);
/// How often pools are reported at most. Design value.
const REPORT_EACH: Duration = Duration::from_secs(1);
/// The longest pause that an API server may ask for. Chosen: as long as ours grow by themselves.
const LONGEST_THROTTLE: Duration = Duration::from_secs(30);
/// How long the last answers are waited for. Chosen: the process ends within a second of SIGTERM, and the lease is given
/// back in it.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_millis(500);
