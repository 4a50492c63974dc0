//! The cluster as people see it.

use std::time::{Duration, Instant};

use super::Cluster;
use crate::config::SHOW_DEAD;
use crate::facts::Facts;
use crate::peers::{End, Peer};
use crate::{Complaint, DeadStatus, FeatureLevel, MemberStatus, Rejected, RejectedStatus, Status, metrics, status};

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
            dark: !self.peers.is_empty() && self.watching.is_dark(self.now),
            feature_level: self.feature_level(),
            key_id: self.config.sealing.keyring().map(|keyring| keyring.newest().id().to_string()),
            sealing: self.config.sealing.as_str(),
            keys: status::keys(&self.config.sealing),
            key_complaints: self.keys.complaints.clone(),
            missing_seeds: self.seeds.missing(&names, &addrs),
            members: self.member_statuses(),
            dead: (self.peers.iter_dead())
                .filter(|dead| self.now.saturating_duration_since(dead.at) < SHOW_DEAD)
                .map(|dead| DeadStatus {
                    name: dead.identity.name.clone(),
                    gossip: dead.identity.gossip,
                    generation: dead.identity.generation,
                    seconds_ago: seconds_ago(dead.at),
                    last_state: dead.last_state,
                    host_dead: dead.end == End::HostDead,
                    deaths: dead.deaths,
                })
                .collect(),
            rejected: (self.rejections.iter())
                .map(|(rejected, rejection)| RejectedStatus {
                    reason: rejected.reason(),
                    count: rejection.count,
                    last_from: rejection.last_from.clone(),
                    seconds_ago: seconds_ago(rejection.last_at),
                })
                .collect(),
            complaints: self.complaints(),
        }
    }

    /// The level of features that every living member has.
    pub fn feature_level(&self) -> FeatureLevel {
        let others = self.peers.iter().filter_map(|peer| Some(self.book.of(&peer.identity)?.level));
        others.fold(self.own.level, FeatureLevel::min)
    }

    /// Hands what was counted to the recorder of metrics; cheap, and wanted now and then.
    pub fn report_metrics(&self) {
        self.traffic.report();
        self.rejections.report();
        let blocked = self.peers.iter().filter(|peer| peer.udp_blocked.is_some()).count();
        metrics::udp_blocked(blocked + self.reached.len());
    }

    fn member_statuses(&self) -> Vec<MemberStatus> {
        let since = |at: Instant| self.now.saturating_duration_since(at).as_secs_f64();
        let member = |peer: &Peer| {
            let identity = &peer.identity;
            let facts = self.book.of(identity);
            MemberStatus {
                name: identity.name.clone(),
                gossip: identity.gossip,
                generation: identity.generation,
                presence: peer.presence(),
                away_seconds: peer.away.as_ref().map(|away| since(away.since)),
                heard_ms_ago: peer.heard.map(|at| since(at) * 1000.0),
                udp_blocked_seconds: peer.udp_blocked.map(since),
                watch: self.watching.status(&identity.name),
                state: facts.map(|facts| facts.state),
                interfaces: facts.and_then(|facts| status::names(facts.interfaces())),
                keys: facts.map(|facts| facts.keys().collect()),
                software: facts.map(Facts::software),
            }
        };
        self.peers.iter().map(member).collect()
    }

    fn complaints(&self) -> Vec<Complaint> {
        let seconds_ago = |at: Instant| self.now.saturating_duration_since(at).as_secs_f64();
        let rejected = self.rejections.iter().filter_map(|(rejected, rejection)| {
            let seconds_ago = seconds_ago(rejection.last_at);
            Some(Complaint {
                reason: rejected.reason(),
                source: rejection.last_from.clone(),
                mend: rejected.mend()?,
                seconds_ago,
            })
        });
        let twin = self.twin.as_ref().and_then(|twin| {
            let mend = Rejected::OwnName.mend()?;
            Some(Complaint {
                reason: "name_conflict",
                source: twin.at.into(),
                mend,
                seconds_ago: seconds_ago(twin.heard),
            })
        });
        let blocked = self.peers.iter().filter_map(|peer| {
            let since = peer.udp_blocked.filter(|at| self.now.saturating_duration_since(*at) >= COMPLAIN_AFTER)?;
            Some((peer.identity.gossip, since))
        });
        let blocked = blocked.chain(self.reached.iter().map(|(seed, at)| (*seed, *at)));
        let blocked = blocked.map(|(gossip, since)| Complaint {
            reason: "udp_blocked",
            source: gossip.into(),
            mend: "the speaker there lives, but its datagrams do not arrive: let UDP 7946 pass between all nodes",
            seconds_ago: seconds_ago(since),
        });
        rejected.chain(twin).chain(blocked).collect()
    }
}

/// A loss or two are nothing to complain of.
const COMPLAIN_AFTER: Duration = Duration::from_secs(2);
