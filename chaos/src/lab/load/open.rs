//! The open loop: so many requests a second whatever comes back, and a flood of requests that nobody should answer.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use garpike_announcer::io::{PacketSocket, Received};
use garpike_announcer::wire;
use garpike_election::MacAddr;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, sendmmsg};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{Audience, answered, request};
use crate::lab::now;

/// How to ask.
#[derive(Clone, Copy, Debug)]
pub struct OpenLoop {
    /// Who is asked.
    pub station: MacAddr,
    /// How often a second.
    pub per_second: u32,
    /// For how long.
    pub lasts: Duration,
    /// Which addresses are asked for in which order.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Paced {
    /// Requests sent.
    pub asked: u64,
    /// Requests that were never answered.
    pub unanswered: u64,
    /// From just before each request was sent to when the kernel got its answer, in nanoseconds, in order of size.
    pub latencies_ns: Vec<u64>,
    /// How late a request was sent at worst, against the plan.
    pub worst_lateness: Duration,
}

impl OpenLoop {
    /// Asks for random ones of `ips`, and waits a moment for the last answers.
    ///
    /// # Errors
    ///
    /// When the socket fails.
    pub fn run(self, socket: &PacketSocket, ips: &[IpAddr]) -> io::Result<Paced> {
        let frames: Vec<wire::Bytes> = ips.iter().map(|ip| request(*ip, Audience::Station(self.station))).collect();
        let mut asked: HashMap<IpAddr, VecDeque<SystemTime>> = HashMap::new();
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mut seen = Paced::default();
        let gap = Duration::from_secs(1) / self.per_second;
        let begun = now();
        let mut due = begun;
        while due < begun + self.lasts {
            sleep_until(due);
            seen.worst_lateness = seen.worst_lateness.max(now().saturating_duration_since(due));
            let number = rng.random_range(0..ips.len());
            if let (Some(ip), Some(frame)) = (ips.get(number), frames.get(number)) {
                hear(socket, &mut asked, &mut seen)?;
                asked.entry(*ip).or_default().push_back(wall_clock());
                socket.send(frame)?;
                seen.asked += 1;
            }
            // What was missed is left out: a burst would not be what was asked for.
            due = (due + gap).max(now());
        }
        sleep_until(due + LAST_ANSWERS);
        hear(socket, &mut asked, &mut seen)?;
        seen.unanswered = seen.asked - seen.latencies_ns.len() as u64;
        seen.latencies_ns.sort_unstable();
        Ok(seen)
    }
}

/// Asks the whole segment for each address and gives who has answered first.
///
/// # Errors
///
/// When the socket fails.
pub fn who_has(socket: &PacketSocket, ips: &[IpAddr]) -> io::Result<BTreeMap<IpAddr, MacAddr>> {
    let mut owners = BTreeMap::new();
    let mut buffer = [0; 128];
    for round in ips.chunks(FLOOD_BATCH) {
        for ip in round {
            socket.send(&request(*ip, Audience::Segment))?;
        }
        thread::sleep(ROUND);
        loop {
            match socket.receive(&mut buffer) {
                Ok(Some(Received { frame, .. })) => {
                    if let (Some(ip), Ok(message)) = (answered(frame), wire::parse(frame)) {
                        owners.entry(ip).or_insert_with(|| message.ethernet().source);
                    }
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(owners)
}

/// Sends so many of the frames a second, in turn, until `stop`; gives how many it sent.
///
/// # Errors
///
/// When the socket fails.
pub fn flood(socket: &PacketSocket, frames: &[wire::Bytes], per_second: u32, stop: &AtomicBool) -> io::Result<u64> {
    let gap = Duration::from_secs(FLOOD_BATCH as u64) / per_second;
    let (mut sent, mut due) = (0, now());
    let mut frames = frames.iter().cycle();
    while !stop.load(Ordering::Relaxed) {
        let slices: Vec<[IoSlice<'_>; 1]> =
            frames.by_ref().take(FLOOD_BATCH).map(|frame| [IoSlice::new(frame)]).collect();
        let mut headers = MultiHeaders::<()>::preallocate(slices.len(), None);
        let nowhere = vec![None; slices.len()];
        match sendmmsg(socket.as_raw_fd(), &mut headers, &slices, nowhere, [], MsgFlags::MSG_DONTWAIT) {
            Ok(done) => sent += done.count() as u64,
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        due += gap;
        sleep_until(due);
    }
    Ok(sent)
}

/// Takes all answers that are there.
fn hear(socket: &PacketSocket, asked: &mut HashMap<IpAddr, VecDeque<SystemTime>>, seen: &mut Paced) -> io::Result<()> {
    let mut buffer = [0; 128];
    loop {
        match socket.receive(&mut buffer) {
            Ok(Some(Received { frame, came, .. })) => {
                let waiting = answered(frame).and_then(|ip| asked.get_mut(&ip));
                if let Some(latency) = waiting.zip(came).and_then(|(waiting, came)| latency(waiting, came)) {
                    seen.latencies_ns.push(latency);
                }
            }
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// The time of the oldest request that an answer may belong to; what was asked long before it is lost.
fn latency(waiting: &mut VecDeque<SystemTime>, came: SystemTime) -> Option<u64> {
    while let Some(sent) = waiting.pop_front() {
        let latency = came.duration_since(sent).ok()?;
        if latency < LAST_ANSWERS {
            return u64::try_from(latency.as_nanos()).ok();
        }
    }
    None
}

fn sleep_until(due: Instant) {
    thread::sleep(due.saturating_duration_since(now()));
}

#[expect(clippy::disallowed_methods, reason = "a shell reads the clock: that of the kernel's time stamps")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Chosen: an answer that takes longer is none.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Chosen: a batch of requests is answered within it.
const ROUND: Duration = Duration::from_millis(5);
/// Chosen: a millisecond of a flood of 50 000 requests a second.
const FLOOD_BATCH: usize = 50;
