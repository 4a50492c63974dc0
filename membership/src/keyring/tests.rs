use proptest::prelude::*;

use super::*;
use crate::SecretKey;

#[test]
fn the_newest_key_that_the_destination_holds_seals() {
    // Keys in force and retired, newest first; what the destination holds; which key seals for it.
    let cases: [(&str, &str, &str, char); 10] = [
        ("B", "A", "BA", 'B'),
        ("B", "A", "A", 'A'),
        ("B", "A", "AB", 'B'),
        ("A", "B", "AB", 'A'),
        ("A", "B", "B", 'B'),
        ("CBA", "", "AB", 'B'),
        ("CB", "A", "CBA", 'C'),
        ("A", "", "AB", 'A'),
        ("B", "A", "X", 'A'),
        ("B", "", "", 'B'),
    ];
    for (in_force, retired, held, expected) in cases {
        let ring = Keyring::new(keys(in_force), keys(retired)).unwrap();

        let sealing = ring.sealing(Held::Keys(&ids(held)));

        assert_eq!(*sealing, key(expected), "{in_force} and {retired} for {held}");
    }
}

#[test]
fn for_the_unknown_seals_the_newest_key_that_every_member_holds_or_else_the_oldest_that_is_needed() {
    // Keys in force and retired; what the members hold, `?` where that is not known; the key for the unknown.
    let cases: [(&str, &str, &[&str], char); 10] = [
        ("BA", "", &["BA", "BA"], 'B'),
        ("BA", "", &["BA", "A"], 'A'),
        ("BA", "", &["BA", "?"], 'B'),
        ("BA", "", &["?"], 'A'),
        ("BA", "", &["B", "A"], 'A'),
        ("BA", "", &[], 'A'),
        ("B", "A", &["A", "BA"], 'A'),
        ("B", "A", &["BA", "B"], 'B'),
        ("B", "A", &["?"], 'A'),
        ("B", "A", &[], 'A'),
    ];
    for (in_force, retired, members, expected) in cases {
        let mut ring = Keyring::new(keys(in_force), keys(retired)).unwrap();

        let _ = tell(&mut ring, members, start());

        assert_eq!(*ring.sealing(Held::Unknown), key(expected), "{in_force} and {retired} among {members:?}");
    }
}

#[test]
fn who_does_not_answer_is_tried_with_every_key_in_turn() {
    let mut ring = Keyring::new(keys("CB"), keys("A")).unwrap();
    let _ = tell(&mut ring, &["BA"], start());

    let tried: Vec<Key> = (0..6).map(|attempt| ring.sealing(Held::Attempt(attempt)).clone()).collect();

    assert_eq!(tried, keys("BCABCA"));
}

#[test]
fn a_key_that_vanished_opens_until_ten_minutes_after_every_member_holds_the_newest() {
    let (mut ring, now) = (Keyring::from(key('A')), start());
    assert_eq!(ring.replace(keys("B")), IdsChanged::Yes);
    assert_eq!(ring.ids(), ids("BA"));

    let _ = tell(&mut ring, &["BA", "A"], now);
    assert_eq!((ring.poll_timeout(), ring.ids()), (None, ids("BA")), "one lacks it");
    let _ = tell(&mut ring, &["BA", "?"], now);
    assert_eq!((ring.poll_timeout(), ring.ids()), (None, ids("BA")), "of one nothing is known");

    assert_eq!(tell(&mut ring, &["BA", "BA"], now), IdsChanged::Yes);
    assert_eq!((ring.poll_timeout(), ring.ids()), (Some(now + EXPIRES_AFTER), ids("B")));
    assert!(ring.opening(key('A').id()).is_some());
    let later = now + EXPIRES_AFTER - Duration::from_millis(1);
    assert_eq!(tell(&mut ring, &["B", "BA"], later), IdsChanged::No, "the time runs on");
    ring.handle_timeout(later);
    assert!(ring.opening(key('A').id()).is_some());

    ring.handle_timeout(now + EXPIRES_AFTER);

    assert!(ring.opening(key('A').id()).is_none());
    assert_eq!(ring.poll_timeout(), None);
    assert_eq!(*ring.newest(), key('B'));
}

#[test]
fn a_member_that_lacks_the_newest_key_stops_the_time_of_the_old_one() {
    let (mut ring, now) = (Keyring::new(keys("B"), keys("A")).unwrap(), start());
    let _ = tell(&mut ring, &["B"], now);
    assert_eq!(ring.ids(), ids("B"));

    assert_eq!(tell(&mut ring, &["B", "A"], now + EXPIRES_AFTER / 2), IdsChanged::Yes);

    assert_eq!((ring.poll_timeout(), ring.ids()), (None, ids("BA")));
    assert_eq!(*ring.sealing(Held::Keys(&ids("A"))), key('A'));
}

#[test]
fn a_node_that_is_alone_forgets_nothing() {
    let (mut ring, now) = (Keyring::new(keys("B"), keys("A")).unwrap(), start());

    assert_eq!(tell(&mut ring, &[], now), IdsChanged::No);
    assert_eq!((ring.poll_timeout(), ring.ids()), (None, ids("BA")));

    let _ = tell(&mut ring, &["B"], now);
    let _ = tell(&mut ring, &[], now + EXPIRES_AFTER / 2);
    ring.handle_timeout(now + EXPIRES_AFTER);

    assert_eq!(ring.ids(), ids("BA"));
}

#[test]
fn a_key_that_comes_back_is_in_force_and_the_newest() {
    let (mut ring, now) = (Keyring::from(key('A')), start());
    let _ = ring.replace(keys("B"));
    let _ = tell(&mut ring, &["B"], now);

    let _ = ring.replace(keys("A"));

    assert_eq!(*ring.newest(), key('A'));
    assert_eq!((ring.poll_timeout(), ring.ids()), (None, ids("AB")));
    ring.handle_timeout(now + EXPIRES_AFTER);
    assert_eq!(ring.ids(), ids("AB"));
}

#[test]
fn a_second_rotation_asks_the_members_anew() {
    let (mut ring, now) = (Keyring::new(keys("B"), keys("A")).unwrap(), start());
    let _ = tell(&mut ring, &["B"], now);

    let _ = ring.replace(keys("C"));
    ring.handle_timeout(now + EXPIRES_AFTER);

    assert_eq!(ring.ids(), ids("CBA"));
    let _ = tell(&mut ring, &["CB"], now + EXPIRES_AFTER);
    assert_eq!(ring.ids(), ids("C"));
}

#[test]
fn a_source_without_keys_changes_nothing() {
    let mut ring = Keyring::from(key('A'));

    assert_eq!(ring.replace(Vec::new()), IdsChanged::No);

    assert_eq!(ring.ids(), ids("A"));
    assert!(Keyring::new(Vec::new(), keys("A")).is_none());
}

#[test]
fn a_ring_is_bounded_and_forgets_the_oldest_first() {
    let mut ring = Keyring::from(key('A'));
    for letter in 'B'..='Z' {
        let _ = ring.replace(vec![key(letter)]);
        assert_eq!(*ring.newest(), key(letter));
    }
    assert_eq!(ring.ids(), ids("ZYXWVUTSRQPO"));

    let _ = ring.replace(keys("abcdefghijk"));

    assert_eq!(ring.ids(), ids("abcdefghZYXW"));
    let _ = ring.replace(keys("aab"));
    assert_eq!(ring.iter().filter(|(_, standing)| *standing == Standing::InForce).count(), 2);
}

#[test]
fn debug_output_shows_the_names_of_the_keys_only() {
    let ring = Keyring::from(Key::derive(&SecretKey::parse(b"hunter2").unwrap(), "garpike"));

    let shown = format!("{ring:?}");

    assert!(shown.contains(&ring.newest().id().to_string()), "{shown}");
    assert!(!shown.contains("hunter2") && !shown.contains("cipher:"), "{shown}");
}

/// What can happen while a secret is changed.
#[derive(Clone, Debug)]
enum Step {
    /// A node reads the Secret of that number of the history.
    Read { node: usize, version: usize },
    /// What a node tells of its keys comes to another one.
    Tell { from: usize, to: usize },
    /// A node learns of nothing for so long that keys expire, but everybody has heard of everybody by then.
    Wait { minutes: u64 },
    /// A node starts again: it holds what it read last, and what was retired (the cache of keys).
    Restart { node: usize },
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// However the versions of a Secret and the gossip reach five nodes, each always seals what the receiver can open.
    #[test]
    fn every_pair_understands_each_other_at_any_time_of_any_rotation(
        history in history(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut net = Nodes::new(history);
        for step in steps {
            net.take(&step);
            for (from, to) in pairs() {
                let sealing = net.sealing(from, to);
                prop_assert!(
                    net.rings[to].opening(sealing).is_some(),
                    "{from} seals for {to} with {sealing} after {step:?}: {:?}", net.rings
                );
            }
        }
    }

    /// In the end one key is left: the newest.
    #[test]
    fn a_rotation_ends(order in Just((0..NODES).collect::<Vec<_>>()).prop_shuffle()) {
        let mut net = Nodes::new(vec!["A".into(), "B".into()]);
        for node in order {
            net.take(&Step::Read { node, version: 1 });
            pairs().for_each(|(from, to)| net.take(&Step::Tell { from, to }));
        }
        net.take(&Step::Wait { minutes: 11 });

        for ring in &net.rings {
            prop_assert_eq!(ring.iter().collect::<Vec<_>>(), vec![(key('B').id(), Standing::InForce)]);
        }
    }

    /// Two nodes that share a key find each other, whatever else they hold and know.
    #[test]
    fn strangers_that_share_a_key_find_each_other(ours in "[A-F]{1,4}", retired in "[A-F]{0,3}", theirs in "[A-F]{1,4}") {
        let ring = Keyring::new(keys(&ours), keys(&retired)).unwrap();
        let opens = |key: &Key| ids(&theirs).contains(&key.id());
        let share = ring.iter().any(|(id, _)| ids(&theirs).contains(&id));

        let found = (0..12).any(|attempt| opens(ring.sealing(Held::Attempt(attempt))));

        prop_assert_eq!(found, share);
    }
}

const NODES: usize = 5;

/// Five nodes and what each knows of the others' keys.
struct Nodes {
    history: Vec<String>,
    /// The newest version that each node has read. Kubelets deliver versions in order.
    read: [usize; NODES],
    rings: [Keyring; NODES],
    /// What the first has heard of the second.
    heard: [[Vec<KeyId>; NODES]; NODES],
    now: Instant,
}

impl Nodes {
    fn new(history: Vec<String>) -> Self {
        let ring = Keyring::new(keys(&history[0]), Vec::new()).unwrap();
        let heard = std::array::from_fn(|_| std::array::from_fn(|_| ring.ids()));
        Self { history, read: [0; NODES], rings: std::array::from_fn(|_| ring.clone()), heard, now: start() }
    }

    /// What each node would tell by now.
    fn told(&self) -> Vec<Vec<KeyId>> {
        self.rings.iter().map(Keyring::ids).collect()
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Read { node, version } => {
                let version = version.min(self.history.len() - 1);
                if version > self.read[node] {
                    self.read[node] = version;
                    let _ = self.rings[node].replace(keys(&self.history[version]));
                    self.review(node);
                }
            }
            Step::Tell { from, to } => {
                self.heard[to][from] = self.rings[from].ids();
                self.review(to);
            }
            Step::Wait { minutes } => {
                // A kubelet brings the latest Secret within 90 s.
                if minutes >= 2 {
                    let latest = self.read.iter().copied().max().unwrap_or_default();
                    (0..NODES).for_each(|node| self.take(&Step::Read { node, version: latest }));
                }
                // Changes are told within milliseconds, and the telling may itself change what is told.
                for _ in 0..12 {
                    let before = self.told();
                    pairs().for_each(|(from, to)| self.take(&Step::Tell { from, to }));
                    if self.told() == before {
                        break;
                    }
                }
                self.now += Duration::from_secs(60 * minutes);
                let now = self.now;
                self.rings.iter_mut().for_each(|ring| ring.handle_timeout(now));
            }
            Step::Restart { node } => {
                let in_force = keys(&self.history[self.read[node]]);
                let retired = self.rings[node].entries.iter().map(|entry| entry.key.clone()).collect();
                self.rings[node] = Keyring::new(in_force, retired).unwrap();
                self.review(node);
            }
        }
    }

    fn review(&mut self, node: usize) {
        let others = (0..NODES).filter(|other| *other != node);
        let held: Vec<Option<&[KeyId]>> = others.map(|other| Some(&*self.heard[node][other])).collect();
        let _ = self.rings[node].handle_members(&held, self.now);
    }

    fn sealing(&self, from: usize, to: usize) -> KeyId {
        self.rings[from].sealing(Held::Keys(&self.heard[from][to])).id()
    }
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to))).filter(|(from, to)| from != to)
}

/// The contents of a Secret over time: replaced, extended, cut, rolled back.
fn history() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[ABCD]{1,3}", 2..5)
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..NODES;
    prop_oneof![
        3 => (node(), 0..5_usize).prop_map(|(node, version)| Step::Read { node, version }),
        6 => (node(), node()).prop_filter("two nodes", |(a, b)| a != b).prop_map(|(from, to)| Step::Tell { from, to }),
        1 => (1..15_u64).prop_map(|minutes| Step::Wait { minutes }),
        1 => node().prop_map(|node| Step::Restart { node }),
    ]
}

fn tell(ring: &mut Keyring, members: &[&str], now: Instant) -> IdsChanged {
    let members: Vec<Option<Vec<KeyId>>> = members.iter().map(|held| (*held != "?").then(|| ids(held))).collect();
    let members: Vec<Option<&[KeyId]>> = members.iter().map(Option::as_deref).collect();
    ring.handle_members(&members, now)
}

/// A key for each letter.
pub(crate) fn keys(letters: &str) -> Vec<Key> {
    letters.chars().map(key).collect()
}

pub(crate) fn ids(letters: &str) -> Vec<KeyId> {
    letters.chars().map(|letter| key(letter).id()).collect()
}

pub(crate) fn key(letter: char) -> Key {
    Key::derive(&SecretKey::parse(letter.to_string().as_bytes()).unwrap(), "garpike")
}

#[expect(clippy::disallowed_methods, reason = "a test makes its own time from one reading")]
fn start() -> Instant {
    Instant::now()
}
