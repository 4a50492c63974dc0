//! The rights that the API server has refused to this speaker, apart from those to follow the objects that it owns by: without
//! them it works, and people see less of it.

use std::collections::BTreeSet;
use std::fmt;

use tokio::sync::watch;
use tracing::{info, warn};

/// A right as a role grants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Right {
    pub(crate) verb: &'static str,
    pub(crate) resource: &'static str,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.verb, self.resource)
    }
}

/// Those that are missing. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Rights {
    missing: watch::Sender<BTreeSet<Right>>,
}

impl Rights {
    /// All are there, as far as is known.
    pub(crate) fn new() -> Self {
        Self { missing: watch::Sender::new(BTreeSet::new()) }
    }

    /// Those that are missing, whenever that changes.
    pub(crate) fn missing(&self) -> watch::Receiver<BTreeSet<Right>> {
        self.missing.subscribe()
    }

    /// Notes what became of a request that needs a right. Tells the log of each that is missing once.
    pub(crate) fn note<T>(&self, right: Right, outcome: &Result<T, kube::Error>) {
        match outcome {
            Ok(_) => self.granted(right),
            Err(kube::Error::Api(status)) if status.code == 403 => self.refused(right, &status.message),
            // It does not tell.
            Err(_) => {}
        }
    }

    /// It was refused.
    pub(crate) fn refused(&self, right: Right, text: &str) {
        self.missing.send_if_modified(|missing| {
            let new = missing.insert(right);
            if new {
                let Right { verb, resource } = right;
                warn!(verb, resource, "a right is missing, grant it to the ServiceAccount of the speakers: {text}");
            }
            new
        });
    }

    /// It was used.
    pub(crate) fn granted(&self, right: Right) {
        self.missing.send_if_modified(|missing| {
            let was = missing.remove(&right);
            if was {
                let Right { verb, resource } = right;
                info!(verb, resource, "the right that was missing is there");
            }
            was
        });
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_right_is_missing_from_a_refusal_to_a_success() {
        let rights = Rights::new();
        let missing = rights.missing();
        let (list, create) = (Right { verb: "list", resource: "pods" }, Right { verb: "create", resource: "events" });

        rights.note(list, &failed(403));
        rights.note(list, &failed(403));
        rights.note(create, &failed(500));
        assert_eq!(missing.borrow().iter().map(ToString::to_string).collect::<Vec<_>>(), ["list on pods"]);

        rights.note(list, &failed(409));
        assert_eq!(missing.borrow().len(), 1, "another failure does not say that the right is there");
        rights.note(list, &Ok(()));
        assert!(missing.borrow().is_empty());
    }

    fn failed(code: u16) -> Result<(), kube::Error> {
        Err(kube::Error::Api(Box::new(Status::failure("no", "reason").with_code(code))))
    }
}
