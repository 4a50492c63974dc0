//! Speakers of several versions.

use std::time::Duration;

use super::Run;
use super::speakers::{ENDED_WITHIN, ROLLED_MAX};
use crate::sim::host::HostAddress;
use crate::sim::world::Recorded;

impl Run {
    /// A rolling upgrade that rests when half of the speakers are upgraded. All act by the lowest level. Meanwhile somebody
    /// speaks a format that nobody knows.
    pub(super) fn version_skew(&mut self) {
        let hosts: Vec<usize> = self.all().into_iter().take(ROLLED_MAX).collect();
        for (done, host) in hosts.iter().enumerate() {
            if done == hosts.len() / 2 {
                self.hear_a_stranger();
                self.world.advance(HALF_WAY);
                self.judge_levels();
            }
            self.world.terminate(*host);
            self.world.advance(ENDED_WITHIN);
            let gone = self.lasts(Duration::from_millis(500)..Duration::from_secs(3));
            self.world.advance(gone);
            self.world.upgrade(*host);
            self.world.start(*host);
            self.recover();
            self.judge_levels();
        }
        self.judge_wire();
        self.judge_kept();
    }

    /// Every speaker acts by the lowest level of all.
    fn judge_levels(&mut self) {
        let lowest = self.world.hosts().iter().map(|host| host.release.level()).min();
        let wrong = self.world.hosts().iter().filter(|host| host.runs());
        let wrong = wrong.filter(|host| Some(host.process.cluster.feature_level()) != lowest);
        let wrong: Vec<String> = wrong.map(|host| host.name.to_string()).collect();
        if !wrong.is_empty() {
            self.found(LOWEST_LEVEL, format!("{} do not, it is {lowest:?}", wrong.join(", ")));
        }
    }

    /// The victim hears datagrams of an unknown version, and says so.
    fn hear_a_stranger(&mut self) {
        let from = HostAddress { index: self.world.hosts().len(), rack: 0 };
        for number in 0..STRANGE {
            let bytes = [vec![UNKNOWN_VERSION], vec![number; 100]].concat();
            self.world.forge(Recorded { from, to: self.victim, bytes });
        }
        self.world.advance(Duration::from_millis(100));
        let Some(victim) = self.world.hosts().get(self.victim) else { return };
        let status = victim.process.cluster.status();
        let counted = status.rejected.iter().find(|rejected| rejected.reason == REASON).map(|rejected| rejected.count);
        let complained = status.complaints.iter().any(|complaint| complaint.reason == REASON);
        if counted != Some(u64::from(STRANGE)) || !complained {
            self.found(STRANGERS_ARE_NAMED, format!("of {STRANGE} counted {counted:?}, complained: {complained}"));
        }
    }
}

const LOWEST_LEVEL: &str = "every speaker acts by the lowest feature level of all";
const STRANGERS_ARE_NAMED: &str = "datagrams of an unknown version are counted and complained of";
const REASON: &str = "unknown_version";
/// The first byte of no datagram of this version.
const UNKNOWN_VERSION: u8 = 0x48;
/// Chosen: enough to be a peer, and not one lost datagram.
const STRANGE: u8 = 100;
/// Longer than between two exchanges of states.
const HALF_WAY: Duration = Duration::from_secs(35);
