//! Receives with the kernel's time of arrival, so that a measurement does not depend on when a thread got to run.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use socket2::Socket;

use super::now;

/// A socket whose datagrams tell when they arrived.
#[derive(Debug)]
pub(super) struct Arrivals {
    socket: Socket,
    control: Vec<u8>,
    missed: u32,
}

impl Arrivals {
    /// Asks the kernel for arrival times on `socket`, and for a queue that outlasts a stall.
    pub(super) fn new(socket: Socket) -> io::Result<Self> {
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        // Root may exceed net.core.rmem_max, others get as much as it allows.
        if setsockopt(&socket, sockopt::RcvBufForce, &QUEUE_BYTES).is_err() {
            socket.set_recv_buffer_size(QUEUE_BYTES)?;
        }
        Ok(Self { socket, control: nix::cmsg_space!(TimeSpec, u32), missed: 0 })
    }

    /// How many datagrams the kernel had no room for, as of the last one received.
    pub(super) fn missed(&self) -> u32 {
        self.missed
    }

    /// The socket, to send on.
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Sleeps until something has arrived, at most for `timeout`. Precise to the kernel's timer slack, 50 us.
    pub(super) fn wait(&self, timeout: Duration) -> io::Result<()> {
        let mut sockets = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut sockets, Some(TimeSpec::from(timeout)), None) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next datagram, if one has arrived: its length and when. A longer one than `bytes` is cut.
    pub(super) fn next(&mut self, bytes: &mut [u8]) -> io::Result<Option<(usize, Instant)>> {
        let mut buffers = [io::IoSliceMut::new(bytes)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let received = recvmsg::<()>(self.socket.as_raw_fd(), &mut buffers, Some(&mut self.control), flags);
        let received = match received {
            Ok(received) => received,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let mut waited = Duration::ZERO;
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmTimestampns(stamp) = message {
                waited = age(stamp);
            } else if let ControlMessageOwned::RxqOvfl(missed) = message {
                self.missed = missed;
            }
        }
        let at = now();
        Ok(Some((received.bytes, at.checked_sub(waited).unwrap_or(at))))
    }
}

/// How long ago the wall clock showed `stamp`. A step of the wall clock meanwhile must not be taken for age.
#[expect(clippy::disallowed_methods, reason = "a shell reads the clock")]
fn age(stamp: TimeSpec) -> Duration {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let age = wall.saturating_sub(Duration::from(stamp));
    if age > LONGEST_WAIT { Duration::ZERO } else { age }
}

/// No datagram waits longer for its reader; chosen: far above the longest stall that was measured (41 ms).
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Of a receive queue; chosen: seconds of traffic at 1 ms per probe (some 800 bytes each as the kernel counts).
const QUEUE_BYTES: usize = 8 << 20;
