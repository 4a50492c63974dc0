//! A network namespace: one OS thread that made it by unshare(2) and then runs what it is sent.
//!
//! A thread is in one network namespace at a time, and a socket or process belongs to the namespace of the thread
//! that made it. So whoever needs either sends a closure here, and may use the socket from any thread afterwards.
//! Closures must be short: they run one after the other.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::Handle;
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};

/// A network namespace and the thread that serves it. Both end when it is dropped.
pub(super) struct Namespace {
    name: String,
    jobs: Option<SyncSender<Job>>,
    file: File,
    worker: Option<JoinHandle<()>>,
}

impl Namespace {
    /// Makes a namespace; `name` appears in errors and as the thread's name.
    pub(super) fn new(name: &str) -> Result<Self, NamespaceError> {
        let outside = File::open(OWN).and_then(|file| file.metadata());
        let outside = outside.map_err(|source| NamespaceError::io(name, source))?.ino();
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        let (ready, opened) = mpsc::sync_channel(1);
        let serve = {
            let name = name.to_owned();
            move || match Inside::new(&name, outside) {
                Ok((inside, file)) => {
                    let _ = ready.send(Ok(file));
                    inside.serve(&queue);
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        };
        let worker = thread::Builder::new().name(format!("netns-{name}")).spawn(serve);
        let worker = worker.map_err(|source| NamespaceError::io(name, source))?;
        let file = opened.recv().map_err(|_| NamespaceError::ended(name))??;
        Ok(Self { name: name.to_owned(), jobs: Some(jobs), file, worker: Some(worker) })
    }

    /// Runs `job` on the namespace's thread and waits for its result.
    pub(super) fn run<T, F>(&self, job: F) -> Result<T, NamespaceError>
    where
        F: FnOnce(&Inside) -> T + Send + 'static,
        T: Send + 'static,
    {
        let (answer, answered) = mpsc::sync_channel(1);
        let job = Job(Box::new(move |inside| drop(answer.send(job(inside)))));
        let jobs = self.jobs.as_ref().expect("the queue is taken only when this is dropped");
        jobs.send(job).map_err(|_| NamespaceError::ended(&self.name))?;
        answered.recv().map_err(|_| NamespaceError::ended(&self.name))
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl AsFd for Namespace {
    /// The namespace as the kernel knows it, for moving an interface into it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Namespace").field(&self.name).finish()
    }
}

/// What a job may use: the namespace's netlink connection and the runtime that drives it.
pub(super) struct Inside {
    runtime: Runtime,
    netlink: Handle,
}

impl Inside {
    /// Runs a future to its end; `request` gets the netlink connection of this namespace.
    pub(super) fn netlink<F: Future>(&self, request: impl FnOnce(Handle) -> F) -> F::Output {
        self.runtime.block_on(request(self.netlink.clone()))
    }

    fn new(name: &str, outside: u64) -> Result<(Self, File), NamespaceError> {
        let io = |source| NamespaceError::io(name, source);
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| NamespaceError::Unshare { name: name.to_owned(), errno })?;
        let file = File::open(OWN).map_err(io)?;
        if file.metadata().map_err(io)?.ino() == outside {
            return Err(NamespaceError::NotLeft { name: name.to_owned() });
        }
        let runtime = Builder::new_current_thread().enable_all().build().map_err(io)?;
        let netlink = {
            let _context = runtime.enter();
            let (connection, netlink, _messages) = rtnetlink::new_connection().map_err(io)?;
            // It ends with the runtime, which ends with this thread.
            drop(runtime.spawn(connection));
            netlink
        };
        Ok((Self { runtime, netlink }, file))
    }

    fn serve(&self, queue: &Receiver<Job>) {
        while let Ok(Job(job)) = queue.recv() {
            job(self);
        }
    }
}

struct Job(Box<dyn FnOnce(&Inside) + Send>);

/// Why a namespace could not be made or used.
#[derive(Debug, Error)]
pub enum NamespaceError {
    /// unshare(2) failed.
    #[error("namespace {name}: unshare(CLONE_NEWNET) failed: {errno}")]
    Unshare {
        /// The namespace.
        name: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// unshare(2) did nothing.
    #[error("namespace {name}: still in the old network namespace after unshare(CLONE_NEWNET)")]
    NotLeft {
        /// The namespace.
        name: String,
    },
    /// Something that its thread needs could not be had.
    #[error("namespace {name}: {source}")]
    Io {
        /// The namespace.
        name: String,
        /// The cause.
        source: io::Error,
    },
    /// Its thread panicked.
    #[error("namespace {name}: its thread has ended")]
    Ended {
        /// The namespace.
        name: String,
    },
}

impl NamespaceError {
    fn io(name: &str, source: io::Error) -> Self {
        Self::Io { name: name.to_owned(), source }
    }

    fn ended(name: &str) -> Self {
        Self::Ended { name: name.to_owned() }
    }
}

/// The calling thread's network namespace, network_namespaces(7).
const OWN: &str = "/proc/thread-self/ns/net";
/// Callers wait for their answer, so there is one job per calling thread; chosen: more threads than a lab has.
const QUEUE: usize = 16;
