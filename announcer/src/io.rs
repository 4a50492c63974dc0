//! The shell around [`crate::Announcer`]: packet sockets, multicast groups, netlink, and the task that owns them.
//!
//! Nothing here decides anything about addresses. `unsafe` is in [`packet_socket`] only. Besides, for hosts without
//! Kubernetes, it makes service IPs local ([`addresses`]) and checks that the kernel leaves ARP to us ([`arp_sysctl`]).

pub mod addresses;
pub mod arp_sysctl;
mod chronicle;
mod gateways;
mod groups;
mod netlink;
pub mod packet_socket;
mod ports;
mod task;

pub use netlink::watch_links;
pub use packet_socket::{EtherType, OpenSocketError, PacketSocket, Received};
pub use task::{Command, Handles, Heard, Task, TaskError};
