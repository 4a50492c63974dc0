//! What `/readyz` says of the controller.

use std::collections::BTreeMap;
use std::fmt;

use crate::registry::Kind;

/// How the controller is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    doing: Doing,
    /// Once ready, always ready: what comes later is not mended by taking the webhook away too.
    ready: bool,
    webhook: Webhook,
    /// The kinds that cannot be read, and why.
    pub(crate) troubles: BTreeMap<Kind, String>,
    /// How many pools and advertisements are wrong.
    pub(crate) problems: usize,
}

/// Whether the API server can ask the webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Webhook {
    /// It can, or nothing is to be done for it: there is no webhook, or somebody else keeps its certificate.
    #[default]
    Settled,
    /// It does not know yet whom to trust, and this is why.
    Awaited(String),
}

/// What the controller does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Doing {
    /// It asks the API server for the Lease.
    #[default]
    Starting,
    /// Another controller holds the lease.
    StandingBy {
        /// Who.
        holder: String,
    },
    /// It waits for MetalLB's controller to end.
    HeldBack {
        /// The pod.
        by: String,
    },
    /// It does not take over from a MetalLB.
    Refusing {
        /// Why.
        why: String,
    },
    /// It serves the webhook alone.
    Checking,
    /// It has the lease and reads what there is.
    Reading,
    /// It gives addresses.
    Serving,
}

impl Health {
    /// Whether a rollout may go on.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready && self.webhook == Webhook::Settled
    }

    /// Notes how the webhook is. Says whether that is new.
    pub(crate) fn set_webhook(&mut self, webhook: Webhook) -> bool {
        let new = self.webhook != webhook;
        self.webhook = webhook;
        new
    }

    /// Notes what the controller does. Says whether that is new.
    pub(crate) fn set(&mut self, doing: Doing) -> bool {
        self.ready |= match doing {
            // As long as it is not ready, the roll-out ends no pod of MetalLB.
            Doing::Starting | Doing::Reading | Doing::Refusing { .. } => false,
            // A controller that waits for another one to end is ready: that one is not ended before.
            Doing::StandingBy { .. } | Doing::HeldBack { .. } | Doing::Checking | Doing::Serving => true,
        };
        let new = self.doing != doing;
        self.doing = doing;
        new
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.doing {
            Doing::Starting => writeln!(f, "writing nothing: the Lease is not known")?,
            Doing::StandingBy { holder } => writeln!(f, "ok: standing by, {holder} holds the Lease")?,
            Doing::HeldBack { by } => {
                writeln!(f, "ok: writing nothing while a controller of MetalLB runs in {by}; remove its Deployment")?;
            }
            Doing::Refusing { why } => writeln!(f, "not ready: {why}")?,
            Doing::Reading => writeln!(f, "reading: not all Services and IPAddressPools are known yet")?,
            Doing::Checking => writeln!(f, "ok: serving the webhook alone")?,
            Doing::Serving => writeln!(f, "ok")?,
        }
        match &self.webhook {
            Webhook::Settled => {}
            Webhook::Awaited(why) => writeln!(f, "not ready: the API server does not trust the webhook yet: {why}")?,
        }
        for (kind, trouble) in &self.troubles {
            writeln!(f, "{}: {trouble}", kind.as_str())?;
        }
        if self.problems > 0 {
            writeln!(f, "{} problems of IPAddressPools and L2Advertisements, see the log", self.problems)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_that_gives_addresses_is_ready_once_its_webhook_can_be_asked() {
        let mut health = Health::default();
        health.set_webhook(Webhook::Awaited("no Secret".to_owned()));
        health.set(Doing::Serving);
        assert!(!health.is_ready() && health.to_string().contains("no Secret"), "{health}");

        health.set_webhook(Webhook::Settled);

        assert!(health.is_ready());
        assert_eq!(health.to_string(), "ok\n");
    }
}
