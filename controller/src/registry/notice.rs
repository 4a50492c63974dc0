//! What people are told by an event, in MetalLB's reasons.

use garpike_controller_api::Problem;
use garpike_kubernetes::{Regarding, Severity};

use super::Event;
use crate::planner::{EventType, Reason};
use crate::seen::{FIELD_MANAGER, Seen};

/// One event.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    pub(crate) regarding: Regarding,
    pub(crate) severity: Severity,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Notice {
    /// What the planner tells of a Service.
    pub(super) fn of_event(seen: &Seen, event: Event) -> Self {
        let severity = match event.reason.event_type() {
            EventType::Normal => Severity::Normal,
            EventType::Warning => Severity::Warning,
        };
        let mut message = event.message;
        let another = seen.status_manager.as_deref().filter(|manager| !OURS.contains(manager));
        if let (Reason::LoadBalancerFailed, Some(manager)) = (event.reason, another) {
            message.push_str(&format!(" (its status was last written by {manager})"));
        }
        Self { regarding: seen.regarding(), severity, reason: event.reason.to_string(), message }
    }

    /// What is wrong with a Service.
    pub(super) fn of_problem(seen: &Seen, problem: &Problem, has_address: bool) -> Self {
        let field = problem.field.as_ref().map(ToString::to_string).unwrap_or_default();
        let reason = if field == "spec.clusterIPs" {
            NOT_ENOUGH_CLUSTER_IPS.to_owned()
        } else if has_address {
            Reason::LoadBalancerFailed.to_string()
        } else {
            Reason::AllocationFailed.to_string()
        };
        let message = Problem { object: None, ..problem.clone() }.to_string();
        Self { regarding: seen.regarding(), severity: Severity::Warning, reason, message }
    }
}

/// The annotations of a Service that have another name today. MetalLB tells of them when it changes the Service.
pub(super) fn deprecated(seen: &Seen) -> Vec<Notice> {
    let annotations = seen.service().metadata.annotations.unwrap_or_default();
    let names = annotations.keys().filter(|name| name.starts_with(DEPRECATED));
    let notice = |name: &String| {
        let message =
            format!("the annotation {name} has a deprecated name; write {}", name.replace(DEPRECATED, CURRENT));
        let reason = "deprecatedAnnotation".to_owned();
        Notice { regarding: seen.regarding(), severity: Severity::Warning, reason, message }
    };
    names.map(notice).collect()
}

/// MetalLB's reason, with its spaces.
const NOT_ENOUGH_CLUSTER_IPS: &str = "not enough clusterips";
const DEPRECATED: &str = "metallb.universe.tf";
const CURRENT: &str = "metallb.io";
/// How our own writes and those of MetalLB's controller are called.
const OURS: [&str; 2] = [FIELD_MANAGER, "controller"];
