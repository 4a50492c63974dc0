//! Events of Services, once per change.

use std::collections::BTreeMap;

use garpike_election::{NodeName, Presence, ServiceIp, ServiceKey, Unowned};
use garpike_kubernetes::{Recorder, Regarding, Severity};

use crate::pipeline::View;
use crate::source::cluster::Services;

/// What was told of addresses that nobody answers for.
#[derive(Debug, Default)]
pub(super) struct Told {
    unowned: BTreeMap<ServiceIp, Unowned>,
}

impl Told {
    /// Tells of the addresses that rules leave without an owner. One member speaks for all: the first by name.
    pub(super) fn handle_view(&mut self, view: &View, node: &NodeName, services: &Services, recorder: &Recorder) {
        let members = view.members.iter().flat_map(|members| &members.nodes);
        let mut here = members.filter(|(_, member)| member.presence == Presence::Here);
        if here.next().is_none_or(|(first, _)| first != node) {
            self.unowned.clear();
            return;
        }
        let addresses = view.assignment.addresses.iter();
        let unowned: BTreeMap<ServiceIp, Unowned> =
            addresses.filter_map(|(ip, elected)| Some((*ip, elected.unowned?))).collect();
        for (ip, reason) in unowned.iter().filter(|(ip, reason)| self.unowned.get(*ip) != Some(*reason)) {
            let Some((told, message)) = message(*ip, *reason, view) else { continue };
            for service in view.desired.addresses.get(ip).iter().flat_map(|address| &address.services) {
                recorder.tell(regarding(service, services), Severity::Warning, told, message.clone());
            }
        }
        self.unowned = unowned;
    }
}

/// Tells that this node answers for a Service. Services that share an address have equal texts.
pub(super) fn node_assigned(service: &ServiceKey, node: &NodeName, services: &Services, recorder: &Recorder) {
    let message = format!("announcing from node \"{node}\" with protocol \"layer2\"");
    recorder.tell(regarding(service, services), Severity::Normal, "nodeAssigned", message);
}

/// The reason of the event and its text; `None`: the rule is in force by intent.
fn message(ip: ServiceIp, unowned: Unowned, view: &View) -> Option<(&'static str, String)> {
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
            Some(("noOwner", text))
        }
        Unowned::NoInterface => {
            Some(("announceFailed", format!("nobody announces {ip} with protocol \"layer2\": {reason}; {mend}")))
        }
        Unowned::NoSelectedNode => Some(("noOwner", format!("nobody announces {ip}: {reason}; {mend}"))),
        // A Service without pods, or without an advertisement, is an everyday thing.
        Unowned::NoAdvertisement | Unowned::NoLocalEndpoint | Unowned::NoEndpoint => None,
    }
}

fn regarding(service: &ServiceKey, services: &Services) -> Regarding {
    Regarding {
        api_version: "v1",
        kind: "Service",
        namespace: service.namespace.clone(),
        name: service.name.clone(),
        uid: services.uid(service).unwrap_or_default().to_owned(),
    }
}

const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
