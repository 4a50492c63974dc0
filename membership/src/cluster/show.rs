//! The cluster as people see it.

use std::time::Instant;

use super::Cluster;
use crate::config::SHOW_DEAD;
use crate::{Complaint, DeadStatus, Liveness, MemberStatus, Rejected, RejectedStatus, Sealing, Status, status};

impl Cluster {
    /// What people want to know of the cluster.
    pub fn status(&self) -> Status {
        let identity = self.swim.identity();
        let seconds_ago = |at: Instant| self.now.saturating_duration_since(at).as_secs_f64();
        let (names, addrs) = self.active_names_and_addrs();
        Status {
            local: identity.name.clone(),
            generation: identity.generation,
            process: identity.process,
            gossip: identity.gossip,
            state: self.own.state,
            connected: self.connected,
            key_id: match &self.config.sealing {
                Sealing::Sealed(key) => Some(key.id().to_string()),
                Sealing::InsecurePlaintext => None,
            },
            missing_seeds: self.seeds.missing(&names, &addrs),
            members: self.member_statuses(),
            dead: (self.dead.values())
                .filter(|dead| self.now.saturating_duration_since(dead.at) < SHOW_DEAD)
                .map(|dead| DeadStatus {
                    name: dead.identity.name.clone(),
                    gossip: dead.identity.gossip,
                    generation: dead.identity.generation,
                    seconds_ago: seconds_ago(dead.at),
                    last_state: dead.last_state,
                })
                .collect(),
            rejected: (self.rejections.iter())
                .map(|(rejected, rejection)| RejectedStatus {
                    reason: rejected.reason(),
                    count: rejection.count,
                    last_from: rejection.last_from,
                    seconds_ago: seconds_ago(rejection.last_at),
                })
                .collect(),
            complaints: self.complaints(),
        }
    }

    fn member_statuses(&self) -> Vec<MemberStatus> {
        let mut members: Vec<_> = (self.swim.active())
            .map(|member| {
                let identity = member.id();
                let facts = self.book.of(identity);
                MemberStatus {
                    name: identity.name.clone(),
                    gossip: identity.gossip,
                    generation: identity.generation,
                    liveness: match member.state() {
                        foca::State::Alive => Liveness::Alive,
                        foca::State::Suspect | foca::State::Down => Liveness::Suspect,
                    },
                    state: facts.map(|facts| facts.state),
                    interfaces: facts.and_then(|facts| status::names(facts.interfaces())),
                }
            })
            .collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members
    }

    fn complaints(&self) -> Vec<Complaint> {
        let seconds_ago = |at: Instant| self.now.saturating_duration_since(at).as_secs_f64();
        let rejected = self.rejections.iter().filter_map(|(rejected, rejection)| {
            let seconds_ago = seconds_ago(rejection.last_at);
            Some(Complaint {
                reason: rejected.reason(),
                source: rejection.last_from,
                mend: rejected.mend()?,
                seconds_ago,
            })
        });
        let twin = self.twin.and_then(|twin| {
            let mend = Rejected::OwnName.mend()?;
            Some(Complaint { reason: "name_conflict", source: twin.at, mend, seconds_ago: seconds_ago(twin.heard) })
        });
        rejected.chain(twin).collect()
    }
}
