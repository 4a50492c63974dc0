//! The dead-node hint: who marks the pods of a dead node not ready before Kubernetes does.
//!
//! Speakers find a dead host in a fraction of a second; Kubernetes takes most of a minute, in which kube-proxy goes on
//! sending connections there. [`testimony`] weighs what the observed speakers tell, [`guard`] has the limits, and
//! [`Hints`] goes from a verdict to the pods: it asks for what it needs to know and to have written, and does neither.
//! Invariants: a node is hinted at most once in each of its lives, never before more than half of all speakers hold the
//! verdict, never above the share.
//!
//! ```text
//!                two speakers, majority            lease, node, pods              all are marked
//! unconfirmed ───────────────────────────► looking ────────────────► marking ─────────────────────► done
//!      │                                    │  ▲                      │  │
//!      │                                    │  └──────── pausing ◄────┘  │ the node is back: forgotten
//!      └─────────────► refused ◄────────────┘          some failed
//!                                           └───► forecasting ───► done      only to see what it would do
//! ```

mod guard;
mod hints;
mod pod;
mod testimony;
#[cfg(test)]
mod tests;

pub(crate) use guard::Guard;
pub use guard::{InvalidShare, Share};
pub use hints::Mode;
pub(crate) use hints::{Event, Found, Hints, Marked, Request, Unseen};
pub(crate) use pod::{Metadata, PodOnNode, mark};
pub(crate) use testimony::Accounts;
