//! The end of a speaker that was asked to: others stand in before it falls quiet.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use garpike_election::{NodeState, Presence};
use garpike_membership::io as membership_io;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::tasks::{Ended, unexpected_end};
use super::{Speaker, presence};

impl Speaker {
    /// Lets others stand in, leaves, and ends the tasks. This node answers until the end.
    pub(super) async fn end(&mut self) -> Result<()> {
        info!("asked to end: the next nodes stand in");
        // What others know by now is not that this node restarts.
        while self.membership.events.try_recv().is_ok() {}
        let restarting = membership_io::Command::SetState(NodeState::Restarting);
        self.membership.commands.send(restarting).await.map_err(|_| anyhow!("the membership is gone"))?;
        if self.has_heirs() {
            self.wait_until_known().await?;
        }
        let (done, left) = oneshot::channel();
        self.membership
            .commands
            .send(membership_io::Command::Leave { done })
            .await
            .map_err(|_| anyhow!("the membership is gone"))?;
        if tokio::time::timeout(LONGEST_LEAVE, left).await.is_err() {
            warn!("not all members could be told that this node leaves");
        }
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            let Ended { task, result } = ended.context("a task panicked")?;
            result.with_context(|| format!("the task {task} failed"))?;
        }
        info!("ended");
        Ok(())
    }

    /// Whether another node can answer for something that this one owns.
    fn has_heirs(&self) -> bool {
        let view = self.pipeline.view();
        let owned = view.assignment.addresses.values().filter(|elected| elected.owner() == Some(&self.node));
        let mut others = owned.flat_map(|elected| &elected.ranked).filter(|node| **node != self.node);
        others.any(|node| presence(view, node) == Presence::Here)
    }

    /// Waits until every member knows that this node restarts, but not for long: one that does not answer must not hold
    /// up the others.
    async fn wait_until_known(&mut self) -> Result<()> {
        let mut patience = std::pin::pin!(tokio::time::sleep(LONGEST_TELLING));
        loop {
            tokio::select! {
                ended = self.tasks.join_next() => return Err(unexpected_end(ended)),
                () = &mut patience => {
                    warn!("not all members have acknowledged that this node restarts");
                    return Ok(());
                }
                event = self.membership.events.recv() => match event.context("the membership is gone")? {
                    garpike_membership::Event::FactsKnown => return Ok(()),
                    garpike_membership::Event::MembersChanged
                    | garpike_membership::Event::VerdictHeld
                    | garpike_membership::Event::Ready
                    | garpike_membership::Event::Healed { .. }
                    | garpike_membership::Event::DeclaredDead
                    | garpike_membership::Event::TakenForDead
                    | garpike_membership::Event::HostDied { .. }
                    | garpike_membership::Event::GraceOver { .. }
                    | garpike_membership::Event::NameConflict { .. } => {}
                },
            }
        }
    }
}

/// How long a speaker that ends waits for the acknowledgements of the members. Chosen: a quarter of the 2 s that MetalLB's
/// manifest grants between SIGTERM and SIGKILL.
const LONGEST_TELLING: Duration = Duration::from_millis(500);
/// A farewell is repeated for 250 ms.
const LONGEST_LEAVE: Duration = Duration::from_millis(400);
