//! A Kubernetes API on a host of the lab: etcd, kube-apiserver and, where it is wanted, a controller.
//!
//! A thread of its own, in the network namespace of that host, starts them and does what it is asked to; when it ends, they
//! end. The objects of kubelets are written once: what decides here who lives is the membership.

use std::fs;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow};
use garpike_election::NodeName;
use kube::Client;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::judged;
use crate::kube::{ApiServer, Audit, Installation, Server, Stack, apply, apply_status, define};
use crate::lab::Lab;
use crate::objects::{node, speaker_pod, speaker_pod_name};

/// Who gives addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Addresses {
    /// The shipped controller, which runs beside the API server.
    ByController,
    /// Whoever writes the objects.
    ByHand,
}

/// A running API server. Dropping it kills everything on its host.
pub(crate) struct ApiHost {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    opened: Opened,
}

/// What others need of it.
#[derive(Clone)]
struct Opened {
    client: Client,
    /// With the rights of a speaker.
    kubeconfig: PathBuf,
    audit: Audit,
}

struct Job(Pin<Box<dyn Future<Output = ()> + Send>>);

impl ApiHost {
    /// Plugs the host into the segment, starts everything and writes what a kubelet writes of each node and its speaker.
    pub(crate) fn start(lab: &mut Lab<'_>, addresses: Addresses) -> Result<Self> {
        let ip = lab.add_api_host()?;
        let directory = lab.scratch().to_owned();
        let (opened_in, opened) = blocking::sync_channel(1);
        let (jobs, asked) = mpsc::channel(JOBS);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = lab.on_api_host(move || {
            let serve = serve(ip, &directory, addresses, &opened_in, asked);
            if let Err(error) = runtime.block_on(serve) {
                // Nobody waits any more where everything was opened before.
                let _ = opened_in.send(Err(error));
            }
        })?;
        let opened = opened.recv().context("the thread of the API server is gone")??;
        let host = Self { jobs: Some(jobs), thread: Some(thread), opened };
        let mut objects = Vec::new();
        for name in lab.nodes() {
            let ip = IpAddr::V4(lab.host_inside(name)?.v4);
            objects.extend([node(name, ip), speaker_pod(NAMESPACE, name, ip)]);
        }
        host.write_with_status(objects)?;
        Ok(host)
    }

    /// Does something there that needs the API, and waits for it.
    pub(crate) fn run<T, F>(&self, job: impl FnOnce(Client) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (answer, answered) = blocking::sync_channel(1);
        let work = job(self.opened.client.clone());
        // Who does not wait for the answer has been interrupted.
        let job = Job(Box::pin(async move { drop(answer.send(work.await)) }));
        let jobs = self.jobs.as_ref().expect("only drop takes the sender");
        jobs.blocking_send(job).map_err(|_| anyhow!("the thread of the API server is gone"))?;
        answered.recv().context("the thread of the API server is gone")?
    }

    /// Writes objects, whatever there is.
    pub(crate) fn write(&self, objects: Vec<Value>) -> Result<()> {
        self.run(async move |client| {
            for object in &objects {
                apply(&client, object).await.with_context(|| format!("cannot write {object}"))?;
            }
            Ok(())
        })
    }

    /// Writes objects, and their statuses too.
    pub(crate) fn write_with_status(&self, objects: Vec<Value>) -> Result<()> {
        self.run(async move |client| {
            for object in &objects {
                apply(&client, object).await.with_context(|| format!("cannot write {object}"))?;
                apply_status(&client, object).await.with_context(|| format!("cannot write the status of {object}"))?;
            }
            Ok(())
        })
    }

    /// What was asked for.
    pub(crate) fn audit(&self) -> &Audit {
        &self.opened.audit
    }

    /// A kubeconfig file with the rights of a speaker.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.opened.kubeconfig
    }
}

impl Drop for ApiHost {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed by its own hook.
            let _ = thread.join();
        }
    }
}

/// The arguments of a speaker that takes its objects from the API, as the DaemonSet has them. There is no kube-proxy here,
/// so it makes the addresses local itself when it is not told otherwise.
pub(crate) fn speaker_arguments(lab: &Lab<'_>, node: &NodeName, kubeconfig: &Path) -> Result<Command> {
    let ip = lab.host_inside(node)?.v4.to_string();
    let mut command = Command::new(judged::program());
    command
        .args(["speaker", "--node-name", node.as_str(), "--namespace", NAMESPACE])
        .arg("--kubeconfig")
        .arg(kubeconfig);
    command.args(["--pod-name", &speaker_pod_name(node), "--ml-labels", "app=metallb,component=speaker"]);
    command.args(["--host", &ip, "--ml-bindaddr", &ip, "--metrics-auth", "none"]);
    command.arg("--state-dir").arg(lab.scratch().join(format!("state-{node}")));
    Ok(command)
}

/// Starts everything, says so, and does what it is asked to until nobody can ask any more.
async fn serve(
    ip: Ipv4Addr,
    directory: &Path,
    addresses: Addresses,
    opened: &blocking::SyncSender<Result<Opened>>,
    mut jobs: mpsc::Receiver<Job>,
) -> Result<()> {
    let program = judged::program().canonicalize().context("cannot find the program that is judged")?;
    let server = ApiServer::start_at(Stack::Dual, ip, directory).await?;
    define(&server).await.context("cannot define the custom resources")?;
    let installation = Installation::install(&server, &program, NAMESPACE, None).await?;
    // Speakers are started after the server is dead, too.
    let kubeconfig = directory.join("speaker.kubeconfig");
    let of_server = server.kubeconfig_of(NAMESPACE, "speaker", Server::Itself).await?;
    fs::copy(&of_server, &kubeconfig).with_context(|| format!("cannot write {}", kubeconfig.display()))?;
    let _controller = match addresses {
        Addresses::ByController => Some(installation.start("controller-0", &[]).await?),
        Addresses::ByHand => None,
    };
    let all = Opened { client: server.client(), kubeconfig, audit: server.audit() };
    opened.send(Ok(all)).map_err(|_| anyhow!("nobody waits for the API server"))?;
    while let Some(Job(job)) = jobs.recv().await {
        job.await;
    }
    Ok(())
}

/// Of pools, advertisements, controller and speakers.
pub(crate) const NAMESPACE: &str = "metallb-system";
/// One thread asks, and waits for the answer.
const JOBS: usize = 1;
