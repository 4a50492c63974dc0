//! The condition of a Service that says why it does not have what it asks for.
//!
//! It is there while something is refused, and only then. It is applied with a field manager of its own and names no other
//! field, so that it takes nothing from anybody; the write that gives an address takes it away. One write of a Service is
//! under way at a time, and what the Service shows already is not written again.

use std::collections::BTreeSet;

use garpike_election::ServiceKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::planner::Reason;
use crate::seen::{CONDITION, Seen};

/// A condition that is to be written, or taken away.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConditionWrite {
    pub(crate) service: ServiceKey,
    wanted: Option<Wanted>,
    generation: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    reason: String,
    message: String,
}

/// The Services whose condition may be wrong.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    open: BTreeSet<ServiceKey>,
    under_way: BTreeSet<ServiceKey>,
}

impl Conditions {
    /// Something has changed by which the condition of a Service is judged.
    pub(super) fn review(&mut self, service: ServiceKey) {
        self.open.insert(service);
    }

    /// There is no such Service any more.
    pub(super) fn forget(&mut self, service: &ServiceKey) {
        self.open.remove(service);
    }

    /// A Service that is to be looked at.
    pub(super) fn next(&mut self) -> Option<ServiceKey> {
        let service = self.open.iter().find(|service| !self.under_way.contains(*service))?.clone();
        self.open.take(&service)
    }

    /// What is to be written to it; `None`: its condition is as it should be. `why` something is refused, and whether it has
    /// an address all the same.
    pub(super) fn begin(&mut self, seen: &Seen, why: Option<String>, has_address: bool) -> Option<ConditionWrite> {
        let service = seen.service();
        let conditions = service.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
        let shown = conditions.into_iter().find(|condition| condition.type_ == CONDITION);
        let wanted = why.map(|why| {
            let reason = if has_address { Reason::LoadBalancerFailed } else { Reason::AllocationFailed };
            Wanted { reason: reason.to_string(), message: why.chars().take(MAX_MESSAGE).collect() }
        });
        let as_shown =
            shown.map(|Condition { reason, message, .. }| Wanted { reason: reason.clone(), message: message.clone() });
        if wanted == as_shown {
            return None;
        }
        self.under_way.insert(seen.key.clone());
        Some(ConditionWrite { service: seen.key.clone(), wanted, generation: service.metadata.generation })
    }

    /// A write has ended.
    pub(super) fn end(&mut self, service: &ServiceKey) {
        self.under_way.remove(service);
    }
}

impl ConditionWrite {
    /// What is applied to the status. The time is that of the write.
    pub(crate) fn body(&self, at: Timestamp) -> Value {
        let condition = self.wanted.as_ref().map(|Wanted { reason, message }| Condition {
            type_: CONDITION.to_owned(),
            status: "False".to_owned(),
            reason: reason.clone(),
            message: message.clone(),
            last_transition_time: Time(at),
            observed_generation: self.generation,
        });
        let ServiceKey { namespace, name } = &self.service;
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "status": {"conditions": condition.into_iter().collect::<Vec<_>>()},
        })
    }
}

/// The limit of `metav1.Condition`.
const MAX_MESSAGE: usize = 32_768;

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;

    use super::*;

    #[test]
    fn a_condition_is_there_while_something_is_refused_and_is_not_written_twice() {
        let mut conditions = Conditions::default();
        assert_eq!(conditions.begin(&seen(&json!([])), None, false), None, "nothing is refused and nothing is shown");

        let write = conditions.begin(&seen(&json!([])), Some("no address is left".to_owned()), false).unwrap();
        let shown = write.body(Timestamp::UNIX_EPOCH)["status"]["conditions"].clone();
        assert_eq!((&shown[0]["status"], &shown[0]["reason"]), (&json!("False"), &json!("AllocationFailed")));

        let refused = Some("no address is left".to_owned());
        assert_eq!(conditions.begin(&seen(&shown), refused.clone(), false), None);
        assert_ne!(conditions.begin(&seen(&shown), refused, true), None, "it has an address now");
        let away = conditions.begin(&seen(&shown), None, false).unwrap();
        assert_eq!(away.body(Timestamp::UNIX_EPOCH)["status"]["conditions"], json!([]));
    }

    #[test]
    fn conditions_of_others_are_none_of_ours() {
        let mut conditions = Conditions::default();
        let others = json!([{
            "type": "PortsProvided", "status": "False", "reason": "x", "message": "y",
            "lastTransitionTime": "2026-11-21T00:00:00Z",
        }]);

        assert_eq!(conditions.begin(&seen(&others), None, false), None);
    }

    #[test]
    fn a_second_write_waits_for_the_first() {
        let mut conditions = Conditions::default();
        let key = seen(&json!([])).key;
        conditions.review(key.clone());
        assert_eq!(conditions.next(), Some(key.clone()));
        conditions.begin(&seen(&json!([])), Some("no".to_owned()), false).unwrap();

        conditions.review(key.clone());
        assert_eq!(conditions.next(), None);
        conditions.end(&key);
        assert_eq!(conditions.next(), Some(key));
    }

    fn seen(conditions: &Value) -> Seen {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "resourceVersion": "1"},
            "spec": {"type": "LoadBalancer"}, "status": {"conditions": conditions},
        }))
        .unwrap();
        Seen::new(service, None)
    }
}
