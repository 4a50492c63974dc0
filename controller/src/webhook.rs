//! The webhook: what people write is judged before the API server stores it.
//!
//! An HTTPS server with MetalLB's paths. Judgement is that of [`garpike_controller_api::validate`], over the objects that are
//! there and the one that is asked about; only what is wrong with that one refuses it, so an object that was bad before stands
//! in nobody's way. Nothing here writes objects. What cannot be judged is answered with an HTTP error, and the failure policy
//! of the webhook configuration decides.

mod admit;
mod bgp;
mod certificates;
mod convert;
mod live;
mod review;
mod rotation;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use garpike_kubernetes::https::{respond, serve_https, text};
use garpike_kubernetes::{InvalidTlsRules, ServedCertificate, TlsRules, failure, serve_files};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::health::Health;
use crate::metrics;
use admit::{Subject, judge};
use live::Live;
use review::{Review, Verdict};
use rotation::Rotation;

/// Where the certificate of the webhook comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Certificates {
    /// From a Secret, which is filled and renewed in time; the webhook configuration is told whom to trust.
    Rotated {
        /// The name of the Secret.
        secret: String,
        /// The name of the Service by which the API server finds us.
        service: String,
    },
    /// From `tls.crt` and `tls.key` of a directory, which somebody else keeps.
    Files {
        /// The directory.
        dir: PathBuf,
    },
}

/// Serves the webhook of the objects in `namespace` until `stop`, and tells `health` when the API server can ask it.
///
/// # Errors
///
/// When no TLS connection could ever be taken.
pub(crate) async fn serve(
    listener: TcpListener,
    client: Client,
    namespace: String,
    certificates: Certificates,
    tls: TlsRules,
    health: watch::Sender<Health>,
    stop: CancellationToken,
) -> Result<(), InvalidTlsRules> {
    let served = ServedCertificate::default();
    let acceptor = tls.acceptor(&served)?;
    let mut keeper = JoinSet::new();
    match certificates {
        Certificates::Files { dir } => keeper.spawn(serve_files(dir, served, stop.clone())),
        Certificates::Rotated { secret, service } => {
            let rotation = Rotation::new(client.clone(), &namespace, secret, &service);
            keeper.spawn(rotation.run(served, health, stop.clone()))
        }
    };
    let judge = Arc::new(Judge { client, namespace });
    let answer = move |request| {
        let judge = Arc::clone(&judge);
        async move { judge.answer(request).await }
    };
    serve_https(listener, acceptor, answer, stop).await;
    Ok(())
}

struct Judge {
    client: Client,
    namespace: String,
}

impl Judge {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only POST\n");
        }
        let path = request.uri().path().to_owned();
        let subject = Subject::of_path(&path);
        if subject.is_none() && path != "/convert" {
            return text(StatusCode::NOT_FOUND, "no such path\n");
        }
        let body = tokio::time::timeout(BODY_WITHIN, Limited::new(request.into_body(), MAX_BODY_BYTES).collect()).await;
        let Ok(Ok(body)) = body else {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "the review is too long, or does not come\n");
        };
        let body = body.to_bytes();
        let begun = now();
        let (kind, verdict, answer) = match subject {
            Some(subject) => {
                let (verdict, answer) = match Review::read(&body) {
                    Ok(review) => self.admit(subject, &review).await,
                    Err(error) => (FAILED, text(StatusCode::BAD_REQUEST, format!("not an AdmissionReview: {error}\n"))),
                };
                (subject.as_str(), verdict, answer)
            }
            None => match convert::answer(&body) {
                Ok(answer) => {
                    let answer = respond(StatusCode::OK, "application/json", Bytes::from(answer.to_string()));
                    ("conversion", "allowed", answer)
                }
                Err(error) => {
                    let answer = text(StatusCode::BAD_REQUEST, format!("not a ConversionReview: {error}\n"));
                    ("conversion", FAILED, answer)
                }
            },
        };
        metrics::webhook_answered(kind, verdict, begun.elapsed());
        answer
    }

    /// The verdict in one word, and the answer.
    async fn admit(&self, subject: Subject, review: &Review) -> (&'static str, Response<Full<Bytes>>) {
        let read = tokio::time::timeout(READ_WITHIN, Live::read(&self.client, &self.namespace, subject));
        let live = match read.await {
            Ok(Ok(live)) => live,
            Ok(Err(error)) => {
                warn!(error = failure(&error), "the webhook cannot read what there is");
                let why = format!("what there is cannot be read: {}\n", failure(&error));
                return (FAILED, text(StatusCode::INTERNAL_SERVER_ERROR, why));
            }
            Err(_) => {
                warn!("the webhook cannot read what there is: the API server is too slow");
                return (FAILED, text(StatusCode::INTERNAL_SERVER_ERROR, "what there is cannot be read in time\n"));
            }
        };
        let verdict = judge(subject, review, &live, &self.namespace);
        debug!(object = %review.object_shown(), ?verdict, "judged");
        let answer = respond(StatusCode::OK, "application/json", Bytes::from(review.answer(&verdict).to_string()));
        let word = match &verdict {
            Verdict::Allowed(warnings) if warnings.is_empty() => "allowed",
            Verdict::Allowed(_) => "warned",
            Verdict::Denied(_) => "denied",
        };
        (word, answer)
    }
}

#[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// It could not be judged.
const FAILED: &str = "failed";

/// The API server stores no object of more than 1.5 MiB (etcd's limit); a review of an update holds two.
const MAX_BODY_BYTES: usize = 3 << 20;
/// Chosen: the API server is next door.
const BODY_WITHIN: Duration = Duration::from_secs(5);
/// Chosen: the manifests have the API server wait 5 s for the whole answer, and this one says why there is none.
const READ_WITHIN: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests;
