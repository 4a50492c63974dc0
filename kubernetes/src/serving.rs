//! `/metrics` over HTTPS, for whom the cluster says may read it.
//!
//! As with MetalLB 0.16: the bearer token of a request is reviewed by the API server, and its user needs the right to get the
//! path `/metrics`. Answers are remembered for a moment, so that a scrape costs the API server nothing. What cannot be
//! reviewed is refused, with a text that names the right that is missing.

mod review;

use std::path::PathBuf;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use kube::Client;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::https::{respond, serve_https, text};
use crate::tls::{InvalidCertificate, InvalidTlsRules, ServedCertificate, TlsRules, serve_files};
use review::{Reviewer, Verdict};

/// How metrics are served.
#[derive(Clone, Default)]
pub struct Serving {
    /// Which TLS connections are taken.
    pub tls: TlsRules,
    /// The directory of `tls.crt` and `tls.key`; a certificate that nobody can verify without it.
    pub certificate_dir: Option<PathBuf>,
    /// Who asks whether the sender of a request may read metrics; everybody may without.
    pub review: Option<Client>,
}

/// Serves what `render` gives until `stop`.
///
/// # Errors
///
/// When no TLS connection could ever be taken.
pub async fn serve_metrics(
    listener: TcpListener,
    serving: Serving,
    render: Arc<dyn Fn() -> String + Send + Sync>,
    stop: CancellationToken,
) -> Result<(), ServeMetricsError> {
    let mut files = JoinSet::new();
    let certificate = match serving.certificate_dir {
        None => ServedCertificate::self_signed()?,
        Some(dir) => {
            let certificate = ServedCertificate::default();
            files.spawn(serve_files(dir, certificate.clone(), stop.clone()));
            certificate
        }
    };
    let acceptor = serving.tls.acceptor(&certificate)?;
    let reviewer = serving.review.map(|client| Arc::new(Reviewer::new(client)));
    let answer = move |request: Request<Incoming>| {
        let (reviewer, render) = (reviewer.clone(), Arc::clone(&render));
        async move { answer(&request, reviewer.as_deref(), &*render).await }
    };
    serve_https(listener, acceptor, answer, stop).await;
    Ok(())
}

/// Why metrics cannot be served.
#[derive(Debug, Error)]
pub enum ServeMetricsError {
    /// No certificate can be made.
    #[error(transparent)]
    Certificate(#[from] InvalidCertificate),
    /// The TLS flags.
    #[error(transparent)]
    Tls(#[from] InvalidTlsRules),
}

async fn answer(
    request: &Request<Incoming>,
    reviewer: Option<&Reviewer>,
    render: &(dyn Fn() -> String + Send + Sync),
) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return text(StatusCode::NOT_FOUND, "no such path; there is /metrics\n");
    }
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    if let Some(reviewer) = reviewer
        && let Err(refusal) = review(request, reviewer).await
    {
        return *refusal;
    }
    respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", Bytes::from(render()))
}

async fn review(request: &Request<Incoming>, reviewer: &Reviewer) -> Result<(), Box<Response<Full<Bytes>>>> {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let verdict = match token.map(|(_, token)| token.trim()).filter(|token| !token.is_empty()) {
        Some(token) => reviewer.review(token).await,
        None => Verdict::Unknown("the request carries no bearer token; send one of a ServiceAccount".to_owned()),
    };
    let (status, why) = match verdict {
        Verdict::Allowed => return Ok(()),
        Verdict::Unknown(why) => (StatusCode::UNAUTHORIZED, why),
        Verdict::Forbidden(why) => (StatusCode::FORBIDDEN, why),
        Verdict::NotReviewed(why) => (StatusCode::INTERNAL_SERVER_ERROR, why),
    };
    let mut response = text(status, format!("{why}\n"));
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    Err(Box::new(response))
}

#[cfg(test)]
mod tests;
