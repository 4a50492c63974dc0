//! The ConfigurationState of a component: whether what people configured is right, where `kubectl get` shows it.
//!
//! One object per component, as MetalLB has them, with the same names, labels, conditions and field managers. It is written
//! when what it says changes, made anew when somebody deletes it, and otherwise left alone.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use garpike_controller_api::{ConfigurationResult, ConfigurationState, ConfigurationStateStatus};
use garpike_election::NodeName;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{Update, failure, follow};

/// Whose configuration it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Component {
    /// The controller's.
    Controller,
    /// The speaker's on this node.
    Speaker(NodeName),
}

impl Component {
    fn object(&self) -> String {
        match self {
            Self::Controller => "controller".to_owned(),
            Self::Speaker(node) => format!("speaker-{node}"),
        }
    }

    fn labels(&self) -> Value {
        match self {
            Self::Controller => json!({"metallb.io/component-type": "controller"}),
            Self::Speaker(node) => {
                json!({"metallb.io/component-type": "speaker", "metallb.io/node-name": node.to_string()})
            }
        }
    }

    fn condition(&self) -> &'static str {
        match self {
            Self::Controller => "poolReconcilerValid",
            Self::Speaker(_) => "configReconcilerValid",
        }
    }

    /// The condition of what is wrong with the host, and not with what people configured.
    fn host_condition(&self) -> Option<&'static str> {
        match self {
            Self::Controller => None,
            Self::Speaker(_) => Some("garpike.io/hostPrepared"),
        }
    }

    fn field_manager(&self) -> &'static str {
        match self {
            Self::Controller => "poolReconciler",
            Self::Speaker(_) => "configReconciler",
        }
    }
}

/// Keeps the ConfigurationState of one component.
pub struct ConfigurationReporter {
    states: Api<ConfigurationState>,
    pods: Api<Pod>,
    component: Component,
    pod_name: Option<String>,
    /// What is wrong with the host, one text each.
    findings: Option<watch::Receiver<Vec<String>>>,
}

/// What is to be reported.
#[derive(Clone, Copy, Debug)]
struct Report<'a> {
    /// What is wrong with the configuration; `None`: nobody has looked yet.
    problems: Option<&'a [String]>,
    /// What is wrong with the host; `None`: nobody looks.
    findings: Option<&'a [String]>,
}

impl ConfigurationReporter {
    /// The pod of that name becomes the owner, so that the object goes with it; nobody does without.
    pub fn new(client: Client, namespace: &str, component: Component, pod_name: Option<String>) -> Self {
        let states = Api::namespaced(client.clone(), namespace);
        Self { states, pods: Api::namespaced(client, namespace), component, pod_name, findings: None }
    }

    /// Reports what is wrong with the host too, as a condition of its own: the configuration is not wrong for that.
    #[must_use]
    pub fn with_findings(mut self, findings: watch::Receiver<Vec<String>>) -> Self {
        self.findings = Some(findings);
        self
    }

    /// Reports what is wrong, one text each, until `stop`. `None`: nobody has looked yet.
    pub async fn run(mut self, mut problems: watch::Receiver<Option<Vec<String>>>, stop: CancellationToken) {
        let only = watcher::Config::default().fields(&format!("metadata.name={}", self.component.object()));
        let mut objects = pin!(follow(self.states.clone(), only, |_| {}));
        let mut present: Option<ConfigurationState> = None;
        let mut known = false;
        let mut owner = None;
        let mut failures = 0_u32;
        loop {
            let mut again = None;
            if known {
                let wanted = problems.borrow_and_update().clone();
                let found = self.findings.as_mut().map(|findings| findings.borrow_and_update().clone());
                let report = Report { problems: wanted.as_deref(), findings: found.as_deref() };
                match self.report(present.as_ref(), report, &mut owner).await {
                    Ok(Some(written)) => (present, failures) = (Some(written), 0),
                    Ok(None) => failures = 0,
                    Err(error) => {
                        if failures == 0 {
                            warn!(
                                name = self.component.object(),
                                error = failure(&error),
                                "the ConfigurationState cannot be written"
                            );
                        }
                        failures = failures.saturating_add(1);
                        again = Some(FIRST_PAUSE.saturating_mul(1 << failures.min(MAX_DOUBLINGS)));
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = problems.changed() => if changed.is_err() { return },
                () = changed_findings(self.findings.as_mut()) => {}
                () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => {}
                update = objects.next() => match update {
                    Some(Update::All(all)) => (present, known) = (all.into_iter().next(), true),
                    Some(Update::Applied(object)) => {
                        // The watch tells of our own writes one after the other, when all of them are done.
                        if present.as_ref().is_none_or(|present| version(&object) >= version(present)) {
                            present = Some(object);
                        }
                    }
                    Some(Update::Gone(_)) => present = None,
                    Some(Update::Trouble(trouble)) => {
                        warn!(name = self.component.object(), %trouble, "the ConfigurationState cannot be followed");
                    }
                    None => return,
                }
            }
        }
    }

    /// Writes what is missing; gives the object when something was written.
    async fn report(
        &self,
        present: Option<&ConfigurationState>,
        report: Report<'_>,
        owner: &mut Option<OwnerReference>,
    ) -> Result<Option<ConfigurationState>, kube::Error> {
        if owner.is_none() {
            *owner = self.own_pod().await;
        }
        let name = self.component.object();
        let mut written = None;
        if let Some(metadata) = self.missing_metadata(present, owner.as_ref()) {
            written = Some(match present {
                None => {
                    let mut object = metadata;
                    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                        metadata.insert("name".to_owned(), json!(name));
                    }
                    let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
                    self.states.create(&PostParams::default(), &object).await?
                }
                Some(_) => self.states.patch(&name, &PatchParams::default(), &Patch::Merge(metadata)).await?,
            });
        }
        let now = Time(now());
        let held = written.as_ref().or(present).and_then(|object| object.status.as_ref());
        if let Some(status) = status(held, report, &self.component, &now) {
            let apply = json!({"apiVersion": API_VERSION, "kind": "ConfigurationState", "status": status});
            let params = PatchParams::apply(self.component.field_manager()).force();
            written = Some(self.states.patch_status(&name, &params, &Patch::Apply(apply)).await?);
        }
        Ok(written)
    }

    async fn own_pod(&self) -> Option<OwnerReference> {
        let name = self.pod_name.as_ref()?;
        let pod = match self.pods.get_opt(name).await {
            Ok(pod) => pod?,
            Err(error) => {
                debug!(error = failure(&error), pod = name, "the ConfigurationState gets no owner");
                return None;
            }
        };
        Some(OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: name.clone(),
            uid: pod.metadata.uid?,
            ..OwnerReference::default()
        })
    }

    /// The labels and the owner, unless the object has them.
    fn missing_metadata(&self, present: Option<&ConfigurationState>, owner: Option<&OwnerReference>) -> Option<Value> {
        let labels = self.component.labels();
        let owners: Vec<&OwnerReference> = owner.into_iter().collect();
        if let Some(present) = present {
            let held = present.metadata.labels.clone().unwrap_or_default();
            let labelled = labels.as_object().is_some_and(|labels| {
                labels.iter().all(|(name, value)| held.get(name).map(String::as_str) == value.as_str())
            });
            let held = present.metadata.owner_references.as_deref().unwrap_or_default();
            let owned = owner.is_none_or(|owner| held.len() == 1 && held.iter().all(|held| held.uid == owner.uid));
            if labelled && owned {
                return None;
            }
        }
        let mut metadata = json!({"labels": labels});
        if let Some(metadata) = metadata.as_object_mut().filter(|_| !owners.is_empty()) {
            metadata.insert("ownerReferences".to_owned(), json!(owners));
        }
        Some(json!({"apiVersion": API_VERSION, "kind": "ConfigurationState", "metadata": metadata}))
    }
}

/// When what is wrong with the host has changed; never, where nobody looks any more.
async fn changed_findings(findings: Option<&mut watch::Receiver<Vec<String>>>) {
    let is_told = match findings {
        Some(findings) => findings.changed().await.is_ok(),
        None => false,
    };
    if !is_told {
        std::future::pending::<()>().await;
    }
}

/// Grows with every change. 0 where the API server gives no number: then what comes later counts.
fn version(object: &ConfigurationState) -> u64 {
    object.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// What the status must say, unless it says so already. What was said before stays until somebody has looked. The time is that of
/// the last change between right and wrong.
fn status(
    held: Option<&ConfigurationStateStatus>,
    Report { problems, findings }: Report<'_>,
    component: &Component,
    now: &Time,
) -> Option<ConfigurationStateStatus> {
    if problems.is_none() && held.is_some_and(|held| held.result.is_some()) {
        return None;
    }
    let (result, error_summary) = match problems {
        None => (ConfigurationResult::Unknown, String::new()),
        Some([]) => (ConfigurationResult::Valid, String::new()),
        Some(problems) => (ConfigurationResult::Invalid, summary(problems)),
    };
    let (status, reason) = match result {
        ConfigurationResult::Valid => ("True", "Reconciled"),
        ConfigurationResult::Invalid => ("False", "ConfigurationError"),
        ConfigurationResult::Unknown => ("Unknown", "Pending"),
    };
    let condition = |type_: &str, status: &str, reason: &str, message: String| {
        let before = held.and_then(|held| held.conditions.iter().find(|held| held.type_ == type_));
        let since = before.filter(|before| before.status == status).map(|before| before.last_transition_time.clone());
        Condition {
            last_transition_time: since.unwrap_or_else(|| now.clone()),
            message,
            observed_generation: None,
            reason: reason.to_owned(),
            status: status.to_owned(),
            type_: type_.to_owned(),
        }
    };
    // As MetalLB: a component that has not looked has no condition.
    let mut conditions: Vec<Condition> =
        problems.map(|_| condition(component.condition(), status, reason, error_summary.clone())).into_iter().collect();
    if let Some((type_, findings)) = component.host_condition().zip(findings) {
        conditions.push(match findings {
            [] => condition(type_, "True", "Prepared", String::new()),
            findings => condition(type_, "False", "NotPrepared", lines(String::new(), findings)),
        });
    }
    let wanted = ConfigurationStateStatus { result: Some(result), error_summary, conditions };
    let is_ours =
        |held: &&Condition| held.type_ == component.condition() || Some(&*held.type_) == component.host_condition();
    let ours = held.map(|held| ConfigurationStateStatus {
        conditions: held.conditions.iter().filter(is_ours).cloned().collect(),
        ..held.clone()
    });
    (ours.as_ref() != Some(&wanted)).then_some(wanted)
}

fn summary(problems: &[String]) -> String {
    lines("configuration error: ".to_owned(), problems)
}

/// One line for each problem, cut where the API server would refuse it.
fn lines(mut text: String, problems: &[String]) -> String {
    for (index, problem) in problems.iter().enumerate() {
        if text.len() + problem.len() > MAX_SUMMARY_BYTES {
            text.push_str(&format!("and {} more", problems.len() - index));
            break;
        }
        text.push_str(problem);
        if index + 1 < problems.len() {
            text.push('\n');
        }
    }
    text
}

fn now() -> Timestamp {
    // Kubernetes writes whole seconds, and what is read back must be equal.
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default()
}

const API_VERSION: &str = "metallb.io/v1beta1";
/// The definition allows 32768 characters; room for the last line.
const MAX_SUMMARY_BYTES: usize = 32_000;
/// Chosen: an API server that restarts is away for seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Chosen: 500 ms become 32 s.
const MAX_DOUBLINGS: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_already_is_not_said_again() {
        let held = said(None, Some(&["p is wrong"]), 1).unwrap();

        assert_eq!(said(Some(&held), Some(&["p is wrong"]), 2), None);
        assert_eq!(held.result, Some(ConfigurationResult::Invalid));
        assert_eq!(held.error_summary, "configuration error: p is wrong");
        let condition = &held.conditions[0];
        let shown = (condition.type_.as_str(), condition.status.as_str(), condition.reason.as_str());
        assert_eq!(shown, ("poolReconcilerValid", "False", "ConfigurationError"));
    }

    #[test]
    fn the_time_is_that_of_the_last_change_between_right_and_wrong() {
        let since = |status: &ConfigurationStateStatus| status.conditions[0].last_transition_time.0.as_second();
        let first = said(None, Some(&["a"]), 1).unwrap();
        let other = said(Some(&first), Some(&["a", "b"]), 2).unwrap();
        let right = said(Some(&other), Some(&[]), 3).unwrap();

        assert_eq!([since(&first), since(&other), since(&right)], [1, 1, 3]);
        assert_eq!((right.result, right.error_summary.as_str()), (Some(ConfigurationResult::Valid), ""));
        assert_eq!(right.conditions[0].reason, "Reconciled");
    }

    #[test]
    fn nobody_has_looked_is_unknown_and_no_condition() {
        let unknown = said(None, None, 1).unwrap();

        assert_eq!((unknown.result, unknown.conditions.len()), (Some(ConfigurationResult::Unknown), 0));
        let before = said(None, Some(&["p is wrong"]), 1).unwrap();
        assert_eq!(said(Some(&before), None, 2), None, "what was said before a restart stays");
    }

    #[test]
    fn the_condition_of_somebody_else_is_not_ours() {
        let mut held = said(None, Some(&[]), 1).unwrap();
        let foreign = Condition { type_: "other".to_owned(), ..held.conditions[0].clone() };
        held.conditions.push(foreign);

        assert_eq!(said(Some(&held), Some(&[]), 2), None);
    }

    #[test]
    fn what_is_wrong_with_a_host_is_a_condition_and_no_error_of_the_configuration() {
        let speaker = Component::Speaker("n1".parse().unwrap());
        let at = |second| Time(Timestamp::from_second(second).unwrap());
        let with = |held: Option<&ConfigurationStateStatus>, findings: &[&str], second| {
            let findings: Vec<String> = findings.iter().map(|&text| text.to_owned()).collect();
            status(held, Report { problems: Some(&[]), findings: Some(&findings) }, &speaker, &at(second))
        };

        let found = with(None, &["a", "b"], 1).unwrap();
        assert_eq!((found.result, found.error_summary.as_str()), (Some(ConfigurationResult::Valid), ""));
        let shown: Vec<_> = found.conditions.iter().map(|held| (held.type_.as_str(), held.status.as_str())).collect();
        assert_eq!(shown, [("configReconcilerValid", "True"), ("garpike.io/hostPrepared", "False")]);
        assert_eq!(found.conditions[1].message, "a\nb");

        assert_eq!(with(Some(&found), &["a", "b"], 2), None, "said already");
        let mended = with(Some(&found), &[], 3).unwrap();
        assert_eq!((mended.conditions[1].status.as_str(), mended.conditions[1].message.as_str()), ("True", ""));
        assert_eq!(mended.conditions[0].last_transition_time, at(1));
    }

    #[test]
    fn a_summary_of_any_length_fits() {
        let problems: Vec<String> = (0..2000).map(|number| format!("{number}: {}", "x".repeat(100))).collect();
        let text = summary(&problems);

        assert!(text.chars().count() <= 32_768);
        assert!(text.ends_with(" more"), "{}", &text[text.len() - 40..]);
    }

    fn said(
        held: Option<&ConfigurationStateStatus>,
        problems: Option<&[&str]>,
        at: i64,
    ) -> Option<ConfigurationStateStatus> {
        let problems: Option<Vec<String>> = problems.map(|texts| texts.iter().map(|&text| text.to_owned()).collect());
        let report = Report { problems: problems.as_deref(), findings: None };
        status(held, report, &Component::Controller, &Time(Timestamp::from_second(at).unwrap()))
    }
}
