use rand::SeedableRng as _;

use super::*;

#[test]
fn the_share_that_is_lost_is_the_one_that_was_asked_for() {
    for loss in [0.0, 0.01, 0.1, 0.3] {
        let mut network = network(2, loss);

        let lost = lost(&mut network, 0, 1, 100_000);

        assert!((lost - loss).abs() < 0.005, "{lost} of {loss}");
    }
}

#[test]
fn a_way_takes_a_fraction_of_a_millisecond_and_seldom_more() {
    let mut network = network(2, 0.0);

    let delays: Vec<Duration> = (0..100_000).map(|_| network.delay()).collect();

    assert!(delays.iter().all(|delay| (Duration::from_micros(100)..Duration::from_millis(5)).contains(delay)));
    let late = delays.iter().filter(|delay| **delay > Duration::from_micros(500)).count();
    assert!((50..200).contains(&late), "{late} of 100000");
}

#[test]
fn now_and_then_a_packet_comes_twice() {
    let mut network = network(2, 0.0);

    let twice = (0..100_000).filter(|_| network.carry(0, 1, Traffic::Gossip, start()).again.is_some()).count();

    assert!((20..100).contains(&twice), "{twice} of 100000");
}

#[test]
fn bursts_lose_many_in_a_row_and_few_on_average() {
    let mut network = network(2, 0.0);
    let model = Bursts {
        good: Duration::from_millis(500),
        bad: Duration::from_millis(20),
        longest: Duration::from_millis(60),
        loss: 1.0,
    };
    network.burst(model);
    let (mut now, mut row, mut longest, mut lost) = (start(), 0, 0, 0);
    for _ in 0..1_000_000 {
        now += Duration::from_millis(1);
        let carried = network.carry(0, 1, Traffic::Gossip, now);
        row = if carried.first.is_none() { row + 1 } else { 0 };
        lost += u32::from(carried.first.is_none());
        longest = longest.max(row);
    }

    // Two ports, each bad in 20 of 520 ms.
    assert!((60_000..90_000).contains(&lost), "{lost} of 1000000");
    assert!((55..=125).contains(&longest), "{longest} ms");
}

#[test]
fn a_cut_is_for_both_ways_and_a_one_way_cut_for_one() {
    let mut network = network(4, 0.0);
    network.cut(&BTreeSet::from([0, 1]), &BTreeSet::from([2]));
    network.cut_one_way(&BTreeSet::from([3]), &BTreeSet::from([0]));

    let open = |from, to| network.is_open(from, to, Traffic::Gossip);
    assert!(!open(0, 2) && !open(2, 0) && !open(1, 2) && !open(2, 1));
    assert!(!open(3, 0) && open(0, 3));
    assert!(open(0, 1) && open(2, 3) && open(3, 2));
    network.mend();
    assert!(network.is_open(0, 2, Traffic::Gossip) && network.is_open(3, 0, Traffic::Gossip));
}

#[test]
fn in_a_blackout_nothing_gets_through() {
    let mut network = network(3, 0.0);
    network.black_out();

    for traffic in [Traffic::Gossip, Traffic::Wire, Traffic::Tcp(10250)] {
        assert!(!network.is_open(0, 1, traffic), "{traffic:?}");
        assert_eq!(network.carry(1, 2, traffic, start()), Carried::default());
    }
}

#[test]
fn a_filter_of_the_gossip_port_leaves_frames_and_other_ports_alone() {
    let mut network = network(3, 0.0);
    network.filter(1);

    for (from, to) in [(0, 1), (1, 0)] {
        assert!(!network.is_open(from, to, Traffic::Gossip));
        assert!(!network.is_open(from, to, Traffic::Tcp(GOSSIP_PORT)));
        assert!(network.is_open(from, to, Traffic::Wire));
        assert!(network.is_open(from, to, Traffic::Tcp(10250)));
    }
    assert!(network.is_open(0, 2, Traffic::Gossip));
}

#[test]
fn an_unplugged_station_hears_and_says_nothing() {
    let mut network = network(3, 0.0);
    network.unplug(1);

    assert!(!network.is_open(0, 1, Traffic::Wire) && !network.is_open(1, 2, Traffic::Gossip));
    assert!(network.is_open(0, 2, Traffic::Wire));
}

#[test]
fn frames_stay_in_their_rack_and_datagrams_are_routed() {
    let network = Network::new(vec![0, 0, 1], 0.0, Xoshiro256PlusPlus::seed_from_u64(1));

    assert!(network.is_open(0, 1, Traffic::Wire) && !network.is_open(0, 2, Traffic::Wire));
    assert!(network.is_open(0, 2, Traffic::Gossip) && network.is_open(2, 1, Traffic::Tcp(GOSSIP_PORT)));
}

#[test]
fn loss_can_differ_by_direction_and_by_pair() {
    let mut network = network(3, 0.0);
    network.lose_at(0, 0.4, 0.0);
    network.lose_between(1, 2, 0.2);

    assert!((lost(&mut network, 1, 0, 50_000) - 0.4).abs() < 0.01);
    assert!(lost(&mut network, 0, 1, 50_000) == 0.0);
    assert!((lost(&mut network, 1, 2, 50_000) - 0.2).abs() < 0.01);
    assert!(lost(&mut network, 2, 1, 50_000) == 0.0);
}

fn network(stations: usize, loss: f64) -> Network {
    Network::new(vec![0; stations], loss, Xoshiro256PlusPlus::seed_from_u64(1))
}

fn lost(network: &mut Network, from: Station, to: Station, packets: u32) -> f64 {
    let now = start();
    let lost = (0..packets).filter(|_| network.carry(from, to, Traffic::Gossip, now).first.is_none()).count();
    f64::from(u32::try_from(lost).unwrap()) / f64::from(packets)
}

#[expect(clippy::disallowed_methods, reason = "a test makes its own time from one reading")]
fn start() -> Instant {
    Instant::now()
}
