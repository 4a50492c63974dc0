//! `/healthz`, `/readyz` and `/metrics` over plain HTTP: fixed routes, GET only, bounded headers and times.

use std::convert::Infallible;
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::trace;

/// Answers the path of a GET, or gives `None` when there is no such route.
pub(crate) trait Routes: Fn(&str) -> Option<(StatusCode, String)> + Send + Sync + 'static {}

impl<F: Fn(&str) -> Option<(StatusCode, String)> + Send + Sync + 'static> Routes for F {}

/// Binds a port on all addresses; only those of IPv4 where there is no IPv6.
///
/// # Errors
///
/// Names `flag`, the port and the mend when it is taken.
pub(crate) async fn bind(flag: &str, port: u16) -> Result<TcpListener> {
    let all = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from(([0, 0, 0, 0], port))];
    TcpListener::bind(&all[..])
        .await
        .with_context(|| format!("{flag}: cannot listen on port {port}; choose another one or stop its present user"))
}

/// Serves `routes` for ever.
pub(crate) async fn serve(listener: TcpListener, routes: impl Routes) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let routes = Arc::new(routes);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
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
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, routes: Arc<impl Routes>) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (status, body) = if request.method() == Method::GET {
            routes(request.uri().path()).unwrap_or_else(|| (StatusCode::NOT_FOUND, "no such path\n".to_owned()))
        } else {
            (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned())
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        let content_type = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(hyper::header::CONTENT_TYPE, content_type);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = timeout(CONNECTION_TIMEOUT, pin!(connection)).await {
        trace!(%error, "connection closed");
    }
}

/// Chosen: a few scrapers and probes at once; more are turned away rather than served slowly.
const MAX_CONNECTIONS: usize = 64;
/// Chosen: a request is a line and a few headers.
const MAX_HEADER_BYTES: usize = 8 * 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// Chosen: longer than a scrape interval, so that Prometheus keeps its connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);
