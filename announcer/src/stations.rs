//! The stations of one segment that are no members: its gateways, and who asked for a service IP lately.
//!
//! Their answers show that the wire works when no member is heard. A station counts as known while it was heard within
//! ten minutes: a gateway that is configured but never answers proves nothing, and must hold nobody back. Memory is
//! bounded, whoever floods the segment. A gateway that was known is silent when it has missed three reviews in a row, until it
//! answers or is none any more.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use garpike_election::{IfIndex, MacAddr};

/// The default gateways behind each interface, with their Ethernet addresses as far as the kernel knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateways {
    /// By interface and address.
    pub gateways: BTreeMap<IfIndex, BTreeMap<IpAddr, Option<MacAddr>>>,
}

/// The stations behind one interface.
#[derive(Debug, Default)]
pub(crate) struct Stations {
    known: BTreeMap<IpAddr, Station>,
    /// When they were asked last, as long as nobody has answered.
    asked: Option<Instant>,
}

#[derive(Debug)]
struct Station {
    kind: Kind,
    mac: Option<MacAddr>,
    heard: Option<Instant>,
    /// How often it was asked since it was heard.
    unanswered: u32,
    /// Whether a question to it is open.
    asked: bool,
    /// At how many reviews in a row that was so, of a gateway that was known.
    missed: u32,
}

/// Which of two stations is asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Gateway,
    Asker,
}

/// Who is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// Gateways only.
    Gateways,
    /// Gateways first, then those who asked last.
    All,
}

/// Whom to ask, and where: everybody on the segment hears the question if `mac` is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) ip: IpAddr,
    pub(crate) mac: Option<MacAddr>,
}

impl Stations {
    /// Takes all gateways of the segment, and gives those that were none before.
    pub(crate) fn set_gateways(&mut self, gateways: &BTreeMap<IpAddr, Option<MacAddr>>) -> Vec<Question> {
        let before: BTreeSet<IpAddr> = self.gateways().map(|gateway| gateway.ip).collect();
        self.known.retain(|ip, station| station.kind == Kind::Asker || gateways.contains_key(ip));
        for (ip, mac) in gateways.iter().take(MAX_STATIONS) {
            let station = self.known.entry(*ip).or_insert_with(|| Station::new(Kind::Gateway));
            station.kind = Kind::Gateway;
            station.mac = mac.or(station.mac);
        }
        self.gateways().filter(|gateway| !before.contains(&gateway.ip)).collect()
    }

    /// The gateways, in the order of their addresses.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = Question> {
        let gateways = self.known.iter().filter(|(_, station)| station.kind == Kind::Gateway);
        gateways.map(|(ip, station)| Question { ip: *ip, mac: station.mac })
    }

    /// Where a station is, as far as that is known.
    pub(crate) fn mac_of(&self, ip: IpAddr) -> Option<MacAddr> {
        self.known.get(&ip)?.mac
    }

    /// Notes that a station asked for a service IP.
    pub(crate) fn note_asker(&mut self, ip: IpAddr, mac: MacAddr, now: Instant) {
        if !self.known.contains_key(&ip) {
            let askers = || self.known.iter().filter(|(_, station)| station.kind == Kind::Asker);
            if askers().count() >= MAX_STATIONS {
                let oldest = askers().min_by_key(|(_, station)| station.heard).map(|(ip, _)| *ip);
                oldest.and_then(|ip| self.known.remove(&ip));
            }
        }
        self.known.entry(ip).or_insert_with(|| Station::new(Kind::Asker)).hear(mac, now);
    }

    /// Whom to ask at this moment; they count as asked.
    pub(crate) fn ask(&mut self, whom: Whom, members: &BTreeSet<MacAddr>, now: Instant) -> Vec<Question> {
        let wanted = |station: &Station| match (whom, station.kind) {
            (Whom::All, _) | (Whom::Gateways, Kind::Gateway) => !station.is_one_of(members),
            (Whom::Gateways, Kind::Asker) => false,
        };
        let mut chosen: Vec<_> = self.known.iter_mut().filter(|(_, station)| wanted(station)).collect();
        chosen.sort_by_key(|(ip, station)| (station.kind, Reverse(station.heard), **ip));
        chosen.truncate(MAX_ASKED);
        if !chosen.is_empty() {
            self.asked = Some(now);
        }
        let question = |(ip, station): (&IpAddr, &mut Station)| {
            station.unanswered = station.unanswered.saturating_add(1);
            Question { ip: *ip, mac: station.mac.filter(|_| station.unanswered <= MAX_UNICAST) }
        };
        chosen.into_iter().map(question).collect()
    }

    /// A question to this station was sent.
    pub(crate) fn note_question(&mut self, ip: IpAddr) {
        if let Some(station) = self.known.get_mut(&ip) {
            station.asked = true;
        }
    }

    /// Counts the gateways that have not answered though they are known; tells whether there are any.
    pub(crate) fn review_gateways(&mut self, members: &BTreeSet<MacAddr>) -> bool {
        let silent = self.known.values_mut().filter(|station| {
            station.kind == Kind::Gateway
                && station.asked
                && (station.heard.is_some() || station.missed > 0)
                && !station.is_one_of(members)
        });
        silent.map(|station| station.missed = station.missed.saturating_add(1)).count() > 0
    }

    /// Whether a gateway that was known does not answer any more.
    pub(crate) fn gateway_is_silent(&self) -> bool {
        self.known.values().any(|station| station.kind == Kind::Gateway && station.missed >= MISSED_MAX)
    }

    /// Whether a gateway has this Ethernet address.
    pub(crate) fn has_gateway(&self, mac: MacAddr) -> bool {
        self.known.values().any(|station| station.kind == Kind::Gateway && station.mac == Some(mac))
    }

    /// Takes what a station says of itself; gives whether it is the first answer to the last questions.
    pub(crate) fn handle_answer(&mut self, ip: IpAddr, mac: MacAddr, now: Instant) -> bool {
        if let Some(station) = self.known.get_mut(&ip) {
            station.hear(mac, now);
        }
        self.asked.take_if(|asked| now <= *asked + ANSWERS_WITHIN).is_some()
    }

    /// Forgets who was not heard for a long time.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let is_old = |heard: Instant| now >= heard + KNOWN_FOR;
        self.known.retain(|_, station| station.kind == Kind::Gateway || !station.heard.is_some_and(is_old));
        for station in self.known.values_mut() {
            station.heard = station.heard.filter(|heard| !is_old(*heard));
        }
    }

    /// When [`Stations::handle_timeout`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.known.values().filter_map(|station| station.heard).min().map(|heard| heard + KNOWN_FOR)
    }

    /// Whether a station that is no member was heard lately.
    pub(crate) fn is_known(&self, members: &BTreeSet<MacAddr>) -> bool {
        self.known.values().any(|station| station.heard.is_some() && !station.is_one_of(members))
    }
}

impl Station {
    fn new(kind: Kind) -> Self {
        Self { kind, mac: None, heard: None, unanswered: 0, asked: false, missed: 0 }
    }

    fn hear(&mut self, mac: MacAddr, now: Instant) {
        self.mac = Some(mac);
        self.heard = Some(now);
        self.unanswered = 0;
        self.asked = false;
        self.missed = 0;
    }

    fn is_one_of(&self, members: &BTreeSet<MacAddr>) -> bool {
        self.mac.is_some_and(|mac| members.contains(&mac))
    }
}

/// Chosen: more than a segment has gateways, and enough clients that one of them still lives.
const MAX_STATIONS: usize = 64;
/// Chosen: one of four answers where one may be switched off; all are asked every 20 ms when it matters.
const MAX_ASKED: usize = 4;
/// As many solicitations as Linux sends to an address that it knows before it asks everybody (`ucast_solicit`).
const MAX_UNICAST: u32 = 3;
/// Chosen: with a tenth of all frames lost, three questions and answers in a row are lost once in 150 times.
const MISSED_MAX: u32 = 3;
/// Chosen: an answer that takes longer says nothing of the wire now.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// Chosen: several times as long as neighbours keep an entry that they use, so that a client in use is known.
const KNOWN_FOR: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_are_asked_first_then_the_latest_askers_four_in_all() {
        let (mut stations, now) = (Stations::default(), start());
        for last in 1..=5 {
            stations.note_asker(ip(last), mac(last), now + Duration::from_secs(last.into()));
        }
        stations.set_gateways(&BTreeMap::from([(ip(254), None)]));

        let asked = stations.ask(Whom::All, &BTreeSet::new(), now);

        let expected = [(254, None), (5, Some(5)), (4, Some(4)), (3, Some(3))];
        assert_eq!(asked, expected.map(|(last, known)| Question { ip: ip(last), mac: known.map(mac) }));
        let gateways = stations.ask(Whom::Gateways, &BTreeSet::new(), now);
        assert_eq!(gateways, [Question { ip: ip(254), mac: None }]);
    }

    #[test]
    fn members_are_no_stations() {
        let (mut stations, now) = (Stations::default(), start());
        stations.note_asker(ip(1), mac(1), now);
        let members = BTreeSet::from([mac(1)]);

        assert_eq!(stations.ask(Whom::All, &members, now), []);
        assert!(!stations.is_known(&members));
        assert!(stations.is_known(&BTreeSet::new()));
    }

    #[test]
    fn a_gateway_is_known_only_once_it_was_heard() {
        let (mut stations, now) = (Stations::default(), start());
        stations.set_gateways(&BTreeMap::from([(ip(254), Some(mac(254)))]));
        assert!(!stations.is_known(&BTreeSet::new()));

        stations.ask(Whom::All, &BTreeSet::new(), now);
        assert!(stations.handle_answer(ip(254), mac(254), now + Duration::from_millis(1)));
        assert!(stations.is_known(&BTreeSet::new()));

        let later = now + KNOWN_FOR + Duration::from_millis(1);
        assert_eq!(stations.poll_timeout(), Some(later));
        stations.handle_timeout(later);
        assert!(!stations.is_known(&BTreeSet::new()));
        assert_eq!(stations.ask(Whom::All, &BTreeSet::new(), later).len(), 1, "it is asked all the same");
    }

    #[test]
    fn only_the_first_answer_in_time_counts() {
        let (mut stations, now) = (Stations::default(), start());
        assert!(!stations.handle_answer(ip(1), mac(1), now), "nobody asked");
        stations.note_asker(ip(1), mac(1), now);
        stations.ask(Whom::All, &BTreeSet::new(), now);
        assert!(stations.handle_answer(ip(1), mac(1), now));
        assert!(!stations.handle_answer(ip(1), mac(1), now));
        stations.ask(Whom::All, &BTreeSet::new(), now);
        assert!(!stations.handle_answer(ip(1), mac(1), now + ANSWERS_WITHIN + Duration::from_millis(1)));
    }

    #[test]
    fn a_station_that_does_not_answer_is_looked_for_everywhere() {
        let (mut stations, now) = (Stations::default(), start());
        stations.note_asker(ip(1), mac(1), now);
        let mut ask = || stations.ask(Whom::All, &BTreeSet::new(), now).first().unwrap().mac;

        assert_eq!([ask(), ask(), ask(), ask()], [Some(mac(1)), Some(mac(1)), Some(mac(1)), None]);
    }

    #[test]
    fn a_flood_of_askers_takes_no_more_room_than_the_latest() {
        let (mut stations, now) = (Stations::default(), start());
        stations.set_gateways(&BTreeMap::from([(ip(254), None)]));
        for i in 0..10_000_u32 {
            let flood = IpAddr::from(std::net::Ipv4Addr::from_bits(0x0b00_0000 + i));
            stations.note_asker(flood, mac(1), now + Duration::from_millis(i.into()));
        }

        assert_eq!(stations.known.len(), MAX_STATIONS + 1);
        assert_eq!(stations.ask(Whom::All, &BTreeSet::new(), now).first().unwrap().ip, ip(254));
    }

    #[test]
    fn who_asked_is_forgotten_and_a_gateway_that_is_none_any_more_too() {
        let (mut stations, now) = (Stations::default(), start());
        stations.note_asker(ip(1), mac(1), now);
        stations.set_gateways(&BTreeMap::from([(ip(254), None)]));
        stations.handle_timeout(now + KNOWN_FOR);
        stations.set_gateways(&BTreeMap::new());

        assert!(stations.known.is_empty());
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 168, 8, last])
    }

    fn mac(last: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, last])
    }

    #[expect(clippy::disallowed_methods, reason = "virtual time needs one real instant to start from")]
    fn start() -> Instant {
        Instant::now()
    }
}
