//! etcd and kube-apiserver on loopback.
//!
//! Requests are authorised as in a cluster (RBAC), so a test can be a user with few rights. ServiceAccounts have no
//! controller here: pods need none, and tokens are made by whoever needs one.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use thiserror::Error;

use crate::tools::{Program, ToolError};

/// A running API server with its own database. Dropping it ends both.
#[derive(Debug)]
pub struct ApiServer {
    // In this order: the server ends before its database, and the directory goes last.
    server: Process,
    _database: Process,
    address: SocketAddr,
    directory: TempDir,
}

/// Somebody who may send requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// May do everything.
    Admin,
    /// A ServiceAccount, with the rights that roles give it.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl ApiServer {
    /// Starts both and waits until the server is ready: some seconds. Besides the administrator, `users` may send
    /// requests.
    ///
    /// # Errors
    ///
    /// When a program is missing, ends, or is not ready in time; then its last words are part of the error.
    pub fn start(users: &[User]) -> Result<Self, ApiServerError> {
        let directory = tempfile::Builder::new().prefix("garpike-api-").tempdir().map_err(ApiServerError::Directory)?;
        let path = directory.path().to_path_buf();
        let write = |name: &str, text: &str| {
            let path = path.join(name);
            fs::write(&path, text).map_err(|source| ApiServerError::File { path, source })
        };
        let users: Vec<&User> = [&User::Admin].into_iter().chain(users).collect();
        write("tokens.csv", &users.iter().map(|user| user.line()).collect::<String>())?;
        write("service-accounts.pem", &rcgen::KeyPair::generate().map_err(ApiServerError::Key)?.serialize_pem())?;
        let [address, clients, peers] = free_addresses().map_err(ApiServerError::Ports)?;
        let database = Process::spawn(Program::Etcd, &path, &etcd_arguments(&path, clients, peers))?;
        let server = Process::spawn(Program::KubeApiserver, &path, &server_arguments(&path, address, clients))?;
        let mut this = Self { server, _database: database, address, directory };
        this.wait_until_ready()?;
        for user in users {
            write(&user.kubeconfig_name(), &this.kubeconfig_of(user))?;
        }
        Ok(this)
    }

    /// A kubeconfig file of a user that [`ApiServer::start`] was told of.
    pub fn kubeconfig(&self, user: &User) -> PathBuf {
        self.directory.path().join(user.kubeconfig_name())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn wait_until_ready(&mut self) -> Result<(), ApiServerError> {
        let deadline = now() + READY_WITHIN;
        loop {
            if let Some(status) = self.server.ended() {
                return Err(self.server.failed(Failure::Ended(status)));
            }
            let mut ready = Command::new(Program::Kubectl.path()?);
            ready
                .args(["--server", &format!("https://{}", self.address), "--insecure-skip-tls-verify"])
                .args(["--token", &User::Admin.token(), "--request-timeout=2s", "get", "--raw=/readyz"])
                .env("HOME", self.directory.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            // A client of its own is started only when somebody listens: it costs more than a connection.
            if TcpStream::connect_timeout(&self.address, CONNECT_WITHIN).is_ok()
                && ready.status().is_ok_and(|status| status.success())
            {
                return Ok(());
            }
            if now() >= deadline {
                return Err(self.server.failed(Failure::NotReady(READY_WITHIN)));
            }
            thread::sleep(POLL);
        }
    }

    fn kubeconfig_of(&self, user: &User) -> String {
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
            "clusters": [{"name": "lab", "cluster": {
                "server": format!("https://{}", self.address),
                "certificate-authority": self.directory.path().join("certs/apiserver.crt"),
            }}],
            "users": [{"name": "lab", "user": {"token": user.token()}}],
        });
        config.to_string()
    }
}

impl User {
    fn token(&self) -> String {
        match self {
            Self::Admin => "admin".to_owned(),
            Self::ServiceAccount { namespace, name } => format!("{namespace}-{name}"),
        }
    }

    /// Its line of `--token-auth-file`: token, user name, user id, groups.
    fn line(&self) -> String {
        let token = self.token();
        match self {
            Self::Admin => format!("{token},admin,admin,\"system:masters\"\n"),
            Self::ServiceAccount { namespace, name } => format!(
                "{token},system:serviceaccount:{namespace}:{name},{token},\
                 \"system:serviceaccounts,system:serviceaccounts:{namespace}\"\n"
            ),
        }
    }

    fn kubeconfig_name(&self) -> String {
        format!("{}.kubeconfig", self.token())
    }
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
    /// No key for the tokens of ServiceAccounts could be made.
    #[error("cannot make a key")]
    Key(#[source] rcgen::Error),
    /// Loopback has no free ports.
    #[error("cannot find free ports on 127.0.0.1")]
    Ports(#[source] io::Error),
    /// A program could not be started.
    #[error("cannot start {program}")]
    Spawn {
        /// The program.
        program: Program,
        /// The cause.
        source: io::Error,
    },
    /// A program was started in vain.
    #[error("{program} {failure}; it last said:\n{last_words}")]
    Failed {
        /// The program.
        program: Program,
        /// What happened.
        failure: Failure,
        /// The end of its log.
        last_words: String,
    },
}

/// How a program failed.
#[derive(Debug, Error)]
pub enum Failure {
    /// It ended by itself.
    #[error("ended ({0})")]
    Ended(ExitStatus),
    /// It runs, but does not serve.
    #[error("was not ready within {0:?}")]
    NotReady(Duration),
}

/// A program that ends when it is dropped.
#[derive(Debug)]
struct Process {
    program: Program,
    child: Child,
    log: PathBuf,
}

impl Process {
    fn spawn(program: Program, directory: &Path, arguments: &[String]) -> Result<Self, ApiServerError> {
        let log = directory.join(format!("{program}.log"));
        let file = || -> io::Result<(File, File)> {
            let file = File::create(&log)?;
            Ok((file.try_clone()?, file))
        };
        let (out, err) = file().map_err(|source| ApiServerError::File { path: log.clone(), source })?;
        let child = Command::new(program.path()?)
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|source| ApiServerError::Spawn { program, source })?;
        Ok(Self { program, child, log })
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    fn failed(&self, failure: Failure) -> ApiServerError {
        let mut said = String::new();
        let read = File::open(&self.log).and_then(|mut file| file.read_to_string(&mut said));
        let last_words = match read {
            Ok(_) => {
                said.lines().rev().take(LAST_WORDS).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
            }
            Err(error) => format!("(its log cannot be read: {error})"),
        };
        ApiServerError::Failed { program: self.program, failure, last_words }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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

fn server_arguments(directory: &Path, address: SocketAddr, etcd: SocketAddr) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    let pairs = [
        ("etcd-servers", format!("http://{etcd}")),
        ("bind-address", address.ip().to_string()),
        ("secure-port", address.port().to_string()),
        ("cert-dir", file("certs")),
        ("service-cluster-ip-range", "10.96.0.0/16,fd00:10:96::/112".to_owned()),
        ("authorization-mode", "RBAC".to_owned()),
        ("token-auth-file", file("tokens.csv")),
        ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
        ("service-account-key-file", file("service-accounts.pem")),
        ("service-account-signing-key-file", file("service-accounts.pem")),
        // It refuses pods until a controller that is not here has made their ServiceAccount.
        ("disable-admission-plugins", "ServiceAccount".to_owned()),
        ("endpoint-reconciler-type", "none".to_owned()),
        ("allow-privileged", "true".to_owned()),
        ("profiling", "false".to_owned()),
    ];
    pairs.map(|(name, value)| format!("--{name}={value}")).into()
}

/// Three addresses of loopback that nobody listened on a moment ago.
fn free_addresses() -> io::Result<[SocketAddr; 3]> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listeners = [listen()?, listen()?, listen()?];
    let [a, b, c] = &listeners;
    Ok([a.local_addr()?, b.local_addr()?, c.local_addr()?])
}

#[expect(clippy::disallowed_methods, reason = "it waits for another program")]
fn now() -> Instant {
    Instant::now()
}

/// Measured: 3 s on two cores; chosen with room for a machine under load.
const READY_WITHIN: Duration = Duration::from_secs(120);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);
/// Chosen: a screen.
const LAST_WORDS: usize = 20;
