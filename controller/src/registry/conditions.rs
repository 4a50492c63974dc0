//! The condition of a Service that says why it has no address.
//!
//! It is there while the Service waits, and only then: one with an address, be it another allocator's, is not touched. It is applied
//! with a field manager of its own and names no other field, so that it takes nothing from anybody; the write that gives an address
//! takes it away. One write of a Service is under way at a time, and what the Service shows already is not written again.

use std::collections::BTreeSet;

use garpike_election::ServiceKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::planner::Reason;
use crate::seen::{CONDITION, Seen};

/// A condition that is to be written, or taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConditionWrite {
    pub(crate) service: ServiceKey,
    /// Why it waits; `None`: it does not.
    message: Option<String>,
    generation: Option<i64>,
}

/// The Services whose condition may be wrong.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    /// Told of since the last tick, and before it: most Services have their address within that time.
    fresh: BTreeSet<ServiceKey>,
    settling: BTreeSet<ServiceKey>,
    open: BTreeSet<ServiceKey>,
    under_way: BTreeSet<ServiceKey>,
}

impl Conditions {
    /// Something has changed by which the condition of a Service is judged.
    pub(super) fn review(&mut self, service: ServiceKey) {
        if !self.settling.contains(&service) && !self.open.contains(&service) {
            self.fresh.insert(service);
        }
    }

    /// Some time has passed: what was told of before the last tick is to be looked at.
    pub(super) fn handle_tick(&mut self) {
        self.open.append(&mut self.settling);
        self.settling = std::mem::take(&mut self.fresh);
    }

    /// There is no such Service any more.
    pub(super) fn forget(&mut self, service: &ServiceKey) {
        for services in [&mut self.fresh, &mut self.settling, &mut self.open] {
            services.remove(service);
        }
    }

    /// A Service that is to be looked at.
    pub(super) fn next(&mut self) -> Option<ServiceKey> {
        let service = self.open.iter().find(|service| !self.under_way.contains(*service))?.clone();
        self.open.take(&service)
    }

    /// What is to be written to a Service that waits for a reason, or does not wait; `None`: its condition is as it should be.
    pub(super) fn begin(&mut self, seen: &Seen, why: Option<String>) -> Option<ConditionWrite> {
        let service = seen.service();
        let conditions = service.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
        let shown = conditions.into_iter().find(|condition| condition.type_ == CONDITION);
        let message: Option<String> = why.map(|why| why.chars().take(MAX_MESSAGE).collect());
        if message.as_ref() == shown.map(|condition| &condition.message) {
            return None;
        }
        self.under_way.insert(seen.key.clone());
        Some(ConditionWrite { service: seen.key.clone(), message, generation: service.metadata.generation })
    }

    /// A write has ended.
    pub(super) fn end(&mut self, service: &ServiceKey) {
        self.under_way.remove(service);
    }
}

impl ConditionWrite {
    /// What is applied to the status. The time is that of the write.
    pub(crate) fn body(&self, at: Timestamp) -> Value {
        let condition = self.message.as_ref().map(|message| Condition {
            type_: CONDITION.to_owned(),
            status: "False".to_owned(),
            reason: Reason::AllocationFailed.to_string(),
            message: message.clone(),
            last_transition_time: Time(at),
            observed_generation: self.generation,
        });
        let (namespace, name) = (&self.service.namespace, &self.service.name);
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
    fn a_condition_is_there_while_a_service_waits_and_is_not_written_twice() {
        let mut conditions = Conditions::default();
        assert_eq!(conditions.begin(&seen(&json!([])), None), None, "it does not wait, and nothing is shown");

        let write = conditions.begin(&seen(&json!([])), Some("no address is left".to_owned())).unwrap();
        let shown = write.body(Timestamp::UNIX_EPOCH)["status"]["conditions"].clone();
        assert_eq!((&shown[0]["status"], &shown[0]["reason"]), (&json!("False"), &json!("AllocationFailed")));

        let refused = Some("no address is left".to_owned());
        assert_eq!(conditions.begin(&seen(&shown), refused), None);
        let away = conditions.begin(&seen(&shown), None).unwrap();
        assert_eq!(away.body(Timestamp::UNIX_EPOCH)["status"]["conditions"], json!([]));
    }

    #[test]
    fn conditions_of_others_are_none_of_ours() {
        let mut conditions = Conditions::default();
        let others = json!([{
            "type": "PortsProvided", "status": "False", "reason": "x", "message": "y",
            "lastTransitionTime": "2026-11-21T00:00:00Z",
        }]);

        assert_eq!(conditions.begin(&seen(&others), None), None);
    }

    #[test]
    fn a_second_write_waits_for_the_first() {
        let mut conditions = Conditions::default();
        let key = seen(&json!([])).key;
        conditions.review(key.clone());
        conditions.handle_tick();
        assert_eq!(conditions.next(), None, "it may have its address in a moment");
        conditions.handle_tick();
        assert_eq!(conditions.next(), Some(key.clone()));
        conditions.begin(&seen(&json!([])), Some("no".to_owned())).unwrap();

        conditions.review(key.clone());
        conditions.handle_tick();
        conditions.handle_tick();
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
