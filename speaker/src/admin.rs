//! The two small HTTP servers: metrics for everybody who may scrape, health and state for the node itself.
//!
//! Fixed routes, GET only, bounded headers and times. Nothing here changes state.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::trace;

/// What a route answers with.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Answer {
    /// A short plain text.
    pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }

    /// A JSON document.
    pub(crate) fn json(body: String) -> Self {
        Self { status: StatusCode::OK, content_type: "application/json", body }
    }

    /// Metrics in Prometheus' text format.
    pub(crate) fn metrics(body: String) -> Self {
        Self { status: StatusCode::OK, content_type: "text/plain; version=0.0.4; charset=utf-8", body }
    }
}

/// Answers the path of a GET, or gives `None` when there is no such route.
pub(crate) type Routes = dyn Fn(&str) -> Option<Answer> + Send + Sync;

/// Binds the address of an HTTP server.
///
/// # Errors
///
/// Names `flag`, the address and the mend when the port is taken.
pub(crate) async fn bind(flag: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{flag}: cannot listen on {address}; choose another port or stop its present user"))
}

/// Serves `routes` until `stop`.
pub(crate) async fn serve(listener: TcpListener, routes: Arc<Routes>, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                    trace!(%peer, "too many connections");
                    continue;
                };
                let routes = Arc::clone(&routes);
                connections.spawn(async move {
                    serve_connection(stream, routes).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors, say: wait rather than spin.
                trace!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
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

/// Chosen: a few scrapers and probes at once; more are turned away rather than served slowly.
const MAX_CONNECTIONS: usize = 64;
/// Chosen: a request is a line and a few headers.
const MAX_HEADER_BYTES: usize = 8 * 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// Chosen: longer than a scrape interval, so that Prometheus keeps its connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);
