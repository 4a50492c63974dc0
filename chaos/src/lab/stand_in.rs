//! An announcer that stands in for another host and sends datagrams back: the wire side of a speaker, without a cluster.

use std::collections::BTreeMap;
use std::io;
use std::process::Command;

use garpike_announcer::io::{Handles, Heard, NdpUnicast, OpenSocketError, Task, TaskError};
use garpike_announcer::{Config, Duties};
use garpike_election::{InterfaceName, MacAddr, ServiceIp};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Answers on `eth0` for `ips` with the network card `owner`, and sends each datagram in a bare frame back to where it
/// came from, until the process is killed.
///
/// # Errors
///
/// When the announcer cannot be started, or fails.
pub fn serve(owner: MacAddr, ips: &[ServiceIp]) -> Result<(), StandInError> {
    let eth0: InterfaceName = "eth0".parse().expect("is an interface name");
    let macs = BTreeMap::from([(eth0, owner)]);
    let stood_in = ips.iter().map(|ip| (*ip, macs.clone())).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StandInError::Runtime)?;
    runtime.block_on(async {
        let (_duties, receiver) = watch::channel(Duties { stood_in, ..Duties::default() });
        let (task, handles) = Task::new(Config::default(), NdpUnicast::On, receiver)?;
        let Handles { mut heard, datagrams, .. } = handles;
        let send_back = async {
            while let Some(heard) = heard.recv().await {
                match heard {
                    // Full: it is lost, as on the wire.
                    Heard::Datagram(datagram) => drop(datagrams.try_send(datagram)),
                    Heard::Station => {}
                }
            }
        };
        tokio::select! {
            ended = task.run(CancellationToken::new()) => Ok(ended?),
            () = send_back => Ok(()),
        }
    })
}

/// The hidden command of this program that runs [`serve`].
pub(super) fn command(owner: MacAddr, ips: &[ServiceIp]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["chaos", "stand-in", &owner.to_string()]).args(ips.iter().map(ToString::to_string));
    command
}

/// Why it ended.
#[derive(Debug, Error)]
pub enum StandInError {
    /// There is no runtime.
    #[error("cannot start the runtime: {0}")]
    Runtime(#[source] io::Error),
    /// There is no packet socket.
    #[error(transparent)]
    Open(#[from] OpenSocketError),
    /// The announcer failed.
    #[error(transparent)]
    Task(#[from] TaskError),
}
