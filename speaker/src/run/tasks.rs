//! The tasks of a speaker, each with the name by which its end is told.

use anyhow::{Result, anyhow};
use tokio::task::{JoinError, JoinSet};

/// How a task ended.
pub(super) struct Ended {
    pub(super) task: &'static str,
    pub(super) result: Result<()>,
}

/// Starts a task that cannot fail, only end.
pub(super) fn spawn(tasks: &mut JoinSet<Ended>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(async move {
        task.await;
        Ended { task: name, result: Ok(()) }
    });
}

/// What to say of a task that ended before it was asked to.
pub(super) fn unexpected_end(ended: Option<Result<Ended, JoinError>>) -> anyhow::Error {
    match ended {
        Some(Ok(Ended { task, result: Ok(()) })) => anyhow!("the task {task} ended unexpectedly"),
        Some(Ok(Ended { task, result: Err(error) })) => error.context(format!("the task {task} failed")),
        Some(Err(error)) => anyhow::Error::new(error).context("a task panicked"),
        None => anyhow!("there is no task left"),
    }
}
