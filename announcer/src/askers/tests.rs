use proptest::prelude::*;

use super::*;

#[test]
fn the_four_latest_askers_are_known_for_ten_minutes_on_their_interface() {
    let (mut askers, now) = (Askers::default(), start());
    for second in 0..6 {
        askers.note(vip(1), ETH0, station(second), mac(second), now + Duration::from_secs(second.into()));
    }
    askers.note(vip(1), ETH0, station(2), mac(9), now + Duration::from_secs(6));

    let expected = [(2, 9), (5, 5), (4, 4), (3, 3)];
    let later = now + Duration::from_secs(7);
    let question = |(ip, at): (u32, u32)| Question { ip: station(ip), mac: Some(mac(at)) };
    assert_eq!(askers.of(vip(1), ETH0, later), expected.map(question));
    assert_eq!(askers.of(vip(1), IfIndex(3), later), []);
    assert_eq!(askers.of(vip(2), ETH0, later), []);
    assert_eq!(askers.of(vip(1), ETH0, now + Duration::from_secs(604)), [(2, 9), (5, 5)].map(question));
    assert_eq!(askers.turn(vip(1), now + Duration::from_secs(605)), Turn::Early);
    assert_eq!(askers.turn(vip(1), now + Duration::from_secs(606)), Turn::Ordinary);
    assert_eq!(askers.turn(vip(2), later), Turn::Ordinary);
}

#[test]
fn addresses_that_nobody_asks_for_any_more_make_room() {
    let (mut askers, now) = (Askers::default(), start());
    for i in 0..20_000 {
        askers.note(vip(i), ETH0, station(1), mac(1), now);
    }
    assert_eq!(askers.by_ip.len(), ADDRESSES_MAX);
    assert_eq!(askers.turn(vip(19_999), now), Turn::Ordinary, "the others are as recent");

    let later = now + RECENT;
    askers.note(vip(1), ETH0, station(1), mac(1), later);
    askers.note(vip(19_999), ETH0, station(1), mac(1), later);
    assert_eq!(askers.by_ip.len(), 2);
}

#[test]
fn a_flood_of_askers_for_10_000_addresses_takes_less_than_3_mb() {
    let (mut askers, now) = (Askers::default(), start());
    for i in 0..200_000 {
        askers.note(vip(i % 12_000), ETH0, station(i), mac(i), now + Duration::from_micros(i.into()));
    }

    let slots = askers.by_ip.capacity() * 8 / 7;
    // The slots of the table with a control byte each; the heap blocks with what an allocator keeps of each.
    let table = slots * (size_of::<(ServiceIp, Vec<Asker>)>() + 1);
    let lists: Vec<&Vec<Asker>> = (0..12_000).filter_map(|i| askers.by_ip.get(&vip(i))).collect();
    let room: usize = lists.iter().map(|list| list.capacity() * size_of::<Asker>() + 16).sum();
    assert_eq!(lists.len(), ADDRESSES_MAX);
    assert!(lists.iter().all(|list| list.len() == ASKERS_MAX));
    assert!(table + room < 3_000_000, "{table} + {room} bytes");
}

proptest! {
    #[test]
    fn whoever_asked_last_is_known_and_nobody_twice(
        notes in prop::collection::vec((0..3_u32, 0..6_u32, 1..900_u64), 1..60),
    ) {
        let (mut askers, mut now) = (Askers::default(), start());
        for (ip, who, seconds) in notes {
            now += Duration::from_secs(seconds);
            askers.note(vip(ip), ETH0, station(who), mac(who), now);

            let known = askers.of(vip(ip), ETH0, now);
            prop_assert_eq!(known.first().map(|question| question.ip), Some(station(who)));
            let distinct: std::collections::BTreeSet<IpAddr> = known.iter().map(|question| question.ip).collect();
            prop_assert_eq!(distinct.len(), known.len());
            prop_assert!(known.len() <= ASKERS_MAX);
        }
    }
}

const ETH0: IfIndex = IfIndex(2);

fn vip(i: u32) -> ServiceIp {
    ServiceIp::new(std::net::Ipv4Addr::from_bits(0x0a00_0001 + i).into()).unwrap()
}

fn station(i: u32) -> IpAddr {
    std::net::Ipv4Addr::from_bits(0xc0a8_0001 + i).into()
}

fn mac(i: u32) -> MacAddr {
    let [a, b, c, d] = i.to_be_bytes();
    MacAddr([2, 0, a, b, c, d])
}

#[expect(clippy::disallowed_methods, reason = "virtual time needs one real instant to start from")]
fn start() -> Instant {
    Instant::now()
}
