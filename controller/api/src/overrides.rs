//! What operators ask for by hand: the drain of a node, and the choice of an owner for the addresses of a Service.
//!
//! Both are annotations, on the objects themselves or, without Kubernetes, in the file
//! [`crate::manifests::OVERRIDES_FILE`] beside them.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use garpike_election::{InvalidNodeName, NodeName};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// On a Node: `"true"` while its addresses are to be elsewhere.
pub const DRAIN_ANNOTATION: &str = "garpike.io/drain";

/// On a Service: a [`ChosenOwner`].
pub const OWNER_ANNOTATION: &str = "garpike.io/owner";

/// The node that is to own the addresses of a Service for a while, written `NODE@TIME`, the time as in RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChosenOwner {
    /// The node.
    pub node: NodeName,
    /// When the choice ends.
    pub until: SystemTime,
}

impl FromStr for ChosenOwner {
    type Err = InvalidChosenOwner;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (node, time) = text.split_once('@').ok_or(InvalidChosenOwner::NoTime)?;
        let until: Timestamp = time.parse().map_err(|_| InvalidChosenOwner::Time { text: time.to_owned() })?;
        Ok(Self { node: node.parse()?, until: until.into() })
    }
}

impl fmt::Display for ChosenOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.node, self.time())
    }
}

impl ChosenOwner {
    /// When the choice ends, as in RFC 3339.
    pub fn time(&self) -> String {
        // What no calendar holds was not read from a text, and never ends.
        Timestamp::try_from(self.until).unwrap_or(Timestamp::MAX).to_string()
    }
}

/// Why a text is no choice of an owner.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidChosenOwner {
    /// The choice has no end.
    #[error("does not say when the choice ends")]
    NoTime,
    /// What comes before the `@`.
    #[error("does not begin with the name of a node: {0}")]
    Node(#[from] InvalidNodeName),
    /// What comes after it.
    #[error("does not end with a time as RFC 3339 has it: \"{text}\"")]
    Time {
        /// The text.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_choice_is_a_node_and_a_time_of_any_zone() {
        let until = UNIX_EPOCH + Duration::from_secs(1_795_300_496);
        for text in ["n1@2026-11-21T22:34:56Z", "n1@2026-11-22T00:34:56+02:00"] {
            let chosen: ChosenOwner = text.parse().unwrap();
            assert_eq!((chosen.node.as_str(), chosen.until), ("n1", until), "{text}");
            assert_eq!(chosen.to_string(), "n1@2026-11-21T22:34:56Z");
        }
    }

    #[test]
    fn what_is_no_choice_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "does not say when the choice ends"),
            ("n1", "does not say when the choice ends"),
            ("@2026-11-21T22:34:56Z", "does not begin with the name of a node: node name is empty"),
            ("n1@", "does not end with a time as RFC 3339 has it: \"\""),
            ("n1@2026-11-21", "does not end with a time as RFC 3339 has it: \"2026-11-21\""),
            ("n1@2026-11-21T22:34:56", "does not end with a time as RFC 3339 has it: \"2026-11-21T22:34:56\""),
            ("n1@1h", "does not end with a time as RFC 3339 has it: \"1h\""),
        ] {
            assert_eq!(text.parse::<ChosenOwner>().unwrap_err().to_string(), reason, "{text}");
        }
    }
}
