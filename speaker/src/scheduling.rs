//! Real-time scheduling, for `--profile fast`: its timers must never be late.

use std::io;

use garpike_announcer::io as announcer_io;
use thread_priority::{
    Error, RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id, thread_schedule_policy,
};

/// Has this thread scheduled before all ordinary ones, and those that it starts from then on.
///
/// # Errors
///
/// When the kernel does not let it: without CAP_SYS_NICE (and without a limit RLIMIT_RTPRIO), or in a control group that
/// has no share of real time.
pub(crate) fn become_real_time() -> io::Result<()> {
    if is_real_time() {
        return Ok(());
    }
    let fifo = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    // The lowest priority: before all ordinary threads, behind all others that somebody chose.
    let set = || set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, fifo);
    announcer_io::with_sys_nice(set).map_err(|error| match error {
        Error::OS(code) => io::Error::from_raw_os_error(code),
        Error::Priority(_) | Error::PriorityNotInRange(_) | Error::Ffi(_) => io::Error::other(error.to_string()),
    })
}

/// Whether this thread is.
fn is_real_time() -> bool {
    matches!(thread_schedule_policy(), Ok(ThreadSchedulePolicy::Realtime(_)))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn who_became_real_time_is_and_so_is_what_it_starts() {
        let in_thread = || {
            let became = become_real_time();
            (became.is_ok(), is_real_time(), thread::spawn(is_real_time).join().unwrap())
        };
        let (became, is, heir) = thread::spawn(in_thread).join().unwrap();

        // Whether it may is not up to the test.
        assert_eq!((is, heir), (became, became));
        assert!(!is_real_time(), "only the thread that asked for it");
    }
}
