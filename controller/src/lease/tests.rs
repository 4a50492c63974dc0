use proptest::prelude::*;

use super::*;

#[test]
fn a_lease_that_was_given_back_or_never_was_is_taken_at_once() {
    let now = start();

    assert_eq!(decide(None, &me(), now), Decision::Acquire(Predecessor::Done));
    assert_eq!(decide(Some((&shown(""), now)), &me(), now), Decision::Acquire(Predecessor::Done));
}

#[test]
fn a_lease_of_somebody_else_is_taken_when_it_has_not_changed_for_its_duration() {
    let since = start();
    let lease = shown("other_1");

    assert_eq!(decide(Some((&lease, since)), &me(), since), Decision::Wait(since + DURATION));
    let later = since + DURATION;
    assert_eq!(decide(Some((&lease, since)), &me(), later), Decision::Acquire(Predecessor::Silent));
}

#[test]
fn a_lease_of_an_earlier_process_of_this_pod_is_taken_at_once() {
    let now = start();

    assert_eq!(decide(Some((&shown("pod-a_0"), now)), &me(), now), Decision::Acquire(Predecessor::Silent));
    let nameless = Identity { pod: String::new(), process: "2".to_owned() };
    assert_eq!(decide(Some((&shown("_1"), now)), &nameless, now), Decision::Wait(now + DURATION));
}

#[test]
fn an_absurd_duration_is_bounded() {
    let now = start();
    let lease = Shown { duration: Duration::from_secs(1_000_000), ..shown("other_1") };

    assert_eq!(decide(Some((&lease, now)), &me(), now), Decision::Wait(now + LONGEST));
}

proptest! {
    #[test]
    fn no_two_lead_at_one_time(steps in prop::collection::vec(step(), 1..400)) {
        let mut world = World::new();
        for step in steps {
            world.apply(step);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The candidate looks at the lease.
    Look(usize),
    /// The candidate asks for what it has decided; the request needs some ms to get there, its answer some more.
    Ask(usize, u64, u64),
    /// The candidate ends without a word; another process of its pod begins.
    Crash(usize),
    /// The candidate gives the lease back.
    GiveBack(usize),
    /// Some ms pass.
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..2_usize).prop_map(Step::Look),
        3 => (0..2_usize, 0..2000_u64, 0..1500_u64).prop_map(|(who, there, back)| Step::Ask(who, there, back)),
        1 => (0..2_usize).prop_map(Step::Crash),
        1 => (0..2_usize).prop_map(Step::GiveBack),
        4 => (1..1200_u64).prop_map(Step::Pass),
    ]
}

/// Two candidates, a lease, and requests that are late.
struct World {
    now: Instant,
    lease: Option<Shown>,
    versions: u64,
    candidates: [Candidate; 2],
    requests: Vec<Request>,
}

struct Candidate {
    me: Identity,
    known: Option<(Shown, Instant)>,
    /// From when until when it leads.
    tenure: Option<(Instant, Instant)>,
}

struct Request {
    from: Identity,
    asked: Instant,
    leads_from: Instant,
    on: Option<String>,
    arrives: Instant,
    answered: Instant,
    outcome: Option<Option<Shown>>,
}

impl World {
    fn new() -> Self {
        let candidate = |pod: &str| Candidate { me: identity(pod, 0), known: None, tenure: None };
        let candidates = [candidate("a"), candidate("b")];
        Self { now: start(), lease: None, versions: 0, candidates, requests: Vec::new() }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Look(who) => self.look(who),
            Step::Ask(who, there, back) => self.ask(who, Duration::from_millis(there), Duration::from_millis(back)),
            Step::Crash(who) => {
                self.versions += 1;
                let me = identity(&self.candidates[who].me.pod, self.versions);
                self.candidates[who] = Candidate { me, known: None, tenure: None };
            }
            Step::GiveBack(who) => {
                let candidate = &mut self.candidates[who];
                // As the shell does it: it stops to write, waits for its answers, and asks on the version that it knows.
                let leads = candidate.tenure.take().is_some_and(|(from, until)| from <= self.now && self.now < until);
                let known = candidate.known.as_ref().map(|(shown, _)| shown.version.clone());
                if leads && self.lease.as_ref().map(|lease| lease.version.clone()) == known {
                    self.write("");
                }
            }
            Step::Pass(ms) => {
                for _ in 0..ms.div_ceil(50) {
                    self.now += Duration::from_millis(50);
                    self.deliver();
                    self.check();
                }
            }
        }
        self.check();
    }

    fn look(&mut self, who: usize) {
        let candidate = &mut self.candidates[who];
        let version = |shown: &Shown| shown.version.clone();
        candidate.known = match (self.lease.clone(), candidate.known.take()) {
            (Some(lease), Some((old, since))) if version(&old) == version(&lease) => Some((old, since)),
            (Some(lease), _) => Some((lease, self.now)),
            (None, _) => None,
        };
    }

    fn ask(&mut self, who: usize, there: Duration, back: Duration) {
        let candidate = &self.candidates[who];
        let known = candidate.known.as_ref().map(|(shown, since)| (shown, *since));
        let leads_from = match (decide(known, &candidate.me, self.now), candidate.tenure) {
            (Decision::Wait(_), _) => return,
            (Decision::Renew, Some((from, _))) => from,
            (Decision::Renew, None) | (Decision::Acquire(Predecessor::Silent), _) => self.now + Duration::from_secs(1),
            (Decision::Acquire(Predecessor::Done), _) => self.now,
        };
        self.requests.push(Request {
            from: candidate.me.clone(),
            asked: self.now,
            leads_from,
            on: candidate.known.as_ref().map(|(shown, _)| shown.version.clone()),
            arrives: self.now + there,
            answered: self.now + there + back,
            outcome: None,
        });
        self.deliver();
    }

    fn deliver(&mut self) {
        let mut requests = std::mem::take(&mut self.requests);
        requests.sort_by_key(|request| request.arrives);
        for request in &mut requests {
            if request.outcome.is_none() && request.arrives <= self.now {
                let matches = self.lease.as_ref().map(|lease| lease.version.clone()) == request.on;
                if matches {
                    self.write(&request.from.to_string());
                }
                request.outcome = Some(self.lease.clone().filter(|_| matches));
            }
        }
        for request in requests {
            let Some(outcome) = request.outcome.clone().filter(|_| request.answered <= self.now) else {
                self.requests.push(request);
                continue;
            };
            // Nobody waits for an answer for longer than a second.
            let in_time = request.answered - request.asked <= Duration::from_secs(1);
            let candidate = self.candidates.iter_mut().find(|candidate| candidate.me == request.from);
            if let (Some(lease), Some(candidate), true) = (outcome, candidate, in_time) {
                candidate.known = Some((lease, request.asked));
                candidate.tenure = Some((request.leads_from, request.asked + HELD_FOR));
            }
        }
    }

    fn write(&mut self, holder: &str) {
        self.versions += 1;
        self.lease = Some(Shown { version: self.versions.to_string(), ..shown(holder) });
    }

    fn check(&self) {
        let leads =
            |candidate: &&Candidate| candidate.tenure.is_some_and(|(from, until)| from <= self.now && self.now < until);
        assert!(self.candidates.iter().filter(leads).count() < 2, "two lead");
    }
}

fn me() -> Identity {
    identity("pod-a", 1)
}

fn identity(pod: &str, process: u64) -> Identity {
    Identity { pod: pod.to_owned(), process: process.to_string() }
}

fn shown(holder: &str) -> Shown {
    Shown { holder: holder.to_owned(), duration: DURATION, version: "1".to_owned() }
}

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
fn start() -> Instant {
    Instant::now()
}
