//! One fuzz target per parser of bytes from outside, as plain functions.
//!
//! A target panics when something that must hold does not. `cargo test -p garpike-fuzz` runs each over its committed
//! corpus; `cargo xtask fuzz` builds them for libFuzzer.

mod frame;
mod gossip;
mod insider;
mod pair;
mod sealed;
mod state;
mod stream;
mod text;

pub use frame::{frame, wire_datagram};
pub use gossip::{datagram, message, secret};
pub use insider::gossip_plaintext;
pub use sealed::gossip_sealed;
pub use state::{facts, state};
pub use stream::stream;
pub use text::{address_range, configmap, manifests};

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is also the name of its corpus and of its libFuzzer binary.
    pub name: &'static str,
    /// Tries one input.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: [Target; 13] = [
    Target { name: "address_range", run: address_range },
    Target { name: "configmap", run: configmap },
    Target { name: "datagram", run: datagram },
    Target { name: "facts", run: facts },
    Target { name: "frame", run: frame },
    Target { name: "gossip_plaintext", run: gossip_plaintext },
    Target { name: "gossip_sealed", run: gossip_sealed },
    Target { name: "manifests", run: manifests },
    Target { name: "message", run: message },
    Target { name: "secret", run: secret },
    Target { name: "state", run: state },
    Target { name: "stream", run: stream },
    Target { name: "wire_datagram", run: wire_datagram },
];

/// The moment at which a target's time begins. What a target does depends on its input alone: its cores see only times
/// after this one, and none reads the clock.
#[expect(clippy::disallowed_methods, reason = "virtual time needs some instant to start from")]
fn start() -> std::time::Instant {
    std::time::Instant::now()
}
