//! The Lease `garpike-controller`: looks at it, asks for it, renews it, gives it back.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::writes::REQUEST_WITHIN;
use crate::lease::{DURATION, Decision, HELD_FOR, Identity, LOOK_EACH, Predecessor, RENEW_EACH, Shown, decide};

/// The name of the Lease.
pub(crate) const NAME: &str = "garpike-controller";

/// Whether this process may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leadership {
    /// Nobody knows yet.
    Unknown,
    /// Somebody else may.
    Standby {
        /// Who.
        holder: String,
    },
    /// It may, from then and until then.
    Leading {
        /// Before that a write of the predecessor may still come.
        from: Instant,
        /// Moves on with each renewal.
        until: Instant,
    },
}

impl Leadership {
    /// Whether a write may begin.
    pub(crate) fn leads(&self, now: Instant) -> bool {
        match self {
            Self::Leading { from, until } => *from <= now && now < *until,
            Self::Unknown | Self::Standby { .. } => false,
        }
    }
}

/// Holds the lease whenever it can, until `give_back`.
pub(crate) async fn keep(
    api: Api<Lease>,
    me: Identity,
    leadership: watch::Sender<Leadership>,
    give_back: CancellationToken,
) {
    let mut keeper = Keeper { api, me, leadership, known: None, standing: Standing::Outdated, trouble: None };
    loop {
        let pause = tokio::select! {
            () = give_back.cancelled() => break,
            pause = keeper.step() => pause,
        };
        tokio::select! {
            () = give_back.cancelled() => break,
            () = sleep(pause) => {}
        }
    }
    keeper.give_back().await;
}

struct Keeper {
    api: Api<Lease>,
    me: Identity,
    leadership: watch::Sender<Leadership>,
    /// The lease as it was seen last, and since when; `None`: unknown.
    known: Option<(Lease, Instant)>,
    standing: Standing,
    /// What was told last, until a request succeeds.
    trouble: Option<String>,
}

/// Whether `known` can be written upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is what our own request made.
    Current,
    /// Somebody may have changed it.
    Outdated,
}

impl Keeper {
    /// One look or one request. Says how long to wait before the next.
    async fn step(&mut self) -> Duration {
        let looked = match self.standing {
            Standing::Current => Ok(()),
            Standing::Outdated => self.look().await,
        };
        let result = match looked {
            Ok(()) => self.act().await,
            Err(trouble) => Err(trouble),
        };
        self.report(result.err());
        self.step_down_when_over();
        match *self.leadership.borrow() {
            Leadership::Leading { .. } if self.standing == Standing::Outdated => RETRY_AFTER,
            Leadership::Leading { .. } => RENEW_EACH,
            Leadership::Unknown | Leadership::Standby { .. } => LOOK_EACH,
        }
    }

    async fn look(&mut self) -> Result<(), String> {
        let found = within(self.api.get_opt(NAME)).await.map_err(|failed| failed.text())?;
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        self.known = match (found, self.known.take()) {
            (Some(lease), Some((old, since))) if version(&old) == version(&lease) => Some((old, since)),
            (Some(lease), _) => Some((lease, now())),
            (None, _) => None,
        };
        Ok(())
    }

    async fn act(&mut self) -> Result<(), String> {
        let asked = now();
        let known = self.known.as_ref().map(|(lease, since)| (shown(lease), *since));
        let from = match decide(known.as_ref().map(|(shown, since)| (shown, *since)), &self.me, asked) {
            Decision::Renew => match *self.leadership.borrow() {
                Leadership::Leading { from, .. } => from,
                // A request of ours succeeded whose answer was lost or came too late.
                Leadership::Unknown | Leadership::Standby { .. } => asked + REQUEST_WITHIN,
            },
            Decision::Acquire(Predecessor::Done) => asked,
            Decision::Acquire(Predecessor::Silent) => asked + REQUEST_WITHIN,
            Decision::Wait(until) => {
                self.standing = Standing::Outdated;
                let holder = known.map(|(shown, _)| shown.holder).unwrap_or_default();
                self.set(Leadership::Standby { holder });
                let left = until.saturating_duration_since(asked);
                if left < LOOK_EACH {
                    sleep(left).await;
                }
                return Ok(());
            }
        };
        let wanted = self.wanted(&self.me.to_string());
        let answer = match &self.known {
            Some(_) => within(self.api.replace(NAME, &PostParams::default(), &wanted)).await,
            None => within(self.api.create(&PostParams::default(), &wanted)).await,
        };
        match answer {
            Ok(lease) => {
                self.known = Some((lease, asked));
                self.standing = Standing::Current;
                self.set(Leadership::Leading { from, until: asked + HELD_FOR });
                Ok(())
            }
            Err(failed) => {
                // Somebody else was faster, or nobody knows: the next step looks first. Until the end of what was granted
                // the lease is held all the same.
                self.standing = Standing::Outdated;
                match failed {
                    Failed::Raced => Ok(()),
                    Failed::Unanswered | Failed::Refused(_) => Err(failed.text()),
                }
            }
        }
    }

    /// Tells when the time is over that the last renewal gave.
    fn step_down_when_over(&mut self) {
        let over = matches!(*self.leadership.borrow(), Leadership::Leading { until, .. } if now() >= until);
        if over {
            warn!("the lease could not be renewed in time: standing by");
            self.set(Leadership::Unknown);
        }
    }

    fn set(&mut self, leadership: Leadership) {
        self.leadership.send_if_modified(|current| {
            let changed = *current != leadership;
            if changed {
                match (&*current, &leadership) {
                    (Leadership::Leading { .. }, Leadership::Leading { .. }) => {}
                    (_, Leadership::Leading { .. }) => info!("holding the lease"),
                    (_, Leadership::Standby { holder }) => info!(holder, "standing by"),
                    (_, Leadership::Unknown) => {}
                }
                *current = leadership;
            }
            changed
        });
    }

    fn wanted(&self, holder: &str) -> Lease {
        let known = self.known.as_ref().map(|(lease, _)| lease.clone());
        let mut lease = known.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
            ..Lease::default()
        });
        lease.metadata.managed_fields = None;
        let spec: &mut LeaseSpec = lease.spec.get_or_insert_default();
        let time = MicroTime(Timestamp::now());
        if spec.holder_identity.as_deref() != Some(holder) {
            spec.holder_identity = Some(holder.to_owned());
            spec.acquire_time = Some(time.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        }
        spec.renew_time = Some(time);
        spec.lease_duration_seconds = Some(i32::try_from(DURATION.as_secs()).unwrap_or(i32::MAX));
        lease
    }

    /// Lets somebody else take the lease at once. Only to be called with no write under way.
    async fn give_back(&mut self) {
        let leading = matches!(*self.leadership.borrow(), Leadership::Leading { .. });
        self.set(Leadership::Unknown);
        if !leading {
            return;
        }
        let wanted = self.wanted("");
        if let Err(failed) = within(self.api.replace(NAME, &PostParams::default(), &wanted)).await {
            info!(error = failed.text(), "the lease cannot be given back: it ends by itself");
        }
    }

    fn report(&mut self, trouble: Option<String>) {
        if let Some(trouble) = &trouble
            && self.trouble.as_ref() != Some(trouble)
        {
            warn!(error = trouble, "the Lease {NAME} cannot be held");
        }
        self.trouble = trouble;
    }
}

fn shown(lease: &Lease) -> Shown {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default();
    Shown {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(seconds),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

/// Why a request did not succeed.
enum Failed {
    Raced,
    Unanswered,
    Refused(String),
}

impl Failed {
    fn text(self) -> String {
        match self {
            Self::Raced => "somebody else has changed it".to_owned(),
            Self::Unanswered => "the API server does not answer".to_owned(),
            Self::Refused(text) => text,
        }
    }
}

async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Failed> {
    match timeout(REQUEST_WITHIN, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) if [NOT_FOUND, CONFLICT].contains(&status.code) => Err(Failed::Raced),
        Ok(Err(error)) => Err(Failed::Refused(error.to_string())),
        Err(_) => Err(Failed::Unanswered),
    }
}

#[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
fn now() -> Instant {
    Instant::now()
}

const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;
/// Chosen: five tries fit between a failed renewal and the end of the lease.
const RETRY_AFTER: Duration = Duration::from_millis(250);
