//! The order in which nodes are asked to own an address: MetalLB's, so that a migration moves nothing.

use sha2::{Digest, Sha256};

use crate::{NodeName, ServiceIp};

/// The score of `node` for `key`: SHA-256 of the ASCII text `<node>#<ip>`; the lowest score, compared as bytes,
/// comes first.
///
/// The text of the address is its canonical form (dotted quad, RFC 5952). This is a constant of the protocol, guarded
/// by golden vectors: every node must compute the same.
pub fn score(node: &NodeName, key: ServiceIp) -> [u8; 32] {
    Sha256::digest(format!("{node}#{key}")).into()
}

/// The numbers of the roster in their hash order for `key`.
pub(crate) fn order_of(roster: &[NodeName], key: ServiceIp) -> Vec<usize> {
    let mut scored: Vec<_> = roster.iter().enumerate().map(|(number, node)| (score(node, key), number)).collect();
    scored.sort_unstable();
    scored.into_iter().map(|(_, number)| number).collect()
}

/// The given nodes in their order for `key`, the first candidate first.
pub fn order<'a>(nodes: impl IntoIterator<Item = &'a NodeName>, key: ServiceIp) -> Vec<&'a NodeName> {
    let mut scored: Vec<_> = nodes.into_iter().map(|node| (score(node, key), node)).collect();
    scored.sort_unstable();
    scored.dedup();
    scored.into_iter().map(|(_, node)| node).collect()
}
