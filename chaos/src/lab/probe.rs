//! A client that asks a service IP every few milliseconds and notes when it is answered.
//!
//! One thread per target with a connected UDP socket in the client's namespace. Probes are due at fixed instants, so
//! lateness does not add up; a slot that was missed altogether is left out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use super::arrival::Arrivals;
use super::outage::{Disturbance, Record, Sample};
use super::{Lab, LabError, now};

impl Lab<'_> {
    /// Begins to probe `target` from the client.
    ///
    /// # Errors
    ///
    /// When the client has no socket for it.
    pub fn probe(&self, target: SocketAddr, interval: Duration) -> Result<Probe, ProbeError> {
        if interval < SHORTEST_INTERVAL {
            return Err(ProbeError::Interval { interval });
        }
        let failed = |source| ProbeError::Socket { target, source };
        let arrivals = self.client.run(move |_| connect(target)).map_err(LabError::from)?.map_err(failed)?;
        Probe::start(Prober::new(arrivals, target, interval)).map_err(failed)
    }
}

/// A running probe. Dropping it ends it.
#[derive(Debug)]
pub struct Probe {
    answered: Arc<AtomicU64>,
    /// A message means "finish", its end "give up".
    finish: Option<SyncSender<()>>,
    worker: Option<JoinHandle<Record>>,
}

impl Probe {
    /// How many probes have been answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until another probe is answered; whether one was within `timeout`.
    pub fn wait_for_answer(&self, timeout: Duration) -> bool {
        let before = self.answered();
        let deadline = now() + timeout;
        while now() < deadline {
            if self.answered() > before {
                return true;
            }
            thread::sleep(POLL);
        }
        self.answered() > before
    }

    /// Stops, waits a moment for answers on their way, and returns what was seen.
    pub fn stop(mut self) -> Record {
        let worker = self.worker.take().expect("only stop and drop take the worker");
        if let Some(finish) = &self.finish {
            let _ = finish.send(());
        }
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn start(prober: Prober) -> io::Result<Self> {
        let answered = Arc::clone(&prober.answered);
        let (finish, finished) = mpsc::sync_channel(1);
        let worker = thread::Builder::new().name("probe".to_owned()).spawn(move || prober.run(&finished))?;
        Ok(Self { answered, finish: Some(finish), worker: Some(worker) })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        drop(self.finish.take());
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

/// Why a target cannot be probed.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// Probes would follow each other too closely.
    #[error("a probe interval of {interval:?} is too short, {SHORTEST_INTERVAL:?} or more is possible")]
    Interval {
        /// What was asked for.
        interval: Duration,
    },
    /// The client is gone.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The client has no socket for it.
    #[error("cannot probe {target}: {source}")]
    Socket {
        /// The target.
        target: SocketAddr,
        /// The cause.
        source: io::Error,
    },
}

fn connect(target: SocketAddr) -> io::Result<Arrivals> {
    let socket = Socket::new(Domain::for_address(target), Type::DGRAM, Some(Protocol::UDP))?;
    socket.connect(&target.into())?;
    Arrivals::new(socket)
}

struct Prober {
    arrivals: Arrivals,
    record: Record,
    answered: Arc<AtomicU64>,
}

impl Prober {
    fn new(arrivals: Arrivals, target: SocketAddr, interval: Duration) -> Self {
        let record = Record { target, interval, samples: Vec::new(), disturbances: Vec::new(), duplicates: 0 };
        Self { arrivals, record, answered: Arc::new(AtomicU64::new(0)) }
    }

    fn run(mut self, finished: &Receiver<()>) -> Record {
        let mut due = now();
        while self.record.samples.len() < MAX_PROBES {
            match finished.try_recv() {
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return self.record,
                Ok(()) => break,
            }
            let at = now();
            if let Some(late) = at.checked_duration_since(due) {
                if late > DISTURBED {
                    self.record.disturbances.push(Disturbance { due, late });
                }
                self.send(at);
                while due <= at {
                    due += self.record.interval;
                }
            }
            self.receive_until(due);
        }
        let end = now() + LINGER;
        while now() < end {
            self.receive_until(end);
        }
        self.record
    }

    fn send(&mut self, at: Instant) {
        let number = self.record.samples.len() as u64;
        self.record.samples.push(Sample { sent: at, answered: None });
        // What the kernel refuses to send (no neighbour, an ICMP error about an earlier probe) is a lost probe.
        let _ = self.arrivals.socket().send(&number.to_be_bytes());
    }

    /// Takes what has arrived, or sleeps for it until `due`.
    fn receive_until(&mut self, due: Instant) {
        let mut bytes = [0; 8];
        loop {
            match self.arrivals.next(&mut bytes) {
                Ok(Some((8, at))) => self.note(u64::from_be_bytes(bytes), at),
                Ok(Some(_)) => {}
                // Errors are ICMP's about an earlier probe; reading has cleared them.
                Err(_) => {}
                Ok(None) => break,
            }
        }
        let left = due.saturating_duration_since(now());
        if !left.is_zero() && self.arrivals.wait(left).is_err() {
            thread::sleep(left);
        }
    }

    fn note(&mut self, number: u64, at: Instant) {
        let Ok(number) = usize::try_from(number) else { return };
        let Some(sample) = self.record.samples.get_mut(number) else { return };
        if sample.answered.is_some() {
            self.record.duplicates += 1;
        } else {
            sample.answered = Some(at);
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Chosen: below it the sender itself would be most of the load.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);
/// A probe that is sent later than this was not sent by an undisturbed client; chosen.
const DISTURBED: Duration = Duration::from_millis(20);
/// After the last probe; chosen: many round trips (0.1 ms).
const LINGER: Duration = Duration::from_millis(50);
/// 48 MB; at 5 ms nearly three hours.
const MAX_PROBES: usize = 2_000_000;
/// How often a waiting caller looks; chosen: less than a probe interval.
const POLL: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn what_an_echo_server_answers_is_recorded_and_what_it_leaves_out_is_lost() {
        let server = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let target = server.local_addr().unwrap();
        let echo = thread::spawn(move || answer_all_but_every_third(&server));
        let probe = Probe::start(Prober::new(connect(target).unwrap(), target, SHORTEST_INTERVAL)).unwrap();

        while probe.answered() < 40 {
            assert!(probe.wait_for_answer(Duration::from_secs(5)));
        }
        let record = probe.stop();
        assert!(echo.join().unwrap());

        assert!(
            record
                .samples
                .iter()
                .take(60)
                .enumerate()
                .all(|(number, sample)| { sample.answered.is_some_and(|at| at >= sample.sent) == (number % 3 != 0) })
        );
        assert!(record.duplicates >= 39);
        assert!(record.samples.windows(2).all(|pair| pair[0].sent < pair[1].sent));
    }

    #[test]
    fn a_dropped_probe_ends_at_once() {
        let server = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let target = server.local_addr().unwrap();
        let prober = Prober::new(connect(target).unwrap(), target, SHORTEST_INTERVAL);
        let alive = Arc::downgrade(&prober.answered);

        drop(Probe::start(prober).unwrap());

        assert!(alive.upgrade().is_none());
    }

    /// Each answer is sent twice. Ends when nothing comes any more.
    fn answer_all_but_every_third(server: &UdpSocket) -> bool {
        server.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut bytes = [0; 8];
        while let Ok((8, from)) = server.recv_from(&mut bytes) {
            if u64::from_be_bytes(bytes) % 3 != 0 {
                server.send_to(&bytes, from).unwrap();
                server.send_to(&bytes, from).unwrap();
            }
        }
        true
    }
}
