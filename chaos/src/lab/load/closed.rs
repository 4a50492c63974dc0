//! The closed loop: so many requests are in flight, and each answer brings the next request.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use garpike_announcer::io::PacketSocket;
use garpike_announcer::wire;
use garpike_election::MacAddr;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{Audience, answered, request};
use crate::lab::now;

/// How to ask.
#[derive(Clone, Copy, Debug)]
pub struct ClosedLoop {
    /// Who is asked.
    pub station: MacAddr,
    /// How many requests are on their way at any time.
    pub in_flight: usize,
    /// For how long.
    pub lasts: Duration,
    /// Which addresses are asked for in which order.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Throughput {
    /// Answers.
    pub answers: u64,
    /// Requests without an answer, those in flight at the end left out.
    pub lost: u64,
    /// How long it took.
    pub took: Duration,
    /// The time from each request to its answer, in nanoseconds, in order of size.
    pub latencies_ns: Vec<u64>,
}

impl Throughput {
    /// Answers a second.
    pub fn per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let answers = self.answers as f64;
        answers / self.took.as_secs_f64()
    }
}

impl ClosedLoop {
    /// Asks for random ones of `ips`.
    ///
    /// # Errors
    ///
    /// When the socket fails.
    pub fn run(self, socket: &PacketSocket, ips: &[IpAddr]) -> io::Result<Throughput> {
        let begun = now();
        let state = State {
            frames: ips.iter().map(|ip| request(*ip, Audience::Station(self.station))).collect(),
            numbers: ips.iter().enumerate().map(|(number, ip)| (*ip, number)).collect(),
            sent: vec![VecDeque::new(); ips.len()],
            rng: StdRng::seed_from_u64(self.seed),
            in_flight: 0,
            seen: Throughput { answers: 0, lost: 0, took: Duration::ZERO, latencies_ns: Vec::new() },
        };
        state.run(socket, self.in_flight, begun + self.lasts)
    }
}

struct State {
    frames: Vec<wire::Bytes>,
    numbers: HashMap<IpAddr, usize>,
    /// When each address was asked for, as long as there was no answer. Answers for one address come in order.
    sent: Vec<VecDeque<Instant>>,
    rng: StdRng,
    in_flight: usize,
    seen: Throughput,
}

impl State {
    fn run(mut self, socket: &PacketSocket, in_flight: usize, end: Instant) -> io::Result<Throughput> {
        let begun = now();
        let mut buffers = [[0; FRAME_LEN]; BATCH];
        loop {
            let at = now();
            if at >= end {
                self.seen.took = at - begun;
                self.seen.latencies_ns.sort_unstable();
                return Ok(self.seen);
            }
            self.send(socket, in_flight - self.in_flight, at)?;
            let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, PollTimeout::from(SILENCE_MS)) {
                Ok(0) => self.give_up(),
                Ok(_) => self.receive(socket, &mut buffers)?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn send(&mut self, socket: &PacketSocket, count: usize, at: Instant) -> io::Result<()> {
        let count = count.min(BATCH);
        if count == 0 {
            return Ok(());
        }
        let chosen: Vec<usize> = (0..count).map(|_| self.rng.random_range(0..self.frames.len())).collect();
        let slices: Vec<[IoSlice<'_>; 1]> =
            chosen.iter().filter_map(|number| Some([IoSlice::new(self.frames.get(*number)?)])).collect();
        let mut headers = MultiHeaders::<()>::preallocate(slices.len(), None);
        let nowhere = vec![None; slices.len()];
        let flags = MsgFlags::MSG_DONTWAIT;
        let sent = match sendmmsg(socket.as_raw_fd(), &mut headers, &slices, nowhere, [], flags) {
            Ok(sent) => sent.count(),
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        for number in chosen.into_iter().take(sent) {
            if let Some(waiting) = self.sent.get_mut(number) {
                waiting.push_back(at);
                self.in_flight += 1;
            }
        }
        Ok(())
    }

    fn receive(&mut self, socket: &PacketSocket, buffers: &mut [[u8; FRAME_LEN]; BATCH]) -> io::Result<()> {
        let mut lengths = Vec::with_capacity(BATCH);
        {
            let mut slices: Vec<[IoSliceMut<'_>; 1]> =
                buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
            let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
            match recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
                Ok(received) => lengths.extend(received.map(|message| message.bytes)),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let at = now();
        for (buffer, len) in buffers.iter().zip(lengths) {
            let ip = buffer.get(..len).and_then(answered);
            let waiting = ip.and_then(|ip| self.sent.get_mut(*self.numbers.get(&ip)?));
            if let Some(asked) = waiting.and_then(VecDeque::pop_front) {
                self.in_flight -= 1;
                self.seen.answers += 1;
                let latency = at.saturating_duration_since(asked).as_nanos();
                self.seen.latencies_ns.push(u64::try_from(latency).unwrap_or(u64::MAX));
            }
        }
        Ok(())
    }

    /// Nothing has come for a long time: what is in flight is lost.
    fn give_up(&mut self) {
        self.seen.lost += self.in_flight as u64;
        self.in_flight = 0;
        self.sent.iter_mut().for_each(VecDeque::clear);
    }
}

/// An answer has at most 86 bytes.
const FRAME_LEN: usize = 128;
/// Chosen: the most that are in flight.
const BATCH: usize = 64;
/// Chosen: far above the latency of any responder that is measured.
const SILENCE_MS: u8 = 200;
