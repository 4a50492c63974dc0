//! Whether the other speakers take connections: a firewall that lets UDP pass and not TCP is noticed when states are to be
//! exchanged, which is late.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use garpike_election::{NodeName, Presence};
use garpike_membership::Status;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The members whose speakers run and do not take a connection. A refusal is an answer: no firewall swallowed it.
pub(crate) async fn unreachable(membership: &Status) -> BTreeSet<NodeName> {
    let here = membership.members.iter().filter(|member| member.presence == Presence::Here);
    let peers: Vec<(NodeName, SocketAddr)> = here.map(|member| (member.name.clone(), member.gossip)).collect();
    let mut unreachable = BTreeSet::new();
    for (name, gossip) in peers {
        if !answers(gossip).await && !answers(gossip).await {
            unreachable.insert(name);
        }
    }
    unreachable
}

async fn answers(gossip: SocketAddr) -> bool {
    match timeout(ANSWER_WITHIN, TcpStream::connect(gossip)).await {
        Ok(Ok(stream)) => {
            // Reset, and so forgotten by the other end: nothing is to be said.
            let _ = stream.set_zero_linger();
            true
        }
        Ok(Err(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        Err(_) => false,
    }
}

/// Chosen: the first repetition of a lost SYN comes after a second.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn whoever_takes_or_refuses_a_connection_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();

        assert!(answers(address).await);
        drop(listener);
        assert!(answers(address).await, "refused");
    }
}
