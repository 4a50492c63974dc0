//! The metrics that dashboards and alerts for MetalLB read, by its names.
//!
//! Written from what is so at the moment of the scrape: what this node has given up has no series, however long it had one.

use std::fmt::Write as _;

use garpike_announcer::Status;
use garpike_election::{NodeName, ServiceIp};

use crate::pipeline::View;
use crate::source::{Origin, Snapshot};

/// What was counted for an address that this node owns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    ip: ServiceIp,
    requests: u64,
    answers: u64,
    announcements: u64,
}

/// What was counted for each address that this node owns.
pub(crate) fn counts(announcer: &Status) -> Vec<Counts> {
    let counts = announcer.addresses.iter().map(|(ip, address)| Counts {
        ip: *ip,
        requests: address.requests,
        answers: address.answers,
        announcements: address.announcements,
    });
    counts.collect()
}

/// What this node announces: one series for each Service and address, and three for each address.
pub(crate) fn of_addresses(view: &View, node: &NodeName, counts: &[Counts]) -> String {
    let mut text = head("metallb_speaker_announced", "gauge", "Services that this node announces");
    for (ip, _) in view.assignment.owned_by(node) {
        for service in view.desired.addresses.get(&ip).iter().flat_map(|address| &address.services) {
            // None of the values can hold a quotation mark or a backslash: all are names as Kubernetes has them.
            let _ = writeln!(
                text,
                "metallb_speaker_announced{{service=\"{service}\",protocol=\"layer2\",node=\"{node}\",ip=\"{ip}\"}} 1"
            );
        }
    }
    for Counter { name, help, value } in COUNTERS {
        text.push_str(&head(name, "counter", help));
        for counts in counts {
            let _ = writeln!(text, "{name}{{ip=\"{}\"}} {}", counts.ip, value(counts));
        }
    }
    text
}

/// Whether there is a configuration. One that is wrong in part is in force but for that part, so none is ever stale.
pub(crate) fn of_configuration(snapshot: &Snapshot) -> String {
    let loaded = match snapshot.origin {
        Origin::Nothing => 0,
        Origin::Saved { .. } | Origin::Live => 1,
    };
    let mut text = head("metallb_k8s_client_config_loaded_bool", "gauge", "Whether a configuration was loaded");
    let _ = writeln!(text, "metallb_k8s_client_config_loaded_bool {loaded}");
    text.push_str(&head(
        "metallb_k8s_client_config_stale_bool",
        "gauge",
        "Whether the configuration in force is an earlier one",
    ));
    let _ = writeln!(text, "metallb_k8s_client_config_stale_bool 0");
    text
}

fn head(name: &str, kind: &str, help: &str) -> String {
    format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")
}

/// Something that is counted for each address.
struct Counter {
    name: &'static str,
    help: &'static str,
    value: fn(&Counts) -> u64,
}

/// As MetalLB counts: each frame of an announcement, and a request that got no answer too.
const COUNTERS: [Counter; 3] = [
    Counter {
        name: "metallb_layer2_requests_received",
        help: "ARP and NDP requests for addresses of this node",
        value: |counts| counts.requests,
    },
    Counter {
        name: "metallb_layer2_responses_sent",
        help: "ARP and NDP answers for addresses of this node",
        value: |counts| counts.answers,
    },
    Counter {
        name: "metallb_layer2_gratuitous_sent",
        help: "Gratuitous ARP and unsolicited NDP frames for addresses of this node",
        value: |counts| counts.announcements,
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;
    use std::sync::Arc;

    use garpike_election::{Address, Assignment, Desired, Elected, Endpoints, Selection, ServiceIp, ServiceKey};

    use super::*;

    #[test]
    fn only_what_this_node_owns_has_a_series() {
        let ip: ServiceIp = "10.0.0.1".parse().unwrap();
        let services = ["dns", "web"].map(|name| ServiceKey::new("default", name));
        let services = services.into();
        let address = Address { election_key: ip, services, placements: Vec::new(), endpoints: Endpoints::Anywhere };
        let ranked = vec!["n1".parse().unwrap()];
        let elected = Elected { ranked, stand_in: None, interfaces: Selection::All, unowned: None };
        let view = View {
            desired: Arc::new(Desired { addresses: BTreeMap::from([(ip, address)]), ..Desired::default() }),
            members: None,
            assignment: Arc::new(Assignment { addresses: BTreeMap::from([(ip, elected)]) }),
        };

        let own = of_addresses(&view, &"n1".parse().unwrap(), &[]);
        let series: Vec<&str> = own.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            series,
            [
                r#"metallb_speaker_announced{service="default/dns",protocol="layer2",node="n1",ip="10.0.0.1"} 1"#,
                r#"metallb_speaker_announced{service="default/web",protocol="layer2",node="n1",ip="10.0.0.1"} 1"#,
            ]
        );
        let none = of_addresses(&view, &"n2".parse().unwrap(), &[]);
        assert!(none.lines().all(|line| line.starts_with('#')), "{none}");
    }

    #[test]
    fn ten_thousand_addresses_have_four_series_each() {
        let node: NodeName = "n1".parse().unwrap();
        let mut view = View::default();
        let (mut desired, mut assignment, mut counts) = (Desired::default(), Assignment::default(), Vec::new());
        for number in 0..10_000_u32 {
            let ip: ServiceIp = IpAddr::from((0x0a00_0000 + number).to_be_bytes()).try_into().unwrap();
            let services = Box::new([ServiceKey::new("default", format!("s{number}"))]);
            let address =
                Address { election_key: ip, services, placements: Vec::new(), endpoints: Endpoints::Anywhere };
            let ranked = vec![node.clone()];
            let elected = Elected { ranked, stand_in: None, interfaces: Selection::All, unowned: None };
            desired.addresses.insert(ip, address);
            assignment.addresses.insert(ip, elected);
            counts.push(Counts { ip, requests: 3, answers: 2, announcements: u64::from(number) });
        }
        (view.desired, view.assignment) = (Arc::new(desired), Arc::new(assignment));

        let text = of_addresses(&view, &node, &counts);

        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 4 * 10_000);
        for line in [
            r#"metallb_layer2_requests_received{ip="10.0.0.7"} 3"#,
            r#"metallb_layer2_responses_sent{ip="10.0.0.7"} 2"#,
            r#"metallb_layer2_gratuitous_sent{ip="10.0.0.7"} 7"#,
            "# TYPE metallb_layer2_gratuitous_sent counter",
        ] {
            assert!(text.lines().any(|written| written == line), "{line}");
        }
    }

    #[test]
    fn a_configuration_is_loaded_as_soon_as_it_is_known() {
        let text = |origin| of_configuration(&Snapshot { origin, ..Snapshot::default() });
        assert!(text(Origin::Nothing).contains("metallb_k8s_client_config_loaded_bool 0\n"));
        assert!(text(Origin::Live).contains("metallb_k8s_client_config_loaded_bool 1\n"));
    }
}
