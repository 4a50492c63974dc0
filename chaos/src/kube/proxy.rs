//! Stands before an API server and makes it slow, broken or silent.
//!
//! It speaks plain HTTP on loopback and passes every header on, the token included. A fault strikes one in n requests of its
//! kind, always the same ones but in no rhythm: none of a client's own could always or never meet it.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use serde_json::json;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::api_server::ApiServer;

/// A proxy. Dropping it closes all its connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

/// What becomes of requests.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// How long each waits before anything else happens.
    pub latency: Duration,
    /// The first that is meant for a request decides.
    pub answers: Vec<(Which, Answers)>,
}

/// Which requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Those that change something.
    Writes,
    /// Those that watch.
    Watches,
    /// Those whose path contains this.
    Path(&'static str),
}

/// How they are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answers {
    /// One in n with a status of Kubernetes.
    Status {
        /// That n; 1 is all.
        one_in: u64,
        /// The status code.
        code: StatusCode,
        /// `Retry-After`, in seconds.
        retry_after: Option<u32>,
    },
    /// All are passed on, and the answer of one in n is lost with the connection.
    Lost {
        /// That n; 1 is all.
        one_in: u64,
    },
    /// Never, while this lasts; watches stand still, and are cut when it is over.
    Never,
}

impl Proxy {
    /// Starts one; it passes everything on.
    ///
    /// # Errors
    ///
    /// When the server's certificate cannot be read, or loopback has no free port.
    pub async fn start(server: &ApiServer) -> Result<Self, ProxyError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(ProxyError::Listen)?;
        let address = listener.local_addr().map_err(ProxyError::Listen)?;
        let shared = Arc::new(Shared {
            upstream: anonymous(server).await?,
            faults: watch::Sender::default(),
            cuts: watch::Sender::default(),
            struck: AtomicU64::new(0),
            counts: Mutex::new(Vec::new()),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Does this from now on, to new requests.
    pub fn set(&self, faults: Faults) {
        self.shared.counts().clear();
        self.shared.faults.send_replace(faults);
    }

    /// Ends every watch that runs.
    pub fn cut_watches(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// How many requests met a fault.
    pub fn struck(&self) -> u64 {
        self.shared.struck.load(Ordering::Relaxed)
    }
}

/// Why there is no proxy.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// There is no port.
    #[error("cannot listen on 127.0.0.1")]
    Listen(#[source] io::Error),
    /// The kubeconfig of the server cannot be used.
    #[error("cannot use the API server's kubeconfig")]
    Config(#[source] Box<KubeconfigError>),
    /// There is no client.
    #[error("cannot make a client")]
    Client(#[source] Box<kube::Error>),
}

struct Shared {
    upstream: Client,
    faults: watch::Sender<Faults>,
    cuts: watch::Sender<u64>,
    struck: AtomicU64,
    /// How many requests each of the faults was meant for.
    counts: Mutex<Vec<u64>>,
}

/// What becomes of one request.
enum Fate {
    Passed,
    Refused(StatusCode, Option<u32>),
    Lost,
    Unanswered,
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, Vec<u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self, faults: &Faults, request: &Request<Incoming>) -> Fate {
        let met = faults.answers.iter().enumerate().find(|(_, (which, _))| which.holds(request));
        let Some((index, (_, answers))) = met else { return Fate::Passed };
        let is_turn = |one_in: u64| {
            let mut counts = self.counts();
            let length = counts.len().max(index + 1);
            counts.resize(length, 0);
            let count = counts.get_mut(index).expect("was made to fit");
            *count += 1;
            scrambled(*count).is_multiple_of(one_in)
        };
        let fate = match answers {
            Answers::Status { one_in, code, retry_after } if is_turn(*one_in) => Fate::Refused(*code, *retry_after),
            Answers::Lost { one_in } if is_turn(*one_in) => Fate::Lost,
            Answers::Status { .. } | Answers::Lost { .. } => return Fate::Passed,
            Answers::Never => Fate::Unanswered,
        };
        self.struck.fetch_add(1, Ordering::Relaxed);
        fate
    }

    /// Waits until silence is over.
    async fn silence_ends(&self) {
        let mut faults = self.faults.subscribe();
        // The sender lives as long as this.
        let _ = faults.wait_for(|faults| !faults.is_silent()).await;
    }
}

impl Faults {
    /// Whether running watches stand still.
    fn is_silent(&self) -> bool {
        self.answers.iter().any(|(which, answers)| *which == Which::All && *answers == Answers::Never)
    }
}

impl Which {
    fn holds(&self, request: &Request<Incoming>) -> bool {
        match self {
            Self::All => true,
            Self::Writes => request.method() != Method::GET,
            Self::Watches => is_watch(request),
            Self::Path(part) => request.uri().path().contains(part),
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&shared)));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { answer(&shared, request).await }
    });
    // The client has gone, or was sent away.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
) -> io::Result<Response<UnsyncBoxBody<Bytes, io::Error>>> {
    let faults = shared.faults.borrow().clone();
    if !faults.latency.is_zero() {
        tokio::time::sleep(faults.latency).await;
    }
    match shared.fate(&faults, &request) {
        Fate::Passed => pass_on(shared, request).await,
        Fate::Refused(code, retry_after) => Ok(refusal(code, retry_after)),
        Fate::Lost => {
            pass_on(shared, request).await?;
            Err(io::Error::other("the answer is lost"))
        }
        Fate::Unanswered => {
            shared.silence_ends().await;
            Err(io::Error::other("too late"))
        }
    }
}

async fn pass_on(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
) -> io::Result<Response<UnsyncBoxBody<Bytes, io::Error>>> {
    let watches = is_watch(&request);
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(HOST);
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let response = shared.upstream.send(Request::from_parts(parts, Body::from(body))).await;
    let (mut parts, body) = response.map_err(io::Error::other)?.into_parts();
    parts.version = hyper::Version::HTTP_11;
    let body = if watches { watched(Arc::clone(shared), body) } else { body.map_err(io::Error::other).boxed_unsync() };
    Ok(Response::from_parts(parts, body))
}

/// What is seen of a watch: it can be cut, and it stands still in silence.
fn watched(shared: Arc<Shared>, body: Body) -> UnsyncBoxBody<Bytes, io::Error> {
    let mut cuts = shared.cuts.subscribe();
    cuts.mark_unchanged();
    let frames = stream::unfold((body, cuts, shared), |(mut body, mut cuts, shared)| async move {
        let frame = tokio::select! {
            _ = cuts.changed() => Err(io::Error::other("cut")),
            frame = body.frame() => frame?.map_err(io::Error::other),
        };
        if shared.faults.borrow().is_silent() {
            shared.silence_ends().await;
            return Some((Err(io::Error::other("missed")), (body, cuts, shared)));
        }
        Some((frame, (body, cuts, shared)))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Numbers without a pattern from numbers in a row (SplitMix64, Steele, Lea and Flood 2014).
fn scrambled(count: u64) -> u64 {
    let mut mixed = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// As the API server says it.
fn refusal(code: StatusCode, retry_after: Option<u32>) -> Response<UnsyncBoxBody<Bytes, io::Error>> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code.as_u16(),
        "message": "a fault of the lab", "reason": reason(code),
    });
    let body = Full::new(Bytes::from(status.to_string())).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn reason(code: StatusCode) -> &'static str {
    match code {
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::CONFLICT => "Conflict",
        StatusCode::GONE => "Expired",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        _ => "InternalError",
    }
}

fn is_watch(request: &Request<Incoming>) -> bool {
    request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1"))
}

/// A client that adds nobody's token to the one that a request has.
async fn anonymous(server: &ApiServer) -> Result<Client, ProxyError> {
    let kubeconfig = Kubeconfig::read_from(server.kubeconfig()).map_err(|error| ProxyError::Config(Box::new(error)))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| ProxyError::Config(Box::new(error)))?;
    config.auth_info = kube::config::AuthInfo::default();
    config.default_retry = false;
    config.disable_compression = true;
    Client::try_from(config).map_err(|error| ProxyError::Client(Box::new(error)))
}
