//! What can be done to hosts.

use std::time::Instant;

use garpike_election::NodeState;
use garpike_membership::Key;
use rand::RngExt as _;

use super::{LastHeard, Recorded, World};
use crate::sim::host::{PausedClock, Power, Release, Speaker};

impl World {
    /// The host dies: nothing of it is heard again, and nothing reaches it.
    pub(in crate::sim) fn crash(&mut self, index: usize) {
        if let Some(host) = self.hosts.get_mut(index) {
            host.die();
        }
        self.reality_changed();
    }

    /// The process of the speaker ends at once; the kernel lives.
    pub(in crate::sim) fn kill(&mut self, index: usize) {
        if let Some(host) = self.hosts.get_mut(index) {
            host.kill_speaker();
        }
        self.reality_changed();
    }

    /// Tells the speaker to end; it hands over first.
    pub(in crate::sim) fn terminate(&mut self, index: usize) {
        let now = self.clock.now;
        if let Some(host) = self.hosts.get_mut(index).filter(|host| host.runs()) {
            let local = host.local(now);
            host.process.terminate(local);
        }
        self.collect(index);
    }

    /// Starts a new process on a host without one; a dead host boots.
    pub(in crate::sim) fn start(&mut self, index: usize) {
        let seed = self.rng.random();
        if let Some(host) = self.hosts.get_mut(index) {
            host.start_speaker(&self.plan, seed, self.clock.now);
            host.wake_at = None;
        }
        self.judge.forget(index);
        self.reality_changed();
        self.collect(index);
    }

    /// Stops the process without ending it.
    pub(in crate::sim) fn freeze(&mut self, index: usize) {
        if let Some(host) = self.hosts.get_mut(index).filter(|host| host.runs()) {
            host.speaker = Speaker::Frozen;
        }
        self.reality_changed();
    }

    /// Lets a stopped process go on.
    pub(in crate::sim) fn thaw(&mut self, index: usize) {
        if let Some(host) = self.hosts.get_mut(index).filter(|host| host.speaker == Speaker::Frozen) {
            host.speaker = Speaker::Running;
        }
        self.catch_up(index);
    }

    /// Does not schedule the virtual machine any more.
    pub(in crate::sim) fn pause(&mut self, index: usize) {
        if let Some(host) = self.hosts.get_mut(index).filter(|host| host.power == Power::On) {
            host.power = Power::Paused;
            self.paused_since.insert(index, self.clock.now);
        }
        self.reality_changed();
    }

    /// Lets a paused machine go on.
    pub(in crate::sim) fn resume(&mut self, index: usize, clock: PausedClock) {
        if let (Some(host), Some(since)) = (self.hosts.get_mut(index), self.paused_since.remove(&index)) {
            host.resume(since, clock, self.clock.now);
        }
        self.catch_up(index);
    }

    /// Sets the state that a speaker tells the others.
    pub(in crate::sim) fn set_state(&mut self, index: usize, state: NodeState) {
        let now = self.clock.now;
        if let Some(host) = self.hosts.get_mut(index).filter(|host| host.runs()) {
            let local = host.local(now);
            host.process.set_state(state, local);
        }
        self.collect(index);
    }

    /// The source of keys of a running speaker holds this one and no other.
    pub(in crate::sim) fn set_key(&mut self, index: usize, key: Key) {
        let now = self.clock.now;
        if let Some(host) = self.hosts.get_mut(index).filter(|host| host.runs()) {
            let local = host.local(now);
            host.process.set_key(key, local);
        }
        self.collect(index);
    }

    /// Installs the next version on a host; the next process of the speaker is one of it.
    pub(in crate::sim) fn upgrade(&mut self, index: usize) {
        if let Some(host) = self.hosts.get_mut(index) {
            host.release = Release::Next;
        }
    }

    /// Sets the wall clock of a host to wrong by so much.
    pub(in crate::sim) fn set_wall_clock(&mut self, index: usize, offset_millis: i64) {
        if let Some(host) = self.hosts.get_mut(index) {
            host.set_wall_clock(offset_millis);
        }
    }

    /// Begins to note when who last got a datagram of a host.
    pub(in crate::sim) fn listen_for(&mut self, index: usize) {
        self.last_heard = Some(LastHeard { of: index, by: vec![None; self.hosts.len()] });
    }

    /// When each host that hears the one of [`Self::listen_for`] regularly last did; who has not for `recently` does not.
    pub(in crate::sim) fn heard_since(&self, recently: Instant) -> Vec<Instant> {
        let by = self.last_heard.iter().flat_map(|heard| heard.by.iter());
        by.filter_map(|at| at.filter(|at| *at >= recently)).collect()
    }

    /// Keeps copies of all datagrams from here on, up to a limit.
    pub(in crate::sim) fn record(&mut self) {
        self.recorded = Some(Vec::new());
    }

    /// What was recorded so far.
    pub(in crate::sim) fn recorded(&self) -> &[Recorded] {
        self.recorded.as_deref().unwrap_or_default()
    }

    /// The present instant.
    pub(in crate::sim) fn now(&self) -> Instant {
        self.clock.now
    }

    /// A speaker that was held up reads what has come before it looks at its timers.
    fn catch_up(&mut self, index: usize) {
        let now = self.clock.now;
        if let Some(host) = self.hosts.get_mut(index).filter(|host| host.runs()) {
            host.catch_up(now);
            if host.poll_timeout().is_some_and(|due| due <= now) {
                host.handle_timeout(now);
            }
            host.wake_at = None;
        }
        self.reality_changed();
        self.collect(index);
    }

    fn reality_changed(&mut self) {
        self.judge.reality_changed(&self.hosts);
        self.changed = true;
    }
}
