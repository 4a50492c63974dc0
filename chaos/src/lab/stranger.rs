//! A host that is no node and claims addresses which belong to others: by gratuitous ARP and unsolicited advertisements.
//!
//! It answers nobody: whoever asks is told by the owner alone.

use std::net::Ipv6Addr;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use garpike_announcer::wire::{
    ALL_NODES, Arp, ArpOperation, Bytes, Ethernet, Message, NaFlags, NeighborAdvertisement, multicast_mac,
};
use garpike_election::{MacAddr, ServiceIp};

use super::{AskError, Lab, STRANGER};

impl Lab<'_> {
    /// Lets a stranger claim each of `ips` at once and then every `interval`.
    ///
    /// # Errors
    ///
    /// When it has no socket for it.
    pub fn stranger(&self, ips: &[ServiceIp], interval: Duration) -> Result<Stranger, AskError> {
        let claims: Vec<Bytes> = ips.iter().map(|ip| claim(*ip).emit()).collect();
        let socket = self.fresh_socket()??;
        let (stop, stopped) = mpsc::sync_channel(0);
        let run = move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                // A claim that the kernel does not send is one that nobody hears.
                claims.iter().for_each(|claim| drop(socket.send(claim)));
            }
        };
        let worker = thread::Builder::new().name("stranger".to_owned()).spawn(run);
        Ok(Stranger { stop: Some(stop), worker: Some(worker.map_err(AskError::Socket)?) })
    }
}

/// A running stranger. Dropping it stops it.
#[derive(Debug)]
pub struct Stranger {
    stop: Option<SyncSender<()>>,
    worker: Option<JoinHandle<()>>,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

fn claim(ip: ServiceIp) -> Message {
    let everybody = |destination| Ethernet { destination, source: STRANGER };
    match (ip.v4(), ip.v6()) {
        (Some(ip), _) => Message::Arp(Arp {
            ethernet: everybody(MacAddr::BROADCAST),
            operation: ArpOperation::Request,
            sender_mac: STRANGER,
            sender_ip: ip,
            target_mac: MacAddr([0; 6]),
            target_ip: ip,
        }),
        (None, v6) => Message::NeighborAdvertisement(NeighborAdvertisement {
            ethernet: everybody(multicast_mac(ALL_NODES)),
            source_ip: LINK_LOCAL,
            destination_ip: ALL_NODES,
            target: v6.expect("an address is of one of two families"),
            target_mac: Some(STRANGER),
            flags: NaFlags { router: false, solicited: false, overrides: true },
        }),
    }
}

/// Of [`STRANGER`], RFC 4291 appendix A.
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x0077, 0x00ff, 0xfe00, 0x0103);
