//! The shells of the controller: clocks, sockets, requests. Nothing here decides who gets which address.

pub(crate) mod dead_node;
pub(crate) mod foreign;
pub(crate) mod lease;
pub(crate) mod term;
pub(crate) mod watches;
pub(crate) mod writes;
