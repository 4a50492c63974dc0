//! A plain HTTP server for probes, states and metrics: fixed routes, GET only, bounded headers and times.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::trace;

use crate::accept::accept;

/// What a route answers with.
#[derive(Debug)]
pub struct Answer {
    /// Whether all is well.
    pub status: StatusCode,
    /// What the body is.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Answer {
    /// A short plain text.
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    /// A JSON document.
    pub fn json(body: String) -> Self {
        Self { status: StatusCode::OK, content_type: "application/json", body }
    }

    /// Metrics in Prometheus' text format.
    pub fn metrics(body: String) -> Self {
        Self { status: StatusCode::OK, content_type: "text/plain; version=0.0.4; charset=utf-8", body }
    }
}

/// Answers the path of a GET, or gives `None` when there is no such route.
pub type Routes = dyn Fn(&str) -> Option<Answer> + Send + Sync;

/// Serves `routes` until `stop`.
pub async fn serve(listener: TcpListener, routes: Arc<Routes>, stop: CancellationToken) {
    let serve = |stream| serve_connection(stream, Arc::clone(&routes));
    // Dropped, which cuts off those that are open.
    drop(accept(listener, serve, &stop).await);
}

async fn serve_connection(stream: TcpStream, routes: Arc<Routes>) {
    let service = service_fn(move |request| {
        let response = respond(&*routes, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = tokio::time::timeout(CONNECTION_TIMEOUT, pin!(connection)).await {
        trace!(%error, "connection closed");
    }
}

fn respond(routes: &Routes, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let answer = if request.method() == Method::GET {
        routes(request.uri().path()).unwrap_or_else(|| Answer::text(StatusCode::NOT_FOUND, "no such path\n"))
    } else {
        Answer::text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n")
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    let content_type = hyper::header::HeaderValue::from_static(answer.content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    if answer.status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET"));
    }
    response
}

/// Chosen: a request is a line and a few headers.
const MAX_HEADER_BYTES: usize = 8 * 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// Chosen: longer than a scrape interval, so that Prometheus keeps its connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);
