//! The shell of the dead-node hint: it listens to the speakers, asks the API server, and tells people.
//!
//! Each replica has one, without the Lease: the dead node may be the leader's. Nothing of the allocation waits for it.

mod requests;
mod speakers;

use std::convert::Infallible;
use std::pin::pin;
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use garpike_election::NodeName;
use garpike_kubernetes::{Recorder, Regarding, Severity};
use kube::Client;
use tokio::sync::watch;
use tokio::time::sleep_until;
use tracing::{info, warn};

use crate::dead_node::{Accounts, Event, Found, Hints, Marked, Mode, Request, Unseen};
use crate::metrics;

pub(crate) use speakers::Speakers;

/// What the hint works with.
pub(crate) struct DeadNodeHint {
    pub(crate) client: Client,
    pub(crate) speakers: Speakers,
    pub(crate) hints: Hints,
    pub(crate) mode: Mode,
    pub(crate) recorder: Recorder,
}

/// What came of a request.
enum Answer {
    Found(NodeName, Result<Found, Unseen>),
    Marked(NodeName, Marked),
}

impl DeadNodeHint {
    /// Works until it is dropped.
    pub(crate) async fn run(self) -> Infallible {
        let Self { client, speakers, mut hints, mode, recorder } = self;
        let accounts = watch::Sender::new(Accounts::new());
        let mut told = accounts.subscribe();
        let mut listen = pin!(speakers.follow(accounts));
        let mut under_way: FuturesUnordered<BoxFuture<'static, Answer>> = FuturesUnordered::new();
        metrics::observed_speakers(0);
        loop {
            let due = hints.poll_timeout();
            tokio::select! {
                never = &mut listen => match never {},
                Ok(()) = told.changed() => {
                    let accounts = told.borrow_and_update().clone();
                    metrics::observed_speakers(accounts.len());
                    hints.handle_accounts(accounts, now());
                }
                Some(answer) = under_way.next() => match answer {
                    Answer::Found(node, found) => hints.handle_found(&node, found, now()),
                    Answer::Marked(node, marked) => {
                        metrics::pod_marked(marked);
                        hints.handle_marked(&node, marked, now());
                    }
                },
                () = sleep_until(due.unwrap_or_else(now).into()), if due.is_some() => hints.handle_timeout(now()),
            }
            while under_way.len() < IN_FLIGHT
                && let Some(request) = hints.poll_request()
            {
                under_way.push(carry_out(client.clone(), request));
            }
            while let Some(event) = hints.poll_event() {
                tell(&event, mode, &recorder);
            }
        }
    }
}

fn carry_out(client: Client, request: Request) -> BoxFuture<'static, Answer> {
    Box::pin(async move {
        match request {
            Request::Look { node, mode } => {
                let found = requests::look(&client, &node, mode).await;
                Answer::Found(node, found)
            }
            Request::Mark { node, pod, message } => Answer::Marked(node, requests::mark(&client, &pod, &message).await),
        }
    })
}

/// Counts, logs, and writes an event on the Node where somebody should know.
fn tell(event: &Event, mode: Mode, recorder: &Recorder) {
    let on_node = |node: &NodeName, severity, reason, message: String| {
        // `kubectl describe node` looks for the name in the place of the uid, as the kubelet writes it.
        let name = node.as_str().to_owned();
        let regarding =
            Regarding { api_version: "v1", kind: "Node", namespace: String::new(), uid: name.clone(), name };
        recorder.tell(regarding, severity, reason, message);
    };
    match event {
        Event::Verdict { node } => {
            info!(%node, "a speaker takes the host of this node for dead");
            metrics::dead_node_verdict();
        }
        Event::Refused { node, guard } => {
            warn!(%node, guard = guard.as_str(), "no hint for this node");
            metrics::hint_refused(*guard);
        }
        Event::Trouble { node, text } => {
            warn!(%node, text, "the API server does not tell what is to be known of a dead node");
        }
        Event::Hinted { node, holders, known } => {
            info!(%node, holders, known, mode = word(mode), "the host of this node is dead");
            metrics::hinted(word(mode));
        }
        Event::Marked { node, pods, after, forbidden, failed } => {
            metrics::pods_marked(*after);
            let mut message = format!(
                "the host is dead by the verdict of the speakers: {pods} Ready pods were marked not ready within {} ms of its last sign",
                after.as_millis()
            );
            if *forbidden > 0 {
                message += &format!("; {forbidden} could not, the right to patch pods/status is missing");
            }
            if *failed > 0 {
                message += &format!("; {failed} could not, the API server did not take it");
            }
            if forbidden + failed > 0 {
                warn!(%node, pods, forbidden, failed, "pods of a dead node stay ready");
            }
            // Another replica may have been faster.
            if pods + forbidden + failed > 0 {
                on_node(node, Severity::Warning, "DeadNodeHint", message);
            }
        }
        Event::WouldHave { node, sooner } => {
            metrics::would_have_saved(*sooner);
            let message = format!(
                "--dead-node-hint=on would have taken the endpoints of this node away {:.1} s before Kubernetes noticed that it \
                 is not ready",
                sooner.as_secs_f64()
            );
            on_node(node, Severity::Normal, "DeadNodeHintDryRun", message);
        }
        Event::False { node } => {
            warn!(%node, "the node had lived all the time: its kubelet takes the marks back");
            metrics::false_hint(word(mode));
            on_node(
                node,
                Severity::Warning,
                "FalseDeadNodeHint",
                "the speakers had declared the host dead, and it lived; its kubelet takes marks back within seconds"
                    .to_owned(),
            );
        }
    }
}

fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Off => "off",
        Mode::DryRun => "dry_run",
        Mode::On => "on",
    }
}

#[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
fn now() -> Instant {
    Instant::now()
}

/// How many requests are under way at once. Chosen: as many as for statuses of Services.
const IN_FLIGHT: usize = 16;
