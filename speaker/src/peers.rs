//! Who else runs a speaker, by the pods of the cluster.
//!
//! As MetalLB does, pods are listed and not watched: its roles allow no more. A list that cannot be had changes nothing:
//! the peers of the last one stay.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use garpike_election::NodeName;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::rights::{Right, Rights};

/// The speakers of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peers {
    /// The pod of this speaker, if it is one.
    pub(crate) own: Option<OwnPod>,
    /// The addresses of the hosts of the others.
    pub(crate) others: BTreeSet<IpAddr>,
    /// The other nodes on which a pod with another image is ready: of another version, or of MetalLB.
    pub(crate) unlike: BTreeSet<NodeName>,
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
}

/// Keeps `peers` up to date until `stop`.
pub(crate) async fn follow(
    client: Client,
    question: Question,
    peers: watch::Sender<Option<Peers>>,
    saved: Option<SavedPeers>,
    rights: Rights,
    stop: CancellationToken,
) {
    let pods: Api<Pod> = Api::namespaced(client, &question.namespace);
    // From the API server's memory, which is new enough and costs etcd nothing.
    let list = ListParams { resource_version: Some("0".to_owned()), ..ListParams::default().labels(&question.labels) };
    let mut told = false;
    loop {
        let listed = pods.list(&list).await;
        rights.note(Right { verb: "list", resource: "pods" }, &listed);
        let pause = match listed {
            Ok(found) => {
                told = false;
                let next = Peers::of(&found.items, &question);
                if let Some(saved) = &saved
                    && let Err(error) = saved.write(&next)
                {
                    warn!(%error, "the addresses of the speakers cannot be kept for the next start");
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

/// The addresses of the others on disk, for a start while the API server is away.
#[derive(Debug)]
pub(crate) struct SavedPeers {
    file: PathBuf,
}

impl SavedPeers {
    /// Those in the directory of `--state-dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { file: dir.join("peers.json") }
    }

    /// Those of the last run; none where there is no file, or it is broken: they are only where to look.
    pub(crate) fn read(&self) -> Peers {
        let others = fs::read(&self.file).ok().and_then(|json| serde_json::from_slice(&json).ok());
        Peers { others: others.unwrap_or_default(), ..Peers::default() }
    }

    /// Keeps those of `peers`, unless they are what is there.
    fn write(&self, peers: &Peers) -> io::Result<()> {
        if self.file.exists() && self.read().others == peers.others {
            return Ok(());
        }
        if let Some(dir) = self.file.parent() {
            fs::create_dir_all(dir)?;
        }
        let temporary = self.file.with_extension("json.new");
        fs::write(&temporary, serde_json::to_vec(&peers.others)?)?;
        fs::rename(&temporary, &self.file)
    }
}

impl Peers {
    /// What `pods` say.
    fn of(pods: &[Pod], question: &Question) -> Self {
        let mut peers = Self::default();
        let is_own = |pod: &Pod| match &question.pod {
            Some(name) => pod.metadata.name.as_ref() == Some(name),
            None => node(pod) == Some(question.node.as_str()),
        };
        let own_images: Option<Vec<&str>> = pods.iter().find(|pod| is_own(pod)).map(images);
        for pod in pods {
            let node = node(pod);
            if is_own(pod) {
                let name = pod.metadata.name.clone().unwrap_or_default();
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                peers.own = Some(OwnPod { name, uid, ips: ips(pod) });
            } else if node != Some(question.node.as_str()) {
                // One of ours that ends, or the one before it, is at our own address.
                peers.others.extend(ips(pod));
                let is_unlike = is_ready(pod) && own_images.as_ref().is_some_and(|own| *own != images(pod));
                peers.unlike.extend(node.and_then(|node| NodeName::new(node).ok()).filter(|_| is_unlike));
            }
        }
        peers
    }

    /// The addresses of the others in the family of `own`, under which they gossip with it.
    pub(crate) fn reachable_from(&self, own: IpAddr) -> impl Iterator<Item = IpAddr> {
        self.others.iter().copied().filter(move |other| other.is_ipv4() == own.is_ipv4() && *other != own)
    }
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn images(pod: &Pod) -> Vec<&str> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.filter_map(|container| container.image.as_deref()).collect()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
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

/// Chosen: who is new announces itself to those it finds; this only finds who could not.
const LIST_EVERY: Duration = Duration::from_secs(30);
/// Chosen: an API server that restarts is away for seconds.
const RETRY_AFTER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peers_of_the_last_run_are_where_a_start_looks() {
        let dir = tempfile::tempdir().unwrap();
        let saved = SavedPeers::new(&dir.path().join("state"));
        assert_eq!(saved.read(), Peers::default(), "there is nothing yet");
        let peers = Peers::of(&[pod("speaker-b", "n2", &["10.0.0.2", "fd00::2"])], &question(Some("speaker-a")));

        saved.write(&peers).unwrap();

        assert_eq!(saved.read(), peers);
        fs::write(&saved.file, "[\"10.0.0.2\", 7").unwrap();
        assert_eq!(saved.read(), Peers::default(), "a broken file is none");
        saved.write(&peers).unwrap();
        assert_eq!(saved.read(), peers);
    }

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
    fn a_pod_without_addresses_of_its_own_is_reached_at_its_host() {
        let mut other = pod("speaker-b", "n2", &[]);
        other.status.get_or_insert_default().host_ip = Some("10.0.0.2".to_owned());

        let peers = Peers::of(&[other], &question(None));

        assert_eq!((peers.own, peers.others), (None, BTreeSet::from(["10.0.0.2".parse().unwrap()])));
    }

    #[test]
    fn a_ready_pod_with_another_image_is_unlike() {
        let with = |name: &str, node: &str, image: &str, ready: &str| {
            let mut pod = pod(name, node, &[]);
            let container = serde_json::json!({"name": "speaker", "image": image});
            pod.spec.get_or_insert_default().containers = vec![serde_json::from_value(container).unwrap()];
            let condition = serde_json::json!([{"type": "Ready", "status": ready}]);
            pod.status.get_or_insert_default().conditions = serde_json::from_value(condition).unwrap();
            pod
        };
        let mut pods = vec![
            with("speaker-a", "n1", "garpike", "False"),
            with("speaker-old", "n1", "metallb", "True"),
            with("speaker-b", "n2", "garpike", "True"),
            with("speaker-c", "n3", "metallb", "True"),
            with("speaker-d", "n4", "metallb", "False"),
        ];

        assert_eq!(Peers::of(&pods, &question(Some("speaker-a"))).unlike, BTreeSet::from(["n3".parse().unwrap()]));
        pods.remove(0);
        assert_eq!(
            Peers::of(&pods, &question(Some("speaker-a"))).unlike,
            BTreeSet::new(),
            "of the own one nothing is known"
        );
    }

    fn question(pod: Option<&str>) -> Question {
        Question {
            namespace: "metallb-system".to_owned(),
            labels: "component=speaker".to_owned(),
            node: "n1".parse().unwrap(),
            pod: pod.map(str::to_owned),
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
