use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use garpike_election::NodeName;
use garpike_membership::{Account, Generation, HostDead, Life, ProcessId};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
/// How long a dead node was not heard before the verdict.
const SILENT: Duration = Duration::from_millis(160);
const OWN: &str = "metallb-system";

#[test]
fn the_ready_pods_of_a_node_that_a_majority_holds_for_dead_are_marked_once() {
    let mut world = World::of(4);
    world.die(4, 3);

    assert_eq!(world.requests(), [look(4)]);
    world.found(4, lease(-5), &[ready("a"), ready("b"), unready("c")]);
    assert_eq!(world.marks(), ["a", "b"]);
    world.run(300 * MS);
    world.marked(4, &[Marked::Done, Marked::Gone]);

    assert_eq!(
        world.events(),
        [
            Event::Verdict { node: name(4) },
            Event::Hinted { node: name(4), holders: 3, known: 4 },
            Event::Marked { node: name(4), pods: 1, after: SILENT + 300 * MS, forbidden: 0, failed: 0 },
        ]
    );
    // And it is told again and again.
    world.tell();
    world.run(100 * SECOND);
    assert_eq!((world.requests(), world.events()), (vec![], vec![]));
}

#[test]
fn the_mark_says_who_made_it_and_why() {
    let mut world = World::of(5);
    world.die(2, 4);
    world.requests();
    world.found(2, lease(-5), &[ready("a")]);

    let requests = world.requests();
    let [Request::Mark { node, pod, message }] = requests.as_slice() else { panic!("{requests:?}") };

    assert_eq!((node, pod.name.as_str(), pod.uid.as_str()), (&name(2), "a", "uid-a"));
    assert_eq!(message, "Garpike: the host of the node is dead, as 4 of 5 speakers hold");
}

#[test]
fn our_own_pods_are_marked_when_all_others_of_the_node_are() {
    let mut world = World::of(4);
    world.die(4, 3);
    world.requests();
    world.found(4, lease(-5), &[ready("own-one"), ready("a"), ready("own-two"), ready("b")]);

    assert_eq!(world.marks(), ["a", "b"]);
    world.marked(4, &[Marked::Done]);
    assert_eq!(world.marks(), [""; 0]);
    world.marked(4, &[Marked::Failed]);
    assert_eq!(world.marks(), ["own-one"]);
    world.marked(4, &[Marked::Done]);
    assert_eq!(world.marks(), ["own-two"]);
}

// Guards

#[test]
fn a_node_that_was_never_told_to_be_alive_is_left_alone() {
    let mut world = World::before_it_is_told(4);
    world.die(4, 3);

    assert_eq!((world.requests(), world.refusals()), (vec![], vec![Guard::Unwitnessed]));
}

#[test]
fn a_later_life_that_was_never_told_to_be_alive_is_left_alone() {
    let mut world = World::of(4);
    world.lives.get_mut(&name(4)).unwrap().generation.0 += 1;
    world.die(4, 3);

    assert_eq!((world.requests(), world.refusals()), (vec![], vec![Guard::Unwitnessed]));
}

#[test]
fn a_death_during_which_nobody_was_observed_is_left_alone() {
    for (gap, expected) in [(19 * SECOND, vec![]), (20 * SECOND, vec![Guard::Late])] {
        let mut world = World::of(4);
        world.observe(&[]);
        world.run(gap);
        world.observed = vec![name(1), name(2), name(3)];
        world.die(4, 3);

        assert_eq!(world.refusals(), expected);
    }
}

#[test]
fn the_word_of_one_speaker_is_not_enough() {
    let mut world = World::of(4);
    world.only_tell = Some(name(1));
    world.die(4, 3);
    assert_eq!(world.requests(), []);

    world.run(10 * SECOND);

    assert_eq!((world.requests(), world.refusals()), (vec![], vec![Guard::OneSpeaker]));
}

#[test]
fn the_dead_speaker_is_no_witness_of_its_own_death() {
    let mut world = World::of(4);
    world.observe(&[1, 4]);
    world.die(4, 3);
    world.run(10 * SECOND);

    assert_eq!((world.requests(), world.refusals()), (vec![], vec![Guard::OneSpeaker]));
}

#[test]
fn the_minority_and_equal_halves_leave_every_node_alone() {
    for (nodes, holders) in [(4, 2), (5, 2), (2, 1), (3, 1), (10, 5)] {
        let mut world = World::of(nodes);
        world.die(nodes, holders);
        world.run(10 * SECOND);

        let guard = if nodes == 2 { Guard::OneSpeaker } else { Guard::Minority };
        assert_eq!((world.requests(), world.refusals()), (vec![], vec![guard]), "{holders} of {nodes}");
    }
}

#[test]
fn a_majority_that_comes_a_moment_later_counts() {
    let mut world = World::of(4);
    world.die(4, 1);
    world.run(9 * SECOND);
    assert_eq!(world.requests(), []);

    world.die(4, 3);

    assert_eq!(world.requests(), [look(4)]);
}

/// Each side of a partition loses the nodes of the other one by one, and counts ever fewer as known.
#[test]
fn halves_that_part_slowly_count_all_nodes_of_the_last_minute() {
    let mut world = World::of(4);
    world.observe(&[1, 2]);
    world.die(3, 2);
    world.run(30 * SECOND);
    world.dead.insert(name(4), HostDead { life: world.lives[&name(4)], holders: 2, known: 3, silent: SILENT });
    world.tell();
    world.run(10 * SECOND);

    assert_eq!((world.requests(), world.refusals()), (vec![], vec![Guard::Minority, Guard::Minority]));
}

#[test]
fn a_kubelet_that_renewed_its_lease_after_the_verdict_lives() {
    let mut world = World::of(4);
    world.die(4, 3);
    world.requests();
    world.run(100 * MS);
    world.found(4, lease(0), &[ready("a")]);

    assert_eq!((world.requests(), world.refusals()), (vec![], vec![Guard::Lease]));
}

#[test]
fn a_kubelet_that_goes_on_renewing_by_a_clock_that_is_behind_lives() {
    let mut world = World::of(4);
    world.die(4, 3);
    world.requests();
    world.found(4, lease(-300), &[ready("a")]);
    world.requests();
    world.marked(4, &[Marked::Failed]);
    world.run(SECOND);
    assert_eq!(world.requests(), [look(4)]);
    world.found(4, lease(-290), &[ready("a")]);

    assert_eq!((world.requests(), world.refusals()), (vec![], vec![Guard::Lease]));
}

#[test]
fn a_node_without_a_lease_is_left_alone() {
    let mut world = World::of(4);
    world.die(4, 3);
    world.requests();
    world.answer(4, Ok(Found { pods: pods(&[ready("a")], 4), ..Found::default() }));

    assert_eq!((world.requests(), world.refusals()), (vec![], vec![Guard::Lease]));
}

#[test]
fn a_node_that_kubernetes_does_not_have_is_left_alone() {
    let mut world = World::of(4);
    world.die(4, 3);
    world.requests();
    world.answer(4, Err(Unseen::NoSuchNode));

    assert_eq!((world.requests(), world.refusals()), (vec![], vec![Guard::NoSuchNode]));
}

#[test]
fn without_the_right_to_look_nothing_is_marked_and_nothing_asked_again() {
    let mut world = World::of(4);
    world.die(4, 3);
    world.requests();
    world.answer(4, Err(Unseen::Forbidden("nodes is forbidden".to_owned())));
    world.run(100 * SECOND);

    assert_eq!((world.requests(), world.refusals()), (vec![], vec![Guard::Unreadable]));
}

#[test]
fn an_api_server_that_is_away_is_asked_five_times_more() {
    let mut world = World::of(4);
    world.die(4, 3);
    let mut asked = 0;
    while world.requests() == [look(4)] {
        asked += 1;
        world.answer(4, Err(Unseen::Failed("away".to_owned())));
        world.run(20 * SECOND);
    }

    assert_eq!((asked, world.refusals()), (6, vec![Guard::Unreadable]));
}

#[test]
fn no_more_nodes_than_the_share_are_hinted_within_a_minute() {
    let mut world = World::of(7);
    for (node, hinted) in [(7, true), (6, true), (5, false)] {
        world.die(node, 6);
        world.requests();
        world.found(node, lease(-5), &[ready("a")]);
        assert_eq!(!world.requests().is_empty(), hinted, "{node}");
        world.run(29 * SECOND);
    }
    assert_eq!(world.refusals(), [Guard::Share]);

    world.run(40 * SECOND);
    world.die(4, 6);

    world.requests();
    world.found(4, lease(-5), &[ready("a")]);
    assert_eq!(world.marks(), ["a"]);
}

#[test]
fn replicas_choose_the_same_of_the_nodes_that_die_together() {
    for order in [[4, 5], [5, 4]] {
        let mut world = World::of(5);
        for node in order {
            world.die(node, 3);
        }
        world.requests();
        for node in order {
            world.found(node, lease(-5), &[ready("a")]);
        }

        let marked: Vec<NodeName> = world.requests().into_iter().map(|request| node_of(&request)).collect();
        assert_eq!((marked, world.refusals()), (vec![name(4)], vec![Guard::Share]), "{order:?}");
    }
}

#[test]
fn no_more_than_a_thousand_pods_are_marked_within_a_minute_but_those_of_one_node() {
    let mut world = World::of(30);
    let full: Vec<Pod> = (0..1100).map(|_| ready("a")).collect();
    for (node, marks) in [(30, 1100), (29, 0)] {
        world.die(node, 29);
        world.requests();
        world.found(node, lease(-5), &full[..if node == 30 { 1100 } else { 1 }]);
        assert_eq!(world.requests().len(), marks, "{node}");
    }

    assert_eq!(world.refusals(), [Guard::Rate]);
}

#[test]
fn a_node_that_dies_again_and_again_is_left_alone_ever_longer() {
    let mut world = World::of(4);
    let dies = |world: &mut World| {
        world.die(4, 3);
        let hinted = world.requests() == [look(4)];
        if hinted {
            world.found(4, lease(-5), &[]);
        }
        world.come_back(4, ProcessId(rand_process(world)));
        hinted
    };
    assert!(dies(&mut world));
    world.run(59 * SECOND);
    assert!(!dies(&mut world));
    world.run(2 * SECOND);
    assert!(dies(&mut world), "60 s after the first");
    world.run(119 * SECOND);
    assert!(!dies(&mut world));
    world.run(2 * SECOND);
    assert!(dies(&mut world), "120 s after the second");

    assert_eq!(world.refusals(), [Guard::HoldDown, Guard::HoldDown]);
}

#[test]
fn a_speaker_that_is_behind_does_not_bring_back_an_old_verdict() {
    let mut world = World::of(4);
    let old = HostDead { life: world.lives[&name(4)], holders: 3, known: 4, silent: SILENT };
    world.lives.get_mut(&name(4)).unwrap().generation.0 += 1;
    world.tell();
    let mut accounts = world.accounts();
    for speaker in [1, 2] {
        let account = accounts.get_mut(&name(speaker)).unwrap();
        account.members.remove(&name(4));
        account.dead.insert(name(4), old);
    }
    world.hints.handle_accounts(accounts, world.now);
    world.run(10 * SECOND);

    assert_eq!((world.requests(), world.events()), (vec![], vec![]));
}

// Afterwards

#[test]
fn what_failed_is_tried_again_after_another_look_and_what_was_marked_is_not() {
    let mut world = World::of(4);
    world.die(4, 3);
    world.requests();
    world.found(4, lease(-5), &[ready("a"), ready("b")]);
    assert_eq!(world.marks(), ["a", "b"]);
    world.marked(4, &[Marked::Done, Marked::Failed]);
    assert_eq!(world.requests(), []);

    world.run(500 * MS);
    assert_eq!(world.requests(), [look(4)]);
    world.found(4, lease(-5), &[unready("a"), ready("b")]);
    assert_eq!(world.marks(), ["b"]);
    world.marked(4, &[Marked::Done]);

    let marked = Event::Marked { node: name(4), pods: 2, after: SILENT + 500 * MS, forbidden: 0, failed: 0 };
    assert_eq!(world.events().last(), Some(&marked));
}

#[test]
fn a_missing_right_to_mark_is_told_and_not_tried_again() {
    let mut world = World::of(4);
    world.die(4, 3);
    world.requests();
    world.found(4, lease(-5), &[ready("a"), ready("b")]);
    world.requests();
    world.marked(4, &[Marked::Forbidden, Marked::Forbidden]);
    world.run(100 * SECOND);

    let told = Event::Marked { node: name(4), pods: 0, after: SILENT, forbidden: 2, failed: 0 };
    assert_eq!((world.requests(), world.events().last()), (vec![], Some(&told)));
}

#[test]
fn a_node_that_stays_dead_for_a_day_is_hinted_once_and_told_once() {
    let mut world = World::of(4);
    world.die(4, 3);
    world.requests();
    world.found(4, lease(-5), &[]);
    world.events();
    for _ in 0..24 {
        world.run(3600 * SECOND);
        world.tell();
    }

    assert_eq!((world.requests(), world.events()), (vec![], vec![]));
}

#[test]
fn a_node_that_lived_all_the_time_is_a_false_hint_and_the_rest_is_not_marked() {
    let mut world = World::of(4);
    world.die(4, 3);
    world.requests();
    world.found(4, lease(-5), &[ready("a"), ready("b")]);
    let same = world.lives[&name(4)].process;
    world.come_back(4, same);

    assert_eq!((world.requests(), world.events().last()), (vec![], Some(&Event::False { node: name(4) })));
}

/// As a speaker that was cut off alone forgets what it held against the others, or an observer loses all speakers.
#[test]
fn a_verdict_that_is_told_again_in_the_same_life_is_no_second_hint() {
    let mut world = World::of(4);
    world.die(4, 3);
    world.requests();
    world.found(4, lease(-5), &[ready("a")]);
    world.requests();
    world.marked(4, &[Marked::Done]);
    for gap in [false, true] {
        world.run(300 * SECOND);
        if gap {
            world.observe(&[]);
        } else {
            world.dead.clear();
        }
        world.tell();
        world.run(SECOND);
        world.observe(&[1, 2, 3]);
        world.die(4, 3);

        assert_eq!(world.requests(), [], "{gap}");
    }
}

#[test]
fn a_node_that_was_booted_again_is_none() {
    let mut world = World::of(4);
    world.die(4, 3);
    world.requests();
    world.found(4, lease(-5), &[ready("a")]);
    world.come_back(4, ProcessId(99));

    assert!(!world.events().contains(&Event::False { node: name(4) }));
}

#[test]
fn to_see_what_it_would_do_nothing_is_marked_until_kubernetes_notices() {
    let mut world = World::in_mode(4, Mode::DryRun);
    world.die(4, 3);
    assert_eq!(world.requests(), [Request::Look { node: name(4), mode: Mode::DryRun }]);
    world.found(4, lease(-5), &[]);
    for _ in 0..49 {
        world.run(SECOND);
        assert_eq!(world.requests().len(), 1);
        // That it is asked again and again is no sign of life.
        world.found(4, lease(-5), &[]);
    }
    world.run(SECOND);
    world.requests();
    world.answer(4, Ok(Found { noticed: true, ..found(world.now, -5, &[], 4) }));
    world.run(100 * SECOND);

    assert_eq!(world.requests(), []);
    assert_eq!(world.events().last(), Some(&Event::WouldHave { node: name(4), sooner: 50 * SECOND }));
}

proptest! {
    /// Whatever the speakers tell and the API server answers: nothing is marked without a majority, above the share, or twice.
    #[test]
    fn the_guards_hold(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::of(NODES);
        let mut lives: BTreeSet<(NodeName, u64, String)> = BTreeSet::new();
        let mut hinted: Vec<(Instant, NodeName)> = Vec::new();
        for step in steps {
            match step {
                Step::Die { node, holders } => world.die(node, holders),
                Step::Return { node, generation } => {
                    world.dead.remove(&name(node));
                    world.lives.get_mut(&name(node)).unwrap().generation.0 += generation;
                    world.tell();
                }
                Step::Observe(nodes) => world.observe(&nodes),
                Step::Run(seconds) => world.run(seconds * SECOND),
            }
            let mut requests = world.requests();
            while let Some(request) = requests.pop() {
                match request {
                    Request::Look { node, .. } => {
                        world.hints.handle_found(&node, Ok(found(world.now, -20, &[ready("a"), ready("b")], number(&node))), world.now);
                    }
                    Request::Mark { node, pod, .. } => {
                        let verdict = world.dead[&node];
                        prop_assert!(verdict.holders * 2 > u16::from(NODES), "{verdict:?}");
                        prop_assert!(world.observed.iter().filter(|speaker| **speaker != node).count() >= 2);
                        let life = (node.clone(), verdict.life.generation.0, pod.name.clone());
                        prop_assert!(lives.insert(life), "{node} {} twice", pod.name);
                        if !hinted.iter().any(|(at, other)| *at == world.now && *other == node) {
                            hinted.push((world.now, node.clone()));
                        }
                        world.hints.handle_marked(&node, Marked::Done, world.now);
                    }
                }
                requests.extend(world.requests());
            }
            let recent = hinted.iter().filter(|(at, _)| world.now.duration_since(*at) < 60 * SECOND);
            let nodes: BTreeSet<&NodeName> = recent.map(|(_, node)| node).collect();
            prop_assert!(nodes.len() <= usize::from(NODES) / 3, "{nodes:?}");
        }
    }
}

const NODES: u8 = 7;

#[derive(Clone, Debug)]
enum Step {
    Die { node: u8, holders: u16 },
    Return { node: u8, generation: u64 },
    Observe(Vec<u8>),
    Run(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..=NODES, 0..=u16::from(NODES)).prop_map(|(node, holders)| Step::Die { node, holders }),
        2 => (1..=NODES, 0..2_u64).prop_map(|(node, generation)| Step::Return { node, generation }),
        1 => prop::collection::vec(1..=NODES, 0..4).prop_map(Step::Observe),
        2 => (0..90_u32).prop_map(Step::Run),
    ]
}

/// A cluster as its observed speakers tell it, all the same.
struct World {
    hints: Hints,
    now: Instant,
    lives: BTreeMap<NodeName, Life>,
    dead: BTreeMap<NodeName, HostDead>,
    observed: Vec<NodeName>,
    /// Whoever else is observed has not heard of the dead.
    only_tell: Option<NodeName>,
}

impl World {
    fn of(nodes: u8) -> Self {
        Self::in_mode(nodes, Mode::On)
    }

    fn in_mode(nodes: u8, mode: Mode) -> Self {
        let mut world = Self::before_it_is_told(nodes);
        world.hints = Hints::new(mode, "1/3".parse().unwrap(), OWN);
        world.tell();
        world.run(SECOND);
        world
    }

    fn before_it_is_told(nodes: u8) -> Self {
        let life = |node: u8| Life { generation: Generation(100), process: ProcessId(node.into()) };
        Self {
            hints: Hints::new(Mode::On, "1/3".parse().unwrap(), OWN),
            now: start(),
            lives: (1..=nodes).map(|node| (name(node), life(node))).collect(),
            dead: BTreeMap::new(),
            observed: (1..=nodes.min(3)).map(name).collect(),
            only_tell: None,
        }
    }

    fn observe(&mut self, nodes: &[u8]) {
        self.observed = nodes.iter().map(|node| name(*node)).collect();
        self.tell();
    }

    /// The observed speakers take the node for dead, and know of so many others that do.
    fn die(&mut self, node: u8, holders: u16) {
        let known = u16::try_from(self.lives.len()).unwrap();
        self.dead.insert(name(node), HostDead { life: self.lives[&name(node)], holders, known, silent: SILENT });
        self.tell();
    }

    fn come_back(&mut self, node: u8, process: ProcessId) {
        self.dead.remove(&name(node));
        let life = self.lives.get_mut(&name(node)).unwrap();
        *life = Life { generation: Generation(life.generation.0 + 1), process };
        self.tell();
    }

    fn accounts(&self) -> Accounts {
        let account = |speaker: &NodeName| {
            let hears = self.only_tell.as_ref().is_none_or(|only| only == speaker);
            let dead = if hears { self.dead.clone() } else { BTreeMap::new() };
            let lives = self.lives.iter().filter(|(node, _)| !dead.contains_key(*node));
            Account { members: lives.map(|(node, life)| (node.clone(), *life)).collect(), dead }
        };
        self.observed.iter().map(|speaker| (speaker.clone(), account(speaker))).collect()
    }

    fn tell(&mut self) {
        self.hints.handle_accounts(self.accounts(), self.now);
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(due) = self.hints.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.hints.handle_timeout(self.now);
        }
        self.now = end;
    }

    fn requests(&mut self) -> Vec<Request> {
        std::iter::from_fn(|| self.hints.poll_request()).collect()
    }

    /// The pods that are to be marked.
    fn marks(&mut self) -> Vec<String> {
        let name = |request| match request {
            Request::Mark { pod, .. } => pod.name,
            Request::Look { node, .. } => panic!("{node} is looked at"),
        };
        self.requests().into_iter().map(name).collect()
    }

    /// Kubernetes knows these pods, and that the kubelet renewed its Lease so many seconds from now.
    fn found(&mut self, node: u8, Renewed(seconds): Renewed, on_node: &[Pod]) {
        self.answer(node, Ok(found(self.now, seconds, on_node, node)));
    }

    fn answer(&mut self, node: u8, found: Result<Found, Unseen>) {
        self.hints.handle_found(&name(node), found, self.now);
    }

    fn marked(&mut self, node: u8, outcomes: &[Marked]) {
        for outcome in outcomes {
            self.hints.handle_marked(&name(node), *outcome, self.now);
        }
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.hints.poll_event()).collect()
    }

    fn refusals(&mut self) -> Vec<Guard> {
        let guard = |event| if let Event::Refused { guard, .. } = event { Some(guard) } else { None };
        self.events().into_iter().filter_map(guard).collect()
    }
}

struct Renewed(i64);

fn lease(seconds_from_now: i64) -> Renewed {
    Renewed(seconds_from_now)
}

#[derive(Clone)]
struct Pod(&'static str, &'static str);

fn ready(name: &'static str) -> Pod {
    Pod(name, "True")
}

fn unready(name: &'static str) -> Pod {
    Pod(name, "False")
}

fn found(now: Instant, renewed: i64, on_node: &[Pod], node: u8) -> Found {
    let ago = Duration::from_secs(renewed.unsigned_abs());
    Found { renewed: Some(if renewed < 0 { now - ago } else { now + ago }), noticed: false, pods: pods(on_node, node) }
}

fn pods(pods: &[Pod], node: u8) -> Vec<PodOnNode> {
    let pod = |Pod(pod, ready): &Pod| {
        let json = json!({
            "metadata": {"namespace": if pod.starts_with("own") { OWN } else { "default" }, "name": pod, "uid": format!("uid-{pod}")},
            "spec": {"nodeName": name(node).as_str()},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        });
        serde_json::from_value(json).unwrap()
    };
    pods.iter().map(pod).collect()
}

fn look(node: u8) -> Request {
    Request::Look { node: name(node), mode: Mode::On }
}

fn node_of(request: &Request) -> NodeName {
    match request {
        Request::Look { node, .. } | Request::Mark { node, .. } => node.clone(),
    }
}

fn name(node: u8) -> NodeName {
    NodeName::new(&format!("n{node:02}")).unwrap()
}

fn number(node: &NodeName) -> u8 {
    node.as_str().trim_start_matches('n').parse().unwrap()
}

/// One that no process had before.
fn rand_process(world: &World) -> u64 {
    world.lives[&name(4)].process.0 + 1000
}

#[expect(clippy::disallowed_methods, reason = "a test makes its own time from one reading")]
fn start() -> Instant {
    // Room for Leases that were renewed before.
    Instant::now() + Duration::from_secs(3600)
}
