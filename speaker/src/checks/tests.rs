//! Each check by what it sees.

use std::sync::Arc;

use garpike_announcer::{AddressStatus, DoubtStatus, InterfaceStatus};
use garpike_election::{Desired, Member, NodeState, Selection, Wire};

use super::*;

#[test]
fn a_host_that_is_prepared_has_no_findings() {
    assert_eq!(Case::new().findings(), []);
}

#[test]
fn the_kernel_may_answer_only_where_kube_proxy_made_the_addresses_local() {
    let mut case = Case::new();
    case.host.arp = arp_sysctl::check([&interface("lo")]);
    let settings: Vec<&'static str> = case.host.arp.iter().map(|finding| finding.setting).collect();
    assert_eq!(case.findings(), [], "without {IPVS} the addresses are not local");

    let ipvs = InterfaceStatus { mac: None, obstacle: Some("excluded"), troubles: Vec::new() };
    case.announcer.interfaces.insert(interface(IPVS), ipvs);
    let found = case.findings();
    let told: Vec<&'static str> = found
        .iter()
        .map(|finding| match finding {
            Finding::StrictArp { setting, .. } => *setting,
            Finding::SubnetRouter { .. }
            | Finding::UdpBlocked { .. }
            | Finding::TcpBlocked { .. }
            | Finding::NodeName { .. }
            | Finding::ForeignSpeaker { .. }
            | Finding::Placement { .. }
            | Finding::Clock { .. } => panic!("{finding}"),
        })
        .collect();
    assert_eq!(told, settings);
    assert!(found.iter().all(|finding| finding.to_string().contains("strictARP: true")));
}

#[test]
fn the_first_address_of_a_network_is_the_routers_where_ipv6_is_forwarded() {
    let mut case = Case::new();
    case.host.forwards_ipv6.insert(interface("eth0"));
    assert_eq!(case.checks(), [] as [&str; 0], "no Service has it");

    case.hold("fd00:1::");
    let found = case.findings();
    assert_eq!(case.checks(), ["subnet_router"]);
    assert!(found[0].to_string().starts_with("fd00:1:: is the subnet-router anycast address"), "{}", found[0]);

    case.host.forwards_ipv6.clear();
    assert_eq!(case.findings(), [], "a host that does not forward does not answer");
}

#[test]
fn peers_are_named_by_what_does_not_arrive() {
    let mut case = Case::new();
    case.unreachable.insert(node("b"));
    let found = case.findings();

    assert_eq!(found, [Finding::TcpBlocked { peer: node("b") }]);
    assert!(found[0].to_string().contains("TCP 7946"));
}

#[test]
fn whoever_else_answers_for_an_address_is_named() {
    let mut case = Case::new();
    let mac = "02:00:00:00:00:07".parse().unwrap();
    let doubt = |reason| DoubtStatus { reason, mac: Some(mac), node: Some(node("b")) };
    case.announcer.addresses.insert(ip("10.0.0.1"), address(Some(doubt("foreign_speaker"))));
    case.announcer.addresses.insert(ip("10.0.0.2"), address(Some(doubt("untried"))));
    case.announcer.addresses.insert(ip("10.0.0.3"), address(None));

    let [found] = &case.findings()[..] else { panic!("{:?}", case.findings()) };
    assert_eq!(found.check(), "foreign_speaker");
    for part in ["02:00:00:00:00:07", "node b", "10.0.0.1", "MetalLB"] {
        assert!(found.to_string().contains(part), "{found}");
    }
}

#[test]
fn even_numbers_that_not_all_want_are_told_with_the_names_of_those_who_do_not() {
    let mut case = Case::new();
    case.spread = Spread::Balanced;
    case.members([Some(Spread::Balanced), Some(Spread::Hash)]);
    assert_eq!(case.findings(), [Finding::Placement { others: "b".to_owned() }]);

    case.members([Some(Spread::Balanced), None]);
    assert_eq!(case.findings(), [], "who has not spoken is not to blame");
    case.spread = Spread::Hash;
    case.members([Some(Spread::Hash), Some(Spread::Balanced)]);
    assert_eq!(case.findings(), [], "told by those who want it");
}

#[test]
fn a_clock_that_no_ntp_sets_is_told_with_its_direction() {
    let mut case = Case::new();
    for (ahead, told) in [(4, None), (-4, None), (90, Some("90 s ahead of")), (-3600, Some("3600 s behind"))] {
        case.clock_ahead_s = ahead;
        let texts: Vec<String> = case.findings().iter().map(ToString::to_string).collect();
        assert_eq!(texts.iter().any(|text| text.contains(told.unwrap_or_default())), told.is_some(), "{texts:?}");
    }
}

#[test]
fn a_flood_of_findings_is_cut() {
    let mut case = Case::new();
    for last in 0..200 {
        let doubt = DoubtStatus { reason: "in_use", mac: None, node: None };
        case.announcer.addresses.insert(ip(&format!("10.0.0.{last}")), address(Some(doubt)));
    }

    assert_eq!(case.findings().len(), SHOWN);
}

#[test]
fn every_check_has_a_series() {
    let (peer, other, interface) = (String::new(), String::new(), interface("eth0"));
    let findings = [
        Finding::StrictArp { interface: interface.clone(), setting: "arp_ignore", value: 0, wanted: 1 },
        Finding::SubnetRouter { ip: ip("fd00::1"), interface },
        Finding::UdpBlocked { peer },
        Finding::TcpBlocked { peer: node("b") },
        Finding::NodeName { other },
        Finding::ForeignSpeaker { ip: ip("10.0.0.1"), mac: None, node: None },
        Finding::Placement { others: String::new() },
        Finding::Clock { ahead_s: 9 },
    ];

    assert_eq!(findings.map(|finding| finding.check()), Finding::CHECKS);
}

/// Two members, of which a is this node, on a network each.
struct Case {
    host: Host,
    view: View,
    membership: Membership,
    announcer: Announcer,
    unreachable: BTreeSet<NodeName>,
    spread: Spread,
    clock_ahead_s: i64,
}

impl Case {
    fn new() -> Self {
        let mut case = Self {
            host: Host::default(),
            view: View::default(),
            membership: status(),
            announcer: Announcer::default(),
            unreachable: BTreeSet::new(),
            spread: Spread::Hash,
            clock_ahead_s: 0,
        };
        case.members([Some(Spread::Hash); 2]);
        case
    }

    fn members(&mut self, spreads: [Option<Spread>; 2]) {
        let wire = Wire { mac: MacAddr([2, 0, 0, 0, 0, 1]), nets: BTreeSet::from(["fd00:1::5/64".parse().unwrap()]) };
        let wires = BTreeMap::from([(interface("eth0"), wire)]);
        let member = |spread| Member { wires: wires.clone(), spread, ..Member::new(NodeState::Ready, Selection::All) };
        let nodes = ["a", "b"].map(node).into_iter().zip(spreads.map(member)).collect();
        self.view.members = Some(Arc::new(Members { local: node("a"), nodes }));
    }

    /// A Service gets the address.
    fn hold(&mut self, address: &str) {
        let ip = ip(address);
        let endpoints = garpike_election::Endpoints::Anywhere;
        let address =
            garpike_election::Address { election_key: ip, services: Box::default(), placements: Vec::new(), endpoints };
        self.view.desired = Arc::new(Desired { addresses: BTreeMap::from([(ip, address)]), ..Desired::default() });
    }

    fn findings(&self) -> Vec<Finding> {
        let Self { host, view, membership, announcer, unreachable, spread, clock_ahead_s } = self;
        let (spread, clock_ahead_s) = (*spread, *clock_ahead_s);
        Sight { host, view, membership, announcer, unreachable, spread, clock_ahead_s }.findings()
    }

    fn checks(&self) -> Vec<&'static str> {
        self.findings().iter().map(Finding::check).collect()
    }
}

/// What the membership of a node shows that has just begun.
fn status() -> Membership {
    let config = garpike_membership::Config {
        local: node("a"),
        generation: garpike_membership::Generation(1),
        process: garpike_membership::ProcessId(1),
        gossip: "127.0.0.1:7946".parse().unwrap(),
        seeds: Vec::new(),
        sealing: garpike_membership::Sealing::InsecurePlaintext,
        surroundings: garpike_membership::Surroundings::new(Selection::All),
        profile: garpike_membership::Profile::Default,
        restart_grace: std::time::Duration::from_secs(60),
        failback: None,
        host_ports: Vec::new(),
        spread: Spread::Hash,
        feature_level: garpike_membership::FeatureLevel::CURRENT,
        later_facts: BTreeMap::new(),
    };
    garpike_membership::Cluster::new(config, [1; 32], now()).status()
}

fn address(doubt: Option<DoubtStatus>) -> AddressStatus {
    AddressStatus {
        interfaces: Vec::new(),
        announcing: false,
        announced_unix_ms: None,
        next_announcement_unix_ms: None,
        acknowledged: None,
        unacknowledged: Vec::new(),
        requests: 0,
        answers: 0,
        announcements: 0,
        foreign_claims: 0,
        claimed_by: None,
        claimed_by_kind: None,
        doubt,
    }
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn interface(name: &str) -> InterfaceName {
    name.parse().unwrap()
}

fn ip(text: &str) -> ServiceIp {
    text.parse().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
