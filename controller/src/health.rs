//! What `/readyz` says of the controller.

use std::collections::BTreeMap;
use std::fmt;

use crate::registry::Kind;

/// How the controller is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) doing: Doing,
    /// The kinds that cannot be read, and why.
    pub(crate) troubles: BTreeMap<Kind, String>,
    /// How many pools and advertisements are wrong.
    pub(crate) problems: usize,
}

/// What the controller does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Doing {
    /// It asks the API server for the lease.
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
    /// It has the lease and reads what there is.
    Reading,
    /// It gives addresses.
    Serving,
}

impl Health {
    /// Whether a rollout may go on. A controller that waits for another one to end is ready: that one is not ended
    /// before.
    pub(crate) fn is_ready(&self) -> bool {
        match self.doing {
            Doing::Starting | Doing::Reading => false,
            Doing::StandingBy { .. } | Doing::HeldBack { .. } | Doing::Serving => true,
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.doing {
            Doing::Starting => writeln!(f, "starting: the Lease is not read yet")?,
            Doing::StandingBy { holder } => writeln!(f, "ok: standing by, {holder} holds the Lease")?,
            Doing::HeldBack { by } => {
                writeln!(f, "ok: writing nothing while a controller of MetalLB runs in {by}; remove its Deployment")?;
            }
            Doing::Reading => writeln!(f, "reading: not all Services and IPAddressPools are known yet")?,
            Doing::Serving => writeln!(f, "ok")?,
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
