//! The shell around [`crate::Cluster`]: the socket, the clock, the task, and the file of the secret.
//!
//! One task owns the cluster and the socket ([`Node::run`]). Its owner talks to it through a [`Handle`]: the latest
//! [`Members`](garpike_election::Members) and [`crate::Status`] by `watch`, events and commands by bounded channels.

mod node;
mod secret_file;
mod socket;

pub use node::{Command, Handle, Node};
pub use secret_file::SecretFileError;
pub use socket::{BindError, GossipSocket};

use std::time::{SystemTime, UNIX_EPOCH};

use rand::TryRng;
use rand::rngs::SysRng;

use crate::{Generation, ProcessId};

/// The identity of a process that starts at this moment: milliseconds since the epoch, and a random number.
///
/// # Panics
///
/// When the operating system has no random numbers.
#[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
pub fn new_process() -> (Generation, ProcessId) {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // A clock before 1970 gives 0: the others tell a node whose generation is behind.
    let generation = Generation(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX));
    let number = SysRng.try_next_u64().expect("the operating system gives random numbers");
    (generation, ProcessId(number.max(1)))
}

fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    SysRng.try_fill_bytes(&mut seed).expect("the operating system gives random numbers");
    seed
}
