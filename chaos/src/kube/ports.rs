//! Ports for programs that must be told theirs before they listen.
//!
//! Not those that the kernel gives to a socket that asks for any: as soon as that one is closed, the next connection of whatever
//! program may get the same.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

/// An address at `ip` on whose port nobody listens. Each is given once by this process.
pub(super) fn free_address(ip: Ipv4Addr) -> io::Result<SocketAddr> {
    for _ in 0..COUNT {
        let number = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(begin());
        let address = SocketAddr::from((ip, FIRST + number % COUNT));
        match TcpListener::bind(address) {
            Ok(_) => return Ok(address),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Two processes that start one after the other do not begin with the same port.
fn begin() -> u16 {
    u16::try_from(process::id() % u32::from(COUNT / STEP)).unwrap_or_default() * STEP
}

static NEXT: AtomicU16 = AtomicU16::new(0);
/// Below the ports of connections (ip(7): `ip_local_port_range` begins at 32768), above those of most services.
const FIRST: u16 = 16384;
const COUNT: u16 = 16384;
/// Chosen: more than a run of all checks needs.
const STEP: u16 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_and_one_in_use_is_left_out() {
        let one = free_address(Ipv4Addr::LOCALHOST).unwrap();
        let next = SocketAddr::from((Ipv4Addr::LOCALHOST, one.port() + 1));
        let _taken = TcpListener::bind(next);

        let other = free_address(Ipv4Addr::LOCALHOST).unwrap();

        assert!(other != one && other != next, "{one} {other}");
        assert!((FIRST..FIRST + COUNT).contains(&other.port()));
    }
}
