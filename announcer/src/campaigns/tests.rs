use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use garpike_election::MacAddr;
use proptest::prelude::*;

use super::*;

#[test]
fn whoever_was_asked_for_lately_goes_first() {
    let (mut campaigns, now) = (campaigns(1000, 3), start());
    for i in 0..4 {
        let turn = if i == 3 { Turn::Early } else { Turn::Ordinary };
        campaigns.start(v4(i), Reach::Long, turn, now);
    }
    let order: Vec<ServiceIp> = run(&mut campaigns, now, 5, &[]).into_iter().map(|sent| sent.ip).collect();
    assert_eq!(order[..4], [v4(3), v4(0), v4(1), v4(2)]);
}

#[test]
fn the_tail_is_left_out_once_all_have_acknowledged() {
    let (mut campaigns, now) = (campaigns(1000, 10), start());
    campaigns.start(v4(0), Reach::Long, Turn::Ordinary, now);
    campaigns.start(v6(0), Reach::Long, Turn::Ordinary, now);
    run(&mut campaigns, now, 500, &[gateway(), gateway6()]);
    assert_eq!(campaigns.acknowledge(v4(0), gateway().ip), Some(()));
    assert_eq!(campaigns.acknowledge(v4(0), gateway().ip), None, "again");
    assert_eq!(campaigns.acknowledge(v4(0), gateway6().ip), None, "nobody asked it for this address");

    let sent = run(&mut campaigns, now + Duration::from_millis(501), 98_000, &[]);

    let at = |sent: &Sent| sent.at.as_millis() + 501;
    let of = |ip, kind| sent.iter().filter(move |sent| sent.ip == ip && sent.kind == kind).map(at).collect::<Vec<_>>();
    assert_eq!(of(v4(0), Kind::Announcement), [1000, 1000, 3000, 3000]);
    assert_eq!(of(v4(0), Kind::Directed), [] as [u128; 0]);
    assert_eq!(of(v6(0), Kind::Announcement), [1000, 2000, 10_000, 30_000, 60_000]);
    let asked: Vec<u128> = [1000, 3000].into_iter().chain((10_000..=90_000).step_by(10_000)).collect();
    assert_eq!(of(v6(0), Kind::Directed), asked);

    campaigns.acknowledge(v6(0), gateway6().ip).unwrap();
    assert_eq!((campaigns.progress(v6(0)).next, campaigns.progress(v4(0)).next), (None, None), "the rest of the tail");
}

#[test]
fn who_never_answers_is_asked_for_ten_minutes_and_a_short_campaign_ends_within_seconds() {
    for (reach, last_asked, last_announced) in [(Reach::Long, 590_000, 180_000), (Reach::Short, 3000, 3000)] {
        let (mut campaigns, now) = (campaigns(1000, 10), start());
        campaigns.start(v4(0), reach, Turn::Ordinary, now);
        let sent = run(&mut campaigns, now, 2_000_000, &[gateway()]);
        let last = |kind| sent.iter().filter(|sent| sent.kind == kind).map(|sent| sent.at.as_millis()).max();
        assert_eq!(last(Kind::Directed), Some(last_asked), "{reach:?}");
        let replies = sent.iter().filter(|sent| matches!(sent.shot, Shot::Arp(ArpOperation::Reply, _)));
        assert_eq!(replies.map(|sent| sent.at.as_millis()).max(), Some(last_announced), "{reach:?}");
    }
}

#[test]
fn a_short_campaign_does_not_cut_a_long_one_off() {
    let (mut campaigns, now) = (campaigns(1000, 10), start());
    campaigns.start(v4(0), Reach::Long, Turn::Ordinary, now);
    run(&mut campaigns, now, 500, &[]);
    campaigns.start(v4(0), Reach::Short, Turn::Ordinary, now + Duration::from_millis(500));
    let sent = run(&mut campaigns, now + Duration::from_millis(500), 200_000, &[]);
    assert_eq!(sent.iter().filter(|sent| matches!(sent.shot, Shot::Arp(ArpOperation::Reply, _))).count(), 9);
}

#[test]
fn a_gateway_that_appears_is_asked_at_once_for_what_is_open() {
    let (mut campaigns, now) = (campaigns(1000, 10), start());
    campaigns.start(v4(0), Reach::Long, Turn::Ordinary, now);
    campaigns.start(v6(0), Reach::Long, Turn::Ordinary, now);
    run(&mut campaigns, now, 20_000, &[]);
    campaigns.add_gateway(gateway(), now + Duration::from_millis(20_000));
    let sent = run(&mut campaigns, now + Duration::from_millis(20_000), 100, &[]);
    let asked: Vec<_> = sent.iter().filter(|sent| sent.kind == Kind::Directed).collect();
    assert_eq!(asked.iter().map(|sent| (sent.at.as_millis(), sent.ip)).collect::<Vec<_>>(), [(0, v4(0)), (50, v4(0))]);
    assert_eq!(campaigns.progress(v4(0)).missing, [gateway().ip]);
}

#[test]
fn directed_requests_have_a_two_hundredth_of_the_rate_and_come_after_all_first_announcements() {
    let (mut campaigns, now) = (campaigns(10_000, 128), start());
    for i in 0..1000 {
        campaigns.start(v4(i), Reach::Long, Turn::Ordinary, now);
    }
    let sent = run(&mut campaigns, now, 25_000, &[gateway()]);
    let directed: Vec<_> = sent.iter().filter(|sent| sent.kind == Kind::Directed).collect();
    let firsts: BTreeSet<ServiceIp> = sent[..1000].iter().map(|sent| sent.ip).collect();
    assert_eq!(firsts.len(), 1000);
    assert!(sent[..1000].iter().all(|sent| sent.kind == Kind::Announcement));
    let asked: BTreeSet<ServiceIp> = directed[..1000].iter().map(|sent| sent.ip).collect();
    assert_eq!(asked.len(), 1000, "each address once before any again");
    for (first, last) in directed.iter().zip(&directed[50 + 64..]) {
        assert!(last.at - first.at >= Duration::from_millis(970), "more than 114 within {:?}", last.at - first.at);
    }
}

#[test]
fn a_quiet_interface_says_something_every_100_s_and_names_each_address_every_600_s() {
    for count in [1, 3, 6, 7, 1000] {
        let (mut campaigns, now) = (campaigns(10_000, 128), start());
        for i in 0..count {
            campaigns.start(v4(i), Reach::Short, Turn::Ordinary, now);
        }
        run(&mut campaigns, now, 10_000, &[]);
        let sent = run(&mut campaigns, now + Duration::from_secs(10), 2_400_000, &[]);

        let pauses = sent.windows(2).map(|pair| pair[1].at - pair[0].at);
        assert!(pauses.clone().all(|pause| pause <= LONGEST_PAUSE), "{count}: {:?}", pauses.max());
        let mut of: BTreeMap<ServiceIp, Vec<Duration>> = BTreeMap::new();
        sent.iter().for_each(|sent| of.entry(sent.ip).or_default().push(sent.at));
        assert_eq!(of.len(), usize::try_from(count).unwrap());
        for (ip, at) in &of {
            assert!(at[0] <= ROUND, "{count}, {ip}: {at:?}");
            assert!(at.windows(2).all(|pair| pair[1] - pair[0] <= ROUND), "{count}, {ip}: {at:?}");
        }
        let even = 2_400 / 600 * count.max(6);
        assert!(sent.len().abs_diff(usize::try_from(even).unwrap()) <= 1, "{count}: {}", sent.len());
    }
}

#[test]
fn when_most_addresses_go_the_others_do_not_wait_longer() {
    let (mut campaigns, now) = (campaigns(10_000, 128), start());
    for i in 0..1000 {
        campaigns.start(v4(i), Reach::Short, Turn::Ordinary, now);
    }
    run(&mut campaigns, now, 310_000, &[]);
    for i in 0..990 {
        campaigns.cancel(v4(i));
    }
    let sent = run(&mut campaigns, now + Duration::from_secs(310), 300_000, &[]);
    let named: BTreeSet<ServiceIp> = sent.iter().map(|sent| sent.ip).collect();
    assert_eq!(named.len(), 10);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_laws_of_announcing_hold_at_any_rate(
        per_second in 1..20_000_u32,
        burst in 1..200_u32,
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let (mut campaigns, mut now) = (campaigns(per_second, burst), start());
        // What was sent for each address since it was gained, and all that was sent.
        let mut gained: BTreeMap<ServiceIp, Vec<Sent>> = BTreeMap::new();
        let mut sent: Vec<Sent> = Vec::new();
        for step in steps {
            match step {
                Step::Gain { ips, turn } => for ip in ips {
                    campaigns.start(ip, Reach::Long, turn, now);
                    gained.insert(ip, Vec::new());
                },
                Step::Lose { ips } => for ip in ips {
                    campaigns.cancel(ip);
                    gained.remove(&ip);
                },
                Step::Answer { ips } => for ip in ips {
                    let _ = campaigns.acknowledge(ip, gateway().ip);
                },
                Step::Wait { ms } => {
                    let waited = now - start();
                    for new in run(&mut campaigns, now, ms, &[gateway(), gateway6()]) {
                        let new = Sent { at: waited + new.at, ..new };
                        let silent = gained.values().filter(|sent| sent.is_empty()).count();
                        prop_assert!(gained.contains_key(&new.ip), "{} was cancelled", new.ip);
                        let before = gained.entry(new.ip).or_default();
                        if before.is_empty() {
                            prop_assert_eq!(new.kind, Kind::Announcement);
                        } else {
                            prop_assert_eq!(silent, 0, "{:?} before the first of others", new);
                        }
                        before.push(new);
                        sent.push(new);
                    }
                    now += Duration::from_millis(ms);
                    for sent in gained.values() {
                        keeps_the_table(sent)?;
                    }
                }
            }
        }
        keeps_the_rate(&sent, per_second, burst)?;
    }
}

/// The announcements of an address are never closer than its table says; a refresh may come after the first seconds.
fn keeps_the_table(sent: &[Sent]) -> Result<(), TestCaseError> {
    let announced: Vec<&Sent> = sent.iter().filter(|sent| sent.kind == Kind::Announcement).collect();
    let (mut requests, mut replies) = (announced.clone(), announced.clone());
    requests.retain(|sent| matches!(sent.shot, Shot::Arp(ArpOperation::Request, _)));
    replies.retain(|sent| matches!(sent.shot, Shot::Arp(ArpOperation::Reply, _)));
    for pair in announced.windows(2).filter(|pair| matches!(pair[1].shot, Shot::Advertisement(_))) {
        prop_assert!(pair[1].at - pair[0].at >= Duration::from_secs(1), "{pair:?}");
    }
    for pair in requests.windows(2).zip([50, 150, 800, 2000].into_iter().chain(std::iter::repeat(1000))) {
        let (pair, least_ms) = pair;
        prop_assert!(pair[1].at - pair[0].at >= Duration::from_millis(least_ms), "{pair:?}");
    }
    for (pair, least_ms) in replies.windows(2).zip([50, 150, 800, 2000, 7000, 20_000, 30_000, 120_000]) {
        prop_assert!(pair[1].at - pair[0].at >= Duration::from_millis(least_ms), "{pair:?}");
    }
    Ok(())
}

/// In any window no more than a burst and what the rate allows beyond it, all kinds together.
fn keeps_the_rate(sent: &[Sent], per_second: u32, burst: u32) -> Result<(), TestCaseError> {
    let interval = Duration::from_secs(1) / per_second;
    // A token bucket that starts full is never overdrawn, which is the same for all windows at once.
    let mut full_at = Duration::ZERO;
    for sent in sent {
        prop_assert!(full_at <= sent.at + interval * (burst - 1), "{sent:?}");
        full_at = full_at.max(sent.at) + interval;
    }
    for window in sent.windows(usize::try_from(burst).unwrap() + 1) {
        let (first, last) = (window[0], window[window.len() - 1]);
        prop_assert!(last.at - first.at >= interval.saturating_sub(Duration::from_nanos(1)), "{first:?} to {last:?}");
    }
    Ok(())
}

#[derive(Clone, Debug)]
enum Step {
    Gain { ips: Vec<ServiceIp>, turn: Turn },
    Lose { ips: Vec<ServiceIp> },
    Answer { ips: Vec<ServiceIp> },
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let ips = || {
        prop::collection::vec(
            (any::<bool>(), 0..40_u32).prop_map(|(is_v4, i)| if is_v4 { v4(i) } else { v6(i) }),
            1..20,
        )
    };
    let turn = prop_oneof![Just(Turn::Early), Just(Turn::Ordinary)];
    prop_oneof![
        2 => (ips(), turn).prop_map(|(ips, turn)| Step::Gain { ips, turn }),
        1 => ips().prop_map(|ips| Step::Lose { ips }),
        1 => ips().prop_map(|ips| Step::Answer { ips }),
        3 => (1..4000_u64).prop_map(|ms| Step::Wait { ms }),
        1 => (4000..20_000_u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    /// Since the beginning of the run.
    at: Duration,
    ip: ServiceIp,
    shot: Shot,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Announcement,
    Directed,
}

/// Lets time pass and gives what was sent.
fn run(campaigns: &mut Campaigns, start: Instant, ms: u64, whom: &[Question]) -> Vec<Sent> {
    let end = start + Duration::from_millis(ms);
    let (mut now, mut sent) = (start, Vec::new());
    loop {
        let whom = |ip: ServiceIp| {
            whom.iter().copied().filter(|question| question.ip.is_ipv4() == ip.addr().is_ipv4()).collect::<Vec<_>>()
        };
        while let Some((ip, shot)) = campaigns.next(now, whom) {
            let kind = match shot {
                Shot::Arp(..) | Shot::Advertisement(_) => Kind::Announcement,
                Shot::Directed(_) => Kind::Directed,
            };
            sent.push(Sent { at: now - start, ip, shot, kind });
        }
        let Some(next) = campaigns.next_at().filter(|next| *next < end) else { return sent };
        assert!(next > now, "what was due is not done");
        now = next;
    }
}

fn campaigns(per_second: u32, burst: u32) -> Campaigns {
    Campaigns::new(NonZeroU32::new(per_second).unwrap(), NonZeroU32::new(burst).unwrap(), start())
}

fn gateway() -> Question {
    Question { ip: [192, 168, 8, 1].into(), mac: Some(MacAddr([2, 0, 0, 0, 0, 1])) }
}

fn gateway6() -> Question {
    Question { ip: "fe80::1".parse().unwrap(), mac: None }
}

fn v4(i: u32) -> ServiceIp {
    ServiceIp::new(Ipv4Addr::from_bits(0x0a00_0001 + i).into()).unwrap()
}

fn v6(i: u32) -> ServiceIp {
    ServiceIp::new(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 1, u16::try_from(i).unwrap()).into()).unwrap()
}

/// What a switch allows that forgets after 300 s, and a little for what is due at the same time.
const LONGEST_PAUSE: Duration = Duration::from_millis(100_001);
const ROUND: Duration = Duration::from_millis(600_001);

/// The same instant at each call, so that a core and its test agree on it.
fn start() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "virtual time needs one real instant to start from")]
    let start = || Instant::now();
    *START.get_or_init(start)
}
