//! Carries between membership and announcer what is for the wires: datagrams in bare frames, and the wish to hear
//! stations.
//!
//! Nothing waits here: what the other side has no room for is lost and counted, as the wire might have lost it.

use garpike_announcer::{Datagram, io as announcer_io};
use garpike_membership::io as membership_io;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::metrics;

/// The ends of the channels.
pub(crate) struct Relay {
    pub(crate) frames: mpsc::Receiver<membership_io::Frame>,
    pub(crate) ask_stations: mpsc::Receiver<()>,
    pub(crate) datagrams: mpsc::Sender<Datagram>,
    pub(crate) commands: mpsc::Sender<announcer_io::Command>,
    pub(crate) announcer_heard: mpsc::Receiver<announcer_io::Heard>,
    pub(crate) membership_heard: mpsc::Sender<membership_io::Heard>,
}

impl Relay {
    /// Carries until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(frame) = self.frames.recv() => {
                    let membership_io::Frame { interface, mac, payload } = frame;
                    if self.datagrams.try_send(Datagram { interface, mac, payload }).is_err() {
                        metrics::relay_dropped("out");
                    }
                }
                Some(()) = self.ask_stations.recv() => {
                    if self.commands.try_send(announcer_io::Command::AskStations).is_err() {
                        metrics::relay_dropped("ask");
                    }
                }
                Some(heard) = self.announcer_heard.recv() => {
                    if self.membership_heard.try_send(translate(heard)).is_err() {
                        metrics::relay_dropped("in");
                    }
                }
            }
        }
    }
}

fn translate(heard: announcer_io::Heard) -> membership_io::Heard {
    match heard {
        announcer_io::Heard::Datagram(Datagram { interface, mac, payload }) => {
            membership_io::Heard::Frame(membership_io::Frame { interface, mac, payload })
        }
        announcer_io::Heard::Station => membership_io::Heard::Station,
    }
}

#[cfg(test)]
mod tests {
    use garpike_election::MacAddr;
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn each_message_comes_out_at_the_other_side() {
        let (frames, frames_in) = mpsc::channel(4);
        let (ask, ask_in) = mpsc::channel(1);
        let (datagrams_out, mut datagrams) = mpsc::channel(4);
        let (commands_out, mut commands) = mpsc::channel(4);
        let (announcer_heard, announcer_heard_in) = mpsc::channel(4);
        let (membership_heard_out, mut membership_heard) = mpsc::channel(4);
        let relay = Relay {
            frames: frames_in,
            ask_stations: ask_in,
            datagrams: datagrams_out,
            commands: commands_out,
            announcer_heard: announcer_heard_in,
            membership_heard: membership_heard_out,
        };
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(relay.run(stop.clone()));
        let (interface, mac) = ("eth0".parse().unwrap(), MacAddr([2, 0, 0, 0, 0, 1]));
        let datagram = Datagram { interface, mac, payload: vec![7] };
        let Datagram { interface, mac, payload } = datagram.clone();
        let frame = membership_io::Frame { interface, mac, payload };

        frames.send(frame.clone()).await.unwrap();
        assert_eq!(datagrams.recv().await, Some(datagram.clone()));
        ask.send(()).await.unwrap();
        assert_eq!(commands.recv().await, Some(announcer_io::Command::AskStations));
        announcer_heard.send(announcer_io::Heard::Datagram(datagram)).await.unwrap();
        assert_eq!(membership_heard.recv().await, Some(membership_io::Heard::Frame(frame)));
        announcer_heard.send(announcer_io::Heard::Station).await.unwrap();
        assert_eq!(membership_heard.recv().await, Some(membership_io::Heard::Station));

        stop.cancel();
        tasks.join_next().await.unwrap().unwrap();
    }
}
