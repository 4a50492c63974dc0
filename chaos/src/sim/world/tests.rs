use std::net::SocketAddr;

use garpike_membership::{Path, ProbeId, Request};

use super::*;
use crate::sim::host::{PausedClock, wire_path};
use crate::sim::network::GOSSIP_PORT;
use crate::sim::queue::{Parcel, Via};

#[test]
fn the_kernel_answers_for_a_killed_or_frozen_speaker_and_not_for_a_dead_or_paused_host() {
    assert_eq!(answers(|_| {}, GOSSIP_PORT), 1);
    assert_eq!(answers(|world| world.kill(1), GOSSIP_PORT), 1);
    assert_eq!(answers(|world| world.freeze(1), GOSSIP_PORT), 1);
    assert_eq!(answers(|world| world.crash(1), GOSSIP_PORT), 0);
    assert_eq!(answers(|world| world.pause(1), GOSSIP_PORT), 0);
}

#[test]
fn a_probe_needs_the_way_there_and_the_way_back() {
    let (prober, probed) = (BTreeSet::from([0]), BTreeSet::from([1]));

    assert_eq!(answers(|world| world.network.cut_one_way(&prober, &probed), GOSSIP_PORT), 0);
    assert_eq!(answers(|world| world.network.cut_one_way(&probed, &prober), GOSSIP_PORT), 0);
    assert_eq!(answers(|world| world.network.filter(1), GOSSIP_PORT), 0);
    assert_eq!(answers(|world| world.network.filter(1), 10250), 1);
}

#[test]
fn a_gateway_answers_where_there_is_one_and_the_wire_works() {
    let asked = |gateways, break_it: fn(&mut World)| {
        let mut world = world(gateways);
        break_it(&mut world);
        world.queue = Queue::default();
        world.carry_out(0, Request::AskStations);
        arrivals(&mut world, |parcel| matches!(parcel, Parcel::StationAnswer { .. }))
    };

    assert_eq!(asked(Gateways::Present, |_| {}), 1);
    assert_eq!(asked(Gateways::Absent, |_| {}), 0);
    assert_eq!(asked(Gateways::Present, |world| world.network.black_out()), 0);
    assert_eq!(asked(Gateways::Present, |world| world.network.filter(0)), 1);
}

#[test]
fn what_comes_while_a_speaker_stands_still_waits_in_a_queue_with_a_bound() {
    for (stop, bound) in [(World::freeze as fn(&mut World, usize), 1000), (World::pause, 256)] {
        let mut world = world(Gateways::Present);
        stop(&mut world, 1);
        let from = world.address(0);
        for _ in 0..2000 {
            world.forge(Recorded { from, to: 1, bytes: vec![0; 10] });
        }
        world.advance(Duration::from_millis(50));

        assert_eq!(world.hosts.get(1).unwrap().waiting.len(), bound);
    }
}

#[test]
fn the_clock_of_a_paused_machine_goes_on_or_stands_still() {
    for (clock, lag) in [(PausedClock::GoesOn, 0), (PausedClock::StandsStill, 300)] {
        let mut world = world(Gateways::Present);
        world.pause(1);
        world.advance(Duration::from_millis(300));
        world.resume(1, clock);

        let now = world.now();
        assert_eq!(now - world.hosts.get(1).unwrap().local(now), Duration::from_millis(lag));
    }
}

#[test]
fn a_datagram_in_a_frame_reaches_the_host_of_that_ethernet_address() {
    let mut world = world(Gateways::Present);
    world.queue = Queue::default();
    let mac = world.address(1).mac();

    world.send_datagram(0, HostAddress::index_of_mac(mac), Via::Wire, b"sealed".to_vec());

    let Some((_, Event::Arrival { host: 1, parcel })) = world.queue.pop_until(world.now() + LONG) else {
        panic!("nothing arrives");
    };
    assert!(matches!(*parcel, Parcel::Datagram { from, via: Via::Wire, .. } if from.index == 0));
    assert!(matches!(wire_path(mac), Path::Wire(_, to) if to == mac));
}

/// How many answers host 0 gets to one probe of host 1.
fn answers(break_it: impl FnOnce(&mut World), port: u16) -> usize {
    let mut world = world(Gateways::Present);
    break_it(&mut world);
    world.queue = Queue::default();
    let to = SocketAddr::new(world.address(1).gossip().ip(), port);
    world.carry_out(0, Request::ProbeHost { probe: ProbeId(1), to });
    arrivals(&mut world, |parcel| matches!(parcel, Parcel::HostAnswer { .. }))
}

/// Lets things happen without letting the speakers act, and counts what arrives.
fn arrivals(world: &mut World, counts: impl Fn(&Parcel) -> bool) -> usize {
    let (mut count, end) = (0, world.now() + LONG);
    while let Some((at, event)) = world.queue.pop_until(end) {
        match event {
            Event::Arrival { parcel, .. } => count += usize::from(counts(&parcel)),
            Event::Syn { .. } => {
                world.clock.now = at;
                world.handle(event);
            }
            Event::Wake { .. }
            | Event::AtGateway { .. }
            | Event::Exchange { .. }
            | Event::Reach { .. }
            | Event::Probe => {}
        }
    }
    count
}

fn world(gateways: Gateways) -> World {
    let blueprint = Blueprint {
        nodes: 2,
        spare: 0,
        racks: 1,
        desired: Desired::default(),
        loss: 0.0,
        profile: Profile::Default,
        sealing: Sealing::InsecurePlaintext,
        gateways,
        start: Start::Join { within: Duration::ZERO },
    };
    World::begin(blueprint, 1)
}

const LONG: Duration = Duration::from_secs(1);
