//! One simulated host: a machine with its kernel and clocks, and the process of a speaker on it.
//!
//! The machine can be off, or paused as a whole; the speaker can be stopped or gone while the kernel lives. The process
//! wires the three cores as the speaker does.

mod process;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use garpike_election::{MacAddr, NodeName};

use super::network::GOSSIP_PORT;
use super::queue::{Parcel, Via};

pub use process::Gateways;
pub(super) use process::{Plan, Process, Release, gateway_mac, rack_of, wire_path};

/// A machine.
pub(super) struct Host {
    pub(super) name: NodeName,
    pub(super) address: HostAddress,
    pub(super) power: Power,
    pub(super) speaker: Speaker,
    pub(super) process: Process,
    /// Which version the next process is.
    pub(super) release: Release,
    /// How many processes there have been.
    pub(super) life: u32,
    /// When this host wakes up next; another wake-up in the queue is stale.
    pub(super) wake_at: Option<Instant>,
    /// How late the next wake-up is.
    pub(super) lateness: Duration,
    /// How far its monotonic clock is behind, for it stood still in pauses.
    lag: Duration,
    /// How far its wall clock is wrong.
    wall_offset_millis: i64,
    /// What came while the speaker could not take it, with the time of its coming.
    pub(super) waiting: VecDeque<(Instant, Parcel)>,
}

/// Whether a machine runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Power {
    On,
    /// Dead.
    Off,
    /// A virtual machine that is not scheduled: kernel and speaker stand still.
    Paused,
}

/// Whether the speaker of a machine runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Speaker {
    Running,
    /// It exists, but does nothing: SIGSTOP, or a stall.
    Frozen,
    /// There is no process.
    Gone,
}

/// What the monotonic clock of a virtual machine does while it is paused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PausedClock {
    GoesOn,
    StandsStill,
}

/// Where a host is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct HostAddress {
    pub(super) index: usize,
    pub(super) rack: usize,
}

impl Host {
    /// A machine whose speaker has just started.
    pub(super) fn boot(plan: &Plan, name: NodeName, address: HostAddress, seed: [u8; 32], now: Instant) -> Self {
        Self {
            process: Process::start(plan, &name, address, Release::This, plan.generation(now, 0), seed, now),
            release: Release::This,
            name,
            address,
            power: Power::On,
            speaker: Speaker::Running,
            life: 1,
            wake_at: None,
            lateness: Duration::ZERO,
            lag: Duration::ZERO,
            wall_offset_millis: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Starts another process of the speaker, on the machine that is on or is switched on by this.
    pub(super) fn start_speaker(&mut self, plan: &Plan, seed: [u8; 32], now: Instant) {
        let generation = plan.generation(now, self.wall_offset_millis);
        let local = self.local(now);
        self.process = Process::start(plan, &self.name, self.address, self.release, generation, seed, local);
        self.power = Power::On;
        self.speaker = Speaker::Running;
        self.life += 1;
        self.waiting.clear();
    }

    /// Whether the speaker takes in what comes.
    pub(super) fn runs(&self) -> bool {
        self.power == Power::On && self.speaker == Speaker::Running
    }

    /// Whether the machine lives, be it paused.
    pub(super) fn lives(&self) -> bool {
        self.power != Power::Off
    }

    /// Switches the machine off.
    pub(super) fn die(&mut self) {
        self.power = Power::Off;
        self.speaker = Speaker::Gone;
        self.waiting.clear();
    }

    /// Ends the process at once.
    pub(super) fn kill_speaker(&mut self) {
        self.speaker = Speaker::Gone;
        self.waiting.clear();
    }

    /// Goes on after a pause that began at `since`.
    pub(super) fn resume(&mut self, since: Instant, clock: PausedClock, now: Instant) {
        self.power = Power::On;
        if clock == PausedClock::StandsStill {
            self.lag += now.saturating_duration_since(since);
        }
    }

    /// Sets the wall clock to wrong by so much.
    pub(super) fn set_wall_clock(&mut self, offset_millis: i64) {
        self.wall_offset_millis = offset_millis;
    }

    /// The host's own monotonic time.
    pub(super) fn local(&self, now: Instant) -> Instant {
        now.checked_sub(self.lag).unwrap_or(now)
    }

    /// When the speaker has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.process.poll_timeout().map(|at| at + self.lag)
    }

    /// Lets the speaker do what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let local = self.local(now);
        self.process.handle_timeout(local);
        self.end_if_gone();
    }

    /// Whether its kernel answers for a speaker that is gone.
    pub(super) fn refuses(&self) -> bool {
        self.power == Power::On && self.speaker == Speaker::Gone
    }

    /// Hands what has come to the speaker, or to the queue of its socket.
    pub(super) fn handle_parcel(&mut self, parcel: Parcel, now: Instant) {
        let room = match (self.power, self.speaker) {
            (Power::Off, _) | (_, Speaker::Gone) => return,
            (Power::On, Speaker::Running) => return self.take(parcel, now),
            (Power::On, Speaker::Frozen) => FROZEN_QUEUE,
            (Power::Paused, Speaker::Running | Speaker::Frozen) => PAUSED_QUEUE,
        };
        if self.waiting.len() < room {
            self.waiting.push_back((now, parcel));
        }
    }

    /// Hands the speaker what has waited for it. Frames that are too old are not looked at.
    pub(super) fn catch_up(&mut self, now: Instant) {
        while self.runs()
            && let Some((since, parcel)) = self.waiting.pop_front()
        {
            let old = now.saturating_duration_since(since) > FRAMES_ARE_OLD;
            if !(old && matches!(parcel, Parcel::Frame(_))) {
                self.take(parcel, now);
            }
        }
    }

    fn take(&mut self, parcel: Parcel, now: Instant) {
        let local = self.local(now);
        match parcel {
            Parcel::Datagram { from, via: Via::Udp, bytes } => {
                self.process.handle_datagram(from.gossip().into(), &bytes, local);
            }
            Parcel::Datagram { from, via: Via::Wire, bytes } => {
                self.process.handle_datagram(wire_path(from.mac()), &bytes, local);
            }
            Parcel::Refused { by } => self.process.handle_refused(by.gossip(), local),
            Parcel::Frame(bytes) => self.process.handle_frame(&bytes, local),
            Parcel::HostAnswer { life, probe } if life == self.life => self.process.handle_host_answer(probe, local),
            Parcel::StationAnswer { life } if life == self.life => self.process.handle_station_answer(local),
            Parcel::HostAnswer { .. } | Parcel::StationAnswer { .. } => {}
        }
        self.end_if_gone();
    }

    fn end_if_gone(&mut self) {
        if self.speaker == Speaker::Running && self.process.has_left() {
            self.kill_speaker();
            self.process.changed = true;
        }
    }
}

impl HostAddress {
    /// Where its speaker gets datagrams.
    pub(super) fn gossip(self) -> SocketAddr {
        let [high, low] = self.number();
        let rack = u8::try_from(self.rack).expect("there are few racks");
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, FIRST_NET + rack, high, low)), GOSSIP_PORT)
    }

    /// Its Ethernet address.
    pub(super) fn mac(self) -> MacAddr {
        let [high, low] = self.number();
        let rack = u8::try_from(self.rack).expect("there are few racks");
        MacAddr([0x02, 0x77, 0, rack, high, low])
    }

    /// The host to which a datagram to `addr` goes, if there is one with that number.
    pub(super) fn index_of(addr: SocketAddr) -> Option<usize> {
        let IpAddr::V4(ip) = addr.ip() else { return None };
        let [10, _, high, low] = ip.octets() else { return None };
        usize::from(u16::from_be_bytes([high, low])).checked_sub(1)
    }

    /// The host to which a frame to `mac` goes, if there is one with that number.
    pub(super) fn index_of_mac(mac: MacAddr) -> Option<usize> {
        let MacAddr([0x02, 0x77, 0, _, high, low]) = mac else { return None };
        usize::from(u16::from_be_bytes([high, low])).checked_sub(1)
    }

    fn number(self) -> [u8; 2] {
        u16::try_from(self.index + 1).expect("there are fewer than 65535 hosts").to_be_bytes()
    }
}

/// The name of host `index`, from 0.
pub(super) fn name_of(index: usize) -> NodeName {
    format!("n{}", index + 1).parse().expect("is a node name")
}

/// The host that was given this name first.
pub(super) fn index_of_name(name: &NodeName) -> Option<usize> {
    name.as_str().strip_prefix('n')?.parse::<usize>().ok()?.checked_sub(1)
}

/// The networks of the racks are 10.77.0.0/16, 10.78.0.0/16, ...
const FIRST_NET: u8 = 77;
/// What a UDP socket holds at the kernel's default of 212 992 bytes, in datagrams of usual size.
const FROZEN_QUEUE: usize = 1000;
/// The default transmit queue that a hypervisor keeps for a virtual machine (virtio-net's ring).
const PAUSED_QUEUE: usize = 256;
/// A speaker that was held up drops the ARP and ND frames that are older than this.
const FRAMES_ARE_OLD: Duration = Duration::from_millis(100);
