//! Who owns a service IP.
//!
//! The vocabulary that every other crate speaks ([`NodeName`], [`ServiceIp`], ...), the two inputs of the
//! election ([`Desired`]: what people asked for, [`Members`]: who is alive) and its pure, total result
//! ([`elect`] gives an [`Assignment`]). Equal inputs give equal results on every node, version and CPU: there is
//! no clock, socket, random number or unordered collection in this crate.

mod assignment;
mod desired;
mod elect;
mod fitness;
mod hash;
mod interface;
mod members;
mod node;
mod service;
mod spread;

pub use assignment::{Assignment, Change, Elected, Unowned};
pub use desired::{Address, Backing, Desired, Endpoints, LocalEndpoints, Placement, Selection};
pub use elect::{Elector, elect};
pub use hash::{order, score};
pub use interface::{IfIndex, InterfaceName, InvalidInterfaceName, InvalidMac, MacAddr};
pub use members::{Handicap, Member, Members, NodeState, Presence, Wire};
pub use node::{InvalidNodeName, NodeName};
pub use service::{InvalidServiceIp, ServiceIp, ServiceKey, ServiceNames};
pub use spread::{Spread, balanced_orders};
