//! What a speaker shows of itself, `/state.json`: that of this host, or one of the cluster through its API.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use garpike_election::{Member, Members, NodeName, Selection, ServiceIp, Spread};
use garpike_speaker::state::{MemberState, MoveState};
use garpike_speaker::{Decision, FindingState};
use serde::Deserialize;
use serde_json::Value;

use crate::cluster::Cluster;

/// Where the speaker is that is asked.
#[derive(clap::Args)]
pub(crate) struct Where {
    /// Ask the speaker that shows its state there [default: that of this host, if there is no kubeconfig]
    #[arg(long, value_name = "URL", conflicts_with = "kubeconfig")]
    state_url: Option<String>,
    /// Ask a speaker of this cluster [default: $KUBECONFIG, then ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The namespace of the speakers
    #[arg(long, env = "GARPIKE_NAMESPACE", value_name = "NAMESPACE", default_value = "metallb-system")]
    namespace: String,
}

/// The parts of a speaker's state that commands read.
#[derive(Deserialize)]
pub(crate) struct Seen {
    /// The node that speaks.
    pub(crate) node: NodeName,
    /// The living members.
    pub(crate) members: Vec<MemberState>,
    /// How owners are spread over the nodes; by the hash where an older speaker does not say.
    #[serde(default = "by_hash")]
    pub(crate) placement: Spread,
    /// Who owns each address.
    pub(crate) owners: BTreeMap<ServiceIp, Option<NodeName>>,
    /// Each address that some Service holds.
    pub(crate) addresses: BTreeMap<ServiceIp, AddressSeen>,
    /// The choices of owners that are in force.
    pub(crate) moves: Vec<MoveState>,
    /// What is wrong with what people wrote.
    pub(crate) problems: Vec<String>,
    /// What is wrong with the host of the speaker and its network.
    #[serde(default)]
    pub(crate) findings: Vec<FindingState>,
    /// The last changes of owners, the oldest first.
    pub(crate) decisions: Vec<Decision>,
}

/// A service IP.
#[derive(Deserialize)]
pub(crate) struct AddressSeen {
    /// The Services that hold it.
    pub(crate) services: Vec<String>,
    /// The owner first, then its heirs.
    pub(crate) candidates: Vec<NodeName>,
    /// Who answers in the owner's place.
    pub(crate) stand_in: Option<NodeName>,
    /// Why nobody owns it.
    pub(crate) unowned: Option<String>,
    /// What would give it an owner.
    pub(crate) mend: Option<String>,
}

fn by_hash() -> Spread {
    Spread::Hash
}

impl Where {
    /// What a speaker shows: the one of `--state-url`, else one of the cluster, else the one of this host.
    pub(crate) fn state(&self) -> Result<Value> {
        match (&self.state_url, Cluster::kubeconfig(self.kubeconfig.as_ref())) {
            (None, Some(_)) => self.in_cluster(async |cluster| cluster.state().await),
            (Some(_), _) | (None, None) => self.state_of_this_host(),
        }
    }

    /// What the speaker of this host shows, or the one of `--state-url`. When nobody listens the error is an
    /// [`std::io::Error`].
    pub(crate) fn state_of_this_host(&self) -> Result<Value> {
        let url = self.state_url.as_deref().unwrap_or(STATE_URL);
        fetch(url).map_err(|error| match error.downcast::<std::io::Error>() {
            Ok(error) => error.into(),
            Err(error) => error.context(format!("no state from {url}")),
        })
    }

    /// Does something with the API of the cluster.
    pub(crate) fn in_cluster<T>(&self, job: impl AsyncFnOnce(&Cluster) -> Result<T>) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("cannot start the runtime")?.block_on(async {
            let cluster = Cluster::connect(self.kubeconfig.as_ref(), self.namespace.clone()).await?;
            job(&cluster).await
        })
    }
}

impl Seen {
    /// Reads a state.
    pub(crate) fn parse(state: &Value) -> Result<Self> {
        Self::deserialize(state).context("what is shown is not the state of a speaker of this version")
    }

    /// Who lives, as the election wants it.
    pub(crate) fn members(&self) -> Result<Members> {
        let mut nodes = BTreeMap::new();
        for MemberState { name, state, presence, handicaps, interfaces, placement } in &self.members {
            let interfaces = match interfaces {
                None => Selection::All,
                Some(names) => Selection::Only(names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?),
            };
            let (presence, handicaps, spread) = (*presence, handicaps.clone(), *placement);
            nodes.insert(name.clone(), Member { presence, handicaps, spread, ..Member::new(*state, interfaces) });
        }
        Ok(Members { local: self.node.clone(), nodes })
    }
}

/// Where a speaker shows its state by default.
pub(crate) const STATE_URL: &str = "http://127.0.0.1:17472/state.json";

/// Reads a JSON document from a server in plain HTTP.
pub(crate) fn fetch(url: &str) -> Result<Value> {
    let rest = url.strip_prefix("http://").with_context(|| format!("\"{url}\" does not begin with http://"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let with_port = if host.parse::<std::net::SocketAddr>().is_ok() || host.rsplit_once(':').is_some_and(is_port) {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let address = with_port.to_socket_addrs()?.next().with_context(|| format!("\"{host}\" has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // Version 1.0: the answer ends with the connection.
    stream.write_all(format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer).context("the answer is no text")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split_whitespace().nth(1) != Some("200") {
        bail!("the answer is \"{status}\"");
    }
    serde_json::from_str(body).context("the answer is no JSON")
}

fn is_port((host, port): (&str, &str)) -> bool {
    port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']'))
}

/// Chosen: the speaker is on the same host, or a port-forward away.
const PATIENCE: Duration = Duration::from_secs(5);

/// Chosen: far above the state of a thousand nodes with ten thousand addresses.
const ANSWER_MAX: u64 = 64 * 1024 * 1024;
