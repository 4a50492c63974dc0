//! Work of the lab that goes on beside a scenario until it is stopped: asynchronous, on a thread of its own.

use std::future::Future;
use std::io;
use std::thread::{self, JoinHandle};

use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

/// Running work, and what comes of it. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Background<T> {
    stop: CancellationToken,
    worker: Option<JoinHandle<io::Result<T>>>,
}

impl<T: Send + 'static> Background<T> {
    /// Starts a thread in the network namespace of this one; `work` ends soon after the token is cancelled.
    pub(super) fn start<F>(name: &str, work: impl FnOnce(CancellationToken) -> F + Send + 'static) -> io::Result<Self>
    where
        F: Future<Output = io::Result<T>>,
    {
        let stop = CancellationToken::new();
        let token = stop.clone();
        let run = move || Builder::new_current_thread().enable_all().build()?.block_on(work(token));
        let worker = thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { stop, worker: Some(worker) })
    }
}

impl<T> Background<T> {
    /// Ends the work and gives what came of it.
    pub(super) fn stop(mut self) -> io::Result<T> {
        self.stop.cancel();
        let worker = self.worker.take().expect("only stop and drop take the worker");
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}
