//! Who else runs a speaker, by the pods of the cluster.
//!
//! As MetalLB does, pods are listed and not watched: its roles allow no more. A list that cannot be had changes nothing:
//! the peers of the last one stay. Those of an earlier run are read from `--state-dir` when the API server does not answer at
//! the start: a speaker that knew nobody would take itself for the only one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;
use std::{fs, io};

use garpike_election::NodeName;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// The speakers of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peers {
    /// The pod of this speaker, if it is one.
    pub(crate) own: Option<OwnPod>,
    /// The addresses of the hosts of the others.
    pub(crate) others: BTreeSet<IpAddr>,
}

/// The pod of this speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnPod {
    pub(crate) name: String,
    pub(crate) uid: String,
    /// The addresses of its host.
    pub(crate) ips: Vec<IpAddr>,
}

/// What the list is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) namespace: String,
    /// The selector of the speakers' pods (`--ml-labels`).
    pub(crate) labels: String,
    pub(crate) node: NodeName,
    /// `--pod-name`.
    pub(crate) pod: Option<String>,
    /// `--state-dir`.
    pub(crate) state_dir: Option<PathBuf>,
}

/// Keeps `peers` up to date until `stop`.
pub(crate) async fn follow(
    client: Client,
    question: Question,
    peers: watch::Sender<Option<Peers>>,
    stop: CancellationToken,
) {
    let pods: Api<Pod> = Api::namespaced(client, &question.namespace);
    // From the API server's memory, which is new enough and costs etcd nothing.
    let list = ListParams { resource_version: Some("0".to_owned()), ..ListParams::default().labels(&question.labels) };
    let file = question.state_dir.as_deref().map(|dir| dir.join(FILE));
    let mut remembered = file.as_deref().and_then(recall);
    let mut told = false;
    loop {
        let mut asked = pin!(pods.list(&list));
        let first = match remembered.take() {
            None => None,
            Some(others) => {
                let first = timeout(REMEMBER_AFTER, &mut asked).await.ok();
                if !matches!(first, Some(Ok(_))) {
                    warn!(
                        others = others.len(),
                        "the Kubernetes API does not answer: meeting the speakers known before"
                    );
                    peers.send_replace(Some(Peers { own: None, others }));
                }
                first
            }
        };
        let answer = match first {
            Some(answer) => answer,
            None => asked.await,
        };
        let pause = match answer {
            Ok(found) => {
                told = false;
                let next = Peers::of(&found.items, &question);
                if let Some(file) = &file
                    && peers.borrow().as_ref() != Some(&next)
                    && let Err(error) = remember(file, &next.others)
                {
                    warn!(%error, "the speakers of the cluster cannot be kept for the next start");
                }
                peers.send_if_modified(|current| {
                    let changed = current.as_ref() != Some(&next);
                    if changed {
                        info!(others = next.others.len(), "speakers of the cluster");
                        *current = Some(next);
                    }
                    changed
                });
                LIST_EVERY
            }
            Err(error) if told => {
                debug!(%error, "the pods of the speakers cannot be listed");
                RETRY_AFTER
            }
            Err(error) => {
                told = true;
                let Question { namespace, labels, .. } = &question;
                warn!(%error, resource = "pods", verb = "list", namespace, labels, "the speakers' pods cannot be listed");
                RETRY_AFTER
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Peers {
    /// What `pods` say.
    fn of(pods: &[Pod], question: &Question) -> Self {
        let mut peers = Self::default();
        for pod in pods {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            let is_own = match &question.pod {
                Some(name) => pod.metadata.name.as_ref() == Some(name),
                None => node == Some(question.node.as_str()),
            };
            if is_own {
                let name = pod.metadata.name.clone().unwrap_or_default();
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                peers.own = Some(OwnPod { name, uid, ips: ips(pod) });
            } else if node != Some(question.node.as_str()) {
                // One of ours that ends, or the one before it, is at our own address.
                peers.others.extend(ips(pod));
            }
        }
        peers
    }

    /// The addresses of the others in the family of `own`, under which they gossip with it.
    pub(crate) fn reachable_from(&self, own: IpAddr) -> impl Iterator<Item = IpAddr> {
        self.others.iter().copied().filter(move |other| other.is_ipv4() == own.is_ipv4() && *other != own)
    }
}

/// Keeps the peers for the next start, an address a line.
fn remember(file: &Path, others: &BTreeSet<IpAddr>) -> io::Result<()> {
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    let temporary = file.with_extension("new");
    fs::write(&temporary, others.iter().map(|ip| format!("{ip}\n")).collect::<String>())?;
    fs::rename(&temporary, file)
}

/// The peers of an earlier run; `None`: there was none, or nobody else. Who is no member any more does not answer.
fn recall(file: &Path) -> Option<BTreeSet<IpAddr>> {
    let text = fs::read_to_string(file).ok()?;
    let others: BTreeSet<IpAddr> = text.lines().filter_map(|line| line.parse().ok()).collect();
    (!others.is_empty()).then_some(others)
}

/// The addresses of a pod; speakers have those of their host.
fn ips(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let all = status.pod_ips.iter().flatten().map(|ip| &ip.ip).chain(&status.pod_ip);
    let mut ips: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
    if ips.is_empty() {
        let host = status.host_ips.iter().flatten().map(|ip| &ip.ip).chain(&status.host_ip);
        ips.extend(host.filter_map(|ip| ip.parse::<IpAddr>().ok()));
    }
    ips.dedup();
    ips
}

/// Below `--state-dir`.
const FILE: &str = "peers";
/// Chosen: an API server that is there answers within it, and a start is not held up for long.
const REMEMBER_AFTER: Duration = Duration::from_millis(500);
/// Chosen: who is new announces itself to those it finds; this only finds who could not.
const LIST_EVERY: Duration = Duration::from_secs(30);
/// Chosen: an API server that restarts is away for seconds.
const RETRY_AFTER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_pods_are_peers_and_the_own_one_says_where_this_host_is() {
        let pods = [
            pod("speaker-a", "n1", &["10.0.0.1", "fd00::1"]),
            pod("speaker-b", "n2", &["10.0.0.2", "fd00::2"]),
            pod("speaker-c", "n3", &[]),
            pod("speaker-old", "n1", &["10.0.0.1"]),
            pod("speaker-d", "n4", &["not an address"]),
        ];

        let peers = Peers::of(&pods, &question(Some("speaker-a")));

        let own = peers.own.clone().unwrap();
        assert_eq!((own.name.as_str(), own.uid.as_str()), ("speaker-a", "uid-speaker-a"));
        assert_eq!(own.ips, ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
        let seen = |own: &str| peers.reachable_from(own.parse().unwrap()).map(|ip| ip.to_string()).collect::<Vec<_>>();
        assert_eq!(seen("10.0.0.1"), ["10.0.0.2"]);
        assert_eq!(seen("fd00::1"), ["fd00::2"]);
    }

    #[test]
    fn the_peers_of_an_earlier_run_are_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("state").join(FILE);
        assert_eq!(recall(&file), None);

        let others = BTreeSet::from(["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()]);
        remember(&file, &others).unwrap();

        assert_eq!(recall(&file), Some(others));
        remember(&file, &BTreeSet::new()).unwrap();
        assert_eq!(recall(&file), None);
    }

    #[test]
    fn a_pod_without_addresses_of_its_own_is_reached_at_its_host() {
        let mut other = pod("speaker-b", "n2", &[]);
        other.status.get_or_insert_default().host_ip = Some("10.0.0.2".to_owned());

        let peers = Peers::of(&[other], &question(None));

        assert_eq!((peers.own, peers.others), (None, BTreeSet::from(["10.0.0.2".parse().unwrap()])));
    }

    fn question(pod: Option<&str>) -> Question {
        Question {
            namespace: "metallb-system".to_owned(),
            labels: "component=speaker".to_owned(),
            node: "n1".parse().unwrap(),
            pod: pod.map(str::to_owned),
            state_dir: None,
        }
    }

    fn pod(name: &str, node: &str, ips: &[&str]) -> Pod {
        let ips: Vec<_> = ips.iter().map(|ip| serde_json::json!({"ip": ip})).collect();
        let json = serde_json::json!({
            "metadata": {"name": name, "uid": format!("uid-{name}")},
            "spec": {"nodeName": node, "containers": []},
            "status": {"podIPs": ips},
        });
        serde_json::from_value(json).unwrap()
    }
}
