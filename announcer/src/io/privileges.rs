//! CAP_NET_RAW, in force only while a packet socket is opened, and CAP_SYS_NICE only while threads are given priority.
//!
//! A process that may open packet sockets can read and forge all traffic of its host; one whose capability is permitted
//! but not in force cannot do so by mistake. Capabilities belong to threads, and a thread hands its own to those that it
//! starts. Sending, receiving, filters and multicast groups need none.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// Takes CAP_NET_RAW out of force for this thread and those that it starts from then on. Packet sockets can be opened all
/// the same: that raises it for the moment.
///
/// # Errors
///
/// When the kernel does not let a thread give up what it has, as a seccomp filter can bring about.
pub fn lower_net_raw() -> io::Result<()> {
    let now = capabilities(None)?;
    if now.effective.contains(NET_RAW) {
        set_effective(now, now.effective - NET_RAW)?;
    }
    Ok(())
}

/// Does `work` with CAP_NET_RAW in force, if it is permitted.
pub(super) fn with_net_raw<T>(work: impl FnOnce() -> T) -> T {
    with(NET_RAW, work)
}

/// Does `work` with CAP_SYS_NICE in force, if it is permitted: to have threads scheduled before others.
pub fn with_sys_nice<T>(work: impl FnOnce() -> T) -> T {
    with(CapabilitySet::SYS_NICE, work)
}

fn with<T>(capability: CapabilitySet, work: impl FnOnce() -> T) -> T {
    let Ok(before) = capabilities(None) else { return work() };
    if before.effective.contains(capability) || !before.permitted.contains(capability) {
        // Nothing to raise; a user namespace may grant what this one does not.
        return work();
    }
    if set_effective(before, before.effective | capability).is_err() {
        return work();
    }
    let _lowered = Lowered { before };
    work()
}

/// Puts back what was in force, also when `work` panics.
struct Lowered {
    before: CapabilitySets,
}

impl Drop for Lowered {
    fn drop(&mut self) {
        let _ = set_capabilities(None, self.before);
    }
}

fn set_effective(now: CapabilitySets, effective: CapabilitySet) -> io::Result<()> {
    set_capabilities(None, CapabilitySets { effective, ..now })?;
    Ok(())
}

const NET_RAW: CapabilitySet = CapabilitySet::NET_RAW;

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::io::{OpenSocketError, PacketSocket};

    #[test]
    fn a_thread_that_lowered_it_opens_sockets_and_holds_nothing_between() {
        in_thread(|| {
            let permitted = capabilities(None).unwrap().permitted.contains(NET_RAW);
            lower_net_raw().unwrap();
            for _ in 0..2 {
                assert!(!capabilities(None).unwrap().effective.contains(NET_RAW));
                let opened = PacketSocket::check_permission();
                assert_eq!(opened.is_ok(), permitted, "{opened:?}");
                assert!(!capabilities(None).unwrap().effective.contains(NET_RAW));
            }
        });
    }

    #[test]
    fn without_it_the_error_names_the_mend() {
        in_thread(|| {
            let nothing = CapabilitySet::empty();
            set_capabilities(None, CapabilitySets { effective: nothing, permitted: nothing, inheritable: nothing })
                .unwrap();
            let error = PacketSocket::check_permission().unwrap_err();
            assert!(matches!(error, OpenSocketError::Permission { .. }), "{error:?}");
            assert!(error.to_string().contains("add NET_RAW"), "{error}");
        });
    }

    #[test]
    fn it_is_lowered_again_when_the_work_panics() {
        in_thread(|| {
            lower_net_raw().unwrap();
            let panicked = std::panic::catch_unwind(|| with_net_raw(|| panic!("the work fails")));
            assert!(panicked.is_err());
            assert!(!capabilities(None).unwrap().effective.contains(NET_RAW));
        });
    }

    /// Capabilities that are given up are gone for the thread.
    fn in_thread(test: fn()) {
        thread::spawn(test).join().unwrap();
    }
}
