//! Carriers that come and go: a loss counts at once, a return only after a calm that grows with each loss.
//!
//! Otherwise an address would move to and fro as fast as a bad cable makes contact, and switches and neighbours would
//! learn each time. The first return is believed as fast as any other change.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use garpike_election::IfIndex;

use crate::links::LinkSet;

/// The carriers that were lost lately.
#[derive(Debug, Default)]
pub(super) struct Flaps {
    links: BTreeMap<IfIndex, Flap>,
}

#[derive(Clone, Copy, Debug)]
struct Flap {
    lost_at: Instant,
    /// How long after that the carrier is not believed.
    calm: Duration,
    /// How often it may have come by the end of that time.
    ups: u32,
}

impl Flaps {
    /// Notes what `new` has lost since `before`, and takes from it the carriers that are not believed yet. Gives the time
    /// at which one may be.
    pub(super) fn follow(&mut self, before: Option<&LinkSet>, new: &mut LinkSet, now: Instant) -> Option<Instant> {
        self.links.retain(|_, flap| now < flap.lost_at + flap.calm + REMEMBERED);
        let had = before.iter().flat_map(|links| &links.links).filter(|(_, link)| link.carrier);
        for (index, old) in had {
            let link = new.links.get(index);
            if !link.is_some_and(|link| link.carrier && link.carrier_ups == old.carrier_ups) {
                let ups = link.map_or(0, |link| link.carrier_ups).max(old.carrier_ups);
                self.lose(*index, ups.saturating_add(1), now);
            }
        }
        let mut next: Option<Instant> = None;
        for (index, link) in new.links.iter_mut().filter(|(_, link)| link.carrier) {
            if self.links.get(index).is_some_and(|flap| link.carrier_ups > flap.ups) {
                self.lose(*index, link.carrier_ups, now);
            }
            let Some(flap) = self.links.get(index) else { continue };
            let believed_at = flap.lost_at + flap.calm;
            if now < believed_at {
                link.carrier = false;
                next = Some(next.map_or(believed_at, |next| next.min(believed_at)));
            }
        }
        next
    }

    fn lose(&mut self, index: IfIndex, ups: u32, now: Instant) {
        let calm = self.links.get(&index).map_or(FIRST_CALM, |flap| (flap.calm * 2).clamp(SECOND_CALM, LONGEST_CALM));
        self.links.insert(index, Flap { lost_at: now, calm, ups });
    }
}

/// As long as other changes wait for the burst of their events to end.
const FIRST_CALM: Duration = Duration::from_millis(50);
/// Chosen: of a burst of losses within seconds an address takes part in two, going and coming, which is four moves; a switch of
/// an EVPN fabric freezes it at the fifth (RFC 7432 section 15.1).
const SECOND_CALM: Duration = Duration::from_secs(1);
/// Chosen: six moves of an address in a minute, at worst.
const LONGEST_CALM: Duration = Duration::from_secs(10);
/// Chosen: losses that are further apart have nothing to do with each other.
const REMEMBERED: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use garpike_election::MacAddr;

    use super::*;
    use crate::links::Link;

    #[test]
    fn a_first_loss_is_told_at_once_and_its_return_50_ms_later() {
        let mut rig = Rig::new();
        assert!(!rig.sees(false, 1, 1000));
        assert!(!rig.sees(true, 2, 1020));
        assert_eq!(rig.next, Some(rig.at(1050)));
        assert!(rig.sees(true, 2, 1050));
        assert_eq!(rig.next, None);
    }

    #[test]
    fn a_short_loss_that_no_snapshot_shows_is_a_loss() {
        let mut rig = Rig::new();
        assert!(!rig.sees(true, 2, 1000));
        assert!(rig.sees(true, 2, 1050));
    }

    #[test]
    fn the_calm_grows_with_each_loss_to_ten_seconds() {
        let mut rig = Rig::new();
        let (mut ms, mut calms) = (0, Vec::new());
        for ups in 1..=10 {
            assert!(!rig.sees(false, ups, ms));
            assert!(!rig.sees(true, ups + 1, ms));
            let believed = rig.next.unwrap();
            let calm = (believed - rig.at(ms)).as_millis();
            calms.push(calm);
            ms += u64::try_from(calm).unwrap();
            assert!(rig.sees(true, ups + 1, ms));
        }
        assert_eq!(calms, [50, 1000, 2000, 4000, 8000, 10_000, 10_000, 10_000, 10_000, 10_000]);
    }

    #[test]
    fn flapping_during_the_calm_makes_it_longer() {
        let mut rig = Rig::new();
        assert!(!rig.sees(false, 1, 0));
        assert!(!rig.sees(true, 30, 50), "it came 29 times");
        assert_eq!(rig.next, Some(rig.at(1050)));
        assert!(rig.sees(true, 30, 1050));
    }

    #[test]
    fn at_a_thousand_flaps_a_second_it_is_believed_a_few_times_at_most() {
        let mut rig = Rig::new();
        let mut believed = 0;
        for ms in 0..60_000 {
            let ups = u32::try_from(ms).unwrap() / 2;
            believed += u32::from(rig.sees(ms % 2 == 0, ups, ms));
        }
        assert!(believed <= 2, "{believed}");
        assert!(rig.sees(true, 29_999, 80_000), "and again when it is calm");
    }

    #[test]
    fn losses_that_are_far_apart_are_each_the_first() {
        let mut rig = Rig::new();
        for minute in 0..3 {
            let (ms, ups) = (u64::from(minute) * 60_000, minute + 1);
            assert!(!rig.sees(false, ups, ms));
            assert!(!rig.sees(true, ups + 1, ms));
            assert_eq!(rig.next, Some(rig.at(ms + 50)));
            assert!(rig.sees(true, ups + 1, ms + 50));
        }
    }

    #[test]
    fn an_interface_that_goes_and_returns_under_its_number_was_lost() {
        let mut rig = Rig::new();
        let (mut none, now) = (LinkSet::default(), rig.at(100));
        assert_eq!(rig.flaps.follow(Some(&rig.before), &mut none, now), None);
        rig.before = none;
        assert!(!rig.sees(true, 2, 110));
        assert!(rig.sees(true, 2, 150));
    }

    #[test]
    fn other_interfaces_are_believed_meanwhile() {
        let (mut flaps, now) = (Flaps::default(), start());
        let (eth0, eth1) = (IfIndex(2), IfIndex(3));
        let both =
            |carrier, ups| LinkSet { links: BTreeMap::from([(eth0, link(carrier, ups)), (eth1, link(true, 1))]) };
        let mut lost = both(false, 1);
        flaps.follow(Some(&both(true, 1)), &mut lost, now);
        let mut back = both(true, 2);
        flaps.follow(Some(&lost), &mut back, now);
        assert_eq!((back.links[&eth0].carrier, back.links[&eth1].carrier), (false, true));
    }

    struct Rig {
        flaps: Flaps,
        before: LinkSet,
        next: Option<Instant>,
        start: Instant,
    }

    impl Rig {
        fn new() -> Self {
            let before = LinkSet { links: BTreeMap::from([(IfIndex(2), link(true, 1))]) };
            Self { flaps: Flaps::default(), before, next: None, start: start() }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// What is published when the kernel says this.
        fn sees(&mut self, carrier: bool, ups: u32, ms: u64) -> bool {
            let mut new = LinkSet { links: BTreeMap::from([(IfIndex(2), link(carrier, ups))]) };
            self.next = self.flaps.follow(Some(&self.before), &mut new, self.at(ms));
            self.before = new;
            self.before.links[&IfIndex(2)].carrier
        }
    }

    fn link(carrier: bool, carrier_ups: u32) -> Link {
        let link = Link::ethernet("eth0".parse().unwrap(), MacAddr([2, 0, 0, 0, 0, 1]), Vec::new());
        Link { carrier, carrier_ups, ..link }
    }

    #[expect(clippy::disallowed_methods, reason = "virtual time needs one real instant to start from")]
    fn start() -> Instant {
        Instant::now()
    }
}
