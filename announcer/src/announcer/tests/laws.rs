//! Whatever two nodes believed and heard: when they agree again, one of them answers.

use proptest::prelude::*;

use super::segment::{Segment, World, mac};
use super::*;
use crate::duties::Standing;

const IPS: [&str; 3] = ["192.168.10.1", "192.168.10.2", "fc00::10:1"];

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    /// A node believes this: who owns each address, how the other stands, which addresses are new.
    Believes(usize, [usize; 3], Standing, [bool; 3]),
    /// The segment is cut, or whole again.
    Cut(bool),
    /// Somebody claims an address.
    Claimed(usize, MacAddr),
    /// Time passes.
    Passes(u64),
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn two_nodes_that_agree_answer_with_one_voice(steps in prop::collection::vec(step(), 0..25), owners in owners()) {
        let mut segment = Segment::of(2);
        for step in steps {
            match step {
                Step::Believes(node, owners, standing, new) => {
                    segment.set(node, world(owners, new).with(1 - node, standing).duties(node));
                }
                Step::Cut(cut) => segment.part[1] = u8::from(cut),
                Step::Claimed(address, by) => claim(&mut segment, IPS[address], by),
                Step::Passes(ms) => segment.run_for(ms),
            }
        }
        segment.part[1] = 0;
        segment.set_all(&world(owners, [false; 3]));
        segment.run_for(2000);

        for (text, owner) in IPS.iter().zip(owners) {
            let told = segment.ask(text);
            prop_assert!(told.is_subset(&BTreeSet::from([mac(owner)])), "{text} of node {owner}: {told:?}");
        }
        // Whatever was thought to be in use is found free.
        segment.run_for(15_000);
        for (text, owner) in IPS.iter().zip(owners) {
            prop_assert_eq!(segment.ask(text), BTreeSet::from([mac(owner)]), "{}", text);
        }
    }

    /// Settled by rank alone, without a membership that heals.
    #[test]
    fn two_nodes_that_take_each_other_for_dead_answer_with_one_voice(
        steps in prop::collection::vec(step(), 0..10),
        owners in owners(),
    ) {
        let mut segment = Segment::of(2);
        segment.set_all(&world(owners, [false; 3]));
        segment.run_for(5000);
        segment.part[1] = 1;
        for node in 0..2 {
            segment.set(node, world([node; 3], [false; 3]).with(1 - node, Standing::Dead).duties(node));
        }
        for step in steps {
            match step {
                Step::Believes(..) | Step::Claimed(..) => {}
                Step::Cut(cut) => segment.part[1] = u8::from(cut),
                Step::Passes(ms) => segment.run_for(ms),
            }
        }
        segment.part[1] = 0;
        segment.run_for(2000);
        for text in IPS {
            prop_assert_eq!(segment.ask(text).len(), 1, "{}", text);
        }
    }
}

fn world(owners: [usize; 3], new: [bool; 3]) -> World {
    let owned: Vec<(&str, usize)> = IPS.into_iter().zip(owners).collect();
    let mut world = World::new(2, &owned);
    world.untried = IPS.iter().zip(new).filter(|(_, new)| *new).map(|(text, _)| ip(text)).collect();
    world
}

fn claim(segment: &mut Segment, text: &str, by: MacAddr) {
    let message = match ip(text).addr() {
        IpAddr::V4(_) => {
            let said = arp(text, text);
            let ethernet = Ethernet { source: by, ..said.ethernet };
            Message::Arp(Arp { ethernet, sender_mac: by, ..said })
        }
        IpAddr::V6(_) => unsolicited(by, "fe80::99", text),
    };
    segment.send(0, &message, None);
    segment.deliver();
}

fn step() -> impl Strategy<Value = Step> {
    let standing = prop_oneof![Just(Standing::Here), Just(Standing::Away), Just(Standing::Dead)];
    let new = prop::array::uniform3(any::<bool>());
    let by = prop_oneof![Just(mac(0)), Just(mac(1)), Just(STRANGER)];
    prop_oneof![
        3 => (0..2_usize, owners(), standing, new).prop_map(|(node, owners, standing, new)| {
            Step::Believes(node, owners, standing, new)
        }),
        1 => any::<bool>().prop_map(Step::Cut),
        2 => (0..3_usize, by).prop_map(|(address, by)| Step::Claimed(address, by)),
        3 => (0..1500_u64).prop_map(Step::Passes),
    ]
}

fn owners() -> impl Strategy<Value = [usize; 3]> {
    prop::array::uniform3(0..2_usize)
}
