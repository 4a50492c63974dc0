//! A client without a cache: asks who has an address every few milliseconds, by ARP or neighbour solicitation.
//!
//! It has a network card and a cable of its own, so that its questions tell the other client nothing. What it is told
//! stands in [`Asked`].

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use garpike_announcer::io::{EtherType, OpenSocketError, PacketSocket};
use garpike_announcer::wire::{
    self, Arp, ArpOperation, Bytes, Ethernet, Message, NeighborSolicitation, multicast_mac, solicited_node,
};
use garpike_announcer::{Filter, Prefixes};
use garpike_election::{MacAddr, ServiceIp};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use super::arrival::Arrivals;
use super::asked::Asked;
use super::tap::{ETH_P_ALL, FRAME_LEN};
use super::{Host, Lab, LabError, now};

impl Lab<'_> {
    /// Begins to ask for each of `ips` every `interval`.
    ///
    /// # Errors
    ///
    /// When the client without a cache has no sockets for it.
    pub fn ask(&self, ips: &[ServiceIp], interval: Duration) -> Result<Asker, AskError> {
        let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
        let open = move || Arrivals::new(Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?);
        let arrivals = self.fresh.run(move |_| open()).map_err(LabError::from)?.map_err(AskError::Socket)?;
        let questions = ips.iter().map(|ip| (ip.addr(), question(*ip))).collect();
        let asked = ips.iter().map(|ip| (ip.addr(), Asked::default())).collect();
        let thread = Thread { sender: self.fresh_socket()??, arrivals, questions, interval, asked };
        let (stop, stopped) = mpsc::sync_channel(1);
        let worker = thread::Builder::new().name("asker".to_owned()).spawn(move || thread.run(&stopped));
        Ok(Asker { stop: Some(stop), worker: Some(worker.map_err(AskError::Socket)?) })
    }

    /// Opens a socket that sends frames from the card of the client without a cache, and hears none.
    pub(super) fn fresh_socket(&self) -> Result<Result<PacketSocket, OpenSocketError>, LabError> {
        let (card, filter) = (self.fresh_card, Filter::new(&Prefixes::default()));
        Ok(self.fresh.run(move |_| PacketSocket::open(card, EtherType::Datagram, &filter.datagrams))?)
    }
}

/// A running asker. Dropping it stops it.
#[derive(Debug)]
pub struct Asker {
    stop: Option<SyncSender<()>>,
    worker: Option<JoinHandle<BTreeMap<IpAddr, Asked>>>,
}

impl Asker {
    /// Stops and returns what it was told of each address.
    pub fn stop(mut self) -> BTreeMap<IpAddr, Asked> {
        drop(self.stop.take());
        let worker = self.worker.take().expect("only stop and drop take the worker");
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

/// Why nobody can be asked.
#[derive(Debug, Error)]
pub enum AskError {
    /// The client without a cache is gone.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// It cannot send frames.
    #[error(transparent)]
    Open(#[from] OpenSocketError),
    /// It cannot hear frames.
    #[error("the client without a cache: {0}")]
    Socket(#[source] io::Error),
}

struct Thread {
    sender: PacketSocket,
    arrivals: Arrivals,
    questions: Vec<(IpAddr, Bytes)>,
    interval: Duration,
    asked: BTreeMap<IpAddr, Asked>,
}

impl Thread {
    fn run(mut self, stopped: &Receiver<()>) -> BTreeMap<IpAddr, Asked> {
        let mut due = now();
        while stopped.try_recv() == Err(TryRecvError::Empty) {
            let at = now();
            if at >= due {
                self.send();
                while due <= at {
                    due += self.interval;
                }
            }
            self.receive_until(due);
        }
        self.asked
    }

    fn send(&mut self) {
        for (ip, frame) in &self.questions {
            let Some(asked) = self.asked.get_mut(ip).filter(|asked| asked.questions.len() < MAX_QUESTIONS) else {
                continue;
            };
            asked.questions.push(now());
            // What the kernel does not send is a question that nobody answers.
            let _ = self.sender.send(frame);
        }
    }

    fn receive_until(&mut self, due: Instant) {
        let mut frame = [0; FRAME_LEN];
        while let Ok(Some((len, at))) = self.arrivals.next(&mut frame) {
            let told = frame.get(..len).and_then(|frame| wire::parse(frame).ok()).and_then(|message| answer(&message));
            if let Some((asked, mac)) = told.and_then(|(ip, mac)| Some((self.asked.get_mut(&ip)?, mac)))
                && asked.answers.len() < MAX_ANSWERS
            {
                asked.answers.push((at, mac));
            }
        }
        let left = due.saturating_duration_since(now());
        if !left.is_zero() && self.arrivals.wait(left).is_err() {
            thread::sleep(left);
        }
    }
}

/// What the message answers to this client, if it is an answer: where the address is.
fn answer(message: &Message) -> Option<(IpAddr, MacAddr)> {
    let is_answer = match message {
        Message::Arp(arp) => arp.operation == ArpOperation::Reply,
        Message::NeighborAdvertisement(advertisement) => advertisement.flags.solicited,
        Message::NeighborSolicitation(_) => false,
    };
    let claim = message.claim().filter(|_| is_answer && message.ethernet().destination == Host::FRESH.mac)?;
    Some((claim.ip, claim.mac))
}

/// The question as a host without an entry asks it: to all, or to the solicited-node group.
fn question(ip: ServiceIp) -> Bytes {
    let source = Host::FRESH.mac;
    let message = match (ip.v4(), ip.v6()) {
        (Some(target_ip), _) => Message::Arp(Arp {
            ethernet: Ethernet { destination: MacAddr::BROADCAST, source },
            operation: ArpOperation::Request,
            sender_mac: source,
            sender_ip: Host::FRESH.v4,
            target_mac: MacAddr([0; 6]),
            target_ip,
        }),
        (None, Some(target)) => {
            let group = solicited_node(target);
            Message::NeighborSolicitation(NeighborSolicitation {
                ethernet: Ethernet { destination: multicast_mac(group), source },
                source_ip: Host::FRESH.v6,
                destination_ip: group,
                target,
                source_mac: Some(source),
            })
        }
        (None, None) => unreachable!("an address is of one of two families"),
    };
    message.emit()
}

/// 16 MB for each address; at 1 ms a quarter of an hour.
const MAX_QUESTIONS: usize = 1_000_000;
/// Chosen: of three stations that all answer.
const MAX_ANSWERS: usize = 3 * MAX_QUESTIONS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_one_of_this_client_and_no_answer() {
        for ip in ["192.168.10.1", "fc00:f853:ccd:e799::2"] {
            let ip: IpAddr = ip.parse().unwrap();

            let message = wire::parse(&question(ServiceIp::new(ip).unwrap())).unwrap();

            assert_eq!((message.target(), message.ethernet().source), (ip, Host::FRESH.mac));
            assert_eq!(answer(&message), None);
        }
    }

    #[test]
    fn an_answer_tells_where_the_address_is_and_not_who_sent_it() {
        let (owner, stands_in) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
        let reply = Arp {
            ethernet: Ethernet { destination: Host::FRESH.mac, source: stands_in },
            operation: ArpOperation::Reply,
            sender_mac: owner,
            sender_ip: [192, 168, 10, 1].into(),
            target_mac: Host::FRESH.mac,
            target_ip: Host::FRESH.v4,
        };

        assert_eq!(answer(&Message::Arp(reply)), Some(([192, 168, 10, 1].into(), owner)));
        let to_another = Ethernet { destination: Host::CLIENT.mac, source: stands_in };
        assert_eq!(answer(&Message::Arp(Arp { ethernet: to_another, ..reply })), None);
    }
}
