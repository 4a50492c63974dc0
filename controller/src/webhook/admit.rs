//! Whether an object may be stored.
//!
//! Pure: what is asked and what is there in, a verdict out. The object is put in the place of its older self and judged last, so
//! that of two objects that contradict each other it is the one that is refused.

use std::collections::BTreeMap;

use garpike_controller_api::{
    BGPAdvertisement, BGPPeer, Community, FieldPath, IPAddressPool, L2Advertisement, ObjectKey, Objects, Problem,
    Scope, Severity, Source, Sourced, judge_community, validate,
};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::bgp;
use super::live::{Live, parse};
use super::review::{Operation, Review, Verdict};

/// A kind that is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Pool,
    L2Advertisement,
    BgpAdvertisement,
    Community,
    BfdProfile,
    BgpPeer,
}

impl Subject {
    /// As Kubernetes calls the kind.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pool => "IPAddressPool",
            Self::L2Advertisement => "L2Advertisement",
            Self::BgpAdvertisement => "BGPAdvertisement",
            Self::Community => "Community",
            Self::BfdProfile => "BFDProfile",
            Self::BgpPeer => "BGPPeer",
        }
    }

    /// The kind that is judged at a path; the paths are MetalLB's.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        match path {
            "/validate-metallb-io-v1beta1-ipaddresspool" => Some(Self::Pool),
            "/validate-metallb-io-v1beta1-l2advertisement" => Some(Self::L2Advertisement),
            "/validate-metallb-io-v1beta1-bgpadvertisement" => Some(Self::BgpAdvertisement),
            "/validate-metallb-io-v1beta1-community" => Some(Self::Community),
            "/validate-metallb-io-v1beta1-bfdprofile" => Some(Self::BfdProfile),
            "/validate-metallb-io-v1beta2-bgppeer" => Some(Self::BgpPeer),
            _ => None,
        }
    }
}

/// Judges one object among those that are there.
pub(super) fn judge(subject: Subject, review: &Review, live: &Live, namespace: &str) -> Verdict {
    match review.operation {
        Operation::Create if review.namespace != namespace => {
            let object = review.object_shown();
            return Verdict::Denied(format!(
                "{object}: resource must be created in {namespace} namespace; write metadata.namespace: {namespace}"
            ));
        }
        Operation::Update if leaves_its_meaning(review) => return Verdict::Allowed(vec![]),
        Operation::Delete if subject == Subject::BfdProfile => {
            return verdict(bgp::deletion(review.object_name(), &live.peers), review);
        }
        Operation::Delete | Operation::Connect => return Verdict::Allowed(vec![]),
        Operation::Create | Operation::Update => {}
    }
    match subject {
        Subject::Pool => with(review, |pool: IPAddressPool| {
            let mut objects = objects(live, namespace);
            insert_last(&mut objects.pools, pool, namespace);
            validate(&objects, &scope(namespace)).1
        }),
        Subject::L2Advertisement => with(review, |advertisement: L2Advertisement| {
            let mut objects = objects(live, namespace);
            insert_last(&mut objects.advertisements, advertisement, namespace);
            let mut problems = validate(&objects, &scope(namespace)).1;
            if live.nodes.is_none() {
                let needs_nodes = FieldPath::of(["spec", "nodeSelectors"]);
                problems.retain(|problem| problem.field.as_ref() != Some(&needs_nodes));
            }
            problems
        }),
        Subject::Community => with(review, |community: Community| {
            let others = live.communities.iter().filter(|other| other.name_any() != community.name_any());
            judge_community(&community, others)
        }),
        Subject::BgpAdvertisement => {
            with(review, |advertisement: BGPAdvertisement| bgp::advertisement(&advertisement, live))
        }
        Subject::BgpPeer => with(review, |peer: BGPPeer| bgp::peer(&peer, &live.peers)),
        // The schema says all that there is to say.
        Subject::BfdProfile => verdict(vec![bgp::inactive()], review),
    }
}

/// Whether an update changes nothing that is judged, or is one of the last: then not even a bad object is refused, so that
/// labels, owners and finalizers of it can be changed.
fn leaves_its_meaning(review: &Review) -> bool {
    let spec = |object: &Value| object.get("spec").cloned().unwrap_or_default();
    review.object.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null())
        || spec(&review.object) == spec(&review.old_object)
}

fn with<K: DeserializeOwned>(review: &Review, judge: impl FnOnce(K) -> Vec<Problem>) -> Verdict {
    match parse::<K>(review.object.clone()) {
        Some(object) => {
            let mut problems = judge(object);
            let named = review.object_shown();
            problems.retain(|problem| problem.object.as_ref().is_none_or(|object| *object == named));
            verdict(problems, review)
        }
        None => Verdict::Denied(format!(
            "{}: cannot be read; compare it with \"kubectl explain {}\"",
            review.object_shown(),
            review.kind.kind.to_lowercase()
        )),
    }
}

fn verdict(problems: Vec<Problem>, review: &Review) -> Verdict {
    let lines = |severity: Severity| {
        let of = problems.iter().filter(move |problem| problem.severity == severity);
        of.map(|problem| problem.clone().of(review.object_shown()).to_string()).take(MAX_LINES).collect::<Vec<_>>()
    };
    let errors = lines(Severity::Error);
    if errors.is_empty() { Verdict::Allowed(lines(Severity::Warning)) } else { Verdict::Denied(errors.join("\n")) }
}

fn scope(namespace: &str) -> Scope {
    Scope { namespace: namespace.to_owned(), load_balancer_class: None }
}

fn objects(live: &Live, namespace: &str) -> Objects {
    let mut objects = Objects::default();
    objects.pools.extend(live.pools.iter().cloned().map(|pool| entry(pool, namespace)));
    objects.advertisements.extend(live.advertisements.iter().cloned().map(|object| entry(object, namespace)));
    objects.nodes.extend(live.nodes.iter().flatten().cloned().map(|node| entry(node, "")));
    objects
}

/// Puts in an object as the youngest of all.
fn insert_last<K: Resource>(into: &mut BTreeMap<ObjectKey, Sourced<K>>, mut object: K, namespace: &str) {
    object.meta_mut().creation_timestamp = None;
    into.extend([entry(object, namespace)]);
}

fn entry<K: Resource>(object: K, namespace: &str) -> (ObjectKey, Sourced<K>) {
    let key = ObjectKey { namespace: namespace.to_owned(), name: object.name_any() };
    (key, Sourced { object, source: Source::default() })
}

/// Chosen: `kubectl` shows some lines; the rest follows when these are mended.
const MAX_LINES: usize = 16;

#[cfg(test)]
mod tests;
