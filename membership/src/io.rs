//! The shell around [`crate::Cluster`]: the sockets, the clock, the tasks, and the files of the keys.
//!
//! One task owns the cluster, the UDP socket and the probes of hosts ([`Node::run`]). Its owner talks to it through a
//! [`Handle`]: the latest [`Members`](garpike_election::Members) and [`crate::Status`] by `watch`, events and commands by
//! bounded channels. It owns the tasks of the TCP connections, which see what it publishes and tell it what they hear.
//! [`observe`] is for those who are no members.

mod host_probe;
mod key_cache;
mod key_rotation;
mod key_source;
mod listener;
mod node;
mod observer;
mod secret_file;
mod socket;
mod stream_client;
mod stream_faults;
mod stream_server;
mod talk;

pub use key_rotation::{RotateKeyError, Rotated, generate_secret, rotate_key};
pub use key_source::{KeySource, KeySourceError};
pub use node::{Command, Frame, Handle, Heard, Node};
pub use observer::{Observation, Observed, Observer, ObserverConfig, observe};
pub use secret_file::SecretFileError;
pub use socket::{BindError, GossipSocket, Transport};
pub use stream_client::reach;

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
