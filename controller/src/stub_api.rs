//! A stub in the place of the API server, over loopback.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use garpike_kubernetes::https::respond;
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use kube::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// An API server that answers what it is told to, and remembers what it was asked.
pub(crate) struct StubApi {
    pub(crate) client: Client,
    writes: Arc<Mutex<Vec<(Method, String, Value)>>>,
    _tasks: JoinSet<()>,
}

impl StubApi {
    /// Answers by method, path and body.
    pub(crate) async fn start(answer: impl Fn(&Method, &str) -> (u16, Value) + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let writes = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let kept = Arc::clone(&writes);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, kept) = (answer.clone(), Arc::clone(&kept));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                    let (status, body) = answer(&method, &path);
                    let kept = Arc::clone(&kept);
                    async move {
                        let sent = request.into_body().collect().await.unwrap().to_bytes();
                        if method != Method::GET {
                            kept.lock().unwrap().push((method, path, serde_json::from_slice(&sent).unwrap()));
                        }
                        let status = StatusCode::from_u16(status).unwrap();
                        Ok::<_, Infallible>(respond(status, "application/json", Bytes::from(body.to_string())))
                    }
                });
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        let client = Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        Self { client, writes, _tasks: tasks }
    }

    /// What was written since the last question, the oldest first.
    pub(crate) fn writes(&self) -> Vec<(Method, String, Value)> {
        std::mem::take(&mut *self.writes.lock().unwrap())
    }
}

/// The answer of an API server that refuses.
pub(crate) fn refusal(code: u16, message: &str) -> (u16, Value) {
    let reason = if code == 404 { "NotFound" } else { "" };
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason});
    status["message"] = json!(message);
    status["code"] = json!(code);
    (code, status)
}
