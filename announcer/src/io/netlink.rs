//! Following the kernel's state by netlink: complete readings, prompted by events.
//!
//! Events are hints that something has changed, never the change itself, so that none can be missed for good: not when
//! there are more of them than the socket holds (`ENOBUFS`), and not while a connection that ended is opened again.
//! Nothing is polled.

use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::{Handle, MulticastGroup};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::debounce::Debounce;

/// A part of the kernel's state that is followed.
pub(super) trait Followed {
    /// What it is called when it is lost sight of.
    const NAME: &'static str;
    /// Whose events tell that it may have changed.
    const GROUPS: &'static [MulticastGroup];
    /// The whole of it at one moment.
    type Snapshot;

    /// Reads it.
    fn read(handle: Handle) -> impl Future<Output = Result<Self::Snapshot, rtnetlink::Error>> + Send;

    /// Takes an event and tells whether the state is to be read again.
    fn hear(&mut self, event: &NetlinkMessage<RouteNetlinkMessage>, now: Instant) -> Concern;

    /// Takes what was read, and tells when it is to be read again without an event.
    fn take(&mut self, snapshot: Self::Snapshot, now: Instant) -> Option<Instant>;
}

/// What an event means for what is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Concern {
    /// It may have changed.
    Changed,
    /// It is the same.
    None,
}

/// That a monitor has lost sight of what it follows, and begins again.
#[derive(Debug, Error)]
#[error("lost sight of the {what}: {error}")]
pub(super) struct Lost {
    what: &'static str,
    error: FollowError,
}

/// Why a monitor had to begin again.
#[derive(Debug, Error)]
enum FollowError {
    #[error("cannot open a netlink socket: {0}")]
    Open(std::io::Error),
    #[error("cannot read from the kernel: {0}")]
    Read(rtnetlink::Error),
    #[error("the netlink connection ended")]
    Ended,
}

/// Follows until nobody listens to `sender` any more. A connection that ends is opened again, later each time.
pub(super) async fn keep_following<T, F: Followed>(
    sender: &watch::Sender<T>,
    lost: &mpsc::Sender<Lost>,
    mut followed: F,
) {
    let mut patience = RECONNECT_MIN;
    while !sender.is_closed() {
        let before = Instant::now();
        let error = tokio::select! {
            () = sender.closed() => return,
            error = follow(&mut followed) => error,
        };
        // Whoever counts them may be busy; the next one is as good.
        let _ = lost.try_send(Lost { what: F::NAME, error });
        patience = if before.elapsed() > RECONNECT_MAX { RECONNECT_MIN } else { (patience * 2).min(RECONNECT_MAX) };
        tokio::select! {
            () = sender.closed() => return,
            () = sleep(patience) => {}
        }
    }
}

/// Reads at first, and whenever an event or the time makes it due, until the connection ends.
async fn follow<F: Followed>(followed: &mut F) -> FollowError {
    let (connection, handle, mut events) = match rtnetlink::new_multicast_connection(F::GROUPS) {
        Ok(opened) => opened,
        Err(error) => return FollowError::Open(error),
    };
    let snapshots = async {
        let mut debounce = Debounce::new(Instant::now().into_std());
        loop {
            let due = debounce.poll_timeout();
            tokio::select! {
                biased;
                () = sleep_until(due.map_or_else(Instant::now, Instant::from)), if due.is_some() => {
                    let began = Instant::now();
                    let snapshot = match F::read(handle.clone()).await {
                        Ok(snapshot) => snapshot,
                        Err(error) => return FollowError::Read(error),
                    };
                    let again = followed.take(snapshot, Instant::now());
                    debounce.handle_read(began.into_std(), Instant::now().into_std());
                    if let Some(again) = again {
                        debounce.read_at(again.into_std());
                    }
                }
                event = events.next() => {
                    let Some((event, _)) = event else { return FollowError::Ended };
                    let now = Instant::now();
                    if followed.hear(&event, now) == Concern::Changed {
                        debounce.handle_event(now.into_std());
                    }
                }
            }
        }
    };
    tokio::select! {
        () = connection => FollowError::Ended,
        error = snapshots => error,
    }
}

/// Lets the receivers know only if something has changed.
pub(super) fn publish<T: PartialEq>(sender: &watch::Sender<T>, new: T) {
    sender.send_if_modified(|current| {
        let changed = *current != new;
        *current = new;
        changed
    });
}

/// Chosen: a failure that lasts must not fill the log, one that passes must not cost a failover.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rtnetlink::Error;
    use rtnetlink::packet_core::ErrorMessage;

    use super::*;

    #[tokio::test]
    async fn a_reading_that_fails_is_told_and_tried_again_with_growing_patience() {
        static READ: AtomicU32 = AtomicU32::new(0);
        struct Failing;
        impl Followed for Failing {
            const NAME: &'static str = "test";
            const GROUPS: &'static [MulticastGroup] = &[];
            type Snapshot = ();

            async fn read(_: Handle) -> Result<(), Error> {
                READ.fetch_add(1, Ordering::Relaxed);
                Err(Error::NetlinkError(ErrorMessage::default()))
            }

            fn hear(&mut self, _: &NetlinkMessage<RouteNetlinkMessage>, _: Instant) -> Concern {
                Concern::None
            }

            fn take(&mut self, (): (), _: Instant) -> Option<Instant> {
                None
            }
        }
        let (sender, receiver) = watch::channel(());
        let (lost_sender, mut lost) = mpsc::channel(4);
        let began = Instant::now();
        let third = async {
            for _ in 0..2 {
                lost.recv().await.unwrap();
            }
            lost.recv().await.unwrap()
        };
        let third = tokio::select! {
            () = keep_following(&sender, &lost_sender, Failing) => panic!("it ended while somebody listened"),
            third = third => third,
        };
        // 100 ms, then 200 ms.
        assert!(began.elapsed() >= RECONNECT_MIN * 6, "{:?}", began.elapsed());
        assert_eq!(READ.load(Ordering::Relaxed), 3);
        assert!(third.to_string().starts_with("lost sight of the test: cannot read from the kernel"), "{third}");
        drop(receiver);
        keep_following(&sender, &lost_sender, Failing).await;
    }
}
