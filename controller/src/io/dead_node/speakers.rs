//! Follows three speakers: who they are by their pods, and the key by their Secret.
//!
//! Both are asked for again from time to time. What is observed goes on while the API server is away, and is begun anew only
//! when the speakers have changed or all of them must have the new key.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, pending};
use garpike_election::NodeName;
use garpike_kubernetes::failure;
use garpike_membership::io::{Observation, ObserverConfig, new_process, observe};
use garpike_membership::{Account, Key, KeyId, Keyring, Sealing, SecretKey};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::dead_node::Accounts;

/// How the speakers are found.
#[derive(Clone)]
pub(crate) struct Speakers {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// The selector of their pods.
    pub(crate) labels: String,
    /// The port of their gossip.
    pub(crate) port: u16,
    /// The Secret by which they seal.
    pub(crate) secret: String,
    /// Their `--cluster-name`.
    pub(crate) cluster: String,
    /// By which name they see who observes.
    pub(crate) name: NodeName,
}

/// Whom to observe, and with what.
struct Target {
    peers: BTreeSet<SocketAddr>,
    keys: Vec<Key>,
}

impl Speakers {
    /// Tells what they tell, for ever.
    pub(crate) async fn follow(self, accounts: watch::Sender<Accounts>) -> Infallible {
        let mut observation: BoxFuture<'static, Infallible> = pending().boxed();
        let mut observed: Option<Target> = None;
        let mut keys_changed: Option<Instant> = None;
        let mut failures = 0_u32;
        let mut pause = Duration::ZERO;
        loop {
            let find = async {
                sleep(pause).await;
                self.find().await
            };
            let found = tokio::select! {
                never = &mut observation => match never {},
                found = find => found,
            };
            match found {
                Ok(target) => {
                    failures = 0;
                    pause = if target.peers.len() < ENOUGH { FIND_MORE } else { FIND_EACH };
                    let same_keys = observed.as_ref().is_some_and(|observed| ids(observed) == ids(&target));
                    keys_changed = if same_keys { None } else { keys_changed.or_else(|| Some(now())) };
                    let all_have_them =
                        keys_changed.is_some_and(|at| now().saturating_duration_since(at) >= KEYS_SPREAD);
                    let same_peers = observed.as_ref().is_some_and(|observed| observed.peers == target.peers);
                    if same_peers && !all_have_them {
                        continue;
                    }
                    info!(speakers = target.peers.len(), "listening to speakers, for nodes that die");
                    observation = self.observe(&target, accounts.clone());
                    (observed, keys_changed) = (Some(target), None);
                }
                Err(text) => {
                    pause = FIND_AGAIN;
                    failures = failures.saturating_add(1);
                    // At the very first start the Secret is only being made.
                    if failures == 2 {
                        warn!("{text}: nodes that die may be noticed late");
                    }
                }
            }
        }
    }

    async fn find(&self) -> Result<Target, String> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let which = ListParams { resource_version: Some("0".to_owned()), ..ListParams::default().labels(&self.labels) };
        let (secret, pods) = tokio::join!(secrets.get(&self.secret), pods.list(&which));
        let Self { namespace, secret: name, labels, .. } = self;
        let secret =
            secret.map_err(|error| format!("the Secret {namespace}/{name} cannot be read: {}", failure(&error)))?;
        let pods = pods
            .map_err(|error| format!("the pods \"{labels}\" in {namespace} cannot be listed: {}", failure(&error)))?;
        let keys = keys(&secret, &self.cluster);
        if keys.is_empty() {
            return Err(format!("the Secret {namespace}/{name} has no key"));
        }
        let peers = pods.items.iter().filter_map(ip).map(|ip| SocketAddr::new(ip, self.port)).collect();
        Ok(Target { peers, keys })
    }

    fn observe(&self, target: &Target, accounts: watch::Sender<Accounts>) -> BoxFuture<'static, Infallible> {
        let ring = Keyring::new(target.keys.clone(), Vec::new()).expect("a target has a key");
        let (_, process) = new_process();
        let mut peers: Vec<SocketAddr> = target.peers.iter().copied().collect();
        // Observers do not all keep to the same three.
        let turn = usize::try_from(process.0).unwrap_or_default().checked_rem(peers.len()).unwrap_or_default();
        peers.rotate_left(turn);
        let config = ObserverConfig { name: self.name.clone(), process, peers, sealing: Sealing::Sealed(ring) };
        async move {
            let (observer, mut observed) = observe(config);
            let mut run = pin!(observer.run(CancellationToken::new()));
            let mut read = Reader::default();
            loop {
                let seen = observed.borrow_and_update().speakers.clone();
                accounts.send_replace(read.all(&seen));
                tokio::select! {
                    () = &mut run => return pending().await,
                    Ok(()) = observed.changed() => {}
                }
            }
        }
        .boxed()
    }
}

/// Reads each state once.
#[derive(Default)]
struct Reader {
    read: BTreeMap<SocketAddr, (Instant, Option<Account>)>,
}

impl Reader {
    fn all(&mut self, speakers: &BTreeMap<SocketAddr, Observation>) -> Accounts {
        self.read.retain(|addr, _| speakers.contains_key(addr));
        let mut accounts = Accounts::new();
        for (addr, Observation { node, state, at }) in speakers {
            if self.read.get(addr).is_none_or(|(read, _)| read != at) {
                let account = Account::read(state);
                if account.is_err() {
                    debug!(%node, "what a speaker tells cannot be read: it may have another version");
                }
                self.read.insert(*addr, (*at, account.ok()));
            }
            if let Some((_, Some(account))) = self.read.get(addr) {
                accounts.insert(node.clone(), account.clone());
            }
        }
        accounts
    }
}

/// The keys of the Secret. Each entry is one.
fn keys(secret: &Secret, cluster: &str) -> Vec<Key> {
    let entries = secret.data.iter().flatten().filter_map(|(_, entry)| SecretKey::parse(&entry.0).ok());
    entries.take(Keyring::IN_FORCE_MAX).map(|secret| Key::derive(&secret, cluster)).collect()
}

fn ids(target: &Target) -> BTreeSet<KeyId> {
    target.keys.iter().map(Key::id).collect()
}

/// Where the speaker of a pod gossips.
fn ip(pod: &Pod) -> Option<IpAddr> {
    let status = pod.status.as_ref()?;
    status.pod_ip.as_ref().or(status.host_ip.as_ref())?.parse().ok()
}

#[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Chosen as for the speakers themselves: who observes three is in no hurry to hear of a fourth.
const FIND_EACH: Duration = Duration::from_secs(30);
/// Whoever can observe three does.
const ENOUGH: usize = 3;
/// Chosen: speakers that start together with the controller are there within seconds.
const FIND_MORE: Duration = Duration::from_secs(5);
/// Chosen: an API server that restarts is away for seconds, and the Secret is made at the first start.
const FIND_AGAIN: Duration = Duration::from_secs(2);
/// Kubelets bring a changed Secret to their pods within 90 s; the speakers keep the old key for 10 min more.
const KEYS_SPREAD: Duration = Duration::from_secs(120);
