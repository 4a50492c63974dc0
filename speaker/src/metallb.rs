//! The metrics that dashboards and alerts for MetalLB read, by its names.
//!
//! Written from what is so at the moment of the scrape: what this node has given up has no series, however long it had one.

use std::fmt::Write as _;

use garpike_election::NodeName;

use crate::pipeline::View;
use crate::source::{Origin, Snapshot};

/// One series for each Service and address that this node announces.
pub(crate) fn of_addresses(view: &View, node: &NodeName) -> String {
    let mut text = head("metallb_speaker_announced", "Services that this node announces");
    for (ip, _) in view.assignment.owned_by(node) {
        for service in view.desired.addresses.get(&ip).iter().flat_map(|address| &address.services) {
            // None of the values can hold a quotation mark or a backslash: all are names as Kubernetes has them.
            let _ = writeln!(
                text,
                "metallb_speaker_announced{{service=\"{service}\",protocol=\"layer2\",node=\"{node}\",ip=\"{ip}\"}} 1"
            );
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
    let mut text = head("metallb_k8s_client_config_loaded_bool", "Whether a configuration was loaded");
    let _ = writeln!(text, "metallb_k8s_client_config_loaded_bool {loaded}");
    text.push_str(&head(
        "metallb_k8s_client_config_stale_bool",
        "Whether the configuration in force is an earlier one",
    ));
    let _ = writeln!(text, "metallb_k8s_client_config_stale_bool 0");
    text
}

fn head(name: &str, help: &str) -> String {
    format!("# HELP {name} {help}\n# TYPE {name} gauge\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use garpike_election::{Address, Assignment, Desired, Elected, Endpoints, Selection, ServiceIp, ServiceKey};

    use super::*;

    #[test]
    fn only_what_this_node_owns_has_a_series() {
        let ip: ServiceIp = "10.0.0.1".parse().unwrap();
        let services = ["dns", "web"].map(|name| ServiceKey { namespace: "default".to_owned(), name: name.to_owned() });
        let services = services.into();
        let address = Address { election_key: ip, services, placements: Vec::new(), endpoints: Endpoints::Anywhere };
        let ranked = vec!["n1".parse().unwrap()];
        let elected = Elected { ranked, stand_in: None, interfaces: Selection::All, unowned: None };
        let view = View {
            desired: Arc::new(Desired { addresses: BTreeMap::from([(ip, address)]), ..Desired::default() }),
            members: None,
            assignment: Arc::new(Assignment { addresses: BTreeMap::from([(ip, elected)]) }),
        };

        let own = of_addresses(&view, &"n1".parse().unwrap());
        let series: Vec<&str> = own.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            series,
            [
                r#"metallb_speaker_announced{service="default/dns",protocol="layer2",node="n1",ip="10.0.0.1"} 1"#,
                r#"metallb_speaker_announced{service="default/web",protocol="layer2",node="n1",ip="10.0.0.1"} 1"#,
            ]
        );
        assert_eq!(of_addresses(&view, &"n2".parse().unwrap()).lines().count(), 2);
    }

    #[test]
    fn a_configuration_is_loaded_as_soon_as_it_is_known() {
        let text = |origin| of_configuration(&Snapshot { origin, ..Snapshot::default() });
        assert!(text(Origin::Nothing).contains("metallb_k8s_client_config_loaded_bool 0\n"));
        assert!(text(Origin::Live).contains("metallb_k8s_client_config_loaded_bool 1\n"));
    }
}
