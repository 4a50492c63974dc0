//! Frames in and out: the task takes and sends them in batches, each by one call to the kernel.

use std::time::{Duration, Instant};

use garpike_election::IfIndex;

use super::failures::Room;
use super::{Heard, Task, now, wall_clock};
use crate::announcer::{Datagram, Frame, FrameKind};
use crate::io::packet_socket::Batch;
use crate::io::ports::{Channel, Key, Reception, receptions};
use crate::io::troubles::Operation;
use crate::metrics;

impl Task {
    /// Handles what a socket has, and what follows from it.
    pub(super) async fn handle_readable(&mut self, key: Key, batch: &mut Batch) {
        self.publish_counters(now());
        for _ in 0..BATCHES {
            if let Err(error) = self.ports.receive(key, batch) {
                self.handle_failure(key.interface, Operation::Receive, &error, now());
            }
            match key.channel {
                Channel::Arp | Channel::Ndp => self.handle_frames(key.interface, batch).await,
                Channel::Datagrams => self.handle_datagrams(key.interface, batch),
            }
            if !batch.is_full() {
                break;
            }
        }
        self.flush(now());
    }

    /// Handles frames and sends what answers them.
    async fn handle_frames(&mut self, interface: IfIndex, batch: &Batch) {
        let mut held_up = false;
        for reception in receptions(batch, wall_clock()) {
            match reception {
                Reception::Frame(frame) => {
                    if std::mem::take(&mut held_up) {
                        self.learn_what_was_missed().await;
                    }
                    if let Err(unanswered) = self.announcer.handle_frame(interface, frame, now()) {
                        self.counts.frame_unanswered(unanswered.reason());
                    }
                }
                Reception::Stale => {
                    held_up = true;
                    self.counts.frame_unanswered(STALE);
                }
                Reception::OtherInterface => self.counts.frame_unanswered("other_interface"),
            }
        }
        self.transmit(now());
    }

    fn handle_datagrams(&mut self, interface: IfIndex, batch: &Batch) {
        for reception in receptions(batch, wall_clock()) {
            match reception {
                Reception::Frame(frame) => match self.announcer.unwrap_datagram(interface, frame) {
                    Ok(datagram) => {
                        metrics::datagram_heard();
                        self.tell(Heard::Datagram(datagram));
                    }
                    Err(undelivered) => metrics::datagram_dropped(undelivered.reason()),
                },
                Reception::Stale => metrics::datagram_dropped(STALE),
                Reception::OtherInterface => self.counts.frame_unanswered("other_interface"),
            }
        }
    }

    /// Sends what the core has ready.
    pub(super) fn transmit(&mut self, now: Instant) {
        let mut frames = std::mem::take(&mut self.outgoing);
        loop {
            frames.extend(std::iter::from_fn(|| self.announcer.poll_transmit()).take(Batch::MOST));
            if frames.is_empty() {
                break;
            }
            for frames in frames.chunk_by(|one, next| Key::of(one) == Key::of(next)) {
                self.send(frames, now);
            }
            frames.clear();
        }
        self.outgoing = frames;
    }

    /// Sends frames that leave by the same socket.
    pub(super) fn send(&mut self, mut frames: &[Frame], now: Instant) {
        while let Some(first) = frames.first() {
            let done = match self.ports.send(frames) {
                Ok(sent) => {
                    for frame in frames.iter().take(sent) {
                        self.counts.frame_sent(frame.kind.as_str());
                        self.announcer.handle_sent(frame, super::now());
                    }
                    self.publish_counters(now);
                    sent.max(1)
                }
                Err(error) => {
                    // An asker asks again. Where an interface is down or gone, its return begins the announcements anew.
                    let room = self.handle_send_failure(first.interface, &error, now);
                    let repeats = room == Room::Full && first.kind == FrameKind::Announcement;
                    if repeats && self.unsent.len() < UNSENT_DEPTH {
                        self.unsent.push_back(*first);
                        self.resend_at.get_or_insert(now + RESEND_INTERVAL);
                    }
                    1
                }
            };
            frames = frames.get(done..).unwrap_or_default();
        }
    }

    /// Sends again, if it is time, what the kernel had no room for.
    pub(super) fn resend(&mut self, now: Instant) {
        if self.resend_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        for frame in std::mem::take(&mut self.unsent) {
            if self.announcer.still_wants(&frame) {
                self.send(&[frame], now);
            }
        }
    }

    /// Sends a datagram of the membership; what cannot be sent at once is lost.
    pub(super) fn send_datagram(&mut self, datagram: &Datagram) {
        let (interface, frame) = match self.announcer.wrap_datagram(datagram) {
            Ok(wrapped) => wrapped,
            Err(undelivered) => return metrics::datagram_dropped(undelivered.reason()),
        };
        match self.ports.send_datagram(interface, &frame) {
            Ok(()) => self.counts.frame_sent("datagram"),
            Err(error) => {
                self.handle_send_failure(interface, &error, now());
            }
        }
    }
}

/// The reason for which a frame that has waited for too long is dropped.
const STALE: &str = "stale";
/// Chosen: so many frames are handled before the other inputs get their turn, well under a millisecond.
const BATCHES: usize = 2;
/// Chosen: half a second at the full rate of announcements; the schedule repeats them anyway.
const UNSENT_DEPTH: usize = 4096;
/// Chosen: the time in which a gigabit link sends some thousand frames.
const RESEND_INTERVAL: Duration = Duration::from_millis(5);
