//! What is on its way: from the cores to the network, and from the network to the cores.

use std::rc::Rc;
use std::time::{Duration, Instant};

use garpike_membership::{Path, Request};

use super::World;
use crate::sim::client::PROBE_INTERVAL;
use crate::sim::host::{Gateways, HostAddress, Power, rack_of};
use crate::sim::network::{Carried, Station, Traffic};
use crate::sim::queue::{Event, Parcel, Via};

/// What all hosts have sent.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::sim) struct Sent {
    /// Datagrams, frames, and segments of TCP.
    pub(in crate::sim) packets: u64,
    /// With the headers of IP and UDP or TCP, without those of Ethernet.
    pub(in crate::sim) bytes: u64,
}

/// A datagram as an eavesdropper has it.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Recorded {
    pub(in crate::sim) from: HostAddress,
    pub(in crate::sim) to: usize,
    pub(in crate::sim) bytes: Vec<u8>,
}

impl Sent {
    fn count(&mut self, packets: u64, bytes: usize) {
        self.packets += packets;
        self.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
    }
}

impl World {
    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Wake { host } => self.wake(host),
            Event::Arrival { host, parcel } => self.arrive(host, *parcel),
            Event::AtGateway { rack, frame } => {
                self.client.handle_frame(rack, &frame);
                self.changed = true;
            }
            Event::Syn { from, to, port, life, probe } => {
                // The kernel answers whether or not a speaker listens: accepted or refused.
                if self.hosts.get(to).is_some_and(|host| host.power == Power::On) {
                    let way = self.network.carry(to, from, Traffic::Tcp(port), self.clock.now);
                    self.deliver(from, way.first, Parcel::HostAnswer { life, probe });
                }
            }
            Event::Exchange { from, to } => self.exchange(from, to),
            Event::Reach { from, to } => self.reach(from, to),
            Event::Probe => self.probe(),
        }
    }

    fn wake(&mut self, index: usize) {
        let now = self.clock.now;
        let Some(host) = self.hosts.get_mut(index) else { return };
        if host.wake_at.is_none_or(|wake_at| wake_at > now) {
            return;
        }
        host.wake_at = None;
        if !host.runs() {
            return;
        }
        if host.poll_timeout().is_some_and(|due| due <= now) {
            host.handle_timeout(now);
            host.lateness = self.network.lateness(LATEST);
        }
        self.collect(index);
    }

    fn arrive(&mut self, index: usize, parcel: Parcel) {
        let now = self.clock.now;
        let Some(host) = self.hosts.get_mut(index) else { return };
        if let (Some(heard), Parcel::Datagram { from, .. }) = (&mut self.last_heard, &parcel)
            && heard.of == from.index
            && let Some(at) = heard.by.get_mut(index)
        {
            *at = Some(now);
        }
        if let Parcel::Datagram { from, via: Via::Udp, .. } = &parcel
            && host.refuses()
        {
            let (to, by) = (from.index, host.address);
            let way = self.network.carry(index, to, Traffic::Icmp, now);
            return self.deliver(to, way.first, Parcel::Refused { by });
        }
        host.handle_parcel(parcel, now);
        if host.runs() {
            self.collect(index);
        }
    }

    fn probe(&mut self) {
        if !self.client.measures() {
            return;
        }
        let (hosts, network, capacity) = (&self.hosts, &self.network, self.capacity);
        self.client.probe(self.clock.now, |rack, mac| {
            HostAddress::index_of_mac(mac).is_some_and(|index| {
                let serves = hosts.get(index).is_some_and(|host| host.power == Power::On);
                let (gateway, wire) = (capacity + rack, Traffic::Wire);
                serves && network.is_open(gateway, index, wire) && network.is_open(index, gateway, wire)
            })
        });
        self.queue.push(self.clock.now + PROBE_INTERVAL, Event::Probe);
    }

    /// Puts what a host wants to send, and its next wake-up, into the queue.
    pub(super) fn collect(&mut self, index: usize) {
        let now = self.clock.now;
        loop {
            let Some(host) = self.hosts.get_mut(index) else { return };
            let Some(transmit) = host.process.poll_transmit() else { break };
            match transmit.to {
                Path::Udp(to) => self.send_datagram(index, HostAddress::index_of(to), Via::Udp, transmit.payload),
                Path::Wire(_, mac) => {
                    self.send_datagram(index, HostAddress::index_of_mac(mac), Via::Wire, transmit.payload);
                }
            }
        }
        while let Some(frame) = self.hosts.get_mut(index).and_then(|host| host.process.poll_frame()) {
            self.flood(index, &frame);
        }
        while let Some(request) = self.hosts.get_mut(index).and_then(|host| host.process.poll_request()) {
            self.carry_out(index, request);
        }
        let Some(host) = self.hosts.get_mut(index) else { return };
        if let Some(due) = host.poll_timeout().filter(|_| host.runs()) {
            let at = due.max(now) + host.lateness;
            // A wake-up that comes too early is harmless, and cheaper than one for every new deadline.
            if host.wake_at.is_none_or(|wake_at| at < wake_at) {
                host.wake_at = Some(at);
                self.queue.push(at, Event::Wake { host: index });
            }
        }
        if std::mem::take(&mut host.process.changed) {
            let ended = !host.runs();
            self.look_at(index);
            if ended {
                self.judge.reality_changed(&self.hosts);
            }
        }
    }

    pub(super) fn send_datagram(&mut self, from: usize, to: Option<usize>, via: Via, bytes: Vec<u8>) {
        let (traffic, header) = match via {
            Via::Udp => (Traffic::Gossip, IP_AND_UDP),
            Via::Wire => (Traffic::Wire, LENGTH_FIELD),
        };
        self.sent.count(1, bytes.len() + header);
        let Some(to) = to.filter(|to| *to < self.hosts.len()) else { return };
        let from_address = self.address(from);
        if let Some(recorded) = self.recorded.as_mut().filter(|recorded| recorded.len() < RECORDED_MAX) {
            recorded.push(Recorded { from: from_address, to, bytes: bytes.clone() });
        }
        let Carried { first, again } = self.network.carry(from, to, traffic, self.clock.now);
        if again.is_some() {
            self.deliver(to, again, Parcel::Datagram { from: from_address, via, bytes: bytes.clone() });
        }
        self.deliver(to, first, Parcel::Datagram { from: from_address, via, bytes });
    }

    /// A datagram that the host at `from` did not send, or not now.
    pub(in crate::sim) fn forge(&mut self, forged: Recorded) {
        let Recorded { from, to, bytes } = forged;
        let delay = Some(self.network.delay());
        self.deliver(to, delay, Parcel::Datagram { from, via: Via::Udp, bytes });
    }

    /// Sends a frame to every station on the wire.
    fn flood(&mut self, from: usize, frame: &[u8]) {
        self.sent.count(1, frame.len());
        self.judge.heard(from, frame, &self.hosts);
        let frame: Rc<[u8]> = Rc::from(frame);
        let now = self.clock.now;
        let rack = from % self.racks;
        for to in (rack..self.hosts.len()).step_by(self.racks).filter(|to| *to != from) {
            let way = self.network.carry(from, to, Traffic::Wire, now);
            self.deliver(to, way.first, Parcel::Frame(Rc::clone(&frame)));
        }
        if let Some(after) = self.network.carry(from, self.gateway(rack), Traffic::Wire, now).first {
            self.queue.push(now + after, Event::AtGateway { rack, frame });
        }
    }

    pub(super) fn carry_out(&mut self, from: usize, request: Request) {
        let now = self.clock.now;
        let Some(life) = self.hosts.get(from).map(|host| host.life) else { return };
        match request {
            Request::ProbeHost { probe, to } => {
                self.sent.count(1, IP_AND_TCP);
                let known = HostAddress::index_of(to).filter(|to| *to < self.hosts.len());
                let Some(to_host) = known.filter(|index| rack_of(to) == Some(index % self.racks)) else { return };
                let way = self.network.carry(from, to_host, Traffic::Tcp(to.port()), now);
                if let Some(after) = way.first {
                    let event = Event::Syn { from, to: to_host, port: to.port(), life, probe };
                    self.queue.push(now + after, event);
                }
            }
            Request::AskStations => {
                self.sent.count(1, ARP_LEN);
                if self.plan.gateways == Gateways::Absent {
                    return;
                }
                let gateway = self.gateway(from % self.racks);
                let asked = self.network.carry(from, gateway, Traffic::Wire, now).first;
                let answered = self.network.carry(gateway, from, Traffic::Wire, now).first;
                let after = asked.zip(answered).map(|(there, back)| there + back);
                self.deliver(from, after, Parcel::StationAnswer { life });
            }
            Request::Reach { with } => {
                let Some(to) = HostAddress::index_of(with).filter(|to| *to < self.hosts.len()) else { return };
                let round_trips: Duration = (0..REACH_WAYS).map(|_| self.network.delay()).sum();
                self.queue.push(now + round_trips, Event::Reach { from, to });
            }
            Request::Exchange { with } => {
                let Some(to) = HostAddress::index_of(with).filter(|to| *to < self.hosts.len()) else { return };
                let round_trips: Duration = (0..EXCHANGE_WAYS).map(|_| self.network.delay()).sum();
                self.queue.push(now + round_trips, Event::Exchange { from, to });
            }
        }
    }

    /// TCP sends again what is lost: an exchange succeeds when the way is open and both speakers run.
    fn exchange(&mut self, from: usize, to: usize) {
        self.sent.count(2, 2 * (IP_AND_TCP + DIGEST_LEN));
        let tcp = Traffic::Tcp(crate::sim::network::GOSSIP_PORT);
        let open = self.network.is_open(from, to, tcp) && self.network.is_open(to, from, tcp);
        let (Some(a), Some(b)) = (self.hosts.get(from), self.hosts.get(to)) else { return };
        if !open || !a.runs() || !b.runs() || a.process.cluster.digest() == b.process.cluster.digest() {
            return;
        }
        let states = [a.process.cluster.state(), b.process.cluster.state()];
        for ((receiver, sender), state) in [(to, from), (from, to)].into_iter().zip(states) {
            let segments = u64::try_from(state.len().div_ceil(SEGMENT)).unwrap_or(u64::MAX);
            self.sent.count(2 * segments, state.len());
            debug_assert_ne!(receiver, sender, "nobody exchanges with itself");
            if let Some(host) = self.hosts.get_mut(receiver) {
                let local = host.local(self.clock.now);
                host.process.handle_state(&state, local);
            }
            self.collect(receiver);
        }
    }

    fn reach(&mut self, from: usize, to: usize) {
        self.sent.count(2, 2 * (IP_AND_TCP + DIGEST_LEN));
        let tcp = Traffic::Tcp(crate::sim::network::GOSSIP_PORT);
        let open = self.network.is_open(from, to, tcp) && self.network.is_open(to, from, tcp);
        let Some(to_host) = self.hosts.get(to).filter(|host| open && host.runs()) else { return };
        let (name, gossip) = (to_host.name.clone(), to_host.address.gossip());
        if let Some(host) = self.hosts.get_mut(from).filter(|host| host.runs()) {
            let local = host.local(self.clock.now);
            host.process.cluster.handle_reached(gossip, &name, local);
        }
        self.collect(from);
    }

    fn deliver(&mut self, host: Station, after: Option<Duration>, parcel: Parcel) {
        if let Some(after) = after {
            let at: Instant = self.clock.now + after;
            self.queue.push(at, Event::Arrival { host, parcel: Box::new(parcel) });
        }
    }
}

/// Headers, in bytes.
const IP_AND_UDP: usize = 28;
const IP_AND_TCP: usize = 40;
const ARP_LEN: usize = 42;
const LENGTH_FIELD: usize = 2;
/// What two speakers say to find that they know the same.
const DIGEST_LEN: usize = 64;
/// The payload of a segment of TCP on Ethernet.
const SEGMENT: usize = 1448;
/// Two round trips: the connection, the hellos.
const REACH_WAYS: u32 = 4;
/// Three round trips: the connection, the challenge, the states.
const EXCHANGE_WAYS: u32 = 6;
/// How late a timer wakes a speaker at most: the resolution of tokio's timer.
const LATEST: Duration = Duration::from_millis(1);
/// Chosen: some minutes of a small cluster.
const RECORDED_MAX: usize = 20_000;
