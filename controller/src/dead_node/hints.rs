//! From a verdict to the pods of the node.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use garpike_election::NodeName;

use super::guard::{Given, Guard, Share};
use super::pod::{Metadata, PodOnNode};
use super::testimony::{Accounts, Testimony, Verdict};

/// `--dead-node-hint`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Speakers are not asked
    Off,
    /// Nothing is marked; events on the Nodes tell how much sooner it would have been
    DryRun,
    /// The Ready pods of a dead node are marked not ready
    On,
}

/// The core: who is hinted, and what becomes of it.
#[derive(Debug)]
pub(crate) struct Hints {
    mode: Mode,
    share: Share,
    own: String,
    testimony: Testimony,
    cases: BTreeMap<NodeName, Case>,
    given: Given,
    looks: VecDeque<NodeName>,
    marks: VecDeque<(NodeName, Metadata)>,
    events: VecDeque<Event>,
}

/// A node that somebody takes for dead, in one of its lives.
#[derive(Debug)]
struct Case {
    verdict: Verdict,
    step: Step,
    /// When it was decided that its pods are marked, or would be.
    hinted: Option<Instant>,
    /// When its kubelet had renewed its Lease, by the first look.
    renewed: Option<Instant>,
    rounds: u32,
    marked: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Too few tell it, until then.
    Unconfirmed { until: Instant },
    /// The API server is asked about the node.
    Looking,
    /// So many pods wait for an answer; of those that were answered, so many failed, and why.
    Marking { open: usize, failed: usize, forbidden: usize },
    /// Some pods could not be marked, and are tried again.
    Pausing { until: Instant },
    /// It would have been hinted: when does Kubernetes notice?
    Forecasting { look_at: Instant },
    /// There is nothing left to do in this life.
    Ended,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    /// See what Kubernetes knows of the node, for [`Hints::handle_found`].
    Look {
        /// The node.
        node: NodeName,
        /// Whether its pods are wanted.
        mode: Mode,
    },
    /// Mark the pod, for [`Hints::handle_marked`].
    Mark {
        /// The node on which it is.
        node: NodeName,
        /// The pod.
        pod: Metadata,
        /// What its condition is to say.
        message: String,
    },
}

/// What Kubernetes knows of a node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Found {
    /// When its kubelet renewed its Lease last, by its own clock; `None`: it has no Lease.
    pub(crate) renewed: Option<Instant>,
    /// Whether Kubernetes has noticed that the node is not ready.
    pub(crate) noticed: bool,
    /// The pods, if they were wanted.
    pub(crate) pods: Vec<PodOnNode>,
}

/// Why nothing is known of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unseen {
    /// There is none.
    NoSuchNode,
    /// The right is missing.
    Forbidden(String),
    /// The API server does not answer, or with something else.
    Failed(String),
}

/// What came of a mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Marked {
    /// The pod is not ready.
    Done,
    /// The pod is gone, or another one has its name.
    Gone,
    /// The right is missing.
    Forbidden,
    /// Nobody knows, or it may be tried again.
    Failed,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// Somebody takes the host of this node for dead.
    Verdict { node: NodeName },
    /// There is no hint for the node.
    Refused { node: NodeName, guard: Guard },
    /// The API server does not tell what it is asked.
    Trouble { node: NodeName, text: String },
    /// The node passed all guards.
    Hinted { node: NodeName, holders: u16, known: u16 },
    /// So many pods of the node are marked, so long after it was heard for the last time; so many are not, for want of a right or of an
    /// answer.
    Marked { node: NodeName, pods: usize, after: Duration, forbidden: usize, failed: usize },
    /// Kubernetes has noticed by itself, so long after it would have been hinted.
    WouldHave { node: NodeName, sooner: Duration },
    /// The node lived all the time.
    False { node: NodeName },
}

impl Hints {
    /// Those of the namespace `own` are Garpike's own pods.
    pub(crate) fn new(mode: Mode, share: Share, own: &str) -> Self {
        Self {
            mode,
            share,
            own: own.to_owned(),
            testimony: Testimony::default(),
            cases: BTreeMap::new(),
            given: Given::default(),
            looks: VecDeque::new(),
            marks: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The observed speakers tell this at `now`, and nothing else.
    pub(crate) fn handle_accounts(&mut self, accounts: Accounts, now: Instant) {
        self.testimony.handle(accounts, now);
        self.follow_the_living();
        self.cases.retain(|node, case| {
            let recent = now.saturating_duration_since(case.verdict.told) < REMEMBERED;
            recent || self.testimony.verdict(node).is_some()
        });
        let verdicts: Vec<(NodeName, Verdict)> =
            self.testimony.verdicts().map(|(node, verdict)| (node.clone(), *verdict)).collect();
        for (node, verdict) in verdicts {
            match self.cases.get_mut(&node).filter(|case| case.verdict.life == verdict.life) {
                Some(Case { verdict: known, .. }) => {
                    *known = Verdict { told: known.told, alive_until: known.alive_until, ..verdict };
                }
                None => {
                    self.events.push_back(Event::Verdict { node: node.clone() });
                    let step = Step::Unconfirmed { until: now + CONFIRM_WITHIN };
                    let case = Case { verdict, step, hinted: None, renewed: None, rounds: 0, marked: 0 };
                    self.cases.insert(node.clone(), case);
                }
            }
            self.confirm(&node, &verdict, now);
        }
    }

    /// Kubernetes knows this of the node.
    pub(crate) fn handle_found(&mut self, node: &NodeName, found: Result<Found, Unseen>, now: Instant) {
        let Some(case) = self.cases.get(node) else { return };
        match (case.step, found) {
            (Step::Looking, Ok(found)) => self.decide(node, case.verdict, &found, now),
            (Step::Looking, Err(unseen)) => self.look_again(node, unseen, now),
            (Step::Forecasting { .. }, found) => self.forecast(node, found.is_ok_and(|found| found.noticed), now),
            (Step::Unconfirmed { .. } | Step::Marking { .. } | Step::Pausing { .. } | Step::Ended, _) => {}
        }
    }

    /// This came of [`Request::Mark`].
    pub(crate) fn handle_marked(&mut self, node: &NodeName, marked: Marked, now: Instant) {
        let Some(case) = self.cases.get_mut(node) else { return };
        let Step::Marking { open, mut failed, mut forbidden } = case.step else { return };
        match marked {
            Marked::Done => case.marked += 1,
            Marked::Gone => {}
            Marked::Forbidden => forbidden += 1,
            Marked::Failed => failed += 1,
        }
        let open = open.saturating_sub(1);
        case.step = Step::Marking { open, failed, forbidden };
        if open == 0 {
            self.end_round(node, failed, forbidden, now);
        }
    }

    /// Does what is due at `now`.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<(NodeName, Step)> =
            self.cases.iter().filter(|(_, case)| case.step.due().is_some_and(|at| at <= now)).map(due).collect();
        for (node, step) in due {
            match step {
                Step::Unconfirmed { .. } => {
                    let guard = self.cases.get(&node).map_or(Guard::OneSpeaker, |case| unconfirmed(&case.verdict));
                    self.refuse(&node, guard);
                }
                Step::Pausing { .. } => self.look(&node),
                Step::Forecasting { .. } => {
                    // Unless no answer comes.
                    self.set(&node, Step::Forecasting { look_at: now + FORECAST_AGAIN });
                    self.looks.push_back(node);
                }
                Step::Looking | Step::Marking { .. } | Step::Ended => {}
            }
        }
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.cases.values().filter_map(|case| case.step.due()).min()
    }

    /// The next thing to do. Looks go first.
    pub(crate) fn poll_request(&mut self) -> Option<Request> {
        if let Some(node) = self.looks.pop_front() {
            return Some(Request::Look { node, mode: self.mode });
        }
        let (node, pod) = self.next_mark()?;
        let message = self.cases.get(&node).map(|case| message(&case.verdict)).unwrap_or_default();
        Some(Request::Mark { node, pod, message })
    }

    /// Garpike's own pods are marked when all others of the node are: kube-proxy takes in one change of endpoints at once and the
    /// following ones of a second together, and the endpoint of our webhook must not be that one.
    fn next_mark(&mut self) -> Option<(NodeName, Metadata)> {
        let at = self.marks.iter().position(|(node, pod)| pod.namespace != self.own || !self.marks_under_way(node))?;
        self.marks.remove(at)
    }

    fn marks_under_way(&self, node: &NodeName) -> bool {
        let waiting = self.marks.iter().filter(|(other, _)| other == node).count();
        self.cases.get(node).is_some_and(|case| matches!(case.step, Step::Marking { open, .. } if open > waiting))
    }

    /// What has happened.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Ends the cases of nodes that are told to live. Who is told neither to live nor to be dead, as while nobody is observed, stays
    /// what it was.
    fn follow_the_living(&mut self) {
        for (node, case) in &mut self.cases {
            let stands = self.testimony.verdict(node).is_some_and(|verdict| verdict.life == case.verdict.life);
            let Some(life) = self.testimony.life_of(node).filter(|_| !stands) else { continue };
            self.looks.retain(|other| other != node);
            self.marks.retain(|(other, _)| other != node);
            case.step = Step::Ended;
            let hinted = case.hinted.take().is_some();
            if hinted && life.process == case.verdict.life.process {
                self.events.push_back(Event::False { node: node.clone() });
            }
        }
    }

    /// Looks at the node as soon as enough speakers tell that it is dead.
    fn confirm(&mut self, node: &NodeName, verdict: &Verdict, now: Instant) {
        if !self.cases.get(node).is_some_and(|case| matches!(case.step, Step::Unconfirmed { .. })) {
            return;
        }
        let Some(alive_until) = verdict.alive_until else { return self.refuse(node, Guard::Unwitnessed) };
        if verdict.told.saturating_duration_since(alive_until) >= LATE {
            return self.refuse(node, Guard::Late);
        }
        if verdict.speakers < SPEAKERS_AGREE || !verdict.is_by_majority() {
            return;
        }
        if self.given.holds_down(node, now) {
            return self.refuse(node, Guard::HoldDown);
        }
        self.look(node);
    }

    fn look(&mut self, node: &NodeName) {
        self.set(node, Step::Looking);
        self.looks.push_back(node.clone());
    }

    fn look_again(&mut self, node: &NodeName, unseen: Unseen, now: Instant) {
        let (text, tries) = match unseen {
            Unseen::NoSuchNode => return self.refuse(node, Guard::NoSuchNode),
            Unseen::Forbidden(text) => (text, Tries::Enough),
            Unseen::Failed(text) => (text, Tries::More),
        };
        self.events.push_back(Event::Trouble { node: node.clone(), text });
        if tries == Tries::Enough || !self.pause(node, now) {
            self.refuse(node, Guard::Unreadable);
        }
    }

    fn decide(&mut self, node: &NodeName, verdict: Verdict, found: &Found, now: Instant) {
        let Some(case) = self.cases.get_mut(node) else { return };
        let Some(renewed) = found.renewed else { return self.refuse(node, Guard::Lease) };
        let first = *case.renewed.get_or_insert(renewed);
        // The second holds for a clock that is behind, too.
        if renewed > verdict.told || renewed > first + SAME_RENEWAL {
            return self.refuse(node, Guard::Lease);
        }
        let mut pods: Vec<Metadata> =
            found.pods.iter().filter(|pod| pod.is_ready_on(node)).map(|pod| pod.metadata.clone()).collect();
        pods.sort_by_key(|pod| pod.namespace == self.own);
        if case.hinted.is_none() {
            if let Some(guard) = self.too_many(node, &verdict, pods.len(), now) {
                return self.refuse(node, guard);
            }
            self.given.note(node, pods.len(), now);
            if let Some(case) = self.cases.get_mut(node) {
                case.hinted = Some(now);
            }
            let Verdict { holders, known, .. } = verdict;
            self.events.push_back(Event::Hinted { node: node.clone(), holders, known });
        }
        match self.mode {
            Mode::On if pods.is_empty() => self.end_round(node, 0, 0, now),
            Mode::On => {
                self.set(node, Step::Marking { open: pods.len(), failed: 0, forbidden: 0 });
                self.marks.extend(pods.into_iter().map(|pod| (node.clone(), pod)));
            }
            Mode::DryRun | Mode::Off => self.forecast(node, found.noticed, now),
        }
    }

    /// Whether more nodes or pods than allowed would be marked within a minute. Of those that die together the first by name go
    /// first, so that replicas choose the same.
    fn too_many(&self, node: &NodeName, verdict: &Verdict, pods: usize, now: Instant) -> Option<Guard> {
        let before = self.given.nodes(now).filter(|other| *other != node).count();
        let looked_at =
            |(other, case): &(&NodeName, &Case)| *other < node && case.step == Step::Looking && case.hinted.is_none();
        let together = self.cases.iter().filter(looked_at).count();
        if before + together >= self.share.of(usize::from(verdict.known)) {
            return Some(Guard::Share);
        }
        (!self.given.has_room_for(pods, now)).then_some(Guard::Rate)
    }

    /// All pods of a round were answered.
    fn end_round(&mut self, node: &NodeName, failed: usize, forbidden: usize, now: Instant) {
        if failed > 0 && forbidden == 0 && self.pause(node, now) {
            return;
        }
        let Some(case) = self.cases.get_mut(node) else { return };
        case.step = Step::Ended;
        let pods = case.marked;
        let after = case.verdict.silent + now.saturating_duration_since(case.verdict.told);
        self.events.push_back(Event::Marked { node: node.clone(), pods, after, forbidden, failed });
    }

    fn forecast(&mut self, node: &NodeName, noticed: bool, now: Instant) {
        let Some(case) = self.cases.get_mut(node) else { return };
        let since = now.saturating_duration_since(case.hinted.unwrap_or(now));
        if noticed {
            case.step = Step::Ended;
            self.events.push_back(Event::WouldHave { node: node.clone(), sooner: since });
        } else if since >= FORECAST_FOR {
            case.step = Step::Ended;
        } else {
            case.step = Step::Forecasting { look_at: now + FORECAST_EACH };
        }
    }

    /// Tries again later; not for ever.
    fn pause(&mut self, node: &NodeName, now: Instant) -> bool {
        let Some(case) = self.cases.get_mut(node).filter(|case| case.rounds < ROUNDS_MAX) else { return false };
        case.step = Step::Pausing { until: now + FIRST_PAUSE.saturating_mul(1 << case.rounds) };
        case.rounds += 1;
        true
    }

    fn refuse(&mut self, node: &NodeName, guard: Guard) {
        self.set(node, Step::Ended);
        self.events.push_back(Event::Refused { node: node.clone(), guard });
    }

    fn set(&mut self, node: &NodeName, step: Step) {
        if let Some(case) = self.cases.get_mut(node) {
            case.step = step;
        }
    }
}

impl Step {
    fn due(self) -> Option<Instant> {
        match self {
            Self::Unconfirmed { until } | Self::Pausing { until } => Some(until),
            Self::Forecasting { look_at } => Some(look_at),
            Self::Looking | Self::Marking { .. } | Self::Ended => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tries {
    More,
    Enough,
}

fn due((node, case): (&NodeName, &Case)) -> (NodeName, Step) {
    (node.clone(), case.step)
}

/// What is missing of a verdict that was not confirmed in time.
fn unconfirmed(verdict: &Verdict) -> Guard {
    if verdict.speakers < SPEAKERS_AGREE { Guard::OneSpeaker } else { Guard::Minority }
}

/// What the condition of a pod says.
fn message(verdict: &Verdict) -> String {
    let Verdict { holders, known, .. } = verdict;
    format!("Garpike: the host of the node is dead, as {holders} of {known} speakers hold")
}

/// Chosen: a majority of the three that are observed.
const SPEAKERS_AGREE: usize = 2;
/// Chosen: a verdict reaches all speakers within milliseconds, and who lost it learns it with the next ping of the dead.
const CONFIRM_WITHIN: Duration = Duration::from_secs(10);
/// Chosen: a connection to a speaker that has died itself is given up after 15 s.
const LATE: Duration = Duration::from_secs(20);
/// Chosen: the moment of a renewal is the same each time, but for the reading of two clocks.
const SAME_RENEWAL: Duration = Duration::from_secs(1);
/// Chosen: 0.5 s five times doubled is 15.5 s in all; Kubernetes notices after 50 s.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const ROUNDS_MAX: u32 = 5;
/// Chosen: far longer than anything here takes.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// Chosen: a second more or less of fifty does not matter.
const FORECAST_EACH: Duration = Duration::from_secs(1);
/// Chosen: longer than an answer is waited for.
const FORECAST_AGAIN: Duration = Duration::from_secs(10);
/// Chosen: Kubernetes with the most patient settings.
const FORECAST_FOR: Duration = Duration::from_secs(600);
