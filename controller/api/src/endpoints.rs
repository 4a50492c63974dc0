//! Where the endpoints of a Service are: what matters of its EndpointSlices.
//!
//! An endpoint can serve when it is ready, or terminates and still serves. Its addresses and ports are kube-proxy's
//! business.

use std::collections::BTreeSet;

use garpike_election::{LocalEndpoints, NodeName};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::ObjectKey;

/// The endpoints of a Service that can serve. Small: a speaker holds those of every Service of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServingEndpoints {
    /// The nodes with one that is ready, in order, each once.
    pub ready: Box<[NodeName]>,
    /// The nodes with one that terminates and still serves, in order, each once.
    pub terminating: Box<[NodeName]>,
    /// Whether there is one without a node.
    pub unplaced: bool,
}

impl ServingEndpoints {
    /// Those of one slice.
    pub fn of(slice: &EndpointSlice) -> Self {
        let (mut all_ready, mut terminating, mut unplaced) = (BTreeSet::new(), BTreeSet::new(), false);
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions.as_ref();
            // Nothing said means yes for `ready`, and counts for nothing here for `serving`.
            let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
            let serves = conditions.and_then(|conditions| conditions.serving).unwrap_or(false);
            let node = endpoint.node_name.as_deref().and_then(|name| NodeName::new(name).ok());
            match node {
                _ if !ready && !serves => {}
                None => unplaced = true,
                Some(node) if ready => drop(all_ready.insert(node)),
                Some(node) => drop(terminating.insert(node)),
            }
        }
        Self { ready: all_ready.into_iter().collect(), terminating: terminating.into_iter().collect(), unplaced }
    }

    /// Takes in those of another slice of the same Service.
    pub fn extend(&mut self, other: &Self) {
        let both = |a: &[NodeName], b: &[NodeName]| a.iter().chain(b).cloned().collect::<BTreeSet<_>>();
        self.ready = both(&self.ready, &other.ready).into_iter().collect();
        self.terminating = both(&self.terminating, &other.terminating).into_iter().collect();
        self.unplaced |= other.unplaced;
    }

    /// Has each name of a node once in memory, however many Services it serves.
    pub fn share_names(&mut self, known: &mut BTreeSet<NodeName>) {
        for name in self.ready.iter_mut().chain(&mut self.terminating) {
            match known.get(name) {
                Some(known) => *name = known.clone(),
                None => drop(known.insert(name.clone())),
            }
        }
    }

    /// Whether no endpoint can serve.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.terminating.is_empty() && !self.unplaced
    }

    /// The nodes that can serve by themselves.
    pub(crate) fn local(&self) -> LocalEndpoints {
        let ready: BTreeSet<NodeName> = self.ready.iter().cloned().collect();
        let terminating = self.terminating.iter().filter(|node| !ready.contains(*node)).cloned().collect();
        LocalEndpoints { ready, terminating }
    }
}

/// The Service that a slice belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some(ObjectKey { namespace: slice.metadata.namespace.clone()?, name: name.clone() })
}

/// The label by which Kubernetes ties a slice to its Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_serves_when_it_is_ready_or_terminates_and_still_serves() {
        let slice = serde_json::json!({
            "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.0.0.1"], "nodeName": "said-nothing"},
                {"addresses": ["10.0.0.2"], "nodeName": "ready", "conditions": {"ready": true}},
                {"addresses": ["10.0.0.3"], "nodeName": "ends",
                 "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.0.0.4"], "nodeName": "gone",
                 "conditions": {"ready": false, "serving": false, "terminating": true}},
                {"addresses": ["10.0.0.5"], "nodeName": "not-ready", "conditions": {"ready": false}},
                {"addresses": ["10.0.0.6"], "nodeName": "ready",
                 "conditions": {"ready": false, "serving": true, "terminating": true}},
            ],
        });
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        assert_eq!(service_of(&slice), Some(ObjectKey { namespace: "default".to_owned(), name: "web".to_owned() }));

        let serving = ServingEndpoints::of(&slice);
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Box<[NodeName]>>();
        assert_eq!((&serving.ready, serving.unplaced), (&names(&["ready", "said-nothing"]), false));
        assert_eq!(serving.terminating, names(&["ends", "ready"]));
        assert_eq!(serving.local().terminating, BTreeSet::from(["ends".parse().unwrap()]));
    }

    #[test]
    fn endpoints_without_a_node_serve_anywhere_and_those_with_an_absurd_one_too() {
        for node in [serde_json::json!(null), serde_json::json!("NO NODE")] {
            let slice = serde_json::json!({
                "metadata": {}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": node}],
            });
            let serving = ServingEndpoints::of(&serde_json::from_value(slice).unwrap());
            assert!(serving.unplaced && !serving.is_empty() && serving.local() == LocalEndpoints::default());
        }
        assert!(ServingEndpoints::default().is_empty());
    }
}
