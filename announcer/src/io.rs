//! The shell around [`crate::Announcer`]: packet sockets, multicast groups, netlink, and the task that owns them.
//!
//! Nothing here decides anything about addresses. `unsafe` is in [`packet_socket`] only. Besides, for hosts without
//! Kubernetes, it makes service IPs local ([`addresses`]) and checks that the kernel leaves ARP to us ([`arp_sysctl`]).

pub mod addresses;
pub mod arp_sysctl;
mod chronicle;
mod counts;
mod debounce;
mod flaps;
mod gateways;
mod groups;
mod icmpv6_socket;
mod interfaces;
mod netlink;
pub mod packet_socket;
mod port;
mod ports;
mod privileges;
mod task;
mod troubles;

pub use packet_socket::{EtherType, OpenSocketError, PacketSocket, Received};
pub use ports::NdpUnicast;
pub use privileges::{lower_net_raw, with_sys_nice};
pub use task::{Command, Handles, Heard, Task, TaskError};
