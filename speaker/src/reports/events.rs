//! Events of Services, once per change.

use std::collections::{BTreeMap, BTreeSet};

use garpike_controller_api::{Problem, Severity};
use garpike_election::{NodeName, Presence, ServiceIp, ServiceKey, Unowned};
use garpike_kubernetes::{Recorder, Regarding};

use crate::pipeline::View;
use crate::source::cluster::Services;

/// What was told of addresses that nobody answers for, and of Services that are not announced.
#[derive(Debug, Default)]
pub(super) struct Told {
    unowned: BTreeMap<ServiceIp, Unowned>,
    problems: BTreeSet<(ServiceKey, String)>,
}

/// An event that somebody should look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Warning {
    pub(super) reason: &'static str,
    pub(super) text: String,
}

impl Told {
    /// Tells what is new of the addresses that rules leave without an owner, and of the Services that are wrong. One member
    /// speaks for all: the first by name. The others take note, so that whoever speaks next repeats nothing.
    pub(super) fn handle(
        &mut self,
        view: &View,
        problems: &[Problem],
        node: &NodeName,
        mut tell: impl FnMut(&ServiceKey, Warning),
    ) {
        let members = view.members.iter().flat_map(|members| &members.nodes);
        let mut here = members.filter(|(_, member)| member.presence == Presence::Here);
        let speaks = here.next().is_some_and(|(first, _)| first == node);
        let addresses = view.assignment.addresses.iter();
        let unowned: BTreeMap<ServiceIp, Unowned> =
            addresses.filter_map(|(ip, elected)| Some((*ip, elected.unowned?))).collect();
        let new = unowned.iter().filter(|(ip, reason)| speaks && self.unowned.get(*ip) != Some(*reason));
        for (ip, reason) in new {
            let Some(warning) = warning(*ip, *reason, view) else { continue };
            for service in view.desired.addresses.get(ip).iter().flat_map(|address| &address.services) {
                tell(service, warning.clone());
            }
        }
        let problems: BTreeSet<(ServiceKey, String)> = problems.iter().filter_map(of_service).collect();
        for (service, text) in problems.difference(&self.problems).filter(|_| speaks) {
            tell(service, Warning { reason: "notAnnounced", text: text.clone() });
        }
        (self.unowned, self.problems) = (unowned, problems);
    }
}

/// The Service that an error is about, and the error in words that do not repeat its name. What the controller refuses has no
/// address, and is not looked at here.
fn of_service(problem: &Problem) -> Option<(ServiceKey, String)> {
    match problem.severity {
        Severity::Error => {}
        Severity::Warning | Severity::Note => return None,
    }
    let (namespace, name) = problem.object.as_deref()?.strip_prefix("Service ")?.split_once('/')?;
    let service = ServiceKey::new(namespace, name);
    let text = Problem { file: None, line: None, object: None, ..problem.clone() }.to_string();
    Some((service, text))
}

/// Tells that this node answers for a Service. Services that share an address have equal texts.
pub(super) fn node_assigned(service: &ServiceKey, node: &NodeName, services: &Services, recorder: &Recorder) {
    let message = format!("announcing from node \"{node}\" with protocol \"layer2\"");
    recorder.tell(regarding(service, services), garpike_kubernetes::Severity::Normal, "nodeAssigned", message);
}

/// The event that tells of an address without an owner; `None`: the rule is in force by intent.
fn warning(ip: ServiceIp, unowned: Unowned, view: &View) -> Option<Warning> {
    let (reason, mend) = (unowned.reason(), unowned.mend());
    match unowned {
        Unowned::AllExcluded => {
            let mut members = view.members.iter().flat_map(|members| members.nodes.keys());
            let excluded = members.find(|node| view.desired.excluded.contains(*node));
            let example = excluded.map_or_else(|| "NODE".to_owned(), ToString::to_string);
            let text = format!(
                "nobody announces {ip}: {reason}, by the label {EXCLUDE_LABEL} or a network that is unavailable; to remove \
                 the label: kubectl label node {example} {EXCLUDE_LABEL}-"
            );
            Some(Warning { reason: "noOwner", text })
        }
        Unowned::NoInterface => {
            let text = format!("nobody announces {ip} with protocol \"layer2\": {reason}; {mend}");
            Some(Warning { reason: "announceFailed", text })
        }
        Unowned::NoSelectedNode => {
            Some(Warning { reason: "noOwner", text: format!("nobody announces {ip}: {reason}; {mend}") })
        }
        // A Service without pods, or without an advertisement, is an everyday thing.
        Unowned::NoAdvertisement | Unowned::NoLocalEndpoint | Unowned::NoEndpoint => None,
    }
}

/// A Service as the object of an event.
pub(super) fn regarding(service: &ServiceKey, services: &Services) -> Regarding {
    Regarding {
        api_version: "v1",
        kind: "Service",
        namespace: service.namespace.to_string(),
        name: service.name.to_string(),
        uid: services.uid(service).unwrap_or_default().to_owned(),
    }
}

const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use garpike_election::{Address, Desired, Endpoints, Member, Members, NodeState, Placement, Selection, elect};

    use super::*;

    #[test]
    fn the_exclude_label_that_leaves_an_address_without_an_owner_is_named_with_the_command() {
        let events = told(&mut Told::default(), &view(&["a"]), &[], "a");

        let [(service, Warning { reason, text })] = &events[..] else { panic!("{events:?}") };
        assert_eq!((service.as_str(), *reason), ("default/web", "noOwner"));
        assert!(text.ends_with(&format!("kubectl label node a {EXCLUDE_LABEL}-")), "{text}");
    }

    #[test]
    fn a_service_that_is_wrong_is_told_once_per_change() {
        let (mut told_before, view) = (Told::default(), view(&[]));
        let clash =
            Problem::error("belongs to the older Service default/old").value("10.0.0.1").of("Service default/web");
        let stray = Problem::error("lies in no pool").value("10.9.9.9").of("Service default/web").mend("use another");

        let first = told(&mut told_before, &view, std::slice::from_ref(&clash), "a");
        let again = told(&mut told_before, &view, &[clash], "a");
        let other = told(&mut told_before, &view, &[stray], "a");

        let text = "\"10.0.0.1\" belongs to the older Service default/old".to_owned();
        assert_eq!(first, [("default/web".to_owned(), Warning { reason: "notAnnounced", text })]);
        assert_eq!(again, []);
        assert_eq!(other[0].1.text, "\"10.9.9.9\" lies in no pool; use another");
    }

    #[test]
    fn one_member_speaks_and_the_next_repeats_nothing() {
        let view = view(&["a", "b"]);
        let problem = Problem::error("is wrong").of("Service default/web");
        let mut second = Told::default();

        assert_eq!(told(&mut Told::default(), &view, std::slice::from_ref(&problem), "a").len(), 2);
        assert_eq!(told(&mut second, &view, std::slice::from_ref(&problem), "b"), []);
        let mut alone = view;
        alone.members = Some(Arc::new(members(&["b"])));
        assert_eq!(told(&mut second, &alone, &[problem], "b"), []);
    }

    #[test]
    fn only_errors_of_services_are_told() {
        let (note, pool) = (Problem::note("x").of("Service default/web"), Problem::error("x").of("IPAddressPool m/p"));

        assert_eq!(told(&mut Told::default(), &view(&[]), &[note, pool], "a"), []);
    }

    fn told(told: &mut Told, view: &View, problems: &[Problem], node: &str) -> Vec<(String, Warning)> {
        let mut events = Vec::new();
        told.handle(view, problems, &node.parse().unwrap(), |service, event| events.push((service.to_string(), event)));
        events
    }

    /// Two nodes, of which some are excluded by the label.
    fn view(excluded: &[&str]) -> View {
        let ip: ServiceIp = "10.0.0.1".parse().unwrap();
        let services = Box::new([ServiceKey::new("default", "web")]);
        let nodes =
            if excluded.len() == 1 { Selection::Only([excluded[0].parse().unwrap()].into()) } else { Selection::All };
        let placements = vec![Placement { nodes, interfaces: Selection::All }];
        let address = Address { election_key: ip, services, placements, endpoints: Endpoints::Anywhere };
        let desired = Desired {
            addresses: BTreeMap::from([(ip, address)]),
            excluded: excluded.iter().map(|name| name.parse().unwrap()).collect(),
            ..Desired::default()
        };
        let members = members(&["a", "b"]);
        let assignment = Arc::new(elect(&desired, &members));
        View { desired: Arc::new(desired), members: Some(Arc::new(members)), assignment }
    }

    fn members(names: &[&str]) -> Members {
        let member = |name: &&str| (name.parse().unwrap(), Member::new(NodeState::Ready, Selection::All));
        Members { local: "a".parse().unwrap(), nodes: names.iter().map(member).collect() }
    }
}
