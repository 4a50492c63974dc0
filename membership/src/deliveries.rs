//! What every member must come to know: our facts, and verdicts. Each is repeated to each member until it acknowledges.
//!
//! What a member does not acknowledge in five seconds it learns at the next exchange of states.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use garpike_election::NodeName;

use crate::notice::NoticeId;

/// Something to be acknowledged.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Item {
    /// Our latest facts.
    Facts,
    /// A verdict.
    Notice(NoticeId),
}

/// What is not acknowledged yet.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    open: BTreeMap<(NodeName, Item), Try>,
    due: BTreeSet<(Instant, NodeName, Item)>,
}

#[derive(Clone, Copy, Debug)]
struct Try {
    since: Instant,
    pause: Duration,
    next: Instant,
}

impl Deliveries {
    /// Notes that `item` has just been sent to `to` for the first time.
    pub(crate) fn sent(&mut self, to: &NodeName, item: Item, now: Instant) {
        self.acknowledged(to, &item);
        if self.open.len() < OPEN_MAX {
            self.put(to.clone(), item, Try { since: now, pause: FIRST_PAUSE, next: now + FIRST_PAUSE });
        }
    }

    /// `by` has it. Tells whether it was open.
    pub(crate) fn acknowledged(&mut self, by: &NodeName, item: &Item) -> bool {
        let key = (by.clone(), item.clone());
        let Some(open) = self.open.remove(&key) else { return false };
        let (name, item) = key;
        self.due.remove(&(open.next, name, item));
        true
    }

    /// Whether `to` has not acknowledged it yet.
    pub(crate) fn is_open(&self, to: &NodeName, item: &Item) -> bool {
        self.open.contains_key(&(to.clone(), item.clone()))
    }

    /// The verdicts that their own subjects have not acknowledged yet.
    pub(crate) fn open_to_subjects(&self) -> impl Iterator<Item = &NoticeId> {
        self.open.keys().filter_map(|(to, item)| match item {
            Item::Notice(id) if id.node == *to => Some(id),
            Item::Notice(_) | Item::Facts => None,
        })
    }

    /// Nothing is to be delivered to `node` any more.
    pub(crate) fn forget(&mut self, node: &NodeName) {
        // Facts are the first of the items.
        let of_node = self.open.range((node.clone(), Item::Facts)..).take_while(|((to, _), _)| to == node);
        let items: Vec<Item> = of_node.map(|((_, item), _)| item.clone()).collect();
        for item in items {
            self.acknowledged(node, &item);
        }
    }

    /// Whether somebody does not hold our facts yet.
    pub(crate) fn has_facts(&self) -> bool {
        self.open.keys().any(|(_, item)| *item == Item::Facts)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, ..)| *at)
    }

    /// The next one that is to be sent again at `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(NodeName, Item)> {
        loop {
            let (at, ..) = self.due.first()?;
            if *at > now {
                return None;
            }
            let (_, to, item) = self.due.pop_first()?;
            let Some(open) = self.open.remove(&(to.clone(), item.clone())) else { continue };
            if now.saturating_duration_since(open.since) >= GIVE_UP_AFTER {
                continue;
            }
            // The first repetitions come at one pace, against a loss; the later ones give way to whatever is wrong.
            let young = now.saturating_duration_since(open.since) < FIRST_PAUSE * 5;
            let pause = if young { FIRST_PAUSE } else { (open.pause * 2).min(LONGEST_PAUSE) };
            self.put(to.clone(), item.clone(), Try { pause, next: now + pause, ..open });
            return Some((to, item));
        }
    }

    fn put(&mut self, to: NodeName, item: Item, open: Try) {
        self.due.insert((open.next, to.clone(), item.clone()));
        self.open.insert((to, item), open);
    }
}

/// Chosen: several round trips on a LAN, and short enough that a loss or two keep within the time of a failover.
const FIRST_PAUSE: Duration = Duration::from_millis(4);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// Chosen: a few verdicts to every member of the largest cluster.
const OPEN_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_sent_again_until_it_is_acknowledged() {
        let (mut deliveries, start) = (Deliveries::default(), start());
        deliveries.sent(&name("b"), Item::Facts, start);
        assert_eq!(deliveries.pop_due(start), None);

        let again = deliveries.next().unwrap();
        assert_eq!(deliveries.pop_due(again), Some((name("b"), Item::Facts)));
        assert_eq!(deliveries.pop_due(again), None, "once at a time");

        assert!(deliveries.has_facts());
        assert!(deliveries.acknowledged(&name("b"), &Item::Facts));
        assert!(!deliveries.acknowledged(&name("b"), &Item::Facts));
        assert!(!deliveries.has_facts());
        assert_eq!(deliveries.next(), None);
    }

    #[test]
    fn it_is_given_up_after_five_seconds_and_some_twenty_times() {
        let (mut deliveries, start) = (Deliveries::default(), start());
        deliveries.sent(&name("b"), Item::Facts, start);

        let mut times = 0;
        while let Some(at) = deliveries.next() {
            assert!(at <= start + GIVE_UP_AFTER + LONGEST_PAUSE);
            times += deliveries.pop_due(at).map_or(0, |_| 1);
        }

        assert!((10..20).contains(&times), "{times}");
    }

    #[test]
    fn what_is_sent_anew_begins_anew_and_who_is_gone_gets_nothing() {
        let (mut deliveries, start) = (Deliveries::default(), start());
        deliveries.sent(&name("b"), Item::Facts, start);
        deliveries.sent(&name("b"), Item::Facts, start + FIRST_PAUSE);
        assert_eq!(deliveries.next(), Some(start + FIRST_PAUSE * 2));

        deliveries.forget(&name("b"));
        assert_eq!(deliveries.next(), None);
    }

    fn name(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "a test makes its own time from one reading")]
    fn start() -> Instant {
        Instant::now()
    }
}
