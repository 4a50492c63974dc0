//! An HTTPS server for a few requests: bounded connections, bounded headers, no connection that lasts for ever.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::trace;

use crate::accept::accept;

/// Answers each request by `answer` until `stop`; requests that are being answered then get a moment.
pub async fn serve_https<A, F>(listener: TcpListener, acceptor: TlsAcceptor, answer: A, stop: CancellationToken)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let serve = |stream| {
        let (acceptor, answer, stop) = (acceptor.clone(), answer.clone(), stop.clone());
        async move { serve_connection(stream, &acceptor, answer, &stop).await }
    };
    let mut connections = accept(listener, serve, &stop).await;
    let all = async { while connections.join_next().await.is_some() {} };
    // What is not answered by then is cut off with its task.
    let _ = tokio::time::timeout(LAST_ANSWER, all).await;
}

async fn serve_connection<A, F>(stream: TcpStream, acceptor: &TlsAcceptor, answer: A, stop: &CancellationToken)
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return trace!(%error, "no TLS connection"),
        Err(_) => return trace!("the TLS handshake takes too long"),
    };
    let service = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                trace!(%error, "connection closed");
            }
            return;
        }
        () = stop.cancelled() => {}
        () = tokio::time::sleep(CONNECTION_LIFETIME) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LAST_ANSWER, connection).await;
}

/// An answer of plain text.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body.into())
}

/// An answer of any kind.
pub fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Chosen: a token of a ServiceAccount has 1 to 2 KiB, with many audiences some more.
const MAX_HEADER_BYTES: usize = 32 * 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Also how long a connection may be idle. Chosen: longer than a scrape interval, so that Prometheus keeps its connection;
/// the API server closes idle ones after 90 s itself.
const HEADER_TIMEOUT: Duration = Duration::from_secs(100);
/// Chosen: a client that goes on gets a new connection, with the certificate of that day.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(600);
/// Chosen: the API server gives a webhook 10 s, and a process that ends does not have them.
const LAST_ANSWER: Duration = Duration::from_millis(500);
