//! Whether the holder of a token may read `/metrics`, by TokenReview and SubjectAccessReview.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest as _, Sha256};

/// What became of a review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The holder may read.
    Allowed,
    /// Nobody knows the token.
    Unknown(String),
    /// The holder has no right to read.
    Forbidden(String),
    /// The API server did not say.
    NotReviewed(String),
}

/// Asks the API server, and remembers its answers for a moment.
pub(super) struct Reviewer {
    client: Client,
    /// By a digest, so that no token stays in memory. Locked for a look-up only, never over a request.
    remembered: Mutex<BTreeMap<[u8; 32], (Verdict, Instant)>>,
}

impl Reviewer {
    pub(super) fn new(client: Client) -> Self {
        Self { client, remembered: Mutex::new(BTreeMap::new()) }
    }

    pub(super) async fn review(&self, token: &str) -> Verdict {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(verdict) = self.recall(&digest, now()) {
            return verdict;
        }
        let asked = tokio::time::timeout(REVIEW_WITHIN, self.ask(token)).await;
        let verdict = asked.unwrap_or_else(|_| {
            Verdict::NotReviewed(format!("the API server did not answer the review within {REVIEW_WITHIN:?}"))
        });
        self.remember(digest, verdict.clone(), now());
        verdict
    }

    async fn ask(&self, token: &str) -> Verdict {
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), audiences: None },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let reviewed = match reviews.create(&PostParams::default(), &review).await {
            Ok(reviewed) => reviewed.status.unwrap_or_default(),
            Err(error) => return not_reviewed("tokenreviews.authentication.k8s.io", &error),
        };
        let Some(user) = reviewed.user.filter(|_| reviewed.authenticated == Some(true)) else {
            let why = reviewed.error.unwrap_or_else(|| "it is wrong, or has expired".to_owned());
            return Verdict::Unknown(format!("the cluster does not know the bearer token: {why}"));
        };
        let name = user.username.clone().unwrap_or_default();
        let accesses: Api<SubjectAccessReview> = Api::all(self.client.clone());
        match accesses.create(&PostParams::default(), &access(user)).await {
            Ok(reviewed) if reviewed.status.as_ref().is_some_and(|status| status.allowed) => Verdict::Allowed,
            Ok(_) => Verdict::Forbidden(format!(
                "{name} may not get /metrics; bind it to a ClusterRole with nonResourceURLs [/metrics], verbs [get]"
            )),
            Err(error) => not_reviewed("subjectaccessreviews.authorization.k8s.io", &error),
        }
    }

    fn recall(&self, digest: &[u8; 32], now: Instant) -> Option<Verdict> {
        let remembered = self.remembered.lock().expect("nothing panics while it holds the lock");
        let (verdict, until) = remembered.get(digest)?;
        (now < *until).then(|| verdict.clone())
    }

    fn remember(&self, digest: [u8; 32], verdict: Verdict, now: Instant) {
        let lasts = match verdict {
            Verdict::Allowed => ALLOWED_LASTS,
            Verdict::Unknown(_) | Verdict::Forbidden(_) => REFUSED_LASTS,
            Verdict::NotReviewed(_) => return,
        };
        let mut remembered = self.remembered.lock().expect("nothing panics while it holds the lock");
        if remembered.len() >= MAX_REMEMBERED {
            remembered.retain(|_, (_, until)| now < *until);
        }
        if remembered.len() < MAX_REMEMBERED {
            remembered.insert(digest, (verdict, now + lasts));
        }
    }
}

fn access(user: UserInfo) -> SubjectAccessReview {
    let of = NonResourceAttributes { path: Some("/metrics".to_owned()), verb: Some("get".to_owned()) };
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            extra: user.extra,
            groups: user.groups,
            non_resource_attributes: Some(of),
            uid: user.uid,
            user: user.username,
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

fn not_reviewed(kind: &str, error: &kube::Error) -> Verdict {
    if let kube::Error::Api(status) = error
        && status.code == FORBIDDEN
    {
        return Verdict::NotReviewed(format!(
            "the request cannot be judged: the ServiceAccount of this pod may not create {kind}. MetalLB's \
             metallb-native.yaml lacks that right, metallb-native-prometheus.yaml and Garpike's manifests have it; or run \
             with --metrics-auth none. The API server says: {}",
            status.message
        ));
    }
    Verdict::NotReviewed(format!("the request cannot be judged: the review of {kind} failed: {error}"))
}

#[expect(clippy::disallowed_methods, reason = "answers are remembered by the clock")]
fn now() -> Instant {
    Instant::now()
}

const FORBIDDEN: u16 = 403;
/// Chosen: a scraper waits for 10 s by default.
const REVIEW_WITHIN: Duration = Duration::from_secs(5);
/// Chosen: two scrapes at the default interval cost one review; a right that is taken away counts within a minute.
const ALLOWED_LASTS: Duration = Duration::from_secs(60);
/// Chosen: a right that is given counts at once for a human.
const REFUSED_LASTS: Duration = Duration::from_secs(10);
/// Chosen: a cluster has a few scrapers.
const MAX_REMEMBERED: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_remembered_for_a_moment_and_a_failure_never() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
            let reviewer = Reviewer::new(client);
            let start = now();
            reviewer.remember([1; 32], Verdict::Allowed, start);
            reviewer.remember([2; 32], Verdict::Forbidden(String::new()), start);
            reviewer.remember([3; 32], Verdict::NotReviewed(String::new()), start);

            let known = |after: u64| {
                let at = start + Duration::from_secs(after);
                [1, 2, 3].map(|byte| reviewer.recall(&[byte; 32], at).is_some())
            };
            assert_eq!([known(0), known(11), known(61)], [[true, true, false], [true, false, false], [false; 3]]);
        });
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_what_is_old_first() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
            let reviewer = Reviewer::new(client);
            let start = now();
            let digest = |number: usize| <[u8; 32]>::from(Sha256::digest(number.to_le_bytes()));
            for number in 0..2 * MAX_REMEMBERED {
                reviewer.remember(digest(number), Verdict::Unknown(String::new()), start);
            }
            assert_eq!(reviewer.remembered.lock().unwrap().len(), MAX_REMEMBERED);

            let later = start + REFUSED_LASTS;
            reviewer.remember(digest(0), Verdict::Allowed, later);
            assert_eq!(reviewer.recall(&digest(0), later), Some(Verdict::Allowed));
            assert_eq!(reviewer.remembered.lock().unwrap().len(), 1);
        });
    }
}
