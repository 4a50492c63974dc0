//! etcd and kube-apiserver, on loopback or at an address of the lab.
//!
//! Requests are authorised as in a cluster (RBAC), and those of ServiceAccounts are written to an audit log: a test can
//! see what was written, and what was refused. Nothing controls anything here: pods need no ServiceAccount, namespaces
//! are never finished, a ServiceAccount's token is made by whoever needs one.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use garpike_kubernetes::{ConnectError, connect};
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};
use tempfile::TempDir;
use thiserror::Error;

use super::audit::Audit;
use super::ports::free_address;
use super::process::Process;
use crate::tools::{Program, ToolError};

/// A running API server with its own database. Dropping it ends both.
pub struct ApiServer {
    // In this order: the server ends before its database, and the directory goes last.
    _server: Process,
    _database: Process,
    address: SocketAddr,
    client: Client,
    directory: TempDir,
}

/// Which addresses the Services of a cluster get inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// IPv4 alone.
    V4,
    /// Both, IPv4 first.
    Dual,
}

impl ApiServer {
    /// Starts both and waits until the server is ready: some seconds.
    ///
    /// # Errors
    ///
    /// When a program is missing, ends, or is not ready in time; then its last words are part of the error.
    pub async fn start(stack: Stack) -> Result<Self, ApiServerError> {
        Self::start_at(stack, Ipv4Addr::LOCALHOST, &std::env::temp_dir()).await
    }

    /// Starts the server at an address of this host, with its files below `parent`; the database listens on loopback.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub async fn start_at(stack: Stack, ip: Ipv4Addr, parent: &Path) -> Result<Self, ApiServerError> {
        let directory = tempfile::Builder::new().prefix("garpike-api-").tempdir_in(parent);
        let directory = directory.map_err(ApiServerError::Directory)?;
        let path = directory.path();
        let write = |name: &str, text: &str| {
            let path = path.join(name);
            fs::write(&path, text).map_err(|source| ApiServerError::File { path, source })
        };
        write("tokens.csv", &format!("{ADMIN},admin,admin,\"system:masters\"\n"))?;
        write("audit-policy.yaml", AUDIT_POLICY)?;
        let key = rcgen::KeyPair::generate().map_err(ApiServerError::Key)?;
        write(SIGNING_KEY, &key.serialize_pem())?;
        write(VERIFYING_KEY, &key.public_key_pem())?;
        let free = |ip| free_address(ip).map_err(ApiServerError::Ports);
        let (address, clients, peers) = (free(ip)?, free(Ipv4Addr::LOCALHOST)?, free(Ipv4Addr::LOCALHOST)?);
        let database = spawn(Program::Etcd, path, &etcd_arguments(path, clients, peers))?;
        let mut server = spawn(Program::KubeApiserver, path, &server_arguments(path, address, clients, stack))?;
        let kubeconfig = path.join(KUBECONFIG);
        let authority = certificate(path);
        write(KUBECONFIG, &kubeconfig_for(Authority::File(&authority), &format!("https://{address}"), ADMIN))?;
        let client = wait_until_ready(&mut server, path, &kubeconfig).await?;
        Ok(Self { _server: server, _database: database, address, client, directory })
    }

    /// A client that may do everything.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The kubeconfig file of somebody who may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join(KUBECONFIG)
    }

    /// A kubeconfig file with a fresh token of a ServiceAccount that exists, for requests to `server`: this one, or a
    /// proxy before it.
    ///
    /// # Errors
    ///
    /// When there is no such ServiceAccount, or the file cannot be written.
    pub async fn kubeconfig_of(
        &self,
        namespace: &str,
        service_account: &str,
        server: Server<'_>,
    ) -> Result<PathBuf, ApiServerError> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let wanted = TokenRequest {
            spec: TokenRequestSpec { expiration_seconds: Some(TOKEN_LASTS_S), ..TokenRequestSpec::default() },
            ..TokenRequest::default()
        };
        let made = api.create_token_request(service_account, &PostParams::default(), &wanted).await;
        let token = made.map_err(|error| ApiServerError::Token(Box::new(error)))?.status.map(|status| status.token);
        // The file is of use where that of the certificate is not.
        let read = || {
            let path = self.certificate();
            fs::read(&path).map_err(|source| ApiServerError::Certificate { path, source })
        };
        let (authority, url, kind) = match server {
            Server::Itself => (Authority::Bytes(read()?), format!("https://{}", self.address), "direct"),
            Server::Proxy(url) if url.starts_with("https:") => (Authority::Bytes(read()?), url.to_owned(), "proxy"),
            Server::Proxy(url) => (Authority::None, url.to_owned(), "proxy"),
        };
        let path = self.directory.path().join(format!("{namespace}-{service_account}-{kind}.kubeconfig"));
        let text = kubeconfig_for(authority, &url, &token.unwrap_or_default());
        fs::write(&path, text).map_err(|source| ApiServerError::File { path: path.clone(), source })?;
        Ok(path)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A file with its certificate, which is its own authority.
    pub fn certificate(&self) -> PathBuf {
        certificate(self.directory.path())
    }

    /// A directory that goes when the server does.
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// What ServiceAccounts have asked for.
    pub fn audit(&self) -> Audit {
        Audit::of(self.directory.path().join(AUDIT_LOG))
    }
}

/// Whom a client talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server<'a> {
    /// The API server.
    Itself,
    /// What listens at this URL.
    Proxy(&'a str),
}

/// Why there is no API server.
#[derive(Debug, Error)]
pub enum ApiServerError {
    /// A program is missing.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// There is no place for its files.
    #[error("cannot make a directory for the API server")]
    Directory(#[source] io::Error),
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Its certificate cannot be read.
    #[error("cannot read {}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// No key for the tokens of ServiceAccounts could be made.
    #[error("cannot make a key")]
    Key(#[source] rcgen::Error),
    /// No token was given.
    #[error("cannot get a token of a ServiceAccount")]
    Token(#[source] Box<kube::Error>),
    /// There are no free ports.
    #[error("cannot find free ports")]
    Ports(#[source] io::Error),
    /// A program could not be started.
    #[error("cannot start {program}")]
    Spawn {
        /// The program.
        program: Program,
        /// The cause.
        source: io::Error,
    },
    /// It ended by itself.
    #[error("kube-apiserver ended ({status}); it last said:\n{last_words}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// The end of its log.
        last_words: String,
    },
    /// It runs, but does not serve.
    #[error("kube-apiserver was not ready within {READY_WITHIN:?}; it last said:\n{last_words}")]
    NotReady {
        /// The end of its log.
        last_words: String,
    },
    /// There is no client for it.
    #[error(transparent)]
    Client(#[from] ConnectError),
}

fn spawn(program: Program, directory: &Path, arguments: &[String]) -> Result<Process, ApiServerError> {
    let mut command = Command::new(program.path()?);
    command.args(arguments).current_dir(directory);
    let log = directory.join(format!("{program}.log"));
    Process::spawn(command, &log).map_err(|source| ApiServerError::Spawn { program, source })
}

async fn wait_until_ready(server: &mut Process, directory: &Path, kubeconfig: &Path) -> Result<Client, ApiServerError> {
    let deadline = now() + READY_WITHIN;
    let mut client = None;
    loop {
        if let Some(status) = server.ended() {
            return Err(ApiServerError::Ended { status, last_words: server.last_words() });
        }
        // The server makes its certificate; a client wants to read it.
        if client.is_none() && certificate(directory).is_file() {
            client = connect(Some(kubeconfig)).await.ok();
        }
        if let Some(client) = &client
            && is_ready(client).await
        {
            return Ok(client.clone());
        }
        if now() >= deadline {
            return Err(ApiServerError::NotReady { last_words: server.last_words() });
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn is_ready(client: &Client) -> bool {
    let request = hyper::Request::get("/readyz").body(Vec::new()).expect("a path is a request");
    tokio::time::timeout(ASK_FOR, client.request_text(request)).await.is_ok_and(|answer| answer.is_ok())
}

/// How a client knows the server.
enum Authority<'a> {
    /// By a file, which need not be there yet.
    File(&'a Path),
    /// By these bytes.
    Bytes(Vec<u8>),
    /// Not at all: it does not speak TLS.
    None,
}

fn kubeconfig_for(authority: Authority<'_>, server: &str, token: &str) -> String {
    let mut cluster = serde_json::Map::from_iter([("server".to_owned(), server.into())]);
    match authority {
        Authority::File(path) => {
            cluster.insert("certificate-authority".to_owned(), path.display().to_string().into());
        }
        Authority::Bytes(bytes) => {
            cluster.insert("certificate-authority-data".to_owned(), serde_json::json!(ByteString(bytes)));
        }
        Authority::None => {}
    }
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": "lab", "user": {"token": token}}],
    });
    config.to_string()
}

fn certificate(directory: &Path) -> PathBuf {
    directory.join("certs/apiserver.crt")
}

fn etcd_arguments(directory: &Path, clients: SocketAddr, peers: SocketAddr) -> Vec<String> {
    let data = directory.join("etcd");
    let (clients, peers) = (format!("http://{clients}"), format!("http://{peers}"));
    let pairs = [
        ("data-dir", data.display().to_string()),
        ("listen-client-urls", clients.clone()),
        ("advertise-client-urls", clients),
        ("listen-peer-urls", peers.clone()),
        ("initial-advertise-peer-urls", peers.clone()),
        ("initial-cluster", format!("default={peers}")),
        // What is lost with the machine was the test's own.
        ("unsafe-no-fsync", "true".to_owned()),
        ("log-level", "warn".to_owned()),
    ];
    pairs.map(|(name, value)| format!("--{name}={value}")).into()
}

fn server_arguments(directory: &Path, address: SocketAddr, etcd: SocketAddr, stack: Stack) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    // Loopback, so that a webhook of this machine can be called by its Service without a kube-proxy.
    let cluster_ips = match stack {
        Stack::V4 => "127.96.0.0/16",
        Stack::Dual => "127.96.0.0/16,fd00:10:96::/112",
    };
    let pairs = [
        ("etcd-servers", format!("http://{etcd}")),
        ("bind-address", address.ip().to_string()),
        ("secure-port", address.port().to_string()),
        ("cert-dir", file("certs")),
        ("service-cluster-ip-range", cluster_ips.to_owned()),
        ("authorization-mode", "RBAC".to_owned()),
        ("token-auth-file", file("tokens.csv")),
        ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
        ("service-account-key-file", file(VERIFYING_KEY)),
        ("service-account-signing-key-file", file(SIGNING_KEY)),
        // It refuses pods until a controller that is not here has made their ServiceAccount.
        ("disable-admission-plugins", "ServiceAccount".to_owned()),
        ("endpoint-reconciler-type", "none".to_owned()),
        ("allow-privileged", "true".to_owned()),
        ("profiling", "false".to_owned()),
        ("audit-policy-file", file("audit-policy.yaml")),
        ("audit-log-path", file(AUDIT_LOG)),
        // A line is there when the answer is.
        ("audit-log-mode", "blocking".to_owned()),
        // Tests ask much of it on two cores; what they judge is not its queues.
        ("max-requests-inflight", "1000".to_owned()),
        ("max-mutating-requests-inflight", "1000".to_owned()),
    ];
    pairs.map(|(name, value)| format!("--{name}={value}")).into()
}

#[expect(clippy::disallowed_methods, reason = "it waits for another program")]
fn now() -> Instant {
    Instant::now()
}

const ADMIN: &str = "admin";
const KUBECONFIG: &str = "admin.kubeconfig";
const SIGNING_KEY: &str = "service-accounts.pem";
const VERIFYING_KEY: &str = "service-accounts.pub";
const AUDIT_LOG: &str = "audit.jsonl";
/// What the administrator does is a test's own doing.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
  userGroups: [\"system:serviceaccounts\"]
- level: None
";
/// Longer than any test.
const TOKEN_LASTS_S: i64 = 24 * 3600;
/// Measured: 3 s on two cores; chosen with room for a machine under load.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Chosen: a server that does not answer in this time is not ready.
const ASK_FOR: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
